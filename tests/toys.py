"""A toy world: 8 x 8 films whose class is the bright quadrant, and a recipe that a run takes a moment for."""

import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from medistill.images import LabelledImages, Splits
from medistill.jobs import Silence
from medistill.package import Transform
from medistill.recipe import Recipe, recipe_from

TRANSFORM = Transform(mean=(0.4,), std=(0.2,))
NO_AUGMENT = {f"augment.{name}": 0 for name in ("rotate_degrees", "scale", "shift", "brightness", "contrast")}


def films(per_class: tuple[int, ...] = (12, 12), seed: int = 0, grouped: bool = False) -> LabelledImages:
    """`per_class` films of each class in mixed order: noise, with one bright quadrant a class."""
    draw = np.random.default_rng(seed)
    labels = draw.permutation(np.repeat(np.arange(len(per_class)), per_class))
    pixels = draw.integers(60, 120, (len(labels), 1, 8, 8))
    for index, label in enumerate(labels):
        top, left = divmod(int(label), 2)
        pixels[index, 0, 4 * top : 4 * top + 4, 4 * left : 4 * left + 4] += 60
    names = tuple(f"class {index}" for index in range(len(per_class)))
    groups = np.array([f"patient {index // 2}" for index in range(len(labels))]) if grouped else None
    return LabelledImages(pixels.astype(np.uint8), labels, names, groups)


def judged(labels: list[int], classes: int = 3, groups: list[str] | None = None) -> LabelledImages:
    """Images whose pixels nobody looks at."""
    names = tuple("abcdef"[:classes])
    pixels = np.zeros((len(labels), 1, 8, 8), np.uint8)
    return LabelledImages(pixels, np.array(labels), names, None if groups is None else np.array(groups))


def splits(per_class: tuple[int, ...] = (12, 12)) -> Splits:
    return Splits(films(per_class), films((6, 6), seed=1), films((6, 6), seed=2))


def write_npz(path: Path) -> Path:
    """The toy splits as a MedMNIST-style file."""
    arrays: dict[str, Any] = {}
    for split, part in zip(("train", "val", "test"), splits().parts.values(), strict=True):
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = part.pixels[:, 0], part.labels[:, None]
    np.savez(path, **arrays)
    return path


def grow_old(path: Path) -> None:
    """As if nobody had written there for two hours."""
    long_ago = time.time() - 7200
    os.utime(path, (long_ago, long_ago))


def recipe(changes: dict[str, Any] | None = None) -> Recipe:
    """The toy recipe with changes by dotted name."""
    toy: dict[str, Any] = {
        "seed": 3,
        "source.image_size": 8,
        "network.width": 4,
        "network.depth": 2,
        "teachers.count": 2,
        "teachers.epochs": 3,
        "teachers.rate": 0.1,
        "teachers.batch_size": 8,
        "teachers.average": 0.0,
        "distill.ipc": 2,
        "distill.student_steps": 2,
        "distill.expert_epochs": 2,
        "distill.max_start_epoch": 1,
        "distill.outer_steps": 3,
        "distill.start": "class-mean",
        "distill.images_per_mean": 8,
        "distill.image_rate": 0.02,
        "distill.inner_rate": 0.02,
        "distill.log_rate_step": 0.01,
        "distill.learn_labels": False,
        "distill.ema": 0.0,
        "distill.validate_every": 2,
        "distill.validate_networks": 1,
        "evaluate.networks": 2,
        "evaluate.rates": [0.03],
        "evaluate.steps": 4,
        "evaluate.full_epochs": 2,
        "evaluate.batch_size": 8,
        "machine.compiles": False,
    }
    settings: dict[str, Any] = {}
    for key, value in (toy | (changes or {})).items():
        *tables, last = key.split(".")
        table = settings
        for name in tables:
            table = table.setdefault(name, {})
        table[last] = value
    return recipe_from(settings)


class Watch(Silence):
    """A Progress that remembers what it was told, and can cut the power after so many units of work."""

    def __init__(self, power_fails_after: float = math.inf) -> None:
        self.begun: list[tuple[str, int, int]] = []
        self.said: list[str] = []
        self.advanced = 0
        self.power_fails_after = power_fails_after

    def begin(self, task: str, total: int, done: int = 0) -> None:
        self.begun.append((task, total, done))

    def advance(self, count: int) -> None:
        self.advanced += count
        if self.advanced >= self.power_fails_after:
            raise PowerCut

    def say(self, message: str) -> None:
        self.said.append(message)


class PowerCut(Exception):
    """The run ends here, whatever it was doing."""
