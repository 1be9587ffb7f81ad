"""Which reader reads what: decided by the name alone."""

import unicodedata
from dataclasses import replace
from pathlib import Path

from medistill.errors import SourceError
from medistill.sources.container import Folder
from medistill.sources.folder import read_folder
from medistill.sources.found import Found, Part, split_name
from medistill.sources.npz import read_npz
from medistill.sources.phantom import read_phantom
from medistill.sources.table import image_files, read_table

PHANTOM = "phantom"
"""The source that needs no file."""

_READERS = {".npz": read_npz, ".zip": read_folder, ".csv": read_table}


def open_source(source: str, size: int | None = None, channels: int = 1) -> Found:
    """Open a source, the word `phantom`, a folder, or a .zip, .csv or .npz file, or one split of it.

    Args:
        source: the word or a path; with a split, `ours.npz#test`, the result has that one alone.
        size: the size at which phantoms are drawn, in pixels; everything else is found as it is.
        channels: the channels with which phantoms are drawn.

    Raises:
        SourceError: nothing is there, its kind is unknown, its reader refuses it, or it has no such split.
    """
    path, split = split_off(source)
    found = _open(path, size, channels)
    return found if split is None else found.only(split)


def files_of(source: str) -> list[Path]:
    """The files that hold the images of a source which `open_source` can open; phantoms have none.

    Those of a folder are all that are not hidden, those of a table the ones that it lists, or the zip beside it.
    """
    place, _ = split_off(source)
    if place == PHANTOM:
        return []
    path = Path(place).expanduser()
    if path.is_dir():
        return [path / name for name in Folder(path).names()]
    return image_files(path) if path.suffix.casefold() == ".csv" else [path]


def split_off(source: str) -> tuple[str, str | None]:
    """The path and the split that `path#split` names; no split where a file or folder has just this name."""
    path, marked, split = source.rpartition("#")
    return (path, split) if marked and not Path(source).expanduser().exists() else (source, None)


def _open(source: str, size: int | None, channels: int) -> Found:
    if source == PHANTOM:
        drawn = read_phantom(size, channels)
        parts = {split_name(name): Part(part.pixels, part.labels, part.groups) for name, part in drawn.items()}
        return Found(PHANTOM, PHANTOM, parts, drawn["train"].class_names)
    path = Path(source).expanduser()
    name = path.absolute().name
    if not path.exists():
        raise SourceError(
            f"{name} does not exist; expected a folder, a .zip, .csv or .npz file, or the word phantom. "
            "Check the spelling of source.path."
        )
    if path.is_dir():
        return _composed(read_folder(path))
    reader = _READERS.get(path.suffix.casefold())
    if reader is None:
        raise SourceError(
            f"{name} is of a kind that is not read; expected a folder with a folder for each class, a .zip of one, "
            "a .csv that lists images, or a MedMNIST .npz."
        )
    return _composed(reader(path))


def _composed(found: Found) -> Found:
    """Class names in the one spelling that packages know; macOS writes accents in file names in two pieces."""
    return replace(found, class_names=tuple(unicodedata.normalize("NFC", name) for name in found.class_names))
