"""Figures of one synthetic set: how distillation went, and what its images are worth."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medistill.evidence import Row
from medistill.report.drawing import COLORS, canvas, svg
from medistill.report.words import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STRETCHES = 20


def learning_curves(log: Sequence[Mapping[str, Any]], selected_step: int | None) -> str:
    """Draw how distillation went, over outer steps: loss, selections, kept fraction and inner rate.

    The thin line of the loss is its value, the thick one a moving mean. A dashed line marks the selected step. A panel
    without a single value says "not recorded".

    Args:
        log: what each outer step did, with the keys of `medistill.distill.Outcome`; a value may be None.
        selected_step: the step whose images were kept, or None where nobody selected.
    """
    from matplotlib.ticker import MaxNLocator

    with canvas("learning-curves", 9, 5.4) as figure:
        loss, validation, kept, rate = figure.subplots(2, 2).flat

        steps, values = _curve(log, "value")
        loss.plot(steps, values, color=COLORS["accent"], linewidth=0.7, alpha=0.45)
        loss.plot(steps, _smoothed(values), color=COLORS["accent"], linewidth=2)
        _label(loss, "Matching loss", "loss (no unit)", steps)

        steps, values = _curve(log, "validation", unit=100)
        validation.plot(steps, values, color=COLORS["accent"], linewidth=1.4, marker="o", markersize=4)
        chosen = steps == selected_step
        validation.plot(
            steps[chosen], values[chosen], color=COLORS["second"], marker="o", markersize=9, linestyle="none"
        )
        _label(validation, "Selection on validation", "balanced accuracy (%)", steps)

        steps, values = _curve(log, "kept", unit=100)
        kept.plot(steps, values, color=COLORS["accent"], linewidth=1.4)
        kept.set_ylim(0, 105)
        _label(kept, "Parameters kept in the match", "kept (%)", steps)

        steps, values = _curve(log, "inner_rate")
        rate.plot(steps, values, color=COLORS["accent"], linewidth=1.4)
        _label(rate, "Inner rate", "learning rate (no unit)", steps)

        last = max((int(entry["step"]) for entry in log), default=0)
        for panel in (loss, validation, kept, rate):
            panel.set_xlim(-0.02 * max(last, 1), 1.02 * max(last, 1))
            panel.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
            if selected_step is not None:
                panel.axvline(selected_step, color=COLORS["second"], linewidth=1, linestyle=(0, (4, 3)))
        return svg(figure, "Learning curves over the outer steps of distillation")


def accuracy_bars(names: Sequence[str], rows: Sequence[Row], ours: Sequence[bool], split: str) -> str:
    """Draw balanced accuracy row by row: a dot for the mean, a bar for one standard deviation to either side.

    Args:
        names: what each row is called.
        rows: whose figures are drawn; a row of one network shows no bar.
        ours: which rows stand out.
        split: the images that were judged.
    """
    with canvas("accuracy-bars", 9, 0.9 + 0.34 * len(rows)) as figure:
        axes = figure.subplots()
        for place, (row, stands_out) in enumerate(zip(rows, ours, strict=True)):
            accuracy = row.balanced_accuracy
            color = COLORS["accent" if stands_out else "muted"]
            axes.hlines(place, 0, 100 * accuracy.mean, color=color, linewidth=1.2, alpha=0.5)
            if accuracy.n > 1:
                axes.errorbar(
                    100 * accuracy.mean, place, xerr=100 * accuracy.sd, color=color, elinewidth=2.2, capsize=4
                )
            axes.plot(100 * accuracy.mean, place, "o", color=color, markersize=6)
            weight = "bold" if stands_out else "normal"
            axes.text(
                1.02,
                place,
                percent(accuracy),
                transform=axes.get_yaxis_transform(),
                va="center_baseline",
                weight=weight,
            )
        axes.set_yticks(range(len(rows)), names)
        axes.tick_params(axis="y", labelcolor=COLORS["ink"], length=0)
        axes.grid(visible=False, axis="y")
        axes.spines.left.set_visible(False)
        axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
        axes.set_xlim(0, 100)
        axes.set_xlabel(f"balanced accuracy on {split} (%)")
        return svg(figure, "Balanced accuracy by training set")


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
        panel.text(0.5, 0.5, "not recorded", transform=panel.transAxes, ha="center", color=COLORS["muted"])
