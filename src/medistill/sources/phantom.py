"""A procedural chest phantom: images of nobody, for demonstrations and tests.

Four classes look like normal lungs, diffuse opacities, a lobar opacity and an interstitial pattern. Every image draws
its own anatomy (lung size and tilt, heart, ribs, position), exposure (gain, offset, scatter, noise) and severity, so
that the class is a matter of texture and place rather than of brightness. Distances are in units of half the image,
which makes the phantom the same object at every resolution. The figures below were fixed by looking at networks on
random and on all images only; a test holds them by a digest.
"""

import math

import numpy as np
from numpy.typing import NDArray

from medistill.images import LabelledImages, Pixels

CLASS_NAMES = ("Diffuse Opacities", "Interstitial Pattern", "Lobar Opacity", "Normal")
DEFAULT_SIZE = 32

_IMAGES_PER_CLASS = {"train": 500, "val": 100, "test": 250}
_CHUNK = 250
_SEED = 20220101

Plane = NDArray[np.float64]


def read_phantom(size: int | None, channels: int) -> dict[str, LabelledImages]:
    """The phantom's three splits: 2,000 train, 400 validation and 1,000 test images, equal classes.

    Args:
        size: height and width in pixels, or None for 32.
        channels: 1, or 3 equal ones.
    """
    return {
        split: _split(split, index, size or DEFAULT_SIZE).shaped(None, channels)
        for index, split in enumerate(_IMAGES_PER_CLASS)
    }


def _split(name: str, index: int, size: int) -> LabelledImages:
    labels = np.repeat(np.arange(len(CLASS_NAMES)), _IMAGES_PER_CLASS[name])
    chunks = [
        _render(labels[first : first + _CHUNK], size, np.random.default_rng([_SEED, index, first]))
        for first in range(0, len(labels), _CHUNK)
    ]
    groups = np.array([f"phantom-{name}-{number}" for number in range(len(labels))])
    return LabelledImages(np.concatenate(chunks), labels, CLASS_NAMES, groups)


def _render(labels: NDArray[np.int64], size: int, draw: np.random.Generator) -> Pixels:
    """Draw one film for each label. Dense tissue is bright, air is dark, as on a film viewer."""
    n = len(labels)

    def uniform(low: float, high: float) -> Plane:
        return draw.uniform(low, high, (n, 1, 1))

    x, y = _turned_grid(size, uniform(-0.12, 0.12), uniform(-0.1, 0.1), uniform(-0.1, 0.1), uniform(0.88, 1.12))

    lungs = np.zeros_like(x)
    for side in (-1, 1):
        across, along = uniform(0.24, 0.34), uniform(0.5, 0.66)
        lungs = np.maximum(lungs, _ellipse(x, y, side * uniform(0.36, 0.46), uniform(-0.12, 0.04), across, along))
    heart = _ellipse(x, y, uniform(0.06, 0.2), uniform(0.2, 0.36), uniform(0.2, 0.36), uniform(0.22, 0.36))
    spine = np.exp(-0.5 * (x / uniform(0.07, 0.11)) ** 2)
    ribs = np.maximum(0, np.sin(y * uniform(13, 18) + 2.2 * x**2 + uniform(0, 2 * math.pi)))
    vessels = _waves(x, y, draw, n, wavelengths=(0.35, 0.9))

    film = 0.66 - 0.42 * lungs + 0.16 * spine + uniform(0.14, 0.26) * heart
    film += uniform(0.02, 0.07) * ribs * lungs + uniform(0.01, 0.025) * vessels * lungs
    film += lungs * _pathology(labels, x, y, draw, n)

    film += uniform(-0.12, 0.12) * x + uniform(-0.12, 0.12) * y
    film = uniform(0.7, 1.15) * film + uniform(-0.12, 0.1)
    film += uniform(0.01, 0.03) * draw.standard_normal(film.shape)
    return np.rint(255 * np.clip(film, 0, 1)).astype(np.uint8)[:, None]


def _pathology(labels: NDArray[np.int64], x: Plane, y: Plane, draw: np.random.Generator, n: int) -> Plane:
    """What sickness adds inside the lungs. Every image draws all of it, so that the classes share their draws."""
    severity = draw.uniform(0.6, 1.0, (n, 1, 1))
    diffuse = np.zeros_like(x)
    for _ in range(9):
        side = draw.choice([-1.0, 1.0], (n, 1, 1))
        center = side * draw.uniform(0.28, 0.62, (n, 1, 1)), draw.uniform(-0.45, 0.45, (n, 1, 1))
        diffuse += _blob(x, y, *center, draw.uniform(0.06, 0.13, (n, 1, 1)))
    side = draw.choice([-1.0, 1.0], (n, 1, 1))
    where = side * draw.uniform(0.3, 0.5, (n, 1, 1)), draw.uniform(-0.4, 0.4, (n, 1, 1))
    lobar = _blob(x, y, *where, draw.uniform(0.14, 0.22, (n, 1, 1)))
    interstitial = _waves(x, y, draw, n, wavelengths=(0.17, 0.26))
    kinds = (0.26 * np.minimum(diffuse, 1.6), 0.085 * interstitial, 0.6 * lobar, np.zeros_like(x))
    chosen: Plane = severity * np.choose(labels[:, None, None], kinds)
    return chosen


def _turned_grid(size: int, angle: Plane, right: Plane, down: Plane, zoom: Plane) -> tuple[Plane, Plane]:
    ticks = (np.arange(size) + 0.5) / size * 2 - 1
    y, x = np.meshgrid(ticks, ticks, indexing="ij")
    x, y = (x - right) / zoom, (y - down) / zoom
    return np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y


def _ellipse(x: Plane, y: Plane, right: Plane, down: Plane, across: Plane, along: Plane) -> Plane:
    """1 inside, 0 outside, with an edge about a tenth of the radius wide."""
    distance = np.hypot((x - right) / across, (y - down) / along)
    inside: Plane = 1 / (1 + np.exp(np.clip((distance - 1) * 14, -60, 60)))
    return inside


def _blob(x: Plane, y: Plane, right: Plane, down: Plane, radius: Plane) -> Plane:
    return np.exp(-0.5 * ((x - right) ** 2 + (y - down) ** 2) / radius**2)


def _waves(x: Plane, y: Plane, draw: np.random.Generator, n: int, wavelengths: tuple[float, float]) -> Plane:
    """A random texture of unit variance whose waves have lengths in the given range."""
    count = 12
    total = np.zeros_like(x)
    for _ in range(count):
        direction, phase = draw.uniform(0, 2 * math.pi, (2, n, 1, 1))
        wave_number = 2 * math.pi / draw.uniform(*wavelengths, (n, 1, 1))
        total += np.cos(wave_number * (np.cos(direction) * x + np.sin(direction) * y) + phase)
    return total * math.sqrt(2 / count)
