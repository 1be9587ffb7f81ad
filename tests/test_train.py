import dataclasses
import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from medistill.errors import MatchingError
from medistill.images import LabelledImages
from medistill.networks import FlatNetwork, build
from medistill.package import Transform
from medistill.recipe import ARCHITECTURES, AugmentSettings, NetworkSettings, Recipe
from medistill.train import (
    Optimization,
    State,
    TrainingSet,
    even_batch,
    fresh,
    normalized,
    predict,
    shown_together,
    train,
)
from toys import TRANSFORM, films

NO_AUGMENTATION = AugmentSettings(rotate_degrees=0, scale=0, shift=0, brightness=0, contrast=0)
HOW = Optimization(
    rate=0.05,
    epochs=4,
    batch_size=8,
    momentum=0.9,
    weight_decay=0.01,
    cosine=False,
    sampling="natural",
    augment=AugmentSettings(),
)
SEED_FOR = Recipe(seed=1).seed_for


def how(**changes: object) -> Optimization:
    return dataclasses.replace(HOW, **changes)


def convnet(classes: int = 2) -> FlatNetwork:
    return build(NetworkSettings(width=4, depth=2), 1, 8, classes)


class Linear(nn.Module):
    """Softmax regression that notes what it was shown."""

    def __init__(self, pixels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(pixels, classes)
        self.seen: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images.detach().clone())
        return self.linear(images.flatten(1))


def softmax_student(
    params: np.ndarray, x: np.ndarray, y: np.ndarray, optimization: Optimization
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Softmax regression by gradient descent with momentum and weight decay on all images: parameters, average."""
    average = params
    weights, bias = params[: x.shape[1] * y.shape[1]].reshape(y.shape[1], -1), params[x.shape[1] * y.shape[1] :]
    velocity = np.zeros_like(params)
    prior = optimization.logit_adjustment * np.log(y.mean(0))

    def slope_at(weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
        scores = np.exp(x @ weights.T + bias + prior)
        wrong = scores / scores.sum(1, keepdims=True) - y
        return np.concatenate([(wrong.T @ x / len(x)).ravel(), wrong.mean(0)])

    for step in range(optimization.epochs):
        slope = slope_at(weights, bias)
        if optimization.sharpness_radius > 0:
            uphill = optimization.sharpness_radius * slope / np.linalg.norm(slope)
            sharp = slope_at(weights + uphill[: weights.size].reshape(weights.shape), bias + uphill[weights.size :])
            across = slope - (slope @ sharp) / (sharp @ sharp) * sharp
            slope = sharp - optimization.surrogate_gap * across
        velocity = optimization.momentum * velocity + slope + optimization.weight_decay * params
        fall = (1 + math.cos(math.pi * step / optimization.epochs)) / 2 if optimization.cosine else 1
        params = params - optimization.rate * fall * velocity
        decay = min(optimization.average, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * params
        weights, bias = params[: weights.size].reshape(weights.shape), params[weights.size :]
        yield params, average


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"average": 0.15},
        {"logit_adjustment": 1.5},
        {"sharpness_radius": 0.2},
        {"sharpness_radius": 0.2, "surrogate_gap": 0.7, "logit_adjustment": 1.0},
    ],
)
def test_a_softmax_student_learns_what_one_written_in_numpy_learns(cosine, soft, changes):
    draw = np.random.default_rng(0)
    x, y = draw.standard_normal((7, 1, 2, 3)), np.eye(3)[[0, 1, 2, 2, 1, 0, 0]]
    y = 0.8 * y + 0.2 / 3 if soft else y
    settings = how(epochs=3, batch_size=7, rate=0.3, cosine=cosine, augment=NO_AUGMENTATION, **changes)
    start = torch.from_numpy(draw.standard_normal(3 * 6 + 3))
    data = TrainingSet(torch.from_numpy(x), torch.from_numpy(y), TRANSFORM)
    ours = train(FlatNetwork(Linear(6, 3)), State(0, start, torch.zeros_like(start), start), data, settings, SEED_FOR)
    theirs = softmax_student(start.numpy(), x.reshape(7, 6), y, settings)
    for state, (params, mean) in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(state.params.numpy(), params, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(state.average.numpy(), mean, rtol=1e-12, atol=1e-14)


def test_every_yielded_state_owns_its_memory():
    network = convnet()
    states = []
    copies = []
    for state in train(network, fresh(network, 0), TrainingSet.of(films(), TRANSFORM), HOW, SEED_FOR):
        states.append(state)
        copies.append((state.params.clone(), state.velocity.clone(), state.average.clone()))
    assert len({state.params.data_ptr() for state in states}) == 4
    for state, (params, velocity, average) in zip(states, copies, strict=True):
        assert torch.equal(state.params, params)
        assert torch.equal(state.velocity, velocity)
        assert torch.equal(state.average, average)
    for one, two in itertools.pairwise(states):
        assert not torch.equal(one.params, two.params)


def test_the_first_state_is_not_touched():
    network = convnet()
    start = fresh(network, 0)
    before = start.params.clone()
    list(train(network, start, TrainingSet.of(films(), TRANSFORM), HOW, SEED_FOR))
    assert torch.equal(start.params, before)
    assert not start.velocity.any()


def test_a_training_resumed_from_any_state_repeats_the_rest_to_the_bit():
    network, data = convnet(), TrainingSet.of(films(), TRANSFORM)
    settings = how(cosine=True, average=0.8)
    whole = list(train(network, fresh(network, 0), data, settings, SEED_FOR))
    for state in whole[:-1]:
        resumed = list(train(network, state, data, settings, SEED_FOR))
        assert [later.epoch for later in resumed] == list(range(state.epoch + 1, 5))
        assert torch.equal(resumed[-1].params, whole[-1].params)
        assert torch.equal(resumed[-1].velocity, whole[-1].velocity)
        assert torch.equal(resumed[-1].average, whole[-1].average)


def test_a_training_that_is_done_does_nothing_more():
    network = convnet()
    done = dataclasses.replace(fresh(network, 0), epoch=4)
    assert list(train(network, done, TrainingSet.of(films(), TRANSFORM), HOW, SEED_FOR)) == []


def shown(counts: tuple[int, ...], sampling: str, epochs: int = 1) -> list[np.ndarray]:
    """How often each image was shown in each epoch; every image is known by its one pixel."""
    n = sum(counts)
    labels = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
    targets = nn.functional.one_hot(labels).float()
    data = TrainingSet(torch.arange(float(n)).view(n, 1, 1, 1), targets, TRANSFORM)
    module = Linear(1, len(counts))
    settings = how(epochs=epochs, sampling=sampling, augment=NO_AUGMENTATION, rate=1e-6)
    seen = []
    start = torch.zeros(2 * len(counts))
    for _ in train(FlatNetwork(module), State(0, start, start, start), data, settings, SEED_FOR):
        seen.append(np.bincount(torch.cat(module.seen).flatten().long().numpy(), minlength=n))
        module.seen.clear()
    return seen


@pytest.mark.parametrize("counts", [(5, 100), (3, 7, 12), (1, 2, 40, 3), (4, 4, 4), (1, 1, 1, 20, 4)])
def test_balanced_sampling_shows_every_class_equally_often(counts):
    classes = np.repeat(np.arange(len(counts)), counts)
    for times in shown(counts, "balanced", epochs=6):
        per_class = np.bincount(classes, times)
        assert times.sum() == sum(counts)
        assert per_class.max() - per_class.min() <= 1


def test_balanced_sampling_shows_no_image_of_a_class_two_times_more_than_another():
    for times in shown((3, 60), "balanced", epochs=3):
        assert times[:3].max() - times[:3].min() <= 1
        assert times[3:].max() <= 1


def test_natural_sampling_shows_every_image_once():
    for times in shown((3, 20), "natural", epochs=3):
        assert (times == 1).all()


def test_every_epoch_has_an_order_of_its_own():
    network, data = convnet(), TrainingSet.of(films(), TRANSFORM)
    asked: list[str] = []

    def seed_for(purpose: str) -> int:
        asked.append(purpose)
        return SEED_FOR(purpose)

    list(train(network, fresh(network, 0), data, how(epochs=2), seed_for))
    assert len(asked) == len(set(asked)) == 2 * (1 + 3)  # an order, then a draw for each of three batches


def test_divergence_is_told_with_its_epoch_and_rate():
    network = convnet()
    with pytest.raises(MatchingError, match=r"diverged in epoch \d at rate 1e\+30\. Choose a smaller rate"):
        list(train(network, fresh(network, 0), TrainingSet.of(films(), TRANSFORM), how(rate=1e30), SEED_FOR))


def test_eight_bit_pixels_are_normalized_once_and_floats_never():
    pixels = films().pixels
    expected = (torch.from_numpy(pixels).float() / 255 - 0.4) / 0.2
    once = normalized(torch.from_numpy(pixels), TRANSFORM)
    assert torch.allclose(once, expected)
    assert normalized(once, TRANSFORM) is once
    every = torch.arange(len(pixels))
    from_bytes = TrainingSet.of(films(), TRANSFORM)
    from_floats = TrainingSet(once, from_bytes.targets, TRANSFORM)
    assert torch.equal(from_bytes.batch(every)[0], from_floats.batch(every)[0])


def test_every_channel_has_its_own_normalization():
    transform = Transform(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 1.0))
    black = normalized(torch.zeros(1, 3, 1, 1, dtype=torch.uint8), transform)
    assert black.flatten().tolist() == pytest.approx([-0.2, -0.8, -0.3])


def test_a_set_of_normalized_floats_trains_like_the_bytes_it_came_from():
    network = convnet()
    real = TrainingSet.of(films(), TRANSFORM)
    floats = TrainingSet(normalized(real.pixels, TRANSFORM), real.targets, TRANSFORM)
    ends = [list(train(network, fresh(network, 0), data, HOW, SEED_FOR))[-1].params for data in (real, floats)]
    assert torch.equal(*ends)


@pytest.mark.parametrize(("count", "most", "taken"), [(40, 128, 40), (128, 128, 128), (160, 128, 80), (257, 128, 86)])
def test_the_batch_of_a_pass_is_known_beforehand(count, most, taken):
    parts = np.array_split(np.arange(count), math.ceil(count / most))
    assert even_batch(count, most) == taken == max(len(part) for part in parts)


def test_hard_labels_are_known_from_soft_ones():
    real = TrainingSet.of(films(), TRANSFORM)
    assert real.has_hard_labels
    assert not TrainingSet(real.pixels, real.targets * 0.9 + 0.05, TRANSFORM).has_hard_labels


@pytest.mark.parametrize(("side", "together"), [(28, 512), (32, 512), (64, 128), (112, 41), (1024, 1)])
def test_large_images_are_shown_to_a_network_in_smaller_parts(side: int, together: int) -> None:
    images = torch.arange(together + 1).view(-1, 1, 1, 1).expand(-1, 1, side, side)
    parts = shown_together(images)
    assert [len(part) for part in parts] == [together, 1]
    assert torch.equal(torch.cat(parts)[:, 0, 0, 0], images[:, 0, 0, 0])


def test_predictions_are_probabilities_in_the_order_of_the_images():
    network, images = convnet(3), films((700, 3, 3))
    params = network.initial(0)
    found = predict(network, params, images, TRANSFORM)
    assert found.shape == (706, 3)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    for index in (0, 511, 512, 705):
        alone = predict(network, params, images.take(np.array([index])), TRANSFORM)
        np.testing.assert_allclose(found[index : index + 1], alone, atol=1e-5)


def test_a_network_learns_to_tell_the_toy_classes_apart():
    network, images = convnet(), films((20, 20))
    *_, last = train(network, fresh(network, 0), TrainingSet.of(images, TRANSFORM), how(epochs=8), SEED_FOR)
    unseen: LabelledImages = films((20, 20), seed=9)
    assert (predict(network, last.params, unseen, TRANSFORM).argmax(1) == unseen.labels).mean() > 0.9


def test_a_linear_probe_moves_the_classifier_alone():
    network, data = convnet(), TrainingSet.of(films(), TRANSFORM)
    start = fresh(network, 0)
    (end,) = train(network, start, data, how(epochs=1, only_head=True), SEED_FOR)
    moved = end.params != start.params
    assert not moved[: -network.head_size].any()
    assert moved[-network.head_size :].any()


def test_a_pretrained_network_begins_with_its_features_and_a_classifier_of_its_own():
    network = convnet()
    pretrained, afresh = torch.arange(float(network.size - network.head_size)), fresh(network, 3).params
    start = fresh(network, 3, pretrained).params
    assert torch.equal(start[: -network.head_size], pretrained)
    assert torch.equal(start[-network.head_size :], afresh[-network.head_size :])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_offsets_are_added_to_the_logits_of_every_architecture(architecture):
    settings = NetworkSettings(architecture=architecture, width=8, depth=2)
    network = build(settings, 1, 32, 3)
    params, images = network.initial(0), torch.randn(2, 1, 32, 32)
    data = TrainingSet(images, torch.eye(3)[:2], TRANSFORM, (0.5, -0.25, -0.25))
    moved = network(data.leveled(params), images) - network(params, images)
    torch.testing.assert_close(moved, torch.tensor([data.offsets] * 2), atol=1e-4, rtol=0)
    assert torch.equal(dataclasses.replace(data, offsets=()).leveled(params), params)
    assert dataclasses.replace(data, offsets=()).fingerprint() != data.fingerprint()


def test_offsets_of_joined_sets_count_by_the_number_of_images():
    data = TrainingSet.of(films((3, 3)), TRANSFORM)
    leaning = dataclasses.replace(TrainingSet.of(films((1, 1)), TRANSFORM), offsets=(0.8, -0.8))
    assert TrainingSet.joined([leaning, data]).offsets == pytest.approx((0.2, -0.2))
    assert TrainingSet.joined([data, data]).offsets == ()


def test_joined_sets_count_images_and_not_the_films_that_they_hold():
    data = TrainingSet.of(films(), TRANSFORM)
    packed = dataclasses.replace(data, stored=len(data) // 4)
    assert TrainingSet.joined([packed, data]).image_count == len(data) // 4 + len(data)
    assert data.image_count == len(data)


def test_joined_sets_keep_each_its_own_normalization_and_targets():
    bytes_of, others = TrainingSet.of(films(), TRANSFORM), Transform(mean=(0.1,), std=(0.5,))
    floats = TrainingSet(torch.ones(2, *films().pixels.shape[1:]), torch.full((2, 2), 0.5), others)
    joined = TrainingSet.joined([bytes_of, floats])
    images, targets = joined.batch(torch.arange(len(joined)))
    assert torch.equal(images[:-2], normalized(bytes_of.pixels, TRANSFORM))
    assert torch.equal(images[-2:], floats.pixels)
    assert torch.equal(targets, torch.cat([bytes_of.targets, floats.targets]))
