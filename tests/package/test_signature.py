import json
import shutil
import subprocess
import zipfile
from datetime import date
from pathlib import Path

import minisign
import pytest
import rfc8785

from medistill.errors import PackageError, Tampered
from medistill.package import archive, manifest, open_package, pack, sign_package
from samples import contents

DAY = date(2026, 11, 25)
SIGNATURE = "manifest.json.minisig"


@pytest.fixture
def secret() -> minisign.SecretKey:
    return minisign.KeyPair.generate().secret_key


@pytest.fixture
def signed(tmp_path: Path, secret: minisign.SecretKey) -> Path:
    path = tmp_path / "signed.medistill"
    pack(path, **contents())
    sign_package(path, "St Mary's", secret, DAY)
    return path


def key_of(secret: minisign.SecretKey) -> str:
    return secret.get_public_key().to_base64().decode()


def rebuilt(path: Path, parts: dict[str, bytes]) -> Path:
    path.write_bytes(archive.build(parts))
    return path


def test_a_signed_package_says_by_whom_and_when(signed: Path, secret: minisign.SecretKey) -> None:
    opened = open_package(signed)
    assert opened.manifest.signer == manifest.Signer(name="St Mary's", public_key=key_of(secret))
    assert opened.signed_on == DAY


def test_the_same_contents_key_and_day_are_the_same_bytes(signed: Path, secret: minisign.SecretKey) -> None:
    before = signed.read_bytes()
    assert sign_package(signed, "St Mary's", secret, DAY).digest
    assert signed.read_bytes() == before


def test_nothing_but_signer_and_signature_changes(tmp_path: Path, signed: Path) -> None:
    plain = pack(tmp_path / "plain.medistill", **contents())
    opened = open_package(signed)
    assert opened.images.tobytes() == plain.images.tobytes()
    assert opened.manifest.files == plain.manifest.files
    assert opened.manifest.package_id != plain.manifest.package_id


@pytest.mark.skipif(shutil.which("minisign") is None, reason="minisign is not installed")
def test_the_stock_tool_accepts_it_and_refuses_another_manifest(
    tmp_path: Path, signed: Path, secret: minisign.SecretKey
) -> None:
    with zipfile.ZipFile(signed) as outer:
        for name in ("manifest.json", SIGNATURE):
            (tmp_path / name).write_bytes(outer.read(name))
    command = ["minisign", "-Vm", str(tmp_path / "manifest.json"), "-P", key_of(secret)]
    accepted = subprocess.run(command, capture_output=True, text=True, check=False)
    assert accepted.returncode == 0, accepted.stderr
    assert "St Mary's, 2026-11-25" in accepted.stdout
    (tmp_path / "manifest.json").write_bytes(b"{}")
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_every_changed_byte_of_a_signature_is_noticed(tmp_path: Path, signed: Path) -> None:
    parts = archive.parse(signed.read_bytes())
    good = parts[SIGNATURE]
    for at in range(len(good)):
        for flip in (1, 0x20):
            bad = bytearray(good)
            bad[at] ^= flip
            with pytest.raises(Tampered):
                open_package(rebuilt(tmp_path / "bad.medistill", parts | {SIGNATURE: bytes(bad)}))


@pytest.mark.parametrize("ending", [b"\n", b"x", b"\r\n", b"\x00"])
def test_nothing_may_follow_a_signature(tmp_path: Path, signed: Path, ending: bytes) -> None:
    parts = archive.parse(signed.read_bytes())
    with pytest.raises(Tampered):
        open_package(rebuilt(tmp_path / "bad.medistill", parts | {SIGNATURE: parts[SIGNATURE] + ending}))


def test_another_signers_signature_is_noticed(tmp_path: Path, signed: Path) -> None:
    other = tmp_path / "other.medistill"
    pack(other, **contents(name="other"))
    sign_package(other, "St Mary's", minisign.KeyPair.generate().secret_key, DAY)
    parts, theirs = archive.parse(signed.read_bytes()), archive.parse(other.read_bytes())
    for swapped in ({SIGNATURE: theirs[SIGNATURE]}, {"manifest.json": theirs["manifest.json"]}):
        with pytest.raises(Tampered):
            open_package(rebuilt(tmp_path / "bad.medistill", parts | swapped))


def test_a_signature_and_a_signer_come_together(tmp_path: Path, signed: Path) -> None:
    parts = archive.parse(signed.read_bytes())
    alone = {name: part for name, part in parts.items() if name != SIGNATURE}
    with pytest.raises(Tampered, match="names a signer, without a signature"):
        open_package(rebuilt(tmp_path / "bad.medistill", alone), allow_unsigned=True)
    plain = tmp_path / "plain.medistill"
    pack(plain, **contents())
    stray = archive.parse(plain.read_bytes()) | {SIGNATURE: parts[SIGNATURE]}
    with pytest.raises(Tampered, match="found one of nobody"):
        open_package(rebuilt(tmp_path / "bad.medistill", stray), allow_unsigned=True)


def test_a_name_that_a_forger_puts_beside_a_key_is_noticed(tmp_path: Path, signed: Path) -> None:
    parts = archive.parse(signed.read_bytes())
    said = json.loads(parts["manifest.json"])
    said["signer"]["name"] = "St Luke's"
    body = {key: value for key, value in said.items() if key != "package_id"}
    said["package_id"] = manifest.digest(rfc8785.dumps(body))
    with pytest.raises(Tampered, match="not the signature of St Luke's"):
        open_package(rebuilt(tmp_path / "bad.medistill", parts | {"manifest.json": rfc8785.dumps(said)}))


def test_unsigned_and_untrusted_packages_are_refused_unless_allowed(
    tmp_path: Path, signed: Path, secret: minisign.SecretKey
) -> None:
    plain = tmp_path / "plain.medistill"
    pack(plain, **contents())
    with pytest.raises(PackageError, match="it is not signed"):
        open_package(plain)
    assert open_package(plain, allow_unsigned=True).signed_on is None
    assert open_package(signed, trusted_keys=[key_of(secret)]).signed_on == DAY
    other = key_of(minisign.KeyPair.generate().secret_key)
    with pytest.raises(PackageError, match="signed by St Mary's with a key that is not among the trusted ones"):
        open_package(signed, trusted_keys=[other])
    with pytest.raises(PackageError, match="signed by nobody"):
        open_package(plain, trusted_keys=[other], allow_unsigned=True)


@pytest.mark.parametrize("name", ["Universit\u00e4tsklinikum K\u00f6ln", "\u6771\u4eac"])
def test_a_signer_may_write_their_name_as_it_is_written(signed: Path, secret: minisign.SecretKey, name: str) -> None:
    sign_package(signed, name, secret, DAY)
    opened = open_package(signed)
    assert opened.manifest.signer is not None
    assert opened.manifest.signer.name == name
    comment = archive.parse(signed.read_bytes())[SIGNATURE].splitlines()[2].decode()
    assert comment.isascii()
    assert comment.endswith(", 2026-11-25")


def test_packing_the_same_again_keeps_the_signature_and_packing_another_does_not(signed: Path) -> None:
    before = signed.read_bytes()
    assert pack(signed, **contents()).signed_on == DAY
    assert signed.read_bytes() == before
    assert pack(signed, **contents(inner_rate=0.5)).signed_on is None


@pytest.mark.parametrize("name", ["", "x" * 65, "a\nb", " a", "\u202eevil"])
def test_a_signers_name_is_plain_text(signed: Path, secret: minisign.SecretKey, name: str) -> None:
    before = signed.read_bytes()
    with pytest.raises(PackageError, match="signer"):
        sign_package(signed, name, secret, DAY)
    assert signed.read_bytes() == before
