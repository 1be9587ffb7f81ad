"""Choosing real images instead of making synthetic ones: by features, class by class.

Random choice is `evaluate.RandomImages`. These two look at features of a network trained on all images, so they are
choices that only the holder can make; and what is chosen shows real patients, whatever else it does.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from medistill.evaluate import of_every_class
from medistill.images import Indices, LabelledImages

FeatureRows = NDArray[np.float32]
Rule = Callable[[FeatureRows, int], Indices]


def herding(features: FeatureRows, count: int) -> Indices:
    """Rows whose mean is the class's: each next one brings the mean of the chosen nearest to the mean of all.

    Source: Welling, ICML 2009, as used by Rebuffi et al., CVPR 2017 (arXiv 1611.07725), algorithm 4, but of
    features as they are, not brought to length 1.
    """
    mean, total = features.mean(0), np.zeros(features.shape[1])
    chosen: list[int] = []
    for number in range(1, count + 1):
        distance = np.linalg.norm(mean - (total + features) / number, axis=1)
        distance[chosen] = np.inf
        chosen.append(int(distance.argmin()))
        total += features[chosen[-1]]
    return np.array(chosen)


def k_center(features: FeatureRows, count: int) -> Indices:
    """Rows of which every other one is near some: each next one is the farthest from those chosen.

    The first is the nearest to the mean, for there is nothing to be far from yet.

    Source: Sener and Savarese, ICLR 2018 (arXiv 1708.00489), algorithm 1.
    """
    chosen = [int(np.linalg.norm(features - features.mean(0), axis=1).argmin())]
    nearest = np.linalg.norm(features - features[chosen[0]], axis=1)
    while len(chosen) < count:
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(features - features[chosen[-1]], axis=1))
    return np.array(chosen)


RULES: dict[str, Rule] = {"herding": herding, "k-center": k_center}


def select(rule: Rule, features: FeatureRows, images: LabelledImages, of_each: Sequence[int]) -> Indices:
    """`of_each` images of every class by one rule, from features of all, classes in order.

    Raises:
        RecipeError: a class has fewer images.
    """
    return of_every_class(images, of_each, lambda members, n: members[rule(features[members], n)])
