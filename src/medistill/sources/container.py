"""A folder on disk or inside a .zip, seen the same way: names, and the bytes behind them.

A zip is read in place and never unpacked, so no copy of the images is left on a disk where nobody looks after it.
Names are relative, use `/`, and are sorted, so that a folder and its zip give the same images in the same order.
Hidden files and `__MACOSX` are left out.
"""

import lzma
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol

from medistill.errors import SourceError

LARGEST_FILE_BYTES = 256 * 2**20
"""No single image file is larger than this; a zip entry that claims to be is a mistake or an attack."""

DEEPEST = 8
"""Folders below this depth are not entered, which also ends a walk around a link that points to its own parent."""


UNREADABLE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError)
"""What Python's reader of zips raises where one is damaged, locked or packed in a way that it does not know."""


class Container(Protocol):
    """Something that holds files under relative names."""

    def names(self) -> list[str]:
        """The names of all files that are not hidden, sorted."""

    def holds(self, name: str) -> bool:
        """Whether there is a file of that name."""

    def contents(self, names: Iterable[str]) -> Iterator[bytes]:
        """The bytes of each file, one at a time and in the order asked."""


class Folder:
    """A folder on disk; links to folders are followed, because image sets are often put together from them."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> list[str]:
        """The names of all files that are not hidden, sorted."""
        found = []
        for place, folders, files in os.walk(self._path, onerror=_refuse, followlinks=True):
            relative = PurePosixPath(Path(place).relative_to(self._path).as_posix())
            folders[:] = [name for name in folders if len(relative.parts) < DEEPEST and not _is_hidden(name)]
            found += [str(relative / name) for name in files if not _is_hidden(name)]
        return sorted(found)

    def holds(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return (self._path / name).is_file()

    def contents(self, names: Iterable[str]) -> Iterator[bytes]:
        """The bytes of each file, one at a time and in the order asked."""
        for name in names:
            try:
                yield (self._path / name).read_bytes()
            except OSError as error:
                _refuse(error)


class Archive:
    """A .zip, opened only while something is read from it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with zipfile.ZipFile(path) as archive:
                entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        except UNREADABLE as error:
            raise SourceError(
                f"{path.name}: found a file that does not open as a zip; it is damaged or incomplete. Copy it again."
            ) from error
        names = {entry.filename.replace("\\", "/"): entry for entry in entries}
        self._entries = {name: names[name] for name in sorted(names) if not any(map(_is_hidden, name.split("/")))}

    def names(self) -> list[str]:
        """The names of all files that are not hidden, sorted."""
        return list(self._entries)

    def holds(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return name in self._entries

    def contents(self, names: Iterable[str]) -> Iterator[bytes]:
        """The bytes of each file, one at a time and in the order asked."""
        with zipfile.ZipFile(self._path) as archive:
            for name in names:
                yield self._read(archive, self._entries[name])

    def _read(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
        if entry.file_size > LARGEST_FILE_BYTES:
            raise SourceError(
                f"{self._path.name}: {_last(entry.filename)} unpacks to {entry.file_size:,} bytes; expected at most "
                f"{LARGEST_FILE_BYTES:,}. Take it out of the zip."
            )
        try:
            return archive.read(entry)
        except UNREADABLE as error:
            raise SourceError(
                f"{self._path.name}: {_last(entry.filename)} is damaged, or locked by a password; expected a plain "
                "zip entry. Make the zip again."
            ) from error


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _last(name: str) -> str:
    return PurePosixPath(name).name


def _refuse(error: OSError) -> None:
    name = Path(os.fsdecode(error.filename)).name if error.filename else "A file"
    raise SourceError(
        f"{name} cannot be read ({error.strerror}). Expected files that may be read: ask who owns them."
    ) from error
