"""NumPy archives as MedMNIST lays them out: `train_images` beside `train_labels`, and so on for each split.

A bare pair `images` and `labels` is a source without splits. MedMNIST files carry no class names, so classes are called
by their numbers; an array `class_names`, where there is one, gives names. Large sets of photographs are also packed as
JPEG files, one after another in an array `jpeg`, with `offsets` where each begins (one more than there are images),
`labels`, and `is_test` where there is a test split. The file comes from elsewhere: nothing pickled is ever loaded, and
what an array's header declares is held against its zip entry before memory is set aside.

Source: Yang et al., "MedMNIST v2", Scientific Data 2023, arXiv 2110.14795.
"""

import math
import tokenize
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from medistill.errors import SourceError
from medistill.images import Indices, Pixels
from medistill.sources.container import UNREADABLE
from medistill.sources.found import ALL, Found, Part, in_order, split_name
from medistill.sources.picture import decode

SMALLEST_BOMB_BYTES = 256 * 2**20
"""Below this size an array, or all together, are never taken for a bomb, however well they are compressed."""

LARGEST_RATIO = 200
"""Above this compression a large array, or all together, are refused; films come to 2 or 3, empty arrays to 1000."""

_PACKED = ("jpeg", "offsets", "labels", "is_test")
_UNREADABLE = (
    *UNREADABLE,
    OverflowError,
    SyntaxError,
    tokenize.TokenError,  # numpy reads a header it cannot parse a second time, as Python 2 wrote them
)


@dataclass(frozen=True)
class Packed:
    """JPEG files one after another, decoded one at a time as they are asked for."""

    content: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    chosen: Indices

    def __iter__(self) -> Iterator[Pixels]:
        for index in self.chosen:
            start, end = self.offsets[index : index + 2]
            yield decode(self.content[start:end].tobytes(), f"image {index}")


def read_npz(path: Path) -> Found:
    """Read every pair `<split>_images` and `<split>_labels` of an .npz, or the JPEG files packed in one.

    Images are 8-bit, [n, height, width] grey or [n, height, width, 1 or 3]; labels are integers from 0, [n] or [n, 1].
    Packed files are decoded later, one at a time.

    Raises:
        SourceError: the file is damaged, holds pickled objects or a bomb, lacks half a pair, or an array has another
            type, shape or count than a classified image set has.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            keys = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
            pairs = {} if "jpeg" in keys else _pairs(path.name, keys)
            used = [key for pair in pairs.values() for key in pair] or [key for key in _PACKED if key in keys]
            used += [key for key in keys if key == "class_names"]
            _refuse_bomb(archive, used, path.name)
            arrays = {key: _load(archive, key, path.name) for key in used}
            names = arrays.pop("class_names", None)
    except _UNREADABLE as error:
        raise SourceError(
            f"{path.name} is damaged or is not an .npz; expected a NumPy archive. Copy it again."
        ) from error
    parts = {
        split: Part(*_checked(path.name, images, labels, arrays[images], arrays[labels]))
        for split, (images, labels) in pairs.items()
    } or _packed(path.name, arrays)
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


def _packed(file: str, arrays: dict[str, NDArray[Any]]) -> dict[str, Part]:
    """The splits of JPEG files that are packed in an archive."""
    missing = [key for key in ("offsets", "labels") if key not in arrays]
    if missing:
        raise SourceError(
            f"{file}: found jpeg but no {' and no '.join(missing)}; expected both. Add the missing array."
        )
    content, offsets = arrays["jpeg"], arrays["offsets"]
    labels = _checked_labels(file, "labels", arrays["labels"])
    is_test = arrays.get("is_test", np.zeros(len(labels), dtype=np.bool_))
    if (
        not len(labels)
        or content.dtype != np.uint8
        or content.ndim != 1
        or offsets.dtype.kind not in "iu"
        or offsets.shape != (len(labels) + 1,)
        or is_test.shape != labels.shape
        or is_test.dtype != np.bool_
        or (np.diff(offsets.astype(np.int64), prepend=0, append=len(content)) < 0).any()
    ):
        raise SourceError(
            f"{file}: jpeg, offsets, labels and is_test do not fit together; expected the bytes of n files, n + 1 "
            "rising offsets into them, n labels and n truth values. Pack the files again."
        )
    members = {"train" if "is_test" in arrays else ALL: ~is_test, "test": is_test}
    found = {split: np.flatnonzero(of_split) for split, of_split in members.items()}
    places = offsets.astype(np.int64)
    return {
        split: Part(Packed(content, places, chosen), labels[chosen]) for split, chosen in found.items() if len(chosen)
    }


def _refuse_bomb(archive: zipfile.ZipFile, keys: list[str], file: str) -> None:
    sizes = [(each.file_size, each.compress_size) for each in (archive.getinfo(f"{key}.npy") for key in keys)]
    together = tuple(map(sum, zip(*sizes, strict=True)))
    for unpacked, packed in (*sizes, together):
        if unpacked > max(SMALLEST_BOMB_BYTES, LARGEST_RATIO * packed):
            raise SourceError(
                f"{file}: found arrays that unpack to {unpacked:,} bytes from {packed:,}, which no image set does. Do "
                "not use this file."
            )


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
    labels = _checked_labels(file, labels_key, labels)
    if len(labels) != len(images):
        raise SourceError(
            f"{file}: found {len(images)} images in {images_key} but {len(labels)} labels in {labels_key}; "
            "expected one label an image. Save both from the same list."
        )
    stacked = images[:, None] if images.ndim == 3 else np.moveaxis(images, -1, 1)
    return np.ascontiguousarray(stacked), labels


def _checked_labels(file: str, labels_key: str, labels: NDArray[Any]) -> Indices:
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
    return labels.astype(np.int64)


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
