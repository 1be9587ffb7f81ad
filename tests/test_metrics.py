import dataclasses
import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medistill import metrics
from medistill.errors import MatchingError
from medistill.evaluate import majority
from medistill.images import LabelledImages
from medistill.metrics import Answers
from toys import films


def judged(labels: list[int], classes: int = 3, groups: list[str] | None = None) -> LabelledImages:
    names = tuple("abcdef"[:classes])
    pixels = np.zeros((len(labels), 1, 8, 8), np.uint8)
    return LabelledImages(pixels, np.array(labels), names, None if groups is None else np.array(groups))


def certain(guess: list[int], classes: int = 3) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[guess]


def row(predictions: list[np.ndarray], images: LabelledImages):
    return repeated([predictions], images)


def repeated(predictions: list[list[np.ndarray]], images: LabelledImages):
    said = [[Answers.of(each, images) for each in repetition] for repetition in predictions]
    return summary(said, images)


def summary(said: list[list[Answers]], images: LabelledImages):
    draws = metrics.draws_of(said, images, seed=0)
    return metrics.row("name", "convnet", "test", 10, "hard", 0.1, said, images, draws)


def test_the_figures_of_a_small_table_are_those_counted_by_hand():
    """Truth aaaa bb c: a is found 3 times of 4, b once of 2, c never; one b is taken for a, and c for b."""
    found = row([certain([0, 0, 0, 1, 1, 0, 1])], judged([0, 0, 0, 0, 1, 1, 2]))
    assert found.accuracy.mean == pytest.approx(4 / 7)
    assert found.balanced_accuracy.mean == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)
    assert {name: figure.mean for name, figure in found.sensitivity.items()} == pytest.approx(
        {"a": 3 / 4, "b": 1 / 2, "c": 0}
    )
    assert {name: figure.mean for name, figure in found.specificity.items()} == pytest.approx(
        {"a": 2 / 3, "b": 3 / 5, "c": 1}
    )
    assert found.macro_f1.mean == pytest.approx((6 / 8 + 2 / 5 + 0) / 3)


def test_figures_of_several_networks_are_a_mean_with_its_spread():
    found = row([certain([0, 1, 2]), certain([0, 1, 1])], judged([0, 1, 2]))
    assert (found.accuracy.mean, found.accuracy.n) == (pytest.approx(5 / 6), 2)
    assert found.accuracy.sd == pytest.approx(np.std([1, 2 / 3], ddof=1))


def test_calibration_error_of_a_hand_computed_case():
    """Confidences 0.9, 0.9 (one right) fall in one bin, 0.6 (right) in another: (|1 - 1.8| + |1 - 0.6|) / 3."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]], np.float32)
    found = Answers.of(probabilities, judged([0, 1, 1], 2)).calibration_error
    assert found == pytest.approx((0.8 + 0.4) / 3, abs=1e-6)


def test_certainty_is_calibrated_when_right_and_not_when_wrong():
    images = judged([0, 1], 2)
    assert Answers.of(certain([0, 1], 2), images).calibration_error == 0
    assert Answers.of(certain([1, 0], 2), images).calibration_error == 1


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_auc_is_scikit_learns(classes):
    draw = np.random.default_rng(classes)
    truth = np.arange(200) % classes
    scores = draw.random((200, classes)) + 0.5 * np.eye(classes)[truth]
    probabilities = (scores / scores.sum(1, keepdims=True)).astype(np.float32)
    probabilities /= probabilities.sum(1, keepdims=True)
    if classes == 2:
        theirs = roc_auc_score(truth, probabilities[:, 1])
    else:
        theirs = roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
    assert metrics.auc(truth, probabilities) == pytest.approx(theirs, abs=1e-6)


def test_balanced_accuracy_leaves_out_classes_that_do_not_occur():
    assert metrics.balanced_accuracy(np.array([0, 0, 2]), np.array([0, 1, 2]), 3) == pytest.approx(0.75)


def test_a_class_absent_from_the_judged_images_gives_no_figure_and_no_nan():
    found = row([certain([0, 0, 1, 2])], judged([0, 0, 2, 2]))
    assert found.balanced_accuracy.mean == pytest.approx(0.75)
    assert set(found.sensitivity) == {"a", "c"}
    assert found.specificity["b"].mean == pytest.approx(3 / 4)
    assert 0 <= found.balanced_accuracy_interval.low <= found.balanced_accuracy_interval.high <= 1


def test_images_of_a_single_class_cannot_be_judged():
    with pytest.raises(MatchingError, match=r"2 images to judge on, of one class, c; .*at least two"):
        row([certain([2, 2])], judged([2, 2]))


def truth_and_guesses(n: int, networks: int = 3) -> tuple[list[int], list[np.ndarray]]:
    """Of every class, four of five are recognized."""
    truth = np.arange(n) % 2
    wrong = (np.arange(n) // 2) % 5 == 0
    return truth.tolist(), [certain(np.where(wrong, 1 - truth, truth).tolist(), 2)] * networks


def test_the_interval_contains_the_mean_and_is_narrower_with_more_images():
    widths = []
    for n in (50, 200, 800):
        truth, guesses = truth_and_guesses(n)
        found = row(guesses, judged(truth, 2))
        interval = found.balanced_accuracy_interval
        assert interval.low < found.balanced_accuracy.mean < interval.high
        widths.append(interval.high - interval.low)
    assert widths[0] > 1.5 * widths[1] > 2 * widths[2]


def test_the_interval_of_one_network_is_about_that_of_a_proportion():
    truth, guesses = truth_and_guesses(800, networks=1)
    interval = row(guesses, judged(truth, 2)).balanced_accuracy_interval
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * (0.8 * 0.2 / 800) ** 0.5, rel=0.15)


def test_images_of_one_patient_do_not_count_as_independent():
    truth, guesses = truth_and_guesses(200)
    order = np.lexsort((np.argmax(guesses[0], 1) == truth, truth))  # like beside like, ten to a patient
    truth, guesses = np.array(truth)[order].tolist(), [guess[order] for guess in guesses]
    alone = row(guesses, judged(truth, 2)).balanced_accuracy_interval
    grouped = row(guesses, judged(truth, 2, [f"p{i // 10}" for i in range(200)])).balanced_accuracy_interval
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_the_interval_of_networks_that_disagree_is_wider():
    truth, (right, *_) = truth_and_guesses(400)
    agreeing = row([right] * 4, judged(truth, 2)).balanced_accuracy_interval
    wrong = certain([0] * 400, 2)
    disagreeing = row([right, right, wrong, wrong], judged(truth, 2)).balanced_accuracy_interval
    assert disagreeing.high - disagreeing.low > 2 * (agreeing.high - agreeing.low)


def right_so_often(shares: list[float], truth: list[int]) -> list[np.ndarray]:
    """Guesses of two classes that are right for the first so many of each."""
    truth = np.array(truth)
    place = np.arange(len(truth)) // 2 / (len(truth) // 2)
    return [np.where(place < share, truth, 1 - truth) for share in shares]


def ends(guesses: list[list[np.ndarray]], images: LabelledImages) -> np.ndarray:
    return metrics.bounds(metrics.draws_of_balanced_accuracy(guesses, images, seed=0))


@pytest.mark.parametrize(  # 97.5 % of Student's t by degrees of freedom, from the printed tables
    ("shares", "t"), [([0.62, 0.6], 12.706), ([0.7, 0.72, 0.78], 4.303), ([0.6] * 4 + [0.7], 2.776)]
)
def test_of_few_repetitions_and_many_images_the_interval_is_students(shares, t):
    truth, _ = truth_and_guesses(4_000)
    low, high = ends([[guess, guess] for guess in right_so_often(shares, truth)], judged(truth, 2))
    error = np.std(shares, ddof=1) / len(shares) ** 0.5
    assert (low + high) / 2 == pytest.approx(np.mean(shares), abs=0.2 * t * error)
    assert (high - low) / 2 == pytest.approx(t * error, rel=0.15)


def test_every_network_of_a_repetition_counts():
    truth, _ = truth_and_guesses(4_000)
    low, high = ends([right_so_often([0.6, 0.8], truth), right_so_often([0.61, 0.81], truth)], judged(truth, 2))
    assert (low + high) / 2 == pytest.approx(0.705, abs=0.01)


def test_the_interval_is_of_balanced_accuracy_however_rare_a_class_is():
    """1,800 images of one class, 0.9 of them recognized, and 200 of another, half of them."""
    truth = np.repeat([0, 1], [1800, 200])
    guess = np.where(np.concatenate([np.arange(1800) < 1620, np.arange(200) < 100]), truth, 1 - truth)
    low, high = ends([[guess]], judged(truth.tolist(), 2))
    assert (low + high) / 2 == pytest.approx(0.7, abs=0.005)
    assert (high - low) / 2 == pytest.approx(1.96 * (0.09 / 1800 + 0.25 / 200) ** 0.5 / 2, rel=0.1)


@pytest.mark.parametrize(("last", "recalls"), [(2, (0.8, 0.8, 1)), (0, (0.8, 0.8, 0))])
def test_a_class_with_a_single_image_is_in_every_draw(last, recalls):
    truth, (right, *_) = truth_and_guesses(400)
    images, guess = judged([*truth, 2]), np.append(right.argmax(1), last)
    assert metrics.draws_of_balanced_accuracy([[guess]], images, 0).mean() == pytest.approx(np.mean(recalls), abs=0.003)


def test_a_class_that_does_not_occur_has_no_part_in_the_interval():
    truth, (right, *_) = truth_and_guesses(400)
    assert ends([[right.argmax(1)]], judged(truth, 3)) == pytest.approx(ends([[right.argmax(1)]], judged(truth, 2)))


def test_of_few_patients_the_interval_is_students_too():
    """Three patients with 2,000 images each, of which 0.6, 0.7 and 0.8 are recognized."""
    truth = np.tile([0, 1], 3000)
    guess = np.concatenate([right_so_often([share], truth[:2000])[0] for share in (0.6, 0.7, 0.8)])
    patients = np.repeat(["a", "b", "c"], 2000).tolist()
    low, high = ends([[guess]], judged(truth.tolist(), 2, patients))
    assert (high - low) / 2 == pytest.approx(4.303 * 0.1 / 3**0.5, rel=0.25)


def test_images_that_each_repetition_finds_hard_by_chance_do_not_count_thrice():
    """Ten repetitions that toss a coin for every image are known about as well as by a t test of their means."""
    draw, truth = np.random.default_rng(0), np.arange(400) % 2
    guesses = [[np.where(draw.random(400) < 0.7, truth, 1 - truth)] for _ in range(10)]
    error = np.std([(guess == truth).mean() for (guess,) in guesses], ddof=1) / 10**0.5
    assert np.ptp(ends(guesses, judged(truth.tolist(), 2))) / 2 < 1.5 * 2.262 * error


def test_of_one_repetition_the_networks_take_its_place():
    truth, _ = truth_and_guesses(4_000)
    networks, images = right_so_often([0.7, 0.72, 0.78], truth), judged(truth, 2)
    assert ends([networks], images) == pytest.approx(ends([[each] for each in networks], images))


def test_more_networks_of_a_repetition_say_nothing_of_the_next():
    truth, _ = truth_and_guesses(2000)
    one, other = right_so_often([0.7, 0.72], truth)
    images = judged(truth, 2)
    together = ends([[one] * 8, [other] * 8], images)
    assert together == pytest.approx(ends([[one], [other]], images))
    assert np.ptp(together) > 2 * np.ptp(ends([[one] * 8 + [other] * 8], images))


def test_an_interval_of_a_share_ends_at_nothing_and_at_all():
    """Two repetitions that are far apart could be anything; a share cannot."""
    truth, _ = truth_and_guesses(400)
    said = [[certain(guess.tolist(), 2)] for guess in right_so_often([0.1, 0.9], truth)]
    interval = repeated(said, judged(truth, 2)).balanced_accuracy_interval
    assert (interval.low, interval.high) == (0, 1)


def test_a_difference_is_paired_over_images():
    """Where one set is right it is so on images that the other finds too: what both share adds nothing."""
    truth, (right, *_) = truth_and_guesses(400)
    better = right.argmax(1).copy()
    mended = np.flatnonzero(better != truth)[:8]
    better[mended] = np.array(truth)[mended]
    images, worse = judged(truth, 2), right.argmax(1)
    one, other = (
        metrics.draws_of_balanced_accuracy(guesses, images, seed=0)
        for guesses in ([[better], [better]], [[worse], [worse]])
    )
    found = metrics.difference(one, other)
    assert 0 <= found.low < 0.01 < found.high < 0.04
    none = metrics.difference(one, one)
    assert (none.low, none.high) == (0, 0)
    below = metrics.difference(other, one)
    assert (below.low, below.high) == pytest.approx((-found.high, -found.low))


def test_a_difference_that_is_the_same_in_every_repetition_is_sure_however_far_these_are_apart():
    truth, _ = truth_and_guesses(4_000)
    images = judged(truth, 2)
    draws = [
        metrics.draws_of_balanced_accuracy([[guess] for guess in right_so_often(shares, truth)], images, seed=0)
        for shares in ([0.65, 0.75, 0.85], [0.6, 0.7, 0.8])
    ]
    found = metrics.difference(*draws)
    assert 0.04 < found.low < 0.05 < found.high < 0.06
    assert np.ptp(metrics.bounds(draws[0])) > 0.3


def test_the_majority_row_answers_the_commonest_training_class():
    found = majority(films((3, 9)), films((5, 15), seed=1), "validation")
    assert (found.name, found.split, found.images, found.rate) == ("majority", "validation", 12, None)
    assert found.accuracy.mean == 0.75
    assert found.balanced_accuracy.mean == 0.5
    assert found.auc.mean == 0.5
    assert found.calibration_error.mean == pytest.approx(0.25)
    assert {name: figure.mean for name, figure in found.sensitivity.items()} == {"class 0": 0, "class 1": 1}


def test_a_row_is_the_same_every_time():
    truth, guesses = truth_and_guesses(50)
    assert row(guesses, judged(truth, 2)) == row(guesses, judged(truth, 2))


def test_the_order_of_the_judged_classes_is_that_of_their_names():
    images = dataclasses.replace(judged([0, 0, 1, 1], 2), class_names=("sick", "well"))
    found = row([certain([0, 0, 0, 0], 2)], images)
    assert (found.sensitivity["sick"].mean, found.sensitivity["well"].mean) == (1, 0)
    assert (found.specificity["sick"].mean, found.specificity["well"].mean) == (0, 1)


def test_answers_that_were_kept_give_the_same_row_and_detail():
    draw, images = np.random.default_rng(0), judged((np.arange(60) % 3).tolist())
    probabilities = draw.dirichlet(np.ones(3), (2, 60)).astype(np.float32)
    said = [Answers.of(each, images) for each in probabilities]
    kept = [Answers.from_plain(json.loads(json.dumps(each.to_plain()))) for each in said]
    figures = [summary([each], images) for each in (said, kept)]
    assert figures[0] == figures[1]
    assert metrics.detail(said, images) == metrics.detail(kept, images)


@pytest.mark.parametrize("guess", ["", "no array at all", "c-"])
def test_damaged_answers_are_refused(guess):
    plain = Answers.of(certain([0, 1], 2), judged([0, 1], 2)).to_plain()
    with pytest.raises(ValueError, match=r"array|base85|bytes|decompress"):
        Answers.from_plain(plain | {"guess": guess})
