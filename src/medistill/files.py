"""Files that are either whole or absent.

A file is written beside its final name, flushed to the disk and then renamed, which POSIX makes atomic. Whoever
finds the final name finds the whole content, whatever happened in between: kill -9, a full disk, a power cut.
"""

import contextlib
import errno
import glob
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medistill.errors import StorageError

_PARTIAL = ".partial"
_ABANDONED_SECONDS = 3600


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an operating-system refusal about `path` into a StorageError that says what to do."""
    try:
        yield
    except OSError as error:
        # safetensors raises errors without a number, whose text is the whole path
        number = error.errno or (errno.ENOENT if isinstance(error, FileNotFoundError) else 0)
        advice = {
            errno.ENOSPC: "The disk is full: free some space, then run the same command again.",
            errno.EDQUOT: "The disk quota is used up: free some space, then run the same command again.",
            errno.EACCES: "Permission was denied: choose a folder you may write to.",
            errno.EROFS: "The disk is read-only: choose another folder.",
            errno.EISDIR: "It is a folder: name a file.",
            errno.ENOENT: "It does not exist: check the spelling.",
        }.get(number, "Run the same command again once this is mended.")
        reason = os.strerror(number) if number else "refused by the system"
        raise StorageError(f"{path.name}: {reason}. {advice} Nothing that was finished is lost.") from error


def write_whole(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Write `content` to `path` so that a reader sees either all of it or the file as it was before.

    `mode` are the permissions of a file that is new, less what the user's umask takes away; one that exists keeps its.

    Raises:
        StorageError: the disk is full, read-only, or not ours to write to; the half-written part is removed.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}{_PARTIAL}")
        try:
            partial.unlink(missing_ok=True)  # nothing that lies there, a link least of all, is written into
            kept = path.stat().st_mode & 0o777 if path.exists() else mode
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, kept), "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable JSON with sorted keys, whole or not at all. NaN is refused."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_whole(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file of a run.

    Raises:
        StorageError: the file cannot be read or is not JSON.
    """
    with storage_errors(path):
        content = path.read_bytes()
    try:
        return json.loads(content)
    except ValueError as error:
        raise StorageError(f"{path.name} is not readable as JSON. Delete it and run the same command again.") from error


def append_line(path: Path, line: str) -> None:
    """Add one line to a log and flush it; a log keeps what was there whatever happens next."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
            stream.flush()
            os.fsync(stream.fileno())


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to write into, which is called `path` once it is whole: at the end, and only if nothing failed.

    What a killed process left behind of the same folder more than an hour ago is removed.

    Raises:
        StorageError: the disk refused, or `path` exists and is not empty.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for abandoned in path.parent.glob(f".{glob.escape(path.name)}-????????{_PARTIAL}"):
            with contextlib.suppress(FileNotFoundError):
                if _is_abandoned(abandoned):
                    shutil.rmtree(abandoned, ignore_errors=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}-", suffix=_PARTIAL, dir=path.parent))
        try:
            yield partial
            partial.chmod(0o777 & ~_umask())
            for written in (*partial.rglob("*"), partial):
                _flush(written)
            partial.rename(path)
            _flush(path.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _flush(path: Path) -> None:
    """Have a file's content, or a folder's list of names, on the disk; only POSIX opens folders."""
    if os.name == "posix" or path.is_file():
        descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def remove_partials(folder: Path) -> None:
    """Delete what interrupted writes left behind in `folder` more than an hour ago: what is younger may be another
    process's that still writes. Whole files are never touched."""
    for partial in folder.rglob(f"*{_PARTIAL}"):
        # Another process may remove it meanwhile, or give it its name.
        with storage_errors(partial), contextlib.suppress(FileNotFoundError):
            if partial.is_file() and _is_abandoned(partial):
                partial.unlink()


def _is_abandoned(partial: Path) -> bool:
    return time.time() - partial.stat().st_mtime > _ABANDONED_SECONDS


def free_bytes(folder: Path) -> int:
    """Free space on the disk that holds `folder` (or its nearest existing parent), in bytes."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(existing).free


def digest(content: bytes) -> str:
    """SHA-256 of `content`, as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
