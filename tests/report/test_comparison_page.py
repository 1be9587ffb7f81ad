import re

import made_up
import pytest
from test_html import tags, words_of

from medistill.report import comparison as pages
from medistill.report.comparison import headline, render_comparison


def page(comparison=None, nearest=None, shows_patients=False) -> str:
    found = comparison or made_up.comparison(*made_up.COMPARED)
    return render_comparison(found, {"pruned": b"PNG"}, nearest or {}, shows_patients, 'name = "a"')


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    text = page()
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text
    assert not re.search(r"https?://|<script|@import|url\((?!#)", text)
    assert not {"script", "link", "iframe", "object", "form", "base"} & set(tags(text))


def test_whatever_comes_from_outside_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    row = made_up.compared(evil, 0.5, sensitivity={}, specificity={})
    text = page(
        made_up.comparison(
            row,
            title=evil,
            classes=(evil, "b"),
            notes=(evil,),
            original_bytes={evil: 1},
            software={evil: evil},
            machines=(evil,),
        )
    )
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_every_row_says_what_its_networks_saw_and_what_it_costs() -> None:
    text = words_of(page())
    assert "BYOL, fine\u2011tuned all, unlabelled 40 72.0" in text
    assert "40 72.0 ± 1.2 11.0 to 12.0 72.0 ± 1.2 69.0 to 75.0 +10.0 to +14.0 72.0" in text
    assert "Of 2 seeds both are wide" in text
    assert "of one seed and know nothing of the next" in words_of(
        page(made_up.comparison(*made_up.COMPARED, seeds=(0,)))
    )
    assert "pruned trajectory matching 40 40.0 kB 2 % 0.3 s 32 ms 3 ms 3.2 s" in text
    assert "source file, all splits 37.0 MB, 4 min 56 s at 1 Mbit/s" in text
    assert "BYOL ConvNet 2,000 0 300 1.900 0.300 0.72" in text


def test_every_figure_stands_above_its_interval() -> None:
    text = words_of(page())
    assert "+10.0 to +14.0 72.0 ± 1.2 21.0 to 22.0 72.0 ± 1.2 51.0 to 52.0 72.0 ± 1.2" in text
    assert "BYOL, fine\u2011tuned all, unlabelled 72.0 ± 1.2 31.0 to 32.0 72.0 ± 1.2 31.0 to 32.0" in text
    assert "BYOL, fine\u2011tuned all, unlabelled 72.0 ± 1.2 41.0 to 42.0 72.0 ± 1.2 41.0 to 42.0" in text


def test_an_auc_without_an_interval_stands_alone_and_the_page_says_what_it_is_over() -> None:
    assert "85.0 ± 1.2 21.0 to 22.0 85.0 ± 1.2 85.0 ± 1.2" in words_of(page())
    assert "That of AUC is over seeds alone" in words_of(page())
    assert "AUC has none with one seed" in words_of(page(made_up.comparison(*made_up.COMPARED, seeds=(0,))))


def test_only_the_holders_page_shows_and_announces_real_images() -> None:
    shared, own = page(), page(nearest={"pruned": b"REAL"})
    assert "UkVBTA==" in own
    assert "this page shows real patients" in words_of(own)
    assert "UkVBTA==" not in shared
    assert "real patients" not in words_of(shared)
    assert "may show real patients" in words_of(page(shows_patients=True))


def test_growth_is_drawn_where_there_are_several_budgets() -> None:
    rows = (*made_up.COMPARED, made_up.compared("pruned", 0.6, 5))
    assert "Balanced accuracy over images a class" in page(made_up.comparison(*rows))
    assert "Balanced accuracy over images a class" not in page()


def test_without_matplotlib_the_tables_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "find_spec", lambda name: None)
    text = page()
    assert "<svg" not in text
    assert "matplotlib is not installed" in text
    assert "pruned trajectory matching" in text


def test_the_headline_tells_what_the_best_needs() -> None:
    assert headline(made_up.comparison(*made_up.COMPARED)) == (
        "With 20 labelled images a class, BYOL, fine-tuned (saw all, unlabelled) came first of 7 rows on test: "
        "72.0 ± 1.2 % balanced accuracy; against random real images +10.0 to +14.0 points (95 % interval); "
        "of those that need no unlabelled images, pruned trajectory matching: 70.0 ± 1.2 %; "
        "with all labels 85.0 ± 1.2 %."
    )
    assert headline(made_up.comparison(made_up.COMPARED[1])) == (
        "With 20 labelled images a class, random real images came first of 1 row on test: "
        "60.0 ± 1.2 % balanced accuracy."
    )
    alone = headline(made_up.comparison(*made_up.COMPARED, seeds=(0,)))
    assert "72.0 ± 1.2 % balanced accuracy; of those" in alone
    assert "No method" in headline(made_up.comparison(made_up.COMPARED[-1]))
