"""The study itself: every seed, every way the images lie, one table.

What is finished is kept in OUT/work and shared with `medistill run`, so a study that was interrupted, or that asks for
one seed, size or scenario more, continues.
"""

import time
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from medistill import intervals, metrics, pipeline
from medistill.evidence import Help, Helped, Scenario, Sharing, Study
from medistill.files import write_json, write_whole
from medistill.images import LabelledImages
from medistill.jobs import Progress
from medistill.pipeline import Run
from medistill.recipe import Recipe
from medistill.report.markdown import study_table
from medistill.report.study import render_study
from medistill.report.words import duration
from medistill.study.inquiry import Inquiry
from medistill.study.scenes import Scene, images_elsewhere, scenes, with_one_rate
from medistill.study.training import Attempt, by_itself, with_everybody
from medistill.study.worth import worth

_IN_ORDER: tuple[Help, ...] = ("alone", "package", "packages", "federated", "pooled")
_COMPARABLE: tuple[Help, ...] = ("package", "packages")
_Lines = dict[tuple[Scenario, Help, int, int | None], list[Attempt]]


def study(opened: Run, inquiry: Inquiry, progress: Progress) -> Study:
    """Find out what packages are worth, and leave it in OUT after every seed: study.json, study.md and study.html.

    Args:
        opened: a recipe with its images, whose training split is shared out among the hospitals.
        inquiry: which sizes, rounds and scenarios, how often, on which split.
        progress: told of everything.

    Raises:
        SourceError: there are too few images to share out, or those of another kind have other classes.
        RecipeError: a hospital has too few images of a class for the recipe.
        MedistillError: see the stages.
    """
    elsewhere = images_elsewhere(opened, inquiry)
    seeds = tuple(opened.recipe.seed + number for number in range(inquiry.seeds))
    for seed in seeds:  # whoever has too few images is told before hours of work
        sharing = [_sharing(scene) for scene in scenes(opened, elsewhere, inquiry, seed)]
    shared, split = pipeline.images_to_judge(opened, inquiry.final, inquiry.of_the_test_split)
    judged = dict.fromkeys(inquiry.scenarios, shared)
    if "shifted" in judged:
        judged["shifted"], _ = pipeline.images_to_judge(elsewhere, inquiry.final, inquiry.of_the_test_split)
    lines: _Lines = {}
    begun = time.monotonic()
    for number, seed in enumerate(seeds):
        for scene in scenes(opened, elsewhere, inquiry, seed):
            progress.say(f"Seed {number + 1} of {len(seeds)}, {scene.scenario}.")
            images = judged[scene.scenario]
            for attempt in (
                *by_itself(scene, images, inquiry.own, progress),
                *with_everybody(scene, images, max(inquiry.own), inquiry.rounds, progress),
            ):
                key = (attempt.scenario, attempt.help, attempt.own, attempt.rounds)
                lines.setdefault(key, []).append(attempt)
        found = _study(opened, elsewhere, seeds[: number + 1], split, judged, sharing, lines)
        write_json(opened.out / "study.json", found.model_dump(mode="json"))
        write_whole(opened.out / "study.md", study_table(found).encode())
        write_whole(opened.out / "study.html", render_study(found, opened.recipe.to_toml()).encode())
        if number + 1 < len(seeds):
            left = (time.monotonic() - begun) / (number + 1) * (len(seeds) - number - 1)
            progress.say(f"The table so far is in {opened.out}; about {duration(left)} left.")
    return found


def _study(
    opened: Run,
    elsewhere: Run,
    seeds: tuple[int, ...],
    split: str,
    judged: Mapping[Scenario, LabelledImages],
    sharing: Sequence[Sharing],
    lines: _Lines,
) -> Study:
    recipe = with_one_rate(opened.recipe)
    sources = (opened,) if elsewhere is opened else (opened, elsewhere)
    rows = [
        row
        for scenario, images in judged.items()
        for row in _rows(recipe, [line for line in lines.values() if line[0].scenario == scenario], images, split)
    ]
    return Study(
        title=recipe.name,
        split=split,
        patients_apart=len(sources) == 1 and opened.splits.train.groups is not None,
        judged_images={scenario: len(images) for scenario, images in judged.items()},
        classes=opened.splits.train.class_names,
        ipc=recipe.distill.ipc,
        seeds=seeds,
        networks=recipe.evaluate.networks,
        rate=recipe.evaluate.rates[0],
        test_reads=sum({each.test_identity: pipeline.test_readings(each) for each in sources}.values()),
        data_fingerprint=opened.fingerprint,
        recipe_digest=opened.recipe.digest(),
        software=pipeline.software(),
        notes=tuple(dict.fromkeys(note for each in sources for note in each.splits.notes)),
        sharing=tuple(sharing),
        rows=tuple(rows),
    )


def _rows(recipe: Recipe, lines: Sequence[Sequence[Attempt]], judged: LabelledImages, split: str) -> list[Helped]:
    """The rows of one scenario: own images alone, then with ever more help, smaller sets first."""
    seed = recipe.seed_for("evaluate/interval")
    chance = 1 / len(judged.class_names)
    means, draws, rows = {0: chance}, {0: np.array(chance)}, []
    for line in sorted(lines, key=lambda line: (_IN_ORDER.index(line[0].help), line[0].own, line[0].rounds or 0)):
        reached = intervals.draws_of([attempt.answers for attempt in line], judged, seed)
        row = _row(recipe, line, judged, split, reached)
        mean = row.balanced_accuracy.mean
        if row.help == "alone":
            means[row.own], draws[row.own] = mean, reached
        elif row.help in _COMPARABLE:
            row = row.model_copy(update={"worth": worth(reached, draws, mean, means)})
        rows.append(row)
    return rows


def _row(
    recipe: Recipe, line: Sequence[Attempt], judged: LabelledImages, split: str, draws: NDArray[np.float64]
) -> Helped:
    first, architecture, rate = line[0], recipe.network.architecture, recipe.evaluate.rates[0]
    said = [attempt.answers for attempt in line]
    interval = intervals.interval_of(draws)
    row = metrics.row(first.help, architecture, split, first.images, first.labels, rate, said, judged, interval)
    return Helped(
        **row.model_dump(),
        scenario=first.scenario,
        help=first.help,
        own=first.own,
        rounds=first.rounds,
        sent_bytes=int(np.mean([attempt.sent_bytes for attempt in line])),
        worth=None,
    )


def _sharing(scene: Scene) -> Sharing:
    hospitals = {"A": scene.hospitals.a, "C": scene.hospitals.c, "B": scene.hospitals.b}
    counts = {
        name: dict(zip(images.class_names, images.counts.tolist(), strict=True)) for name, images in hospitals.items()
    }
    return Sharing(scenario=scene.scenario, counts=counts)
