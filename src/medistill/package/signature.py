"""The signature over a manifest: a minisign file, so that the stock tool can check it too.

The manifest lists every other file with its digest, so a signature over its bytes is one over the package. It names the
signer's key; whether that key is the hospital's is for the receiver's trust store to say (`medistill.keys`).

    unzip first.medistill manifest.json manifest.json.minisig && minisign -Vm manifest.json -P KEY

Source: minisign's format, https://jedisct1.github.io/minisign (Ed25519 over BLAKE2b, RFC 8032 and RFC 7693).
"""

import hashlib
import re
import unicodedata
from base64 import b64decode
from datetime import date

import minisign

from medistill.errors import Tampered
from medistill.package.archive import RESEND, SIGNATURE
from medistill.package.manifest import Signer

_REMARK = "signature of a medistill package's manifest"
_DAY = re.compile(r"(.*), (\d{4}-\d{2}-\d{2})")


def build(manifest: bytes, signer: Signer, key: minisign.SecretKey, day: date) -> bytes:
    """The signature file for these bytes; the same bytes, key and day give the same file.

    Args:
        manifest: what is signed.
        signer: whom the manifest names.
        key: their secret key, decrypted.
        day: of signing; the signature covers it.
    """
    comment = f"{_plain(signer.name)}, {day.isoformat()}"
    return _spelled(key.sign(manifest, untrusted_comment=_REMARK, trusted_comment=comment))


def check(content: bytes, manifest: bytes, signer: Signer) -> date:
    """The day on which the signer signed the manifest.

    Raises:
        Tampered: the signature is another's, of other bytes, or not in its one spelling.
    """
    try:
        signature = minisign.Signature.from_bytes(content)
        minisign.PublicKey.from_base64(signer.public_key).verify(manifest, signature)
        comment = _DAY.fullmatch(signature.trusted_comment)
        if (
            comment
            and comment[1] == _plain(signer.name)
            and signature.is_prehashed()
            and _spelled(signature) == content
        ):
            return date.fromisoformat(comment[2])
    except (minisign.Error, ValueError):
        pass
    raise Tampered(f"{SIGNATURE}: it is not the signature of {signer.name} over this manifest. {RESEND}")


def fingerprint(public_key: str) -> str:
    """What two people compare over the telephone: the first 160 bits of the key's SHA-256, in groups of four digits."""
    digits = hashlib.sha256(b64decode(public_key)).hexdigest()[:40]
    return " ".join(digits[at : at + 4] for at in range(0, 40, 4))


def _plain(name: str) -> str:
    """The name in the letters that every terminal shows: accents are left out, other alphabets too. The manifest, which
    is signed, has it in full."""
    return unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().strip() or "signed"


def _spelled(signature: minisign.Signature) -> bytes:
    """Its one spelling: the remark that nothing protects is always the same."""
    signature.untrusted_comment = _REMARK
    return bytes(signature) + b"\n"
