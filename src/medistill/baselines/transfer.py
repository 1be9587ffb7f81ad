"""Transfer: a network that has learned to tell other images apart, and then sees the few of the task.

What it learned from decides what it brings, so the row is named after it. Others' weights come from timm; otherwise a
network of the house learns natural images from any source the user names. Without either the project draws gratings,
eight kinds by direction and wavelength, so that the row can be tested anywhere; they stand for nothing but themselves.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medistill.errors import MatchingError
from medistill.evaluate import Arm, Bench, Training, network_for, train_all
from medistill.images import LabelledImages
from medistill.jobs import Progress
from medistill.networks.pretrained import HUB, Timm, learned_params
from medistill.recipe import Architecture, Recipe
from medistill.shapes import Params
from medistill.sources import read_part
from medistill.train import TrainingSet

_GRATINGS = 2000
_DIRECTIONS, _WAVELENGTHS = 4, (0.15, 0.4)  # in image sides
# Part of a row's name, which tells the rows of kept cells together: `report.words` spells it for readers instead.
_NAMES = {"cifar10_jpeg.npz": "natural images, CIFAR-10"}


@dataclass(frozen=True)
class Learned:
    """The parameters of all but a classifier, and what images they were learned from, in words."""

    params: Params
    images: str


def learn_to_transfer(
    recipe: Recipe,
    architecture: Architecture,
    source: str | None,
    like: LabelledImages,
    folder: Path,
    processes: int,
    progress: Progress,
) -> Learned:
    """Train a network on other images, with their labels, at the middle rate of the recipe's search.

    Args:
        recipe: its seed, network, augment and evaluate sections count.
        architecture: of the network.
        source: labelled images to learn from (`path#split` takes one split); None draws gratings.
        like: images of the task, which decide size and channels.
        folder: where the network is kept.
        processes: how many networks are trained at once.
        progress: told of every image seen.

    Raises:
        MatchingError: training diverged.
        SourceError: the images cannot be read.
    """
    channels, size = like.pixels.shape[1:3]
    if source is None:
        images, words = gratings(size, channels, recipe.seed_for("transfer/gratings")), "gratings drawn here"
    else:
        name = Path(source.partition("#")[0]).name
        images, words = read_part(source, size, channels, default="train"), _NAMES.get(name, name)
    epochs = recipe.evaluate.full_epochs
    arm = Arm("transfer", TrainingSet.of(images, images.transform()), architecture, epochs, "natural")
    job = Training(arm.name, recipe.evaluate.middle_rate, "final", 0)
    bench = Bench(recipe, None, folder, processes)
    trained = train_all(bench, [arm], [job], (f"network on {words}", progress))[job]
    if trained is None:
        raise MatchingError(f"{words}: training diverged at rate {job.rate:g}. Lower evaluate.rates.")
    head = network_for(recipe, architecture, images).head_size
    return Learned(trained.params[:-head], words)


def learned_elsewhere(model: Timm, weights: str, like: LabelledImages) -> Learned:
    """Weights that others learned, from timm's hub or from a file.

    Args:
        model: one of timm's.
        weights: a safetensors file as timm writes it, or the word `hub`.
        like: images of the task, which decide the channels.

    Raises:
        RecipeError: see `learned_params`.
        MissingPart: timm is not installed.
    """
    origin = "timm's weights" if weights == HUB else Path(weights).name
    return Learned(learned_params(model, like.pixels.shape[1], weights), f"{model.name}, {origin}")


def gratings(size: int, channels: int, seed: int) -> LabelledImages:
    """Waves of four directions and two wavelengths in noise: eight classes, equally often."""
    draw = np.random.default_rng(seed)
    classes = _DIRECTIONS * len(_WAVELENGTHS)
    labels = draw.permutation(_GRATINGS) % classes
    ticks = (np.arange(size) + 0.5) / size
    y, x = np.meshgrid(ticks, ticks, indexing="ij")
    angle = (labels % _DIRECTIONS + draw.uniform(-0.3, 0.3, _GRATINGS)) * math.pi / _DIRECTIONS
    length = np.asarray(_WAVELENGTHS)[labels // _DIRECTIONS] * draw.uniform(0.8, 1.25, _GRATINGS)
    phase = draw.uniform(0, 2 * math.pi, _GRATINGS)
    along = np.cos(angle)[:, None, None] * x + np.sin(angle)[:, None, None] * y
    waves = np.cos(2 * math.pi * along / length[:, None, None] + phase[:, None, None])
    pixels = 128 + 45 * waves + draw.normal(0, 25, waves.shape)
    grey = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)[:, None]
    return LabelledImages(np.repeat(grey, channels, 1), labels, tuple(f"grating {index}" for index in range(classes)))
