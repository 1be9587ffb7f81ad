"""Differentiable augmentation whose draws can be replayed.

Drawing is apart from applying: the draws of an inner step come from the recipe's seed, so the backward pass replays
exactly the forward pass, and a resumed run repeats an uninterrupted one. Everything is vectorized over the batch, and
one resampling serves rotation, scale, shift and flip.

Source: after Zhao and Bilen, ICML 2021 (arXiv 2102.08259), differentiable siamese augmentation.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from medistill.recipe import AugmentSettings
from medistill.shapes import Images


@dataclass(frozen=True)
class Draw:
    """What augmentation does to each of `n` images.

    Attributes:
        placement: affine map from output to input coordinates, [n, 2, 3], in half image sides.
        gain: contrast about the image's own mean, [n].
        offset: brightness added afterwards, [n], in standard deviations of the real images.
        hole: center of the erased square, [n, 2], in image sides from the top left.
        hole_side: side of that square in image sides; 0 erases nothing.
    """

    placement: Tensor
    gain: Tensor
    offset: Tensor
    hole: Tensor
    hole_side: float

    def part(self, first: int, last: int) -> "Draw":
        """The draw of images `first` up to but not including `last`."""
        part = slice(first, last)
        return Draw(self.placement[part], self.gain[part], self.offset[part], self.hole[part], self.hole_side)

    def repeated(self, n: int) -> "Draw":
        """The draw of a single image for each of `n`."""
        one = torch.zeros(n, dtype=torch.long)
        return Draw(self.placement[one], self.gain[one], self.offset[one], self.hole[one], self.hole_side)


def draw_augmentation(settings: AugmentSettings, n: int, seed: int) -> Draw | None:
    """Draw one augmentation for each of `n` images from `seed`; None where the settings switch it off."""
    if not any(settings.model_dump().values()):
        return None
    generator = torch.Generator().manual_seed(seed)

    def uniform(reach: float) -> Tensor:
        return (torch.rand(n, generator=generator) * 2 - 1) * reach

    angle, zoom = uniform(settings.rotate_degrees * math.pi / 180), 1 + uniform(settings.scale)
    right, down = uniform(2 * settings.shift), uniform(2 * settings.shift)
    mirrored = torch.rand(n, generator=generator) < (0.5 if settings.flip else 0.0)
    sign = torch.where(mirrored, -1.0, 1.0)
    rows = (
        [zoom * angle.cos() * sign, -zoom * angle.sin(), right],
        [zoom * angle.sin() * sign, zoom * angle.cos(), down],
    )
    return Draw(
        placement=torch.stack([torch.stack(row, -1) for row in rows], 1),
        gain=1 + uniform(settings.contrast),
        offset=uniform(settings.brightness),
        hole=torch.rand(n, 2, generator=generator),
        hole_side=settings.cutout,
    )


def augment(images: Images, draw: Draw | None) -> Images:
    """Apply a draw, differentiably in the images; None returns them as they are.

    Args:
        images: normalized images.
        draw: from `draw_augmentation` for as many images.
    """
    if draw is None:
        return images
    n, _, height, width = images.shape
    grid = functional.affine_grid(draw.placement.to(images), list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    gain, offset = (value.to(images).view(n, 1, 1, 1) for value in (draw.gain, draw.offset))
    mean = moved.mean((1, 2, 3), keepdim=True)
    changed = (moved - mean) * gain + mean + offset
    if draw.hole_side == 0:
        return changed
    return changed * _outside_hole(draw, height, width).to(images)


def _outside_hole(draw: Draw, height: int, width: int) -> Tensor:
    """0 inside each image's erased square and 1 outside, [n, 1, h, w]."""
    inside = []
    for axis, length in enumerate((height, width)):
        ticks = (torch.arange(length) + 0.5) / length
        inside.append((ticks - draw.hole[:, axis, None]).abs() <= draw.hole_side / 2)
    return (~(inside[0][:, None, :, None] & inside[1][:, None, None, :])).float()
