"""The loop and the heads; each method's loss has a test of its own beside this one."""

import numpy as np
import pytest
import torch
from pretexts import pretext_named
from torch import nn

from medistill.baselines.pretraining import Pretext, features_of, pretrain, spread
from medistill.errors import MatchingError
from medistill.recipe import PretrainSettings
from toys import TRANSFORM, films, recipe

QUICK = PretrainSettings(steps=24, batch_size=16)


def run(pretext: Pretext, settings: PretrainSettings = QUICK, seed: int = 0):
    pixels = torch.from_numpy(films((32, 32)).pixels)
    return list(pretrain(pretext, pixels, TRANSFORM, settings, recipe({"seed": seed}).seed_for))


@pytest.mark.parametrize("name", ["byol", "simsiam", "skd", "mae"])
def test_the_loss_falls_and_features_do_not_collapse(name):
    epochs = run(pretext_named(name), PretrainSettings(steps=80, batch_size=16, rate=3e-3))
    assert len(epochs) == 20
    assert epochs[-1].loss < epochs[0].loss - 0.01
    assert epochs[-1].spread > 0.05


@pytest.mark.parametrize("name", ["byol", "simsiam", "skd", "mae"])
def test_the_same_seed_gives_the_same_encoder_and_another_seed_another(name):
    def encoder(seed: int) -> torch.Tensor:
        pretext = pretext_named(name)
        run(pretext, seed=seed)
        return nn.utils.parameters_to_vector(pretext.encoder.parameters()).detach()

    assert torch.equal(encoder(1), encoder(1))
    assert not torch.equal(encoder(1), encoder(2))


def test_every_parameter_of_the_encoder_learns():
    pretext = pretext_named("skd")
    before = [parameter.detach().clone() for parameter in pretext.encoder.parameters()]
    run(pretext)
    assert not any(torch.equal(old, new) for old, new in zip(before, pretext.encoder.parameters(), strict=True))


def test_steps_are_rounded_up_to_whole_epochs():
    assert len(run(pretext_named("mae"), PretrainSettings(steps=5, batch_size=16))) == 2


def test_a_rate_that_diverges_is_named():
    with pytest.raises(
        MatchingError, match=r"Pre-training diverged in epoch \d+ at rate 1e\+30\. Lower pretrain\.rate"
    ):
        run(pretext_named("mae"), PretrainSettings(steps=80, batch_size=16, rate=1e30))


def test_spread_is_1_in_all_directions_and_0_in_one():
    draw = np.random.default_rng(0)
    assert spread(torch.from_numpy(draw.standard_normal((4000, 16)))) == pytest.approx(1, abs=0.01)
    assert spread(torch.ones(10, 16)) == pytest.approx(0, abs=1e-6)


def test_spread_is_measured_over_a_file_and_not_at_its_beginning():
    alike = torch.from_numpy(films((32, 32)).pixels[:1]).repeat(256, 1, 1, 1)
    different = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (44, *alike.shape[1:]), np.uint8))
    settings = PretrainSettings(steps=1, batch_size=300)
    (epoch,) = pretrain(pretext_named("skd"), torch.cat([alike, different]), TRANSFORM, settings, recipe().seed_for)
    assert epoch.spread > 0.05


def test_features_are_counted_on_an_image():
    assert features_of(nn.Flatten(), (3, 4, 5)) == 60
