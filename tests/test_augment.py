import dataclasses

import pytest
import torch

from medistill.augment import augment, draw_augmentation
from medistill.recipe import AugmentSettings

OFF = {"rotate_degrees": 0.0, "scale": 0.0, "shift": 0.0, "brightness": 0.0, "contrast": 0.0}
ALL = AugmentSettings(rotate_degrees=20, scale=0.2, shift=0.1, brightness=0.3, contrast=0.3, cutout=0.4, flip=True)


def only(**settings: object) -> AugmentSettings:
    return AugmentSettings.model_validate(OFF | settings)


def noise(n: int = 6, size: int = 8) -> torch.Tensor:
    return torch.randn(n, 2, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_same_seed_gives_the_same_draw_and_another_seed_another():
    one, two, other = (augment(noise(), draw_augmentation(ALL, 6, seed)) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_drawing_does_not_disturb_the_global_random_state():
    before = torch.random.get_rng_state()
    draw_augmentation(ALL, 6, 1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_all_zero_switches_augmentation_off():
    assert draw_augmentation(only(), 6, 1) is None
    assert augment(images := noise(), None) is images


@pytest.mark.parametrize("name", ["rotate_degrees", "scale", "shift", "brightness", "contrast", "cutout", "flip"])
def test_each_setting_alone_changes_images(name):
    draw = draw_augmentation(only(**{name: True if name == "flip" else 0.5}), 6, 1)
    assert not torch.allclose(augment(noise(), draw), noise(), atol=1e-3)


def test_only_flipping_gives_the_image_or_its_mirror_and_sometimes_each():
    images = noise(40)
    changed = augment(images, draw_augmentation(only(flip=True), 40, 3))
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(changed, images, strict=True)]
    mirrored = [torch.allclose(a, b.flip(-1), atol=1e-5) for a, b in zip(changed, images, strict=True)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert 10 < sum(mirrored) < 30


def test_nothing_is_mirrored_when_flipping_is_off():
    """Left and right stay what they are: a chest film's heart does not change sides."""
    images = torch.zeros(200, 1, 8, 8)
    images[..., :4] = 1
    changed = augment(images, draw_augmentation(AugmentSettings(brightness=0, contrast=0), 200, 3))
    assert (changed[..., :4].mean((1, 2, 3)) > changed[..., 4:].mean((1, 2, 3))).all()


def test_brightness_moves_the_mean_and_contrast_the_spread_within_their_ranges():
    images = noise(100)
    brighter = augment(images, draw_augmentation(only(brightness=0.3), 100, 1)) - images
    assert brighter.std((1, 2, 3)).max() < 1e-5
    assert 0.25 < brighter.mean((1, 2, 3)).abs().max() <= 0.3
    contrasted = augment(images, draw_augmentation(only(contrast=0.3), 100, 1))
    gain = contrasted.std((1, 2, 3)) / images.std((1, 2, 3))
    assert torch.allclose(contrasted.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=1e-5)
    assert 0.7 <= float(gain.min()) < 0.75
    assert 1.25 < float(gain.max()) <= 1.3


def test_a_shift_is_at_most_its_share_of_the_side():
    images = torch.zeros(200, 1, 20, 20)
    images[:, :, :, 10:] = 1
    changed = augment(images, draw_augmentation(only(shift=0.1), 200, 1))
    edge = 20 - changed.mean((1, 2, 3)) * 20  # in pixels from the left
    assert (edge - 10).abs().max() <= 2.01
    assert (edge - 10).abs().max() > 1.8


def test_cutout_erases_at_most_its_square():
    images = torch.ones(100, 1, 20, 20)
    erased = (augment(images, draw_augmentation(only(cutout=0.3), 100, 1)) == 0).sum((1, 2, 3))
    assert erased.max() in (36, 42, 49)
    assert erased.min() > 0


def test_a_part_of_a_draw_is_the_draw_of_that_part():
    whole = draw_augmentation(ALL, 6, 1)
    assert whole is not None
    assert torch.equal(augment(noise()[2:5], whole.part(2, 5)), augment(noise(), whole)[2:5])
    assert {len(value) for value in dataclasses.asdict(whole.part(4, 9)).values() if not isinstance(value, float)} == {
        2
    }


def test_augmentation_is_differentiable_in_the_images():
    draw = draw_augmentation(ALL, 2, 1)
    images = noise(2, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: augment(x, draw), images)
