"""A CSV that says for each image file its class and, where known, its patient and its split.

The header is `path,label,group,split`; `group` and `split` may be absent and further columns are ignored. Paths are
relative to the CSV's own folder or, where a .zip of the same name lies beside it, to the inside of that zip. This is
the only source of plain image files that knows patients, which is what keeps one patient on one side of a cut.
"""

import csv
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from medistill.errors import SourceError
from medistill.sources.container import Archive, Container, Folder
from medistill.sources.found import ALL, SPLITS, Found, Part, in_order, split_name
from medistill.sources.picture import Pictures


@dataclass(frozen=True)
class _Row:
    name: str
    label: str
    group: str
    split: str


def read_table(path: Path) -> Found:
    """Read the images that a CSV lists. Images are decoded later, one at a time.

    An image without a group counts as a patient of its own. Class names are in alphabetical order.

    Raises:
        SourceError: a column is missing, or a line (named by its number) has no label, an unknown split, or a path
            that is missing, listed before, or leads out of the folder.
    """
    beside = _archive_beside(path)
    container: Container = Folder(path.parent) if beside is None else Archive(beside)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = _rows(path.name, csv.DictReader(stream), container)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(
            f"{path.name} cannot be read as a CSV; expected text in UTF-8, separated by commas. Save it again as such."
        ) from error
    if not rows:
        raise SourceError(f"{path.name}: found a header but no images; expected a line for each image. Add them.")
    class_names = tuple(sorted({row.label for row in rows}))
    index_of = {class_name: index for index, class_name in enumerate(class_names)}
    alone = sum(not row.group for row in rows)
    parts = {}
    for split in in_order({row.split for row in rows}):
        members = [row for row in rows if row.split == split]
        labels = np.array([index_of[row.label] for row in members], dtype=np.int64)
        groups = np.array([row.group or f"alone: {row.name}" for row in members], dtype=np.str_)
        images = Pictures(container, [row.name for row in members])
        parts[split] = Part(images, labels, groups if alone < len(rows) else None)
    notes = (f"{alone:,} images have no group: each counts as a patient of its own.",) if 0 < alone < len(rows) else ()
    return Found(path.name, "csv", parts, class_names, notes=notes)


def image_files(path: Path) -> list[Path]:
    """The files that hold the images which a readable CSV lists: the zip beside it, or each one's own."""
    beside = _archive_beside(path)
    if beside is not None:
        return [beside]
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return sorted({path.parent / _name_of(row["path"]) for row in csv.DictReader(stream)})


def _archive_beside(path: Path) -> Path | None:
    beside = path.with_suffix(".zip")
    return beside if beside.is_file() else None


def _rows(file: str, reader: "csv.DictReader[str]", container: Container) -> list[_Row]:
    header = reader.fieldnames or []
    for column in ("path", "label"):
        if column not in header:
            raise SourceError(
                f"{file}: line 1 has no column {column}; expected the header path,label,group,split, separated by "
                "commas (group and split may be left out). Correct the first line."
            )
    rows: list[_Row] = []
    line_of: dict[str, int] = {}
    for fields in reader:
        line = f"{file}: line {reader.line_num}"
        row = _row(line, fields, has_splits="split" in header)
        if row.name in line_of:
            raise SourceError(
                f"{line} lists {PurePosixPath(row.name).name} again, after line {line_of[row.name]}; expected each "
                "image once. Remove one of the lines."
            )
        if not container.holds(row.name):
            raise SourceError(
                f"{line} lists {PurePosixPath(row.name).name}, which is not there; expected a path relative to the "
                "CSV's folder, or to the inside of the zip of the same name. Correct the path or remove the line."
            )
        line_of[row.name] = reader.line_num
        rows.append(row)
    return rows


def _name_of(path: str) -> PurePosixPath:
    """A path as it stands in a table, which may have been written on Windows."""
    return PurePosixPath(path.strip().replace("\\", "/"))


def _row(line: str, fields: dict[str, str], *, has_splits: bool) -> _Row:
    path, label, group, split = ((fields.get(column) or "").strip() for column in ("path", "label", "group", "split"))
    name = _name_of(path)
    if not path or name.is_absolute() or PureWindowsPath(path).drive or ".." in name.parts:
        raise SourceError(
            f"{line} has a path that is empty, absolute or leads out of the folder; expected one relative to the CSV's "
            "folder. Correct the path."
        )
    if not label:
        raise SourceError(f"{line} has no label; expected the name of a class. Add it or remove the line.")
    if has_splits and split_name(split) not in SPLITS:
        raise SourceError(
            # What stands there may be a patient's name that a comma has moved.
            f"{line} has an unknown word in the column split; expected train, val or test. Correct it, put what has a "
            "comma in quotes, or remove the column to have the splits cut for you."
        )
    return _Row(str(name), label, group, split_name(split) if has_splits else ALL)
