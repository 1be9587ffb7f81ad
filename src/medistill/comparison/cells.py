"""What one method found with one seed at one budget, in a small file of its own.

A cell keeps what networks said of the judged images, as far as figures ask, and not the networks. So a table that takes
days is filled part by part, on one machine or on several that share nothing but the recipe and the images: bring the
files of OUT/cells together, and `compare` has only to train what no file has.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from medistill.baselines.encoders import PRETEXTS
from medistill.comparison.contenders import Contender, Contenders
from medistill.comparison.question import Question
from medistill.errors import StorageError
from medistill.evaluate import Judged
from medistill.evidence import Labels, Pretrained, Protocol
from medistill.files import digest, read_json, write_json
from medistill.metrics import Answers
from medistill.pipeline import Run

_DECIDE = ("source", "network", "teachers", "distill", "augment", "pretrain", "evaluate")


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
            images=len(judged.arm.data),
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

    The machine does not: what another one found counts, for it differs in rounding alone.

    Args:
        budgeted: the run, with the seed and the budget of its recipe.
        question: what transfer learns from.
        method: one of `METHODS`.
        split: what the judged images are called.
    """
    recipe = budgeted.recipe
    decide = [recipe.digest(*_DECIDE), budgeted.fingerprint, split]
    if method == "transfer":
        given = (question.natural, question.weights, question.timm)
        decide += ["" if each is None else Path(each).name for each in given]
    told = digest(json.dumps(decide).encode())[:12]
    return budgeted.out / "cells" / f"{method}-ipc{recipe.distill.ipc}-seed{recipe.seed}-{told}.json"


def cells_of(contenders: Contenders, judged: dict[str, list[Judged]], machine: str) -> dict[str, Cell]:
    """The cells of methods that were judged just now.

    Args:
        contenders: who took part, by method.
        judged: what was found, in the same order.
        machine: what computed it.
    """
    return {
        method: Cell(
            tuple(Finding.of(each, said) for each, said in zip(contenders.of[method], found, strict=True)),
            tuple(each for each in contenders.pretrained if each.method == method) if method in PRETEXTS else (),
            machine,
        )
        for method, found in judged.items()
    }


def keep(path: Path, cell: Cell) -> None:
    """Write a cell, whole or not at all.

    Raises:
        StorageError: the disk refused.
    """
    findings = [asdict(each) | {"answers": [answers.to_plain() for answers in each.answers]} for each in cell.findings]
    pretrained = [each.model_dump(mode="json") for each in cell.pretrained]
    write_json(path, {"findings": findings, "pretrained": pretrained, "machine": cell.machine})


def recall(path: Path) -> Cell | None:
    """The cell that `keep` wrote; None where there is none.

    Raises:
        StorageError: the file is damaged.
    """
    if not path.exists():
        return None
    plain = read_json(path)
    try:
        return Cell(
            tuple(
                Finding(**each | {"answers": tuple(Answers.from_plain(answers) for answers in each["answers"])})
                for each in plain["findings"]
            ),
            tuple(Pretrained.model_validate(each) for each in plain["pretrained"]),
            plain["machine"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"cells/{path.name} is damaged. Delete it and run the same command again.") from error
