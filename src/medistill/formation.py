"""Several films in one stored image.

A film at half the side takes a quarter of the bytes and often teaches almost as much. With a formation of f, a stored
image is a square of f x f small films, each of which networks see enlarged to the full side.

Source: Kim et al., ICML 2022 (arXiv 2205.14959), "multi-formation".
"""

from torch.nn import functional

from medistill.shapes import Images


def unfold(images: Images, formation: int) -> Images:
    """The films that networks see: f x f of every image, row by row, enlarged bilinearly; differentiable.

    Args:
        images: [n, c, h, w], h and w multiples of `formation`.
        formation: f; 1 changes nothing.
    """
    if formation == 1:
        return images
    n, channels, height, width = images.shape
    parts = images.reshape(n, channels, formation, height // formation, formation, width // formation)
    films = parts.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
    return functional.interpolate(films, size=(height, width), mode="bilinear", align_corners=False)


def fold(films: Images, formation: int) -> Images:
    """Images that hold f x f films each, every film reduced by averaging squares of pixels.

    Args:
        films: [n f f, c, h, w], h and w multiples of `formation`.
        formation: f; 1 changes nothing.
    """
    if formation == 1:
        return films
    small = functional.avg_pool2d(films, formation)
    channels, height, width = small.shape[1:]
    parts = small.reshape(-1, formation, formation, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return parts.flatten(4, 5).flatten(2, 3)
