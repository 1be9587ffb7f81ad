"""The scenes of a study: who has which images, what A and C make of theirs, and what B is judged on."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from medistill import pipeline
from medistill.errors import SourceError
from medistill.evidence import Scenario
from medistill.images import Splits, cut
from medistill.jobs import Progress
from medistill.package import Package
from medistill.pipeline import Run
from medistill.recipe import Recipe, recipe_from
from medistill.study.hospitals import Hospitals, few_of_each, share_out
from medistill.study.inquiry import Inquiry
from medistill.synthetic import refuse_small_classes


@dataclass(frozen=True)
class Scene:
    """One way the images lie, of one seed.

    Attributes:
        scenario: which way.
        run: the recipe with its seed and with one rate for everybody, and the folder.
        hospitals: who has which images.
        makers: A and C, each with training and validation images of its own.
    """

    scenario: Scenario
    run: Run
    hospitals: Hospitals
    makers: tuple[Run, Run]

    def packages(self, progress: Progress) -> tuple[tuple[Package, Path], ...]:
        """What A and C distill, and where it lies; read where it was made already.

        Raises:
            MedistillError: see the stages.
        """
        lies = "skewed" if self.scenario == "skewed" else "natural"
        return tuple(
            _package(
                maker,
                self.run.out / "packages" / f"{maker.recipe.name}-{lies}-{name}-seed{maker.recipe.seed}",
                progress,
            )
            for name, maker in zip("ac", self.makers, strict=True)
        )


def scenes(opened: Run, elsewhere: Run, inquiry: Inquiry, seed: int) -> Iterator[Scene]:
    """Every scenario of one seed.

    Args:
        opened: the images that are shared out.
        elsewhere: the images of another kind, where the inquiry names some; see `images_elsewhere`.
        inquiry: which scenarios, and how many images B has.
        seed: of everything.

    Raises:
        SourceError: there are too few images to share out.
        RecipeError: a hospital has too few images of a class for the recipe.
    """
    run = opened.with_recipe(with_one_rate(opened.recipe.model_copy(update={"seed": seed})))
    recipe, most = run.recipe, max(inquiry.own)
    drawn = recipe.seed_for("study/hospitals")
    for scenario in inquiry.scenarios:
        hospitals = share_out(run.splits.train, most, scenario == "skewed", drawn)
        if scenario == "shifted":
            hospitals = replace(hospitals, b=few_of_each(elsewhere.splits.train, most, drawn)[0])
        makers = []
        for images in (hospitals.a, hospitals.c):
            train, validation = cut(images, recipe.source.validation_fraction, recipe.seed_for("study/validation"))
            refuse_small_classes(recipe.distill, train)
            makers.append(run.with_images(Splits(train, validation, run.splits.test)))
        yield Scene(scenario, run, hospitals, (makers[0], makers[1]))


def with_one_rate(recipe: Recipe) -> Recipe:
    """A hospital with five images a class has none to choose a rate on: everybody trains at the middle one."""
    evaluate = recipe.evaluate.model_dump() | {"rates": (recipe.evaluate.middle_rate,)}
    return recipe_from(recipe.model_dump() | {"evaluate": evaluate})


def images_elsewhere(opened: Run, inquiry: Inquiry) -> Run:
    """The images of another kind, with classes in the order of the others; the same images where there are none.

    Raises:
        SourceError: they cannot be read, or have other classes.
    """
    if inquiry.shifted is None:
        return opened
    source = opened.recipe.source.model_copy(update={"path": inquiry.shifted})
    settings = opened.recipe.model_dump() | {"source": source.model_dump()}
    found = pipeline.open_run(recipe_from(settings), opened.out)
    classes = opened.splits.train.class_names
    parts = {name: part.in_order_of(classes) for name, part in found.splits.parts.items()}
    if missing := [name for name, count in zip(classes, parts["train"].counts, strict=True) if not count]:
        raise SourceError(f"--shifted has no image of {', '.join(missing)}; expected the classes {', '.join(classes)}.")
    return found.with_images(Splits(parts["train"], parts["validation"], parts["test"], found.splits.notes))


def _package(maker: Run, path: Path, progress: Progress) -> tuple[Package, Path]:
    recipe, file = maker.recipe, path.with_name(f"{path.name}.medistill")
    if recipe.distill.follows_teachers:
        pipeline.teach(maker, progress)
    distilled = pipeline.distill_images(maker, progress)
    encoding = pipeline.encoding_of(maker, distilled, progress)
    return pipeline.seal_set(maker, distilled, recipe.evaluate.rates[0], file, encoding), file
