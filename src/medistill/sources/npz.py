"""NumPy archives as MedMNIST lays them out: `train_images` beside `train_labels`, and so on for each split.

A bare pair `images` and `labels` is a source without splits. MedMNIST files carry no class names, so classes are called
by their numbers; an array `class_names`, where there is one, gives names. The file comes from elsewhere: nothing
pickled is ever loaded, and what an array's header declares is held against its zip entry before memory is set aside.

Source: Yang et al., "MedMNIST v2", Scientific Data 2023, arXiv 2110.14795.
"""

import math
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from medistill.errors import SourceError
from medistill.images import Indices, Pixels
from medistill.sources.found import ALL, Found, Part, in_order, split_name

SMALLEST_BOMB_BYTES = 256 * 2**20
"""Arrays below this size are never taken for a bomb, however well they are compressed."""

LARGEST_RATIO = 200
"""Above this compression a large array is refused; films come to 2 or 3, empty arrays to 1000."""

_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    SyntaxError,
    tokenize.TokenError,  # numpy reads a header it cannot parse a second time, as Python 2 wrote them
)


def read_npz(path: Path) -> Found:
    """Read every pair `<split>_images` and `<split>_labels` of an .npz.

    Images are 8-bit, [n, height, width] grey or [n, height, width, 1 or 3]; labels are integers from 0, [n] or [n, 1].

    Raises:
        SourceError: the file is damaged, holds pickled objects or a bomb, lacks half a pair, or an array has another
            type, shape or count than a classified image set has.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            keys = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
            pairs = _pairs(path.name, keys)
            arrays = {key: _load(archive, key, path.name) for pair in pairs.values() for key in pair}
            names = _load(archive, "class_names", path.name) if "class_names" in keys else None
    except _UNREADABLE as error:
        raise SourceError(
            f"{path.name} is damaged or is not an .npz; expected a NumPy archive. Copy it again."
        ) from error
    parts = {
        split: Part(*_checked(path.name, images, labels, arrays[images], arrays[labels]))
        for split, (images, labels) in pairs.items()
    }
    return Found(path.name, "npz", parts, _class_names(path.name, parts, names), named=names is not None)


def _pairs(file: str, keys: list[str]) -> dict[str, tuple[str, str]]:
    pairs: dict[str, tuple[str, str]] = {}
    for key in keys:
        prefix, _, kind = key.rpartition("_")
        if kind not in ("images", "labels"):
            continue
        pair = (f"{prefix}_images".lstrip("_"), f"{prefix}_labels".lstrip("_"))
        for half in pair:
            if half not in keys:
                raise SourceError(f"{file}: found {key} but no {half}; expected both. Add the missing array.")
        split = split_name(prefix) if prefix else ALL
        if pairs.setdefault(split, pair) != pair:
            raise SourceError(f"{file}: found two splits called {split}; expected one. Rename or remove one of them.")
    if not pairs:
        raise SourceError(
            f"{file}: found no labelled images; expected arrays such as train_images and train_labels, as in MedMNIST. "
            "Save the file with these names."
        )
    return {split: pairs[split] for split in in_order(pairs)}


def _load(archive: zipfile.ZipFile, key: str, file: str) -> NDArray[Any]:
    entry = archive.getinfo(f"{key}.npy")
    with archive.open(entry) as stream:
        version = npy.read_magic(stream)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(stream)
        header_bytes = stream.tell()
    if dtype.hasobject:
        raise SourceError(
            f"{file}: {key} holds pickled objects, which can run code and are never loaded; expected plain numbers. "
            "Save it as 8-bit images or integer labels."
        )
    if header_bytes + math.prod(shape) * dtype.itemsize != entry.file_size:
        raise SourceError(
            f"{file}: {key} declares another size than its entry holds; it is damaged or forged. Copy the file again."
        )
    if entry.file_size > max(SMALLEST_BOMB_BYTES, LARGEST_RATIO * entry.compress_size):
        raise SourceError(
            f"{file}: {key} unpacks to {entry.file_size:,} bytes from {entry.compress_size:,}, which no image set "
            "does. Do not use this file."
        )
    with archive.open(entry) as stream:
        return np.asarray(npy.read_array(stream, allow_pickle=False))


def _checked(
    file: str, images_key: str, labels_key: str, images: NDArray[Any], labels: NDArray[Any]
) -> tuple[Pixels, Indices]:
    shape = list(images.shape)
    if images.dtype != np.uint8:
        raise SourceError(
            f"{file}: {images_key} has type {images.dtype}; expected uint8. "
            "Scale the images to 0-255 and save them again."
        )
    if images.ndim not in (3, 4) or (images.ndim == 4 and shape[-1] not in (1, 3)) or 0 in shape:
        raise SourceError(
            f"{file}: {images_key} has shape {shape}; expected [n, height, width], or [n, height, width, 3] for color. "
            "Save the images in that order of axes."
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise SourceError(
            f"{file}: {labels_key} has shape {list(labels.shape)}; expected [n] or [n, 1], one class an image. "
            "Several labels an image are not supported: choose one."
        )
    negative = " and negative values" if labels.dtype.kind == "i" else ""
    if labels.dtype.kind not in "iu" or (len(labels) and labels.min() < 0):
        raise SourceError(
            f"{file}: {labels_key} has type {labels.dtype}{negative}; expected whole numbers from 0. "
            "Number the classes from 0."
        )
    if len(labels) != len(images):
        raise SourceError(
            f"{file}: found {len(images)} images in {images_key} but {len(labels)} labels in {labels_key}; "
            "expected one label an image. Save both from the same list."
        )
    stacked = images[:, None] if images.ndim == 3 else np.moveaxis(images, -1, 1)
    return np.ascontiguousarray(stacked), labels.astype(np.int64)


def _class_names(file: str, parts: dict[str, Part], names: NDArray[Any] | None) -> tuple[str, ...]:
    highest = max(int(part.labels.max()) for part in parts.values())
    images = sum(len(part.labels) for part in parts.values())
    if names is not None and names.dtype.kind == "U" and names.ndim == 1 and highest < len(names) <= images:
        return tuple(names.tolist())
    if names is not None:
        raise SourceError(
            f"{file}: class_names does not name the labels up to {highest}; expected a list of texts, one a class. "
            "Save it as an array of text or leave it out."
        )
    if highest >= images:
        raise SourceError(
            f"{file}: found label {highest} among {images} images; expected classes numbered from 0 without gaps. "
            "Number the classes from 0."
        )
    return tuple(str(index) for index in range(highest + 1))
