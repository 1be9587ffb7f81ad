"""What one outer step asks of the synthetic images: the recipe's objective and its gradient to pixels, labels and rate.

Two objectives follow a teacher (`mtt`, `pruned`); the others need none. `soft-label` trains a fresh network on the set
and asks that it do well on real images. `dm` and `dsa` compare class by class how a network sees real and synthetic
images, or is pulled by them, both augmented alike (siamese).

What a step draws depends on the recipe and the step's number alone.

Source of `soft-label`: Sucholutsky and Schonlau, IJCNN 2021 (arXiv 1910.02551); on gastric X-rays Li et al., ICIP 2020
(arXiv 2104.02857) and CMPB 2022 (arXiv 2209.14635). The others are named in `matching/`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from medistill.augment import augment, draw_augmentation
from medistill.buffer import Buffer
from medistill.matching.adjoint import Gradient, InnerStep, trajectory_gradient
from medistill.matching.angle import angle_distance
from medistill.matching.distribution import mean_distance
from medistill.matching.gradient import Labelled, pull_apart
from medistill.matching.importance import importance
from medistill.matching.pruning import easy_parameters, kept_parameters
from medistill.matching.trajectory import trajectory_distance
from medistill.networks import FlatNetwork, build, cross_entropy
from medistill.recipe import DistillSettings, NetworkSettings, Recipe
from medistill.shapes import Images, Mask, Params, Scalar, Targets
from medistill.train import TrainingSet


@dataclass(frozen=True)
class Matched:
    """An objective's gradient, and what was matched: whose trajectory from which epoch on, how much of it was kept.

    `admitted` is the mask of `easy_parameters` after this step, where it is matched by; `importance` the gradient to
    the logits of the groups' importance, where that is learned.
    """

    gradient: Gradient
    teacher: int | None = None
    start_epoch: int | None = None
    kept: float | None = None
    admitted: Mask | None = None
    importance: Tensor | None = None


@dataclass(frozen=True)
class Point:
    """The synthetic set as a step finds it.

    Attributes:
        number: of the step, from 1.
        images: the synthetic images, normalized.
        targets: a probability of every class for each.
        log_rate: natural logarithm of the inner rate.
        admitted: which parameters earlier steps admitted (see `easy_parameters`); None in the first step.
        importance: the logits of the groups' importance, where that is learned.
    """

    number: int
    images: Images
    targets: Targets
    log_rate: Scalar
    admitted: Mask | None = None
    importance: Tensor | None = None

    def on(self, device: str) -> "Point":
        """The same in a device's memory."""
        admitted, importance = (None if each is None else each.to(device) for each in (self.admitted, self.importance))
        images, targets, log_rate = (each.to(device) for each in (self.images, self.targets, self.log_rate))
        return Point(self.number, images, targets, log_rate, admitted, importance)


def matched(recipe: Recipe, point: Point, real: TrainingSet, buffer: Buffer) -> Matched:
    """The gradient of the recipe's objective; its tensors lie where networks are computed.

    Args:
        recipe: its distill section says what is matched.
        point: where the gradient is taken.
        real: the training images.
        buffer: the teachers' trajectories, for objectives that follow them.

    Raises:
        MatchingError: nothing was left to match, or a teacher did not move.
        StorageError: the buffer is damaged.
    """
    point = point.on(recipe.machine.place)
    if recipe.distill.follows_teachers:
        return _follow_teacher(recipe, point, buffer)
    without_teachers = {"soft-label": _learn_from_scratch, "dm": _match_features, "dsa": _match_slopes}
    return without_teachers[recipe.distill.objective](recipe, point, real)


def _follow_teacher(recipe: Recipe, point: Point, buffer: Buffer) -> Matched:
    """Match one stretch of one teacher's trajectory."""
    settings, place = recipe.distill, recipe.machine.place
    draw = np.random.default_rng(recipe.seed_for(f"distill/step/{point.number}"))
    teacher = int(draw.integers(buffer.teachers))
    start_epoch = int(draw.integers(settings.min_start_epoch, last_start_epoch(settings, point.number) + 1))
    epochs = (start_epoch, start_epoch + settings.expert_epochs // 2, start_epoch + settings.expert_epochs)
    start, midway, target = (buffer.snapshot(teacher, epoch).to(place) for epoch in epochs)
    network = _network(recipe, point, recipe.teacher_network(teacher))
    masks: list[Mask] = []

    def reached(end: Tensor, logits: Tensor | None) -> Tensor:
        weights = None if logits is None else importance(logits, network.group_sizes)
        return trajectory_distance(end, start, target, masks[0] if settings.objective == "pruned" else None, weights)

    def distance(*seen: Tensor) -> Tensor:
        end = seen[-1]
        if not bool(torch.isfinite(end).all()):
            return sum((params.sum() for params in seen), torch.zeros(()))
        masks.append(_kept(recipe, point, end, start, target))
        value = reached(end, point.importance)
        if settings.angle_weight > 0:
            value = value + settings.angle_weight * angle_distance((start, seen[0], end), (start, midway, target))
        return value

    stops = (settings.student_steps // 2,) if settings.angle_weight > 0 else ()
    gradient = _through_training(recipe, point, network, start, distance, stops)
    kept = float(masks[0].mean()) if masks else None
    admitted = masks[0] if masks and settings.similarity == "easy" else None
    to_importance = None
    if masks and point.importance is not None:
        logits = point.importance.detach().requires_grad_()
        (to_importance,) = torch.autograd.grad(reached(gradient.end, logits), logits)
    return Matched(gradient, teacher, start_epoch, kept, admitted, to_importance)


def last_start_epoch(settings: DistillSettings, number: int) -> int:
    """The latest epoch that a student may start at in outer step `number`, from 1.

    Source: Guo et al., ICLR 2024 (arXiv 2310.05773), "sequential generation": easy stretches first.
    """
    if number >= settings.window_steps:
        return settings.max_start_epoch
    first = settings.first_max_start_epoch
    return first + (settings.max_start_epoch - first) * number // settings.window_steps


def _kept(recipe: Recipe, point: Point, end: Params, start: Params, target: Params) -> Mask:
    """Which parameters count in this step."""
    settings = recipe.distill
    if settings.objective == "mtt":
        return torch.ones_like(end.detach())
    if settings.similarity == "easy":
        error = settings.easy_error * settings.easy_growth ** (point.number // settings.easy_growth_every)
        admitted = torch.zeros_like(end.detach()) if point.admitted is None else point.admitted
        return easy_parameters(end, target, admitted, error)
    seed = recipe.seed_for(f"distill/step/{point.number}/mask")
    return kept_parameters(end, start, target, settings.threshold, settings.similarity, seed)


def _learn_from_scratch(recipe: Recipe, point: Point, real: TrainingSet) -> Matched:
    """How well a fresh network, trained on the set, does on a batch of real images, of every class as many."""
    network = _network(recipe, point)
    classes = point.targets.shape[1]
    share = max(recipe.distill.real_batch // classes, 1)
    of_each = [_real(recipe, point, real, index, share) for index in range(classes)]
    images, targets = (torch.cat(parts) for parts in zip(*of_each, strict=True))

    def loss(end: Tensor) -> Tensor:
        return cross_entropy(network(end, images), targets, len(images))

    return Matched(_through_training(recipe, point, network, _fresh(recipe, point, network), loss))


def _through_training(
    recipe: Recipe,
    point: Point,
    network: FlatNetwork,
    start: Params,
    objective: Callable[..., Tensor],
    stops: Sequence[int] = (),
) -> Gradient:
    """Train a student on the set from `start`, and differentiate what the objective says of its way."""
    return trajectory_gradient(
        network,
        start,
        point.images,
        point.targets,
        point.log_rate,
        inner_steps(recipe, len(point.images), point.number),
        objective,
        recipe.distill.micro_batch,
        recipe.machine.keep_mb * 2**20,
        stops,
        recipe.distill.gradient == "tesla",
    )


def _match_features(recipe: Recipe, point: Point, real: TrainingSet) -> Matched:
    """Compare the mean features of real and synthetic images of each class in a network nobody has trained."""
    network = _network(recipe, point)
    params = _fresh(recipe, point, network)
    images = point.images.detach().requires_grad_()
    distances = [
        mean_distance(network.features(params, pair.real), network.features(params, pair.synthetic))
        for pair in _pairs(recipe, point, images, real)
    ]
    value = torch.stack(distances).sum()
    return _of_pixels(value.detach(), torch.autograd.grad(value, images)[0], point, params, None)


def _match_slopes(recipe: Recipe, point: Point, real: TrainingSet) -> Matched:
    """Compare how real and synthetic images of each class pull a network that was trained on the set for a while."""
    network = _network(recipe, point)
    draw = np.random.default_rng(recipe.seed_for(f"distill/step/{point.number}"))
    rounds = int(draw.integers(recipe.distill.max_start_epoch + 1))
    params = _trained_on_the_set(recipe, point, network, rounds)
    images = point.images.detach().requires_grad_()
    value, to_images = torch.zeros_like(point.log_rate), torch.zeros_like(images)
    for pair in _pairs(recipe, point, images, real):
        found = pull_apart(
            network,
            params,
            Labelled(pair.real, pair.real_targets),
            Labelled(pair.synthetic.detach(), pair.targets),
            recipe.machine.keep_mb * 2**20,
        )
        value += found.distance
        to_images += torch.autograd.grad(pair.synthetic, images, found.to_images)[0]
    return _of_pixels(value, to_images, point, params, rounds)


def _of_pixels(value: Scalar, to_images: Images, point: Point, params: Params, start_epoch: int | None) -> Matched:
    """What moves the pixels alone; labels and rate stay as they are."""
    still = (torch.zeros_like(point.targets), torch.zeros_like(point.log_rate))
    return Matched(Gradient(value, to_images, *still, params), start_epoch=start_epoch)


class _Pair(NamedTuple):
    """Real and synthetic images of one class, augmented alike, with their labels."""

    real: Images
    real_targets: Targets
    synthetic: Images
    targets: Targets


def _pairs(recipe: Recipe, point: Point, images: Images, real: TrainingSet) -> Iterator[_Pair]:
    """Every class's synthetic images beside a batch of its real ones."""
    own_classes = point.targets.argmax(1)
    for index in range(point.targets.shape[1]):
        theirs, their_targets = _real(recipe, point, real, index, recipe.distill.real_batch)
        is_own = own_classes == index
        seed = recipe.seed_for(f"distill/step/{point.number}/augment/{index}")
        alike = draw_augmentation(recipe.augment, 1, seed)
        yield _Pair(
            augment(theirs, alike and alike.repeated(len(theirs))),
            their_targets,
            augment(images[is_own], alike and alike.repeated(int(is_own.sum()))),
            point.targets[is_own],
        )


def _real(recipe: Recipe, point: Point, real: TrainingSet, index: int, count: int) -> tuple[Images, Targets]:
    """So many real images of one class, or all where it has fewer, with their labels."""
    members = np.flatnonzero((real.targets.argmax(1) == index).cpu().numpy())
    draw = np.random.default_rng(recipe.seed_for(f"distill/step/{point.number}/real/{index}"))
    chosen = torch.from_numpy(draw.choice(members, min(count, len(members)), replace=False))
    images, targets = (each.to(point.images.device) for each in real.batch(chosen))
    return images, targets


def _trained_on_the_set(recipe: Recipe, point: Point, network: FlatNetwork, rounds: int) -> Params:
    """A fresh network after so many rounds of `student_steps` on the set: gradients matter where training leads."""
    params = _fresh(recipe, point, network)
    for step in rounds * inner_steps(recipe, len(point.images), point.number):
        seen = augment(point.images[step.indices], step.draw)
        slope = network.slope(params, seen, point.targets[step.indices], len(seen)).params
        params = params - point.log_rate.exp() * slope
    return params


def inner_steps(recipe: Recipe, images: int, number: int) -> list[InnerStep]:
    """The student's batches in one outer step: all images each time, or passes over them in a new order each."""
    settings = recipe.distill
    size = min(settings.batch_size or images, images)
    draw = np.random.default_rng(recipe.seed_for(f"distill/step/{number}/batches"))
    wanted = size * settings.student_steps
    order = np.concatenate([draw.permutation(images) for _ in range(math.ceil(wanted / images))])[:wanted]
    batches = (
        [np.arange(images)] * settings.student_steps if size == images else np.split(order, settings.student_steps)
    )
    return [
        InnerStep(
            torch.from_numpy(batch),
            draw_augmentation(recipe.augment, size, recipe.seed_for(f"distill/step/{number}/augment/{inner}")),
        )
        for inner, batch in enumerate(batches)
    ]


def _network(recipe: Recipe, point: Point, settings: NetworkSettings | None = None) -> FlatNetwork:
    channels, size = point.images.shape[1:3]
    return build(settings or recipe.network, channels, size, point.targets.shape[1], recipe.machine)


def _fresh(recipe: Recipe, point: Point, network: FlatNetwork) -> Params:
    return network.initial(recipe.seed_for(f"distill/step/{point.number}/start")).to(point.images.device)
