"""How well probabilities fit labels: the figures of a medical table.

Accuracy flatters whoever guesses the commonest class, so balanced accuracy (the mean of the classes' sensitivities)
always stands beside it. All figures lie between 0 and 1.
"""

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

from medistill.errors import MatchingError
from medistill.evidence import Detail, Figure, Interval, Labels, Row
from medistill.images import LabelledImages

Probabilities = NDArray[np.float32]
Guess = NDArray[np.integer[Any]]
"""One class for every judged image, from one network."""

Counts = NDArray[np.integer[Any]] | NDArray[np.float64]
"""Images, or their weights, of each class, [..., classes]."""

_CALIBRATION_BINS = 15
_FALSE_POSITIVES = np.linspace(0, 1, 101)


@dataclass(frozen=True, eq=False)
class Answers:
    """What one network said of the judged images, as far as figures ask: small enough to be kept.

    Attributes:
        guess: a class for every image, [n].
        auc: see `auc`.
        roc: the true positive rate at 0, 1, ... 100 % false positives, averaged over the classes that occur, [101].
        bins: of each of 15 bins of confidence the sum of it, how often the network was right, and images, [15, 3].
    """

    guess: Guess
    auc: float
    roc: NDArray[np.float64]
    bins: NDArray[np.float64]

    @classmethod
    def of(cls, probabilities: Probabilities, images: LabelledImages) -> Self:
        """What is kept of `probabilities`, [n, classes].

        Raises:
            MatchingError: all judged images are of one class.
        """
        truth, guess = images.labels, probabilities.argmax(1)
        if len(present := np.unique(truth)) < 2:
            only = ", ".join(images.class_names[index] for index in present) or "none"
            raise MatchingError(
                f"Found {len(images)} images to judge on, of one class, {only}; figures need at least two. Add images "
                "of another class."
            )
        confidence = probabilities.max(1).astype(np.float64)
        bins = np.minimum((confidence * _CALIBRATION_BINS).astype(np.int64), _CALIBRATION_BINS - 1)
        sums = [
            np.bincount(bins, weights, minlength=_CALIBRATION_BINS)
            for weights in (confidence, guess == truth, np.ones(len(truth)))
        ]
        return cls(guess, auc(truth, probabilities), _roc(truth, probabilities), np.stack(sums, axis=1))

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: how far confidence and accuracy lie apart, over 15 bins of confidence.

        Source: Guo et al., ICML 2017 (arXiv 1706.04599), equation 3.
        """
        return float(np.abs(self.bins[:, 0] - self.bins[:, 1]).sum() / len(self.guess))

    def to_plain(self) -> dict[str, Any]:
        """The same in JSON's terms, about two kilobytes for three thousand images; `from_plain` gives it back whole."""
        return {
            "guess": array_to_text(self.guess.astype("<u2")),
            "auc": self.auc,
            "roc": array_to_text(self.roc.astype("<f8")),
            "bins": array_to_text(self.bins.astype("<f8")),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """What `to_plain` made.

        Raises:
            ValueError, KeyError: it is damaged.
        """
        roc = array_from_text(plain["roc"], "<f8")
        if len(roc) != len(_FALSE_POSITIVES):
            raise ValueError(f"a curve of {len(roc)} points")
        return cls(
            array_from_text(plain["guess"], "<u2").astype(np.int64),
            float(plain["auc"]),
            roc,
            array_from_text(plain["bins"], "<f8").reshape(_CALIBRATION_BINS, 3),
        )


class Shares(NamedTuple):
    """The figures that follow from who was taken for what: [...] each, the last two [..., classes].

    NaN is the sensitivity to a class that does not occur, and the specificity to one that is the only one. The means
    over classes are over those that occur.
    """

    accuracy: NDArray[np.float64]
    balanced_accuracy: NDArray[np.float64]
    harmonic_mean: NDArray[np.float64]
    sensitivity: NDArray[np.float64]
    specificity: NDArray[np.float64]

    @classmethod
    def of(cls, true: Counts, right: Counts, taken: Counts) -> Self:
        """The figures of counts that can be broadcast together.

        Args:
            true: how many images each class has; which classes occur is the same throughout.
            right: how many of those were recognized.
            taken: how many images were taken for each class.
        """
        every = true.sum(axis=-1, keepdims=True)
        sensitivity = _share(right, true)
        specificity = 1 - _share(taken - right, every - true)
        occurs = true.reshape(-1, true.shape[-1])[0] > 0
        return cls(
            right.sum(axis=-1) / every[..., 0],
            sensitivity[..., occurs].mean(axis=-1),
            _harmonic_mean(sensitivity, specificity)[..., occurs].mean(axis=-1),
            sensitivity,
            specificity,
        )


def row(
    name: str,
    architecture: str,
    split: str,
    trained_on: int,
    labels: Labels,
    rate: float | None,
    said: Sequence[Sequence[Answers]],
    images: LabelledImages,
    interval: Interval,
) -> Row:
    """Summarize what several networks said about the same images.

    Args:
        name: which training set this is.
        architecture: which network.
        split: which images were judged.
        trained_on: number of training images.
        labels: whether those carried hard or soft labels.
        rate: the learning rate the search chose.
        said: the answers of each network, repetition by repetition: those of one share a seed, and so the images that
            they learned from.
        images: the judged images, whose labels are the truth.
        interval: of their balanced accuracy, see `medistill.intervals`.
    """
    truth = images.labels
    answers = [each for repetition in said for each in repetition]
    guesses = [each.guess for each in answers]
    occur = np.unique(truth)
    shares = _shares(truth, guesses, len(images.class_names))
    return Row(
        name=name,
        architecture=architecture,
        split=split,
        images=trained_on,
        labels=labels,
        rate=rate,
        accuracy=Figure.of(shares.accuracy),
        balanced_accuracy=Figure.of(shares.balanced_accuracy),
        auc=Figure.of([each.auc for each in answers]),
        macro_f1=Figure.of(
            # Of classes that occur, as all means over classes are.
            [sk.f1_score(truth, guess, labels=occur, average="macro", zero_division=0.0) for guess in guesses]
        ),
        calibration_error=Figure.of([each.calibration_error for each in answers]),
        balanced_accuracy_interval=interval,
        sensitivity=_per_class(images.class_names, shares.sensitivity),
        specificity=_per_class(images.class_names, shares.specificity),
        harmonic_mean=Figure.of(shares.harmonic_mean),
    )


def detail(said: Sequence[Answers], images: LabelledImages) -> Detail:
    """What stands behind a row's figures, averaged over its networks.

    Args:
        said: the answers of each network.
        images: the judged images, whose labels are the truth.
    """
    truth, classes = images.labels, len(images.class_names)
    occurs = np.maximum(np.bincount(truth, minlength=classes), 1)[:, None]
    confusions = [np.bincount(classes * truth + each.guess, minlength=classes**2) for each in said]
    confusion = np.mean([counts.reshape(classes, classes) / occurs for counts in confusions], axis=0)
    roc = np.mean([each.roc for each in said], axis=0)
    bins = np.sum([each.bins for each in said], axis=0)
    filled, count = bins[bins[:, 2] > 0], bins[:, 2].sum()
    calibration = np.stack([filled[:, 0] / filled[:, 2], filled[:, 1] / filled[:, 2], filled[:, 2] / count], axis=1)
    return Detail(
        confusion=tuple(tuple(line) for line in confusion.round(6).tolist()),
        roc=tuple(roc.round(6).tolist()),
        calibration=tuple((confident, right, share) for confident, right, share in calibration.round(6).tolist()),
    )


def balanced_accuracy(truth: NDArray[np.int64], guess: Guess, classes: int) -> float:
    """The mean over the classes that occur of the share of their images that were recognized."""
    return float(_shares(truth, [guess], classes).balanced_accuracy[0])


def auc(truth: NDArray[np.int64], probabilities: Probabilities) -> float:
    """Area under the ROC curve, one class against the rest, averaged over the classes that occur; 0.5 is chance.

    At least two classes must occur.
    """
    present = [index for index in range(probabilities.shape[1]) if 0 < (truth == index).sum() < len(truth)]
    return float(np.mean([sk.roc_auc_score(truth == index, probabilities[:, index]) for index in present]))


def array_to_text(array: NDArray[Any]) -> str:
    """The bytes of an array, compressed, as text for JSON; its type and shape are for the reader to know."""
    return base64.b85encode(zlib.compress(array.tobytes(), 9)).decode()


def array_from_text(text: str, dtype: str) -> NDArray[Any]:
    """What `array_to_text` made of an array of that type, flat.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return np.frombuffer(zlib.decompress(base64.b85decode(text)), dtype=dtype)
    except zlib.error as error:
        raise ValueError("not a compressed array") from error


def _harmonic_mean(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """2ab / (a + b), and 0 where both are 0; NaN stays NaN."""
    total = one + other
    return np.divide(2 * one * other, total, out=total.copy(), where=total != 0)


def _roc(truth: NDArray[np.int64], probabilities: Probabilities) -> NDArray[np.float64]:
    """True positive rates at `_FALSE_POSITIVES`, averaged over the classes that occur."""
    present = [index for index in range(probabilities.shape[1]) if 0 < (truth == index).sum() < len(truth)]
    curves = []
    for index in present:
        false, true, _ = sk.roc_curve(truth == index, probabilities[:, index])
        curves.append(np.interp(_FALSE_POSITIVES, false, true))
    averaged: NDArray[np.float64] = np.mean(curves, axis=0)
    return averaged


def _shares(truth: NDArray[np.int64], guesses: Sequence[Guess], classes: int) -> Shares:
    """The figures of each network, [networks]."""
    right = [np.bincount(truth[guess == truth], minlength=classes) for guess in guesses]
    taken = [np.bincount(guess, minlength=classes) for guess in guesses]
    return Shares.of(np.bincount(truth, minlength=classes)[None], np.array(right), np.array(taken))


def _share(part: Counts, whole: Counts) -> NDArray[np.float64]:
    """part / whole, and NaN where there is no whole."""
    shape = np.broadcast_shapes(part.shape, whole.shape)
    share: NDArray[np.float64] = np.divide(part, whole, out=np.full(shape, np.nan), where=whole > 0)
    return share


def _per_class(names: tuple[str, ...], values: NDArray[np.float64]) -> dict[str, Figure]:
    return {name: Figure.of(column) for name, column in zip(names, values.T, strict=True) if not np.isnan(column).any()}
