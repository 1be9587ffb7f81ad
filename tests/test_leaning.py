import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from medistill.leaning import class_offsets


def lopsided(classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noisy logits of an imbalanced set, which lean to the first class and away from the second."""
    draw = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), [40, 300, 90, 150][:classes])
    logits = 2 * np.eye(classes)[labels] + draw.normal(0, 1.5, (len(labels), classes))
    logits[:, 0] += 1
    logits[:, 1] -= 2
    return logits, labels


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_offsets_are_those_of_the_largest_balanced_likelihood(classes):
    logits, labels = lopsided(classes)
    weights = 1 / np.bincount(labels)[labels]

    def surprise(offsets: np.ndarray) -> float:
        said = log_softmax(logits + offsets, axis=1)[np.arange(len(labels)), labels]
        return float(-(weights * said).sum() / weights.sum())

    best = minimize(surprise, np.zeros(classes), tol=1e-10).x
    found = class_offsets(softmax(logits, axis=1), labels)
    np.testing.assert_allclose(found, best - best.mean(), atol=2e-3)
    assert found.mean() == pytest.approx(0)
    assert found[1] > 0.5


def test_with_its_offsets_a_network_gives_every_class_the_same_share_and_needs_no_more():
    logits, labels = lopsided()
    level = softmax(logits + class_offsets(softmax(logits, axis=1), labels), axis=1)
    shares = [level[labels == label].mean(0) for label in range(4)]
    np.testing.assert_allclose(np.mean(shares, 0), 0.25, atol=1e-3)
    np.testing.assert_allclose(class_offsets(level, labels), 0, atol=1e-3)


def test_a_network_that_is_sure_of_everything_does_not_break_them():
    labels = np.array([0, 0, 1, 1])
    found = class_offsets(np.eye(2)[[0, 0, 0, 0]], labels)
    assert np.isfinite(found).all()
