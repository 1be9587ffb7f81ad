import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from medistill.augment import augment, draw_augmentation
from medistill.buffer import Buffer
from medistill.distill import distill
from medistill.errors import RecipeError
from medistill.jobs import Silence
from medistill.matching.distribution import mean_distance
from medistill.matching.gradient import slope_distance
from medistill.networks import build
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
