"""Open packages of others: whether a receiver may go on with one, and who signed it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medistill.cli import console

if TYPE_CHECKING:
    from medistill.package import Package

AllowUnsigned = Annotated[bool, typer.Option("--allow-unsigned", help="Take a package that nobody signed.")]
RequireTrusted = Annotated[bool, typer.Option("--require-trusted", help="Refuse a signer whose key you do not trust.")]
PackageFile = Annotated[Path, typer.Argument(help="A .medistill file.", show_default=False)]


@dataclass(frozen=True)
class Signer:
    """Who signed a package, as far as this receiver knows them."""

    name: str | None
    fingerprint: str | None
    signed_on: str | None
    trusted: bool

    def document(self) -> dict[str, Any]:
        """The same for machines."""
        return {
            "signed_by": self.name,
            "fingerprint": self.fingerprint,
            "signed_on": self.signed_on,
            "trusted": self.trusted,
        }


def open_one(path: Path, allow_unsigned: bool, require_trusted: bool) -> "tuple[Package, Signer]":
    """A package that this receiver may go on with, and who signed it."""
    from medistill.errors import PackageError
    from medistill.keys import TrustStore
    from medistill.package import fingerprint, open_package

    package = open_package(path, allow_unsigned=allow_unsigned and not require_trusted)
    signer = package.manifest.signer
    if signer is None or package.signed_on is None:
        return package, Signer(None, None, None, False)
    known, mark = TrustStore.of_user().find(signer.public_key), fingerprint(signer.public_key)
    if known is not None and known.revoked is not None:
        raise PackageError(
            f"{path.name}: it is signed with a key of {known.name} that was revoked on {known.revoked}. Ask them for "
            "the package signed with their new key."
        )
    if known is None and require_trusted:
        raise PackageError(
            f"{path.name}: it is signed with a key you do not trust, {mark}, by somebody who calls themselves "
            f"{signer.name}. Compare these digits with them, then: medistill keys trust THEIR.pub"
        )
    name = signer.name if known is None else known.name
    return package, Signer(name, mark, package.signed_on.isoformat(), known is not None)


def open_all(paths: list[Path], allow_unsigned: bool, require_trusted: bool) -> "list[Package]":
    """Several packages that this receiver may go on with; who signed them is said where they are not trusted."""
    opened = []
    for path in paths:
        package, signer = open_one(path, allow_unsigned, require_trusted)
        if not signer.trusted:
            console.err.print(f"{path.name}: ", end="")
            say_who(signer)
        opened.append(package)
    return opened


def say_who(signer: Signer) -> None:
    """Say who signed a package; a warning where that is not known."""
    if signer.name is None:
        console.err.print("WARNING: it is not signed: nobody vouches for it.")
    elif signer.trusted:
        console.out.print(f"Signed by {signer.name} on {signer.signed_on}; you trust this key.")
    else:
        console.err.print(
            f"WARNING: signed on {signer.signed_on} with a key you do not know. Its maker calls themselves "
            f"{signer.name}, as anybody can. Compare this fingerprint with them, then: medistill keys trust THEIR.pub\n"
            f"  {signer.fingerprint}",
        )
