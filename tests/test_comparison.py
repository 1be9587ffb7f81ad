import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import medistill.comparison.contenders
import medistill.evaluate
import medistill.intervals
import medistill.metrics
import medistill.pipeline
from medistill.buffer import Buffer
from medistill.comparison import METHODS, Question, compare, forecast, quickened
from medistill.comparison.cells import OF_TRAJECTORIES, cell_path, lacking, recall
from medistill.comparison.contenders import sealed_as
from medistill.comparison.pages import nearest_of_class, write_pages
from medistill.comparison.question import OBJECTIVES, with_objective
from medistill.distill import distill
from medistill.errors import MatchingError, RecipeError, StorageError
from medistill.evaluate import small_arm
from medistill.evidence import Comparison
from medistill.images import LabelledImages, png_bytes
from medistill.jobs import Silence
from medistill.networks import pretrained
from medistill.package import open_package
from medistill.pipeline import open_run
from medistill.plan import Stage
from medistill.recipe import recipe_from
from toys import Watch, recipe, write_npz

QUICK = {"pretrain.steps": 4, "pretrain.batch_size": 8, "evaluate.networks": 1, "evaluate.full_epochs": 1}


@pytest.fixture(scope="module", autouse=True)
def intervals_take_no_time():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(medistill.intervals, "_RESAMPLES", 100)
        yield


def opened(folder, changes=None):
    source = folder / "films.npz"
    if not source.exists():
        write_npz(source)
    toy = recipe(QUICK | {"source.path": str(source), "machine.processes": 1} | (changes or {}))
    return open_run(toy, folder / "out")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    return folder, compare(opened(folder), Question(seeds=2), Silence())


def test_every_method_has_its_rows_with_a_protocol(whole):
    _, comparison = whole
    found = {(row.name, row.protocol) for row in comparison.rows}
    for method in ("byol", "simsiam", "skd", "mae"):
        for protocol in ("budget", "unlabelled"):
            assert {(method, protocol), (f"{method}-linear", protocol)} <= found
    for name in ("scratch", "scratch-vit", "random", "herding", "k-center", "dm", "dsa", "mtt", "pruned", "soft-label"):
        assert (name, "budget") in found
    assert {("transfer (gratings drawn here)", "budget"), ("transfer-linear (gratings drawn here)", "budget")} <= found
    assert {("full-natural", "full"), ("full-balanced", "full"), ("majority", None)} <= found
    assert len(found) == len(comparison.rows)


def test_a_row_covers_the_networks_of_every_seed(whole):
    _, comparison = whole
    assert comparison.seeds == (3, 4)
    assert {row.balanced_accuracy.n for row in comparison.rows if row.name != "majority"} == {2}
    assert {each.seed for each in comparison.pretrained} == {3, 4}


def test_every_row_has_an_interval_about_its_mean(whole):
    _, comparison = whole
    for row in comparison.rows:
        interval = row.balanced_accuracy_interval
        assert interval.low - 0.01 <= row.balanced_accuracy.mean <= interval.high + 0.01
    assert len({row.balanced_accuracy_interval for row in comparison.rows}) > 3


def test_every_figure_of_a_row_has_an_interval_and_auc_one_over_seeds(whole):
    _, comparison = whole
    for row in comparison.rows:
        found = row.intervals
        beside = [(row.accuracy, found.accuracy), (row.harmonic_mean, found.harmonic_mean)]
        for name in comparison.classes:
            beside += [(row.sensitivity[name], found.sensitivity[name])]
            beside += [(row.specificity[name], found.specificity[name])]
        if row.name == "majority":
            assert found.auc is None
        else:
            beside.append((row.auc, found.auc))
        for figure, interval in beside:
            assert interval.low - 0.03 <= figure.mean <= interval.high + 0.03
    assert len({row.intervals.accuracy for row in comparison.rows}) > 3


def test_every_row_knows_what_stands_behind_it_and_what_it_costs(whole):
    folder, comparison = whole
    sent = {row.name: row.sent_bytes for row in comparison.rows}
    assert sent["majority"] == 0 < sent["scratch"] < sent["full-natural"]
    assert sent["mtt"] == pytest.approx(
        np.mean([path.stat().st_size for path in (folder / "out/packages").glob("*-mtt-*")]), abs=1
    )
    for row in comparison.rows:
        assert np.allclose(np.sum(row.detail.confusion, axis=1), 1, atol=1e-5)
        assert (row.train_seconds > 0) == (row.name != "majority")


def test_rows_are_held_against_the_one_that_is_asked_for(whole, tmp_path):
    folder, comparison = whole
    shutil.copytree(folder / "out/cells", tmp_path / "out/cells")
    shutil.copy(folder / "films.npz", tmp_path)
    rows = {(row.name, row.protocol): row for row in comparison.rows}
    assert comparison.against == "random"
    assert {row.name for row in comparison.rows if row.above is None} == {
        "majority", "random", "scratch-vit", "mae", "mae-linear", "full-natural", "full-balanced"
    }  # fmt: skip
    asked = compare(opened(tmp_path), Question(seeds=2, against="full-balanced"), Silence())
    one = rows["mtt", "budget"]
    other = next(row for row in asked.rows if row.name == "mtt")
    assert one.above is not None
    assert other.above is not None
    assert one.above != other.above
    apart = one.balanced_accuracy.mean - rows["full-balanced", "full"].balanced_accuracy.mean
    assert other.above.low <= apart <= other.above.high
    with pytest.raises(RecipeError, match=r"--against byol: expected one of scratch, random, "):
        Question(against="byol")


def test_every_distilled_set_is_left_as_a_package(whole):
    folder, _ = whole
    sealed = sorted((folder / "out/packages").iterdir())
    assert len(sealed) == 2 * 5
    methods = {open_package(path, allow_unsigned=True).manifest.provenance.method for path in sealed}
    assert "distribution matching" in methods


def test_the_comparison_on_disk_is_the_one_returned(whole):
    folder, comparison = whole
    assert Comparison.model_validate(json.loads((folder / "out/comparison.json").read_text())) == comparison


def test_a_comparison_asked_again_trains_nothing(whole):
    folder, comparison = whole
    watch = Watch()
    assert compare(opened(folder), Question(seeds=2), watch) == comparison
    assert watch.advanced == 0


def test_the_time_to_come_is_told_from_seeds_that_took_some(whole, tmp_path):
    folder, _ = whole
    shutil.copytree(folder / "out/cells", tmp_path / "out/cells")
    shutil.copy(folder / "films.npz", tmp_path)
    watch = Watch()
    compare(opened(tmp_path), Question(methods=("scratch", "random"), seeds=4), watch)
    told = [words for words in watch.said if "table so far" in words]
    assert ["left" in words for words in told] == [True]  # two seeds were kept, the last one ends it


def test_cells_brought_from_elsewhere_give_the_same_table_and_train_nothing(whole, tmp_path):
    folder, comparison = whole
    (tmp_path / "films.npz").write_bytes((folder / "films.npz").read_bytes())
    shutil.copytree(folder / "out/cells", tmp_path / "out/cells")
    watch = Watch()
    elsewhere = compare(opened(tmp_path, {"machine.threads": 1}), Question(seeds=2), watch)
    assert elsewhere.rows == comparison.rows
    assert elsewhere.pretrained == comparison.pretrained
    assert len(elsewhere.machines) == 1
    assert watch.advanced == 0
    assert not list((tmp_path / "out").glob("work/networks/*"))
    told = "Not shown are those of"
    assert told in (tmp_path / "out/comparison.html").read_text()
    assert told not in (folder / "out/comparison.html").read_text()


def test_a_cell_of_another_recipe_source_or_split_is_not_taken(whole, tmp_path):
    folder, _ = whole
    for name, content in (("a", b"photographs"), ("b", b"photographs"), ("c", b"others")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "photographs.npz").write_bytes(content)

    def natural(name):
        return Question(natural=str(tmp_path / name / "photographs.npz"))

    run = opened(folder)
    others = (
        cell_path(opened(folder, {"evaluate.steps": 7}), natural("a"), "transfer", "validation"),
        cell_path(run, natural("a"), "transfer", "test"),
        cell_path(run, natural("c"), "transfer", "validation"),
        cell_path(run, natural("a"), "random", "validation"),
    )
    own = cell_path(run, natural("a"), "transfer", "validation")
    assert own == cell_path(run, natural("b"), "transfer", "validation")
    assert own not in others


def test_a_cell_stays_where_a_setting_of_other_methods_changes(whole):
    run = opened(whole[0])

    def moved(changes):
        other = run.with_recipe(recipe_from(run.recipe.model_dump(), changes))
        return {
            method
            for method in METHODS
            if cell_path(run, Question(), method, "test") != cell_path(other, Question(), method, "test")
        }

    objectives = {"soft-label", "dm", "dsa", "mtt", "pruned"}
    assert moved({"teachers.rate": "0.5"}) == {"mtt", "pruned"}
    assert moved({"distill.threshold": "0.7"}) == {"mtt", "pruned"}
    assert moved({"distill.image_rate": "0.7"}) == objectives
    assert moved({"pretrain.rate": "0.5"}) == {"byol", "simsiam", "skd", "mae"}
    assert moved({"evaluate.steps": "17"}) == moved({"seed": "17"}) == set(METHODS)
    assert moved({"machine.threads": "2", "name": '"other"'}) == set()


@pytest.mark.parametrize("objective", ["soft-label", "dm", "dsa"])
def test_who_follows_no_teacher_does_not_read_how_they_are_followed(whole, objective):
    """Or a cell would stay though what is in it changes."""
    changes = {"expert_epochs": 2, "min_start_epoch": 1, "first_max_start_epoch": 1, "window_steps": 5}
    changes |= {"threshold": 0.9, "similarity": "signed", "easy_error": 1.0, "easy_growth": 2.0}
    changes |= {"easy_growth_every": 1, "angle_weight": 0.1, "importance_rate": 0.5, "label_start": "class"}
    assert set(changes) == OF_TRAJECTORIES
    longer = {"distill.max_start_epoch": 1, "teachers.epochs": 4, "distill.student_steps": 2}
    run = opened(whole[0], longer | {"distill.expert_epochs": 1})
    own = with_objective(run.recipe, objective)
    other = recipe_from(own.model_dump() | {"distill": own.distill.model_dump() | changes})
    buffer = Buffer(Path("none"), 0, 0)
    one, two = (
        distill(recipe, run.splits, run.transform, buffer, None, 1, Silence()).synthetic for recipe in (own, other)
    )
    assert torch.equal(one.images, two.images)
    assert torch.equal(one.targets, two.targets)


def test_what_transfer_learns_from_is_told_by_content_split_and_folder(whole, tmp_path):
    run = opened(whole[0])

    def cell(natural):
        return cell_path(run, Question(natural=str(natural)), "transfer", "validation")

    for name, content in (("a", b"one"), ("b", b"one"), ("c", b"eleven")):
        (tmp_path / name / "dogs").mkdir(parents=True)
        (tmp_path / name / "dogs/1.png").write_bytes(content)
    file, twin = tmp_path / "a/dogs/1.png", tmp_path / "b/dogs/1.png"
    assert cell(f"{file}#train") == cell(f"{twin}#train")
    assert len({cell(file), cell(f"{file}#train"), cell(f"{file}#test")}) == 3
    assert cell(tmp_path / "a") == cell(tmp_path / "b") != cell(tmp_path / "c")


def test_one_method_that_diverges_does_not_cost_the_others_their_cells(tmp_path, monkeypatch):
    train_one = medistill.evaluate._train_one

    def random_diverges(job, *rest):
        return None if job.arm == "random@budget" else train_one(job, *rest)

    monkeypatch.setattr(medistill.evaluate, "_train_one", random_diverges)
    with pytest.raises(MatchingError, match="random@budget: a network diverged"):
        compare(opened(tmp_path), Question(methods=("scratch", "random", "full"), seeds=1), Silence())
    assert [path.name.partition("-")[0] for path in sorted((tmp_path / "out/cells").iterdir())] == ["full", "scratch"]
    watch = Watch()
    compare(opened(tmp_path), Question(methods=("scratch", "full"), seeds=1), watch)
    assert watch.advanced == 0


def test_a_distillation_that_fails_does_not_cost_the_others_their_cells(tmp_path, monkeypatch):
    def fails(*given):
        raise MatchingError("nothing is left to match")

    monkeypatch.setattr(medistill.pipeline, "distill_images", fails)
    with pytest.raises(MatchingError, match="dm: nothing is left to match"):
        compare(opened(tmp_path), Question(methods=("scratch", "dm"), seeds=1), Silence())
    assert [path.name.partition("-")[0] for path in (tmp_path / "out/cells").iterdir()] == ["scratch"]
    with pytest.raises(MatchingError, match="dm: nothing is left to match"):
        compare(opened(tmp_path), Question(methods=("dm",), seeds=1), Silence())


def test_who_is_judged_before_an_interruption_keeps_the_cell(tmp_path, monkeypatch):
    answers_of = medistill.metrics.Answers.of
    asked = []

    def interrupted(*given):
        asked.append(given)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return answers_of(*given)

    monkeypatch.setattr(medistill.metrics.Answers, "of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare(opened(tmp_path), Question(methods=("scratch", "random"), seeds=1), Silence())
    assert [path.name.partition("-")[0] for path in (tmp_path / "out/cells").iterdir()] == ["scratch"]


def test_a_damaged_cell_is_named(whole, tmp_path):
    folder, _ = whole
    path = next((folder / "out/cells").glob("random-*"))
    plain, judged = json.loads(path.read_text()), opened(folder).splits.validation
    assert recall(path, "random", judged, 1) is not None
    (row,) = plain["findings"]
    (said,) = row["answers"]
    odd = {
        "rate": 0,
        "images": -1,
        "labels": "odd",
        "name": "herding",
        "answers": [said, said],
        "seconds": float("inf"),
    }
    damages = [{"findings": broken} for broken in ([{}], None, [], [row | {"answers": []}])]
    damages += [{"findings": [row | {key: value}]} for key, value in odd.items()]
    damages += [{"findings": [row | {"answers": [said | {"auc": auc}]}]} for auc in (float("nan"), 5.0)]
    for damage in (*damages, {"pretrained": [{}]}, {"machine": 3}):
        damaged = tmp_path / path.name
        damaged.write_text(json.dumps(plain | damage))
        with pytest.raises(StorageError, match=r"cells/random-.* is damaged\. Delete it"):
            recall(damaged, "random", judged, 1)
    path.write_text(json.dumps(plain))
    with pytest.raises(StorageError, match=r"cells/random-.* is damaged"):
        recall(path, "random", judged.take(np.arange(len(judged) - 1)), 1)
    with pytest.raises(StorageError, match=r"cells/random-.* is damaged"):
        recall(path, "random", judged, 2)
    assert recall(tmp_path / "none.json", "random", judged, 1) is None


def test_one_method_more_leaves_the_others_figures(whole, tmp_path):
    folder, comparison = whole
    fewer = compare(opened(folder), Question(methods=("scratch", "byol", "random"), seeds=2), Silence())
    same = {(row.name, row.protocol): row for row in comparison.rows}
    assert all(row == same[row.name, row.protocol] for row in fewer.rows)


def test_self_supervision_at_the_budget_sees_the_images_that_scratch_sees(tmp_path, monkeypatch):
    seen, learned = {}, {}

    def note(recipe, lessons, images, *rest):
        seen.update(images)
        return {}

    def noting_arm(recipe, name, data, *rest):
        learned[name] = data
        return small_arm(recipe, name, data, *rest)

    monkeypatch.setattr(medistill.comparison.contenders, "learn_encoders", note)
    monkeypatch.setattr(medistill.comparison.contenders, "small_arm", noting_arm)
    run = opened(tmp_path)
    compare(run, Question(methods=("scratch", "skd"), seeds=1), Silence())
    assert len(seen["budget"]) == 4
    assert torch.equal(seen["budget"], learned["scratch@budget"].pixels)
    assert all((image == torch.from_numpy(run.splits.train.pixels)).all((1, 2, 3)).any() for image in seen["budget"])
    assert len(seen["all"]) == len(run.splits.train)


@pytest.mark.parametrize("unseen", ["resnet18", "resnet18bn"])
def test_an_unseen_network_gets_rows_of_its_own(tmp_path, unseen):
    run = opened(tmp_path, {"evaluate.unseen": [unseen]})
    comparison = compare(run, Question(methods=("scratch", "simsiam", "random"), seeds=1), Silence())
    rows = {(row.name, row.architecture): row for row in comparison.rows}
    assert {(f"{name}-{unseen}", unseen) for name in ("scratch", "simsiam", "simsiam-linear", "random")} <= set(rows)
    assert rows[f"scratch-{unseen}", unseen].above is not None


def test_reading_the_test_split_is_recorded_once_a_comparison(tmp_path):
    run = opened(tmp_path)
    first = compare(run, Question(methods=("scratch",), seeds=2, final=True), Silence())
    assert (first.split, first.test_reads) == ("test", 1)
    again = compare(run, Question(methods=("scratch",), seeds=2, final=True, against="scratch"), Silence())
    assert again.test_reads == 1, "the same figures held against another row are no new reading"
    assert compare(run, Question(methods=("scratch", "random"), seeds=2, final=True), Silence()).test_reads == 2
    assert compare(run, Question(methods=("scratch",), seeds=2), Silence()).split == "validation"


def test_an_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(RecipeError, match=r"--methods boyl: expected some of scratch, byol, .*, full\."):
        Question(methods=("boyl", "skd"))
    assert len(set(METHODS)) == len(METHODS) == 15


def test_the_real_images_of_a_table_take_what_its_files_take_and_not_what_the_list_does(tmp_path):
    listing = tmp_path / "films.csv"
    names = [f"{split}-{number}.png" for split in ("train", "val", "test") for number in range(24)]
    draw = np.random.default_rng(0)
    for name in names:
        Image.fromarray(draw.integers(0, 256, (8, 8), np.uint8)).save(tmp_path / name)
    lines = [f"{name},{'ill' if number % 2 else 'well'},{name.split('-')[0]}" for number, name in enumerate(names)]
    listing.write_text("path,label,split\n" + "\n".join(lines))
    run = open_run(recipe(QUICK | {"source.path": str(listing), "machine.processes": 1}), tmp_path / "out")
    found = {cost.name: cost for cost in compare(run, Question(methods=("random",), seeds=1), Silence()).costs}
    assert found["source files, all splits"].size_bytes == sum((tmp_path / name).stat().st_size for name in names)
    assert found["random"].share == found["random"].size_bytes / png_bytes(run.splits.train.pixels)


def test_what_is_sent_has_its_time_on_every_line_and_its_ratio_to_all_images(whole):
    folder, comparison = whole
    found = {cost.name: cost for cost in comparison.costs}
    assert not {"byol", "transfer (gratings drawn here)", "majority"} & set(found)
    row = next(row for row in comparison.rows if row.name == "mtt")
    assert found["mtt"].size_bytes == row.sent_bytes
    assert found["mtt"].share == row.sent_bytes / found["full-natural"].size_bytes > 1  # toy films are very small
    assert found["mtt"].transmission_seconds["10 Mbit/s"] == pytest.approx(row.sent_bytes / 1_250_000)
    assert found["training images as PNG files"].size_bytes == found["full-natural"].size_bytes
    assert found["source files, all splits"].size_bytes == (folder / "films.npz").stat().st_size
    assert "| source files, all splits |" in (folder / "out/comparison.md").read_text()


def test_bytes_are_those_of_png_files():
    flat, noise = (
        np.zeros((2, 1, 16, 16), np.uint8),
        np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16), np.uint8),
    )
    assert png_bytes(flat) < 2 * 120
    assert png_bytes(noise) > 2 * 3 * 16 * 16


def test_a_quick_comparison_is_smaller_in_everything_that_takes_time():
    whole = recipe(
        {
            "evaluate.steps": 300,
            "teachers.count": 10,
            "teachers.epochs": 12,
            "distill.outer_steps": 400,
            "distill.student_steps": 20,
            "distill.expert_epochs": 3,
            "distill.max_start_epoch": 9,
            "distill.formation": 2,
            "distill.batch_size": 8,
            "evaluate.unseen": ["resnet18"],
        }
    )
    small = quickened(whole)
    assert small.teachers.count < whole.teachers.count
    assert small.distill.outer_steps < whole.distill.outer_steps
    assert small.pretrain.steps < whole.pretrain.steps
    assert small.evaluate.steps < whole.evaluate.steps
    assert small.evaluate.unseen == ()
    assert quickened(small) == small
    window = small.distill
    assert (window.first_max_start_epoch, window.window_steps) == (window.min_start_epoch, window.outer_steps)
    assert small.distill.student_steps < whole.distill.student_steps
    assert small.distill.inner_rate == 2 * whole.distill.inner_rate  # half as many steps lead as far
    assert small.distill.expert_epochs < whole.distill.expert_epochs
    assert small.last_teacher_epoch == small.teachers.epochs < whole.teachers.epochs
    assert (small.distill.formation, small.distill.batch_size) == (1, None)
    one_film = recipe_from(whole.model_dump() | {"distill": whole.distill.model_dump() | {"formation": 1}})
    assert quickened(one_film).distill.batch_size == 8
    pool = recipe_from({"teachers": {"also": ["vit", "vgg11", "resnet18", "vit"]}})
    assert quickened(pool).teachers.count == 5
    own = recipe_from(whole.model_dump() | {"distill": whole.distill.model_dump() | {"window_steps": 7}})
    assert quickened(own).distill.window_steps == 7
    late = {"min_start_epoch": 6, "first_max_start_epoch": 7, "window_steps": 7}
    own = recipe_from(whole.model_dump() | {"distill": whole.distill.model_dump() | late})
    assert quickened(own).distill.min_start_epoch <= quickened(own).last_teacher_epoch


def test_transfer_is_named_after_its_images(tmp_path):
    run = opened(tmp_path)
    question = Question(methods=("transfer",), seeds=1, natural=str(tmp_path / "films.npz"))
    names = [row.name for row in compare(run, question, Silence()).rows]
    assert names == ["majority", "transfer (films.npz)", "transfer-linear (films.npz)"]
    assert dataclasses.replace(question, methods=("full",)).methods == ("full",)


def test_the_nearest_real_image_is_of_the_same_class_and_at_the_least_distance():
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (12, 1, 8, 8), np.uint8)
    real = LabelledImages(pixels, np.arange(12) % 2, ("a", "b"))
    images = np.clip(pixels[[5, 6]] / np.float32(255) + draw.normal(0, 0.02, (2, 1, 8, 8)), 0, 1).astype(np.float32)
    assert nearest_of_class(images, np.array([1, 0]), real).tolist() == [5, 6]
    assert nearest_of_class(images, np.array([0, 1]), real)[0] % 2 == 0


def test_one_page_is_for_others_and_shows_no_real_image(whole):
    folder, comparison = whole
    write_pages(opened(folder), comparison)
    page, own = ((folder / "out" / name).read_text() for name in ("comparison.html", "holder.html"))
    assert page.count("data:image/png") == 5
    assert own.count("data:image/png") == 10
    assert "shows real patients" in own
    assert "nearest real" not in page
    assert "shows real patients" not in page
    assert str(folder) not in page + own


def test_budgets_stand_below_one_another_and_share_what_all_images_taught(tmp_path):
    run = opened(tmp_path)
    watch = Watch()
    comparison = compare(run, Question(methods=("random", "byol", "full"), ipcs=(1, 2), seeds=1), watch)
    assert [(row.name, row.ipc) for row in comparison.rows if row.name == "random"] == [("random", 1), ("random", 2)]
    assert [row.ipc for row in comparison.rows if row.protocol == "full"] == [None, None]
    learned = [(each.protocol, each.images) for each in comparison.pretrained]
    assert learned == [("budget", 2), ("unlabelled", len(run.splits.train)), ("budget", 4)]
    assert "labelled images a class" in (run.out / "comparison.html").read_text()
    again = compare(run, Question(methods=("full",), ipcs=(2,), seeds=1), Silence())
    assert again.rows[-2:] == comparison.rows[-2:]
    other = Question(methods=("random", "full"), ipcs=(2, 3), seeds=1)
    (left,) = lacking(run, other)
    assert (left.recipe.distill.ipc, left.methods) == (3, ("random",))


def test_an_odd_budget_is_refused():
    for ipcs in ((0,), (2, 2)):
        with pytest.raises(RecipeError, match="--ipc"):
            Question(ipcs=ipcs)


def test_transfer_begins_with_weights_of_timms_where_they_are_given(tmp_path):
    timm = pretrained._timm()
    save_file(timm.create_model("resnet10t", pretrained=False).state_dict(), tmp_path / "theirs.safetensors")
    run = opened(tmp_path)
    question = Question(("transfer",), seeds=1, weights=str(tmp_path / "theirs.safetensors"), timm="resnet10t")
    rows = compare(run, question, Silence()).rows[1:]
    assert [row.name for row in rows] == [
        "transfer (resnet10t, theirs.safetensors)",
        "transfer-linear (resnet10t, theirs.safetensors)",
    ]
    assert {row.architecture for row in rows} == {"resnet10t (timm)"}


def test_a_forecast_counts_what_a_comparison_will_train(tmp_path):
    run = opened(tmp_path)
    one = forecast(run, Question(("random", "mtt", "byol", "mae", "full"), seeds=1))
    names = [stage.name for stage in one.stages]
    assert names == [
        "teachers",
        "mtt, 2 a class",
        "byol pre-training",
        "mae pre-training",
        "networks, 2 a class",
        "networks, all images",
    ]
    assert all(stage.seconds > 0 and stage.memory_bytes > 0 for stage in one.stages)
    few = forecast(run, Question(("random",), (1, 2), seeds=2))
    assert [stage.name for stage in few.stages] == ["networks, 1 a class", "networks, 2 a class"]
    chosen = forecast(run, Question(("herding", "k-center"), seeds=1)).stages
    assert [stage.name for stage in chosen] == ["networks, 2 a class", "networks, all images"]
    assert not (run.out / "work").exists()


def test_the_predicted_disk_is_what_kept_networks_take(tmp_path):
    run, question = opened(tmp_path), Question(("random", "byol", "simsiam", "full"), seeds=1)
    predicted = forecast(run, question).disk_bytes
    compare(run, question, Silence())
    files = (run.out / "work").rglob("*.safetensors")  # of toys, what a file says of its tensors is as long as they are
    taken = sum(each.nbytes for path in files for each in load_file(path).values())
    assert predicted == pytest.approx(taken, rel=0.1)


def test_a_forecast_trains_on_films_where_images_hold_several(tmp_path, monkeypatch):
    asked = {}

    def note(run, name, trainings):
        asked[name] = [each.images for each in trainings]
        return Stage(name, 1.0, 1, 1)

    monkeypatch.setattr(sys.modules[forecast.__module__], "side_by_side", note)
    run = opened(tmp_path, {"distill.formation": 2, "distill.batch_size": 4})
    forecast(run, Question(("random", "mtt"), seeds=1))
    assert asked == {"networks, 2 a class": [4, 16]}  # 2 classes of 2 images, and of 2 x 2 x 2 films


def test_a_forecast_leaves_out_what_cells_answer(whole, tmp_path):
    run = opened(whole[0])
    assert forecast(run, Question(seeds=2)).stages == ()
    shutil.copytree(run.out / "cells", tmp_path / "out/cells")
    next((tmp_path / "out/cells").glob("byol-*")).unlink()
    left = forecast(opened(tmp_path), Question(seeds=2))
    assert [stage.name for stage in left.stages] == ["byol pre-training", "networks, 2 a class"]


def test_who_moves_the_pixels_once_in_an_outer_step_gets_as_many_student_steps_in_all():
    ours = recipe_from({"distill": {"outer_steps": 200, "student_steps": 20, "inner_rate": 0.02}})
    for objective in ("dm", "dsa"):
        theirs = with_objective(ours, objective).distill
        assert (theirs.outer_steps, theirs.student_steps, theirs.inner_rate) == (400, 10, 0.04)
        assert with_objective(quickened(ours), objective).distill.outer_steps == quickened(ours).distill.outer_steps
    assert with_objective(ours, "soft-label").distill.outer_steps == 200


def test_a_larger_budget_takes_more_outer_steps_unless_the_recipe_counts_them(tmp_path):
    question = Question(ipcs=(10, 20), seeds=2)
    source, few = {"path": str(write_npz(tmp_path / "films.npz"))}, {"ipc": 2, "start": "noise"}
    small = {"source": source, "network": {"depth": 2}, "distill": few}
    uncounted = open_run(recipe_from(small), tmp_path / "out").recipe
    assert [turn.recipe.distill.outer_steps for turn in question.turns(uncounted)] == [100, 200, 100, 200]
    counted = open_run(recipe_from(small | {"distill": few | {"outer_steps": 100}}), tmp_path / "out").recipe
    assert {turn.recipe.distill.outer_steps for turn in question.turns(counted)} == {100}


def test_gradient_matching_looks_from_young_networks_however_late_teachers_are_followed():
    late = recipe_from({"distill": {"student_steps": 20, "min_start_epoch": 5}})
    assert with_objective(late, "mtt").distill.max_start_epoch == late.distill.max_start_epoch > 4
    short = recipe_from({"distill": {"student_steps": 10}})
    assert {with_objective(each, "dsa").distill.max_start_epoch for each in (late, short)} == {4}


def test_labels_begin_at_teachers_only_where_there_are_teachers():
    ours = recipe_from({"distill": {"label_start": "teachers"}})
    starts = {objective: with_objective(ours, objective).distill.label_start for objective in OBJECTIVES}
    assert starts == {"mtt": "teachers", "pruned": "teachers", "soft-label": "class", "dm": "class", "dsa": "class"}


def test_a_comparison_gives_class_offsets_to_those_whom_they_help():
    ours = recipe_from({"distill": {"class_offsets": True}})
    assert with_objective(ours, "mtt").distill.states_offsets
    assert not with_objective(ours, "dm").distill.states_offsets
    assert not with_objective(recipe_from({"distill": {"class_offsets": False}}), "mtt").distill.states_offsets


def test_what_was_distilled_from_other_images_lies_elsewhere(tmp_path):
    ours = opened(tmp_path)
    theirs = dataclasses.replace(ours, fingerprint="0" * 64)
    assert sealed_as(ours, "dm") == sealed_as(dataclasses.replace(ours), "dm") != sealed_as(theirs, "dm")
