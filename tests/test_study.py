import dataclasses
import re

import numpy as np
import pytest

import medistill.intervals
from medistill.errors import RecipeError, SourceError
from medistill.evidence import Study
from medistill.images import LabelledImages
from medistill.jobs import Silence
from medistill.package import open_package
from medistill.pipeline import open_run
from medistill.report.study import headline, render_study
from medistill.study import Inquiry, forecast, share_out, study
from medistill.study.hospitals import few_of_each
from medistill.study.worth import worth
from toys import Watch, films, recipe

SMALL = Inquiry(own=(1, 2), rounds=(1, 3), seeds=2, skewed=True)


@pytest.fixture(scope="module", autouse=True)
def intervals_take_no_time():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(medistill.intervals, "_RESAMPLES", 100)
        yield


def write_films(path, seed):
    """Enough films for three hospitals."""
    arrays = {}
    for split, count in (("train", 120), ("val", 6), ("test", 6)):
        part = films((count, count), seed=seed + count)
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = part.pixels[:, 0], part.labels[:, None]
    np.savez(path, **arrays)
    return str(path)


def opened(folder, changes=None):
    source = write_films(folder / "films.npz", 0)
    quick = {"source.path": source, "machine.processes": 1, "distill.outer_steps": 1, "evaluate.full_epochs": 1}
    return open_run(recipe(quick | (changes or {})), folder / "out")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    inquiry = dataclasses.replace(SMALL, shifted=write_films(folder / "elsewhere.npz", 100))
    return folder, study(opened(folder), inquiry, Silence())


def test_no_patient_is_in_two_hospitals_and_nothing_is_lost():
    images = films((60, 40), grouped=True)
    for is_skewed in (False, True):
        shared = share_out(images, 5, is_skewed, 7)
        groups = [set(part.groups.tolist()) for part in (shared.a, shared.c, shared.b)]
        assert not (groups[0] & groups[1]) | (groups[0] & groups[2]) | (groups[1] & groups[2])
        assert shared.b.counts.tolist() == [5, 5]
        left = sum(group not in groups[2] for group in images.groups.tolist())
        assert len(shared.a) + len(shared.c) == left


def test_the_large_hospital_has_two_thirds_of_what_the_small_one_leaves():
    shared = share_out(films((300, 120)), 6, False, 0)
    assert np.allclose(shared.a.counts / (shared.a.counts + shared.c.counts), 2 / 3, atol=0.02)


def test_skewed_hospitals_see_different_classes_and_the_small_one_sees_the_same_images():
    images = films((300, 120))
    even, skewed = (share_out(images, 6, is_skewed, 0) for is_skewed in (False, True))
    assert np.allclose(skewed.a.counts / (skewed.a.counts + skewed.c.counts), [0.9, 0.1], atol=0.02)
    assert np.array_equal(even.b.pixels, skewed.b.pixels)


def test_a_smaller_own_set_lies_in_every_larger_one():
    shared = share_out(films((60, 60)), 8, False, 0)
    for few, more in ((1, 2), (2, 8)):
        small, large = ({each.tobytes() for each in shared.own(number).pixels} for number in (few, more))
        assert small < large
        assert shared.own(few).counts.tolist() == [few, few]


def test_a_class_with_too_few_images_is_refused_by_name():
    with pytest.raises(SourceError, match=r"Class class 1 has 4 training image.*needs 5 of each.*--own"):
        share_out(films((30, 4)), 5, False, 0)


def test_the_worth_of_images_is_read_off_the_curve_of_own_ones():
    draws = np.ones(100)
    curve = {0: 0.5 * draws, 10: 0.6 * draws, 20: 0.8 * draws}
    means = {number: values[0] for number, values in curve.items()}
    assert worth(0.7 * draws, curve, 0.7, means).images == 15
    assert worth(0.55 * draws, curve, 0.55, means).images == 5
    above = worth(0.9 * draws, curve, 0.9, means)
    assert above.images == above.most == 20


def test_the_worth_of_images_is_as_uncertain_as_what_it_is_read_from():
    draw = np.random.default_rng(0)
    curve = {0: np.full(1000, 0.5), 10: draw.normal(0.6, 0.02, 1000), 20: draw.normal(0.8, 0.02, 1000)}
    means = {0: 0.5, 10: 0.6, 20: 0.8}
    found = worth(draw.normal(0.7, 0.02, 1000), curve, 0.7, means)
    assert found.low < 14 < found.images < 16 < found.high


def test_more_images_that_did_worse_by_bad_luck_are_worth_no_less():
    draws = np.ones(10)
    curve = {0: 0.5 * draws, 10: 0.7 * draws, 20: 0.6 * draws, 30: 0.9 * draws}
    assert worth(0.8 * draws, curve, 0.8, {0: 0.5, 10: 0.7, 20: 0.6, 30: 0.9}).images == 25


def test_every_kind_of_help_has_its_rows_in_every_scenario(whole):
    _, found = whole
    assert set(found.judged_images) == {"natural", "skewed", "shifted"}
    for scenario in found.judged_images:
        rows = [(row.help, row.own, row.rounds) for row in found.rows if row.scenario == scenario]
        assert rows == [
            *(("alone", own, None) for own in (1, 2)),
            *(("package", own, None) for own in (0, 1, 2)),
            *(("packages", own, None) for own in (0, 1, 2)),
            *(("federated", 2, rounds) for rounds in (1, 3)),
            ("pooled", 2, None),
        ]
    assert {row.balanced_accuracy.n for row in found.rows} == {4}
    assert {row.help for row in found.rows if row.worth} == {"package", "packages"}


def test_what_is_learned_from_and_sent_is_counted(whole):
    folder, found = whole
    rows = {(row.help, row.own, row.rounds): row for row in found.rows if row.scenario == "natural"}
    assert rows["alone", 2, None].images == 4
    assert rows["package", 2, None].images == 8
    assert rows["packages", 0, None].images == 8
    assert rows["pooled", 2, None].images == 240  # toys have no patients, so nobody's other films are left out
    assert rows["alone", 2, None].sent_bytes == 0
    sizes = {path.name: path.stat().st_size for path in (folder / "out/packages").glob("*natural*")}
    assert len(sizes) == 4
    a = np.mean([size for name, size in sizes.items() if "-a-" in name])
    assert rows["package", 0, None].sent_bytes == pytest.approx(a, abs=1)
    assert rows["packages", 0, None].sent_bytes == pytest.approx(sum(sizes.values()) / 2, abs=1)


def test_images_are_counted_and_not_the_films_that_they_hold(tmp_path):
    run = opened(tmp_path, {"distill.formation": 2, "distill.batch_size": 4, "distill.start": "noise"})
    found = study(run, Inquiry(own=(1,), rounds=(), seeds=2), Silence())
    assert {(row.help, row.own): row.images for row in found.rows if row.help == "package"} == {
        ("package", 0): 4,
        ("package", 1): 6,
    }


def test_a_shifted_hospital_gets_the_packages_that_the_others_sent_anyway(whole):
    folder, found = whole
    assert len(list((folder / "out/packages").iterdir())) == 2 * 2 * 2  # hospitals, seeds, natural and skewed
    for path in (folder / "out/packages").iterdir():
        assert len(open_package(path, allow_unsigned=True).images) == 4
    even, moved = (
        next(row for row in found.rows if (row.scenario, row.help, row.own) == (scenario, "package", 0))
        for scenario in ("natural", "shifted")
    )
    assert even.sent_bytes == moved.sent_bytes


def test_a_test_split_is_read_once_for_all_scenarios(tmp_path):
    inquiry = Inquiry(own=(1,), rounds=(), seeds=1, final=True)
    found = study(opened(tmp_path, {"evaluate.networks": 1}), inquiry, Silence())
    assert (found.split, found.test_reads) == ("test", 1)
    assert "no image in two of them; of patients this is not known" in render_study(found, "")
    assert "no patient in two of them" in render_study(found.model_copy(update={"patients_apart": True}), "")
    assert {row.help for row in found.rows} == {"alone", "package", "packages", "pooled"}


def test_a_finished_study_is_read_back_without_training(whole):
    folder, found = whole
    inquiry = dataclasses.replace(SMALL, shifted=str(folder / "elsewhere.npz"))
    watch = Watch()
    again = study(opened(folder), inquiry, watch)
    assert again.rows == found.rows
    assert watch.advanced == 0


def test_the_study_is_left_as_a_document_a_table_and_a_page(whole):
    folder, found = whole
    assert Study.model_validate_json((folder / "out/study.json").read_text()) == found
    table = (folder / "out/study.md").read_text()
    assert table.count("| own images alone | 1 |") == 3
    page = (folder / "out/study.html").read_text()
    assert headline(found).split(":")[0].replace("'", "&#39;") in page
    assert page.count("<svg") == 3
    assert not re.search(r"https?://", page)
    assert "films.npz" not in page


def test_classes_of_another_kind_of_images_are_checked_before_any_work(tmp_path):
    arrays = {}
    for split in ("train", "val", "test"):
        part = films((9, 9, 9))
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = part.pixels[:, 0], part.labels[:, None]
    np.savez(tmp_path / "other.npz", **arrays)
    watch = Watch()
    with pytest.raises(SourceError, match="labels up to 2"):
        study(opened(tmp_path), dataclasses.replace(SMALL, shifted=str(tmp_path / "other.npz")), watch)
    assert watch.advanced == 0


@pytest.mark.parametrize("wrong", [{"own": ()}, {"own": (5, 5)}, {"own": (0, 5)}, {"rounds": (10, 1)}])
def test_sizes_and_rounds_rise_from_one(wrong):
    with pytest.raises(RecipeError, match=r"--(own|rounds) "):
        Inquiry(**wrong)


def test_a_forecast_grows_with_what_is_asked(tmp_path):
    run = opened(tmp_path)
    small, large = (forecast(run, dataclasses.replace(SMALL, rounds=rounds)) for rounds in ((), (1, 10)))
    names = [stage.name for stage in large.stages]
    assert names == ["teachers", "distill", "small hospital", "pooled", "federation"]
    assert small.stages[-1].seconds == 0 < large.stages[-1].seconds


def test_patients_stay_whole_where_a_few_images_are_taken():
    images = LabelledImages(
        np.zeros((4, 1, 8, 8), np.uint8), np.array([0, 0, 1, 1]), ("a", "b"), np.array(["p", "p", "q", "r"])
    )
    few, rest = few_of_each(images, 1, 0)
    assert few.counts.tolist() == [1, 1]
    assert not set(few.groups.tolist()) & set(rest.groups.tolist())
