import re
from pathlib import Path
from typing import Any

import made_up
import pytest
from test_html import tags, words_of

from medistill.package import Package, Provenance, Terms, pack
from medistill.report.package import render_package
from samples import contents

EVIL = "<script>alert(1)</script>"


def sealed(folder: Path, **changes: Any) -> Package:
    return pack(folder / "set.medistill", **contents(**changes))


def test_the_page_loads_nothing_and_runs_nothing_and_escapes_what_the_maker_wrote(tmp_path: Path) -> None:
    provenance = Provenance(method=EVIL, start="noise", leaks_real_images=False, software={EVIL: EVIL})
    package = sealed(
        tmp_path,
        name=EVIL,
        class_names=(EVIL, "b"),
        class_prior={EVIL: 0.25, "b": 0.75},
        provenance=provenance,
        terms=Terms(contact=EVIL),
    )
    text = render_package(package, EVIL, trusted=False)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text
    assert not re.search(r"https?://|<script|@import|url\((?!#)", text)
    assert not {"script", "link", "iframe", "object", "form", "base"} & set(tags(text))
    assert "&lt;script&gt;" in text


@pytest.mark.parametrize(
    ("signed_by", "trusted", "said"),
    [
        (None, False, "Nobody signed it"),
        ("St Mary", True, "Signed by St Mary"),
        ("St Mary", False, "a key that you do not know"),
    ],
)
def test_who_signed_is_said_first(tmp_path: Path, signed_by: str | None, trusted: bool, said: str) -> None:
    text = render_package(sealed(tmp_path), signed_by, trusted)
    assert said in words_of(text)
    assert ("box alarm" in text) == (not trusted)


def test_what_networks_add_to_their_logits_is_shown_where_it_is_stated(tmp_path: Path) -> None:
    plain = sealed(tmp_path)
    assert "Class offsets" not in words_of(render_package(plain, None, trusted=False))
    training = plain.manifest.training.model_copy(update={"class_offsets": (0.5, -0.5)})
    leaning = sealed(tmp_path, training=training)
    assert "Class offsets +0.50, -0.50: added" in words_of(render_package(leaning, None, trusted=False))


def test_how_many_films_each_image_holds_is_shown_where_it_is_several(tmp_path: Path) -> None:
    plain = sealed(tmp_path)
    assert "films in each" not in words_of(render_package(plain, None, trusted=False))
    training = plain.manifest.training.model_copy(update={"formation": 2})
    assert "2 x 2 films in each," in words_of(render_package(sealed(tmp_path, training=training), None, trusted=False))


def test_evidence_encoding_terms_and_warnings_are_shown(tmp_path: Path) -> None:
    leaking = Provenance(method="drawn", start="real", leaks_real_images=True, software={})
    rows = made_up.utility(made_up.row("distilled", 0.7))
    package = sealed(tmp_path, provenance=leaking, encoding="uint8", utility=rows, terms=Terms(commercial=True))
    text = words_of(render_package(package, None, trusted=False))
    assert "may show real patients" in text
    assert "pixels as uint8 (off by at most 0.002" in text
    assert "Also for profit" in text
    assert "What their maker measured" in text
    assert package.digest in text
