"""Pre-training without labels: the loop that every self-supervised method shares.

A method is a *pretext*: an encoder, what else it needs while it learns, and a loss of two views of the same images. The
loop is AdamW with a warm-up and half a cosine, the same for all methods; views are the house's augmentation, drawn
wider than networks with labels see them: unlike the published methods' they are never cropped to a part, blurred or
flipped, which photographs bear and films do not. What is kept afterwards is the encoder alone.

Methods that have no negative examples can collapse: every image gets the same features, and the loss looks splendid.
So the loop reports the features' spread beside the loss.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from medistill.augment import augment, draw_augmentation
from medistill.errors import MatchingError
from medistill.package import Transform
from medistill.recipe import AugmentSettings, PretrainSettings
from medistill.shapes import Features, Images, Scalar
from medistill.synthetic import normalized
from medistill.train import SeedFor

VIEWS = AugmentSettings(rotate_degrees=15, scale=0.4, shift=0.15, brightness=0.5, contrast=0.5)
_WARM_UP = 0.05  # of all steps
_SPREAD_IMAGES = 256


class Pretext(nn.Module):
    """A task that images set themselves. `encoder` is what is learned by it: images to features."""

    encoder: nn.Module

    @abstractmethod
    def loss(self, first: Images, second: Images, draw: torch.Generator) -> Scalar:
        """What one step lowers, from two views of a batch; `draw` is the only source of chance."""

    def follow(self, progress: float) -> None:
        """Move what follows the encoder slowly, after a step; `progress` goes from 0 to 1. Nothing follows here."""


@dataclass(frozen=True)
class Epoch:
    """How one epoch went: the mean loss of its steps, and the features' spread after it (see `spread`)."""

    steps: int
    loss: float
    spread: float


def pretrain(
    pretext: Pretext, pixels: Tensor, transform: Transform, settings: PretrainSettings, seed_for: SeedFor
) -> Iterator[Epoch]:
    """Train a pretext on images without labels, and tell how each epoch went.

    Args:
        pretext: changed in place.
        pixels: 8-bit values [n, c, h, w], or floats that are normalized already; training happens where they lie.
        transform: how 8-bit values are normalized.
        settings: steps, batch size, rate and weight decay.
        seed_for: `seed_for("epoch/3/order")` and the like give the draws of an epoch.

    Raises:
        MatchingError: the loss is not a number any more.
    """
    n = len(pixels)
    epochs, batches = duration(settings, n)
    learned = [parameter for parameter in pretext.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=settings.rate, weight_decay=settings.weight_decay)
    pretext.train()
    some = np.random.default_rng(seed_for("spread")).permutation(n)[:_SPREAD_IMAGES]  # files may be sorted by class
    watched = normalized(pixels[torch.from_numpy(some)], transform)
    for epoch in range(epochs):
        order = np.random.default_rng(seed_for(f"epoch/{epoch}/order")).permutation(n)
        losses = []
        for number, indices in enumerate(np.array_split(order, batches)):
            progress = (epoch * batches + number) / (epochs * batches)
            for group in optimizer.param_groups:
                group["lr"] = settings.rate * _share(progress)
            images = normalized(pixels[torch.from_numpy(indices)], transform)
            first, second = (
                augment(images, draw_augmentation(VIEWS, len(images), seed_for(f"epoch/{epoch}/{number}/{view}")))
                for view in ("first", "second")
            )
            draw = torch.Generator().manual_seed(seed_for(f"epoch/{epoch}/{number}/pretext"))
            loss = pretext.loss(first, second, draw)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            pretext.follow(progress)
            losses.append(float(loss.detach()))
        if not math.isfinite(sum(losses)):
            raise MatchingError(
                f"Pre-training diverged in epoch {epoch + 1} at rate {settings.rate:g}. Lower pretrain.rate, to a "
                "third of it for a start."
            )
        with torch.no_grad():
            seen = pretext.encoder(watched)
        yield Epoch(batches, float(np.mean(losses)), spread(seen))


def duration(settings: PretrainSettings, images: int) -> tuple[int, int]:
    """How many epochs pre-training takes, steps rounded up to whole ones, and how many steps each has."""
    batches = math.ceil(images / settings.batch_size)
    return math.ceil(settings.steps / batches), batches


def spread(features: Features) -> float:
    """How far apart images' features point: 1 if over all directions alike, 0 if all one way (collapse).

    The standard deviation of each of d features of unit length, averaged, times the square root of d.

    Source: Chen and He, CVPR 2021 (arXiv 2011.10566), figure 2.
    """
    units = functional.normalize(features, dim=1)
    return float(units.std(0, correction=0).mean() * math.sqrt(features.shape[1]))


def perceptron(before: int, hidden: int, after: int) -> nn.Sequential:
    """Linear, batch norm, ReLU, linear: the heads that these methods put on an encoder and throw away afterwards."""
    return nn.Sequential(
        nn.Linear(before, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, after)
    )


def features_of(encoder: nn.Module, image: Sequence[int]) -> int:
    """How many features an encoder gives an image of shape [c, h, w]."""
    with torch.no_grad():
        return int(encoder(torch.zeros(1, *image)).shape[1])


def _share(progress: float) -> float:
    """Of the full rate: linear at first, then half a cosine."""
    if progress < _WARM_UP:
        return (progress + 1e-3) / (_WARM_UP + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (progress - _WARM_UP) / (1 - _WARM_UP)))
