"""One setting at a time: what each part of the best recipe is worth, and what the founding work's threshold does.

Every trial is the recipe of chest films, at `_BASE`, with the changes of `DIALS`, a distillation from one seed, and
networks that are trained on its set and judged on validation; nothing is read of the test split. Sets are selected on
the same validation images, so all figures are a little high. Finished trials are kept in `dials.json` with the digest
of their recipe, so work stops and goes on anywhere, and a changed recipe is tried anew; trials that share teachers
train them once.

    python -m benchmarks.dials --data FOLDER --work runs/dials                        all that is missing
    python -m benchmarks.dials --data FOLDER --work runs/dials --only similarity      some of it
    python -m benchmarks.dials --table
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.asked import BASE, FOUR_FILMS, TEN_STEPS, digest_of, recipe_with
from medistill import pipeline
from medistill.evaluate import Bench, Training, mean_score, synthetic_arm, train_all
from medistill.files import read_json, write_json
from medistill.jobs import Silence, keep_freed_memory
from medistill.recipe import Recipe
from medistill.synthetic import SyntheticSet

RESULTS = Path(__file__).with_name("dials.json")
# What every dial is turned from: teachers and stretches of recipes until longer ones were found to be better
# (docs/log.md).
_BASE = TEN_STEPS | {"distill.outer_steps": 200}
_PRUNED = [  # the recipe itself keeps what is at least 0.1 alike, unsigned
    *(("unsigned", threshold) for threshold in (0.5, 0.8)),
    *(("signed", threshold) for threshold in (0.1, 0.5, 0.8)),
    *(("displacement", threshold) for threshold in (0.1, 0.5, 0.8)),
    *(("shuffled", threshold) for threshold in (0.5, 0.8)),
    *(("shuffled-displacement", threshold) for threshold in (0.1, 0.5, 0.8)),
]


def _late(epochs: int, steps: int, **more: Any) -> dict[str, Any]:
    """Twenty images a class and six teachers of so many epochs, followed for three from anywhere on their way."""
    return {
        "distill.ipc": 20,
        "teachers.count": 6,
        "teachers.epochs": epochs,
        "distill.student_steps": steps,
        "distill.inner_rate": 0.4 / steps,
        "distill.expert_epochs": 3,
        "distill.max_start_epoch": epochs - 3,
    } | {f"distill.{key}": value for key, value in more.items()}


DIALS: dict[str, dict[str, Any]] = {
    "recipe": {},
    # The founding work's dial: by what a parameter is kept, and how alike it has to be.
    "similarity/none": {"distill.objective": "mtt"},
    **{
        f"similarity/{similarity}/{threshold}": {"distill.similarity": similarity, "distill.threshold": threshold}
        for similarity, threshold in _PRUNED
    },
    # How far the student goes for how far the teacher went.
    **{f"student_steps/{steps}": {"distill.student_steps": steps} for steps in (5, 20, 40, 80)},
    **{
        f"expert_epochs/{epochs}": {"distill.expert_epochs": epochs, "distill.max_start_epoch": 6 - epochs}
        for epochs in (1, 3)
    },
    "max_start_epoch/2": {"distill.max_start_epoch": 2},
    **{
        f"longer/{steps} steps, {epochs} epochs": {
            "distill.student_steps": steps,
            "distill.inner_rate": 0.4 / steps,
            "distill.expert_epochs": epochs,
            "distill.max_start_epoch": 6 - epochs,
        }
        for steps, epochs in ((20, 2), (20, 4), (40, 3))
    },
    # Teachers that are trained for longer, and followed to where they know more.
    "late/6 epochs, 20 steps": _late(6, 20),
    "late/6 epochs, 40 steps": _late(6, 40),
    "late/12 epochs, 20 steps": _late(12, 20),
    "late/12 epochs, 20 steps, growing window": _late(12, 20, window_steps=150, first_max_start_epoch=2),
    "late/12 epochs, 20 steps, 400 outer steps": _late(12, 20, outer_steps=400),
    "late/12 epochs, 40 steps": _late(12, 40),
    "late/12 epochs, 40 steps, 100 outer steps": _late(12, 40, outer_steps=100),
    "late/12 epochs, 40 steps, 100 outer steps, four films": _late(12, 40, outer_steps=100) | FOUR_FILMS,
    "late/12 epochs, 40 steps, four films": _late(12, 40) | FOUR_FILMS,
    "late/12 epochs, 40 steps, 100 outer steps, four films, batches of 160": _late(
        12, 40, outer_steps=100, formation=2, batch_size=160
    ),
    # What the recipe asked last, beside as many epochs of half as many teachers and as many student steps in half as
    # many outer ones; then with more of either, or four films of 16 px in each image, eighty of the 160 a step.
    **{
        f"three seeds/{name}, seed {seed}": _late(epochs, steps, ipc=10, outer_steps=outer)
        | {"teachers.count": count, "seed": seed}
        | more
        for name, count, epochs, steps, outer, more in (
            ("12 of 6 epochs, 20 steps", 12, 6, 20, 200, {}),
            ("6 of 12 epochs, 40 steps, 100 outer", 6, 12, 40, 100, {}),
            ("6 of 12 epochs, 40 steps", 6, 12, 40, 200, {}),
            ("four films, 6 of 12 epochs, 40 steps, 100 outer", 6, 12, 40, 100, FOUR_FILMS),
            ("four films, 6 of 12 epochs, 40 steps", 6, 12, 40, 200, FOUR_FILMS),
        )
        for seed in range(3)
    },
    # Twenty a class, with as many outer steps as ten have and with twice as many; seed 0 is above, among the late ones.
    **{
        f"three seeds/twenty a class, {outer} outer, seed {seed}": _late(12, 40, outer_steps=outer)
        | FOUR_FILMS
        | {"seed": seed}
        for outer in (100, 200)
        for seed in (1, 2)
    },
    # The same where distillation is weakest: four times the pixels and half the width.
    **{
        f"64 px/{name}": _late(12, 40, ipc=10, outer_steps=100)
        | {"source.image_size": 64, "network.depth": 4, "network.width": 32}
        | more
        for name, more in (
            ("6 of 12 epochs, 40 steps, 100 outer", {}),
            ("four films, 6 of 12 epochs, 40 steps, 100 outer", FOUR_FILMS),
        )
    },
    # What the recipe has and the published method has not, taken away one by one.
    "without/balanced teachers": {"teachers.sampling": "natural"},
    "without/averaged teachers": {"teachers.average": 0.0},
    "without/learned labels": {"distill.learn_labels": False},
    "without/class means to begin with": {"distill.start": "real"},
    "without/Adam": {
        "distill.optimizer": "sgd",
        "distill.image_rate": 1000.0,
        "distill.log_rate_step": 0.01,
        "distill.label_rate": 2.0,
    },
    "without/averaged images": {"distill.ema": 0.0},
    "without/class offsets": {"distill.class_offsets": False},
    # What others add.
    "with/angle": {"distill.angle_weight": 0.1},
    "with/importance": {"distill.importance_rate": 0.05},
    "with/growing window": {"distill.first_max_start_epoch": 1, "distill.window_steps": 200},
    "with/teachers' labels to begin with": {"distill.label_start": "teachers"},
    "with/flat teachers": {"teachers.sharpness_radius": 0.05, "teachers.surrogate_gap": 0.1},
    "with/four films an image": {"distill.formation": 2, "distill.enlarging": "bilinear"},
    "with/four films an image, by cosines": {"distill.formation": 2, "distill.enlarging": "cosine"},
    "with/logit-adjusted teachers": {"teachers.sampling": "natural", "teachers.logit_adjustment": 1.0},
    "with/more images of commoner classes": {"distill.ipc_power": 0.5},
    "with/TESLA's gradient": {"distill.gradient": "tesla"},
    **{f"with/smoothness {power}": {"distill.smoothness": power} for power in (0.5, 1.0, 2.0)},
}
_NETWORKS = 10


def main(arguments: Sequence[str] | None = None) -> None:
    """Fill what is missing, or print the table of what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder that holds cxr4_64.npz")
    parser.add_argument("--work", type=Path, help="where teachers and checkpoints are kept")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--only", default="", help="trials whose name begins so")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change every trial")
    parser.add_argument("--table", action="store_true", help="print what is there")
    options = parser.parse_args(arguments)
    done: dict[str, Any] = read_json(options.results) if options.results.exists() else {}
    if options.table:
        return print(table(done))
    if options.data is None or options.work is None:
        parser.error("--data and --work are needed to fill trials")
    keep_freed_memory()
    everywhere = dict(change.split("=", 1) for change in options.set)
    for name in (name for name in DIALS if name.startswith(options.only)):
        recipe = recipe_of(name, options.data, everywhere)
        told = digest_of(recipe)
        if done.get(name, {}).get("recipe") == told:
            continue
        done[name] = _tried(recipe, options.work) | {"recipe": told}
        write_json(options.results, done)
        print(_line(name, done[name]), flush=True)


def recipe_of(name: str, data: Path, everywhere: dict[str, str]) -> Recipe:
    """The recipe of a trial: the base, what its dial changes, and what every trial is to change."""
    own = {"source.path": str(data / "cxr4_64.npz")} | _BASE | DIALS[name]
    return recipe_with(BASE, own, everywhere)


def _tried(recipe: Recipe, work: Path) -> dict[str, Any]:
    """One distillation, and what networks trained on its set recognize on validation."""
    opened = pipeline.open_run(recipe, work)
    pipeline.teach(opened, Silence())
    begun = time.monotonic()
    distilled = pipeline.distill_images(opened, Silence())
    seconds = time.monotonic() - begun
    steps = distilled.log[1:]
    return {
        "scores": _scores(opened, distilled.synthetic),
        "selected": distilled.selected_step,
        "selections": [outcome.validation for outcome in distilled.log if outcome.validation is not None],
        "kept": [_mean([step.kept for step in part]) for part in (steps[:50], steps[-50:])],
        "value": [_mean([step.value for step in part]) for part in (steps[:50], steps[-50:])],
        "seconds": round(seconds),
        "machine": pipeline.machine(opened),
    }


def _scores(opened: pipeline.Run, synthetic: SyntheticSet) -> list[float | None]:
    """Balanced accuracy of every network, its lean taken off where the set says how."""
    bench = Bench(opened.recipe, opened.splits.validation, None, opened.processes)
    arm = synthetic_arm(opened.recipe, synthetic)
    rate = opened.recipe.evaluate.middle_rate
    jobs = [Training(arm.name, rate, "final", replica) for replica in range(_NETWORKS)]
    networks = train_all(bench, [arm], jobs, None).values()
    return [mean_score(bench, arm, [each]) for each in networks]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def table(done: dict[str, Any]) -> str:
    """A line for every trial that is there."""
    return "\n".join(_line(name, done[name]) for name in DIALS if name in done)


def _line(name: str, found: dict[str, Any]) -> str:
    scores = [100 * score for score in found["scores"] if score is not None]
    diverged = len(found["scores"]) - len(scores)
    said = f"{np.mean(scores):5.1f} ± {np.std(scores, ddof=1):.1f}" if len(scores) > 1 else "   none"
    kept, value = (
        " to ".join("-" if number is None else f"{number:.3f}" for number in found[key]) for key in ("kept", "value")
    )
    way = ", ".join(f"{100 * score:.1f}" for score in found["selections"])
    return (
        f"{name:38} {said} (n {len(scores)}{f', {diverged} diverged' if diverged else ''})   kept {kept}   "
        f"value {value}   step {found['selected']} of {way}   {found['seconds']} s"
    )


if __name__ == "__main__":
    main()
