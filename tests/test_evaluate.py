import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load

import medistill.evaluate
import medistill.intervals
from medistill.errors import MatchingError, RecipeError
from medistill.evaluate import (
    Arm,
    Bench,
    RandomImages,
    Trained,
    Training,
    evaluate,
    mean_score,
    standard_arms,
    synthetic_arm,
    train_all,
)
from medistill.images import LabelledImages
from medistill.jobs import Silence
from medistill.networks import build
from medistill.recipe import Recipe
from medistill.synthetic import SyntheticSet, starting_set
from medistill.train import TrainingSet
from toys import TRANSFORM, Watch, films, grow_old, recipe

VALIDATION, JUDGED = films((6, 6), seed=1), films((15, 15), seed=2)


@pytest.fixture(autouse=True)
def intervals_take_no_time(monkeypatch) -> None:
    monkeypatch.setattr(medistill.intervals, "_RESAMPLES", 100)


def made(toy: Recipe, real: LabelledImages | None = None) -> SyntheticSet:
    real = real or films()
    return starting_set(toy.distill, real, TRANSFORM, seed=0)


def bench(toy: Recipe, folder: Path | None = None, validation: LabelledImages | None = VALIDATION) -> Bench:
    return Bench(toy, validation, folder, processes=1)


def rows(toy: Recipe, folder: Path | None = None, progress: Silence | None = None, **changes: Any):
    real = changes.get("real", films())
    arms = standard_arms(toy, real, made(toy, real))
    return evaluate(bench(toy, folder), arms, JUDGED, "test", progress or Silence())


def full(name: str, toy: Recipe, real: LabelledImages, epochs: int = 2) -> Arm:
    return Arm(name, TrainingSet.of(real, TRANSFORM), toy.network.architecture, epochs)


def test_networks_trained_on_all_images_recognize_separable_classes():
    toy = recipe({"evaluate.full_epochs": 8})
    found = {row.name: row for row in rows(toy, real=films((30, 30)))}
    for name in ("full-natural", "full-balanced", "full"):
        assert found[name].accuracy.mean > 0.9
        assert found[name].auc.mean > 0.9


def test_rows_come_in_their_order_and_say_what_they_are():
    found = rows(recipe({"evaluate.unseen": ["resnet18"]}))
    assert [(row.name, row.architecture, row.images) for row in found] == [
        ("random", "convnet", 4),
        ("distilled", "convnet", 4),
        ("full-natural", "convnet", 24),
        ("full-balanced", "convnet", 24),
        ("random-resnet18", "resnet18", 4),
        ("distilled-resnet18", "resnet18", 4),
        ("full", "convnet", 24),
    ]
    assert {row.split for row in found} == {"test"}
    assert {row.accuracy.n for row in found} == {2}
    assert {row.rate for row in found} == {0.03}
    assert [row.same_as for row in found[:-1]] == [None] * 6


def test_a_row_counts_images_and_not_the_films_that_they_hold():
    found = {row.name: row.images for row in rows(recipe({"distill.formation": 2, "distill.batch_size": 8}))}
    assert (found["distilled"], found["random"]) == (4, 4)


def test_the_interval_of_a_row_is_of_what_its_networks_said(monkeypatch):
    heard = []

    def draws_of(said, judged, seed):
        heard.append((said, judged))
        return np.linspace(0.2, 0.4, 1001)

    monkeypatch.setattr(medistill.intervals, "draws_of", draws_of)
    (row,) = rows(recipe({"evaluate.rows": ["distilled"]}))
    assert (row.balanced_accuracy_interval.low, row.balanced_accuracy_interval.high) == pytest.approx((0.205, 0.395))
    ((said,), judged) = heard[0]
    recalls = [[(each.guess[judged.labels == label] == label).mean() for label in (0, 1)] for each in said]
    assert row.balanced_accuracy.mean == pytest.approx(np.mean(recalls))


@pytest.mark.parametrize("better", ["full-natural", "full-balanced"])
def test_the_full_row_repeats_the_one_that_did_better_on_validation(monkeypatch, better):
    monkeypatch.setattr(medistill.evaluate, "mean_score", lambda bench, arm, networks: float(arm.name == better))
    found = {row.name: row for row in rows(recipe(), real=films((8, 30)))}
    assert found["full"].same_as == better
    assert found["full"] == found[better].model_copy(update={"name": "full", "same_as": better})
    assert found["full-natural"].accuracy != found["full-balanced"].accuracy


def test_with_one_full_arm_the_full_row_repeats_it_and_with_none_there_is_none():
    toy = recipe()
    found = evaluate(bench(toy), [full("full-natural", toy, films())], JUDGED, "test", Silence())
    assert [(row.name, row.same_as) for row in found] == [("full-natural", None), ("full", "full-natural")]
    assert len(evaluate(bench(toy), [synthetic_arm(toy, made(toy))], JUDGED, "test", Silence())) == 1


def test_a_recipe_chooses_the_rows_of_its_table():
    toy = recipe({"evaluate.rows": ["random", "distilled"]})
    assert [arm.name for arm in standard_arms(toy, films(), made(toy))] == ["random", "distilled"]


def test_learned_labels_are_judged_beside_the_same_images_with_hard_ones():
    toy = recipe({"evaluate.rows": ["distilled"]})
    soft = dataclasses.replace(made(toy), targets=torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.1, 0.9]]))
    learned, hard = standard_arms(toy, films(), soft)
    assert (learned.name, hard.name) == ("distilled", "distilled-hard")
    assert torch.equal(hard.data.targets.argmax(1), torch.tensor([0, 0, 1, 1]))
    assert hard.data.has_hard_labels
    assert torch.equal(hard.data.pixels, learned.data.pixels)


def test_networks_where_one_diverged_have_no_score():
    toy = recipe()
    arm = full("full-natural", toy, films())
    trained = Trained(build(toy.network, 1, 8, 2).initial(0), seconds=0.0)
    assert mean_score(bench(toy), arm, [trained, None]) is None
    assert mean_score(bench(toy), arm, [trained, trained]) is not None


def test_small_sets_take_as_many_steps_as_stated():
    toy = recipe({"evaluate.steps": 7, "evaluate.batch_size": 3})
    arm = synthetic_arm(toy, made(toy))
    assert (len(arm.data), arm.epochs) == (4, 4)  # two batches an epoch, so seven steps need four epochs


def test_networks_of_every_arm_begin_with_the_same_parameters_and_replicas_with_others(monkeypatch):
    begun: list[torch.Tensor] = []
    real_train = medistill.evaluate.train

    def note(network, state, *rest: Any):
        begun.append(state.params.clone())
        return real_train(network, state, *rest)

    monkeypatch.setattr(medistill.evaluate, "train", note)
    rows(recipe({"evaluate.networks": 3}))
    assert len(begun) == 4 * 3
    distinct = {params.numpy().tobytes() for params in begun}
    assert len(distinct) == 3
    assert all(sum(params.numpy().tobytes() == one for params in begun) == 4 for one in distinct)


def test_the_search_and_the_final_networks_are_different_networks(monkeypatch):
    toy = recipe()
    arm = full("full-natural", toy, films())
    jobs = [Training(arm.name, 0.03, role, 0) for role in ("search", "final")]
    one, two = train_all(bench(toy), [arm], jobs).values()
    assert not torch.equal(one.params, two.params)


def test_each_network_of_the_random_row_gets_images_of_its_own():
    random = RandomImages(films((20, 20)), TRANSFORM, (5, 5))
    draws = [random.draw(seed) for seed in (0, 0, 1)]
    assert torch.equal(draws[0].pixels, draws[1].pixels)
    assert not torch.equal(draws[0].pixels, draws[2].pixels)
    for data in draws:
        assert data.targets.sum(0).tolist() == [5, 5]
        assert len({pixels.numpy().tobytes() for pixels in data.pixels}) == 10


def test_a_random_subset_refuses_classes_that_are_too_small():
    toy = recipe({"distill.ipc": 5, "distill.start": "noise"})
    arm = Arm("random", RandomImages(films((10, 4)), TRANSFORM, (5, 5)), "convnet", 1)
    with pytest.raises(RecipeError, match=r"Class class 1 has 4 training image\(s\), fewer than the 5 of the set"):
        evaluate(bench(toy), [arm], JUDGED, "test", Silence())


def test_soft_labels_are_reported_as_soft():
    toy = recipe()
    hard = made(toy)
    soft = dataclasses.replace(hard, targets=hard.targets * 0.8 + 0.1)
    for synthetic, labels in ((hard, "hard"), (soft, "soft")):
        (row,) = evaluate(bench(toy), [synthetic_arm(toy, synthetic)], JUDGED, "test", Silence())
        assert row.labels == labels


def test_a_single_rate_needs_no_validation_images():
    toy = recipe()
    arms = [synthetic_arm(toy, made(toy))]
    without = evaluate(bench(toy, validation=None), arms, JUDGED, "test", Silence())
    assert without == evaluate(bench(toy), arms, JUDGED, "test", Silence())


def test_several_rates_without_validation_images_are_refused():
    toy = recipe({"evaluate.rates": [0.01, 0.03]})
    with pytest.raises(RecipeError, match=r"no validation images to choose on\. Name one"):
        evaluate(bench(toy, validation=None), [full("full", toy, films())], JUDGED, "test", Silence())


def test_the_rate_is_the_one_that_does_best_on_validation():
    toy = recipe({"evaluate.rates": [1e-9, 0.03], "evaluate.search_networks": 2})
    (row, _) = evaluate(bench(toy), [full("full-natural", toy, films((30, 30)), epochs=8)], JUDGED, "test", Silence())
    assert row.rate == 0.03
    assert row.accuracy.mean > 0.9


def test_the_rate_is_chosen_without_the_judged_images(monkeypatch):
    """Judged images whose labels are all swapped leave the choice as it was."""
    toy = recipe({"evaluate.rates": [1e-9, 0.03]})
    swapped = dataclasses.replace(JUDGED, labels=1 - JUDGED.labels)
    (row, _) = evaluate(bench(toy), [full("full-natural", toy, films((30, 30)), epochs=8)], swapped, "test", Silence())
    assert row.rate == 0.03
    assert row.accuracy.mean < 0.1


def with_rates(*rates):
    """A recipe with rates beyond what one may name, at which even a toy diverges."""
    toy = recipe()
    return toy.model_copy(update={"evaluate": toy.evaluate.model_copy(update={"rates": rates})})


def test_a_rate_that_diverges_is_not_chosen():
    toy = with_rates(0.03, 1e30)
    (row, _) = evaluate(bench(toy), [full("full-natural", toy, films())], JUDGED, "test", Silence())
    assert row.rate == 0.03


def test_an_arm_that_diverges_at_every_rate_is_told():
    for rates, said in (((1e29, 1e30), "full-natural: training diverged at every rate"), ((1e30,), "at rate 1e\\+30")):
        toy = with_rates(*rates)
        with pytest.raises(MatchingError, match=said):
            evaluate(bench(toy), [full("full-natural", toy, films())], JUDGED, "test", Silence())


def test_the_same_recipe_gives_the_same_rows():
    assert rows(recipe()) == rows(recipe())
    assert rows(recipe()) != rows(recipe({"seed": 4}))


SEARCHING = {"evaluate.rates": [0.01, 0.03], "evaluate.networks": 2}


def test_kept_networks_are_not_trained_again(tmp_path):
    first, second = Watch(), Watch()
    one, two = (rows(recipe(SEARCHING), tmp_path, watch) for watch in (first, second))
    assert one == two == rows(recipe(SEARCHING))
    assert [(task, done) for task, _, done in first.begun] == [("rate search", 0), ("networks", 0)]
    assert first.advanced == sum(total for _, total, _ in first.begun)
    assert second.advanced == 0
    assert all(total == done > 0 for _, total, done in second.begun)


@pytest.mark.parametrize("kept", [0, 7, 300])
def test_a_damaged_network_is_trained_again(tmp_path, kept):
    found = rows(recipe(), tmp_path)
    before = {path.name: load(path.read_bytes())["params"] for path in tmp_path.iterdir()}
    (damaged,) = tmp_path.glob("distilled-final-1-*")
    damaged.write_bytes(damaged.read_bytes()[:kept])
    (half := tmp_path / "half.partial").write_bytes(b"half")
    grow_old(half)
    watch = Watch()
    assert rows(recipe(), tmp_path, watch) == found
    assert watch.advanced == 4 * 4  # four images, four epochs
    after = {path.name: load(path.read_bytes())["params"] for path in tmp_path.iterdir()}
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 4},
        {"network.width": 8},
        {"augment.flip": True},
        {"evaluate.momentum": 0.5},
        {"evaluate.weight_decay": 0.0},
        {"evaluate.schedule": "constant"},
        {"evaluate.batch_size": 4},
        {"evaluate.rates": [0.02]},
    ],
)
def test_a_kept_network_of_another_recipe_is_not_taken(tmp_path, changes):
    synthetic = made(recipe())
    for toy in (recipe(), recipe(changes)):
        watch = Watch()
        evaluate(bench(toy, tmp_path), [synthetic_arm(toy, synthetic)], JUDGED, "test", watch)
        ((_, total, done),) = watch.begun
        assert (watch.advanced, done) == (total, 0)


def test_a_kept_network_of_other_images_or_labels_is_not_taken(tmp_path):
    toy = recipe()
    synthetic = made(toy)
    others = [
        dataclasses.replace(synthetic, images=synthetic.images + 0.1),
        dataclasses.replace(synthetic, targets=synthetic.targets.flip(1)),
    ]
    for one in (synthetic, *others):
        watch = Watch()
        evaluate(bench(toy, tmp_path), [synthetic_arm(toy, one)], JUDGED, "test", watch)
        assert watch.begun == [("networks", 32, 0)]
    assert len(list(tmp_path.iterdir())) == 3 * 2


def test_a_kept_network_with_another_beginning_is_not_taken(tmp_path):
    toy = recipe()
    plain = synthetic_arm(toy, made(toy))
    network = build(toy.network, 1, 8, 2)
    size = network.size - network.head_size
    arms = [
        plain,
        dataclasses.replace(plain, pretrained=torch.zeros(size)),
        dataclasses.replace(plain, pretrained=torch.ones(size)),
        dataclasses.replace(plain, pretrained=torch.ones(size), only_head=True),
    ]
    for arm in arms:
        watch = Watch()
        evaluate(bench(toy, tmp_path), [arm], JUDGED, "test", watch)
        assert watch.begun == [("networks", 32, 0)]


def test_rows_that_no_distillation_enters_are_shared_by_recipes_that_differ_only_in_it(tmp_path):
    rows(recipe(), tmp_path)
    watch = Watch()
    rows(recipe({"distill.outer_steps": 100, "distill.inner_rate": 0.5}), tmp_path, watch)
    assert watch.advanced == 0


def test_an_interrupted_evaluation_continues(tmp_path):
    class Stop(Exception):
        pass

    class Halfway(Silence):
        def __init__(self) -> None:
            self.seen = 0

        def advance(self, count: int) -> None:
            self.seen += count
            if self.seen > 120:
                raise Stop

    with pytest.raises(Stop):
        rows(recipe(), tmp_path, Halfway())
    kept = len(list(tmp_path.iterdir()))
    assert 0 < kept < 8
    watch = Watch()
    assert rows(recipe(), tmp_path, watch) == rows(recipe())
    assert watch.begun[0][2] > 0
    assert len(list(tmp_path.iterdir())) == 8


def test_figures_are_those_of_the_judged_images_alone():
    toy = recipe({"evaluate.networks": 1})
    arm = full("full-natural", toy, films())
    whole = evaluate(bench(toy), [arm], JUDGED, "test", Silence())[0]
    halves = [
        evaluate(bench(toy), [arm], JUDGED.take(np.arange(30)[part]), "test", Silence())[0]
        for part in (slice(0, 15), slice(15, 30))
    ]
    assert whole.accuracy.mean == pytest.approx(np.mean([half.accuracy.mean for half in halves]))
