import json

import pytest

from medistill.errors import MatchingError
from medistill.jobs import Silence
from medistill.pipeline import open_run
from medistill.recipe import read_recipe
from medistill.tuning import _with, candidates, tune
from toys import Watch, recipe, write_npz


def opened(folder, changes=None):
    source = folder / "films.npz"
    if not source.exists():
        write_npz(source)
    return open_run(recipe({"source.path": str(source), "machine.processes": 1} | (changes or {})), folder / "out")


def test_candidates_begin_with_the_recipe_and_keep_its_teachers():
    toy = recipe({"teachers.epochs": 6, "distill.max_start_epoch": 4})
    found = candidates(toy, 30)
    assert found[0] == {}
    assert candidates(toy, 1) == [{}]
    assert found == candidates(toy, 30)
    assert found[:5] == candidates(toy, 5)
    assert found[1:] != candidates(recipe({"teachers.epochs": 6, "distill.max_start_epoch": 4, "seed": 4}), 30)[1:]
    for one in found[1:]:
        assert one["expert_epochs"] + one["max_start_epoch"] == 6
        assert 0.25 <= one["image_rate"] / toy.distill.image_rate <= 4
        way = one["inner_rate"] * one["student_steps"]
        assert 0.24 <= way / (toy.distill.inner_rate * toy.distill.student_steps) <= 4.1  # rates have two digits
    assert {one["expert_epochs"] for one in found[1:]} == {1, 2, 3}
    # Even a handful does not fall into one corner.
    assert {one["student_steps"] for one in found[1:5]} == {5, 10, 20, 40}
    assert sum(one["image_rate"] > toy.distill.image_rate for one in found[1:5]) == 2


def test_an_objective_without_teachers_is_asked_for_rates_alone():
    for one in candidates(recipe({"distill.objective": "dsa"}), 4)[1:]:
        assert set(one) == {"image_rate", "inner_rate"}
    for one in candidates(recipe({"distill.objective": "dm"}), 4)[1:]:
        assert set(one) == {"image_rate"}, "DM trains no student"


@pytest.mark.parametrize(
    "changes",
    [
        {"distill.angle_weight": 1.0},
        {"distill.min_start_epoch": 3},
        {"distill.window_steps": 5, "distill.first_max_start_epoch": 4},
    ],
)
def test_every_candidate_is_a_recipe(changes):
    toy = recipe({"teachers.epochs": 6, "distill.max_start_epoch": 4} | changes)
    for one in candidates(toy, 30):
        _with(toy, one)


def test_the_best_trial_becomes_a_recipe_that_can_be_read(tmp_path):
    run = opened(tmp_path)
    found, tuned = tune(run, 3, 2, Silence())
    best = max(found, key=lambda trial: trial.score)
    assert tuned.distill.model_dump() == run.recipe.distill.model_dump() | best.settings
    assert tuned.distill.outer_steps == run.recipe.distill.outer_steps
    written = read_recipe(run.out / "tuned.toml", {"source.path": str(tmp_path / "films.npz")})
    assert written.distill == tuned.distill
    kept = json.loads((run.out / "tuning.json").read_text())
    assert [entry["score"] for entry in kept] == [trial.score for trial in found]


def test_a_search_asked_again_repeats_nothing(tmp_path):
    first, _ = tune(opened(tmp_path), 2, 2, Silence())
    watch = Watch()
    second, _ = tune(opened(tmp_path), 2, 2, watch)
    assert first == second
    assert watch.advanced == 0


def test_a_trial_that_diverges_is_no_winner_and_all_of_them_are_refused(tmp_path, monkeypatch):
    real = opened(tmp_path)
    import medistill.tuning

    def diverges(run, progress):
        raise MatchingError("ten steps in a row")

    monkeypatch.setattr(medistill.tuning.pipeline, "distill_images", diverges)
    with pytest.raises(MatchingError, match="Every trial failed"):
        tune(real, 2, 2, Silence())
