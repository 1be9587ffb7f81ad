import re
from html.parser import HTMLParser
from typing import Any

import made_up
import pytest

from medistill.report import html
from medistill.report.html import render_report


def page(**changes: Any) -> str:
    arguments: dict[str, Any] = {
        "title": "a set",
        "utility": made_up.utility(*made_up.ROWS),
        "provenance": made_up.provenance(),
        "class_counts": {"normal": 1500, "pneumonia": 500},
        "sheet_png": b"\x89PNG",
        "log": made_up.log(),
        "selected_step": 40,
        "recipe_toml": 'name = "a-set"\n',
        "package_bytes": 184_321,
        "stages": [("teachers", 412.3, 1_200_000_000), ("distill", 3725.0, 0)],
    }
    return render_report(**arguments | changes)


def tags(text: str) -> list[str]:
    found: list[str] = []

    class Collector(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append(tag)
            assert not any(name.startswith("on") for name, _ in attrs)
            assert all(name not in ("src", "href") or str(value).startswith(("data:", "#")) for name, value in attrs)

    Collector().feed(text)
    return found


def words_of(text: str) -> str:
    body = re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", body).replace("\N{EN DASH}", "-").split())


def test_a_page_loads_nothing_and_runs_nothing() -> None:
    text = page()
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text
    assert not re.search(r"https?://|<script|@import|url\((?!#)", text)
    assert not {"script", "link", "iframe", "object", "form", "base"} & set(tags(text))


def test_whatever_comes_from_outside_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    figure = made_up.ROWS[1].accuracy
    rows = [
        made_up.row(name, 0.5, sensitivity={evil: figure}, specificity={evil: figure}, same_as=evil)
        for name in ("random", "distilled", evil)
    ]
    text = page(
        title=evil,
        utility=made_up.utility(
            *rows, split=evil, selection=evil, notes=(evil,), software={evil: evil}, recipe_digest=evil
        ),
        provenance=made_up.provenance(method=evil),
        class_counts={evil: 3},
        recipe_toml=f'name = "{evil}</pre>"',
        stages=[(evil, 1.0, 1)],
    )
    assert "<script" not in text
    assert "script" not in tags(text)
    assert text.count("&lt;script&gt;") > 10


def test_the_same_arguments_give_the_same_page() -> None:
    assert page() == page()


@pytest.mark.parametrize("missing", [row.name for row in made_up.ROWS])
def test_a_missing_row_is_left_out(missing: str) -> None:
    rows = [row for row in made_up.ROWS if row.name != missing]
    assert page(utility=made_up.utility(*rows)).count('<tr class="ours">') == sum("distilled" in r.name for r in rows)


def test_a_page_about_images_that_nobody_judged_says_so() -> None:
    only = made_up.utility(made_up.ROWS[0])
    text = page(utility=only, log=[], selected_step=None, class_counts=None, stages=())
    assert "No network trained on the synthetic images has been judged yet." in text


def test_classes_that_only_some_rows_know_show_a_dash() -> None:
    odd = made_up.row("distilled", 0.5, sensitivity={}, specificity={})
    text = words_of(page(utility=made_up.utility(made_up.ROWS[1], odd), class_counts={"normal": 3}))
    assert "normal 3 54.1 ± 1.2 - 54.1 ± 1.2 -" in text
    assert "pneumonia - 54.1 ± 1.2 - 54.1 ± 1.2 -" in text


def test_the_leak_warning_appears_exactly_when_images_may_show_real_ones() -> None:
    warning = "these images may show real patients"
    assert warning not in page()
    assert warning in page(provenance=made_up.provenance(leaks_real_images=True))
    assert warning in page(provenance=made_up.provenance(leaks_real_images=True, start="real"))


def test_every_page_carries_the_privacy_sentence() -> None:
    assert "Privacy: Not anonymized, not differentially private." in words_of(page())


def test_every_row_stands_in_the_table_with_its_interval() -> None:
    text = words_of(page())
    assert "distilled images ConvNet 40 soft 0.01 68.3 ± 1.2 68.3 ± 1.2 65.3 to 71.3 68.3 ± 1.2" in text
    assert "always the commonest class - 2,000 - - 50.0 ± 1.2 50.0 47.0 to 53.0" in text
    assert "same networks as all real images, balanced sampling" in text
    assert "n = 5 networks" in text


def test_networks_that_differ_in_number_are_counted_from_fewest_to_most() -> None:
    few = made_up.row("random", 0.5, balanced_accuracy=made_up.ROWS[1].balanced_accuracy.model_copy(update={"n": 3}))
    assert "n = 3 to 5 networks" in words_of(page(utility=made_up.utility(few, made_up.row("distilled", 0.6))))


def test_figures_on_the_validation_split_are_called_too_high() -> None:
    assert "a little too high" not in page()
    assert "a little too high" in page(utility=made_up.utility(*made_up.ROWS, split="validation"))


def test_skipped_steps_are_counted_without_the_start() -> None:
    assert "60 outer steps, 1 of them without a finite loss" in words_of(page())


def test_evidence_from_other_images_says_so() -> None:
    assert "Judged on other images" not in page()
    assert "Judged on other images" in page(provenance=made_up.provenance(data_fingerprint="c" * 64))


def test_a_receiver_without_matplotlib_still_gets_every_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "find_spec", lambda name: None)
    text = page()
    assert "<svg" not in text
    assert "matplotlib is not installed" in text
    assert "68.3 ± 1.2" in words_of(text)


def test_tags_are_closed_in_the_order_they_were_opened() -> None:
    opened: list[str] = []

    class Balance(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag not in ("meta", "img", "br"):
                opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

    Balance().feed(page())
    assert not opened


def test_a_row_that_repeats_another_is_drawn_once() -> None:
    chart = page()[: page().index("<table")]
    assert chart.count(">77.0 ± 1.2<") == 1
