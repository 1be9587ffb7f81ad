"""A zip file that can be written in exactly one way.

Zip offers many spellings of the same contents: two places for every header, gaps, comments, compression, duplicate
names. Readers disagree about them, and attacks live in the disagreement. Here every byte that is not content is a
function of the names and the contents. The reader walks from the first byte to the last, computes what must stand
there and compares, so nothing can be hidden before, between or behind the entries. Any zip tool opens the result.

The layout follows PKWARE's APPNOTE.TXT, sections 4.3.7 (local header), 4.3.12 (central directory) and 4.3.16 (end).
"""

import re
import struct
import zlib
from collections.abc import Mapping

from medistill.errors import PackageError, Tampered, Unsupported

MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.minisig"
MAX_BYTES = 256 * 2**20
MAX_ENTRIES = 65_534  # one more would need zip64
MAX_NAME = 128
RESEND = "Ask its maker to send the file again."

_LOCAL, _CENTRAL, _END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_HEADER_BYTES = 30
_VERSION, _FLAGS, _STORED, _TIME, _DATE = 20, 0, 0, 0, 1 << 5 | 1  # midnight on 1 January 1980
_MADE_ON_UNIX, _REGULAR_FILE = 3 << 8 | _VERSION, 0o100644 << 16
_PART = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"
_NAME = re.compile(rf"{_PART}(/{_PART})*")


def build(files: Mapping[str, bytes]) -> bytes:
    """The one archive that holds `files`, a content for each name.

    Raises:
        PackageError: a name is unsafe, or there is more than fits without zip64 or within 256 MiB.
    """
    for name in files:
        _check_name(name)
    if len(files) > MAX_ENTRIES:
        raise PackageError(f"found {len(files)} files; at most {MAX_ENTRIES} fit. Pack fewer images.")
    ordered = {name: files[name] for name in sorted(files, key=_place)}
    parts = [part for name, content in ordered.items() for part in (_local(name, content), content)]
    data = b"".join([*parts, _directory(ordered)])
    if len(data) > MAX_BYTES:
        raise PackageError(
            f"found {len(data):,} bytes; at most {MAX_BYTES:,} are allowed. Pack fewer or smaller images."
        )
    return data


def parse(data: bytes) -> dict[str, bytes]:
    """The contents by name of an archive, whose every byte is what `build` would have written.

    Raises:
        Tampered: a byte differs from the one form, a name comes twice, or bytes are missing or left over.
        Unsupported: an entry is compressed or encrypted.
        PackageError: it is no zip, a name is unsafe, or there are too many entries.
    """
    if not data.startswith(_LOCAL):
        raise PackageError(
            f"found {len(data):,} bytes that do not begin like a package; expected a zip file whose first entry is "
            f"{MANIFEST}. Check that this is the file you meant, or ask its maker to send it again."
        )
    files: dict[str, bytes] = {}
    at, previous = 0, (False, "")
    while data.startswith(_LOCAL, at):
        name, content = _entry(data, at)
        if name in files:
            raise Tampered(f"found {name} twice; expected each name once. {RESEND}")
        if _place(name) < previous:
            raise Tampered(f"found {name} out of order; expected {MANIFEST}, then names in order. {RESEND}")
        header = _local(name, content)
        if not data.startswith(header, at):
            raise Tampered(f"{name}: its contents or its zip header were changed. {RESEND}")
        if len(files) == MAX_ENTRIES:
            raise PackageError(f"found more than {MAX_ENTRIES} entries, the most allowed. {RESEND}")
        files[name] = content
        at, previous = at + len(header) + len(content), _place(name)
    if data[at:] != (expected := _directory(files)):
        found = len(data) - at
        what = f"found {found} bytes" if found != len(expected) else "found other bytes"
        raise Tampered(
            f"{what} after the last entry; expected the {len(expected)} of the zip directory that its entries give. "
            f"The file was cut short, added to or changed. {RESEND}"
        )
    return files


def _place(name: str) -> tuple[bool, str]:
    return name != MANIFEST, name


def _check_name(name: str) -> None:
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise PackageError(
            f"found an entry named {name[:MAX_NAME]!r}; expected a relative path of letters, digits and . _ - whose "
            "parts do not begin with a dot. Do not unpack this file with another program."
        )


def _entry(data: bytes, at: int) -> tuple[str, bytes]:
    """Name and content of the entry whose local header begins at byte `at`; only what `_local` cannot tell."""
    if len(data) < at + _HEADER_BYTES:
        raise Tampered(f"the file ends within a zip header. {RESEND}")
    flags, method = struct.unpack_from("<HH", data, at + 6)
    size, _, name_bytes, extra_bytes = struct.unpack_from("<IIHH", data, at + 18)
    begin = at + _HEADER_BYTES
    name = data[begin : begin + name_bytes].decode("ascii", "backslashreplace")
    _check_name(name)
    if method != _STORED or flags & 1:
        raise Unsupported(
            f"{name}: found a compressed or encrypted entry; expected stored bytes. Ask for the file as medistill "
            "wrote it: re-zipping changes it."
        )
    begin += name_bytes + extra_bytes
    if len(data) < begin + size:
        raise Tampered(f"{name}: the file ends before this entry does. {RESEND}")
    return name, data[begin : begin + size]


def _common(name: str, content: bytes) -> bytes:
    """The fields that local header and central directory share."""
    times = struct.pack("<HHHHH", _VERSION, _FLAGS, _STORED, _TIME, _DATE)
    return times + struct.pack("<IIIHH", zlib.crc32(content), len(content), len(content), len(name), 0)


def _local(name: str, content: bytes) -> bytes:
    return _LOCAL + _common(name, content) + name.encode("ascii")


def _directory(files: Mapping[str, bytes]) -> bytes:
    """What follows the entries: their headers again, each with its place, and the end record."""
    parts, at = [], 0
    for name, content in files.items():
        parts.append(_CENTRAL + struct.pack("<H", _MADE_ON_UNIX) + _common(name, content))
        parts.append(struct.pack("<HHHII", 0, 0, 0, _REGULAR_FILE, at) + name.encode("ascii"))
        at += _HEADER_BYTES + len(name) + len(content)
    entries = b"".join(parts)
    return entries + _END + struct.pack("<HHHHIIH", 0, 0, len(files), len(files), len(entries), at, 0)
