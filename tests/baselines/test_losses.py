"""Every loss against a few lines of numpy."""

import numpy as np
import pytest
import torch
from pretexts import IMAGE, pretext_named
from scipy.special import log_softmax
from torch import Tensor, nn

from medistill.baselines.byol import BYOL, prediction_distance
from medistill.baselines.mae import MAE, masked_error
from medistill.baselines.simsiam import SimSiam, negative_cosine
from medistill.baselines.skd import SKD, similarity_divergence
from medistill.networks.vit import ViT

DRAW = np.random.default_rng(0)
P, Z = DRAW.standard_normal((6, 5)), DRAW.standard_normal((6, 5))
TORCH_P, TORCH_Z = torch.from_numpy(P), torch.from_numpy(Z)


def units(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def log_similarities(rows: np.ndarray, temperature: float) -> np.ndarray:
    cosines = units(rows) @ units(rows).T
    others = np.stack([np.delete(row, index) for index, row in enumerate(cosines)])
    return log_softmax(others / temperature, axis=1)


def divergence(online: np.ndarray, target: np.ndarray, temperature: float) -> float:
    ours, theirs = log_similarities(online, temperature), log_similarities(target, temperature)
    return (np.exp(theirs) * (theirs - ours)).sum(1).mean()


def apart(said: np.ndarray, wanted: np.ndarray) -> float:
    return ((units(said) - units(wanted)) ** 2).sum(1).mean()


def normed(rows: np.ndarray) -> np.ndarray:
    return (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)


def perceptron(head: nn.Sequential, rows: np.ndarray) -> np.ndarray:
    """Linear, batch norm, ReLU, linear; the norms have drawn scales and shifts."""
    into, gain, shift, out, bias = (parameter.detach().numpy() for parameter in head.parameters())
    return np.maximum(normed(rows @ into.T) * gain + shift, 0) @ out.T + bias


def encoded(encoder: nn.Module, view: Tensor) -> np.ndarray:
    with torch.no_grad():
        return encoder(view).numpy()


def drawn_anew(name: str):
    """A pretext in double precision whose parameters all differ, a target's from those that it follows."""
    pretext = pretext_named(name).double()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in pretext.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
    return pretext


def two_views() -> tuple[Tensor, Tensor]:
    return tuple(torch.from_numpy(np.random.default_rng(seed).standard_normal((6, *IMAGE))) for seed in (1, 2))


def through_byol(pretext: BYOL, view: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is predicted from a view, what it is predicted from, and what the target says of the same view."""
    online = perceptron(pretext.projector, encoded(pretext.encoder, view))
    target = perceptron(pretext.target_projector, encoded(pretext.target_encoder, view))
    return perceptron(pretext.predictor, online), online, target


def test_byols_distance_is_that_of_unit_vectors():
    expected = ((units(P) - units(Z)) ** 2).sum(1).mean()
    assert float(prediction_distance(TORCH_P, TORCH_Z)) == pytest.approx(expected, rel=1e-12)
    assert float(prediction_distance(TORCH_P, 3 * TORCH_P)) == pytest.approx(0, abs=1e-12)
    assert float(prediction_distance(TORCH_P, -TORCH_P)) == pytest.approx(4, rel=1e-12)


def test_byol_predicts_of_each_view_what_the_target_says_of_the_other():
    pretext, views = drawn_anew("byol"), two_views()
    (said, _, target), (other_said, _, other_target) = (through_byol(pretext, view) for view in views)
    expected = apart(said, other_target) + apart(other_said, target)
    assert float(pretext.loss(*views, torch.Generator()).detach()) == pytest.approx(expected, rel=1e-9)
    assert expected != pytest.approx(apart(said, target) + apart(other_said, other_target), rel=0.01)


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


def test_simsiam_predicts_of_each_view_what_the_same_network_says_of_the_other():
    pretext, views = drawn_anew("simsiam"), two_views()
    assert isinstance(pretext, SimSiam)
    z, other_z = (normed(perceptron(pretext.projector[:4], encoded(pretext.encoder, view))) for view in views)
    said, other_said = (perceptron(pretext.predictor, each) for each in (z, other_z))
    agreed = (units(said) * units(other_z)).sum(1).mean() + (units(other_said) * units(z)).sum(1).mean()
    assert float(pretext.loss(*views, torch.Generator()).detach()) == pytest.approx(-agreed / 2, rel=1e-9)
    same_view = (units(said) * units(z)).sum(1).mean() + (units(other_said) * units(other_z)).sum(1).mean()
    assert agreed != pytest.approx(same_view, rel=0.01)


def test_simsiam_learns_as_if_what_is_predicted_were_a_number():
    """Along a line through the parameters the slope is that of predictions alone, targets staying where they were."""
    pretext, views = drawn_anew("simsiam"), two_views()
    targets = [normed(perceptron(pretext.projector[:4], encoded(pretext.encoder, view))) for view in views]
    pretext.loss(*views, torch.Generator()).backward()
    learned = list(pretext.parameters())
    draw = torch.Generator().manual_seed(2)
    way = [torch.randn(each.shape, generator=draw, dtype=torch.float64) for each in learned]
    found = float(sum((each.grad * along).sum() for each, along in zip(learned, way, strict=True)))

    def value(step: float, targets_move: bool) -> float:
        with torch.no_grad():
            torch._foreach_add_(learned, way, alpha=step)
            now = [normed(perceptron(pretext.projector[:4], encoded(pretext.encoder, view))) for view in views]
            said = [perceptron(pretext.predictor, each) for each in now]
            torch._foreach_sub_(learned, way, alpha=step)
        pairs = zip(said, (now if targets_move else targets)[::-1], strict=True)
        return -sum((units(one) * units(other)).sum(1).mean() for one, other in pairs) / 2

    slope, free = ((value(1e-6, each) - value(-1e-6, each)) / 2e-6 for each in (False, True))
    assert found == pytest.approx(slope, rel=1e-3)
    assert found != pytest.approx(free, rel=0.05)


def test_skd_adds_to_byol_half_of_what_similarities_lie_apart_both_ways():
    """Of what the online network projects, before its predictor, to what the target says of the other view."""
    pretext, views = drawn_anew("skd"), two_views()
    assert isinstance(pretext, SKD)
    (said, online, target), (other_said, other_online, other_target) = (through_byol(pretext, view) for view in views)
    across = apart(said, other_target) + apart(other_said, target)
    similar = (divergence(online, other_target, 0.1) + divergence(other_online, target, 0.1)) / 2
    assert float(pretext.loss(*views, torch.Generator()).detach()) == pytest.approx(across + similar, rel=1e-9)
    the_other_way = (divergence(other_target, online, 0.1) + divergence(target, other_online, 0.1)) / 2
    assert similar != pytest.approx(the_other_way, rel=0.01)
    assert similar > 0.1 * across


def test_no_gradient_reaches_skds_target():
    pretext = drawn_anew("skd")
    pretext.loss(*two_views(), torch.Generator()).backward()
    targets = (*pretext.target_encoder.parameters(), *pretext.target_projector.parameters())
    assert all(parameter.grad is None for parameter in targets)
    assert all(parameter.grad is not None for parameter in pretext.encoder.parameters())


def test_skd_hands_over_similarities_within_the_batch():
    assert float(similarity_divergence(TORCH_P, TORCH_Z, 0.2)) == pytest.approx(divergence(P, Z, 0.2), rel=1e-10)
    assert float(similarity_divergence(TORCH_P, TORCH_P, 0.2)) == pytest.approx(0, abs=1e-12)


def test_mae_is_judged_on_patches_it_did_not_see():
    drawn, real = DRAW.standard_normal((2, 3, 4)), DRAW.standard_normal((2, 3, 4))
    is_masked = np.array([[1.0, 0, 1], [0, 1, 1]])
    wanted = (real - real.mean(2, keepdims=True)) / np.sqrt(real.var(2, ddof=1, keepdims=True) + 1e-6)
    expected = np.mean([((drawn - wanted)[i, j] ** 2).mean() for i, j in zip(*np.nonzero(is_masked), strict=True)])
    found = masked_error(*(torch.from_numpy(each) for each in (drawn, real, is_masked)))
    assert float(found) == pytest.approx(expected, rel=1e-10)


class Watched:
    """A masked autoencoder of 16 x 16 images, 64 patches of 2 x 2 pixels, and what went through its parts."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.pretext = MAE(ViT(1, 16, 2, 16, 1).features, (1, 16, 16)).double()
        nn.init.normal_(self.pretext.hidden)  # where it is zero nobody can tell it from nothing

    def loss(self, images: Tensor, seed: int = 0) -> float:
        """The loss; `given` and `made` are what the encoder's blocks took in and put out, `before` what the decoder
        took in, `drawn` its patches."""
        seen = {}
        parts = {"encoder": self.pretext.encoder.blocks, "decoder": self.pretext.decoder, "pixels": self.pretext.pixels}
        hooks = [
            part.register_forward_hook(lambda _, taken, put, name=name: seen.update({name: (taken[0], put)}))
            for name, part in parts.items()
        ]
        with torch.no_grad():
            value = float(self.pretext.loss(images, torch.full_like(images, torch.nan), drawn_by(seed)))
        for hook in hooks:
            hook.remove()
        self.given, self.made = (each.numpy() for each in seen["encoder"])
        self.before, self.drawn = seen["decoder"][0].numpy(), seen["pixels"][1].numpy()
        return value

    def shown(self, images: Tensor) -> np.ndarray:
        """Which patch of the image each row was that the encoder's blocks were given, [n, shown]."""
        with torch.no_grad():
            rows = self.pretext.encoder.tokens(images).numpy()
        return np.abs(self.given[:, :, None] - rows[:, None]).max(3).argmin(2)


def drawn_by(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sixteen() -> Tensor:
    return torch.from_numpy(np.random.default_rng(3).standard_normal((3, 1, 16, 16)))


def cut(images: Tensor) -> np.ndarray:
    """Patches of 2 x 2 pixels row by row, one after another."""
    return np.stack(
        [
            [image[0, top : top + 2, left : left + 2].ravel() for top in range(0, 16, 2) for left in range(0, 16, 2)]
            for image in images.numpy()
        ]
    )


def test_mae_shows_a_quarter_of_the_patches_and_counts_the_others_alone():
    mae, images = Watched(), sixteen()
    value, shown = mae.loss(images), mae.shown(images)
    assert [len(set(row)) for row in shown] == [16, 16, 16]
    assert len({frozenset(row) for row in shown}) == 3  # every image has other patches hidden
    real = cut(images)
    wanted = (real - real.mean(2, keepdims=True)) / np.sqrt(real.var(2, ddof=1, keepdims=True) + 1e-6)
    errors = ((mae.drawn - wanted) ** 2).mean(2)
    hidden = np.array([np.delete(row, seen) for row, seen in zip(errors, shown, strict=True)])
    assert hidden.shape == (3, 48)
    assert value == pytest.approx(hidden.mean(), rel=1e-9)
    assert value != pytest.approx(errors.mean(), rel=1e-3)


def test_maes_decoder_finds_each_patch_in_its_place_and_the_hidden_row_elsewhere():
    mae, images = Watched(), sixteen()
    mae.loss(images)
    place, hidden = mae.pretext.place.detach().numpy(), mae.pretext.hidden.detach().numpy()
    expected = np.broadcast_to(hidden, mae.before.shape).copy()
    for image, seen in enumerate(mae.shown(images)):
        expected[image, seen] = mae.made[image]
    assert np.allclose(mae.before, expected + place, rtol=0, atol=1e-12)


def test_pixels_that_mae_hides_change_nothing_that_it_sees_or_draws():
    mae, images = Watched(), sixteen()
    value, shown = mae.loss(images), mae.shown(images)
    given, drawn = mae.given, mae.drawn
    others = torch.full_like(images, 0.5)
    for image, seen in enumerate(shown):
        for top, left in zip(*np.divmod(seen, 8), strict=True):
            part = (image, 0, slice(2 * top, 2 * top + 2), slice(2 * left, 2 * left + 2))
            others[part] = images[part]
    assert mae.loss(others) != pytest.approx(value, rel=0.1)
    assert np.array_equal(mae.given, given)
    assert np.array_equal(mae.drawn, drawn)
    mae.loss(images, seed=1)
    assert not np.array_equal(mae.given, given)  # the draw alone decides what is hidden
