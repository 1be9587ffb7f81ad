"""What moves when images are learned: their pixels, or the cosines that they are made of.

An optimizer such as Adam moves every number by about the same step, so where pixels move, waves of all lengths grow
alike, and the larger the image, the more of them are fine. On a canvas of cosines, those of long waves move farther
than those of short ones, and what is coarse comes first; nothing is out of reach.

Source: Olah et al., Distill 2017 (doi 10.23915/distill.00007), "preconditioning and parameterization", there with
Fourier's basis, which repeats at the edges, and steps of 1 / f.
"""

import numpy as np
import torch
from torch import Tensor

from medistill.formation import cut, joined
from medistill.shapes import Images
from medistill.spectrum import cosines


def canvas_of(images: Images, smoothness: float, formation: int = 1) -> Tensor:
    """The numbers that move for these images, of the same shape; `painted` gives the images back.

    Args:
        images: [n, c, h, w], h and w multiples of `formation`.
        smoothness: 0 for the pixels; p for cosines, of which a step of 1 moves one of f half-waves by 1 / (1 + f)^p,
            scaled so that steps of 1 to all of them move the pixels by 1 in root mean square.
        formation: f x f films in each image, each a canvas of its own.
    """
    if smoothness == 0:
        return images
    films = cut(images, formation)
    rows, columns, steps = _basis(films, smoothness)
    return joined(rows @ films @ columns.T / steps, formation)


def painted(canvas: Tensor, smoothness: float, formation: int = 1) -> Images:
    """The images that a canvas stands for; differentiable."""
    if smoothness == 0:
        return canvas
    films = cut(canvas, formation)
    rows, columns, steps = _basis(films, smoothness)
    return joined(rows.T @ (films * steps) @ columns, formation)


def _basis(films: Tensor, smoothness: float) -> tuple[Tensor, Tensor, Tensor]:
    """The cosines of a column, [h, h], and of a row, [w, w], and how far each product of two moves, [h, w]."""
    height, width = films.shape[2:]
    half_waves = np.hypot(np.arange(height)[:, None], np.arange(width))
    steps = (1 + half_waves) ** -smoothness
    steps /= np.sqrt((steps**2).mean())
    rows, columns, far = (torch.from_numpy(each).to(films) for each in (cosines(height), cosines(width), steps))
    return rows, columns, far
