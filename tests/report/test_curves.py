import re
from xml.etree import ElementTree

import made_up
import pytest

from medistill.evidence import Figure, Row
from medistill.report.curves import accuracy_bars, learning_curves


def bars(*rows: Row, split: str = "test") -> str:
    return accuracy_bars([row.name for row in rows], rows, [row.name == "distilled" for row in rows], split)


EMPTY = {"value": None, "kept": None, "inner_rate": None, "validation": None, "teacher": None, "start_epoch": None}


@pytest.mark.parametrize("log", [[], [EMPTY | {"step": 0}], [EMPTY | {"step": step} for step in range(5)]])
def test_what_was_not_recorded_is_said_so(log: list[dict[str, object]]) -> None:
    assert learning_curves(log, None).count("not recorded") == 4


def test_a_full_log_fills_every_panel_and_marks_the_selected_step() -> None:
    svg = learning_curves(made_up.log(), 40)
    assert "not recorded" not in svg
    assert svg.count("stroke-dasharray") == 4
    assert "stroke-dasharray" not in learning_curves(made_up.log(), None)


def test_one_step_is_enough_for_a_curve() -> None:
    ElementTree.fromstring(learning_curves(made_up.log(1), 1))


def test_figures_name_no_address_no_date_and_no_color_without_its_variable() -> None:
    for svg in (learning_curves(made_up.log(), 40), bars(*made_up.ROWS)):
        ElementTree.fromstring(svg)
        assert "http" not in svg
        assert "metadata" not in svg
        assert not re.search(r"(?<!, )#[0-9a-f]{6}", svg)


def test_a_figure_is_the_same_whenever_it_is_drawn() -> None:
    assert learning_curves(made_up.log(), 40) == learning_curves(made_up.log(), 40)
    assert bars(*made_up.ROWS) == bars(*made_up.ROWS)


def test_bars_write_every_row_and_set_ours_apart() -> None:
    svg = bars(*made_up.ROWS)
    assert ">distilled<" in svg
    assert svg.count(">77.0 ± 1.2<") == 2
    assert ">50.0<" in svg
    assert "var(--accent" in svg
    assert "var(--accent" not in bars(made_up.ROWS[0])


def test_bars_escape_names_and_read_no_formula_into_them() -> None:
    odd = made_up.row("<script>$x_$", 0.5, balanced_accuracy=Figure(mean=1, sd=0.1, n=2))
    svg = bars(odd, split="$\\frac$ & <b>")
    assert "<script>" not in svg
    assert "&lt;script&gt;$x_$" in svg
    assert "<b>" not in svg


def test_bars_of_no_rows_are_an_empty_chart() -> None:
    ElementTree.fromstring(bars())
