"""The report on one synthetic set, for people who decide with whom images are shared."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from markupsafe import Markup

from medistill.evidence import Row, Utility
from medistill.package import Provenance
from medistill.report import words
from medistill.report.curves import accuracy_bars, learning_curves
from medistill.report.page import render

_STARTS = {
    "noise": "noise",
    "class-noise": "noise with each class's mean and covariance",
    "class-mean": "the mean of each class",
    "real": "real images",
    "unknown": "not recorded",
}


def render_report(
    *,
    title: str,
    utility: Utility,
    provenance: Provenance,
    class_counts: Mapping[str, int] | None,
    sheet_png: bytes,
    log: Sequence[Mapping[str, Any]],
    selected_step: int | None,
    recipe_toml: str,
    package_bytes: int,
    stages: Sequence[tuple[str, float, int]] = (),
) -> str:
    """Write the report on one synthetic set as a page, the same text for the same arguments.

    What was not measured is left out, never filled in. Without matplotlib the figures are left out too, and the page
    says so; the tables hold the same numbers.

    Args:
        title: the name of the set.
        utility: how networks trained on it, and beside it, did.
        provenance: where the images come from; its privacy sentence heads the page.
        class_counts: training images a class, or None where the holder keeps them.
        sheet_png: the contact sheet.
        log: what each outer step did, for `learning_curves`; empty where nothing was distilled here.
        selected_step: the step whose images were kept, or None.
        recipe_toml: the public settings of the run.
        package_bytes: size of the package that is shared.
        stages: name, wall time in seconds and peak memory in bytes (0 where unknown) of each part of the run.
    """
    drawable = find_spec("matplotlib") is not None
    main_rows = [row for row in (utility.row("random"), utility.row("distilled"), words.ceiling(utility)) if row]
    values = {
        "title": title,
        "headline": words.headline(utility),
        "utility": utility,
        "networks": _networks(utility.rows),
        "provenance": provenance,
        "start": _STARTS[provenance.start],
        "class_counts": class_counts,
        "main_rows": main_rows,
        "classes": _classes(main_rows, class_counts),
        "sheet": sheet_png,
        "drawable": drawable,
        "bars": Markup(_bars(utility)) if drawable else None,
        "curves": Markup(learning_curves(log, selected_step)) if drawable and log else None,
        "steps": max((int(entry["step"]) for entry in log), default=0),
        "skipped": sum(entry.get("value") is None for entry in log if entry["step"]),
        "selected_step": selected_step,
        "recipe_toml": recipe_toml,
        "package_bytes": package_bytes,
        "bytes_a_point": _bytes_a_point(utility, package_bytes),
        "stages": stages,
    }
    return render("report.html.j2", values)


def _bytes_a_point(utility: Utility, package_bytes: int) -> int | None:
    """What a point of balanced accuracy above that of the commonest class costs to send; None where there is none."""
    floor, distilled = utility.row("majority"), utility.row("distilled")
    if floor is None or distilled is None:
        return None
    points = 100 * (distilled.balanced_accuracy.mean - floor.balanced_accuracy.mean)
    return round(package_bytes / points) if points > 0 else None


def _bars(utility: Utility) -> str:
    """The chart of all rows, without those that merely repeat another."""
    rows = [row for row in utility.rows if row.same_as is None or utility.row(row.same_as) is None]
    ours = [row.name.startswith("distilled") for row in rows]
    return accuracy_bars([words.plain_name(row.name) for row in rows], rows, ours, utility.split)


def _classes(rows: Sequence[Row], class_counts: Mapping[str, int] | None) -> list[str]:
    """Every class that has a number to show, in the order in which it is first met."""
    named = [*(class_counts or ()), *(name for row in rows for name in (*row.sensitivity, *row.specificity))]
    return list(dict.fromkeys(named))


def _networks(rows: Sequence[Row]) -> str:
    """How many networks stand behind a spread, "5" or "3 to 5"; nothing where there is no spread."""
    counts = sorted({row.balanced_accuracy.n for row in rows if row.balanced_accuracy.n > 1})
    return " to ".join(str(count) for count in dict.fromkeys((*counts[:1], *counts[-1:])))
