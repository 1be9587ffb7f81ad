"""Figures of a comparison: methods family by family, so that a reader can tell a handful of lines apart."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from medistill.evidence import Compared, Cost, Protocol
from medistill.report.drawing import COLORS, HUES, canvas, svg
from medistill.report.words import architecture_name, method_of, plain_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

_REAL = ("random", "scratch", "herding", "k-center")
_DISTILLED = ("soft-label", "dm", "dsa", "mtt", "pruned")
_PRETRAINED = ("byol", "simsiam", "skd", "mae")


class _Family(NamedTuple):
    """Methods that share a panel, and the row beside which they are seen, where it is none of them."""

    title: str
    methods: tuple[str, ...]
    protocol: Protocol
    beside: str = ""


_FAMILIES = (
    _Family("Few real images", _REAL, "budget"),
    _Family("Distilled images", _DISTILLED, "budget"),
    _Family("Pre-trained on the few", _PRETRAINED, "budget", "scratch"),
    _Family("Pre-trained on all, unlabelled", _PRETRAINED, "unlabelled", "scratch"),
    _Family("Pre-trained elsewhere", ("transfer",), "budget", "scratch"),
)
_FEWEST = 0.01  # of the answers, in a dot of the calibration: fewer say more of chance than of networks
_LEAST_GAP = 0.045  # of the height, between two labels
_RIGHT = 1.02  # of the width, where labels stand


def is_distilled(row: Compared | Cost) -> bool:
    """Whether a row's images are synthetic."""
    return method_of(row.name) in _DISTILLED


def sent(rows: Sequence[Compared]) -> list[Compared]:
    """The rows whose networks need nothing but what is sent: few images, real or synthetic, or all of them."""
    return [row for row in rows if method_of(row.name) in (*_REAL, *_DISTILLED) or row.protocol == "full"]


def roc_curves(rows: Sequence[Compared]) -> str:
    """Draw how many true positives come with how many false ones, one class against the rest, classes averaged.

    Args:
        rows: of one budget; all images with balanced sampling are a dashed line in every panel of their network.
    """

    def line(axes: "Axes", rows: Sequence[Compared], style: "_Style") -> None:
        for row in rows:
            false = np.linspace(0, 100, len(row.detail.roc))
            true = 100 * np.array(row.detail.roc)
            axes.plot(false, true, style.dashes, color=style.color, linewidth=1.4, label=style.label)

    with _panels("roc-curves", rows, line) as (figure, panels):
        _square(panels, "false positives (%)", "true positives (%)")
        return svg(figure, "ROC curves of the methods")


def calibration_curves(rows: Sequence[Compared]) -> str:
    """Draw how often networks are right when they are so sure: on the diagonal, confidence can be believed.

    A bin with less than a hundredth of the answers has no dot.

    Args:
        rows: of one budget; all images with balanced sampling are a dashed line in every panel of their network.
    """

    def line(axes: "Axes", rows: Sequence[Compared], style: "_Style") -> None:
        for row in rows:
            confidence, right = 100 * np.array([dot[:2] for dot in row.detail.calibration if dot[2] >= _FEWEST]).T
            axes.plot(
                confidence,
                right,
                style.dashes,
                color=style.color,
                linewidth=1.4,
                marker="o",
                markersize=3,
                label=style.label,
            )

    with _panels("calibration-curves", rows, line) as (figure, panels):
        _square(panels, "confidence (%)", "right (%)")
        return svg(figure, "Calibration of the methods")


def growth_curves(rows: Sequence[Compared]) -> str:
    """Draw balanced accuracy over images a class, with a standard deviation to either side.

    Args:
        rows: of several budgets; all images with balanced sampling are a dashed line in every panel of their network.
    """

    def line(axes: "Axes", rows: Sequence[Compared], style: "_Style") -> None:
        y = [100 * row.balanced_accuracy.mean for row in rows]
        x = [row.ipc for row in rows if row.ipc]
        if not x:
            axes.axhline(y[0], color=style.color, linewidth=1, linestyle=style.dashes, label=style.label)
            return
        sd = [100 * row.balanced_accuracy.sd for row in rows]
        axes.errorbar(
            x, y, sd, color=style.color, linestyle=style.dashes, marker="o", markersize=4, capsize=3, label=style.label
        )

    budgets = sorted({row.ipc for row in rows if row.ipc})
    with _panels("growth-curves", rows, line, same_height=True) as (figure, panels):
        for axes in panels:
            axes.set_xscale("log")
            axes.set_xticks(budgets, [str(ipc) for ipc in budgets])
            axes.minorticks_off()
            axes.set_xlabel("labelled images a class")
            axes.set_ylabel("balanced accuracy (%)")
            _legend(axes, "best")
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


class _Style(NamedTuple):
    """How a line looks, and what the legend calls it."""

    color: str
    dashes: str
    label: str


@contextmanager
def _panels(
    name: str,
    rows: Sequence[Compared],
    line: "Callable[[Axes, Sequence[Compared], _Style], None]",
    same_height: bool = False,
) -> "Iterator[tuple[Canvas, list[Axes]]]":
    """A figure with a panel for each family and network that has a row, so that nothing but methods differs in one.

    A panel has a line for every method, fine-tuned; dashed, all images with balanced sampling; dotted, what the family
    is seen beside.
    """
    networks = list(dict.fromkeys(row.architecture for row in rows if row.protocol))
    found = [
        (family, network)
        for family in _FAMILIES
        for network in networks
        if any(_found(rows, method, family.protocol, network) for method in family.methods)
    ]
    columns = min(2, max(len(found), 1))
    lines = -(-max(len(found), 1) // columns)
    with canvas(name, 9, 4.2 * lines) as figure:
        panels = figure.subplots(lines, columns, squeeze=False, sharey=same_height)
        for axes in panels.flat[len(found) :]:
            axes.set_axis_off()
        drawn = list(panels.flat[: len(found)])
        for axes, (family, network) in zip(drawn, found, strict=True):
            own = ((method, family.protocol, color, "-") for method, color in zip(family.methods, HUES, strict=False))
            ink = COLORS["ink"]
            for method, protocol, color, dashes in (
                ("full-balanced", "full", ink, "--"),
                (family.beside, "budget", ink, ":"),
                *own,
            ):
                if members := _found(rows, method, protocol, network):
                    line(axes, members, _Style(color, dashes, plain_name(members[0].name)))
            axes.set_title(family.title if len(networks) == 1 else f"{family.title}, {architecture_name(network)}")
        yield figure, drawn


def _found(rows: Sequence[Compared], method: str, protocol: str, network: str) -> list[Compared]:
    """A method's rows on a network, one for each budget."""
    wanted = (method, protocol, network)
    return [row for row in rows if (method_of(row.name), row.protocol, row.architecture) == wanted]


def _square(panels: "Sequence[Axes]", x_label: str, y_label: str) -> None:
    """Percent against percent, with the diagonal."""
    for axes in panels:
        axes.plot((0, 100), (0, 100), color=COLORS["line"], linewidth=1, zorder=1)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        _legend(axes, "lower right")


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


def _legend(axes: "Axes", place: Literal["best", "lower right"]) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc=place, frameon=False, fontsize=8)
