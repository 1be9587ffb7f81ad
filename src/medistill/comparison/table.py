"""The comparison itself: every seed, every budget, one table.

What is finished is kept and shared with `medistill run`, so a comparison that was interrupted, or that asks for one
method, budget or seed more, continues.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medistill import metrics, pipeline
from medistill.comparison.contenders import Contenders
from medistill.comparison.pages import write_pages
from medistill.comparison.question import Question, with_budget
from medistill.evaluate import Judged, commonest, judge_arms
from medistill.evidence import Compared, Comparison, Labels, Pretrained, Protocol
from medistill.files import write_json
from medistill.images import LabelledImages
from medistill.jobs import Progress
from medistill.pipeline import Run
from medistill.report.words import duration

_Key = tuple[str, Protocol, int | None]


@dataclass
class _Line:
    """What is known of a row so far, seed by seed; the networks themselves lie on disk."""

    architecture: str
    images: int
    labels: Labels
    rates: set[float] = field(default_factory=set)
    predictions: list[NDArray[np.float32]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    sent_bytes: list[int] = field(default_factory=list)

    def add(self, judged: Judged, sent_bytes: int) -> None:
        """What one more seed found."""
        self.rates.add(judged.rate)
        self.predictions += judged.predictions
        self.seconds += [network.seconds for network in judged.networks]
        self.sent_bytes.append(sent_bytes)


def compare(opened: Run, question: Question, progress: Progress) -> Comparison:
    """Fill the table, and leave it in OUT after every seed: comparison.json and its pages, see `write_pages`.

    Args:
        opened: a recipe with its images; its network is everybody's, and `evaluate.unseen` names others besides.
        question: which methods, how often, on which split.
        progress: told of everything.

    Raises:
        MedistillError: see the stages.
    """
    judged, split = pipeline.images_to_judge(opened, question.final)
    ipcs = question.ipcs or (opened.recipe.distill.ipc,)
    seeds = tuple(opened.recipe.seed + number for number in range(question.seeds))
    lines: dict[_Key, _Line] = {}
    pretrained: dict[Pretrained, None] = {}  # an encoder of all images serves every budget
    comparison, begun = None, time.monotonic()
    for number, seed in enumerate(seeds):
        seeded = opened.with_recipe(opened.recipe.model_copy(update={"seed": seed}))
        for ipc in ipcs:
            progress.say(f"Seed {number + 1} of {len(seeds)}, {ipc} images a class.")
            budgeted = seeded.with_recipe(with_budget(seeded.recipe, ipc))
            contenders = Contenders(budgeted, question, progress)
            found = judge_arms(pipeline.bench_of(budgeted), [each.arm for each in contenders.all], judged, progress)
            for each, said in zip(contenders.all, found, strict=True):
                key = (each.name, each.protocol, None if each.protocol == "full" else ipc)
                fresh = _Line(str(said.arm.architecture), len(said.arm.data), said.labels)
                if each.protocol != "full" or ipc == ipcs[0]:
                    lines.setdefault(key, fresh).add(said, each.sent_bytes)
            pretrained |= dict.fromkeys(contenders.pretrained)
        rows = [_floor(opened, judged, split)]
        rows += [_row(opened, key, line, judged, split) for key, line in _in_order(lines)]
        comparison = _comparison(opened, ipcs, seeds[: number + 1], len(judged), split, rows, tuple(pretrained))
        write_json(opened.out / "comparison.json", comparison.model_dump(mode="json"))
        write_pages(opened, comparison)
        if number + 1 < len(seeds):
            a_seed = (time.monotonic() - begun) / (number + 1)
            progress.say(
                f"The table so far is in {opened.out}; about {duration(a_seed * (len(seeds) - number - 1))} left."
            )
    assert comparison is not None
    return comparison


def _in_order(lines: dict[_Key, _Line]) -> list[tuple[_Key, _Line]]:
    """Budget by budget, all images last."""
    return sorted(lines.items(), key=lambda line: (line[0][2] is None, line[0][2] or 0))


def _floor(opened: Run, judged: LabelledImages, split: str) -> Compared:
    """Nothing is sent but a word: which class is the commonest."""
    train = opened.splits.train
    answer = [commonest(train, judged)]
    row = metrics.row("majority", "none", split, len(train), "hard", None, answer, judged, seed=0)
    return Compared(
        **row.model_dump(),
        protocol=None,
        ipc=None,
        sent_bytes=0,
        train_seconds=0,
        detail=metrics.detail(answer, judged),
    )


def _row(opened: Run, key: _Key, line: _Line, judged: LabelledImages, split: str) -> Compared:
    name, protocol, ipc = key
    row = metrics.row(
        name,
        line.architecture,
        split,
        line.images,
        line.labels,
        next(iter(line.rates)) if len(line.rates) == 1 else None,
        line.predictions,
        judged,
        opened.recipe.seed_for("evaluate/interval"),
    )
    return Compared(
        **row.model_dump(),
        protocol=protocol,
        ipc=ipc,
        sent_bytes=int(np.mean(line.sent_bytes)),
        train_seconds=float(np.mean(line.seconds)),
        detail=metrics.detail(line.predictions, judged),
    )


def _comparison(
    opened: Run,
    ipcs: tuple[int, ...],
    seeds: tuple[int, ...],
    judged_images: int,
    split: str,
    rows: Sequence[Compared],
    pretrained: tuple[Pretrained, ...],
) -> Comparison:
    return Comparison(
        title=opened.recipe.name,
        split=split,
        judged_images=judged_images,
        classes=opened.splits.train.class_names,
        ipcs=ipcs,
        seeds=seeds,
        selection="learning rates and distilled sets, by balanced accuracy on validation",
        test_reads=pipeline.test_readings(opened),
        data_fingerprint=opened.fingerprint,
        recipe_digest=opened.recipe.digest(),
        software=pipeline.software(),
        notes=opened.splits.notes,
        original_bytes=_original_bytes(opened),
        rows=tuple(rows),
        pretrained=pretrained,
    )


def _original_bytes(opened: Run) -> dict[str, int]:
    """The training images as they are in memory at the recipe's size; and the whole source as it lies on disk."""
    found = {"training images, 8 bits a pixel": opened.splits.train.pixels.nbytes}
    path = Path(opened.recipe.source.path or "")
    if path.is_file():
        found["source file, all splits"] = path.stat().st_size
    elif opened.recipe.source.path and path.is_dir():
        found["source folder, all splits"] = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return found
