"""The arrays of a package as a safetensors file whose header is known before it is read.

A safetensors file is a length, a JSON header and raw numbers. The manifest already says how many images there are, of
what shape, with what labels, so the header has only one possible text: the reader computes that text and compares.
No header is ever parsed and no size in a file is ever believed. The text is the one the safetensors library writes
(wider types first, then by name), and that library opens the file.

Layout: github.com/huggingface/safetensors, README, section "Format".
"""

import json
import math

import numpy as np
from numpy.typing import NDArray

from medistill.errors import PackageError, Tampered
from medistill.package.archive import RESEND
from medistill.package.manifest import SUM_TOLERANCE, ImageForm, PixelRange
from medistill.recipe import Encoding

PATH = "data/synthetic.safetensors"
_CODES: dict[Encoding, str] = {"float32": "<f4", "float16": "<f2", "uint8": "|u1"}
MAX_PIXEL = 1e4
MAX_RATE = 1000

Images = NDArray[np.float32]
HardOrSoft = NDArray[np.int64] | NDArray[np.float32]


def range_of(images: Images) -> dict[str, float]:
    """The range over which 8-bit pixels are spread: that of the images, or 1 where all pixels are the same."""
    low, high = float(images.min()), float(images.max())
    return {"low": low, "high": high if high > low else low + 1}


def encoded(images: Images, form: ImageForm) -> Images:
    """What images become when they are stored in this form and read again, float32."""
    return _decoded(_stored(images, form), form)


def _stored(images: Images, form: ImageForm) -> NDArray[np.generic]:
    if form.range is None:
        return images.astype(_CODES[form.encoding])
    low, step = _scale(form.range)
    pixels: NDArray[np.uint8] = np.rint(np.clip((images - low) / step, 0, 255)).astype(np.uint8)
    return pixels


def _decoded(stored: NDArray[np.generic], form: ImageForm) -> Images:
    values = stored.astype(np.float32, copy=False)
    if form.range is None:
        return values
    low, step = _scale(form.range)
    values *= step
    values += low
    return values


def _scale(span: PixelRange) -> tuple[np.float32, np.float32]:
    """What the 8-bit pixel 0 stands for, and the step from each to the next."""
    return np.float32(span.low), np.float32((span.high - span.low) / 255)


def build(images: Images, labels: HardOrSoft, inner_rate: float, form: ImageForm, classes: int) -> bytes:
    """The file that holds these arrays, which must have the shapes that `form` gives."""
    arrays = {"images": _stored(images, form), "labels": labels, "inner_rate": np.array([inner_rate])}
    parts = [np.asarray(arrays[name]).astype(code).tobytes() for name, code, _ in _layout(form, classes)]
    return b"".join([_header(form, classes), *parts])


def parse(content: bytes, form: ImageForm, classes: int) -> tuple[Images, HardOrSoft, float]:
    """Images, labels and inner rate; the arrays are copies and cannot be written to.

    Raises:
        Tampered: the header or the size is not the one that the manifest gives.
        PackageError: a value is not allowed; see `check`.
    """
    layout, header = _layout(form, classes), _header(form, classes)
    expected = len(header) + sum(_bytes(code, shape) for _, code, shape in layout)
    if len(content) != expected or not content.startswith(header):
        raise Tampered(
            f"{PATH}: found {len(content):,} bytes that do not hold the arrays that the manifest describes; expected "
            f"the header it gives and {expected:,} bytes in all. {RESEND}"
        )
    arrays, at = {}, len(header)
    for name, code, shape in layout:
        flat = np.frombuffer(content, code, count=math.prod(shape), offset=at)
        arrays[name] = flat.reshape(shape).astype(np.dtype(code).newbyteorder("="))
        at += _bytes(code, shape)
    images, labels, inner_rate = _decoded(arrays["images"], form), arrays["labels"], float(arrays["inner_rate"][0])
    check(images, labels, inner_rate, classes)
    for array in (images, labels):
        array.setflags(write=False)
    return images, labels, inner_rate


def check(images: Images, labels: HardOrSoft, inner_rate: float, classes: int) -> None:
    """Refuse values that nobody could train on.

    Raises:
        PackageError: a pixel is not finite or beyond 10,000, a label is not one of the classes, soft labels are not
            probabilities that sum to 1, or the inner rate is not above 0 or beyond 1000.
    """
    for index, image in enumerate(images):
        if not (np.isfinite(image).all() and np.abs(image).max() <= MAX_PIXEL):
            raise PackageError(
                f"images: image {index} holds a pixel that is not a number or lies beyond ±{MAX_PIXEL:,.0f}; expected "
                "intensities near 0 to 1. Distill again, or ask its maker to."
            )
    if labels.ndim == 1:
        if not 0 <= labels.min() <= labels.max() < classes:
            raise PackageError(
                f"labels: found labels from {labels.min()} to {labels.max()}; expected 0 to {classes - 1}, one for "
                "each class name. Number the classes from 0."
            )
    elif not _are_probabilities(labels):
        raise PackageError(
            "labels: found a row that is not a set of probabilities; expected values from 0 that sum to 1. Apply a "
            "softmax to each row."
        )
    if not 0 < inner_rate <= MAX_RATE:
        raise PackageError(f"inner_rate: found {inner_rate}; expected a learning rate above 0, at most {MAX_RATE}.")


def eight_bits(intensities: Images) -> NDArray[np.uint8]:
    """Intensities as 8-bit pixels of the same shape: cut to 0..1, rounded, halves to even."""
    pixels: NDArray[np.uint8] = np.rint(np.clip(intensities, 0, 1) * np.float32(255)).astype(np.uint8)
    return pixels


def _are_probabilities(rows: HardOrSoft) -> bool:
    if not np.isfinite(rows).all() or rows.min() < 0 or rows.max() > 1 + SUM_TOLERANCE:
        return False
    return bool((np.abs(rows.sum(axis=1, dtype=np.float64) - 1) <= SUM_TOLERANCE).all())


def _layout(form: ImageForm, classes: int) -> list[tuple[str, str, tuple[int, ...]]]:
    """Name, type and shape of each array in the order of the file: wider types first, then by name."""
    is_hard = form.labels == "hard"
    arrays = [
        ("images", _CODES[form.encoding], (form.count, form.channels, form.height, form.width)),
        ("inner_rate", "<f4", (1,)),
        ("labels", "<i8", (form.count,)) if is_hard else ("labels", "<f4", (form.count, classes)),
    ]
    return sorted(arrays, key=lambda array: (-int(array[1][-1]), array[0]))


def _header(form: ImageForm, classes: int) -> bytes:
    entries, at = {}, 0
    for name, code, shape in _layout(form, classes):
        kind = {"<f4": "F32", "<f2": "F16", "|u1": "U8", "<i8": "I64"}[code]
        end = at + _bytes(code, shape)
        entries[name] = {"dtype": kind, "shape": shape, "data_offsets": (at, end)}
        at = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _bytes(code: str, shape: tuple[int, ...]) -> int:
    return int(code[-1]) * math.prod(shape)
