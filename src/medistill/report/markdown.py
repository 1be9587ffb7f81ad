"""Tables as Markdown, to be pasted where people write."""

from collections.abc import Sequence
from typing import Literal

from medistill.evidence import Compared, Comparison, Cost, Figure, Helped, Interval, Study
from medistill.report import words

_HEAD = (
    "method",
    "saw",
    "images",
    "accuracy",
    "balanced accuracy",
    "95 % interval",
    "against {against}",
    "harmonic mean",
    "AUC",
    "sent",
    "training",
)

_COST_HEAD = ("images of", "images", "bytes", "of all")

_STUDY_HEAD = (
    "hospital B has",
    "own images a class",
    "accuracy",
    "balanced accuracy",
    "95 % interval",
    "AUC",
    "worth so many own a class",
    "sent",
)


def comparison_table(comparison: Comparison) -> str:
    """A line for every row, its figures in percent, mean and standard deviation over networks; then the same class by
    class, each with its 95 % interval, and costs."""
    seeds = ", ".join(map(str, comparison.seeds))
    networks = comparison.rows[-1].accuracy.n
    about = (
        f"{comparison.title}: {words.counted(comparison.judged_images, comparison.split + ' image')}, "
        f"mean ± sd of {words.counted(networks, 'network')} over seeds {seeds}."
    )
    head = tuple(name.format(against=_escaped(words.plain_name(comparison.against))) for name in _HEAD)
    lines = [f"at {name}" for name in comparison.costs[0].transmission_seconds]
    parts = [
        _escaped(about),
        _table(head, 3, [_cells(row) for row in comparison.rows]),
        "Harmonic mean: of each class's sensitivity and specificity.",
        *map(_escaped, words.remarks(comparison.rows)),
        "Class by class, one against the rest, in percent with 95 % intervals:",
        _class_table(comparison, "sensitivity"),
        _class_table(comparison, "specificity"),
        "Bytes to send, and their share of all training images as PNG files at the size that networks see:",
        _table((*_COST_HEAD, *lines), 1, [_cost_cells(cost) for cost in comparison.costs]),
    ]
    return "\n\n".join(parts) + "\n"


def _class_table(comparison: Comparison, kind: Literal["sensitivity", "specificity"]) -> str:
    """A line for every row but the commonest class: how much of each class it finds, or how much of the others it does
    not take for it."""
    lines = []
    for row in (each for each in comparison.rows_with_most if each.protocol):
        figures, intervals = getattr(row, kind), getattr(row.intervals, kind)
        told = (_share_cell(figures.get(name), intervals.get(name)) for name in comparison.classes)
        lines.append((_escaped(words.row_name(row)), *told))
    return _table((kind, *map(_escaped, comparison.classes)), 1, lines)


def _share_cell(figure: Figure | None, interval: Interval | None) -> str:
    """A share in whole percent with its interval; empty where no judged image was of the class."""
    if figure is None or interval is None:
        return ""
    return f"{100 * figure.mean:.0f} ({100 * interval.low:.0f} to {100 * interval.high:.0f})"


def study_table(study: Study) -> str:
    """A table for every way the images lie, in percent, mean and standard deviation over networks."""
    seeds = ", ".join(map(str, study.seeds))
    each = study.networks * len(study.seeds)
    parts = [_escaped(f"{study.title}: mean ± sd of {words.counted(each, 'network')} over seeds {seeds}.")]
    for scenario, judged in study.judged_images.items():
        title = f"{words.scenario_name(scenario)}; {words.counted(judged, study.split + ' image')}"
        rows = [_study_cells(row) for row in study.rows if row.scenario == scenario]
        parts.append(f"**{_escaped(title[0].upper() + title[1:])}**\n\n{_table(_STUDY_HEAD, 1, rows)}")
    return "\n\n".join(parts) + "\n"


def _table(head: tuple[str, ...], left: int, rows: Sequence[tuple[str, ...]]) -> str:
    """Lines of a table whose first columns are words."""
    lines = [head, ("---",) * left + ("---:",) * (len(head) - left), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _study_cells(row: Helped) -> tuple[str, ...]:
    interval = row.balanced_accuracy_interval
    return (
        _escaped(words.help_name(row.help, row.rounds)),
        str(row.own) if row.own else "none",
        words.percent(row.accuracy),
        words.percent(row.balanced_accuracy),
        f"{100 * interval.low:.1f} to {100 * interval.high:.1f}",
        words.percent(row.auc),
        words.worth_said(row.worth),
        words.size(row.sent_bytes) if row.sent_bytes else "nothing",
    )


def _cells(row: Compared) -> tuple[str, ...]:
    interval = row.balanced_accuracy_interval
    return (
        _escaped(words.plain_name(row.name)),
        words.images_seen(row),
        f"{row.images:,}",
        words.percent(row.accuracy),
        words.percent(row.balanced_accuracy),
        f"{100 * interval.low:.1f} to {100 * interval.high:.1f}",
        words.points(row.above),
        words.percent(row.harmonic_mean) if row.harmonic_mean else "",
        words.percent(row.auc),
        words.size(row.sent_bytes),
        words.duration(row.train_seconds),
    )


def _cost_cells(cost: Cost) -> tuple[str, ...]:
    return (
        _escaped(words.plain_name(cost.name)),
        "" if cost.images is None else f"{cost.images:,}",
        words.size(cost.size_bytes),
        words.share(cost.share),
        *map(words.duration, cost.transmission_seconds.values()),
    )


def _escaped(text: str) -> str:
    """The text with nothing in it that Markdown or a browser would take for more than text."""
    return "".join(f"&#{ord(letter)};" if letter in r"\`*_{}[]<>#|&!" else letter for letter in text)
