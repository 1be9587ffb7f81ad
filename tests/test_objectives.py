import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import medistill.objectives
from medistill.augment import augment, draw_augmentation
from medistill.buffer import Buffer
from medistill.distill import distill
from medistill.errors import RecipeError
from medistill.jobs import Silence
from medistill.matching.distribution import mean_distance
from medistill.matching.gradient import slope_distance
from medistill.networks import FlatNetwork, build
from medistill.objectives import Matched, Point, last_start_epoch, matched
from medistill.recipe import AugmentSettings
from medistill.train import TrainingSet
from toys import NO_AUGMENT, TRANSFORM, films, recipe, splits

NO_TEACHERS = Buffer.__new__(Buffer)
WITHOUT_TEACHERS = ("soft-label", "dm", "dsa")


def real() -> TrainingSet:
    return TrainingSet.of(films(), TRANSFORM)


def point(seed: int = 0, number: int = 1) -> Point:
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return Point(number, images, torch.eye(2).repeat_interleave(2, 0), torch.tensor(math.log(0.05)))


def of_unequal_classes() -> tuple[Point, TrainingSet]:
    """A set of one image of the first class and three of the second, beside five and nine real ones."""
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(7))
    targets = torch.eye(2)[[0, 1, 1, 1]]
    return Point(1, images, targets, torch.tensor(math.log(0.5))), TrainingSet.of(films((5, 9)), TRANSFORM)


def of_class(data: TrainingSet, index: int) -> Tensor:
    return data.batch(torch.nonzero(data.targets[:, index])[:, 0])[0]


def at(objective: str, where: Point | None = None, **changes: object) -> Matched:
    toy = recipe({"distill.objective": objective} | {key.replace("__", "."): value for key, value in changes.items()})
    return matched(toy, where or point(), real(), NO_TEACHERS)


def test_mean_features_are_compared_by_their_squared_distance():
    draw = np.random.default_rng(0)
    theirs, ours = draw.standard_normal((7, 5)), draw.standard_normal((3, 5))
    expected = ((theirs.mean(0) - ours.mean(0)) ** 2).sum()
    assert float(mean_distance(torch.from_numpy(theirs), torch.from_numpy(ours))) == pytest.approx(expected, rel=1e-12)


def test_slopes_are_compared_by_the_direction_of_every_output():
    draw = np.random.default_rng(0)
    shapes = ((4, 2, 3, 3), (4,), (3, 6))
    theirs, ours = ([draw.standard_normal(shape) for shape in shapes] for _ in range(2))
    expected = 0.0
    for a, b in ((theirs[0], ours[0]), (theirs[2], ours[2])):
        for row, own in zip(a.reshape(len(a), -1), b.reshape(len(b), -1), strict=True):
            expected += 1 - row @ own / np.linalg.norm(row) / np.linalg.norm(own)
    found = slope_distance(*([torch.from_numpy(each) for each in slope] for slope in (theirs, ours)))
    assert float(found) == pytest.approx(expected, rel=1e-10)


class Softmax(nn.Module):
    """A student that ten lines of numpy can be: logits are a product of the pixels, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(64, 2)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(images.flatten(1))
        return logits


def odds(weight: np.ndarray, bias: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    powers = np.exp(pixels @ weight.T + bias)
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("steps", [1, 2])
def test_soft_labels_are_judged_by_a_softmax_student_after_its_last_step_on_real_images(monkeypatch, steps):
    student = FlatNetwork(Softmax())
    start = torch.randn(130, generator=torch.Generator().manual_seed(1)) / 8
    monkeypatch.setattr(medistill.objectives, "build", lambda *_: student)
    monkeypatch.setattr(student, "initial", lambda seed: start)
    where, _ = of_unequal_classes()
    where = dataclasses.replace(where, targets=torch.tensor([[0.8, 0.2], [0.1, 0.9], [0.3, 0.7], [0.0, 1.0]]))
    toy = recipe(NO_AUGMENT | {"distill.objective": "soft-label", "distill.student_steps": steps})
    found = matched(toy, where, real(), NO_TEACHERS).gradient

    weight, bias = start.double().numpy()[:128].reshape(2, 64), start.double().numpy()[128:]
    pixels, targets = where.images.double().numpy().reshape(4, 64), where.targets.double().numpy()
    for _ in range(steps):
        pull = (odds(weight, bias, pixels) - targets) / 4
        weight, bias = weight - 0.5 * pull.T @ pixels, bias - 0.5 * pull.sum(0)
    theirs = (films().pixels.reshape(24, 64) / 255 - 0.4) / 0.2
    expected = -np.log(odds(weight, bias, theirs)[np.arange(24), films().labels]).mean()
    assert np.allclose(found.end, np.concatenate([weight.ravel(), bias]), atol=1e-5)
    assert float(found.value) == pytest.approx(expected, rel=1e-5)


def test_distribution_matching_adds_up_the_distances_of_every_class():
    where, theirs = of_unequal_classes()
    toy = recipe(NO_AUGMENT | {"distill.objective": "dm"})
    found = matched(toy, where, theirs, NO_TEACHERS).gradient
    network = build(toy.network, 1, 8, 2)

    def mean(images: Tensor) -> np.ndarray:
        return network.features(found.end, images).detach().double().numpy().mean(0)

    distances = [
        ((mean(of_class(theirs, index)) - mean(where.images[where.targets[:, index] == 1])) ** 2).sum()
        for index in range(2)
    ]
    assert float(found.value) == pytest.approx(sum(distances), rel=1e-4)
    assert max(distances) < 0.9 * sum(distances)  # no class is so much of it that the other could be missing


def test_gradient_matching_adds_up_the_distances_of_every_class_row_by_row():
    where, theirs = of_unequal_classes()
    toy = recipe(NO_AUGMENT | {"distill.objective": "dsa", "distill.max_start_epoch": 0})
    found = matched(toy, where, theirs, NO_TEACHERS).gradient
    module = build(toy.network, 1, 8, 2).module_at(found.end).double()

    def pull(images: Tensor, index: int) -> list[np.ndarray]:
        loss = functional.cross_entropy(module(images.double()), torch.full((len(images),), index))
        slopes = torch.autograd.grad(loss, list(module.parameters()))
        return [row for slope in slopes if slope.dim() > 1 for row in slope.flatten(1).numpy()]

    distances = []
    for index in range(2):
        pairs = zip(
            pull(of_class(theirs, index), index), pull(where.images[where.targets[:, index] == 1], index), strict=True
        )
        distances.append(sum(1 - one @ other / np.linalg.norm(one) / np.linalg.norm(other) for one, other in pairs))
    assert float(found.value) == pytest.approx(sum(distances), rel=1e-4)
    assert max(distances) < 0.9 * sum(distances)


@pytest.mark.parametrize("objective", WITHOUT_TEACHERS)
def test_the_gradient_to_pixels_is_that_of_finite_differences(objective):
    where = point()
    found = at(objective, where).gradient
    direction = torch.randn(where.images.shape, generator=torch.Generator().manual_seed(1))
    step = 5e-4  # larger ones meet kinks of the ReLU

    def value(sign: int) -> float:
        moved = dataclasses.replace(where, images=where.images + sign * step * direction)
        return float(at(objective, moved).gradient.value)

    slope = (value(1) - value(-1)) / (2 * step)
    assert slope == pytest.approx(float((found.images * direction).sum()), rel=0.05)


@pytest.mark.parametrize("objective", WITHOUT_TEACHERS)
def test_the_same_step_draws_the_same_and_another_step_something_else(objective):
    first, again, other = at(objective), at(objective), at(objective, point(number=2))
    assert torch.equal(first.gradient.images, again.gradient.images)
    assert not torch.equal(first.gradient.images, other.gradient.images)


@pytest.mark.parametrize("objective", WITHOUT_TEACHERS)
def test_descending_lowers_the_objective_without_a_teacher(objective):
    toy = recipe(
        NO_AUGMENT
        | {
            "distill.objective": objective,
            "distill.outer_steps": 40,
            "distill.start": "noise",
            "distill.student_steps": 5,
            "distill.inner_rate": 0.1,
            "distill.image_rate": 0.1,
            "distill.max_start_epoch": 0,
            "distill.validate_every": 100,
        }
    )
    values = [outcome.value for outcome in distill(toy, splits(), TRANSFORM, NO_TEACHERS, None, 1, Silence()).log[1:]]
    assert np.mean(values[-10:]) < 0.9 * np.mean(values[:10])


def test_soft_labels_learn_pixels_labels_and_rate():
    gradient = at("soft-label").gradient
    assert all(bool(each.any()) for each in (gradient.images, gradient.targets, gradient.log_rate))


def test_soft_labels_see_every_class_as_often_however_rare_it_is():
    def value(images_of_each: list[int]) -> float:
        labels = np.repeat([0, 1], images_of_each)
        alike = dataclasses.replace(films((1, 1)), pixels=films((1, 1)).pixels[labels], labels=labels, groups=None)
        toy = recipe({"distill.objective": "soft-label", "distill.real_batch": 8})
        return float(matched(toy, point(), TrainingSet.of(alike, TRANSFORM), NO_TEACHERS).gradient.value)

    assert value([40, 4]) == pytest.approx(value([4, 4]), rel=1e-6)


@pytest.mark.parametrize("objective", ["dm", "dsa"])
def test_comparing_classes_leaves_labels_and_rate_as_they_are(objective):
    gradient = at(objective).gradient
    assert not gradient.targets.any()
    assert not gradient.log_rate.any()
    with pytest.raises(RecipeError, match=rf"objective = '{objective}' compares .* set learn_labels = false"):
        recipe({"distill.objective": objective, "distill.learn_labels": True})


def test_distribution_matching_is_at_rest_where_the_set_is_the_class():
    images, labels = films((6, 6)).pixels, films((6, 6)).labels
    order = np.argsort(labels, kind="stable")
    whole = TrainingSet.of(films((6, 6)), TRANSFORM)
    theirs, _ = whole.batch(torch.from_numpy(order))
    where = Point(1, theirs, torch.eye(2).repeat_interleave(len(images) // 2, 0), torch.tensor(0.0))
    found = matched(recipe({"distill.objective": "dm"}), where, whole, NO_TEACHERS)
    assert float(found.gradient.value) == pytest.approx(0, abs=1e-9)


def test_a_single_draw_moves_every_image_alike():
    settings = AugmentSettings(cutout=0.3, flip=True)
    one = draw_augmentation(settings, 1, 5)
    assert one is not None
    image = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    many = augment(image.repeat(3, 1, 1, 1), one.repeated(3))
    assert all(torch.equal(each, augment(image, one)[0]) for each in many)


def test_gradient_matching_begins_where_training_on_the_set_leads():
    """After no round the network is fresh; after some it answers the set better."""

    def loss_after(rounds: int) -> float:
        for number in range(1, 50):
            found = at("dsa", point(number=number), distill__max_start_epoch=1, distill__student_steps=40)
            if found.start_epoch == rounds:
                toy = recipe({"distill.objective": "dsa"})
                network = build(toy.network, 1, 8, 2)
                logits: Tensor = network(found.gradient.end, point().images)
                return float(torch.nn.functional.cross_entropy(logits, point().targets.argmax(1)))
        raise AssertionError(rounds)

    assert loss_after(1) < 0.9 * loss_after(0)


def test_the_window_of_start_epochs_grows_in_a_straight_line_to_its_end():
    window = {"distill.max_start_epoch": 9, "distill.first_max_start_epoch": 3, "distill.window_steps": 6}
    settings = recipe({"teachers.epochs": 12} | window).distill
    assert [last_start_epoch(settings, number) for number in range(1, 9)] == [4, 5, 6, 7, 8, 9, 9, 9]
    assert last_start_epoch(recipe({"teachers.epochs": 12, "distill.max_start_epoch": 9}).distill, 1) == 9


@pytest.mark.parametrize(
    "changes",
    [
        {"distill.min_start_epoch": 2, "distill.max_start_epoch": 1},
        {"distill.window_steps": 5, "distill.first_max_start_epoch": 2},
        {"distill.angle_weight": 1.0, "distill.student_steps": 1},
        {"distill.angle_weight": 1.0, "distill.expert_epochs": 1},
        {"distill.label_start": "teachers", "distill.objective": "soft-label", "distill.learn_labels": True},
        {"distill.label_start": "teachers"},
        {"teachers.logit_adjustment": 1.0, "teachers.sampling": "balanced"},
        {"teachers.surrogate_gap": 1.0},
    ],
)
def test_settings_that_contradict_one_another_are_refused(changes):
    with pytest.raises(RecipeError):
        recipe(changes)
