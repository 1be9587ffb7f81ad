"""Figures of a comparison: methods family by family, so that a reader can tell a handful of lines apart."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from medistill.evidence import Compared, Cost, Protocol
from medistill.report.drawing import COLORS, HUES, canvas, svg
from medistill.report.words import plain_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_REAL = ("random", "scratch", "herding", "k-center")
_DISTILLED = ("soft-label", "dm", "dsa", "mtt", "pruned")
_PRETRAINED = ("byol", "simsiam", "skd", "mae")
_FAMILIES: tuple[tuple[str, tuple[str, ...], Protocol], ...] = (
    ("Few real images", _REAL, "budget"),
    ("Distilled images", _DISTILLED, "budget"),
    ("Pre-trained on the few", _PRETRAINED, "budget"),
    ("Pre-trained on all, unlabelled", _PRETRAINED, "unlabelled"),
    ("Pre-trained elsewhere", ("transfer",), "budget"),
)
_FEWEST = 0.01  # of the answers, in a dot of the calibration: fewer say more of chance than of networks
_LEAST_GAP = 0.045  # of the height, between two labels
_RIGHT = 1.02  # of the width, where labels stand


def is_distilled(row: Compared | Cost) -> bool:
    """Whether a row's images are synthetic."""
    return _method(row) in _DISTILLED


def sent(rows: Sequence[Compared]) -> list[Compared]:
    """The rows whose networks need nothing but what is sent: few images, real or synthetic, or all of them."""
    return [row for row in rows if _method(row) in (*_REAL, *_DISTILLED) or row.protocol == "full"]


def roc_curves(rows: Sequence[Compared]) -> str:
    """Draw how many true positives come with how many false ones, one class against the rest, classes averaged.

    Args:
        rows: of one budget; all images with balanced sampling are a dashed line in every panel.
    """

    def curve(axes: "Axes", row: Compared, color: str, dashes: str) -> None:
        false = np.linspace(0, 100, len(row.detail.roc))
        axes.plot(false, 100 * np.array(row.detail.roc), dashes, color=color, linewidth=1.4, label=plain_name(row.name))

    return _by_family(
        rows, curve, "false positives (%)", "true positives (%)", (0, 100), "ROC curves of the methods", "roc-curves"
    )


def calibration_curves(rows: Sequence[Compared]) -> str:
    """Draw how often networks are right when they are so sure: on the diagonal, confidence can be believed.

    A bin with less than a hundredth of the answers has no dot.

    Args:
        rows: of one budget; all images with balanced sampling are a dashed line in every panel.
    """

    def curve(axes: "Axes", row: Compared, color: str, dashes: str) -> None:
        confidence, right = 100 * np.array([dot[:2] for dot in row.detail.calibration if dot[2] >= _FEWEST]).T
        axes.plot(
            confidence, right, dashes, color=color, linewidth=1.4, marker="o", markersize=3, label=plain_name(row.name)
        )

    return _by_family(
        rows, curve, "confidence (%)", "right (%)", (0, 100), "Calibration of the methods", "calibration-curves"
    )


def growth_curves(rows: Sequence[Compared]) -> str:
    """Draw balanced accuracy over images a class, with a standard deviation to either side.

    Args:
        rows: of several budgets; all images with balanced sampling are a dashed line in every panel.
    """
    ceiling = _ceiling(rows)
    with canvas("growth-curves", 9, 9.6) as figure:
        panels = figure.subplots(3, 2, sharex=True, sharey=True)
        for axes in panels.flat[len(_FAMILIES) :]:
            axes.set_axis_off()
        for axes, (title, methods, protocol) in zip(panels.flat, _FAMILIES, strict=False):
            for color, method in zip(HUES, methods, strict=False):
                members = [row for row in rows if (_method(row), row.protocol) == (method, protocol) and row.ipc]
                if members:
                    x = [row.ipc for row in members]
                    y = [100 * row.balanced_accuracy.mean for row in members]
                    sd = [100 * row.balanced_accuracy.sd for row in members]
                    axes.errorbar(
                        x, y, sd, color=color, marker="o", markersize=4, capsize=3, label=plain_name(members[0].name)
                    )
            if ceiling:
                axes.axhline(100 * ceiling.balanced_accuracy.mean, color=COLORS["ink"], linewidth=1, linestyle="--")
            axes.set_title(title)
            axes.set_xscale("log")
            budgets = sorted({row.ipc for row in rows if row.ipc})
            axes.set_xticks(budgets, [str(ipc) for ipc in budgets])
            axes.minorticks_off()
            _legend(axes, "best")
        for axes in panels[-1]:
            axes.set_xlabel("labelled images a class")
        for axes in panels[:, 0]:
            axes.set_ylabel("balanced accuracy (%)")
        return svg(figure, "Balanced accuracy over images a class")


def accuracy_for_bytes(rows: Sequence[Compared]) -> str:
    """Draw balanced accuracy over the bytes that had to be sent for it; methods of several budgets are lines.

    Args:
        rows: of any budget; those that need more than what is sent are left out.
    """
    from matplotlib.ticker import StrMethodFormatter

    lines: dict[str, list[Compared]] = {}
    for row in sent(rows):
        lines.setdefault(row.name, []).append(row)
    with canvas("accuracy-for-bytes", 9, 5) as figure:
        axes = figure.subplots()
        axes.set_xscale("log")
        ends = []
        for name, members in lines.items():
            members.sort(key=lambda row: row.sent_bytes)
            color = COLORS["accent" if is_distilled(members[0]) else "muted"]
            kilobytes = [row.sent_bytes / 1000 for row in members]
            percents = [100 * row.balanced_accuracy.mean for row in members]
            axes.plot(kilobytes, percents, color=color, marker="o", markersize=5, linewidth=1)
            ends.append((percents[-1], kilobytes[-1], plain_name(name), color))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axes.margins(x=0.08, y=0.08)
        axes.set_xlabel("bytes sent (kB)")
        axes.set_ylabel("balanced accuracy (%)")
        low, high = axes.get_ylim()
        heights = _apart([(end[0] - low) / (high - low) for end in ends], _LEAST_GAP)
        for height, (percent, kilobyte, name, color) in zip(heights, ends, strict=True):
            axes.annotate(
                name,
                (kilobyte, percent),
                (_RIGHT, height),
                textcoords="axes fraction",
                va="center",
                color=color,
                annotation_clip=False,
                arrowprops={"arrowstyle": "-", "color": COLORS["line"], "linewidth": 0.7},
            )
        return svg(figure, "Balanced accuracy over bytes sent")


def _by_family(
    rows: Sequence[Compared],
    curve: "Callable[[Axes, Compared, str, str], None]",
    x_label: str,
    y_label: str,
    limits: tuple[float, float],
    title: str,
    name: str,
) -> str:
    """A square panel for each family that has a row, with fine-tuned networks' lines and the ceiling's."""
    ceiling = _ceiling(rows)
    found = [
        (words, [row for method in methods for row in rows if (_method(row), row.protocol) == (method, protocol)])
        for words, methods, protocol in _FAMILIES
    ]
    families = [(words, members) for words, members in found if members]
    columns = min(2, max(len(families), 1))
    lines = -(-max(len(families), 1) // columns)
    with canvas(name, 9, 4.2 * lines) as figure:
        panels = figure.subplots(lines, columns, squeeze=False)
        for axes in panels.flat[len(families) :]:
            axes.set_axis_off()
        for axes, (words, members) in zip(panels.flat, families, strict=False):
            axes.plot(limits, limits, color=COLORS["line"], linewidth=1)
            if ceiling:
                curve(axes, ceiling, COLORS["ink"], "--")
            for color, row in zip(HUES, members, strict=False):
                curve(axes, row, color, "-")
            axes.set_title(words)
            axes.set_xlim(*limits)
            axes.set_ylim(*limits)
            axes.set_xlabel(x_label)
            axes.set_ylabel(y_label)
            _legend(axes, "lower right")
        return svg(figure, title)


def _apart(heights: Sequence[float], least: float) -> list[float]:
    """The heights moved so far that neighbours keep a distance, in the order given."""
    order = np.argsort(heights)
    moved = np.array(heights)[order]
    for index in range(1, len(moved)):
        moved[index] = max(moved[index], moved[index - 1] + least)
    if len(moved):
        moved -= max(0.0, moved[-1] - 1)
    for index in range(len(moved) - 2, -1, -1):
        moved[index] = min(moved[index], moved[index + 1] - least)
    placed = np.empty_like(moved)
    placed[order] = moved
    return list(placed.tolist())


def _ceiling(rows: Sequence[Compared]) -> Compared | None:
    return next((row for row in rows if row.name == "full-balanced"), None)


def _method(row: Compared | Cost) -> str:
    """What a row is called before a remark in brackets."""
    return row.name.partition(" (")[0]


def _legend(axes: "Axes", place: Literal["best", "lower right"]) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc=place, frameon=False, fontsize=8)
