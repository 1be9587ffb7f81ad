"""Pages that need nothing but themselves.

A page loads nothing and runs nothing: pictures and styles lie inside, and its Content-Security-Policy forbids the rest.
Whatever comes from outside, class names above all, is escaped by the template.
"""

import base64
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from medistill.report import words


def render(template: str, values: dict[str, Any]) -> str:
    """Fill one of the templates beside this file."""
    environment = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "architecture_name": words.architecture_name,
        "base64": lambda content: base64.b64encode(content).decode(),
        "counted": words.counted,
        "duration": words.duration,
        "points": words.points,
        "help_name": words.help_name,
        "percent": words.percent,
        "plain_name": words.plain_name,
        "row_name": words.row_name,
        "images_seen": words.images_seen,
        "scenario_name": words.scenario_name,
        "share": words.share,
        "size": words.size,
        "tied": _tied,
        "worth_number": words.worth_number,
    }
    return environment.get_template(template).render(values)


def _template(name: str) -> str:
    return files("medistill.report").joinpath(name).read_text("utf-8")


def _tied(text: str) -> str:
    """The text with numbers held to their units, so that no line breaks between them."""
    return text.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}").replace(" %", "\N{NO-BREAK SPACE}%")
