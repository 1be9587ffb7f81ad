import dataclasses
import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medistill import metrics
from medistill.errors import MatchingError
from medistill.evaluate import majority
from medistill.evidence import Interval
from medistill.images import LabelledImages
from medistill.metrics import Answers
from toys import films, judged


def certain(guess: list[int], classes: int = 3) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[guess]


def row(predictions: list[np.ndarray], images: LabelledImages):
    return summary([Answers.of(each, images) for each in predictions], images)


def summary(said: list[Answers], images: LabelledImages):
    interval = Interval(low=0, high=1)
    return metrics.row("name", "convnet", "test", 10, "hard", 0.1, [said], images, interval)


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


def test_images_of_a_single_class_cannot_be_judged():
    with pytest.raises(MatchingError, match=r"2 images to judge on, of one class, c; .*at least two"):
        row([certain([2, 2])], judged([2, 2]))


def test_the_majority_row_answers_the_commonest_training_class():
    found = majority(films((3, 9)), films((5, 15), seed=1), "validation")
    assert (found.name, found.split, found.images, found.rate) == ("majority", "validation", 12, None)
    assert found.accuracy.mean == 0.75
    assert found.balanced_accuracy.mean == 0.5
    assert found.auc.mean == 0.5
    assert found.calibration_error.mean == pytest.approx(0.25)
    assert {name: figure.mean for name, figure in found.sensitivity.items()} == {"class 0": 0, "class 1": 1}


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
    figures = [summary(each, images) for each in (said, kept)]
    assert figures[0] == figures[1]
    assert metrics.detail(said, images) == metrics.detail(kept, images)


@pytest.mark.parametrize("guess", ["", "no array at all", "c-"])
def test_damaged_answers_are_refused(guess):
    plain = Answers.of(certain([0, 1], 2), judged([0, 1], 2)).to_plain()
    with pytest.raises(ValueError, match=r"array|base85|bytes|decompress"):
        Answers.from_plain(plain | {"guess": guess})
