"""The receiver's commands: check a package, look at it, train on it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medistill.cli import console
from medistill.cli.console import JsonFlag

if TYPE_CHECKING:
    from medistill.package import Package

AllowUnsigned = Annotated[bool, typer.Option("--allow-unsigned", help="Take a package that nobody signed.")]
RequireTrusted = Annotated[bool, typer.Option("--require-trusted", help="Refuse a signer whose key you do not trust.")]
PackageFile = Annotated[Path, typer.Argument(help="A .medistill file.", show_default=False)]


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

    opened, signer = _opened(package, allow_unsigned, require_trusted)
    if json:
        terms = opened.manifest.terms.model_dump(mode="json")
        document = {"ok": True, "digest": opened.digest, "classes": list(opened.class_names), "terms": terms}
        return console.print_json(document | signer.document())
    console.out.print(f"{package.name}: whole and unchanged since it was sealed.")
    _say_who(signer)
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
    opened, signer = _opened(package, allow_unsigned, require_trusted)
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
    _say_who(signer)
    _print_summary(opened)


@console.reported
def train(
    packages: Annotated[list[Path], typer.Argument(help="One or more .medistill files.", show_default=False)],
    test: Annotated[
        str,
        typer.Option("--test", help="Your own labelled images (npz, folder, zip, csv; #split, else the split test)."),
    ],
    own: Annotated[
        str | None,
        typer.Option("--with", help="Labelled images of your own to train on besides.", show_default=False),
    ] = None,
    classes: Annotated[
        Path | None, typer.Option("--map", help="A CSV from,to with what classes are called here.", show_default=False)
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            "--network",
            help="convnet, resnet18, resnet18bn, vgg11 or vit. [default: the package's]",
            show_default=False,
        ),
    ] = None,
    networks: Annotated[int, typer.Option("--networks", help="How many fresh networks.", min=1)] = 5,
    seed: Annotated[int, typer.Option("--seed", help="Of first parameters and augmentation.", min=0)] = 0,
    measured: Annotated[
        str | None,
        typer.Option(
            "--statistics",
            help="Images of your own, whatever their labels, that a resnet18bn's batch norm is measured on.",
            show_default=False,
        ),
    ] = None,
    offsets: Annotated[
        bool,
        typer.Option("--offsets/--no-offsets", help="Add to logits what the packages say, and measure without it too."),
    ] = True,
    save: Annotated[
        Path | None,
        typer.Option("--save", help="Write the first network to this folder: safetensors, ONNX and a card."),
    ] = None,
    allow_unsigned: AllowUnsigned = False,
    require_trusted: RequireTrusted = False,
    json: JsonFlag = False,
) -> None:
    """Train fresh networks on packages, alone or with images of your own, and judge them on others of yours.

    Example: medistill train phantom.medistill --test ours.npz#test --save model

    Example: medistill train st-marys.medistill st-lukes.medistill --with ours.npz#train --test ours.npz#test

    Example: medistill train st-marys.medistill --network resnet18bn --statistics ours.npz#train --test ours.npz#test
    """
    from medistill.jobs import available_cores, keep_freed_memory
    from medistill.merge import pooled_names, read_mapping, refuse_numbered_classes
    from medistill.model import check_saving, save_model
    from medistill.receive import train_on
    from medistill.recipe import ARCHITECTURES
    from medistill.sources import read_judged, read_part

    architecture = next((name for name in ARCHITECTURES if name == network), None)
    if network is not None and architecture is None:
        raise typer.BadParameter(f"--network {network}: expected {', '.join(ARCHITECTURES)}.")
    if architecture == "resnet18bn" and measured is None:
        console.err.print(
            "note: a resnet18bn's batch norm is measured on the images it learns from, and may be far off on real "
            "ones. Some images of your own may mend it, whatever their labels: --statistics ours.npz"
        )
    if save is not None:
        check_saving(save)
    keep_freed_memory()
    opened = _all_opened(packages, allow_unsigned, require_trusted)
    form = opened[0].manifest.images
    judged, split = read_judged(test, form.height, form.channels)
    ours = None if own is None else read_part(own, form.height, form.channels, default="train")
    statistics = None if measured is None else read_part(measured, form.height, form.channels, default="train")
    mapping = None if classes is None else read_mapping(classes)
    refuse_numbered_classes(opened, mapping)
    if not judged.named or not (ours is None or ours.named):
        _say_indices(pooled_names(opened, mapping))
    with console.Bar() as bar:
        cores = available_cores()
        received = train_on(
            opened, judged, split, networks, seed, cores, bar, ours, mapping, architecture, offsets, statistics
        )
    if save is not None:
        save_model(received, save)
    if json:
        plain = None if received.plain_row is None else received.plain_row.model_dump(mode="json")
        return console.print_json(received.row.model_dump(mode="json") | {"without_offsets": plain})
    rows = [row for row in (received.row, received.plain_row) if row is not None]
    console.out.print(console.rows_table(rows, f"on {len(judged):,} images of your own"))


@console.reported
def reproduce(
    package: PackageFile,
    test: Annotated[
        str,
        typer.Option(
            "--test", help="Labelled images to judge on (npz, folder, zip, csv; #split, else the split test)."
        ),
    ],
    networks: Annotated[
        int, typer.Option("--networks", help="How many fresh networks; of two, nothing can be said.", min=3)
    ] = 5,
    seed: Annotated[int, typer.Option("--seed", help="Of first parameters and augmentation.", min=0)] = 0,
    allow_unsigned: AllowUnsigned = False,
    require_trusted: RequireTrusted = False,
    json: JsonFlag = False,
) -> None:
    """Train on a package again and compare with what its maker measured; exit code 1 where the two cannot be the same.

    They agree where the 95 % intervals of their balanced accuracy have a point in common.

    Example: medistill reproduce phantom.medistill --test phantom#val
    """
    from medistill.jobs import available_cores, keep_freed_memory
    from medistill.reproduce import reproduce as repeat
    from medistill.sources import read_judged

    keep_freed_memory()
    (opened,) = _all_opened([package], allow_unsigned, require_trusted)
    form = opened.manifest.images
    judged, split = read_judged(test, form.height, form.channels)
    if not judged.named:
        _say_indices(opened.class_names)
    with console.Bar() as bar:
        found = repeat(opened, judged, split, networks, seed, available_cores(), bar)
    if json:
        rows = {"recorded": found.recorded.model_dump(mode="json"), "found": found.found.model_dump(mode="json")}
        console.print_json({"agrees": found.agrees} | rows)
    else:
        for who, row in (("its maker", found.recorded), ("here", found.found)):
            interval = row.balanced_accuracy_interval
            console.out.print(
                f"{who}: {row.balanced_accuracy} % balanced accuracy on {row.split} "
                f"(95 % interval {100 * interval.low:.1f} to {100 * interval.high:.1f})"
            )
        verdict = (
            "They agree." if found.agrees else "They do NOT agree: other images than the maker's, or other evidence."
        )
        console.out.print(verdict)
    if not found.agrees:
        raise typer.Exit(1)


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
    opened, signer = _opened(package, allow_unsigned, require_trusted)
    if not signer.trusted:
        _say_who(signer)
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
    opened = _all_opened(packages, allow_unsigned, require_trusted)
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


@dataclass(frozen=True)
class _Signer:
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


def _opened(path: Path, allow_unsigned: bool, require_trusted: bool) -> "tuple[Package, _Signer]":
    """A package that this receiver may go on with, and who signed it."""
    from medistill.errors import PackageError
    from medistill.keys import TrustStore
    from medistill.package import fingerprint, open_package

    package = open_package(path, allow_unsigned=allow_unsigned and not require_trusted)
    signer = package.manifest.signer
    if signer is None or package.signed_on is None:
        return package, _Signer(None, None, None, False)
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
    return package, _Signer(name, mark, package.signed_on.isoformat(), known is not None)


def _all_opened(paths: list[Path], allow_unsigned: bool, require_trusted: bool) -> "list[Package]":
    """Several packages that this receiver may go on with; who signed them is said where they are not trusted."""
    opened = []
    for path in paths:
        package, signer = _opened(path, allow_unsigned, require_trusted)
        if not signer.trusted:
            console.err.print(f"{path.name}: ", end="")
            _say_who(signer)
        opened.append(package)
    return opened


def _say_who(signer: _Signer) -> None:
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


def _say_indices(class_names: tuple[str, ...]) -> None:
    """Say how images without class names are understood."""
    named = ", ".join(f"{index} is {name}" for index, name in enumerate(class_names))
    console.err.print(f"warning: your images have no class names, so classes are matched by index: {named}")


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
