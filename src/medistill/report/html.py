"""The report: one HTML page that needs nothing but itself, for people who decide with whom images are shared.

The page loads nothing and runs nothing: pictures and styles lie inside, and its Content-Security-Policy forbids the
rest. Whatever comes from outside, class names above all, is escaped by the template.
"""

import base64
from collections.abc import Mapping, Sequence
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from medistill.evidence import Row, Utility
from medistill.package import Provenance
from medistill.report import words
from medistill.report.curves import learning_curves, utility_bars

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
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "counted": words.counted,
        "duration": words.duration,
        "percent": words.percent,
        "plain_name": words.plain_name,
        "architecture_name": words.architecture_name,
        "size": words.size,
        "tied": _tied,
    }
    template = environment.from_string(files("medistill.report").joinpath("report.html.j2").read_text("utf-8"))
    drawable = find_spec("matplotlib") is not None
    main_rows = [row for row in (utility.row("random"), utility.row("distilled"), words.ceiling(utility)) if row]
    return template.render(
        title=title,
        headline=words.headline(utility),
        utility=utility,
        networks=_networks(utility.rows),
        provenance=provenance,
        start=_STARTS[provenance.start],
        class_counts=class_counts,
        main_rows=main_rows,
        classes=_classes(main_rows, class_counts),
        sheet=base64.b64encode(sheet_png).decode(),
        drawable=drawable,
        bars=Markup(utility_bars(utility)) if drawable and utility.rows else None,
        curves=Markup(learning_curves(log, selected_step)) if drawable and log else None,
        steps=max((int(entry["step"]) for entry in log), default=0),
        skipped=sum(entry.get("value") is None for entry in log if entry["step"]),
        selected_step=selected_step,
        recipe_toml=recipe_toml,
        package_bytes=package_bytes,
        stages=stages,
    )


def _classes(rows: Sequence[Row], class_counts: Mapping[str, int] | None) -> list[str]:
    """Every class that has a number to show, in the order in which it is first met."""
    named = [*(class_counts or ()), *(name for row in rows for name in (*row.sensitivity, *row.specificity))]
    return list(dict.fromkeys(named))


def _networks(rows: Sequence[Row]) -> str:
    """How many networks stand behind a spread, "5" or "3 to 5"; nothing where there is no spread."""
    counts = sorted({row.balanced_accuracy.n for row in rows if row.balanced_accuracy.n > 1})
    return " to ".join(str(count) for count in dict.fromkeys((*counts[:1], *counts[-1:])))


def _tied(text: str) -> str:
    """The text with numbers held to their units, so that no line breaks between them."""
    return text.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}").replace(" %", "\N{NO-BREAK SPACE}%")
