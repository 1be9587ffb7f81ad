import numpy as np
import pytest
import torch

from medistill.canvas import canvas_of, painted

IMAGES = torch.rand(3, 2, 8, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("formation", [1, 2])
@pytest.mark.parametrize("smoothness", [0, 0.5, 1, 2])
def test_a_canvas_shows_the_images_it_was_made_of(smoothness, formation):
    canvas = canvas_of(IMAGES, smoothness, formation)
    assert canvas.shape == IMAGES.shape
    assert torch.allclose(painted(canvas, smoothness, formation), IMAGES)


def test_without_smoothness_the_pixels_themselves_move():
    assert canvas_of(IMAGES, 0) is IMAGES
    assert painted(IMAGES, 0) is IMAGES


@pytest.mark.parametrize("smoothness", [0.5, 1, 2])
def test_equal_steps_of_all_cosines_move_pixels_as_far_as_equal_steps_of_pixels(smoothness):
    canvas = canvas_of(IMAGES, smoothness)
    moved = painted(canvas + 0.1 * torch.randn_like(canvas).sign(), smoothness) - IMAGES
    assert moved.square().mean(dim=(1, 2, 3)).sqrt().tolist() == pytest.approx([0.1] * 3)


def test_one_cosine_moves_by_the_power_of_its_half_waves():
    """Three half-waves across and four down are five along the diagonal: 1 / (1 + 5)^2 of what brightness moves."""

    def moved_by(row: int, column: int) -> float:
        canvas = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
        canvas[0, 0, row, column] = 1
        return float(painted(canvas, 2).norm())

    assert moved_by(4, 3) / moved_by(0, 0) == pytest.approx(1 / 36)


def test_a_cosine_is_a_wave_over_the_whole_film():
    canvas = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    canvas[0, 0, 0, 2] = 1
    row = painted(canvas, 1)[0, 0, 3].numpy()
    wave = np.cos(np.pi * 2 * (np.arange(8) + 0.5) / 8)
    assert np.corrcoef(row, wave)[0, 1] == pytest.approx(1)


def test_films_of_a_formation_are_painted_apart():
    canvas = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    canvas[0, 0, :4, 4:] = 1
    shown = painted(canvas, 1, formation=2)[0, 0]
    assert shown[:4, 4:].abs().max() > 0
    shown[:4, 4:] = 0
    assert not shown.any()


def test_gradients_reach_the_canvas():
    canvas = canvas_of(IMAGES, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda moving: painted(moving, 1, 2), canvas)
