"""Keys: a hospital's own, which sign what it sends, and those of others, which a receiver trusts.

A secret key lies in a file that only its owner may read, encrypted with a passphrase, in minisign's format. Trust is a
list in one file of the user's settings: a public key under a name that the receiver chose, perhaps revoked. A package's
own word about its signer is never believed: the key decides, and the receiver's name for it is the one that is shown.

Source: minisign's format, https://jedisct1.github.io/minisign.
"""

import os
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import minisign
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from medistill.errors import TrustError
from medistill.files import read_json, write_json, write_whole

PASSPHRASE = "MEDISTILL_PASSPHRASE"
"""The environment variable that a passphrase is read from where nobody types one."""

_HOME = "MEDISTILL_HOME"
_STORE = "trusted-keys.json"


def new_key(name: str, folder: Path, passphrase: str) -> tuple[Path, Path]:
    """Make a key pair: NAME.key, which only its owner may read, and NAME.pub, which is for everybody.

    Args:
        name: of the two files, without a suffix.
        folder: where to write them.
        passphrase: encrypts the secret key; empty leaves it readable for whoever has the file.

    Raises:
        TrustError: the name is no file name, or one of the files exists: a key is never overwritten.
        StorageError: the disk refused.
    """
    if not name or Path(name).name != name or name.startswith("."):
        raise TrustError(f"{name!r} is no name of a file; expected for instance st-marys. Choose another.")
    secret_path, public_path = folder / f"{name}.key", folder / f"{name}.pub"
    for path in (secret_path, public_path):
        if path.exists():
            raise TrustError(f"{path.name} exists; a key is never overwritten. Choose another name, or move it away.")
    pair = minisign.KeyPair.generate()
    public = bytes(pair.public_key) + b"\n"
    with pair.secret_key as secret:
        secret.untrusted_comment = "minisign encrypted secret key" if passphrase else "minisign secret key"
        if passphrase:
            secret.encrypt(passphrase)
        write_whole(secret_path, bytes(secret) + b"\n", mode=0o600)
    write_whole(public_path, public)
    return secret_path, public_path


def read_secret(path: Path, passphrase: str) -> minisign.SecretKey:
    """A secret key, decrypted, for signing.

    Raises:
        TrustError: the file cannot be read, is no secret key, or the passphrase is another.
    """
    try:
        secret = minisign.SecretKey.from_bytes(path.read_bytes())
    except OSError as error:
        raise TrustError(f"{path.name} cannot be read: {os.strerror(error.errno or 0)}. Check the path.") from error
    except minisign.Error as error:
        raise TrustError(f"{path.name} is no secret key; expected NAME.key as minisign writes it.") from error
    try:
        secret.decrypt(passphrase)
    except minisign.Error as error:
        raise TrustError(f"{path.name}: the passphrase is another. Type it again, or set {PASSPHRASE}.") from error
    return secret


def read_public(path: Path) -> str:
    """A public key in the one line that minisign writes it in, from its file.

    Raises:
        TrustError: the file cannot be read or is no public key.
    """
    try:
        return str(minisign.PublicKey.from_bytes(path.read_bytes()).to_base64(), "ascii")
    except OSError as error:
        raise TrustError(f"{path.name} cannot be read: {os.strerror(error.errno or 0)}. Check the path.") from error
    except (minisign.Error, ValueError) as error:
        raise TrustError(f"{path.name} is no public key; expected NAME.pub as minisign writes it.") from error


class TrustedKey(BaseModel):
    """A key that a receiver has decided about.

    Attributes:
        name: what the receiver calls its owner.
        public_key: as minisign writes it.
        since: the day of the decision.
        revoked: the day on which trust ended, or None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=64)
    public_key: str = Field(pattern=r"^RW[A-Za-z0-9+/]{54}$")
    since: date
    revoked: date | None = None


@dataclass(frozen=True)
class TrustStore:
    """The keys that this user trusts, and those they no longer do.

    Attributes:
        path: of the list.
    """

    path: Path

    @classmethod
    def of_user(cls) -> "TrustStore":
        """The one in the user's settings; the environment variable MEDISTILL_HOME names another folder."""
        settings = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "medistill"
        return cls(Path(os.environ.get(_HOME) or settings) / _STORE)

    def entries(self) -> tuple[TrustedKey, ...]:
        """All keys in the order in which they came.

        Raises:
            TrustError: the list is damaged.
            StorageError: it cannot be read.
        """
        if not self.path.exists():
            return ()
        try:
            return _KEYS.validate_python(read_json(self.path))
        except ValidationError as error:
            raise TrustError(
                f"{self.path.name} is damaged. Restore it from a copy, or delete it and trust anew."
            ) from error

    def find(self, public_key: str) -> TrustedKey | None:
        """What was decided about a key, if anything."""
        return next((key for key in self.entries() if _raw(key.public_key) == _raw(public_key)), None)

    def trust(self, name: str, public_key: str, day: date) -> TrustedKey:
        """Trust a key from now on.

        Raises:
            TrustError: the name stands for another key already, or the key was revoked: trust does not come back.
        """
        known = self.entries()
        if (found := self.find(public_key)) is not None:
            if found.revoked:
                raise TrustError(f"This key was revoked on {found.revoked}. Ask {found.name} for their new one.")
            return found
        if any(key.name == name and not key.revoked for key in known):
            raise TrustError(f"{name} stands for another key. Revoke that one first, or choose another name.")
        added = TrustedKey(name=name, public_key=public_key, since=day)
        self._write((*known, added))
        return added

    def revoke(self, name: str, day: date) -> TrustedKey:
        """Trust a key no longer, whenever it signed.

        Raises:
            TrustError: no trusted key has this name.
        """
        known = self.entries()
        found = next((key for key in known if key.name == name and not key.revoked), None)
        if found is None:
            names = ", ".join(key.name for key in known if not key.revoked) or "none"
            raise TrustError(f"Found no trusted key called {name}; there is {names}.")
        gone = found.model_copy(update={"revoked": day})
        self._write([gone if key == found else key for key in known])
        return gone

    def _write(self, keys: Sequence[TrustedKey]) -> None:
        write_json(self.path, [key.model_dump(mode="json") for key in keys])


def _raw(public_key: str) -> bytes:
    """The key itself, without the id in front of it, which nothing protects."""
    return b64decode(public_key)[-32:]


_KEYS: TypeAdapter[tuple[TrustedKey, ...]] = TypeAdapter(tuple[TrustedKey, ...])
