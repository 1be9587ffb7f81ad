"""A small vision transformer: the encoder of masked autoencoders, and an architecture far from the ConvNet.

Attention is computed by plain products, which can be differentiated twice; faster kernels cannot.

Source: Dosovitskiy et al., ICLR 2021 (arXiv 2010.11929); the mean over patches in place of a class token.
"""

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from medistill.errors import RecipeError

_HEAD_WIDTH = 16
_PATCHES_A_SIDE = 8


class Tokens(nn.Module):
    """Patches as rows of `width` numbers, each with a learned position added: [n, patches, width]."""

    def __init__(self, channels: int, size: int, width: int) -> None:
        super().__init__()
        self.patch = patch_side(size)
        self.count = (size // self.patch) ** 2
        self.project = nn.Linear(channels * self.patch**2, width)
        self.position = nn.Parameter(torch.empty(self.count, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the positions anew."""
        nn.init.normal_(self.position, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """The rows of every image."""
        rows: Tensor = self.project(patches(images, self.patch))
        return rows + self.position


class Blocks(nn.Module):
    """Transformer blocks with the norm first and no dropout, then a norm."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        heads = max(width // _HEAD_WIDTH, 1)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """The rows after attention to one another."""
        with sdpa_kernel(SDPBackend.MATH):
            for layer in self.layers:
                tokens = layer(tokens)
        normed: Tensor = self.norm(tokens)
        return normed


class Encoder(nn.Module):
    """Patches, blocks, and the mean of an image's rows: images to [n, width]."""

    def __init__(self, channels: int, size: int, width: int, depth: int) -> None:
        super().__init__()
        self.tokens, self.blocks = Tokens(channels, size, width), Blocks(width, depth)

    def forward(self, images: Tensor) -> Tensor:
        """Features of images."""
        rows: Tensor = self.blocks(self.tokens(images))
        return rows.mean(1)


class ViT(nn.Module):
    """An encoder of at most 8 x 8 patches with `depth` blocks, and a linear layer.

    Raises:
        RecipeError: attention cannot share `width` among its heads.
    """

    def __init__(self, channels: int, size: int, classes: int, width: int, depth: int) -> None:
        super().__init__()
        if width % max(width // _HEAD_WIDTH, 1):
            raise RecipeError(
                f"network.width = {width} cannot be shared among {width // _HEAD_WIDTH} heads of attention. Choose a "
                f"multiple of {_HEAD_WIDTH}."
            )
        self.features = Encoder(channels, size, width, depth)
        self.classifier = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images."""
        logits: Tensor = self.classifier(self.features(images))
        return logits


def patch_side(size: int) -> int:
    """The smallest patch that divides an image's side and leaves at most 8 patches a side."""
    return next(side for side in range(max(size // _PATCHES_A_SIDE, 1), size + 1) if size % side == 0)


def patches(images: Tensor, side: int) -> Tensor:
    """The patches of each image row by row, every patch one row: [n, patches, c side side]."""
    n, c, h, w = images.shape
    cut = images.reshape(n, c, h // side, side, w // side, side)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(n, (h // side) * (w // side), c * side**2)
