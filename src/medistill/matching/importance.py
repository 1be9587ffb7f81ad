"""How much each layer's parameters count in a match, learned along with the images.

Every tensor of parameters is a group with one weight. The weights are a softmax times the number of groups: 1 on
average, so that no group is left out without another counting more. They move, like everything else, so as to lower the
value of the match, which is a soft pruning of whole layers: what students follow well gains weight.

Source: Li et al., Neural Networks 2024 (arXiv 2401.15863), "self-adaptive weights"; how weights are normalized is our
reading.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from medistill.shapes import Mask


def importance(logits: Tensor, sizes: Sequence[int]) -> Mask:
    """The weight of every parameter, differentiable in `logits`; equal logits give 1 to all.

    Args:
        logits: one number for each group.
        sizes: how many parameters each group has, in the order of the flat vector.
    """
    weights = len(sizes) * logits.softmax(0)
    return weights.repeat_interleave(torch.tensor(sizes, device=logits.device))
