"""The one training loop.

Teachers, evaluation networks and receivers all learn here: stochastic gradient descent on a flat parameter vector,
from 8-bit or float images, hard or soft labels. Each epoch draws from its own seed, so the state between epochs is
parameters, velocity and the epoch's number, and a resumed training repeats an uninterrupted one to the bit.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medistill.augment import augment, draw_augmentation
from medistill.errors import MatchingError
from medistill.images import LabelledImages
from medistill.networks import FlatNetwork
from medistill.package import Transform
from medistill.recipe import AugmentSettings, Device, Sampling
from medistill.shapes import Images, Params, Targets
from medistill.synthetic import SyntheticSet, normalized

_MOST_SHOWN = 512  # images of 32 px or less; of larger ones as many as have so many pixels

SeedFor = Callable[[str], int]


@dataclass(frozen=True)
class TrainingSet:
    """What a network learns from: images, and for each a probability of every class.

    Attributes:
        pixels: either 8-bit values, normalized batch by batch with `transform`, or floats that are normalized already.
        targets: a probability of every class for each image.
        transform: from intensities to normalized values.
        offsets: what a network that learned from the set adds to its logits, a number a class (see `leaning.py`); none
            where it is empty.
        stored: how many images are kept or sent, where each holds several films (see `formation.py`); None where a film
            is an image.
    """

    pixels: Tensor
    targets: Tensor
    transform: Transform
    offsets: tuple[float, ...] = ()
    stored: int | None = None

    @classmethod
    def of(cls, images: LabelledImages, transform: Transform) -> "TrainingSet":
        """Real images with their hard labels."""
        classes = torch.from_numpy(images.labels)
        targets = functional.one_hot(classes, len(images.class_names)).float()
        return cls(torch.from_numpy(images.pixels), targets, transform)

    @classmethod
    def of_synthetic(cls, synthetic: SyntheticSet) -> "TrainingSet":
        """The films of a synthetic set, which are normalized already."""
        films = synthetic.unfolded()
        return cls(films.images, films.targets, films.transform, films.offsets, len(synthetic))

    @classmethod
    def joined(cls, sets: "Sequence[TrainingSet]") -> "TrainingSet":
        """All of them as one, normalized, each with its own transform; of the same classes and size.

        Their offsets count by the number of their images: what has none pulls them towards 0.
        """
        pixels = torch.cat([normalized(each.pixels, each.transform) for each in sets])
        targets = torch.cat([each.targets for each in sets])
        own = np.array([each.offsets or [0.0] * targets.shape[1] for each in sets])
        offsets = np.array([len(each) for each in sets]) @ own / len(pixels)
        stored = sum(each.image_count for each in sets)
        return cls(pixels, targets, sets[0].transform, tuple(offsets.tolist()) if offsets.any() else (), stored)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def image_count(self) -> int:
        """How many images the set is kept as: fewer than it has films where each holds several."""
        return len(self) if self.stored is None else self.stored

    @property
    def has_hard_labels(self) -> bool:
        """Whether every image is of one class for certain."""
        return bool(((self.targets == 0) | (self.targets == 1)).all())

    def fingerprint(self) -> str:
        """SHA-256 of images, targets and transform, as 64 hexadecimal digits."""
        hashed = hashlib.sha256(self.transform.model_dump_json().encode())
        for each in (self.pixels, self.targets):
            hashed.update(f"{each.dtype} {tuple(each.shape)}".encode())
            hashed.update(each.contiguous().numpy().tobytes())
        hashed.update(repr(self.offsets).encode())
        return hashed.hexdigest()

    def on(self, device: Device) -> "TrainingSet":
        """The same set in a device's memory."""
        return replace(self, pixels=self.pixels.to(device), targets=self.targets.to(device))

    def leveled(self, params: Params) -> Params:
        """The parameters of a network that learned from the set, with its classifier's biases, which are the last ones,
        moved by the set's offsets."""
        moved = params.clone()
        if self.offsets:
            moved[-len(self.offsets) :] += torch.tensor(self.offsets, device=params.device)
        return moved

    def batch(self, indices: Tensor) -> tuple[Images, Targets]:
        """Normalized images and targets at `indices`."""
        indices = indices.to(self.pixels.device)
        return normalized(self.pixels[indices], self.transform), self.targets[indices]


@dataclass(frozen=True)
class Optimization:
    """Stochastic gradient descent: its rate, how long, and what a batch is.

    `epochs` passes over the set; with `cosine`, the rate falls from `rate` to 0 along half a cosine. `average` is the
    decay, step by step, of the average of the parameters; 0 averages nothing. With `only_head` all stays as it was but
    the classifier, which follows its plain slope: a linear probe of features.

    `logit_adjustment` adds so many times the logarithm of each class's share of the set to the logits while learning
    (Menon et al., ICLR 2021, arXiv 2007.07314, equation 10). With `sharpness_radius` the slope is taken that far uphill
    (Foret et al., ICLR 2021, arXiv 2010.01412), and `surrogate_gap` times the part of the plain slope that is
    orthogonal to it is taken off (Zhuang et al., ICLR 2022, arXiv 2203.08065): both seek flat regions.
    """

    rate: float
    epochs: int
    batch_size: int
    momentum: float
    weight_decay: float
    cosine: bool
    sampling: Sampling
    augment: AugmentSettings
    average: float = 0.0
    only_head: bool = False
    logit_adjustment: float = 0.0
    sharpness_radius: float = 0.0
    surrogate_gap: float = 0.0


def even_batch(count: int, batch_size: int) -> int:
    """The images in a batch of `train`: a pass over `count` is parted into as few as can be, all of about one size."""
    return math.ceil(count / math.ceil(count / batch_size))


@dataclass(frozen=True)
class State:
    """A training between two epochs; `average` is of the parameters, which it equals where nothing is averaged."""

    epoch: int
    params: Tensor
    velocity: Tensor
    average: Tensor


def train(
    network: FlatNetwork, state: State, data: TrainingSet, how: Optimization, seed_for: SeedFor
) -> Iterator[State]:
    """Train epoch by epoch and yield the state after each.

    Every yielded state owns its tensors: later steps never change it. (Copies of live weights are how several published
    codes came to store fifty-one times the same network.)

    Args:
        network: the network to train.
        state: where to begin; `fresh` for a new training, a yielded state to resume.
        data: what to learn from; training happens where its images lie.
        how: rate, length, sampling and augmentation.
        seed_for: `seed_for("epoch/3/order")` and the like give the draws of an epoch.

    Raises:
        MatchingError: the loss is not a number any more.
    """
    device = data.pixels.device
    params, velocity, average = (each.to(device, copy=True) for each in (state.params, state.velocity, state.average))
    batches = math.ceil(len(data) / how.batch_size)
    moving = slice(network.size - network.head_size if how.only_head else 0, None)
    adjustment = _adjustment(data, params, how.logit_adjustment)
    for epoch in range(state.epoch, how.epochs):
        order = _order(data, how.sampling, seed_for(f"epoch/{epoch}/order"))
        for number, indices in enumerate(np.array_split(order, batches)):
            step = epoch * batches + number
            progress = step / (how.epochs * batches)
            rate = how.rate * (0.5 * (1 + math.cos(math.pi * progress)) if how.cosine else 1.0)
            images, targets = data.batch(torch.from_numpy(indices))
            images = augment(images, draw_augmentation(how.augment, len(images), seed_for(f"epoch/{epoch}/{number}")))
            slope = _slope(network, params + adjustment, images, targets, how)
            velocity[moving].mul_(how.momentum).add_(slope).add_(params[moving], alpha=how.weight_decay)
            params[moving].sub_(velocity[moving], alpha=rate)
            average.lerp_(params, 1 - min(how.average, (1 + step) / (10 + step)))  # the start is soon forgotten
        if not bool(torch.isfinite(params).all()):
            raise MatchingError(
                f"Training diverged in epoch {epoch + 1} at rate {how.rate:g}. Choose a smaller "
                "rate, a third of it for a start."
            )
        yield State(epoch + 1, params.clone(), velocity.clone(), average.clone())


def _slope(network: FlatNetwork, params: Params, images: Images, targets: Targets, how: Optimization) -> Tensor:
    """The direction that a step goes against, of the parameters that move."""
    if how.only_head:
        return network.head_slope(params, images, targets, len(images))
    slope = network.slope(params, images, targets, len(images)).params
    if how.sharpness_radius == 0:
        return slope
    uphill = params + how.sharpness_radius * slope / slope.norm().clamp(min=1e-12)
    sharp = network.slope(uphill, images, targets, len(images)).params
    across = slope - (slope @ sharp / (sharp @ sharp).clamp(min=1e-12)) * sharp
    return sharp - how.surrogate_gap * across


def _adjustment(data: TrainingSet, params: Params, strength: float) -> Params:
    """What is added to the parameters so that every logit has its class's log share added: a shift of the classifier's
    biases, which are the last parameters."""
    shift = torch.zeros_like(params)
    if strength > 0:
        shift[-data.targets.shape[1] :] = strength * data.targets.mean(0).clamp(min=1e-12).log()
    return shift


def fresh(network: FlatNetwork, seed: int, pretrained: Params | None = None) -> State:
    """The state of a network nobody has trained; with the parameters of all but its classifier, only that is drawn."""
    params = network.initial(seed)
    if pretrained is not None:
        params = torch.cat([pretrained, params[-network.head_size :]])
    return State(0, params, torch.zeros_like(params), params)


def predict(network: FlatNetwork, params: Params, images: LabelledImages, transform: Transform) -> NDArray[np.float32]:
    """The probability of every class for every image, shape [n, classes], computed where the parameters lie."""
    with torch.no_grad():
        parts = [
            network(params, normalized(part.to(params.device), transform)).softmax(1)
            for part in shown_together(torch.from_numpy(images.pixels))
        ]
    return torch.cat(parts).cpu().numpy()


def shown_together(images: Tensor) -> tuple[Tensor, ...]:
    """Images [n, c, h, w] in parts so small that a network's activations of one take about the same at every size."""
    height, width = images.shape[2:]
    return torch.split(images, max(1, min(_MOST_SHOWN, _MOST_SHOWN * 32**2 // (height * width))))


def _order(data: TrainingSet, sampling: Sampling, seed: int) -> NDArray[np.int64]:
    """The order of one epoch: every image once, or as many images with every class equally often.

    Balanced, a class with few images is gone through several times, each time in a new order, before any image of it
    comes more often than another.
    """
    generator = np.random.default_rng(seed)
    n = len(data)
    if sampling == "natural":
        return generator.permutation(n)
    classes = data.targets.argmax(1).cpu().numpy()
    members = [np.flatnonzero(classes == index) for index in np.unique(classes)]
    shares = n // len(members) + (generator.permutation(len(members)) < n % len(members))
    chosen = [
        np.concatenate([generator.permutation(group) for _ in range(math.ceil(share / len(group)))])[:share]
        for group, share in zip(members, shares.tolist(), strict=True)
    ]
    return generator.permutation(np.concatenate(chosen))
