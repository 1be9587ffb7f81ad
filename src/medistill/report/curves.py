"""Figures as inline SVG: how distillation went, and what its images are worth.

Colors become CSS variables with a fallback, so one figure serves light and dark pages and paper; two hues of Okabe and
Ito (2008) stay apart for every kind of color vision. The text stays text. Nothing in the SVG depends on the clock, on
the machine's matplotlib settings, or on the network.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medistill.evidence import Utility
from medistill.report.words import percent, plain_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

_COLORS = {"ink": "#17212b", "muted": "#5b6873", "line": "#d9e0e6", "accent": "#0072b2", "second": "#d55e00"}
_FONT = "DejaVu Sans"
_STYLE = {
    "svg.fonttype": "none",
    "font.family": [_FONT],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": _COLORS["ink"],
    "axes.labelcolor": _COLORS["muted"],
    "axes.edgecolor": _COLORS["line"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": _COLORS["line"],
    "grid.linewidth": 0.6,
    "text.color": _COLORS["ink"],
    "text.parse_math": False,
    "xtick.color": _COLORS["line"],
    "ytick.color": _COLORS["line"],
    "xtick.labelcolor": _COLORS["muted"],
    "ytick.labelcolor": _COLORS["muted"],
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}
_STRETCHES = 20


def learning_curves(log: Sequence[Mapping[str, Any]], selected_step: int | None) -> str:
    """Draw how distillation went, over outer steps: loss, selections, kept fraction and inner rate.

    The thin line of the loss is its value, the thick one a moving mean. A dashed line marks the selected step. A panel
    without a single value says "not recorded".

    Args:
        log: what each outer step did, with the keys of `medistill.distill.Outcome`; a value may be None.
        selected_step: the step whose images were kept, or None where nobody selected.
    """
    from matplotlib import style
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import MaxNLocator

    with style.context(["default", _STYLE | {"svg.hashsalt": "learning-curves"}]):
        canvas = Canvas(figsize=(9, 5.4), layout="constrained")
        loss, validation, kept, rate = canvas.subplots(2, 2).flat

        steps, values = _curve(log, "value")
        loss.plot(steps, values, color=_COLORS["accent"], linewidth=0.7, alpha=0.45)
        loss.plot(steps, _smoothed(values), color=_COLORS["accent"], linewidth=2)
        _label(loss, "Matching loss", "loss (no unit)", steps)

        steps, values = _curve(log, "validation", unit=100)
        validation.plot(steps, values, color=_COLORS["accent"], linewidth=1.4, marker="o", markersize=4)
        chosen = steps == selected_step
        validation.plot(
            steps[chosen], values[chosen], color=_COLORS["second"], marker="o", markersize=9, linestyle="none"
        )
        _label(validation, "Selection on validation", "balanced accuracy (%)", steps)

        steps, values = _curve(log, "kept", unit=100)
        kept.plot(steps, values, color=_COLORS["accent"], linewidth=1.4)
        kept.set_ylim(0, 105)
        _label(kept, "Parameters kept in the match", "kept (%)", steps)

        steps, values = _curve(log, "inner_rate")
        rate.plot(steps, values, color=_COLORS["accent"], linewidth=1.4)
        _label(rate, "Inner rate", "learning rate (no unit)", steps)

        last = max((int(entry["step"]) for entry in log), default=0)
        for panel in (loss, validation, kept, rate):
            panel.set_xlim(-0.02 * max(last, 1), 1.02 * max(last, 1))
            panel.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
            if selected_step is not None:
                panel.axvline(selected_step, color=_COLORS["second"], linewidth=1, linestyle=(0, (4, 3)))
        return _svg(canvas, "Learning curves over the outer steps of distillation")


def utility_bars(utility: Utility) -> str:
    """Draw balanced accuracy row by row: a dot for the mean, a bar for one standard deviation to either side.

    A row that merely repeats another is left out; one network shows no bar.
    """
    from matplotlib import style
    from matplotlib.figure import Figure as Canvas

    rows = [row for row in utility.rows if row.same_as is None or utility.row(row.same_as) is None]
    with style.context(["default", _STYLE | {"svg.hashsalt": "utility-bars"}]):
        canvas = Canvas(figsize=(9, 0.9 + 0.34 * len(rows)), layout="constrained")
        axes = canvas.subplots()
        for place, row in enumerate(rows):
            figure = row.balanced_accuracy
            distilled = row.name.startswith("distilled")
            color = _COLORS["accent" if distilled else "muted"]
            axes.hlines(place, 0, 100 * figure.mean, color=color, linewidth=1.2, alpha=0.5)
            if figure.n > 1:
                axes.errorbar(100 * figure.mean, place, xerr=100 * figure.sd, color=color, elinewidth=2.2, capsize=4)
            axes.plot(100 * figure.mean, place, "o", color=color, markersize=6)
            weight = "bold" if distilled else "normal"
            axes.text(
                1.02, place, percent(figure), transform=axes.get_yaxis_transform(), va="center_baseline", weight=weight
            )
        axes.set_yticks(range(len(rows)), [plain_name(row.name) for row in rows])
        axes.tick_params(axis="y", labelcolor=_COLORS["ink"], length=0)
        axes.grid(visible=False, axis="y")
        axes.spines.left.set_visible(False)
        axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
        axes.set_xlim(0, 100)
        axes.set_xlabel(f"balanced accuracy on {utility.split} (%)")
        return _svg(canvas, "Balanced accuracy by training set")


def _curve(
    log: Sequence[Mapping[str, Any]], key: str, unit: float = 1
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Steps and values of one key, without the steps that have none."""
    points = [(entry["step"], entry[key]) for entry in log if entry.get(key) is not None]
    steps, values = np.array(points, dtype=np.float64).reshape(-1, 2).T
    return steps, unit * values


def _smoothed(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A centered moving mean over a twentieth of the curve; the ends average what they have."""
    if not len(values):
        return values
    box = np.ones(2 * (len(values) // (2 * _STRETCHES)) + 1)
    mean: np.ndarray[Any, Any] = np.convolve(values, box, "same") / np.convolve(np.ones_like(values), box, "same")
    return mean


def _label(panel: "Axes", title: str, unit: str, steps: np.ndarray[Any, Any]) -> None:
    panel.set_title(title)
    panel.set_ylabel(unit)
    panel.set_xlabel("outer step")
    if not len(steps):
        panel.set_yticks([])
        panel.text(0.5, 0.5, "not recorded", transform=panel.transAxes, ha="center", color=_COLORS["muted"])


def _svg(canvas: "Canvas", title: str) -> str:
    """The figure as an `<svg>` element for an HTML page, which needs neither a namespace nor the names of groups."""
    written = io.StringIO()
    canvas.savefig(written, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:xmlns(?::\w+)?|version)="[^"]*"', "", svg.replace("xlink:href", "href"))
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    for name, color in _COLORS.items():
        svg = svg.replace(color, f"var(--{name}, {color})")
    svg = svg.replace(f"'{_FONT}'", "system-ui, sans-serif")
    return svg.replace("<svg", f'<svg role="img" aria-label="{title}" stroke-linejoin="round"', 1)
