"""An envelope around a package, for channels that others may read: encrypted to whoever is to open it.

A signature says who made a package and that it is whole; it hides nothing. An envelope hides everything until its
recipient opens it, and says nothing about who made it. The format is age's, so `age` and `age-keygen` open it and make
the keys; nothing in it is compressed.

Source: age, github.com/C2SP/C2SP, age.md, with X25519 recipients; implemented by pyrage.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from medistill.errors import MissingPart, PackageError, TrustError
from medistill.files import storage_errors, write_whole
from medistill.package.archive import MAX_BYTES

SUFFIX = ".age"
_HEADER = b"age-encryption.org/v1\n"
_MOST_OVERHEAD = 2**20


def encrypt(package: Path, recipients: Sequence[str], out: Path) -> None:
    """Write a package's bytes so that only the recipients can read them.

    Args:
        package: the file; it stays as it is.
        recipients: whom to encrypt to, public keys `age1...`.
        out: the file to write.

    Raises:
        TrustError: a recipient is none.
        StorageError: a file cannot be read or written.
        MissingPart: pyrage is not installed.
    """
    age = _age()
    try:
        keys = [age.x25519.Recipient.from_str(text) for text in recipients]
    except age.RecipientError as error:
        raise TrustError("A recipient is not an age public key; expected age1 and 58 letters and digits.") from error
    with storage_errors(package):
        content = package.read_bytes()
    write_whole(out, age.encrypt(content, keys))


def decrypt(envelope: Path, identity: Path, out: Path) -> None:
    """Write what an envelope holds; it is yet to be verified.

    Args:
        envelope: what somebody encrypted to you.
        identity: the file that age-keygen wrote, with your secret key.
        out: the package to write.

    Raises:
        PackageError: it is no envelope, larger than a package can be, or damaged.
        TrustError: the file holds no identity, or the envelope is not for it.
        StorageError: a file cannot be read or written.
        MissingPart: pyrage is not installed.
    """
    age = _age()
    with storage_errors(identity):
        lines = identity.read_text(encoding="utf-8", errors="replace").split()
    try:
        keys = [age.x25519.Identity.from_str(line) for line in lines if line.startswith("AGE-SECRET-KEY-1")]
    except age.IdentityError as error:
        raise TrustError(f"{identity.name}: its secret key is damaged. Take the file that age-keygen wrote.") from error
    if not keys:
        raise TrustError(f"{identity.name}: found no line AGE-SECRET-KEY-1...; expected the file of age-keygen.")
    with storage_errors(envelope), envelope.open("rb") as stream:
        content = stream.read(MAX_BYTES + _MOST_OVERHEAD + 1)
    if not content.startswith(_HEADER) or len(content) > MAX_BYTES + _MOST_OVERHEAD:
        raise PackageError(f"{envelope.name}: expected a file that age encrypted, no larger than a package can be.")
    try:
        package = age.decrypt(content, keys)
    except age.DecryptError as error:
        raise TrustError(
            f"{envelope.name}: it does not open with the key in {identity.name}. It was encrypted to somebody else, "
            "or damaged on the way."
        ) from error
    write_whole(out, package, 0o600)


def _age() -> Any:
    try:
        return import_module("pyrage")
    except ImportError as error:
        raise MissingPart(
            "Encryption needs pyrage, which is not installed: pip install 'medistill[encryption]'"
        ) from error
