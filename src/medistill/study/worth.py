"""How many own images a package is worth: where on the curve of own images alone the same accuracy lies."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from medistill.evidence import Worth
from medistill.intervals import bounds

_NUMBERS_TRIED = 101


def worth(
    reached: NDArray[np.float64], alone: Mapping[int, NDArray[np.float64]], mean: float, means: Mapping[int, float]
) -> Worth:
    """The number of own images a class that, alone, reach the same balanced accuracy.

    Between the numbers that were tried accuracy is taken to rise in a straight line, from chance at 0 images, and never
    to fall: more images that did worse by bad luck count as what fewer reached. The interval holds every number at
    which the difference between help and own images alone may be 0.

    Args:
        reached: balanced accuracy with help, draw by draw, see `intervals.draws_of`.
        alone: the same draws of own images alone, by how many of each class; 0 is chance, one number for all.
        mean: balanced accuracy with help.
        means: balanced accuracy of own images alone, by how many of each class; 0 is chance.
    """
    numbers = sorted(alone)
    images = float(np.interp(mean, np.maximum.accumulate([means[number] for number in numbers]), numbers))
    possible = [images]
    for tried in np.linspace(0, numbers[-1], _NUMBERS_TRIED).tolist():
        low, high = bounds(reached - _between(tried, numbers, alone))
        if low <= 0 <= high:
            possible.append(tried)
    low, high = min(possible), max(possible)
    return Worth(images=round(images, 1), low=round(low, 1), high=round(high, 1), most=numbers[-1])


def _between(tried: float, numbers: list[int], alone: Mapping[int, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Draws of own images alone at a number between two that were tried."""
    above = int(np.searchsorted(numbers[1:-1], tried)) + 1
    fewer, more = numbers[above - 1], numbers[above]
    share = (tried - fewer) / (more - fewer)
    return (1 - share) * alone[fewer] + share * alone[more]
