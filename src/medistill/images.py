"""Labelled real images in memory, and their splits.

Pixels stay 8-bit until a batch is drawn: 17,000 films of 112 x 112 are 0.2 GB this way and 0.8 GB as float32.
"""

import dataclasses
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medistill.errors import SourceError
from medistill.package import Transform

Pixels = NDArray[np.uint8]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class LabelledImages:
    """Real images with one class each.

    Attributes:
        pixels: 8-bit values, shape [n, channels, height, width].
        labels: class indices into `class_names`, shape [n].
        class_names: one name a class, in the order of the indices.
        groups: who an image belongs to (a patient), shape [n], or None where unknown.
        named: False where the source has no class names and `class_names` are only numbers.
    """

    pixels: Pixels
    labels: Indices
    class_names: tuple[str, ...]
    groups: NDArray[np.str_] | None = None
    named: bool = True

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.dtype != np.uint8:
            raise SourceError(
                f"Found pixels of shape {self.pixels.shape} and type {self.pixels.dtype}; expected 8-bit values "
                "[n, channels, height, width]."
            )
        if len(self.labels) != len(self.pixels):
            raise SourceError(
                f"Found {len(self.pixels)} images but {len(self.labels)} labels; expected one label an image."
            )
        if self.groups is not None and len(self.groups) != len(self.pixels):
            raise SourceError(
                f"Found {len(self.pixels)} images but {len(self.groups)} groups; expected one group an image."
            )
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < len(self.class_names):
            raise SourceError(
                f"Found labels from {self.labels.min()} to {self.labels.max()}; expected 0 to "
                f"{len(self.class_names) - 1} for the classes {', '.join(self.class_names)}."
            )

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Images in each class, shape [classes]."""
        return np.bincount(self.labels, minlength=len(self.class_names))

    def transform(self) -> Transform:
        """How these images are normalized: by each channel's mean and standard deviation, 0 black and 1 white."""
        values = np.arange(256) / 255
        means, stds = [], []
        for channel in range(self.pixels.shape[1]):
            share = np.bincount(self.pixels[:, channel].ravel(), minlength=256) / self.pixels[:, channel].size
            mean = float(share @ values)
            means.append(round(mean, 6))
            stds.append(round(max(float(share @ (values - mean) ** 2) ** 0.5, 1e-6), 6))
        return Transform(mean=tuple(means), std=tuple(stds))

    def take(self, indices: Indices) -> "LabelledImages":
        """The images at `indices`, in that order."""
        groups = None if self.groups is None else self.groups[indices]
        return dataclasses.replace(self, pixels=self.pixels[indices], labels=self.labels[indices], groups=groups)

    def in_order_of(self, class_names: tuple[str, ...]) -> "LabelledImages":
        """The same images with labels that index `class_names`: matched by name, or by index where there are no names.

        Raises:
            SourceError: a class here has no counterpart there.
        """
        if self.class_names == class_names:
            return self
        if not self.named:
            if self.labels.max(initial=0) >= len(class_names):
                raise SourceError(
                    f"Found labels up to {self.labels.max()} without class names; expected 0 to {len(class_names) - 1} "
                    f"for {', '.join(class_names)}. Name the classes, or bring images of these classes alone."
                )
            return dataclasses.replace(self, class_names=class_names)
        # A class of which there is no image needs no counterpart; its place is read for none.
        places = {name: index for index, name in enumerate(class_names)}
        unknown = sorted({self.class_names[label] for label in np.unique(self.labels)} - places.keys())
        if unknown:
            raise SourceError(
                f"Found the classes {', '.join(unknown)}, which are not among {', '.join(class_names)}. Classes are "
                "matched by name: rename them, or leave their images out."
            )
        moved = np.array([places.get(name, -1) for name in self.class_names], dtype=np.int64)
        return dataclasses.replace(self, labels=moved[self.labels], class_names=class_names)

    def seen_in(self, others: "LabelledImages") -> int:
        """How many of these images are among others, pixel by pixel, or of a group that has images there."""
        pictures = {image.tobytes() for image in others.pixels}
        seen = np.array([image.tobytes() in pictures for image in self.pixels], dtype=bool)
        if self.groups is not None and others.groups is not None:
            seen |= np.isin(self.groups, others.groups)
        return int(seen.sum())

    def shaped(self, size: int | None, channels: int) -> "LabelledImages":
        """The images at `size` x `size` pixels with `channels` channels.

        Shrinking averages areas (from 64 to 32 px: the mean of 2 x 2), enlarging is bilinear. A film that is not square
        is squeezed, not cropped, so that no part of it is lost. Color becomes grey by luma; grey is repeated.
        """
        return dataclasses.replace(self, pixels=shaped_pixels(self.pixels, size, channels))


@dataclass(frozen=True)
class Splits:
    """The three parts of a source. Fit on `train`, select on `validation`, read `test` once."""

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages
    notes: tuple[str, ...] = field(default=())

    @property
    def parts(self) -> dict[str, LabelledImages]:
        """The splits by name, in their fixed order."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def fingerprint(self) -> str:
        """SHA-256 over pixels, labels, groups, class names and the cut into splits, as 64 hexadecimal digits."""
        hashed = hashlib.sha256()
        for name, part in self.parts.items():
            header = (name, part.pixels.shape, part.class_names, part.groups is not None)
            hashed.update(repr(header).encode())
            hashed.update(np.ascontiguousarray(part.pixels).tobytes())
            hashed.update(part.labels.astype("<i8").tobytes())
            if part.groups is not None:
                hashed.update("\0".join(part.groups.tolist()).encode())
        return hashed.hexdigest()


def joined(parts: Sequence[LabelledImages]) -> LabelledImages:
    """Images of the same classes and shape as one; groups are kept where all parts know theirs."""
    known = [part.groups for part in parts if part.groups is not None]
    return LabelledImages(
        np.concatenate([part.pixels for part in parts]),
        np.concatenate([part.labels for part in parts]),
        parts[0].class_names,
        np.concatenate(known) if len(known) == len(parts) else None,
        parts[0].named,
    )


def cut(images: LabelledImages, fraction: float | Sequence[float], seed: int) -> tuple[LabelledImages, LabelledImages]:
    """Cut off about `fraction` of every class, whole groups at a time; return what stays and what was cut off.

    A group (a patient) with images of several classes goes where its first class goes, so that none crosses the cut.

    Args:
        images: what is cut.
        fraction: of every class, or one for each.
        seed: of the draw.

    Raises:
        SourceError: a class is too small to have an image on either side.
    """
    groups = images.groups if images.groups is not None else np.arange(len(images)).astype(str)
    names, first, member_of = np.unique(groups, return_index=True, return_inverse=True)
    sizes = np.bincount(member_of)
    class_of_group = images.labels[first]
    is_cut = np.zeros(len(names), dtype=bool)
    fractions = np.broadcast_to(fraction, len(images.class_names))
    generator = np.random.default_rng(seed)
    for index, class_name in enumerate(images.class_names):
        candidates = generator.permutation(np.flatnonzero(class_of_group == index))
        if len(candidates) < 2:
            raise SourceError(
                f"Class {class_name} has {images.counts[index]} image(s) of {len(candidates)} patient(s) or group(s); "
                "at least 2 are needed to cut off a split. Add images, merge the class, or bring splits of your own."
            )
        wanted = max(1.0, fractions[index] * sizes[candidates].sum())
        before = np.concatenate([[0], np.cumsum(sizes[candidates])[:-1]])
        taken = before + sizes[candidates] / 2 <= wanted
        taken[0], taken[-1] = True, False
        is_cut[candidates[taken]] = True
    side = is_cut[member_of]
    return images.take(np.flatnonzero(~side)), images.take(np.flatnonzero(side))


def png_bytes(pixels: Pixels) -> int:
    """What images take as PNG files, the smallest lossless form that everybody opens; pixels are [n, c, h, w]."""
    total = 0
    for image in pixels.transpose(0, 2, 3, 1):
        file = io.BytesIO()
        Image.fromarray(image.squeeze()).save(file, "PNG", optimize=True)
        total += file.tell()
    return total


def shaped_pixels(pixels: Pixels, size: int | None, channels: int) -> Pixels:
    """The rule behind `LabelledImages.shaped`, for pixels [n, channels, height, width] that have no labels yet."""
    return _resized(_with_channels(pixels, channels), size or pixels.shape[-1])


def _with_channels(pixels: Pixels, channels: int) -> Pixels:
    found = pixels.shape[1]
    if found == channels:
        return pixels
    if found == 1:
        return np.repeat(pixels, channels, axis=1)
    if found == 3 and channels == 1:
        luma = np.tensordot(pixels.astype(np.float32), np.array([0.299, 0.587, 0.114], np.float32), axes=([1], [0]))
        return np.rint(luma).astype(np.uint8)[:, None]
    raise SourceError(f"Found images with {found} channels; expected 1 or 3.")


def _resized(pixels: Pixels, size: int) -> Pixels:
    height, width = pixels.shape[-2:]
    if (height, width) == (size, size):
        return pixels
    if height % size == 0 and width % size == 0:
        blocks = pixels.reshape(*pixels.shape[:2], size, height // size, size, width // size)
        averaged: Pixels = np.rint(blocks.mean((3, 5), dtype=np.float32)).astype(np.uint8)
        return averaged
    method = Image.Resampling.BOX if size <= min(height, width) else Image.Resampling.BILINEAR
    planes = pixels.reshape(-1, height, width)
    resized = np.empty((len(planes), size, size), dtype=np.uint8)
    for index, plane in enumerate(planes):
        resized[index] = np.asarray(Image.fromarray(plane).resize((size, size), method))
    return resized.reshape(*pixels.shape[:2], size, size)
