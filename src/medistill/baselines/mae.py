"""MAE: a vision transformer sees a quarter of the patches and draws the others.

Source: He et al., CVPR 2022 (arXiv 2111.06377), with each patch's pixels normalized.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medistill.baselines.pretraining import Pretext
from medistill.networks.vit import Blocks, Encoder, patches
from medistill.shapes import Images, Scalar

_MASKED = 0.75
_DECODER_DEPTH = 1


class MAE(Pretext):
    """The encoder of a ViT and a shallow decoder over all patches, hidden ones standing in as one learned row.

    Args:
        encoder: of a vision transformer.
        image: the shape [c, h, w] of an image.
    """

    def __init__(self, encoder: Encoder, image: Sequence[int]) -> None:
        super().__init__()
        self.encoder: Encoder = encoder
        tokens = encoder.tokens
        width, self._patch = tokens.position.shape[1], tokens.patch
        self.hidden = nn.Parameter(torch.zeros(width))
        self.place = nn.Parameter(0.02 * torch.randn(tokens.count, width))
        self.decoder = Blocks(width, _DECODER_DEPTH)
        self.pixels = nn.Linear(width, image[0] * tokens.patch**2)

    def loss(self, first: Images, second: Images, draw: torch.Generator) -> Scalar:
        """The error of the drawn patches of the first view; the second is not needed."""
        rows = self.encoder.tokens(first)
        n, count, width = rows.shape
        order = torch.rand(n, count, generator=draw).argsort(1).to(first.device)
        shown = order[:, : count - round(_MASKED * count)]
        at = shown[..., None].expand(-1, -1, width)
        seen = self.encoder.blocks(rows.gather(1, at))
        everywhere = self.hidden.expand(n, count, width).scatter(1, at, seen)
        drawn = self.pixels(self.decoder(everywhere + self.place))
        is_masked = torch.ones(n, count, device=first.device).scatter(1, shown, 0.0)
        return masked_error(drawn, patches(first, self._patch), is_masked)


def masked_error(drawn: Tensor, real: Tensor, is_masked: Tensor) -> Scalar:
    """The mean squared error over masked patches, each real patch at mean 0 and variance 1.

    Args:
        drawn: patches [n, patches, pixels] as the decoder has them.
        real: patches as they are.
        is_masked: 1 for a patch that the encoder did not see, [n, patches].
    """
    if real.shape[2] > 1:  # a patch of one pixel has no spread
        real = (real - real.mean(2, keepdim=True)) / (real.var(2, keepdim=True) + 1e-6).sqrt()
    return (((drawn - real) ** 2).mean(2) * is_masked).sum() / is_masked.sum()
