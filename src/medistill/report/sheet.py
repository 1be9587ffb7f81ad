"""The contact sheet: all synthetic images at one look, a row for each class.

Pictures of distilled sets look wrong when pixels are shown normalized, stretched image by image, or blurred by
enlargement. Here an intensity of 0 is black and 1 is white in every image, a pixel becomes a whole square, and the
caption says so.
"""

import io
import math
import textwrap
import unicodedata

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from medistill.package import Package
from medistill.package.documents import what_images
from medistill.package.tensors import HardOrSoft, Images

WINDOW = "window 0 to 1: darker and brighter values are clipped"
MAX_COLUMNS = 24  # twenty a class, and what learned labels have moved to another
MAX_CLASSES = 40

_TILE = 72
_GAP = 6
_MARGIN = 18
_NAME_LETTERS = 22
_NAME_GAP = 18
_NARROWEST = 560
_PAPER, _INK, _MUTED = (255, 255, 255), (23, 33, 43), (91, 104, 115)


def contact_sheet(
    images: Images,
    labels: HardOrSoft,
    class_names: tuple[str, ...],
    *,
    caption: str,
    scale: int | None = None,
    formation: int = 1,
) -> bytes:
    """Draw synthetic images as a PNG, a row for each class, the same bytes for the same images.

    At most 24 images of a class and 40 classes are drawn; the caption says how many of how many.

    Args:
        images: intensities [image, channel, height, width], 0 black and 1 white, grey or RGB.
        labels: a class index an image, or a probability a class; the most probable class counts.
        class_names: in the order of the indices. The font knows no accents and no other alphabet: accents are left
            out, and a name that needs another alphabet is drawn by its number, "class 2".
        caption: what these images are, for instance the name of the set.
        scale: how many screen pixels wide a pixel becomes; None aims at tiles of about 72, and averages whole blocks of
            pixels in images that are much larger than that.
        formation: how many films lie side by side, and below one another, in each image.
    """
    classes = labels if labels.ndim == 1 else labels.argmax(axis=1)
    rows = [np.flatnonzero(classes == index) for index in range(len(class_names))][:MAX_CLASSES]
    shown = [row[:MAX_COLUMNS] for row in rows]
    larger, smaller = _zoom(max(images.shape[2:]), scale)
    height, width = (-(-side // smaller) * larger for side in images.shape[2:])

    small, normal, large = (ImageFont.load_default(size=size) for size in (13, 14, 18))
    names = [
        textwrap.wrap(
            _drawable(name) or f"class {index + 1}",
            _NAME_LETTERS,
            max_lines=max(1, min(3, height // 18)),
            placeholder=" ...",
        )
        for index, name in enumerate(class_names[:MAX_CLASSES])
    ]
    widest = max((normal.getlength(line) for lines in names for line in lines), default=0.0)
    left = _MARGIN + math.ceil(widest) + _NAME_GAP
    grid_width = max(len(row) for row in shown) * (width + _GAP) - _GAP
    sheet_width = max(left + grid_width + _MARGIN, _NARROWEST)
    title = textwrap.fill(_drawable(caption) or caption, (sheet_width - 2 * _MARGIN) // 10)
    about = textwrap.fill(
        "; ".join(_about(len(images), shown, len(class_names), larger, smaller, formation)),
        (sheet_width - 2 * _MARGIN) // 7,
    )
    about_top = _MARGIN + 24 * len(title.splitlines())
    top = about_top + 18 * len(about.splitlines()) + 14

    sheet = Image.new("RGB", (sheet_width, top + len(shown) * (height + _GAP) + _MARGIN - _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.multiline_text((_MARGIN, _MARGIN), title, _INK, large)
    draw.multiline_text((_MARGIN, about_top), about, _MUTED, small)
    for row, (lines, members) in enumerate(zip(names, shown, strict=True)):
        y = top + row * (height + _GAP)
        draw.multiline_text((_MARGIN, y + height // 2), "\n".join(lines), _INK, normal, anchor="lm")
        for column, member in enumerate(members):
            x = left + column * (width + _GAP)
            sheet.paste(_tile(images[member], larger, smaller), (x, y))
    content = io.BytesIO()
    sheet.save(content, "PNG", optimize=True)
    return content.getvalue()


def package_sheet(package: Package, name: str) -> bytes:
    """The contact sheet of a package's images, under a name and what they are."""
    return contact_sheet(
        package.images,
        package.labels,
        package.class_names,
        caption=f"{name}: {what_images(package.manifest.provenance)}s",
        formation=package.manifest.training.formation or 1,
    )


def _drawable(name: str) -> str | None:
    """The name without accents, or None where the font lacks a letter of it."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter))
    return plain if plain.isascii() else None


def _zoom(side: int, scale: int | None) -> tuple[int, int]:
    """How many times a tile is enlarged, and reduced; one of the two is 1."""
    if scale is not None:
        return scale, 1
    return max(1, int(_TILE / side + 0.5)), max(1, side // _TILE)


def _about(
    count: int, shown: list[NDArray[np.intp]], classes: int, larger: int, smaller: int, formation: int
) -> list[str]:
    drawn = sum(len(row) for row in shown)
    some = [f"{len(shown)} of {classes} classes"] if len(shown) < classes else []
    zoom = [f"{larger} times enlarged"] if larger > 1 else []
    zoom += [f"each pixel the mean of {smaller} x {smaller}"] if smaller > 1 else []
    films = [f"{formation} x {formation} films in each image"] if formation > 1 else []
    return [WINDOW, f"{drawn:,} of {count:,} images shown", *some, *films, *zoom]


def _tile(image: NDArray[np.float32], larger: int, smaller: int) -> Image.Image:
    pixels = np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8).transpose(1, 2, 0)
    picture = Image.fromarray(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels).reduce(smaller)
    return picture.resize((picture.width * larger, picture.height * larger), Image.Resampling.NEAREST)
