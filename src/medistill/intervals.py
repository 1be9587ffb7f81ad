"""What chance might have made of a row's figures, and of the difference of two balanced accuracies.

Networks were judged on some images of many, and made by a few seeds of many: both could have been others. What both
would have changed is drawn fifty thousand times (ADR 19), and the middle 95 % of the draws is the interval.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medistill.evidence import Difference, Interval, Intervals
from medistill.images import LabelledImages
from medistill.metrics import Answers, Guess, Shares

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
    """Balanced accuracy alone of `draws_of_shares`, [50,000]."""
    return draws_of_shares(guesses, images, seed).balanced_accuracy


def draws_of_shares(guesses: Sequence[Sequence[Guess]], images: LabelledImages, seed: int) -> Shares:
    """Every figure, averaged over networks, fifty thousand times as chance might have had it: [50,000] of each, and
    [50,000, classes] of those of a class.

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
    said = np.array(guesses)  # [repetitions, networks, images]
    repetitions, networks = said.shape[:2]
    counts = _counts(said.reshape(repetitions * networks, -1), images)
    observed = _shares(counts.sum(axis=0))
    weighted, wider = _by_other_images(counts, images.groups, np.random.default_rng(seed))
    # Apart, so that images are drawn alike whatever judged them.
    mixed = repetitions if repetitions > 1 else networks
    mixtures = _mixtures(mixed, np.random.default_rng([seed, mixed]))

    def draws(seen: NDArray[np.float64], drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        by_class = seen.shape[1:]
        units = seen.reshape(repetitions, networks, *by_class).mean(axis=1) if repetitions > 1 else seen
        added = ((drawn.mean(axis=1) - seen.mean(axis=0)).T * wider).T
        found: NDArray[np.float64] = units.mean(axis=0) + added[:, None] + mixtures @ units
        return found.reshape(-1, *by_class)

    return Shares(*map(draws, observed, _shares(weighted)))


def intervals_of(drawn: Shares, said: Sequence[Sequence[Answers]], images: LabelledImages, seed: int) -> Intervals:
    """The intervals of a row's figures.

    Args:
        drawn: the row's draws, see `draws_of_shares`.
        said: what its networks said, repetition by repetition.
        images: the judged images.
        seed: of the draws.
    """
    return Intervals(
        accuracy=interval_of(drawn.accuracy),
        harmonic_mean=interval_of(drawn.harmonic_mean),
        sensitivity=_per_class(images.class_names, drawn.sensitivity),
        specificity=_per_class(images.class_names, drawn.specificity),
        auc=interval_over_repetitions([[each.auc for each in repetition] for repetition in said], seed),
    )


def interval_over_repetitions(values: Sequence[Sequence[float]], seed: int) -> Interval | None:
    """Student's t over repetitions, of a figure of which nobody kept what it would be of other images; None of a single
    repetition, of which this tells nothing.

    Args:
        values: the figure of each network of each repetition.
        seed: of the draws.
    """
    if len(values) == 1:
        return None
    units = np.mean(values, axis=1)
    mixtures = _mixtures(len(units), np.random.default_rng([seed, len(units)]))
    return interval_of((units.mean() + mixtures @ units).ravel())


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


def _per_class(names: Sequence[str], draws: NDArray[np.float64]) -> dict[str, Interval]:
    """The interval of each class; none of one that does not occur."""
    by_name = zip(names, draws.T, strict=True)
    return {name: interval_of(of_class) for name, of_class in by_name if not np.isnan(of_class).any()}


def _counts(guesses: NDArray[np.int64], images: LabelledImages) -> NDArray[np.float64]:
    """What each image adds to the counts that `_shares` takes, [images, 1 + 2 networks, classes]."""
    one_hot = np.eye(len(images.class_names))
    true, taken = one_hot[images.labels][:, None], one_hot[guesses.T]
    return np.concatenate([true, true * taken, taken], axis=1)


def _shares(counts: NDArray[np.float64]) -> Shares:
    """The figures of each network, [..., networks], of how many images [..., 1 + 2 networks, classes] are of each
    class, were recognized by each network, and were taken for the class by each."""
    networks = counts.shape[-2] // 2
    return Shares.of(counts[..., :1, :], counts[..., 1 : 1 + networks, :], counts[..., 1 + networks :, :])


def _by_other_images(
    counts: NDArray[np.float64], groups: NDArray[np.str_] | None, draw: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Counts as other images would have had them, [1000, ...], and how much farther from what was observed each draw is
    to be taken, [1000]: few groups are too few as few repetitions are, so here too draws lie as Student's t does."""
    members = np.arange(len(counts)) if groups is None else np.unique(groups, return_inverse=True)[1]
    number = int(members.max()) + 1
    flat, drawn = counts.reshape(len(counts), -1), []
    for _ in range(0, _RESAMPLES, _RESAMPLES_AT_ONCE):
        drawn.append(draw.standard_exponential((_RESAMPLES_AT_ONCE, number))[:, members] @ flat)
    wider: NDArray[np.float64] = np.sqrt((number + 1) / draw.chisquare(max(number - 1, 1), _RESAMPLES))
    return np.concatenate(drawn).reshape(-1, *counts.shape[1:]), wider


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
