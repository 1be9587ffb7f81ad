"""How networks that learned from a small set lean, and what takes it off.

Networks that learned from forty distilled chest films named some classes too seldom, all of them the same ones, in
whatever order they learned and from whatever parameters they began: it lay in the set. One number a class, added to the
logits, took off what they had in common (docs/log.md). The holder, who has real images enough, can measure these
numbers; a receiver, who has few or none, cannot.

Source: the correction of biases alone, as in Alexandari et al., ICML 2020 (arXiv 1901.06852), "bias-corrected
calibration", there for one network and its own validation images.
"""

import numpy as np
from numpy.typing import NDArray

_MOST_ROUNDS = 1000
_CLOSE_ENOUGH = 1e-4
_SMALLEST = 1e-12


def class_offsets(probabilities: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """What to add to the logits so that, over images of which every class weighs the same, every class gets the same
    share of probability. These offsets make such images likeliest; they are one a class, and their mean is 0.

    Args:
        probabilities: what a network says of each image, [n, classes].
        labels: the class of each, every class at least once.
    """
    classes = probabilities.shape[1]
    weights = (1 / np.bincount(labels, minlength=classes))[labels] / classes
    logits = np.log(np.maximum(probabilities, _SMALLEST))
    offsets = np.zeros(classes)
    for _ in range(_MOST_ROUNDS):
        odds = np.exp(logits + offsets - (logits + offsets).max(1, keepdims=True))
        shares = weights @ (odds / odds.sum(1, keepdims=True))
        step = -np.log(classes * np.maximum(shares, _SMALLEST))
        offsets += step
        if np.abs(step).max() < _CLOSE_ENOUGH:
            break
    centered: NDArray[np.float64] = offsets - offsets.mean()
    return centered
