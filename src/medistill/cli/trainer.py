"""The receiver's commands that train: learn from packages, and check what their makers measured."""

from pathlib import Path
from typing import Annotated

import typer

from medistill.cli import console
from medistill.cli.console import JsonFlag
from medistill.cli.packages import AllowUnsigned, PackageFile, RequireTrusted, open_all


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
    opened = open_all(packages, allow_unsigned, require_trusted)
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
    (opened,) = open_all([package], allow_unsigned, require_trusted)
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


def _say_indices(class_names: tuple[str, ...]) -> None:
    """Say how images without class names are understood."""
    named = ", ".join(f"{index} is {name}" for index, name in enumerate(class_names))
    console.err.print(f"warning: your images have no class names, so classes are matched by index: {named}")
