"""The gradient to a convolution's weights with fewer multiplications.

Winograd's minimal filtering makes a tile of 2 x 2 pixels of a 3x3 convolution z = x * w from the 4 x 4 pixels of x that
it sees with 16 multiplications instead of 36, and linear maps that only add and halve:

    z = A' [(G w G') . (B' x B)] A           ' transposes, . multiplies element by element

The gradient to w is the adjoint of this. With a sum over all tiles and images, it is 16 products of matrices:

    w_bar = G' [ sum (B' x B) . (A z_bar A') ] G

Tiles of x and z_bar are held for a piece of the images at a time, small enough to stay in the processor's cache.
Rounding is of the size of the direct sum's, for B and A hold nothing but 0, 1 and -1. The convolution itself and its
pullback to x gain less, because libraries run those closer to the machine's limit than this one (docs/log.md).

Source: Lavin and Gray, CVPR 2016 (arXiv 1509.09308), F(2 x 2, 3 x 3).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from medistill.networks.compiling import compiled

_G = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))
_PIECE_BYTES = 4 * 2**20
_LEAST_CHANNELS, _LEAST_SIDE = 64, 4
_Four = tuple[Tensor, Tensor, Tensor, Tensor]


def pays(x: Tensor, z_bar: Tensor) -> bool:
    """Whether this form is faster than the library's and as exact."""
    is_wide = min(x.shape[1], z_bar.shape[1]) >= _LEAST_CHANNELS and x.shape[2] >= _LEAST_SIDE
    return is_wide and x.device.type == "cpu" and x.dtype != torch.bfloat16


def weight_gradient(pairs: Sequence[tuple[Tensor, Tensor]], is_compiled: bool) -> Tensor:
    """Sum over pairs (x, z_bar) of the gradient to the weights w of z = x * w, 3x3 with a padding of 1.

    Args:
        pairs: x [n, c, h, w] and z_bar [n, k, h, w], channels last in memory.
        is_compiled: make the tiles by compiled functions.

    Returns:
        [k, c, 3, 3].
    """
    to_input_tiles, to_output_tiles = (
        compiled(each) if is_compiled else each for each in (_input_tiles, _output_tiles)
    )
    x, z_bar = pairs[0]
    total = x.new_zeros(16, x.shape[1], z_bar.shape[1])
    for pair in pairs:
        x, z_bar = (each.permute(0, 2, 3, 1) for each in pair)
        for piece in _pieces(x):
            seen, made = to_input_tiles(piece.of(x, border=1)), to_output_tiles(piece.of(z_bar, border=0))
            total.baddbmm_(seen.flatten(1, 3).transpose(1, 2), made.flatten(1, 3))
    g = torch.tensor(_G, dtype=x.dtype)
    back = torch.einsum("ak,bl->klab", g, g).reshape(9, 16)
    return (back @ total.flatten(1)).view(3, 3, *total.shape[1:]).permute(3, 2, 0, 1)


class _Piece(NamedTuple):
    """Images from `first` to `last`, of them the rows of tiles from `top` to `bottom`."""

    first: int
    last: int
    top: int
    bottom: int

    def of(self, values: Tensor, border: int) -> Tensor:
        """The rows that these tiles see of [n, h, w, c], with a border, and zeros where the image has ended."""
        height, width = values.shape[1:3]
        top, bottom = 2 * self.top - border, 2 * self.bottom + border
        rows = values[self.first : self.last, max(top, 0) : min(bottom, height)]
        missing = (0, 0, border, border + width % 2, max(-top, 0), max(bottom - height, 0))
        return functional.pad(rows, missing) if any(missing) else rows


def _pieces(x: Tensor) -> Iterator[_Piece]:
    """Whole images, as many as fit; where not even one does, some rows of tiles of one."""
    count, side = len(x), (x.shape[1] + 1) // 2
    row_bytes = 16 * ((x.shape[2] + 1) // 2) * x.shape[3] * x.element_size()
    rows = max(1, _PIECE_BYTES // row_bytes)
    images = max(1, rows // side)
    for first in range(0, count, images):
        for top in range(0, side, rows):
            yield _Piece(first, min(first + images, count), top, min(top + rows, side))


def _input_tiles(x: Tensor) -> Tensor:
    """B' x B [16, n, h, w, c] of [n, 2 h + 2, 2 w + 2, c]."""
    height, width = x.shape[1] - 2, x.shape[2] - 2
    rows = _b(*(x[:, k : k + height : 2] for k in range(4)))
    return torch.stack([tile for row in rows for tile in _b(*(row[:, :, k : k + width : 2] for k in range(4)))])


def _output_tiles(z_bar: Tensor) -> Tensor:
    """A z_bar A' [16, n, h, w, c] of [n, 2 h, 2 w, c]."""
    rows = _a(z_bar[:, 0::2], z_bar[:, 1::2])
    return torch.stack([tile for row in rows for tile in _a(row[:, :, 0::2], row[:, :, 1::2])])


def _b(p: Tensor, q: Tensor, r: Tensor, s: Tensor) -> _Four:
    """B' along one side."""
    return p - r, q + r, r - q, q - s


def _a(p: Tensor, q: Tensor) -> _Four:
    """A along one side."""
    return p, p + q, p - q, -q
