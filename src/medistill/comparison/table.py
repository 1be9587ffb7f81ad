"""The comparison itself: every seed, every budget, one table.

What is finished is kept, cell by cell (`cells.py`), and what goes into a cell is shared with `medistill run`. So a
comparison that was interrupted, or that asks for one method, budget or seed more, continues.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from medistill import intervals, metrics, pipeline
from medistill.comparison.cells import Cell, Finding, cell_path, keep, lacking, recall
from medistill.comparison.contenders import Contenders
from medistill.comparison.costs import costs, original_bytes
from medistill.comparison.pages import write_pages
from medistill.comparison.question import Question
from medistill.errors import MatchingError
from medistill.evaluate import Judged, commonest, judge_each, majority
from medistill.evidence import Compared, Comparison, Difference, Interval, Intervals, Pretrained, Protocol
from medistill.files import write_json
from medistill.images import LabelledImages
from medistill.jobs import Progress
from medistill.pipeline import Run
from medistill.report.words import duration

_Key = tuple[str, Protocol, int | None]


def compare(opened: Run, question: Question, progress: Progress) -> Comparison:
    """Fill the table, and leave it in OUT after every seed that something was made for, and at the end:
    comparison.json and its pages, see `write_pages`.

    Args:
        opened: a recipe with its images; its network is everybody's, and `evaluate.unseen` names others besides.
        question: which methods, how often, on which split.
        progress: told of everything.

    Raises:
        MedistillError: see the stages.
    """
    judged, split = pipeline.images_to_judge(opened, question.final, question.of_the_test_split)
    turns = question.turns(opened.recipe)
    ipcs = tuple(dict.fromkeys(turn.recipe.distill.ipc for turn in turns))
    seeds = tuple(dict.fromkeys(turn.recipe.seed for turn in turns))
    lines: dict[_Key, list[Finding]] = {}
    pretrained: dict[Pretrained, None] = {}  # an encoder of all images serves every budget
    machines: dict[str, None] = {}
    originals = original_bytes(opened)
    comparison = None
    waiting = {turn.recipe.seed for turn in lacking(opened, question)}
    taken: list[float] = []  # seconds of every seed that was waited for
    for number, seed in enumerate(seeds):
        begun = time.monotonic()
        for turn in (each for each in turns if each.recipe.seed == seed):
            ipc = turn.recipe.distill.ipc
            progress.say(f"Seed {number + 1} of {len(seeds)}, {ipc} images a class.")
            budgeted = opened.with_recipe(turn.recipe)
            for cell in _cells(budgeted, question, turn.methods, judged, split, progress):
                pretrained |= dict.fromkeys(cell.pretrained)
                machines[cell.machine] = None
                for each in cell.findings:
                    key = (each.name, each.protocol, None if each.protocol == "full" else ipc)
                    lines.setdefault(key, []).append(each)
        if seed not in waiting and number + 1 < len(seeds):
            continue  # all of it was kept: one table of what comes next will do
        rows = [_floor(opened, judged, split), *_rows(opened, question.against, lines, judged, split)]
        comparison = _comparison(
            opened,
            question.against,
            ipcs,
            seeds[: number + 1],
            len(judged),
            split,
            rows,
            originals,
            tuple(pretrained),
            tuple(machines),
        )
        write_json(opened.out / "comparison.json", comparison.model_dump(mode="json"))
        write_pages(opened, comparison)
        if seed in waiting:
            waiting.remove(seed)
            taken.append(time.monotonic() - begun)
        if waiting:
            left = f"; about {duration(float(np.mean(taken)) * len(waiting))} left" if taken else ""
            progress.say(f"The table so far is in {opened.out}{left}.")
    assert comparison is not None
    return comparison


def _cells(
    budgeted: Run, question: Question, methods: Sequence[str], judged: LabelledImages, split: str, progress: Progress
) -> list[Cell]:
    """The cell of every method; those that are not kept yet are made, trained together, and kept as each is judged.

    Raises:
        MatchingError: a distillation failed or networks diverged; the cells of all other methods are kept by then.
    """
    paths = {name: cell_path(budgeted, question, name, split) for name in methods}
    networks = budgeted.recipe.evaluate.networks
    kept = {name: recall(path, name, judged, networks) for name, path in paths.items()}
    cells = {name: cell for name, cell in kept.items() if cell is not None}
    missing = tuple(method for method in paths if method not in cells)
    if missing:
        contenders = Contenders(budgeted, replace(question, methods=missing), progress)
        arms = [each.arm for of_method in contenders.of.values() for each in of_method]
        found = judge_each(pipeline.bench_of(budgeted), arms, judged, progress)
        failed = contenders.failed
        for method, of_method in contenders.of.items():
            said = [next(found) for _ in of_method]
            whole = [each for each in said if isinstance(each, Judged)]
            failed += [each for each in said if isinstance(each, MatchingError)]
            if len(whole) < len(said):
                continue
            findings = tuple(map(Finding.of, of_method, whole))
            pretrained = tuple(each for each in contenders.pretrained if each.method == method)
            cells[method] = Cell(findings, pretrained, pipeline.machine(budgeted))
            keep(paths[method], cells[method])
        if failed:
            raise failed[0]
    return [cells[method] for method in paths]


def _rows(
    opened: Run, against: str, lines: Mapping[_Key, Sequence[Finding]], judged: LabelledImages, split: str
) -> Iterator[Compared]:
    """Every line's row, held against the line it is to be held against."""
    seed = opened.recipe.seed_for("evaluate/interval")
    draws, others = {}, {}
    for key, line in lines.items():
        said = [each.answers for each in line]
        drawn = intervals.draws_of_shares([[each.guess for each in repetition] for repetition in said], judged, seed)
        draws[key], others[key] = drawn.balanced_accuracy, intervals.intervals_of(drawn, said, judged, seed)
    for key, line in _in_order(lines):
        reference = _reference(opened, against, key, lines)
        above = None if reference is None else intervals.difference(draws[key], draws[reference])
        yield _row(key, line, intervals.interval_of(draws[key]), others[key], above, judged, split)


def _in_order(lines: Mapping[_Key, Sequence[Finding]]) -> list[tuple[_Key, Sequence[Finding]]]:
    """Budget by budget, all images last."""
    return sorted(lines.items(), key=lambda line: (line[0][2] is None, line[0][2] or 0))


def _floor(opened: Run, judged: LabelledImages, split: str) -> Compared:
    """Nothing is sent but a word: which class is the commonest."""
    train = opened.splits.train
    said = commonest(train, judged)
    drawn = intervals.draws_of_shares([[said.guess]], judged, seed=0)
    return Compared(
        **majority(train, judged, split).model_dump(),
        protocol=None,
        ipc=None,
        sent_bytes=0,
        train_seconds=0,
        above=None,
        detail=metrics.detail([said], judged),
        intervals=intervals.intervals_of(drawn, [[said]], judged, seed=0),
    )


def _reference(opened: Run, against: str, key: _Key, lines: Mapping[_Key, Sequence[Finding]]) -> _Key | None:
    """What a line is held against: the row of that name on the same network, at the same budget or of all images."""
    architecture = lines[key][0].architecture
    own = architecture == opened.recipe.network.architecture
    wanted = against if own else f"{against}-{architecture}"
    found = {ipc: (name, protocol, ipc) for name, protocol, ipc in lines if name == wanted}
    reference = found.get(key[2], found.get(None))
    return None if reference == key else reference


def _row(
    key: _Key,
    line: Sequence[Finding],
    interval: Interval,
    others: Intervals,
    above: Difference | None,
    judged: LabelledImages,
    split: str,
) -> Compared:
    name, protocol, ipc = key
    rates = {each.rate for each in line}
    answers = [each.answers for each in line]
    row = metrics.row(
        name,
        line[0].architecture,
        split,
        line[0].images,
        line[0].labels,
        rates.pop() if len(rates) == 1 else None,
        answers,
        judged,
        interval,
    )
    return Compared(
        **row.model_dump(),
        protocol=protocol,
        ipc=ipc,
        sent_bytes=int(np.mean([each.sent_bytes for each in line])),
        train_seconds=float(np.mean([each.seconds for each in line])),
        above=above,
        detail=metrics.detail([said for each in answers for said in each], judged),
        intervals=others,
    )


def _comparison(
    opened: Run,
    against: str,
    ipcs: tuple[int, ...],
    seeds: tuple[int, ...],
    judged_images: int,
    split: str,
    rows: Sequence[Compared],
    originals: Mapping[str, int],
    pretrained: tuple[Pretrained, ...],
    machines: tuple[str, ...],
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
        machines=machines,
        against=against,
        notes=opened.splits.notes,
        rows=tuple(rows),
        costs=costs(rows, originals),
        pretrained=pretrained,
    )
