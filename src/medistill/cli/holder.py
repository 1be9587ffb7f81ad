"""The holder's commands: from private images to a package."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from medistill.cli import console
from medistill.cli.console import JsonFlag
from medistill.cli.keys import PassphraseFile, passphrase
from medistill.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from medistill.package import Package, Terms
    from medistill.pipeline import Products, Run
    from medistill.plan import Plan

RecipeFile = Annotated[Path, typer.Argument(help="A recipe in TOML; see recipes/.", show_default=False)]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a setting, for instance --set distill.ipc=20. Repeatable.", metavar="KEY=VALUE"),
]
OutFolder = Annotated[
    Path | None, typer.Option("--out", help="Folder for work and results. [default: runs/NAME-OF-RECIPE]")
]

TermsFile = Annotated[
    Path | None,
    typer.Option("--terms", help="Terms of use in TOML. [default: research on health, not for profit]"),
]


@console.reported
def inspect(
    source: Annotated[str, typer.Argument(help="An .npz, a folder, a .zip, a .csv, or the word phantom.")],
    json: JsonFlag = False,
) -> None:
    """What is in a source of images: counts, sizes, classes, splits, duplicates, warnings.

    Example: medistill inspect films.npz
    """
    from medistill.sources import inspect_source

    found = inspect_source(source)
    if json:
        return console.print_json(found.model_dump(mode="json"))
    names = ", ".join(found.class_names) + ("" if found.named else " (numbers: the source has no class names)")
    console.out.print(f"{found.name} ({found.kind})")
    channels = ", ".join(map(str, found.channels))
    sizes = ", ".join(f"{size} ({count:,})" for size, count in found.sizes.items())
    console.out.print(f"classes: {names}\nsizes: {sizes}\nchannels: {channels}")
    console.out.print(f"patients or groups: {found.groups if found.groups is not None else 'unknown'}")
    table = Table(title="images", title_justify="left")
    table.add_column("class")  # a line each: a source may have many, a few splits at most
    for split in found.counts:
        table.add_column(split, justify="right")
    for name in found.class_names:
        table.add_row(Text(name), *(f"{counts.get(name, 0):,}" for counts in found.counts.values()))
    table.add_row("all", *(f"{sum(counts.values()):,}" for counts in found.counts.values()))
    console.out.print(table)
    for warning in found.warnings:
        console.out.print(f"warning: {warning}")
    for note in found.notes:
        console.out.print(f"note: {note}")


@console.reported
def run(
    recipe: RecipeFile,
    settings: Settings = None,
    out: OutFolder = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only predict time, memory and disk.")] = False,
    final: Annotated[bool, typer.Option("--final", help="Judge on the test split; every reading is recorded.")] = False,
    memory: Annotated[
        str | None, typer.Option("--memory", help="Stay within this much, for instance 8GB.", show_default=False)
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", help="Sign the package with your NAME.key.", show_default=False)
    ] = None,
    passphrase_file: PassphraseFile = None,
    terms: TermsFile = None,
    json: JsonFlag = False,
) -> None:
    """The whole path, from images to a sealed package; continues where it stopped.

    Example: medistill run recipes/cxr4-32-ipc10.toml --set source.path=films.npz --out runs/first

    Example: medistill run recipes/cxr4-32-ipc10.toml --set source.path=films.npz --memory 2GB --dry-run
    """
    budget = None if memory is None else _bytes(memory)
    granted = _terms(terms)
    signs = None if key is None else _signing(key, None, passphrase_file)  # a wrong passphrase is told before the work
    opened = open_images(recipe, settings, out)
    from medistill import pipeline
    from medistill.plan import fitted, plan
    from medistill.report.words import size

    if budget is None:
        predicted = plan(opened)
    else:
        asked = opened
        opened, predicted = fitted(opened, budget)
        _say_what_changed(asked, opened, size(budget))
    if dry_run:
        return show_plan(predicted, json)
    say_what_it_takes(opened, predicted)
    with console.Bar() as bar:
        products = pipeline.run(opened, bar, final, granted)
    if signs is not None:
        signs(products.package)
    _show_products(products, json)


@console.reported
def teach(recipe: RecipeFile, settings: Settings = None, out: OutFolder = None, json: JsonFlag = False) -> None:
    """Stage 1: train the teachers on the real images and record their trajectories.

    Example: medistill teach recipes/cxr4-32-ipc10.toml --set source.path=films.npz --out runs/first
    """
    opened = open_images(recipe, settings, out)
    from medistill import pipeline

    with console.Bar() as bar:
        buffer = pipeline.teach(opened, bar)
    answer = {"buffer": str(buffer.folder), "teachers": buffer.teachers, "last_epoch": buffer.last_epoch}
    _answer(answer, json, f"{buffer.teachers} teachers, epochs 0 to {buffer.last_epoch}, in {buffer.folder}")


@console.reported
def distill(recipe: RecipeFile, settings: Settings = None, out: OutFolder = None, json: JsonFlag = False) -> None:
    """Stage 2: distill the synthetic images from the teachers' trajectories.

    Example: medistill distill recipes/cxr4-32-ipc10.toml --set source.path=films.npz --out runs/first
    """
    opened = open_images(recipe, settings, out)
    from medistill import pipeline

    with console.Bar() as bar:
        distilled = pipeline.distill_images(opened, bar)
    last = distilled.log[-1]
    answer = {
        "folder": str(opened.distillation),
        "selected_step": distilled.selected_step,
        "value": last.value,
        "kept": last.kept,
        "inner_rate": distilled.synthetic.inner_rate,
    }
    _answer(answer, json, f"{len(distilled.synthetic)} images, selected at step {distilled.selected_step}")


@console.reported
def evaluate(
    recipe: RecipeFile,
    settings: Settings = None,
    out: OutFolder = None,
    final: Annotated[bool, typer.Option("--final", help="Judge on the test split; every reading is recorded.")] = False,
    json: JsonFlag = False,
) -> None:
    """Stage 3: judge the synthetic images beside random and all real ones.

    Example: medistill evaluate recipes/cxr4-32-ipc10.toml --set source.path=films.npz --out runs/first --final
    """
    opened = open_images(recipe, settings, out)
    from medistill import pipeline

    with console.Bar() as bar:
        utility = pipeline.judge(opened, bar, final)
    if json:
        return console.print_json(utility.model_dump(mode="json"))
    console.out.print(console.rows_table(utility.rows, f"on {utility.judged_images:,} {utility.split} images"))


@console.reported
def pack(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe whose set is distilled and judged.")] = None,
    settings: Settings = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder of the run, or the file to write of --images. [default: runs/NAME-OF-RECIPE]",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        str | None, typer.Option("--images", help="Seal these labelled images instead (npz, folder, zip, csv; #split).")
    ] = None,
    image_size: Annotated[int | None, typer.Option("--size", help="Bring --images to this many pixels.", min=8)] = None,
    channels: Annotated[
        int | None,
        typer.Option("--channels", help="1 (grey) or 3 (color) for --images. [default: 1]", show_default=False),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate", help="Learning rate that --images ask to be trained with. [default: 0.01]", show_default=False
        ),
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", help="Sign the package with your NAME.key.", show_default=False)
    ] = None,
    passphrase_file: PassphraseFile = None,
    terms: TermsFile = None,
    json: JsonFlag = False,
) -> None:
    """Stage 4: seal the set in a package; or, with --images, any labelled images as a set "not distilled here".

    Example: medistill pack recipes/cxr4-32-ipc10.toml --set source.path=films.npz --out runs/first

    Example: medistill pack --images control.npz --out control.medistill
    """
    if (recipe is None) == (images is None):
        raise typer.BadParameter("Give either a RECIPE or --images.")
    if channels not in (None, 1, 3):
        raise typer.BadParameter("--channels is 1 or 3.")
    if recipe is not None and (image_size, channels, rate) != (None, None, None):
        raise typer.BadParameter("--size, --channels and --rate are about --images; change a recipe with --set.")
    if images is not None and settings:
        raise typer.BadParameter("--set changes a recipe, and --images has none.")
    granted = _terms(terms)
    signs = None if key is None else _signing(key, None, passphrase_file)
    if recipe is not None:
        opened = open_images(recipe, settings, out)
        from medistill import pipeline

        products = pipeline.seal(opened, granted)
        if signs is not None:
            signs(products.package)
        return _show_products(products, json)
    assert images is not None
    if out is None:
        raise typer.BadParameter("--images needs --out FILE.medistill.")
    from medistill.pipeline import seal_images

    package = seal_images(images, out, image_size, channels or 1, 0.01 if rate is None else rate, granted)
    if signs is not None:
        package = signs(out)
    answer = {"package": str(out), "images": len(package.images), "digest": package.digest}
    _answer(answer, json, f"{len(package.images)} images sealed, not distilled here: {out}")


@console.reported
def sign(
    package: Annotated[Path, typer.Argument(help="A .medistill file; it is signed in place.", show_default=False)],
    key: Annotated[Path, typer.Option("--key", help="Your secret key, NAME.key.", show_default=False)],
    name: Annotated[str | None, typer.Option("--name", help="Whom it names. [default: the key's file name]")] = None,
    passphrase_file: PassphraseFile = None,
    json: JsonFlag = False,
) -> None:
    """Sign a package, so that a receiver who has your public key knows whose it is.

    Example: medistill sign runs/first/cxr4-32-ipc10.medistill --key keys/st-marys.key
    """
    signed = _signing(key, name, passphrase_file)(package)
    answer = {"package": str(package), "signed_by": name or key.stem, "digest": signed.digest}
    _answer(answer, json, f"{package.name}: signed by {name or key.stem}.")


def _signing(key: Path, name: str | None, passphrase_file: Path | None) -> "Callable[[Path], Package]":
    """What signs a package with this key; the passphrase is asked for now."""
    from datetime import date

    from medistill.keys import read_secret
    from medistill.package import sign_package, signer_of

    secret = read_secret(key, passphrase(passphrase_file))
    signer_of(secret, name or key.stem)

    def sign_it(package: Path) -> "Package":
        with secret:
            return sign_package(package, name or key.stem, secret, date.today())

    return sign_it


def open_images(path: Path, settings: list[str] | None, out: Path | None) -> "Run":
    """The recipe in a file, with changed settings, and its images."""
    overrides = {}
    for setting in settings or []:
        key, given, value = setting.partition("=")
        if not given:
            raise RecipeError(f"--set {setting}: expected KEY=VALUE, for instance --set distill.ipc=20.")
        overrides[key.strip()] = value.strip()
    from medistill.jobs import keep_freed_memory
    from medistill.pipeline import open_run
    from medistill.recipe import read_recipe

    recipe = read_recipe(path, overrides)

    keep_freed_memory()
    return open_run(recipe, out or Path("runs") / recipe.name)


def _terms(path: Path | None) -> "Terms":
    from medistill.package import NARROW, read_terms

    return NARROW if path is None else read_terms(path)


def _bytes(text: str) -> int:
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        raise typer.BadParameter(f"--memory {text}: expected a size, for instance 8GB or 900MB.") from None


def _say_what_changed(asked: "Run", fitted: "Run", budget: str) -> None:
    chosen = {
        f"{section}.{key}": value
        for section, keys in {"machine": ("processes", "keep_mb"), "distill": ("micro_batch",)}.items()
        for key in keys
        if (value := getattr(getattr(fitted.recipe, section), key)) != getattr(getattr(asked.recipe, section), key)
    }
    if chosen:
        settings = ", ".join(f"{key} = {value}" for key, value in chosen.items())
        console.err.print(f"To stay within {budget}: {settings}.")


def _answer(document: dict[str, Any], json: bool, sentence: str) -> None:
    if json:
        return console.print_json(document)
    console.out.print(sentence)


def show_plan(predicted: "Plan", json: bool) -> None:
    """A prediction as a table, or as JSON."""
    if json:
        stages = [dataclasses.asdict(stage) for stage in predicted.stages]
        total = {
            "seconds": predicted.seconds,
            "memory_bytes": predicted.memory_bytes,
            "disk_bytes": predicted.disk_bytes,
        }
        return console.print_json({"stages": stages, **total})
    from medistill.report.words import duration, size

    table = Table(title="predicted from a few steps on this machine", title_justify="left")
    for name in ("stage", "time", "memory", "disk"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for stage in predicted.stages:
        table.add_row(
            stage.name,
            duration(stage.seconds),
            size(stage.memory_bytes),
            size(stage.disk_bytes + stage.passing_bytes),
        )
    table.add_row(
        "all",
        duration(predicted.seconds),
        size(predicted.memory_bytes),
        size(predicted.disk_bytes),
    )
    console.out.print(table)


def say_what_it_takes(opened: "Run", predicted: "Plan") -> None:
    """A prediction in a line, before the work; refuses what the disk has no room for."""
    from medistill.plan import refuse_without_room
    from medistill.report.words import duration, size

    refuse_without_room(opened, predicted)
    console.err.print(
        f"Predicted: {duration(predicted.seconds)}, {size(predicted.memory_bytes)} of memory, "
        f"{size(predicted.disk_bytes)} of disk (less where an earlier run finished parts)."
    )


def _show_products(products: "Products", json: bool) -> None:
    from medistill.evidence import Utility
    from medistill.files import read_json

    if json:
        return console.print_json({name: str(path) for name, path in dataclasses.asdict(products).items()})
    utility = Utility.model_validate(read_json(products.utility))
    for note in utility.notes:
        console.out.print(f"note: {note}")
    console.out.print(console.rows_table(utility.rows, f"on {utility.judged_images:,} {utility.split} images"))
    for path in (products.package, products.contact_sheet, products.report, products.utility):
        console.out.print(str(path))


@console.reported
def encrypt(
    package: Annotated[Path, typer.Argument(help="A .medistill file, signed first.", show_default=False)],
    to: Annotated[list[str], typer.Option("--to", help="A receiver's age public key, age1... Repeatable.")],
    out: Annotated[Path, typer.Option("--out", help="The file to send, for instance phantom.age.")],
    json: JsonFlag = False,
) -> None:
    """Put a package in an envelope that only its receivers can open. They make their keys with age-keygen.

    Example: medistill encrypt phantom.medistill --to age1... --out phantom.age
    """
    from medistill.encryption import encrypt as sealed
    from medistill.errors import StorageError

    if out.exists():
        raise StorageError(f"{out.name} exists and is not replaced. Choose another --out.")
    sealed(package, to, out)
    _answer({"out": str(out), "receivers": len(to)}, json, f"{out}, for {len(to)} receiver(s)")
