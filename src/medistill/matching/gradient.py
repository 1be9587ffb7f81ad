"""Gradient matching: synthetic images that pull a network the way real ones do.

Source: Zhao, Mopuri and Bilen, ICLR 2021 (arXiv 2006.05929), equations 5 to 8; with siamese augmentation Zhao and
Bilen, ICML 2021 (arXiv 2102.08259).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from medistill.shapes import Scalar


def slope_distance(real: Sequence[Tensor], synthetic: Sequence[Tensor]) -> Scalar:
    """How far two slopes of a network differ in direction; 0 where they agree.

    The sum of 1 - cosine over every output's row of every layer. Parameters of one dimension (biases, norms) are left
    out, as in the published code.

    Args:
        real: a slope, layer by layer as `FlatNetwork.views` has it; no gradient flows into it.
        synthetic: the other slope, layer by layer.
    """
    distances = [
        (1 - functional.cosine_similarity(theirs.detach().flatten(1), ours.flatten(1), dim=1)).sum()
        for theirs, ours in zip(real, synthetic, strict=True)
        if theirs.dim() > 1
    ]
    return torch.stack(distances).sum()
