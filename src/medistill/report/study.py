"""The page of a study: what packages are worth to a small hospital."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from markupsafe import Markup

from medistill.evidence import Helped, Study
from medistill.report import words
from medistill.report.drawing import COLORS, canvas, svg
from medistill.report.page import render

_CURVES = {"alone": "muted", "package": "accent", "packages": "third"}
_LEVELS = {"pooled": "ink", "federated": "second"}


def render_study(study: Study, recipe_toml: str) -> str:
    """Write a study as a page, the same text for the same arguments.

    Without matplotlib the figures are left out, and the page says so; the tables hold the same numbers.

    Args:
        study: the table and what stands behind it.
        recipe_toml: the public settings.
    """
    drawable = find_spec("matplotlib") is not None
    parts = []
    for scenario in study.judged_images:
        rows = [row for row in study.rows if row.scenario == scenario]
        chart = Markup(help_curves(rows, study.split)) if drawable else None
        counts = next(each.counts for each in study.sharing if each.scenario == scenario)
        parts.append({"scenario": scenario, "rows": rows, "chart": chart, "counts": counts})
    values: dict[str, Any] = {
        "title": study.title,
        "study": study,
        "headline": headline(study),
        "parts": parts,
        "all_networks": study.networks * len(study.seeds),
        "drawable": drawable,
        "recipe_toml": recipe_toml,
    }
    return render("study.html.j2", values)


def headline(study: Study) -> str:
    """The study in one sentence: what A's package alone is worth, and what it adds to the fewest own images.

    For instance: "A's package of 20 images a class, 540.1 kB, is worth 34 (22 to more than 50) own images a class: 70.3
    ± 1.1 % balanced accuracy on test; with 5 own images a class 71.9 ± 0.8 %, those alone 52.0 ± 3.1 %."
    """
    natural = [row for row in study.rows if row.scenario == "natural"]
    package = next(row for row in natural if row.help == "package" and not row.own)
    fewest = min(row.own for row in natural if row.help == "alone")
    both, alone = (
        next(row for row in natural if row.help == help_ and row.own == fewest) for help_ in ("package", "alone")
    )

    def said(row: Helped) -> str:
        return f"{words.percent(row.balanced_accuracy)} %"

    return (
        f"A's package of {words.counted(study.ipc, 'image')} a class, {words.size(package.sent_bytes)}, is worth "
        f"{words.worth_said(package.worth)} own images a class: {said(package)} balanced accuracy on {study.split}; "
        f"with {words.counted(fewest, 'own image')} a class {said(both)}, those alone {said(alone)}."
    )


def help_curves(rows: Sequence[Helped], split: str) -> str:
    """Draw balanced accuracy over own images a class, a line for every kind of help; what does not depend on own images
    lies across.

    Args:
        rows: of one scenario.
        split: the images that were judged.
    """
    with canvas(f"help-curves-{rows[0].scenario}", 9, 4.6) as figure:
        axes = figure.subplots()
        for help_, color in _CURVES.items():
            members = [row for row in rows if row.help == help_]
            axes.errorbar(
                [row.own for row in members],
                [100 * row.balanced_accuracy.mean for row in members],
                [100 * row.balanced_accuracy.sd for row in members],
                color=COLORS[color],
                marker="o",
                markersize=5,
                capsize=3,
                linewidth=1.8,
                label=words.help_name(members[0].help),
            )
        most_rounds = max((row.rounds or 0 for row in rows), default=0)
        for help_, color in _LEVELS.items():
            for row in rows:
                if row.help == help_ and (row.rounds or 0) in (0, most_rounds):
                    level = 100 * row.balanced_accuracy.mean
                    name = words.help_name(row.help, row.rounds)
                    axes.axhline(level, color=COLORS[color], linewidth=1.2, linestyle="--", label=name)
        axes.set_xticks(sorted({row.own for row in rows}))
        axes.set_xlabel("own images a class")
        axes.set_ylabel(f"balanced accuracy on {split} (%)")
        axes.legend(loc="lower right", frameon=False, fontsize=8)
        return svg(figure, "Balanced accuracy over own images, by help")
