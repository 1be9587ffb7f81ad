"""How many own images a package is worth: where on the curve of own images alone the same accuracy lies."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from medistill.evidence import Worth
from medistill.metrics import bounds


def worth(
    reached: NDArray[np.float64], alone: Mapping[int, NDArray[np.float64]], mean: float, means: Mapping[int, float]
) -> Worth:
    """The number of own images a class that, alone, reach the same balanced accuracy.

    Between the numbers that were tried accuracy is taken to rise in a straight line, from chance at 0 images, and never
    to fall: more images that did worse by bad luck count as what fewer reached.

    Args:
        reached: balanced accuracy with help, draw by draw, see `metrics.draws_of`.
        alone: the same draws of own images alone, by how many of each class; 0 is chance, one number for all.
        mean: balanced accuracy with help.
        means: balanced accuracy of own images alone, by how many of each class; 0 is chance.
    """
    numbers = sorted(alone)

    def found(value: float, curve: list[float]) -> float:
        return float(np.interp(value, np.maximum.accumulate(curve), numbers))

    curves = np.stack([np.broadcast_to(alone[number], reached.shape) for number in numbers], 1)
    low, high = bounds(np.array([found(*draw) for draw in zip(reached.tolist(), curves.tolist(), strict=True)]))
    images = found(mean, [means[number] for number in numbers])
    return Worth(images=round(images, 1), low=round(low, 1), high=round(high, 1), most=numbers[-1])
