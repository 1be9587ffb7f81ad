"""One picture file becomes 8-bit pixels.

Pillow does the decoding, restricted to the four formats in which images leave a hospital's archive. Its guard against
decompression bombs (`Image.MAX_IMAGE_PIXELS`) is kept, and its warning counts as a refusal.
"""

import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from PIL import Image, ImageOps

from medistill.errors import SourceError
from medistill.images import Pixels
from medistill.sources.container import Container

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
"""Files that count as images, by the end of their name in any case."""

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")


@dataclass(frozen=True)
class Pictures:
    """Picture files that are decoded one at a time as they are asked for, so that a set of any size fits in memory."""

    container: Container
    names: Sequence[str]

    def __iter__(self) -> Iterator[Pixels]:
        for name, content in zip(self.names, self.container.contents(self.names), strict=True):
            yield decode(content, PurePosixPath(name).name)


def decode(content: bytes, name: str) -> Pixels:
    """The pixels of one PNG, JPEG, BMP or TIFF, shape [channels, height, width] with 1 or 3 channels.

    A 16-bit grey image is scaled by the full range of its type, 65535 to 255, never by its own darkest and brightest
    pixel: the same tissue keeps the same shade in every image. Transparency is dropped, a palette is looked up, and
    an orientation written by a camera is applied.

    Args:
        content: the whole file.
        name: its file name, for messages only.

    Raises:
        SourceError: the file is truncated, not one of the four formats, implausibly large, holds several pictures, or
            has a type with no fixed range (32-bit, floating point).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                return _pixels(image, name)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise SourceError(
            f"{name} claims more than {Image.MAX_IMAGE_PIXELS:,} pixels; expected an image of ordinary size. "
            "Take it out."
        ) from error
    except SourceError:
        raise
    except Exception as error:  # a damaged file makes Pillow raise a dozen unrelated types
        raise SourceError(
            f"{name} cannot be decoded; expected a whole PNG, JPEG, BMP or TIFF. Export it again or take it out."
        ) from error


def _pixels(image: Image.Image, name: str) -> Pixels:
    if image.format in ("TIFF", "PNG") and getattr(image, "n_frames", 1) > 1:
        raise SourceError(f"{name} holds several pictures; expected one image a file. Save each as a file of its own.")
    is_16_bit = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    if image.mode in ("I", "F") and not is_16_bit:
        raise SourceError(
            f"{name} has 32-bit pixels, whose range is not fixed; expected 8 or 16 bits. Export it as 8-bit grey."
        )
    image = ImageOps.exif_transpose(image)
    if is_16_bit:
        shades: Pixels = np.rint(np.asarray(image) * (255 / 65535)).astype(np.uint8)
        return shades[None]
    if image.mode in ("1", "L", "LA", "La"):
        return np.asarray(image.convert("L"))[None]
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    return np.ascontiguousarray(np.moveaxis(np.asarray(image.convert("RGB")), -1, 0))
