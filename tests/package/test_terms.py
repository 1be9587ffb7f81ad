from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medistill.errors import PackageError
from medistill.package import NARROW, Terms, common_terms, open_package, pack, read_terms
from samples import contents

TERMS = st.builds(
    Terms,
    use=st.sampled_from(["health-research", "any-research", "any"]),
    commercial=st.booleans(),
    redistribution=st.booleans(),
    ethics_approval=st.booleans(),
    contact=st.none() | st.sampled_from(["ward@a.example", "ward@b.example"]),
    expires=st.none() | st.dates(),
)
WIDTH = {"health-research": 0, "any-research": 1, "any": 2}


def allows_no_more(one: Terms, other: Terms) -> bool:
    return (
        WIDTH[one.use] <= WIDTH[other.use]
        and one.commercial <= other.commercial
        and one.redistribution <= other.redistribution
        and one.ethics_approval >= other.ethics_approval
        and (one.expires or date.max) <= (other.expires or date.max)
    )


@given(st.lists(TERMS, min_size=1, max_size=4))
def test_common_terms_allow_what_all_allow_and_nothing_less(several: list[Terms]) -> None:
    common = common_terms(several)
    assert all(allows_no_more(common, each) for each in several)
    assert common_terms([common, *several]).model_copy(update={"contact": None}) == common.model_copy(
        update={"contact": None}
    )
    assert common.use in {each.use for each in several}
    assert common.expires in {each.expires for each in several}


def test_a_contact_is_kept_only_where_all_name_the_same() -> None:
    ours, theirs = Terms(contact="ward@a.example"), Terms(contact="ward@b.example")
    assert common_terms([ours, ours]).contact == "ward@a.example"
    assert common_terms([ours, theirs]).contact is None


def test_terms_are_read_from_toml_and_what_is_left_out_is_narrow(tmp_path: Path) -> None:
    path = tmp_path / "terms.toml"
    path.write_text('commercial = true\nexpires = 2031-01-31\ncontact = "ward@a.example"\n')
    assert read_terms(path) == Terms(commercial=True, expires=date(2031, 1, 31), contact="ward@a.example")
    path.write_text("")
    assert read_terms(path) == NARROW


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('use = "everything"\n', "use"),
        ("reidentification = true\n", "reidentification"),
        ("sublicence = true\n", "sublicence"),
        ("commercial = 1\n", "commercial"),
        ("expires =\n", "TOML"),
    ],
)
def test_other_terms_are_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "terms.toml"
    path.write_text(text)
    with pytest.raises(PackageError, match=f"terms.toml.*{said}"):
        read_terms(path)
    with pytest.raises(PackageError, match="cannot be read"):
        read_terms(tmp_path / "none.toml")


def test_a_package_opens_on_its_last_day_and_not_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tiny.medistill"
    pack(path, **contents(), terms=Terms(expires=date(2031, 1, 31)))

    def on(day: date) -> type[date]:
        return type("Day", (date,), {"today": classmethod(lambda cls: day)})

    monkeypatch.setattr("medistill.package.sealed.date", on(date(2031, 1, 31)))
    assert open_package(path, allow_unsigned=True).manifest.terms.expires == date(2031, 1, 31)
    monkeypatch.setattr("medistill.package.sealed.date", on(date(2031, 2, 1)))
    with pytest.raises(PackageError, match="ended on 2031-01-31; today is 2031-02-01"):
        open_package(path, allow_unsigned=True)
