"""The receiver's commands that need no torch: check a package, look at it, pass it on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medistill.cli import console
from medistill.cli.console import JsonFlag
from medistill.cli.packages import AllowUnsigned, PackageFile, RequireTrusted, open_all, open_one, say_who

if TYPE_CHECKING:
    from medistill.package import Package


@console.reported
def verify(
    package: PackageFile,
    allow_unsigned: AllowUnsigned = False,
    require_trusted: RequireTrusted = False,
    json: JsonFlag = False,
) -> None:
    """Check every byte of a package and who signed it; anything the format does not allow is refused by name.

    Needs no torch. Exit code 1 where it is refused.

    Example: medistill verify phantom.medistill --require-trusted
    """
    from medistill.package.documents import in_a_sentence

    opened, signer = open_one(package, allow_unsigned, require_trusted)
    if json:
        terms = opened.manifest.terms.model_dump(mode="json")
        document = {"ok": True, "digest": opened.digest, "classes": list(opened.class_names), "terms": terms}
        return console.print_json(document | signer.document())
    console.out.print(f"{package.name}: whole and unchanged since it was sealed.")
    say_who(signer)
    console.out.print(in_a_sentence(opened.manifest.terms))
    console.out.print(f"SHA-256 {opened.digest}")


@console.reported
def show(
    package: PackageFile,
    sheet: Annotated[Path | None, typer.Option("--sheet", help="Write a picture of all images to this PNG.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page about it to this file.")] = None,
    allow_unsigned: AllowUnsigned = False,
    require_trusted: RequireTrusted = False,
    json: JsonFlag = False,
) -> None:
    """What a package holds, how it was made and what was measured on it. Needs no torch.

    Example: medistill show phantom.medistill --html phantom.html --sheet phantom.png
    """
    opened, signer = open_one(package, allow_unsigned, require_trusted)
    if html is not None:
        from medistill.files import write_whole
        from medistill.report.package import render_package

        write_whole(html, render_package(opened, signer.name, signer.trusted).encode())
    if sheet is not None:
        from medistill.files import write_whole
        from medistill.report.sheet import package_sheet

        write_whole(sheet, package_sheet(opened, opened.manifest.name))
    if json:
        utility = None if opened.utility is None else opened.utility.model_dump(mode="json")
        manifest = opened.manifest.model_dump(mode="json", exclude_none=True)
        document = {"manifest": manifest, "inner_rate": opened.inner_rate, "utility": utility}
        return console.print_json(document | signer.document())
    say_who(signer)
    _print_summary(opened)


@console.reported
def export(
    package: PackageFile,
    to: Annotated[str, typer.Option("--to", help="medmnist (one npz), hf (a Hugging Face folder) or png (a folder).")],
    out: Annotated[Path, typer.Option("--out", help="The file or folder to write; it must not exist.")],
    allow_unsigned: AllowUnsigned = False,
    require_trusted: RequireTrusted = False,
    json: JsonFlag = False,
) -> None:
    """A package's images in a form that other tools read. Needs no torch.

    Example: medistill export phantom.medistill --to hf --out phantom-hf
    """
    from medistill.export import FORMS
    from medistill.export import export as write
    from medistill.package.documents import LEAKS

    form = next((form for form in FORMS if form == to), None)
    if form is None:
        raise typer.BadParameter(f"--to {to}: expected {', '.join(FORMS)}.")
    opened, signer = open_one(package, allow_unsigned, require_trusted)
    if not signer.trusted:
        say_who(signer)
    if opened.manifest.provenance.leaks_real_images:
        console.err.print(LEAKS)
    count = write(opened, form, out)
    if json:
        return console.print_json({"out": str(out), "images": count})
    console.out.print(f"{count} images in {out}")


@console.reported
def merge(
    packages: Annotated[list[Path], typer.Argument(help="Two or more .medistill files.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The package to write; sign it with your own key.")],
    classes: Annotated[
        Path | None, typer.Option("--map", help="A CSV from,to with what classes are called in the result.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Of the result. [default: the file's name]")] = None,
    allow_unsigned: AllowUnsigned = False,
    require_trusted: RequireTrusted = False,
    json: JsonFlag = False,
) -> None:
    """Several packages in one; classes are matched by name. Needs no torch.

    Example: medistill merge st-marys.medistill st-lukes.medistill --map words.csv --out both.medistill
    """
    from medistill.errors import StorageError
    from medistill.merge import merge as join
    from medistill.merge import read_mapping

    if out.exists():
        raise StorageError(f"{out.name} exists and is not replaced. Choose another --out.")
    opened = open_all(packages, allow_unsigned, require_trusted)
    merged = join(opened, out, name or out.stem, None if classes is None else read_mapping(classes))
    if json:
        return console.print_json({"out": str(out), "images": len(merged.images), "classes": list(merged.class_names)})
    console.out.print(f"{len(merged.images)} images of {', '.join(merged.class_names)} in {out}, not signed")


@console.reported
def decrypt(
    envelope: Annotated[Path, typer.Argument(help="A file that was encrypted to you.", show_default=False)],
    identity: Annotated[Path, typer.Option("--identity", help="The file of age-keygen, with your secret key.")],
    out: Annotated[Path, typer.Option("--out", help="The package to write.")],
    json: JsonFlag = False,
) -> None:
    """Take a package out of its envelope; verify it then.

    Example: medistill decrypt phantom.age --identity key.txt --out phantom.medistill
    """
    from medistill.encryption import decrypt as opened
    from medistill.errors import StorageError

    if out.exists():
        raise StorageError(f"{out.name} exists and is not replaced. Choose another --out.")
    opened(envelope, identity, out)
    if json:
        return console.print_json({"out": str(out)})
    console.out.print(f"{out}, not verified yet: medistill verify {out}")


def _print_summary(package: "Package") -> None:
    from medistill.package.documents import in_a_sentence, lean, what_images

    manifest = package.manifest
    form, made = manifest.images, manifest.provenance
    formation = manifest.training.formation
    films = f"{formation} x {formation} films in each, " if formation else ""
    lines = [
        f"{manifest.name}: {form.count} {what_images(made)}s, {form.channels} x {form.height} x {form.width}, "
        f"{films}{form.labels} labels",
        f"classes: {', '.join(package.class_names)}",
        f"made by: {made.method}, begun from {made.start}",
        f"privacy: {made.privacy}",
        f"terms: {in_a_sentence(manifest.terms)}",
        f"network: {manifest.training.network.architecture}, width {manifest.training.network.width}, "
        f"depth {manifest.training.network.depth}; rate {manifest.training.rate:g}, {manifest.training.steps} steps",
        *filter(None, [lean(manifest.training)]),
        f"SHA-256 {package.digest}",
    ]
    if made.leaks_real_images:
        lines.insert(4, "WARNING: its images may show real patients.")
    console.out.print("\n".join(lines))
    if package.utility is not None:
        title = f"on {package.utility.judged_images:,} {package.utility.split} images of the maker"
        console.out.print(console.rows_table(package.utility.rows, title))
