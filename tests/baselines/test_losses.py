"""Every loss against a few lines of numpy."""

import numpy as np
import pytest
import torch
from pretexts import IMAGE, pretext_named
from scipy.special import log_softmax

from medistill.baselines.byol import BYOL, prediction_distance
from medistill.baselines.mae import masked_error
from medistill.baselines.simsiam import negative_cosine
from medistill.baselines.skd import similarity_divergence

DRAW = np.random.default_rng(0)
P, Z = DRAW.standard_normal((6, 5)), DRAW.standard_normal((6, 5))
TORCH_P, TORCH_Z = torch.from_numpy(P), torch.from_numpy(Z)


def units(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_byols_distance_is_that_of_unit_vectors():
    expected = ((units(P) - units(Z)) ** 2).sum(1).mean()
    assert float(prediction_distance(TORCH_P, TORCH_Z)) == pytest.approx(expected, rel=1e-12)
    assert float(prediction_distance(TORCH_P, 3 * TORCH_P)) == pytest.approx(0, abs=1e-12)
    assert float(prediction_distance(TORCH_P, -TORCH_P)) == pytest.approx(4, rel=1e-12)


def test_byols_target_follows_by_the_published_schedule():
    pretext = pretext_named("byol")
    assert isinstance(pretext, BYOL)
    slow, fast = next(pretext.target_encoder.parameters()), next(pretext.encoder.parameters())
    with torch.no_grad():
        fast.add_(1)
    before = slow.clone()
    pretext.follow(0.5)
    assert torch.allclose(slow - before, torch.full_like(slow, 0.005), atol=1e-6)
    pretext.follow(1.0)
    assert torch.allclose(slow - before, torch.full_like(slow, 0.005), atol=1e-6)


def test_no_gradient_reaches_byols_target():
    pretext = pretext_named("byol")
    pretext.loss(torch.randn(4, *IMAGE), torch.randn(4, *IMAGE), torch.Generator()).backward()
    assert all(parameter.grad is None for parameter in pretext.target_encoder.parameters())
    assert all(parameter.grad is not None for parameter in pretext.encoder.parameters())


def test_simsiam_points_predictions_at_targets_that_stay():
    z = TORCH_Z.clone().requires_grad_()
    p = TORCH_P.clone().requires_grad_()
    value = negative_cosine(p, z)
    assert float(value.detach()) == pytest.approx(-(units(P) * units(Z)).sum(1).mean(), rel=1e-12)
    value.backward()
    assert z.grad is None
    assert p.grad is not None


def test_skd_hands_over_similarities_within_the_batch():
    def log_similarities(rows: np.ndarray) -> np.ndarray:
        cosines = units(rows) @ units(rows).T
        others = np.stack([np.delete(row, index) for index, row in enumerate(cosines)])
        return log_softmax(others / 0.2, axis=1)

    ours, theirs = log_similarities(P), log_similarities(Z)
    expected = (np.exp(theirs) * (theirs - ours)).sum(1).mean()
    assert float(similarity_divergence(TORCH_P, TORCH_Z, 0.2)) == pytest.approx(expected, rel=1e-10)
    assert float(similarity_divergence(TORCH_P, TORCH_P, 0.2)) == pytest.approx(0, abs=1e-12)


def test_mae_is_judged_on_patches_it_did_not_see():
    drawn, real = DRAW.standard_normal((2, 3, 4)), DRAW.standard_normal((2, 3, 4))
    is_masked = np.array([[1.0, 0, 1], [0, 1, 1]])
    wanted = (real - real.mean(2, keepdims=True)) / np.sqrt(real.var(2, ddof=1, keepdims=True) + 1e-6)
    expected = np.mean([((drawn - wanted)[i, j] ** 2).mean() for i, j in zip(*np.nonzero(is_masked), strict=True)])
    found = masked_error(*(torch.from_numpy(each) for each in (drawn, real, is_masked)))
    assert float(found) == pytest.approx(expected, rel=1e-10)
