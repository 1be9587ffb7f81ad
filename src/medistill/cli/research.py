"""Commands that find something out: methods side by side, hospitals side by side, settings for your images."""

from typing import Annotated

import typer
from rich.table import Table

from medistill.cli import console
from medistill.cli.console import JsonFlag
from medistill.cli.holder import OutFolder, RecipeFile, Settings, open_images, say_what_it_takes, show_plan


@console.reported
def compare(
    recipe: RecipeFile,
    settings: Settings = None,
    out: OutFolder = None,
    methods: Annotated[
        str | None, typer.Option("--methods", help="Some of them, with commas between. [default: all]")
    ] = None,
    ipc: Annotated[
        str | None,
        typer.Option("--ipc", help="Budgets of images a class, with commas between. [default: the recipe's]"),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", min=1, help="Repetitions of everything. [default: 3, or 1 with --quick]"),
    ] = None,
    natural: Annotated[
        str | None,
        typer.Option(
            "--natural", help="Labelled images of other things that transfer learns from.", show_default=False
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            help="Weights of timm's that transfer begins with instead: a safetensors file, or hub.",
            show_default=False,
        ),
    ] = None,
    timm: Annotated[str, typer.Option("--timm", help="The model that --weights are for.")] = "resnet18",
    against: Annotated[
        str, typer.Option("--against", help="The row that others are held against: by how much they lie above it.")
    ] = "random",
    quick: Annotated[
        bool, typer.Option("--quick", help="Less of everything, and one seed where --seeds asks for no more.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only predict time, memory and disk.")] = False,
    final: Annotated[bool, typer.Option("--final", help="Judge on the test split; every reading is recorded.")] = False,
    json: JsonFlag = False,
) -> None:
    """Several methods side by side on the same images, networks and rates; continues where it stopped.

    Methods: scratch, byol, simsiam, skd, mae, transfer, random, herding, k-center, soft-label, dm, dsa, mtt, pruned
    and full.

    Example: medistill compare recipes/cxr4-32-ipc10.toml --set source.path=films.npz --quick --out runs/table

    Example: medistill compare recipes/demo.toml --methods random,mtt,pruned,full --ipc 1,10 --seeds 2
    """
    from medistill.comparison import METHODS, Question, forecast, quickened
    from medistill.comparison import compare as fill_table

    chosen = METHODS if methods is None else tuple(name.strip() for name in methods.split(","))
    repetitions = seeds or (1 if quick else 3)
    question = Question(chosen, _numbers("--ipc", ipc), repetitions, final, natural, weights, timm, against)
    opened = open_images(recipe, settings, out)
    if quick:
        opened = opened.with_recipe(quickened(opened.recipe))
    predicted = forecast(opened, question)
    if dry_run:
        return show_plan(predicted, json)
    say_what_it_takes(opened, predicted)
    with console.Bar() as bar:
        comparison = fill_table(opened, question, bar)
    if json:
        return console.print_json(comparison.model_dump(mode="json"))
    seeds_said = ", ".join(map(str, comparison.seeds))
    about = f"on {comparison.judged_images:,} {comparison.split} images, seeds {seeds_said}"
    console.out.print(console.rows_table(comparison.rows, about))
    for name in ("comparison.html", "comparison.md", "comparison.json", "packages", "holder.html"):
        if (opened.out / name).exists():  # cells that were brought come without packages
            console.out.print(str(opened.out / name))
    console.out.print("holder.html is for you alone: beside each synthetic image that it shows stands a real one.")


@console.reported
def tune(
    recipe: RecipeFile,
    settings: Settings = None,
    out: OutFolder = None,
    trials: Annotated[int, typer.Option("--trials", min=1, help="How many, the recipe itself among them.")] = 12,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Outer steps of each.")] = 60,
    json: JsonFlag = False,
) -> None:
    """Search rates and steps for your images, on validation alone; writes the recipe that won.

    Example: medistill tune recipes/cxr4-32-ipc10.toml --set source.path=films.npz --trials 8 --out runs/tuned
    """
    opened = open_images(recipe, settings, out)
    from medistill.tuning import RECIPE
    from medistill.tuning import tune as search

    with console.Bar() as bar:
        found, tuned = search(opened, trials, steps, bar)
    if json:
        tried = [{"settings": trial.settings, "score": trial.score} for trial in found]
        return console.print_json({"trials": tried, "recipe": str(opened.out / RECIPE)})
    table = Table(title="balanced accuracy on validation, %", title_justify="left")
    for column in ("trial", "settings", "best"):
        table.add_column(column)
    for number, trial in enumerate(found):
        said = ", ".join(f"{key} {value:g}" for key, value in trial.settings.items()) or "the recipe as it stands"
        table.add_row(str(number + 1), said, "diverged" if trial.score is None else f"{100 * trial.score:.1f}")
    console.out.print(table)
    console.out.print(f"{tuned.name} with the best trial's settings: {opened.out / RECIPE}")
    console.out.print("It names no images: give them with --set source.path=...")


@console.reported
def study(
    recipe: RecipeFile,
    settings: Settings = None,
    out: OutFolder = None,
    own: Annotated[
        str, typer.Option("--own", help="How many images a class the small hospital has, with commas between.")
    ] = "5,10,20,50",
    rounds: Annotated[
        str, typer.Option("--rounds", help="Rounds of federated averaging, with commas between; empty for none.")
    ] = "1,10,100",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Repetitions of everything.")] = 3,
    skewed: Annotated[
        bool, typer.Option("--skewed/--no-skewed", help="Also with large hospitals that see different classes.")
    ] = True,
    shifted: Annotated[
        str | None,
        typer.Option("--shifted", help="Also with the small hospital's images from this source.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only predict time, memory and disk.")] = False,
    final: Annotated[bool, typer.Option("--final", help="Judge on the test split; every reading is recorded.")] = False,
    json: JsonFlag = False,
) -> None:
    """How many own images a package is worth: three hospitals share one source's images; continues where it stopped.

    Hospitals A and C distill a package each; hospital B has few images and trains alone, with packages, on everybody's
    real images, and in a federation.

    Example: medistill study recipes/cxr4-32-ipc10.toml --set source.path=films.csv --final --out runs/study
    """
    from medistill.study import Inquiry, forecast
    from medistill.study import study as find_out

    inquiry = Inquiry(_numbers("--own", own), _numbers("--rounds", rounds), seeds, skewed, shifted, final)
    opened = open_images(recipe, settings, out)
    predicted = forecast(opened, inquiry)
    if dry_run:
        return show_plan(predicted, json)
    say_what_it_takes(opened, predicted)
    with console.Bar() as bar:
        found = find_out(opened, inquiry, bar)
    if json:
        return console.print_json(found.model_dump(mode="json"))
    from medistill.report.study import headline

    for scenario in found.judged_images:
        console.out.print(console.study_table(found, scenario))
    console.out.print(headline(found))
    for name in ("study.html", "study.md", "study.json", "packages"):
        console.out.print(str(opened.out / name))


def _numbers(option: str, text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in (text or "").split(",") if number.strip())
    except ValueError:
        raise typer.BadParameter(f"{option} {text}: expected numbers, for instance 1,10,20.") from None
