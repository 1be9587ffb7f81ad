"""Several films in one stored image.

A film at half the side takes a quarter of the bytes and often teaches almost as much. With a formation of f, a stored
image is a square of f x f small films, each of which networks see enlarged to the full side: bilinearly, or by its
cosine spectrum (`spectrum.py`).

Source: Kim et al., ICML 2022 (arXiv 2205.14959), "multi-formation".
"""

import torch
from torch import Tensor
from torch.nn import functional

from medistill.recipe import Enlarging
from medistill.shapes import Images
from medistill.spectrum import enlarging_matrix


def unfold(images: Images, formation: int, enlarging: Enlarging = "bilinear") -> Images:
    """The films that networks see: f x f of every image, row by row, enlarged; differentiable.

    Args:
        images: [n, c, h, w], h and w multiples of `formation`.
        formation: f; 1 changes nothing.
        enlarging: how.
    """
    if formation == 1:
        return images
    height, width = images.shape[2:]
    films = cut(images, formation)
    if enlarging == "cosine":
        rows, columns = (_enlarging(side, formation, images) for side in (height, width))
        return rows @ films @ columns.T
    return functional.interpolate(films, size=(height, width), mode="bilinear", align_corners=False)


def fold(films: Images, formation: int, enlarging: Enlarging = "bilinear") -> Images:
    """Images that hold f x f films each, every film reduced to what `unfold` can enlarge again.

    Args:
        films: [n f f, c, h, w], h and w multiples of `formation`.
        formation: f; 1 changes nothing.
        enlarging: how they will be enlarged: squares of pixels are averaged, or the lowest frequencies kept.
    """
    if formation == 1:
        return films
    if enlarging == "cosine":
        rows, columns = (_enlarging(side, formation, films) for side in films.shape[2:])
        small = rows.T @ films @ columns / formation**2
    else:
        small = functional.avg_pool2d(films, formation)
    return joined(small, formation)


def cut(images: Images, formation: int) -> Images:
    """The films of every image as they are stored, row by row, [n f f, c, h / f, w / f]."""
    n, channels, height, width = images.shape
    parts = images.reshape(n, channels, formation, height // formation, formation, width // formation)
    return parts.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def joined(films: Images, formation: int) -> Images:
    """The images that `cut` gives these films of."""
    channels, height, width = films.shape[1:]
    parts = films.reshape(-1, formation, formation, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return parts.flatten(4, 5).flatten(2, 3)


def _enlarging(side: int, formation: int, like: Images) -> Tensor:
    return torch.from_numpy(enlarging_matrix(side // formation, side)).to(like)
