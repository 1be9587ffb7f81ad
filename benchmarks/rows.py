"""Every method on every set, one cell at a time.

A cell is one method, on one set, at one number of images a class, from one seed: a distillation or a choice of images,
then networks trained on it by the fair protocol, their rate chosen on validation, and judged once on the test split.
Finished cells are kept in `rows.json` with the digest of their recipe (of real images, without what only distilled ones
ask for) and what every network said of every test image: work stops and goes on anywhere, a changed recipe is judged
anew, and every interval can be computed again. All methods of a set share network and augmentation, and those
that train a student its steps in all; what else a method asks for is in `METHODS`.

    python -m benchmarks.rows --data FOLDER --work runs/rows                             all that is missing
    python -m benchmarks.rows --data FOLDER --work runs/rows --only cxr4-32/ipc10 --minutes 60   some of it
    python -m benchmarks.rows --data FOLDER --table
    python -m benchmarks.rows --data FOLDER --recipe cxr4-32/ipc10/dsa/0   how its images are distilled, as TOML

Whether one method is above another is told by the interval of `intervals.difference`.
"""

import argparse
import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.asked import BASE, FOUR_FILMS, TEN_STEPS, digest_of, recipe_with
from medistill import intervals, metrics, pipeline
from medistill.comparison import Question
from medistill.comparison.contenders import Contenders
from medistill.evaluate import Arm, RandomImages, commonest, full_arms, judge_arms, small_arm, synthetic_arm
from medistill.files import read_json, write_json
from medistill.formation import fold, unfold
from medistill.images import LabelledImages
from medistill.jobs import Silence, keep_freed_memory
from medistill.metrics import array_from_text, array_to_text
from medistill.recipe import Architecture, Recipe
from medistill.report.words import points

RESULTS = Path(__file__).with_name("rows.json")
SETS: dict[str, dict[str, Any]] = {
    "cxr4-32": {"source.path": "cxr4_64.npz", "source.image_size": 32},
    # Half the width, so that four times the pixels ask for about the same arithmetic.
    "cxr4-64": {"source.path": "cxr4_64.npz", "source.image_size": 64, "network.depth": 4, "network.width": 32},
    "pneumonia-28": {"source.path": "pneumoniamnist.npz", "source.image_size": 28, "distill.start": "class-noise"},
    "breast-28": {"source.path": "breastmnist.npz", "source.image_size": 28, "distill.start": "class-noise"},
    # The digits under MedMNIST's keys, the last 5,000 of the training images for validation.
    "mnist-28": {"source.path": "mnist.npz", "source.image_size": 28},
}
# There are seven times as many images, and the row is no more than a check of the engine.
SHORTER: dict[str, dict[str, Any]] = {"mnist-28": {"teachers.count": 3}}
# How far ours goes, and how: half as many teachers for twice as long, longer stretches, four films in each image.
_FORTY_STEPS = {
    "teachers.count": 6,
    "teachers.epochs": 12,
    "distill.student_steps": 40,
    "distill.max_start_epoch": 9,
    "distill.outer_steps": 100,
}
_OURS = _FORTY_STEPS | FOUR_FILMS
# What ours asked before (docs/log.md), and still does of a set that has not been distilled anew.
_TWENTY_STEPS = {
    "teachers.count": 12,
    "teachers.epochs": 6,
    "distill.student_steps": 20,
    "distill.max_start_epoch": 3,
    "distill.outer_steps": 200,
}
_TWENTY_STEPS_STILL = ("mnist-28",)
# Rivals ask `TEN_STEPS`: more outer steps, each shorter, with as many student steps in all. An outer step of DM, which
# trains no student, or of DSA, which trains one up to where it looks from, counts as one of ten student steps.
# Stated rates are those that were measured; who follows no teacher does not read how many there are.
# Cazenavette et al., CVPR 2022 (arXiv 2203.11932): its images, and its teachers. Rates are from a short search
# (docs/log.md).
_PUBLISHED_IMAGES = {
    "distill.objective": "mtt",
    "distill.start": "real",
    "distill.learn_labels": False,
    "distill.class_offsets": False,
    "distill.ema": 0.0,
    "distill.optimizer": "sgd",
    "distill.image_rate": 1000.0,
    "distill.log_rate_step": 0.01,
}
_PUBLISHED_TEACHERS = {
    "teachers.sampling": "natural",
    "teachers.rate": 0.01,
    "teachers.batch_size": 256,
    "teachers.average": 0.0,
    "teachers.epochs": 10,
    "teachers.count": 10,
}
_PUBLISHED = TEN_STEPS | _PUBLISHED_IMAGES | _PUBLISHED_TEACHERS
_PUBLISHED |= {"distill.max_start_epoch": 8, "distill.inner_rate": 0.02}
METHODS: dict[str, dict[str, Any]] = {
    "dm": TEN_STEPS | {"distill.objective": "dm"},
    # From seven trials on validation; as many left DSA and published matching as they were (docs/log.md).
    "dm-searched": TEN_STEPS | {"distill.objective": "dm", "distill.image_rate": 0.29, "distill.inner_rate": 0.068},
    "dsa": TEN_STEPS | {"distill.objective": "dsa"},
    # What ours has besides, for rivals: how far networks that learn from these images lean; four films an image.
    **{
        f"{rival}-offsets": TEN_STEPS | {"distill.objective": rival, "distill.class_offsets": True}
        for rival in ("dm", "dsa")
    },
    **{f"{rival}-four-films": TEN_STEPS | FOUR_FILMS | {"distill.objective": rival} for rival in ("dm", "dsa")},
    "mtt": _PUBLISHED,
    # Twice the steps towards an epoch more, with as many student steps in all.
    "mtt-twenty-steps": _PUBLISHED
    | {
        "distill.student_steps": 20,
        "distill.inner_rate": 0.01,
        "distill.expert_epochs": 3,
        "distill.max_start_epoch": 7,
        "distill.outer_steps": 200,
    },
    # What is left of ours' lead where published matching follows ours' teachers as far as ours does.
    "mtt-our-teachers": _FORTY_STEPS | _PUBLISHED_IMAGES,
    "mtt-our-teachers-offsets": _FORTY_STEPS | _PUBLISHED_IMAGES | {"distill.class_offsets": True},
    "mtt-pruned": _PUBLISHED | {"distill.objective": "pruned", "distill.threshold": 0.1},
    # HoP-TM's mask and not its schedule: easy parameters alone, by a threshold that would grow after 500 outer steps,
    # and the angle of the trajectory.
    "hop-tm": _PUBLISHED
    | {
        "distill.objective": "pruned",
        "distill.similarity": "easy",
        "distill.easy_error": 1e-6,
        "distill.angle_weight": 0.1,
    },
    # DATM (Guo et al., ICLR 2024): a window that grows towards late epochs, labels that start at the teachers'.
    "datm": _PUBLISHED
    | {
        "distill.learn_labels": True,
        "distill.label_start": "teachers",
        "distill.first_max_start_epoch": 2,
        "distill.window_steps": 200,
        "distill.label_rate": 2.0,
    },
    # Both with ours' teachers and lengths, an average of images, a schedule as long as the run: HoP-TM's error grows to
    # 190 times what it was, from what a thirtieth of the parameters stay below to what half of them do.
    "hop-tm-our-teachers": _FORTY_STEPS
    | _PUBLISHED_IMAGES
    | {
        "distill.objective": "pruned",
        "distill.similarity": "easy",
        "distill.easy_error": 1e-8,
        "distill.easy_growth_every": 5,
        "distill.angle_weight": 0.1,
        "distill.ema": 0.95,
    },
    "datm-our-teachers": _FORTY_STEPS
    | _PUBLISHED_IMAGES
    | {
        "distill.learn_labels": True,
        "distill.label_start": "teachers",
        "distill.first_max_start_epoch": 1,
        "distill.window_steps": 50,
        "distill.label_rate": 2.0,
        "distill.ema": 0.95,
    },
    "ours": _OURS,
    "ours-leaning": _OURS,  # the same images, with nothing added to the logits
    "ours-unpruned": _OURS | {"distill.objective": "mtt"},
    "ours-one-film": _FORTY_STEPS,
    "ours-twenty-steps": _TWENTY_STEPS,
    # What the images hold beyond what five epochs bring out of them.
    "full-balanced-20-epochs": {"evaluate.full_epochs": 20},
}
# What stands beside the ConvNet of width 64: at that width a ResNet-18 or a VGG-11 costs a core minutes a network.
UNSEEN: dict[Architecture, int] = {"resnet18": 16, "resnet18bn": 16, "vgg11": 16, "vit": 64}
_Said = dict[int, list[NDArray[np.uint8]]]  # by seed, a class for every test image from each network
# At ten a class from one seed, beside those that have three.
OTHERS = (
    *("herding", "k-center", "hop-tm", "datm", "hop-tm-our-teachers", "datm-our-teachers"),
    *("mtt-our-teachers-offsets", "mtt-twenty-steps", "dm-offsets", "dsa-offsets", "dsa-four-films", "dm-searched"),
    *("ours-one-film", "ours-unpruned"),
)
CHOSEN = ("random", "herding", "k-center")
OF_HALF_THE_SIDE = "random-four-films"  # real ones, in as many bytes
FULL = ("full-natural", "full-balanced", "full-balanced-20-epochs")


@dataclass(frozen=True)
class Cell:
    """One method, on one set, at one number of images a class (0 for all), from one seed; judged on the network that
    the images were made with, or on one that they were not made for."""

    images: str
    ipc: int
    method: str
    seed: int
    unseen: Architecture | None = None

    @property
    def key(self) -> str:
        """Its name in the results, for instance `cxr4-32/ipc10/ours/0` or `cxr4-32/ipc20/ours@vit/0`."""
        return _key(self.images, self.ipc, self.row, self.seed)

    @property
    def is_distilled(self) -> bool:
        """Whether its images are distilled, so that a recipe says how."""
        return self.ipc > 0 and self.method in METHODS

    @property
    def row(self) -> str:
        """What its row of the table is called."""
        return self.method if self.unseen is None else f"{self.method}@{self.unseen}"


def _key(images: str, ipc: int, row: str, seed: int) -> str:
    return f"{images}/ipc{ipc}/{row}/{seed}"


def cells() -> Iterator[Cell]:
    """Every cell that the table asks for, the most wanted first."""
    for seed in range(3):
        # The last three come nearest.
        for method in ("ours", "random", OF_HALF_THE_SIDE, "mtt", "mtt-pruned", "ours-twenty-steps", "dsa", "dm"):
            yield Cell("cxr4-32", 10, method, seed)
        # What tells apart of what the lead is made.
        for method in ("ours-leaning", "dm-four-films", "mtt-our-teachers"):
            yield Cell("cxr4-32", 10, method, seed)
        if seed == 0:
            yield from (Cell("cxr4-32", 0, method, seed) for method in FULL)
            yield from (Cell("cxr4-32", 10, method, seed) for method in OTHERS)
    few = ("random", "mtt", "ours")
    yield from (Cell("cxr4-32", ipc, method, 0) for ipc in (20, 1) for method in few)
    unseen = (*few, "ours-leaning", "ours-twenty-steps")
    yield from (Cell("cxr4-32", 20, method, 0, network) for network in UNSEEN for method in unseen)
    for images in ("pneumonia-28", "breast-28"):
        yield from (Cell(images, 0, method, 0) for method in FULL)
        methods = (*few, "mtt-pruned", "ours-leaning", "ours-twenty-steps")
        yield from (Cell(images, ipc, method, 0) for ipc in (10, 1) for method in methods)
    yield from (Cell("cxr4-64", 0, method, 0) for method in FULL)
    yield from (Cell("cxr4-64", 10, method, 0) for method in ("random", "ours", "mtt", "mtt-pruned"))
    yield Cell("mnist-28", 0, "full-natural", 0)
    yield from (Cell("mnist-28", ipc, method, 0) for ipc in (10, 1) for method in ("random", "dm", "mtt", "ours"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Fill what is missing, or print the table of what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the sets")
    parser.add_argument("--work", type=Path, help="where teachers, checkpoints and networks are kept")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--only", default="", help="cells whose key begins so")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no cell after so long")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change every recipe")
    parser.add_argument("--table", action="store_true", help="print what is there")
    parser.add_argument("--recipe", metavar="CELL", help="print the recipe by which its images are distilled")
    options = parser.parse_args(arguments)
    done: dict[str, Any] = read_json(options.results) if options.results.exists() else {}
    wanted = [cell for cell in cells() if cell.key.startswith(options.only)]
    changes = dict(change.split("=", 1) for change in options.set)
    if options.recipe is not None:
        asked = next((cell for cell in cells() if cell.key == options.recipe and cell.is_distilled), None)
        if asked is None:
            parser.error(f"--recipe {options.recipe}: expected a cell with distilled images, as cxr4-32/ipc10/dsa/0")
        return print(_recipe(asked, options.data, changes).to_toml(), end="")
    if options.table:
        answers = {cell.key: _told(cell, _recipe(cell, options.data, changes)) for cell in wanted}
        asked_now = {key: found for key, found in done.items() if found["recipe"] == answers.get(key)}
        return print(table(options.data, wanted, asked_now))
    if options.work is None:
        parser.error("--work is needed to fill cells")
    keep_freed_memory()
    begun = time.monotonic()
    for cell in wanted:
        recipe = _recipe(cell, options.data, changes)
        told = _told(cell, recipe)
        if done.get(cell.key, {}).get("recipe") == told or time.monotonic() - begun > 60 * options.minutes:
            continue
        started = time.monotonic()
        said, opened = _filled(cell, recipe, options.work / cell.images)
        done[cell.key] = {
            "said": [array_to_text(guess) for guess in said],
            "recipe": told,
            "machine": pipeline.machine(opened),
            "seconds": round(time.monotonic() - started),
        }
        write_json(options.results, dict(sorted(done.items())))
        print(
            f"{cell.key}: {_balanced(_test_images(options.data, cell.images), said)} in {done[cell.key]['seconds']} s"
        )


def _recipe(cell: Cell, data: Path, changes: dict[str, str]) -> Recipe:
    """What a cell asks for: the base, its set, its method."""
    own = {"seed": cell.seed, "distill.ipc": max(cell.ipc, 1)} | SETS[cell.images]
    own["name"] = f"{cell.images}-ipc{cell.ipc}-{cell.method}"
    is_earlier = cell.method == "ours-twenty-steps"
    is_earlier |= cell.method in ("ours", "ours-leaning") and cell.images in _TWENTY_STEPS_STILL
    own |= (_TWENTY_STEPS if is_earlier else METHODS.get(cell.method, {})) | SHORTER.get(cell.images, {})
    if "distill.outer_steps" in own and not is_earlier:
        own["distill.outer_steps"] *= max(1, cell.ipc // 10)  # as recipes do that do not count them
    own["source.path"] = str(data / own["source.path"])
    return recipe_with(BASE, own, changes)


def _told(cell: Cell, recipe: Recipe) -> str:
    """The digest of what decides a cell."""
    if cell.is_distilled:
        return digest_of(recipe)
    return f"{recipe.digest('source', 'network', 'augment', 'evaluate')}-ipc{cell.ipc}"


def _filled(cell: Cell, recipe: Recipe, work: Path) -> tuple[list[NDArray[np.uint8]], pipeline.Run]:
    """What a cell's networks say of the test images, as classes, and the run that made them."""
    opened = pipeline.open_run(recipe, work)
    test, _ = pipeline.images_to_judge(opened, final=True)
    arm, bench = _arm(cell, opened), pipeline.bench_of(opened)
    if cell.unseen is not None:
        arm = replace(arm, architecture=cell.unseen)
        network = bench.recipe.network.model_copy(update={"architecture": cell.unseen, "width": UNSEEN[cell.unseen]})
        bench = replace(bench, recipe=bench.recipe.model_copy(update={"network": network}))
    (judged,) = judge_arms(bench, [arm], test, Silence())
    return [answers.guess.astype(np.uint8) for answers in judged.answers], opened


def _arm(cell: Cell, opened: pipeline.Run) -> Arm:
    if cell.method in FULL:
        arms = full_arms(opened.recipe, opened.splits.train, opened.transform)
        return next(arm for arm in arms if arm.name == cell.method.removesuffix("-20-epochs"))
    if cell.method == OF_HALF_THE_SIDE:
        return small_arm(opened.recipe, cell.method, _halved(opened))
    if cell.method in CHOSEN:
        contenders = Contenders(opened, Question(methods=(cell.method,)), Silence())
        for failure in contenders.failed:
            raise failure
        return contenders.of[cell.method][0].arm
    if opened.recipe.distill.follows_teachers:
        pipeline.teach(opened, Silence())
    synthetic = pipeline.distill_images(opened, Silence()).synthetic
    if cell.method == "ours-leaning":
        synthetic = replace(synthetic, offsets=())
    return synthetic_arm(opened.recipe, synthetic)


def _halved(opened: pipeline.Run) -> RandomImages:
    """Four random films for one, each reduced to half the side and enlarged again, as networks see a formation."""
    real = opened.splits.train
    copies = torch.from_numpy(real.pixels).float().repeat_interleave(4, 0)
    seen = unfold(fold(copies, 2), 2)[::4].round().byte().numpy()
    of_each = opened.recipe.distill.images_of_each(real.counts.tolist())
    return RandomImages(replace(real, pixels=seen), opened.transform, tuple(4 * count for count in of_each))


def table(data: Path, wanted: Sequence[Cell], done: dict[str, Any]) -> str:
    """Tables in Markdown of balanced accuracy in percent, and by how much ours lies above each row with the seeds that
    both have: the 95 % interval, which knows nothing of other seeds where they share one. Cells of an earlier recipe
    are left out; of a set whose images are not there no more is said than that."""
    parts = []
    for images in dict.fromkeys(cell.images for cell in wanted if cell.key in done):
        if not (data / SETS[images]["source.path"]).exists():
            parts.append(f"**{images}**: {SETS[images]['source.path']} is not in that folder")
            continue
        test = _test_images(data, images)
        groups = dict.fromkeys((cell.ipc, cell.row) for cell in wanted if cell.images == images)
        for ipc in dict.fromkeys(ipc for ipc, _ in groups):
            said = {row: found for number, row in groups if number == ipc and (found := _said(done, images, ipc, row))}
            if said:
                title = "all images" if ipc == 0 else f"{ipc} a class"
                parts.append(f"**{images}, {title}, {len(test):,} test images**\n\n{_rows(said, test)}")
    return "\n\n".join(parts)


def _rows(said: dict[str, _Said], test: LabelledImages) -> str:
    lines = [
        "| row | seeds | balanced accuracy | ours above by |",
        "| --- | ---: | ---: | ---: |",
        f"| majority | | {_majority(test):.1f} | |",
    ]
    for row, found in said.items():
        flat = [guess for networks in found.values() for guess in networks]
        method, network, unseen = row.partition("@")
        above = "" if method == "ours" else _above(said.get(f"ours{network}{unseen}", {}), found, test)
        lines.append(f"| {row} | {len(found)} | {_balanced(test, flat)} | {above} |")
    return "\n".join(lines)


def _above(ours: _Said, found: _Said, test: LabelledImages) -> str:
    """By how much ours lies above another row, with the seeds that both have."""
    shared = sorted(ours.keys() & found.keys())
    if not shared:
        return ""
    draws = [
        intervals.draws_of_balanced_accuracy([each[seed] for seed in shared], test, seed=0) for each in (ours, found)
    ]
    return points(intervals.difference(*draws))


def _said(done: dict[str, Any], images: str, ipc: int, row: str) -> _Said:
    keys = {seed: _key(images, ipc, row, seed) for seed in range(10)}
    return {
        seed: [array_from_text(text, "u1") for text in done[key]["said"]] for seed, key in keys.items() if key in done
    }


def _balanced(test: LabelledImages, said: Sequence[NDArray[np.uint8]]) -> str:
    classes = len(test.class_names)
    values = [100 * metrics.balanced_accuracy(test.labels, guess.astype(np.int64), classes) for guess in said]
    spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread} (n {len(values)})"


def _majority(test: LabelledImages) -> float:
    answer = commonest(test, test).guess
    return 100 * metrics.balanced_accuracy(test.labels, answer, len(test.class_names))


@functools.cache
def _test_images(data: Path, images: str) -> LabelledImages:
    recipe = _recipe(Cell(images, 1, "ours", 0), data, {})
    return pipeline.open_run(recipe, Path("unused")).splits.test


if __name__ == "__main__":
    main()
