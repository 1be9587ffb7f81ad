"""What one method found with one seed at one budget, in a small file of its own.

A cell keeps what networks said of the judged images, as far as figures ask, and not the networks. So a table that takes
days is filled part by part, on one machine or on several that share nothing but the recipe and the images: bring the
files of OUT/cells together, and `compare` has only to train what no file has.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from medistill import __version__, pipeline
from medistill.baselines.encoders import PRETEXTS
from medistill.comparison.contenders import Contender
from medistill.comparison.question import OBJECTIVES, Question, Turn, with_objective
from medistill.errors import StorageError
from medistill.evaluate import Judged
from medistill.evidence import Labels, Pretrained, Protocol
from medistill.files import digest, read_json, write_json
from medistill.images import LabelledImages
from medistill.metrics import Answers
from medistill.pipeline import Run
from medistill.recipe import FOLLOW_TEACHERS, Recipe
from medistill.sources.opening import split_off

_DECIDE_FOR_ALL = ("source", "network", "augment", "evaluate")
_BUDGET = ("ipc", "ipc_power")
OF_TRAJECTORIES = frozenset(
    {
        *("expert_epochs", "min_start_epoch", "first_max_start_epoch", "window_steps", "threshold", "similarity"),
        *("easy_error", "easy_growth", "easy_growth_every", "angle_weight", "importance_rate", "label_start"),
    }
)
"""The settings of distillation that only those objectives read which follow teachers."""


@dataclass(frozen=True)
class Finding:
    """A row of the table as far as one seed and one budget go; see `evidence.Compared`.

    `rate` is what the search chose, `seconds` the mean wall time of training one network.
    """

    name: str
    protocol: Protocol
    architecture: str
    images: int
    labels: Labels
    rate: float
    seconds: float
    sent_bytes: int
    answers: tuple[Answers, ...]

    @classmethod
    def of(cls, contender: Contender, judged: Judged) -> "Finding":
        """What judging a contender found."""
        return cls(
            name=contender.name,
            protocol=contender.protocol,
            architecture=str(judged.arm.architecture),
            images=judged.arm.data.image_count,
            labels=judged.labels,
            rate=judged.rate,
            seconds=float(np.mean([network.seconds for network in judged.networks])),
            sent_bytes=contender.sent_bytes,
            answers=judged.answers,
        )


@dataclass(frozen=True)
class Cell:
    """All rows of a method, how its encoders came about, and what computed them."""

    findings: tuple[Finding, ...]
    pretrained: tuple[Pretrained, ...]
    machine: str


def cell_path(budgeted: Run, question: Question, method: str, split: str) -> Path:
    """Where the cell of a method lies; its name ends with a digest of all that decides what is in it.

    The machine and its precision do not: what another one found counts, as one more seed there would, and the cell says
    what computed it.

    Args:
        budgeted: the run, with the seed and the budget of its recipe.
        question: what transfer learns from.
        method: one of `METHODS`.
        split: what the judged images are called.
    """
    recipe = budgeted.recipe
    decide = [__version__, recipe.seed, _decisive(recipe, method), budgeted.fingerprint, split]
    if method == "transfer":
        decide += [_identity(question.natural), _identity(question.weights), question.timm]
    told = digest(json.dumps(decide, sort_keys=True).encode())[:12]
    budget = "" if method == "full" else f"-ipc{recipe.distill.ipc}"
    return budgeted.out / "cells" / f"{method}{budget}-seed{recipe.seed}-{told}.json"


def _decisive(recipe: Recipe, method: str) -> dict[str, Any]:
    """The settings that decide what a method finds: where another's are changed, its cells stay what they are.

    Args:
        recipe: with the seed and the budget of the cell.
        method: one of `METHODS`.
    """
    objective = next((each for each in OBJECTIVES if each == method), None)
    settings = (with_objective(recipe, objective) if objective else recipe).public()
    decide = {name: settings[name] for name in _DECIDE_FOR_ALL}
    if method == "full":
        return decide
    distill = settings["distill"]
    if method in PRETEXTS:
        decide["pretrain"] = settings["pretrain"]
    if objective is None:
        distill = {key: distill[key] for key in _BUDGET}
    elif objective in FOLLOW_TEACHERS:
        decide["teachers"] = settings["teachers"]
    else:
        distill = {key: value for key, value in distill.items() if key not in OF_TRAJECTORIES}
    return decide | {"distill": distill}


def lacking(opened: Run, question: Question) -> list[Turn]:
    """The turns that are still to be taken, each with the methods that no file answers."""
    split = pipeline.split_to_judge(question.final)
    turns = []
    for turn in question.turns(opened.recipe):
        run = opened.with_recipe(turn.recipe)
        paths = {name: cell_path(run, question, name, split) for name in turn.methods}
        turns.append(replace(turn, methods=tuple(name for name, path in paths.items() if not path.exists())))
    return [turn for turn in turns if turn.methods]


def _identity(given: str | None) -> str:
    """What a file contains, wherever it lies, or the names and sizes in a folder; a word such as `hub` is itself."""
    if given is None:
        return ""
    source, split = split_off(given)
    path = Path(source).expanduser()
    if path.is_file():
        told = digest(path.read_bytes())
    elif path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        told = digest("\n".join(f"{file.relative_to(path)} {file.stat().st_size}" for file in files).encode())
    else:
        told = source
    return told if split is None else f"{told}#{split}"


def keep(path: Path, cell: Cell) -> None:
    """Write a cell, whole or not at all.

    Raises:
        StorageError: the disk refused.
    """
    findings = [vars(each) | {"answers": [answers.to_plain() for answers in each.answers]} for each in cell.findings]
    pretrained = [each.model_dump(mode="json") for each in cell.pretrained]
    write_json(path, {"findings": findings, "pretrained": pretrained, "machine": cell.machine})


def recall(path: Path, method: str, judged: LabelledImages, networks: int) -> Cell | None:
    """The cell that `keep` wrote; None where there is none.

    Args:
        path: where it would lie.
        method: whose it is.
        judged: the images that its networks were asked about.
        networks: how many of each row were asked.

    Raises:
        StorageError: the file is damaged.
    """
    if not path.exists():
        return None
    plain = read_json(path)
    try:
        cell = Cell(
            tuple(
                Finding(**each | {"answers": tuple(Answers.from_plain(answers) for answers in each["answers"])})
                for each in plain["findings"]
            ),
            tuple(Pretrained.model_validate(each) for each in plain["pretrained"]),
            plain["machine"],
        )
        _check(cell, method, judged, networks)
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"cells/{path.name} is damaged. Delete it and run the same command again.") from error
    return cell


def _check(cell: Cell, method: str, judged: LabelledImages, networks: int) -> None:
    """Refuse, with a ValueError, what this method's networks cannot have said: a cell may come from anywhere."""
    names = (method, "scratch") if method == "mae" else (method,)
    if not cell.findings or not isinstance(cell.machine, str):
        raise ValueError("no rows, or no machine")
    for each in cell.findings:
        numbers = (each.rate, each.seconds, each.sent_bytes, each.images)
        if not (each.name.startswith(names) and each.labels in get_args(Labels) and len(each.answers) == networks):
            raise ValueError("a row of another method or of other networks")
        if not (np.isfinite(numbers).all() and min(numbers) >= 0 < each.rate):
            raise ValueError("a figure that is none")
        for said in each.answers:
            if said.guess.shape != judged.labels.shape or not said.guess.max() < len(judged.class_names):
                raise ValueError("answers about other images or classes")
            if not (0 <= said.auc <= 1 and np.isfinite(said.roc).all() and np.isfinite(said.bins).all()):
                raise ValueError("a figure that is none")
