from pathlib import Path

import pyrage
import pytest

from medistill.encryption import decrypt, encrypt
from medistill.errors import MissingPart, PackageError, StorageError, TrustError

SECRET = b"PK\x03\x04 a package"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "set.medistill").write_bytes(SECRET)
    for name in ("ours", "theirs"):
        (tmp_path / f"{name}.txt").write_text(f"# created: today\n{pyrage.x25519.Identity.generate()}\n")
    return tmp_path


def public(place: Path, name: str) -> str:
    return str(pyrage.x25519.Identity.from_str((place / f"{name}.txt").read_text().split()[-1]).to_public())


def test_every_recipient_and_nobody_else_opens_an_envelope(place: Path) -> None:
    envelope, opened = place / "set.age", place / "opened.medistill"
    encrypt(place / "set.medistill", [public(place, "ours"), public(place, "theirs")], envelope)
    assert SECRET not in envelope.read_bytes()
    for name in ("ours", "theirs"):
        decrypt(envelope, place / f"{name}.txt", opened)
        assert opened.read_bytes() == SECRET
        opened.unlink()
    encrypt(place / "set.medistill", [public(place, "ours")], envelope)
    with pytest.raises(TrustError, match=r"set\.age: it does not open with the key in theirs\.txt"):
        decrypt(envelope, place / "theirs.txt", opened)
    assert not opened.exists()


@pytest.mark.parametrize("at", [30, 100, -1])
def test_a_changed_envelope_does_not_open(place: Path, at: int) -> None:
    envelope = place / "set.age"
    encrypt(place / "set.medistill", [public(place, "ours")], envelope)
    content = bytearray(envelope.read_bytes())
    content[at] ^= 1
    envelope.write_bytes(content)
    with pytest.raises(TrustError, match="damaged on the way"):
        decrypt(envelope, place / "ours.txt", place / "opened.medistill")


def test_what_is_no_envelope_no_key_or_not_there_is_told_apart(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = place / "out"
    with pytest.raises(PackageError, match="expected a file that age encrypted"):
        decrypt(place / "set.medistill", place / "ours.txt", out)
    with pytest.raises(TrustError, match="found no line AGE-SECRET-KEY-1"):
        decrypt(place / "set.medistill", place / "set.medistill", out)
    (place / "bad.txt").write_text("AGE-SECRET-KEY-1NONSENSE")
    with pytest.raises(TrustError, match="secret key is damaged"):
        decrypt(place / "set.medistill", place / "bad.txt", out)
    with pytest.raises(TrustError, match="not an age public key"):
        encrypt(place / "set.medistill", ["age1nonsense"], out)
    with pytest.raises(StorageError, match="does not exist"):
        encrypt(place / "none.medistill", [public(place, "ours")], out)
    monkeypatch.setitem(__import__("sys").modules, "pyrage", None)
    with pytest.raises(MissingPart, match="encryption"):
        encrypt(place / "set.medistill", ["age1"], out)
    assert not out.exists()
