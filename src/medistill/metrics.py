"""How well probabilities fit labels: the figures of a medical table.

Accuracy flatters whoever guesses the commonest class, so balanced accuracy (the mean of the classes' sensitivities)
always stands beside it. All figures lie between 0 and 1.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

from medistill.errors import MatchingError
from medistill.evidence import Figure, Interval, Labels, Row
from medistill.images import LabelledImages

Probabilities = NDArray[np.float32]

_RESAMPLES = 1000
_RESAMPLES_AT_ONCE = 100
_CALIBRATION_BINS = 15


def row(
    name: str,
    architecture: str,
    split: str,
    trained_on: int,
    labels: Labels,
    rate: float | None,
    predictions: Sequence[Probabilities],
    images: LabelledImages,
    seed: int,
) -> Row:
    """Summarize what several networks said about the same images.

    Args:
        name: which training set this is.
        architecture: which network.
        split: which images were judged.
        trained_on: number of training images.
        labels: whether those carried hard or soft labels.
        rate: the learning rate the search chose.
        predictions: one array [n, classes] of probabilities a network.
        images: the judged images, whose labels are the truth.
        seed: for the bootstrap.

    Raises:
        MatchingError: all judged images are of one class.
    """
    truth, classes = images.labels, len(images.class_names)
    if len(present := np.unique(truth)) < 2:
        only = ", ".join(images.class_names[index] for index in present) or "none"
        raise MatchingError(
            f"Found {len(images)} {split} images of one class, {only}; figures need at least two. Add images of "
            "another class."
        )
    guesses = [prediction.argmax(1) for prediction in predictions]
    sensitivity = np.array([_recall(truth, guess, classes) for guess in guesses])
    specificity = np.array([_specificity(truth, guess, classes) for guess in guesses])
    return Row(
        name=name,
        architecture=architecture,
        split=split,
        images=trained_on,
        labels=labels,
        rate=rate,
        accuracy=Figure.of([(guess == truth).mean() for guess in guesses]),
        balanced_accuracy=Figure.of(np.nanmean(sensitivity, axis=1)),
        auc=Figure.of([auc(truth, prediction) for prediction in predictions]),
        macro_f1=Figure.of([sk.f1_score(truth, guess, average="macro", zero_division=0.0) for guess in guesses]),
        calibration_error=Figure.of([calibration_error(truth, prediction) for prediction in predictions]),
        balanced_accuracy_interval=_interval(truth, guesses, classes, images.groups, seed),
        sensitivity=_per_class(images.class_names, sensitivity),
        specificity=_per_class(images.class_names, specificity),
    )


def balanced_accuracy(truth: NDArray[np.int64], guess: NDArray[np.int64], classes: int) -> float:
    """The mean over the classes that occur of the share of their images that were recognized."""
    return float(np.nanmean(_recall(truth, guess, classes)))


def auc(truth: NDArray[np.int64], probabilities: Probabilities) -> float:
    """Area under the ROC curve, one class against the rest, averaged over the classes that occur; 0.5 is chance.

    At least two classes must occur.
    """
    present = [index for index in range(probabilities.shape[1]) if 0 < (truth == index).sum() < len(truth)]
    return float(np.mean([sk.roc_auc_score(truth == index, probabilities[:, index]) for index in present]))


def calibration_error(truth: NDArray[np.int64], probabilities: Probabilities) -> float:
    """Expected calibration error: how far confidence and accuracy lie apart, over 15 bins of confidence.

    Source: Guo et al., ICML 2017 (arXiv 1706.04599), equation 3.
    """
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == truth
    bins = np.minimum((confidence * _CALIBRATION_BINS).astype(int), _CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, correct - confidence.astype(np.float64), minlength=_CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(truth))


def _recall(truth: NDArray[np.int64], guess: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Sensitivity of each class; NaN for a class that does not occur."""
    occurs = np.bincount(truth, minlength=classes).astype(np.float64)
    hits = np.bincount(truth[guess == truth], minlength=classes)
    share: NDArray[np.float64] = np.divide(hits, occurs, out=np.full(classes, np.nan), where=occurs > 0)
    return share


def _specificity(truth: NDArray[np.int64], guess: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """The share of the other classes' images that were not taken for each class."""
    others = len(truth) - np.bincount(truth, minlength=classes).astype(np.float64)
    false_alarms = np.bincount(guess[guess != truth], minlength=classes)
    share: NDArray[np.float64] = np.divide(false_alarms, others, out=np.full(classes, np.nan), where=others > 0)
    return 1 - share


def _per_class(names: tuple[str, ...], values: NDArray[np.float64]) -> dict[str, Figure]:
    return {name: Figure.of(column) for name, column in zip(names, values.T, strict=True) if not np.isnan(column).any()}


def _interval(
    truth: NDArray[np.int64],
    guesses: Sequence[NDArray[np.int64]],
    classes: int,
    groups: NDArray[np.str_] | None,
    seed: int,
) -> Interval:
    """Resample networks and groups (each image its own group where none is known) a thousand times."""
    draw = np.random.default_rng(seed)
    members = np.arange(len(truth)) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(members.max()) + 1
    hits = np.stack([guess == truth for guess in guesses]).astype(np.float64)
    is_class = np.eye(classes)[truth]
    values = []
    for _ in range(0, _RESAMPLES, _RESAMPLES_AT_ONCE):
        weight = draw.multinomial(count, np.full(count, 1 / count), _RESAMPLES_AT_ONCE)[:, members]
        networks = draw.multinomial(len(hits), np.full(len(hits), 1 / len(hits)), _RESAMPLES_AT_ONCE) / len(hits)
        found, present = (weight * (networks @ hits)) @ is_class, weight @ is_class
        recall = np.divide(found, present, out=np.full_like(found, np.nan), where=present > 0)
        values.append(np.nanmean(recall, axis=1))
    low, high = np.percentile(np.concatenate(values), [2.5, 97.5])
    return Interval(low=float(low), high=float(high))
