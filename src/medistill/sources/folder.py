"""A folder for each class, on disk or inside a .zip.

Three layouts are read, each also below one common outer folder: `class/x.png`, `split/class/x.png`, and either with a
folder `images` inside each class, as the COVID-19 Radiography Database has it; its `masks` are left out. Classes are
in alphabetical order. A folder says nothing about patients, so there are no groups: a CSV can give them.
"""

from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np

from medistill.errors import SourceError
from medistill.sources.container import Archive, Container, Folder
from medistill.sources.found import ALL, SPLITS, Found, Part, in_order, split_name
from medistill.sources.picture import SUFFIXES, Pictures

# Others are not named: what follows the last dot of a file may be a patient's name, and notes travel in packages.
_NAMED = (
    ".csv",
    ".dcm",
    ".gif",
    ".json",
    ".md",
    ".nii",
    ".npy",
    ".npz",
    ".pdf",
    ".txt",
    ".webp",
    ".xls",
    ".xlsx",
    ".xml",
)
_LAYOUTS = "expected class/image, or split/class/image with the splits train, val and test"


def read_folder(path: Path) -> Found:
    """Read a folder, or a .zip of one, whose folders are classes. Images are decoded later, one at a time.

    Raises:
        SourceError: there are no images, fewer than two classes, or folders in another layout.
    """
    container: Container = Folder(path) if path.is_dir() else Archive(path)
    file = path.absolute().name
    names, notes = _images(container.names(), file)
    places = dict(zip(names, _places(file, names), strict=True))
    class_names = tuple(sorted({class_name for _, class_name in places.values()}))
    index_of = {class_name: index for index, class_name in enumerate(class_names)}
    parts = {}
    for split in in_order({split for split, _ in places.values()}):
        members = [name for name in names if places[name][0] == split]
        labels = np.array([index_of[places[name][1]] for name in members], dtype=np.int64)
        parts[split] = Part(Pictures(container, members), labels)
    return Found(file, "folder" if path.is_dir() else "zip", parts, class_names, notes=notes)


def _images(names: list[str], file: str) -> tuple[list[str], tuple[str, ...]]:
    """The images among `names`, and a sentence about each kind of file that was left out."""
    other = [name for name in names if not name.casefold().endswith(SUFFIXES)]
    pictures = [name for name in names if name.casefold().endswith(SUFFIXES)]
    masks = [name for name in pictures if "masks" in _folders(name)]
    images = [name for name in pictures if "masks" not in _folders(name)]
    suffixes = Counter(_named(PurePosixPath(name).suffix.casefold()) for name in other)
    kinds = ", ".join(suffix for suffix, _ in suffixes.most_common(3))
    if not images:
        seen = f"{len(names)} files ({kinds or 'masks only'}) but no image" if names else "nothing"
        raise SourceError(f"{file}: found {seen}; expected PNG, JPEG, BMP or TIFF files in a folder for each class.")
    notes = []
    if masks:
        notes.append(f"{len(masks):,} images in folders called masks were left out.")
    if other:
        notes.append(f"{len(other):,} files that are not PNG, JPEG, BMP or TIFF were left out ({kinds}).")
    return images, tuple(notes)


def _named(suffix: str) -> str:
    return suffix if suffix in _NAMED else "other endings" if suffix else "no ending"


def _places(file: str, names: list[str]) -> list[tuple[str, str]]:
    """The split and the class of each image, read off its folders."""
    places = [_folders(name) for name in names]
    places = [place[:-1] if len(place) > 1 and place[-1] == "images" else place for place in places]
    while len({place[:1] for place in places}) == 1 and min(map(len, places)) > 1 and not _is_split(places[0][0]):
        places = [place[1:] for place in places]
    has_splits = any(place and _is_split(place[0]) for place in places)
    for name, place in zip(names, places, strict=True):
        if len(place) != 1 + has_splits:
            raise SourceError(
                f"{file}: found {PurePosixPath(name).name} in {len(place)} folders; {_LAYOUTS}. "
                "Move the files accordingly."
            )
    return [(split_name(place[0]), place[1]) if has_splits else (ALL, place[0]) for place in places]


def _folders(name: str) -> tuple[str, ...]:
    return PurePosixPath(name).parts[:-1]


def _is_split(folder: str) -> bool:
    return split_name(folder) in SPLITS
