"""Pictures of the synthetic images for eyes and viewers, as a pure function of the pixels.

A preview that merely came along could show something else than what one trains on. So the reader draws every preview
again and compares bytes: what one looks at is what one trains on. For that a PNG must have one form too; it is written
without compression (deflate's stored blocks), which no version of zlib can change. The reader never decodes a PNG.

The folder opens as a Hugging Face `imagefolder`. Layout of a PNG: W3C, Portable Network Graphics, section 5; stored
blocks: RFC 1951, section 3.2.4, in the wrapper of RFC 1950.
"""

import csv
import io
import re
import struct
import unicodedata
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from medistill.package.tensors import HardOrSoft, Images, eight_bits

FOLDER = "images/train"
TABLE = f"{FOLDER}/metadata.csv"
_BLOCK = 65_535
_SLUG_LETTERS = 32


def render(images: Images, labels: HardOrSoft, class_names: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Path and content of each preview, one at a time, then of the table that names their classes.

    An image with soft labels goes by its most probable class. Intensities are cut to 0..1 and rounded to 8 bits.
    """
    classes = labels if labels.ndim == 1 else labels.argmax(axis=1)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("file_name", "label"))
    for index, (image, label) in enumerate(zip(images, classes, strict=True)):
        file_name = f"{index:05d}-{slug(class_names[label])}.png"
        writer.writerow((file_name, class_names[label]))
        yield f"{FOLDER}/{file_name}", _png(eight_bits(image))
    yield TABLE, table.getvalue().encode()


def slug(class_name: str) -> str:
    """The class name in letters and digits that every file system takes; the index keeps names apart."""
    plain = unicodedata.normalize("NFKD", class_name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:_SLUG_LETTERS].strip("-") or "class"


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """An 8-bit PNG, grey or color, of pixels [channels, height, width]."""
    channels, height, width = pixels.shape
    rows = np.zeros((height, 1 + width * channels), dtype=np.uint8)  # each row begins with filter type 0
    rows[:, 1:] = pixels.transpose(1, 2, 0).reshape(height, -1)
    kind = {1: 0, 3: 2}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    chunks = _chunk(b"IHDR", header), _chunk(b"IDAT", _stored(rows.tobytes())), _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _stored(content: bytes) -> bytes:
    """A zlib stream that holds `content` as it is."""
    blocks = [content[at : at + _BLOCK] for at in range(0, len(content), _BLOCK)]
    parts = [struct.pack("<BHH", block is blocks[-1], len(block), len(block) ^ 0xFFFF) + block for block in blocks]
    return b"\x78\x01" + b"".join(parts) + struct.pack(">I", zlib.adler32(content))
