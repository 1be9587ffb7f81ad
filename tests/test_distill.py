import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import medistill.distill
import medistill.evaluate
import medistill.objectives
from medistill.buffer import Buffer, write_trajectory
from medistill.canvas import canvas_of, painted
from medistill.distill import Distilled, distill, finished
from medistill.errors import MatchingError, RecipeError, StorageError
from medistill.images import LabelledImages, Splits
from medistill.jobs import Silence
from medistill.leaning import class_offsets
from medistill.matching.adjoint import Gradient, trajectory_gradient
from medistill.metrics import balanced_accuracy
from medistill.networks import build
from medistill.recipe import Recipe
from medistill.synthetic import SyntheticSet
from medistill.teachers import train_teachers
from medistill.train import TrainingSet, predict
from toys import TRANSFORM, PowerCut, Watch, films, recipe, splits

CHECKPOINT = "checkpoint.safetensors"


@pytest.fixture(scope="module")
def buffer(tmp_path_factory) -> Buffer:
    return train_teachers(recipe(), splits().train, TRANSFORM, tmp_path_factory.mktemp("buffer"), 1, Silence())


@pytest.fixture
def every_step_is_stored(monkeypatch) -> None:
    monkeypatch.setattr(medistill.distill, "_CHECKPOINT_EVERY", 1)


class Gradients:
    """Stands in for the exact gradient: notes every one, and spoils those of some steps."""

    def __init__(self, spoiled: range | tuple[int, ...] = (), part: str = "value", number: float = math.nan) -> None:
        self.calls: list[dict[str, Any]] = []
        self.found: list[Gradient] = []
        self.spoiled, self.part, self.number = spoiled, part, number

    def __call__(self, network, start, images, targets, log_rate, steps, objective, *memory) -> Gradient:
        self.calls.append(
            {"images": images.clone(), "targets": targets.clone(), "steps": steps, "rate": log_rate.exp()}
        )
        gradient = trajectory_gradient(network, start, images, targets, log_rate, steps, objective, *memory)
        if len(self.calls) in self.spoiled:
            spoiled = getattr(gradient, self.part).clone()
            spoiled.view(-1)[0] = self.number
            gradient = dataclasses.replace(gradient, **{self.part: spoiled})
        self.found.append(gradient)
        return gradient


def watched(monkeypatch, **spoil: Any) -> Gradients:
    gradients = Gradients(**spoil)
    monkeypatch.setattr(medistill.objectives, "trajectory_gradient", gradients)
    return gradients


def distilled(
    toy: Recipe,
    buffer: Buffer,
    folder: Path | None = None,
    progress: Silence | None = None,
    parts: Splits | None = None,
) -> Distilled:
    return distill(toy, parts or splits(), TRANSFORM, buffer, folder, 1, progress or Silence())


def same(one: Distilled, two: Distilled) -> bool:
    return (
        one.log == two.log
        and one.selected_step == two.selected_step
        and one.synthetic.inner_rate == two.synthetic.inner_rate
        and torch.equal(one.synthetic.images, two.synthetic.images)
        and torch.equal(one.synthetic.targets, two.synthetic.targets)
    )


VARIANTS = [
    {"distill.optimizer": "adam"},
    {"distill.optimizer": "sgd", "distill.image_momentum": 0.5},
    {"distill.optimizer": "sgd", "distill.image_momentum": 0.0},
    {"distill.learn_labels": True, "distill.ema": 0.5, "distill.batch_size": 3},
    {"distill.smoothness": 1.0, "distill.formation": 2},
    {"distill.smoothness": 1.0, "distill.ema": 0.5},
]


@pytest.mark.parametrize("changes", VARIANTS)
def test_the_same_recipe_gives_the_same_bytes(tmp_path, buffer, changes):
    toy = recipe(changes)
    one, two = (distilled(toy, buffer, tmp_path / name) for name in ("one", "two"))
    assert same(one, two)
    assert (tmp_path / "one" / CHECKPOINT).read_bytes() == (tmp_path / "two" / CHECKPOINT).read_bytes()
    assert not same(one, distilled(recipe(changes | {"seed": 4}), buffer))


@pytest.mark.parametrize("changes", VARIANTS)
@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.usefixtures("every_step_is_stored")
def test_an_interrupted_distillation_resumes_to_the_same_bytes_and_log(tmp_path, buffer, changes, step):
    toy = recipe(changes)
    whole = distilled(toy, buffer, tmp_path / "whole")
    with pytest.raises(PowerCut):
        distilled(toy, buffer, tmp_path / "cut", Watch(power_fails_after=step))
    watch = Watch()
    resumed = distilled(toy, buffer, tmp_path / "cut", watch)
    assert watch.begun == [("distill", 3, step)]
    assert watch.advanced == 3 - step
    assert same(resumed, whole)
    assert (tmp_path / "cut" / CHECKPOINT).read_bytes() == (tmp_path / "whole" / CHECKPOINT).read_bytes()


def test_a_distillation_cut_between_checkpoints_repeats_the_steps_since_the_last(tmp_path, buffer):
    whole = distilled(recipe(), buffer)
    with pytest.raises(PowerCut):
        distilled(recipe(), buffer, tmp_path, Watch(power_fails_after=2))
    assert same(distilled(recipe(), buffer, tmp_path), whole)


def test_a_finished_distillation_is_read_and_not_repeated(tmp_path, buffer, monkeypatch):
    whole = distilled(recipe(), buffer, tmp_path)
    gradients = watched(monkeypatch)
    assert same(distilled(recipe(), buffer, tmp_path), whole)
    found = finished(recipe(), splits(), TRANSFORM, tmp_path)
    assert found is not None
    assert same(found, whole)
    assert gradients.calls == []


@pytest.mark.usefixtures("every_step_is_stored")
def test_an_unfinished_distillation_has_no_result(tmp_path, buffer):
    assert finished(recipe(), splits(), TRANSFORM, tmp_path) is None
    with pytest.raises(PowerCut):
        distilled(recipe(), buffer, tmp_path, Watch(power_fails_after=2))
    assert finished(recipe(), splits(), TRANSFORM, tmp_path) is None


@pytest.mark.parametrize("kept", [0, 100, 2000])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path, buffer, kept):
    distilled(recipe(), buffer, tmp_path)
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(StorageError, match=r"^checkpoint\.safetensors is damaged\. Delete it to begin"):
        distilled(recipe(), buffer, tmp_path)


def test_no_step_leaves_the_start(tmp_path, buffer):
    found = distilled(recipe({"distill.outer_steps": 0, "distill.start": "real"}), buffer, tmp_path)
    assert (found.selected_step, len(found.log)) == (0, 1)
    assert found.log[0].validation is not None
    real = (splits().train.pixels / 255 - 0.4) / 0.2
    for image in found.synthetic.images.numpy():
        assert np.abs(real - image).max((1, 2, 3)).min() < 1e-5


@pytest.mark.parametrize("part", ["value", "images", "targets", "log_rate"])
@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.usefixtures("every_step_is_stored")
def test_a_step_that_is_not_finite_changes_nothing_and_says_where_it_began(tmp_path, buffer, monkeypatch, part, number):
    with pytest.raises(PowerCut):
        distilled(recipe(), buffer, tmp_path, Watch(power_fails_after=1))
    before = load_file(tmp_path / CHECKPOINT)
    watched(monkeypatch, spoiled=(1,), part=part, number=number)
    watch = Watch(power_fails_after=1)
    with pytest.raises(PowerCut):
        distilled(recipe(), buffer, tmp_path, watch)
    after = load_file(tmp_path / CHECKPOINT)
    assert set(before) == set(after)
    for name in before:
        assert name.startswith("chosen") or torch.equal(before[name], after[name])
    log = distilled(recipe(), buffer, tmp_path).log
    assert log[2].value is None
    assert log[2].inner_rate == log[1].inner_rate
    assert log[1].value is not None
    assert log[3].value is not None
    where = f"starting at epoch {log[2].start_epoch} of teacher {log[2].teacher}"
    assert watch.said == [f"Step 2, {where}, was not finite: skipped, images and rate stay as they were."]


def scored(scores: Iterator[float], judged: list[SyntheticSet] | None = None) -> Callable[..., object]:
    """A selection that trains nothing: every set that it is asked about does as well as the next number says."""

    def selection(toy: Recipe, synthetic: SyntheticSet, *rest: object) -> object:
        if judged is not None:
            judged.append(synthetic)
        return medistill.distill._Candidate(synthetic, next(scores))

    return selection


def long(**changes: Any) -> Recipe:
    return recipe({"distill.outer_steps": 30, "distill.validate_every": 100} | changes)


@pytest.mark.parametrize("before", [0, 3])
def test_ten_steps_in_a_row_that_are_not_finite_end_the_distillation(buffer, monkeypatch, before):
    gradients = watched(monkeypatch, spoiled=range(before + 1, 100))
    with pytest.raises(MatchingError, match=r"^10 outer steps in a row were not finite, .*Lower distill\.inner_rate"):
        distilled(long(), buffer)
    assert len(gradients.calls) == before + 10


def test_nine_in_a_row_and_many_in_all_do_not(buffer, monkeypatch):
    spoiled = tuple(step for step in range(1, 31) if step % 10)
    watched(monkeypatch, spoiled=spoiled)
    log = distilled(long(), buffer).log
    assert [outcome.step for outcome in log[1:] if outcome.value is None] == list(spoiled)


def test_a_student_that_explodes_is_skipped_too(buffer):
    toy = long(**{"distill.inner_rate": 1e30, "distill.outer_steps": 2})
    assert [outcome.value for outcome in distilled(toy, buffer).log[1:]] == [None, None]


def one_step(monkeypatch, buffer: Buffer, folder: Path, **changes: Any) -> tuple[dict[str, torch.Tensor], Gradients]:
    """What is learned after one step, and what was known before."""
    gradients = watched(monkeypatch)
    distilled(recipe({"distill.outer_steps": 1} | changes), buffer, folder)
    return load_file(folder / CHECKPOINT), gradients


def test_gradient_descent_moves_pixels_against_the_exact_gradient(tmp_path, buffer, monkeypatch):
    after, known = one_step(monkeypatch, buffer, tmp_path, **{"distill.optimizer": "sgd", "distill.image_rate": 3.0})
    expected = known.calls[0]["images"] - 3.0 * known.found[0].images
    assert torch.allclose(after["canvas"], expected, atol=1e-7)
    assert not torch.equal(after["canvas"], known.calls[0]["images"])


def test_adam_moves_every_pixel_by_at_most_the_image_rate(tmp_path, buffer, monkeypatch):
    after, known = one_step(monkeypatch, buffer, tmp_path, **{"distill.image_rate": 0.03})
    moved = known.calls[0]["images"] - after["canvas"]
    slope = known.found[0].images
    clear = slope.abs() > 1e-5
    assert clear.float().mean() > 0.2
    assert torch.allclose(moved[clear], 0.03 * slope[clear].sign(), atol=1e-4)
    assert moved.abs().max() < 0.0301


def test_on_a_smooth_canvas_cosines_move_against_the_gradient_that_reaches_them(tmp_path, buffer, monkeypatch):
    smooth = {"distill.optimizer": "sgd", "distill.image_rate": 3.0, "distill.smoothness": 1.0}
    after, known = one_step(monkeypatch, buffer, tmp_path, **smooth)
    canvas = canvas_of(known.calls[0]["images"], 1).requires_grad_()
    (slope,) = torch.autograd.grad(painted(canvas, 1), canvas, known.found[0].images)
    assert torch.allclose(after["canvas"], canvas - 3.0 * slope, atol=1e-6)
    assert torch.allclose(after["average"], painted(after["canvas"], 1), atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_inner_rate_is_learned_as_a_logarithm_whose_step_is_bounded(tmp_path, buffer, monkeypatch, optimizer):
    changes = {"distill.optimizer": optimizer, "distill.log_rate_step": 0.2, "distill.inner_rate": 0.5}
    after, known = one_step(monkeypatch, buffer, tmp_path, **changes)
    moved = float(after["log_rate"]) - math.log(0.5)
    assert 0 < abs(moved) < 0.2001
    assert moved * float(known.found[0].log_rate) < 0


def test_a_steep_rate_gradient_is_clamped_for_gradient_descent(tmp_path, buffer, monkeypatch):
    watched(monkeypatch, spoiled=(1,), part="log_rate", number=1e9)
    changes = {"distill.outer_steps": 1, "distill.optimizer": "sgd", "distill.log_rate_step": 0.2}
    distilled(recipe(changes), buffer, tmp_path)
    assert float(load_file(tmp_path / CHECKPOINT)["log_rate"]) == pytest.approx(math.log(0.02) - 0.2)


def test_a_fixed_inner_rate_stays(buffer):
    found = distilled(recipe({"distill.log_rate_step": 0.0}), buffer)
    assert [outcome.inner_rate for outcome in found.log] == pytest.approx([0.02] * 4)


def test_learned_labels_move_against_their_gradient_and_stay_probabilities(tmp_path, buffer, monkeypatch):
    changes = {"distill.optimizer": "sgd", "distill.learn_labels": True, "distill.label_rate": 5.0}
    after, known = one_step(monkeypatch, buffer, tmp_path, **changes)
    logits = medistill.distill.trusting_logits(torch.eye(2).repeat_interleave(2, 0)).requires_grad_()
    assert torch.allclose(known.calls[0]["targets"], logits.softmax(1))
    (slope,) = torch.autograd.grad(logits.softmax(1), logits, known.found[0].targets)
    assert torch.allclose(after["logits"], logits.detach() - 5.0 * slope, atol=1e-6)
    assert slope.abs().max() > 1e-5


def test_learned_labels_of_a_set_are_probabilities_that_changed(buffer, monkeypatch):
    scores = iter([0.1, 0.2, 0.9])
    monkeypatch.setattr(medistill.distill, "_selection", scored(scores))
    found = distilled(recipe({"distill.learn_labels": True, "distill.label_rate": 0.5}), buffer)
    targets, began = found.synthetic.targets, torch.tensor([[0.95, 0.05]] * 2 + [[0.05, 0.95]] * 2)
    assert targets.min() > 0
    assert torch.allclose(targets.sum(1), torch.ones(4))
    assert ((targets - began).abs() > 0.001).all()
    assert found.synthetic.has_soft_labels


def test_hard_labels_stay_as_they_are(buffer, monkeypatch):
    gradients = watched(monkeypatch)
    distilled(recipe(), buffer)
    for call in gradients.calls:
        assert torch.equal(call["targets"], torch.eye(2).repeat_interleave(2, 0))


@pytest.mark.usefixtures("every_step_is_stored")
def test_an_averaged_set_follows_its_images_at_the_stated_pace(tmp_path, buffer, monkeypatch):
    gradients = watched(monkeypatch)
    distilled(recipe({"distill.ema": 0.75}), buffer, tmp_path)
    after = load_file(tmp_path / CHECKPOINT)
    walk = [call["images"] for call in gradients.calls] + [after["canvas"]]
    average = walk[0]
    for images in walk[1:]:
        average = 0.75 * average + 0.25 * images
    assert torch.allclose(after["average"], average, atol=1e-6)
    assert not torch.allclose(after["average"], after["canvas"], atol=1e-4)


def test_what_is_judged_and_kept_is_the_average(tmp_path, buffer, monkeypatch):
    scores = iter([0.1, 0.2, 0.9])
    monkeypatch.setattr(medistill.distill, "_selection", scored(scores))
    found = distilled(recipe({"distill.ema": 0.75}), buffer, tmp_path)
    assert torch.equal(found.synthetic.images, load_file(tmp_path / CHECKPOINT)["average"])


@pytest.mark.parametrize(
    ("scores", "step"), [([0.1, 0.5, 0.9], 3), ([0.1, 0.9, 0.5], 2), ([0.9, 0.5, 0.1], 0), ([0.5, 0.5, 0.5], 0)]
)
def test_the_kept_set_is_the_one_that_did_best_on_validation_and_the_earliest_of_equals(
    buffer, monkeypatch, scores, step
):
    judged = []

    monkeypatch.setattr(medistill.distill, "_selection", scored(iter(scores), judged))
    found = distilled(recipe(), buffer)
    assert found.selected_step == step
    best = judged[[0, 2, 3].index(step)]
    assert torch.equal(found.synthetic.images, best.images)
    assert found.synthetic.inner_rate == best.inner_rate
    assert [outcome.validation for outcome in found.log] == [scores[0], None, *scores[1:]]


def test_a_set_is_leveled_on_training_images_and_judged_so(buffer, monkeypatch):
    trained = []

    def train_and_remember(*arguments: Any) -> Any:
        found = medistill.evaluate.train_all(*arguments)
        trained.append([each.params for each in found.values() if each is not None])
        return found

    monkeypatch.setattr(medistill.distill, "train_all", train_and_remember)
    leaning = dataclasses.replace(splits(), train=films((12, 40)))
    toy = recipe({"distill.outer_steps": 0, "distill.validate_networks": 2})
    found = distilled(toy, buffer, parts=leaning)
    network = build(toy.network, 1, 8, 2)
    real = leaning.train
    (networks,) = trained
    own = [class_offsets(predict(network, params, real, TRANSFORM), real.labels) for params in networks]
    assert found.synthetic.offsets == pytest.approx(np.mean(own, 0), abs=0.001)
    assert any(found.synthetic.offsets)
    leveled = TrainingSet.of_synthetic(found.synthetic).leveled
    said = [predict(network, leveled(params), leaning.validation, TRANSFORM).argmax(1) for params in networks]
    scores = [balanced_accuracy(leaning.validation.labels, guess, 2) for guess in said]
    assert found.log[0].validation == pytest.approx(np.mean(scores))
    plain = distilled(recipe({"distill.outer_steps": 0, "distill.class_offsets": False}), buffer)
    assert plain.synthetic.offsets == ()


@pytest.mark.parametrize("similarity", ["unsigned", "signed", "displacement"])
def test_pruning_at_threshold_0_is_plain_trajectory_matching_to_the_bit(buffer, similarity):
    plain = distilled(recipe({"distill.objective": "mtt"}), buffer)
    pruned = distilled(
        recipe({"distill.objective": "pruned", "distill.threshold": 0.0, "distill.similarity": similarity}), buffer
    )
    assert same(plain, pruned)
    assert {outcome.kept for outcome in plain.log[1:]} == {1.0}


def test_the_kept_fraction_is_reported(buffer):
    toy = recipe({"distill.threshold": 0.5, "distill.similarity": "displacement"})
    assert all(0 < outcome.kept < 1 for outcome in distilled(toy, buffer).log[1:])


def test_outer_steps_lower_the_objective(tmp_path, buffer):
    one = dataclasses.replace(buffer, teachers=1)
    off = dict.fromkeys(("rotate_degrees", "scale", "shift", "brightness", "contrast"), 0)
    toy = recipe(
        {f"augment.{name}": value for name, value in off.items()}
        | {
            "distill.outer_steps": 40,
            "distill.max_start_epoch": 0,
            "distill.expert_epochs": 3,
            "distill.objective": "mtt",
            "distill.start": "noise",
            "distill.student_steps": 5,
            "distill.image_rate": 0.1,
            "distill.inner_rate": 0.1,
            "distill.log_rate_step": 0.05,
            "distill.validate_every": 100,
        }
    )
    values = [outcome.value for outcome in distilled(toy, one).log[1:]]
    assert values[-1] < 0.8 * values[0]


def test_steps_draw_from_every_teacher_and_start_epoch(buffer):
    found = distilled(long(), buffer)
    assert {outcome.teacher for outcome in found.log[1:]} == {0, 1}
    assert {outcome.start_epoch for outcome in found.log[1:]} == {0, 1}


def test_a_student_begins_where_its_teacher_was(buffer, monkeypatch):
    begun = []

    def note(network, start, *rest: Any) -> Gradient:
        begun.append(start)
        return trajectory_gradient(network, start, *rest)

    monkeypatch.setattr(medistill.objectives, "trajectory_gradient", note)
    log = distilled(recipe(), buffer).log[1:]
    for outcome, start in zip(log, begun, strict=True):
        assert torch.equal(start, buffer.snapshot(outcome.teacher, outcome.start_epoch))


def test_inner_batches_pass_over_all_images_before_any_comes_again(buffer, monkeypatch):
    gradients = watched(monkeypatch)
    distilled(recipe({"distill.batch_size": 2, "distill.student_steps": 4, "distill.ipc": 3}), buffer)
    orders = []
    for call in gradients.calls:
        batches = [step.indices.tolist() for step in call["steps"]]
        assert [len(batch) for batch in batches] == [2, 2, 2, 2]
        assert sorted(itertools.chain(*batches[:3])) == [0, 1, 2, 3, 4, 5]
        orders.append(tuple(itertools.chain(*batches)))
    assert len(set(orders)) == 3


def test_without_a_batch_size_every_inner_step_sees_all_images(buffer, monkeypatch):
    gradients = watched(monkeypatch)
    distilled(recipe(), buffer)
    for call in gradients.calls:
        assert [step.indices.tolist() for step in call["steps"]] == [[0, 1, 2, 3]] * 2


def test_micro_batches_change_the_memory_and_not_the_result(buffer):
    whole, parts = (
        distilled(recipe({"distill.micro_batch": size, "distill.optimizer": "sgd"}), buffer) for size in (None, 3)
    )
    assert [o.value for o in parts.log[1:]] == pytest.approx([o.value for o in whole.log[1:]], rel=1e-4)


class Untouchable:
    """A test split that nobody may so much as look at."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"the test split was touched: {name}")

    def __len__(self) -> int:
        raise AssertionError("the test split was counted")


def test_the_test_split_is_never_touched(tmp_path, buffer):
    parts = splits()
    sealed = Splits(parts.train, parts.validation, Untouchable())  # type: ignore[arg-type]
    assert same(distilled(recipe(), buffer, tmp_path, parts=sealed), distilled(recipe(), buffer))


def test_validation_judges_at_most_so_many_images_always_the_same(buffer, monkeypatch):
    seen: list[LabelledImages] = []
    real_score = medistill.distill.mean_score

    def score(bench, arm, networks) -> float:
        seen.append(bench.validation)
        return real_score(bench, arm, networks)

    monkeypatch.setattr(medistill.distill, "mean_score", score)
    distilled(recipe({"distill.validate_images": 5}), buffer)
    assert [len(images) for images in seen] == [5, 5, 5]
    assert all(np.array_equal(images.pixels, seen[0].pixels) for images in seen)
    distilled(recipe({"distill.validate_images": 500}), buffer)
    assert len(seen[-1]) == 12


def test_a_teacher_that_did_not_move_is_told(tmp_path):
    start = build(recipe().network, 1, 8, 2).initial(0)
    walk = [start, start + 1, start + 2, start]
    still = Buffer(tmp_path, 1, 3)
    write_trajectory(still.path(0), walk, "full", {})
    toy = recipe({"distill.expert_epochs": 3, "distill.max_start_epoch": 0})
    with pytest.raises(MatchingError, match="The teacher did not move"):
        distilled(toy, still)


def test_a_damaged_buffer_is_told(tmp_path):
    Buffer(tmp_path, 1, 3).path(0).write_bytes(b"damaged")
    with pytest.raises(StorageError, match=r"teacher-0000\.safetensors is damaged"):
        distilled(recipe({"teachers.count": 1}), Buffer(tmp_path, 1, 3))


def test_progress_is_told_of_every_step(buffer):
    watch = Watch()
    distilled(recipe(), buffer, progress=watch)
    assert watch.begun == [("distill", 3, 0)]
    assert (watch.advanced, watch.said) == (3, [])


def test_color_films_and_three_classes_are_distilled_too(tmp_path):
    train, validation = (films((9, 9, 9), seed).shaped(8, 3) for seed in (0, 1))
    toy = recipe({"source.channels": 3})
    transform = TRANSFORM.model_copy(update={"mean": (0.4,) * 3, "std": (0.2,) * 3})
    teachers = train_teachers(toy, train, transform, tmp_path, 1, Silence())
    found = distill(toy, Splits(train, validation, validation), transform, teachers, None, 1, Silence())
    assert found.synthetic.images.shape == (6, 3, 8, 8)
    assert found.synthetic.targets.argmax(1).tolist() == [0, 0, 1, 1, 2, 2]


EASY = {"distill.similarity": "easy", "distill.easy_error": 1e-4, "distill.easy_growth": 2.0}


def test_the_easy_mask_only_grows_and_survives_an_interruption(tmp_path, buffer, every_step_is_stored):
    toy = recipe(EASY | {"distill.outer_steps": 6, "distill.easy_growth_every": 1, "distill.image_rate": 0.2})
    whole = distilled(toy, buffer, tmp_path / "whole")
    kept = [outcome.kept for outcome in whole.log[1:]]
    assert kept == sorted(kept)
    assert kept[0] < kept[-1]
    with pytest.raises(PowerCut):
        distilled(toy, buffer, tmp_path / "cut", Watch(power_fails_after=3))
    assert same(distilled(toy, buffer, tmp_path / "cut"), whole)


def test_the_shape_of_the_trajectory_adds_to_what_is_matched(buffer):
    plain, shaped, twice = (
        distilled(recipe({"distill.angle_weight": weight}), buffer).log[1].value for weight in (0.0, 1.0, 2.0)
    )
    assert 0 < shaped - plain < 1
    assert twice - plain == pytest.approx(2 * (shaped - plain), rel=1e-3)


def test_labels_that_begin_at_the_teachers_are_learned_and_survive_an_interruption(tmp_path, buffer, monkeypatch):
    monkeypatch.setattr(medistill.distill, "_CHECKPOINT_EVERY", 1)
    toy = recipe({"distill.learn_labels": True, "distill.label_start": "teachers", "distill.label_rate": 0.5})
    whole = distilled(toy, buffer, tmp_path / "whole")
    moved = load_file(tmp_path / "whole" / CHECKPOINT)["logits"]
    start = medistill.distill.teachers_logits(toy, whole.synthetic, buffer)
    assert not torch.allclose(moved, start)
    with pytest.raises(PowerCut):
        distilled(toy, buffer, tmp_path / "cut", Watch(power_fails_after=1))
    assert same(distilled(toy, buffer, tmp_path / "cut"), whole)
    assert (tmp_path / "cut" / CHECKPOINT).read_bytes() == (tmp_path / "whole" / CHECKPOINT).read_bytes()


def test_an_early_window_starts_no_student_late(buffer):
    late = {"distill.min_start_epoch": 1, "distill.outer_steps": 6}
    assert {outcome.start_epoch for outcome in distilled(recipe(late), buffer).log[1:]} == {1}
    early = {"distill.window_steps": 100, "distill.first_max_start_epoch": 0, "distill.outer_steps": 6}
    assert {outcome.start_epoch for outcome in distilled(recipe(early), buffer).log[1:]} == {0}


def test_labels_may_begin_at_what_teachers_that_are_right_say(buffer):
    toy = recipe({"distill.learn_labels": True, "distill.label_start": "teachers", "distill.outer_steps": 0})
    start = distilled(toy, buffer).synthetic
    network = build(toy.network, 1, 8, 2)
    said = [network(buffer.snapshot(teacher, buffer.last_epoch), start.images) for teacher in range(buffer.teachers)]
    for index, label in enumerate([0, 0, 1, 1]):
        right = [logits[index] for logits in said if logits[index].argmax() == label]
        expected = torch.stack(right).mean(0).softmax(0) if right else torch.tensor([0.95, 0.05][:: 1 - 2 * label])
        torch.testing.assert_close(start.targets[index], expected.detach(), rtol=1e-5, atol=1e-6)


def test_teachers_of_several_architectures_take_turns(tmp_path):
    toy = recipe({"teachers.also": ["resnet18"], "teachers.count": 2, "distill.outer_steps": 8})
    buffer = train_teachers(toy, splits().train, TRANSFORM, tmp_path / "buffer", 1, Silence())
    sizes = [len(buffer.snapshot(teacher, 0)) for teacher in range(2)]
    assert sizes == [build(toy.network_as(name), 1, 8, 2).size for name in ("convnet", "resnet18")]
    log = distill(toy, splits(), TRANSFORM, buffer, None, 1, Silence()).log[1:]
    assert {outcome.teacher for outcome in log} == {0, 1}
    assert all(outcome.value is not None for outcome in log)


@pytest.mark.parametrize(
    "changes",
    [
        {"teachers.also": ["resnet18"], "distill.objective": "pruned", "distill.similarity": "easy"},
        {"teachers.also": ["resnet18", "vit"], "teachers.count": 2},
    ],
)
def test_a_pool_that_cannot_be_matched_is_refused(changes):
    with pytest.raises(RecipeError, match=r"teachers\.also"):
        recipe(changes)
