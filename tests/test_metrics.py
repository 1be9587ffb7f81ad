import dataclasses
import json

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, recall_score, roc_auc_score

from medistill import metrics
from medistill.errors import MatchingError
from medistill.evaluate import majority
from medistill.evidence import Interval
from medistill.images import LabelledImages
from medistill.metrics import Answers
from toys import films, judged


def certain(guess: list[int], classes: int = 3) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[guess]


DOZEN = judged([0] * 6 + [1] * 4 + [2] * 2)
"""Truth aaaaaa bbbb cc."""

DOZEN_SAID = np.array(
    [
        *([0.90, 0.07, 0.03], [0.88, 0.04, 0.08], [0.71, 0.10, 0.19], [0.50, 0.29, 0.21], [0.40, 0.50, 0.10]),
        *([0.20, 0.09, 0.71], [0.72, 0.26, 0.02], [0.06, 0.90, 0.04], [0.17, 0.70, 0.13], [0.49, 0.51, 0.00]),
        *([0.31, 0.52, 0.17], [0.01, 0.11, 0.88]),
    ],
    np.float32,
)
"""Guesses aaaabc abbb bc. Confidences are of three bins: 0.50 to 0.52, 0.70 to 0.72, 0.88 to 0.90."""


def dirichlet(networks: int, images: LabelledImages) -> np.ndarray:
    """What so many networks say that know a little."""
    draw, classes = np.random.default_rng(0), len(images.class_names)
    return np.stack(
        [[draw.dirichlet(1 + 2 * np.eye(classes)[label]) for label in images.labels] for _ in range(networks)]
    ).astype(np.float32)


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


def test_the_harmonic_mean_of_a_dozen_images_is_the_one_counted_by_hand():
    """a: 4 of 6 found, 1 false alarm of 6. b: 3 of 4, 2 of 8. c: 1 of 2, 1 of 10."""
    found = row([DOZEN_SAID], DOZEN)
    assert {name: figure.mean for name, figure in found.sensitivity.items()} == pytest.approx(
        {"a": 4 / 6, "b": 3 / 4, "c": 1 / 2}
    )
    assert {name: figure.mean for name, figure in found.specificity.items()} == pytest.approx(
        {"a": 5 / 6, "b": 6 / 8, "c": 9 / 10}
    )
    # 2ab / (a + b) of each class: 20/27, 3/4, 9/14; of the classes' means it would be another number.
    assert found.harmonic_mean.mean == pytest.approx((20 / 27 + 3 / 4 + 9 / 14) / 3)


def test_the_harmonic_mean_of_several_networks_is_scikit_learns_network_by_network():
    images = judged((np.arange(90) % 4).tolist(), 4)
    said = dirichlet(3, images)
    expected = []
    for guess in said.argmax(2):
        found = [recall_score(images.labels == index, guess == index, pos_label=True) for index in range(4)]
        spared = [recall_score(images.labels == index, guess == index, pos_label=False) for index in range(4)]
        expected.append(np.mean([2 / (1 / one + 1 / other) for one, other in zip(found, spared, strict=True)]))
    figure = row(list(said), images).harmonic_mean
    assert (figure.mean, figure.sd, figure.n) == (
        pytest.approx(np.mean(expected)),
        pytest.approx(np.std(expected, ddof=1)),
        3,
    )


def test_the_harmonic_mean_is_0_where_nothing_is_right_and_leaves_out_classes_that_do_not_occur():
    assert row([certain([1, 0], 2)], judged([0, 1], 2)).harmonic_mean.mean == 0
    found = row([certain([0, 0, 1, 2])], judged([0, 0, 2, 2]))  # of a all and no false alarm, of c half and none
    assert found.harmonic_mean.mean == pytest.approx((1 + 2 / 3) / 2)


def test_the_confusions_of_a_dozen_images_are_those_counted_by_hand():
    """A line for each true class: of the six a, four are taken for a, one for b, one for c."""
    found = metrics.detail([Answers.of(DOZEN_SAID, DOZEN)], DOZEN)
    assert np.allclose(found.confusion, [[4 / 6, 1 / 6, 1 / 6], [1 / 4, 3 / 4, 0], [0, 1 / 2, 1 / 2]], atol=1e-6)


def test_confusions_of_several_networks_are_the_mean_of_scikit_learns():
    images = judged((np.arange(90) % 4).tolist(), 4)
    said = dirichlet(3, images)
    expected = np.mean([confusion_matrix(images.labels, guess, normalize="true") for guess in said.argmax(2)], axis=0)
    assert np.allclose(expected.sum(1), 1)
    assert not np.allclose(expected, expected.T, atol=0.01)
    found = metrics.detail([Answers.of(each, images) for each in said], images)
    assert np.allclose(found.confusion, expected, atol=1e-6)


def test_a_class_that_does_not_occur_has_an_empty_line_of_confusions():
    found = metrics.detail([Answers.of(certain([0, 1, 2]), judged([0, 0, 2]))], judged([0, 0, 2]))
    assert found.confusion == ((0.5, 0.5, 0), (0, 0, 0), (0, 0, 1))


def test_the_calibration_of_a_dozen_images_is_the_one_counted_by_hand():
    """Confidence, share that is right, share of the images, bin by bin from the least certain."""
    found = metrics.detail([Answers.of(DOZEN_SAID, DOZEN)], DOZEN)
    expected = [
        ((0.50 + 0.50 + 0.51 + 0.52) / 4, 2 / 4, 4 / 12),  # guesses a and b of a, b of b, b of c
        ((0.71 + 0.71 + 0.72 + 0.70) / 4, 2 / 4, 4 / 12),  # a and c of a, a and b of b
        ((0.90 + 0.88 + 0.90 + 0.88) / 4, 4 / 4, 4 / 12),  # a and a of a, b of b, c of c
    ]
    assert np.allclose(found.calibration, expected, atol=1e-6)


def test_the_calibration_of_several_networks_is_scikit_learns_of_all_they_said():
    images = judged((np.arange(90) % 4).tolist(), 4)
    said = dirichlet(3, images)
    is_right = (said.argmax(2) == images.labels).ravel()
    right, confident = calibration_curve(is_right, said.max(2).ravel(), n_bins=15)
    found = np.array(metrics.detail([Answers.of(each, images) for each in said], images).calibration)
    assert np.allclose(found[:, :2], np.stack([confident, right], axis=1), atol=1e-5)
    counts, _ = np.histogram(said.max(2), bins=15, range=(0, 1))
    assert np.allclose(found[:, 2], counts[counts > 0] / said[..., 0].size, atol=1e-6)


def test_the_roc_points_of_a_dozen_images_are_those_counted_by_hand():
    """Without a false alarm: of the a, the two above 0.72; of the b, the two above 0.52; of the c, the one above 0.71.
    At 20 % (one a, one b, two c too many): the four above 0.49, the three above 0.50, the one above 0.19.
    At 40 % (two a, three b, four c too many): the five above 0.31, all four above 0.11, both above 0.10."""
    found = metrics.detail([Answers.of(DOZEN_SAID, DOZEN)], DOZEN).roc
    assert len(found) == 101
    assert found[0] == pytest.approx((2 / 6 + 2 / 4 + 1 / 2) / 3, abs=1e-6)
    assert found[20] == pytest.approx((4 / 6 + 3 / 4 + 1 / 2) / 3, abs=1e-6)
    assert found[40] == pytest.approx((5 / 6 + 4 / 4 + 2 / 2) / 3, abs=1e-6)
    assert found[100] == 1


def test_roc_points_are_the_most_found_at_no_more_false_alarms():
    """Threshold by threshold, and averaged over the classes and the networks; no two scores are alike."""
    images = judged((np.arange(91) % 3).tolist())
    said = dirichlet(2, images)

    def found_at(share: float, is_of_class: np.ndarray, scores: np.ndarray) -> float:
        shares = [((scores >= each)[~is_of_class].mean(), (scores >= each)[is_of_class].mean()) for each in scores]
        return max((found for false, found in shares if false <= share), default=0.0)

    expected = [
        np.mean([found_at(at / 100, images.labels == index, each[:, index]) for each in said for index in range(3)])
        for at in range(101)
    ]
    found = metrics.detail([Answers.of(each, images) for each in said], images).roc
    assert np.allclose(found, expected, atol=1e-6)


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
    # One of two a's is found and nothing else is taken for it; both c's are found.
    assert found.macro_f1.mean == pytest.approx((2 / 3 + 1) / 2)


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
