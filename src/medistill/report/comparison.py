"""The page of a comparison: every method's figures, what they cost, and the images they made."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from markupsafe import Markup

from medistill.evidence import Compared, Comparison
from medistill.report import charts, words
from medistill.report.curves import accuracy_bars
from medistill.report.page import render


def render_comparison(
    comparison: Comparison,
    sheets: Mapping[str, bytes],
    nearest: Mapping[str, bytes],
    shows_patients: bool,
    recipe_toml: str,
) -> str:
    """Write a comparison as a page, the same text for the same arguments.

    Without matplotlib the figures are left out, and the page says so; the tables hold the same numbers.

    Args:
        comparison: the table and what stands behind it.
        sheets: a contact sheet of the images that each objective made, by its name; the page names those it lacks.
        nearest: the same with the nearest real training image under each, for nobody but the holder; empty for a page
            that is shown to others.
        shows_patients: whether `sheets` may show patients, because distillation began with real images.
        recipe_toml: the public settings.
    """
    rows = comparison.rows_with_most
    compared = [row for row in rows if row.protocol]
    distilled = [row for row in rows if charts.is_distilled(row)]
    drawable = find_spec("matplotlib") is not None

    def chart(
        draw: Callable[[Sequence[Compared]], str], which: Sequence[Compared], needed: bool = True
    ) -> Markup | None:
        return Markup(draw(which)) if drawable and needed and which else None

    values: dict[str, Any] = {
        "title": comparison.title,
        "comparison": comparison,
        "headline": headline(comparison),
        "remarks": words.remarks(comparison.rows),
        "most": max(comparison.ipcs),
        "networks": comparison.rows[-1].balanced_accuracy.n,
        "all_rows": comparison.rows,
        "rows": rows,
        "compared": compared,
        "is_distilled": charts.is_distilled,
        "bars": chart(_bars(comparison.split), rows),
        "growth": chart(charts.growth_curves, comparison.rows, len(comparison.ipcs) > 1),
        "bytes_chart": chart(charts.accuracy_for_bytes, comparison.rows),
        "roc": chart(charts.roc_curves, compared),
        "calibration": chart(charts.calibration_curves, compared),
        "sheets": sheets,
        "not_shown": [words.plain_name(row.name) for row in distilled if row.name not in sheets],
        "nearest": nearest,
        "shows_patients": shows_patients or bool(nearest),
        "drawable": drawable,
        "recipe_toml": recipe_toml,
    }
    return render("comparison.html.j2", values)


def headline(comparison: Comparison) -> str:
    """The comparison in one sentence; it leaves out what was not measured.

    For instance: "With 20 labelled images a class, BYOL, fine-tuned (saw all, unlabelled) came first of 12 rows on
    test: 71.2 ± 1.0 % balanced accuracy; against random real images +2.8 to +6.1 points (95 % interval); of those
    that need no unlabelled images, pruned trajectory matching: 69.9 ± 0.8 %; with all labels 85.0 ± 0.4 %."
    """
    most = max(comparison.ipcs)
    few = [row for row in comparison.rows if row.ipc == most]
    full = [row for row in comparison.rows if row.protocol == "full"]
    if not few:
        return "No method that learns from a few images a class was compared."

    def best(rows: Sequence[Compared]) -> Compared:
        return max(rows, key=lambda row: row.balanced_accuracy.mean)

    def said(row: Compared) -> str:
        return f"{words.percent(row.balanced_accuracy)} %"

    first = best(few)
    about = f" (saw {words.protocol_name(first.protocol)})" if first.protocol == "unlabelled" else ""
    sentence = (
        f"With {words.counted(most, 'labelled image')} a class, {words.plain_name(first.name)}{about} came first of "
        f"{words.counted(len(few), 'row')} on {comparison.split}: {said(first)} balanced accuracy"
    )
    if first.above and len(comparison.seeds) > 1:  # of one seed an interval knows nothing of the next
        against = words.plain_name(comparison.against)
        sentence += f"; against {against} {words.points(first.above)} points (95 % interval)"
    if about:
        alone = best([row for row in few if row.protocol == "budget"])
        sentence += f"; of those that need no unlabelled images, {words.plain_name(alone.name)}: {said(alone)}"
    if full:
        sentence += f"; with all labels {said(best(full))}"
    return sentence + "."


def _bars(split: str) -> Callable[[Sequence[Compared]], str]:
    def draw(rows: Sequence[Compared]) -> str:
        names = [words.row_name(row) for row in rows]
        return accuracy_bars(names, rows, [charts.is_distilled(row) for row in rows], split)

    return draw
