"""The receiver's commands: check a package, look at it, train on it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medistill.cli import console
from medistill.cli.console import JsonFlag

if TYPE_CHECKING:
    from medistill.package import Package

PackageFile = Annotated[Path, typer.Argument(help="A .medistill file.", show_default=False)]


@console.reported
def verify(package: PackageFile, json: JsonFlag = False) -> None:
    """Check every byte of a package; anything the format does not allow is refused by name. Needs no torch.

    Example: medistill verify phantom.medistill
    """
    from medistill.package import verify as verify_package

    opened = verify_package(package)
    if json:
        return console.print_json({"ok": True, "digest": opened.digest, "classes": list(opened.class_names)})
    console.out.print(f"{package.name}: whole and unchanged since it was sealed. It is not signed.", markup=False)
    console.out.print(f"SHA-256 {opened.digest}")


@console.reported
def show(
    package: PackageFile,
    sheet: Annotated[Path | None, typer.Option("--sheet", help="Write a picture of all images to this PNG.")] = None,
    json: JsonFlag = False,
) -> None:
    """What a package holds, how it was made and what was measured on it. Needs no torch.

    Example: medistill show phantom.medistill --sheet phantom.png
    """
    from medistill.package import open_package

    opened = open_package(package)
    if sheet is not None:
        from medistill.files import write_whole
        from medistill.report.sheet import contact_sheet

        name = opened.manifest.name
        write_whole(sheet, contact_sheet(opened.images, opened.labels, opened.class_names, caption=name))
    if json:
        utility = None if opened.utility is None else opened.utility.model_dump(mode="json")
        manifest = opened.manifest.model_dump(mode="json", exclude_none=True)
        return console.print_json({"manifest": manifest, "inner_rate": opened.inner_rate, "utility": utility})
    _print_summary(opened)


@console.reported
def train(
    package: PackageFile,
    test: Annotated[str, typer.Option("--test", help="Your own labelled images (npz, folder, zip, csv; #split).")],
    networks: Annotated[int, typer.Option("--networks", help="How many fresh networks.", min=1)] = 5,
    seed: Annotated[int, typer.Option("--seed", help="Of first parameters and augmentation.", min=0)] = 0,
    json: JsonFlag = False,
) -> None:
    """Train fresh networks on the package alone and judge them on your own images.

    Example: medistill train phantom.medistill --test ours.npz#test
    """
    from medistill.errors import PackageError
    from medistill.jobs import available_cores, keep_freed_memory
    from medistill.package import open_package
    from medistill.receive import train_on
    from medistill.sources import read_part, split_off

    keep_freed_memory()
    opened = open_package(package)
    form = opened.manifest.images
    if form.height != form.width:
        raise PackageError(f"Its images are {form.height} x {form.width}; networks here train on square ones.")
    judged = read_part(test, form.height, form.channels)
    if not judged.named:
        console.err.print("warning: the test images have no class names, so classes are matched by index: ", end="")
        named = ", ".join(f"{index} is {name}" for index, name in enumerate(opened.class_names))
        console.err.print(named, markup=False)
    _, split = split_off(test)
    with console.Bar() as bar:
        row = train_on(opened, judged, split or "all", networks, seed, available_cores(), bar)
    if json:
        return console.print_json(row.model_dump(mode="json"))
    console.out.print(console.rows_table([row], f"on {len(judged):,} images of your own"))


def _print_summary(package: "Package") -> None:
    manifest = package.manifest
    form, made = manifest.images, manifest.provenance
    lines = [
        f"{manifest.name}: {form.count} synthetic images, {form.channels} x {form.height} x {form.width}, "
        f"{form.labels} labels",
        f"classes: {', '.join(package.class_names)}",
        f"made by: {made.method}, begun from {made.start}",
        f"privacy: {made.privacy}",
        f"network: {manifest.training.network.architecture}, width {manifest.training.network.width}, "
        f"depth {manifest.training.network.depth}; rate {manifest.training.rate:g}, {manifest.training.steps} steps",
        f"SHA-256 {package.digest}",
    ]
    if made.leaks_real_images:
        lines.insert(4, "WARNING: its images may show real patients.")
    console.out.print("\n".join(lines), markup=False)
    if package.utility is not None:
        title = f"on {package.utility.judged_images:,} {package.utility.split} images of the maker"
        console.out.print(console.rows_table(package.utility.rows, title))
