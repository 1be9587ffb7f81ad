"""Images enlarged and reduced by their cosine spectrum, without torch: makers and receivers read the same matrix.

A film stored in a formation has fewer pixels than networks see. Its lowest frequencies are then stored, and the others
taken for zero. Whether that teaches more than bilinear enlargement is a question of the images: docs/log.md has what
was measured.

Source: Shin et al., NeurIPS 2023 (arXiv 2311.08819), who choose frequencies by the class; here they are the lowest, for
these alone are an image again, which people can look at and any encoding can hold.
"""

import numpy as np
from numpy.typing import NDArray


def enlarging_matrix(small: int, large: int) -> NDArray[np.float64]:
    """The matrix E that enlarges a column of `small` pixels to `large`: both have the same cosine spectrum (DCT-II), as
    far as the smaller one reaches. Brightness stays: rows sum to 1. `E image E.T` enlarges an image, and
    `E.T image E` times (small / large) squared reduces one to its lowest frequencies.
    """
    # An orthonormal transform spreads a brightness over the square root of the pixels: hence the factor.
    matrix: NDArray[np.float64] = np.sqrt(large / small) * cosines(large)[:small].T @ cosines(small)
    return matrix


def cosines(size: int) -> NDArray[np.float64]:
    """The orthonormal DCT-II of `size` pixels: a frequency a row, the lowest first."""
    angles = np.pi / size * np.outer(np.arange(size), np.arange(size) + 0.5)
    rows: NDArray[np.float64] = np.sqrt(2 / size) * np.cos(angles)
    rows[0] /= np.sqrt(2)
    return rows
