"""How figures are drawn: inline SVG that serves light and dark pages and paper.

Colors become CSS variables with a fallback; the hues of Okabe and Ito (2008) stay apart for every kind of color vision.
The text stays text. Nothing in the SVG depends on the clock, on the machine's matplotlib settings, or on the network.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

COLORS = {
    "ink": "#17212b",
    "muted": "#5b6873",
    "line": "#d9e0e6",
    "accent": "#0072b2",
    "second": "#d55e00",
    "third": "#009e73",
    "fourth": "#cc79a7",
    "fifth": "#e69f00",
}
_FONT = "DejaVu Sans"
_STYLE = {
    "svg.fonttype": "none",
    "font.family": [_FONT],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": COLORS["ink"],
    "axes.labelcolor": COLORS["muted"],
    "axes.edgecolor": COLORS["line"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": COLORS["line"],
    "grid.linewidth": 0.6,
    "text.color": COLORS["ink"],
    "text.parse_math": False,
    "xtick.color": COLORS["line"],
    "ytick.color": COLORS["line"],
    "xtick.labelcolor": COLORS["muted"],
    "ytick.labelcolor": COLORS["muted"],
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}
HUES = tuple(COLORS[name] for name in ("accent", "second", "third", "fourth", "fifth"))


@contextmanager
def canvas(name: str, width: float, height: float) -> Iterator["Canvas"]:
    """A figure of so many inches in the house's style; `name` keeps its inner references apart from other figures'."""
    from matplotlib import style
    from matplotlib.figure import Figure as Canvas

    with style.context(["default", _STYLE | {"svg.hashsalt": name}]):
        yield Canvas(figsize=(width, height), layout="constrained")


def svg(canvas: "Canvas", title: str) -> str:
    """The figure as an `<svg>` element for an HTML page, which needs neither a namespace nor the names of groups."""
    written = io.StringIO()
    canvas.savefig(written, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    drawn = written.getvalue()
    drawn = drawn[drawn.index("<svg") :].strip()
    drawn = re.sub(r"\s*<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r' (?:xmlns(?::\w+)?|version)="[^"]*"', "", drawn.replace("xlink:href", "href"))
    drawn = re.sub(r'<g id="[^"]*"', "<g", drawn)
    drawn = re.sub(r"<style.*?</style>", "", drawn, flags=re.DOTALL)
    for name, color in COLORS.items():
        drawn = drawn.replace(color, f"var(--{name}, {color})")
    drawn = drawn.replace(f"'{_FONT}'", "system-ui, sans-serif")
    return drawn.replace("<svg", f'<svg role="img" aria-label="{title}" stroke-linejoin="round"', 1)
