"""What chance might have made of a balanced accuracy, and of the difference of two.

Networks were judged on some images of many, and made by a few seeds of many: both could have been others. What both
would have changed is drawn fifty thousand times (ADR 19), and the middle 95 % of the draws is the interval.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medistill.evidence import Difference, Interval
from medistill.images import LabelledImages
from medistill.metrics import Answers, Guess

_RESAMPLES = 1000
_RESAMPLES_AT_ONCE = 100
_MIXTURES_OF_EACH = 50  # of repetitions, for every draw of images: the ends of Student's t want many


def draws_of(said: Sequence[Sequence[Answers]], images: LabelledImages, seed: int) -> NDArray[np.float64]:
    """`draws_of_balanced_accuracy` of what networks took the images for."""
    guesses = [[each.guess for each in repetition] for repetition in said]
    return draws_of_balanced_accuracy(guesses, images, seed)


def draws_of_balanced_accuracy(
    guesses: Sequence[Sequence[Guess]], images: LabelledImages, seed: int
) -> NDArray[np.float64]:
    """Balanced accuracy, averaged over networks, fifty thousand times as chance might have had it, shape [50,000].

    Chance has two parts, which are added. Other images: a Bayesian bootstrap (Rubin, Annals of Statistics 1981) gives
    every group a random weight (each image its own where no groups are known), and no class is ever lost. Other
    repetitions: too few for a bootstrap, so they are mixed such that the draws lie about their mean as Student's t does
    with one degree of freedom less than there are repetitions; of a single one its networks take their place, and
    nothing is known of the next. All training sets are weighted and mixed alike, so the difference of two is that of a
    paired test. See ADR 19.

    The same seed gives the same draws of the same images, and mixes as many repetitions (or networks) alike. Draws can
    lie below 0 and above 1.

    Args:
        guesses: one class for every image, from each network of each repetition, of which all have equally many.
        images: the judged images, whose labels are the truth.
        seed: of the draws.
    """
    hits = np.array(guesses) == images.labels  # [repetitions, networks, images]
    units = hits.mean(axis=1) if len(hits) > 1 else hits[0].astype(np.float64)
    is_class = np.eye(len(images.class_names))[images.labels]
    is_class = is_class[:, is_class.any(axis=0)]
    observed = (units @ is_class / is_class.sum(axis=0)).mean(axis=1)
    other_images = _by_other_images(units.mean(axis=0), is_class, images.groups, np.random.default_rng(seed))
    # Apart, so that images are drawn alike whatever judged them.
    mixtures = _mixtures(len(units), np.random.default_rng([seed, len(units)]))
    draws: NDArray[np.float64] = (observed.mean() + other_images[:, None] + mixtures @ observed).ravel()
    return draws


def interval_of(draws: NDArray[np.float64]) -> Interval:
    """Where 95 % of the draws of one training set lie, cut at 0 and 1: a share is nothing else."""
    low, high = bounds(draws).clip(0, 1)
    return Interval(low=low, high=high)


def difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> Difference:
    """How far one training set lies above another in balanced accuracy: the 95 % interval, both paired draw by draw.

    Args:
        one: draws of the one, see `draws_of_balanced_accuracy`.
        other: draws of the other, with the same seed and of the same images.
    """
    low, high = bounds(one - other).clip(-1, 1)
    return Difference(low=low, high=high)


def bounds(draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where 95 % of the draws lie: the lowest and the highest, [2]."""
    ends: NDArray[np.float64] = np.percentile(draws, [2.5, 97.5])
    return ends


def _by_other_images(
    hits: NDArray[np.float64], is_class: NDArray[np.float64], groups: NDArray[np.str_] | None, draw: np.random.Generator
) -> NDArray[np.float64]:
    """What other images would add to balanced accuracy, [1000]; `hits` is how often each was recognized, [images].

    Few groups are too few as few repetitions are, so here too a draw is as far from the mean as Student's t.
    """
    members = np.arange(len(hits)) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(members.max()) + 1
    found = is_class * (hits[:, None] - hits @ is_class / is_class.sum(axis=0))
    values = []
    for _ in range(0, _RESAMPLES, _RESAMPLES_AT_ONCE):
        weight = draw.standard_exponential((_RESAMPLES_AT_ONCE, count))[:, members]
        values.append((weight @ found / (weight @ is_class)).mean(axis=1))
    wider = np.sqrt((count + 1) / draw.chisquare(max(count - 1, 1), _RESAMPLES))
    added: NDArray[np.float64] = wider * np.concatenate(values)
    return added


def _mixtures(units: int, draw: np.random.Generator) -> NDArray[np.float64]:
    """Weights that add up to 0, [1000, 50, units]: numbers so weighted add up to the standard error of their mean times
    Student's t of `units - 1` degrees of freedom, to either side alike. A single unit tells of no error."""
    if units == 1:
        return np.zeros((_RESAMPLES, _MIXTURES_OF_EACH, 1))
    shape = (_RESAMPLES, _MIXTURES_OF_EACH // 2)
    normal = draw.standard_normal((*shape, units))
    normal -= normal.mean(axis=2, keepdims=True)
    normal /= np.sqrt(units * draw.chisquare(units - 1, (*shape, 1)))
    return np.concatenate([normal, -normal], axis=1)
