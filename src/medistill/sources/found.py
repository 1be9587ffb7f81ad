"""What a reader found, before anyone asks for a shape: the one thing that all readers return.

Images may still differ in size and in channels, and image files are not decoded yet. Looking at a source and reading
it therefore run over the same images, and only reading has to hold them all at once.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from medistill.errors import SourceError
from medistill.images import Indices, LabelledImages, Pixels, shaped_pixels

ALL = "all"
"""The name of the only split of a source that has none."""

SPLITS = ("train", "validation", "test")
"""The splits that a run uses, in their fixed order."""

LARGEST_SIDE = 1024
"""The largest image that is read without `source.image_size`, in pixels."""


@dataclass(frozen=True)
class Part:
    """The images of one split.

    Attributes:
        images: a stacked array [n, channels, height, width], or anything that yields arrays [channels, height, width].
        labels: class indices, shape [n].
        groups: who each image belongs to, shape [n], or None where unknown.
    """

    images: Pixels | Iterable[Pixels]
    labels: Indices
    groups: NDArray[np.str_] | None = None


@dataclass(frozen=True)
class Found:
    """A source as it stands: its splits by name, its classes, and what a person should know about how it was read."""

    name: str
    kind: str
    parts: dict[str, Part]
    class_names: tuple[str, ...]
    named: bool = True
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.class_names) < 2:
            classes = ", ".join(self.class_names) or "none"
            raise SourceError(
                f"{self.name}: found {len(self.class_names)} class ({classes}); expected at least 2. "
                "Add the images of another class, each with its label."
            )

    def only(self, split: str) -> Self:
        """The source as if it had this one split.

        Raises:
            SourceError: it has no such split.
        """
        name = split_name(split)
        if name not in self.parts:
            raise SourceError(
                f"{self.name} has no split {split!r}; it has {', '.join(self.parts)}. "
                f"Write for instance {self.name}#{next(iter(self.parts))}."
            )
        return replace(self, parts={name: self.parts[name]})

    def labelled(self, names: Sequence[str], size: int | None, channels: int) -> dict[str, LabelledImages]:
        """The named splits as arrays of one shape.

        Args:
            names: which of `parts`.
            size: height and width in pixels, or None to keep the one size that all images have.
            channels: 1 or 3.

        Raises:
            SourceError: `size` is None, but the images differ in size or are larger than 1024 pixels.
        """
        seen: Counter[tuple[int, int]] = Counter()
        pixels = {name: self._stacked(self.parts[name], size, channels, seen) for name in names}
        if size is None and len(seen) > 1:
            raise SourceError(
                f"{self.name}: found images of {sizes_in_words(seen)}; expected one size. "
                "Set source.image_size (for instance 64), to which every image is then brought."
            )
        return {
            name: LabelledImages(
                pixels[name], self.parts[name].labels, self.class_names, self.parts[name].groups, self.named
            )
            for name in names
        }

    def _stacked(self, part: Part, size: int | None, channels: int, seen: Counter[tuple[int, int]]) -> Pixels:
        if isinstance(part.images, np.ndarray):
            self._note_size(part.images, len(part.images), size, seen)
            return np.ascontiguousarray(shaped_pixels(part.images, size, channels))
        stack: Pixels | None = None
        for index, image in enumerate(part.images):
            self._note_size(image, 1, size, seen)
            if size is None and len(seen) > 1:
                continue
            shaped = shaped_pixels(image[None], size, channels)[0]
            if stack is None:
                stack = np.empty((len(part.labels), *shaped.shape), dtype=np.uint8)
            stack[index] = shaped
        return np.empty((len(part.labels), channels, 1, 1), dtype=np.uint8) if stack is None else stack

    def _note_size(self, image: Pixels, count: int, size: int | None, seen: Counter[tuple[int, int]]) -> None:
        height, width = image.shape[-2:]
        if size is None and max(height, width) > LARGEST_SIDE:
            raise SourceError(
                f"{self.name}: found an image of {width}x{height}; expected at most {LARGEST_SIDE}x{LARGEST_SIDE}. "
                "Set source.image_size (for instance 128), to which every image is then brought."
            )
        seen[width, height] += count


def split_name(text: str) -> str:
    """The one spelling of a split: `val` and `Validation` are both `validation`."""
    lowered = text.casefold()
    return "validation" if lowered == "val" else lowered


def in_order(splits: Iterable[str]) -> list[str]:
    """Train, validation and test first, then any others by name."""
    return sorted(splits, key=lambda name: (SPLITS.index(name) if name in SPLITS else len(SPLITS), name))


def sizes_in_words(sizes: Counter[tuple[int, int]]) -> str:
    """The three most common sizes as text, for instance `64x64 (90 images), 32x32 (10 images)`."""
    common = [f"{width}x{height} ({count:,} images)" for (width, height), count in sizes.most_common(3)]
    rest = len(sizes) - len(common)
    return ", ".join(common) + (f" and {rest} other sizes" if rest else "")
