"""Keys: make one, see whom one trusts, begin to trust and cease to."""

import os
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from medistill.cli import console
from medistill.cli.console import JsonFlag

app = typer.Typer(no_args_is_help=True, help="The keys that sign packages, and those you trust.")

PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", help="Read the passphrase from this file's first line.")
]


def passphrase(file: Path | None, confirm: bool = False) -> str:
    """The passphrase of a secret key: from a file, from MEDISTILL_PASSPHRASE, or typed."""
    from medistill.errors import TrustError
    from medistill.keys import PASSPHRASE

    if file is not None:
        try:
            return file.read_text(encoding="utf-8").split("\n", 1)[0]
        except (OSError, UnicodeDecodeError) as error:
            raise TrustError(f"{file.name} cannot be read as text. Check --passphrase-file.") from error
    if PASSPHRASE in os.environ:
        return os.environ[PASSPHRASE]
    typed: str = typer.prompt(
        "Passphrase", hide_input=True, confirmation_prompt=confirm, default="", show_default=False
    )
    return typed


@app.command()
@console.reported
def new(
    name: Annotated[str, typer.Argument(help="Of the files: NAME.key and NAME.pub.")],
    out: Annotated[Path, typer.Option("--out", help="The folder for both.")] = Path(),
    passphrase_file: PassphraseFile = None,
    json: JsonFlag = False,
) -> None:
    """Make a key pair: NAME.key stays with you, NAME.pub goes to whom you send packages.

    Example: medistill keys new st-marys --out keys
    """
    from medistill.keys import new_key, read_public
    from medistill.package import fingerprint

    secret, public = new_key(name, out, passphrase(passphrase_file, confirm=True))
    mark = fingerprint(read_public(public))
    if json:
        return console.print_json({"secret": str(secret), "public": str(public), "fingerprint": mark})
    console.out.print(f"{secret}: keep it, and its passphrase, to yourselves.")
    console.out.print(f"{public}: give it to everybody you send packages to.")
    console.out.print(f"Fingerprint, to be compared by telephone: {mark}")


@app.command("list")
@console.reported
def list_keys(json: JsonFlag = False) -> None:
    """The keys you trust, and those you no longer do.

    Example: medistill keys list
    """
    from medistill.keys import TrustStore
    from medistill.package import fingerprint

    keys = TrustStore.of_user().entries()
    if json:
        return console.print_json(
            [key.model_dump(mode="json") | {"fingerprint": fingerprint(key.public_key)} for key in keys]
        )
    for key in keys:
        until = f"revoked on {key.revoked}" if key.revoked else f"trusted since {key.since}"
        console.out.print(f"{key.name}, {until}\n  {fingerprint(key.public_key)}")
    if not keys:
        console.out.print("No key is trusted yet: medistill keys trust THEIR.pub")


@app.command()
@console.reported
def trust(
    public: Annotated[Path, typer.Argument(help="Their public key, for instance st-marys.pub.")],
    name: Annotated[str | None, typer.Option("--name", help="What you call them. [default: the file's name]")] = None,
    json: JsonFlag = False,
) -> None:
    """Trust a key, once its fingerprint was compared with its owner.

    Example: medistill keys trust st-marys.pub
    """
    from medistill.keys import TrustStore, read_public
    from medistill.package import fingerprint

    key = TrustStore.of_user().trust(name or public.stem, read_public(public), date.today())
    if json:
        return console.print_json({"name": key.name, "fingerprint": fingerprint(key.public_key)})
    console.out.print(f"Trusted as {key.name}: {fingerprint(key.public_key)}")


@app.command()
@console.reported
def revoke(
    name: Annotated[str, typer.Argument(help="As `medistill keys list` calls them.")], json: JsonFlag = False
) -> None:
    """Cease to trust a key: whatever it signed, ever, is refused.

    Example: medistill keys revoke st-marys
    """
    from medistill.keys import TrustStore

    gone = TrustStore.of_user().revoke(name, date.today())
    if json:
        return console.print_json({"name": gone.name, "revoked": str(gone.revoked)})
    console.out.print(f"Packages signed by {gone.name} are refused from now on.")
