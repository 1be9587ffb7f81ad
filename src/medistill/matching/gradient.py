"""Gradient matching: synthetic images that pull a network the way real ones do.

Source: Zhao, Mopuri and Bilen, ICLR 2021 (arXiv 2006.05929), equations 5 to 8; with siamese augmentation Zhao and
Bilen, ICML 2021 (arXiv 2102.08259).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from medistill.networks import FlatNetwork
from medistill.shapes import Images, Params, Scalar, Targets


class Labelled(NamedTuple):
    """A batch of images with their labels."""

    images: Images
    targets: Targets


class Pull(NamedTuple):
    """How far two batches pull a network apart, and the gradient of that to the images of one of them."""

    distance: Scalar
    to_images: Images


def pull_apart(network: FlatNetwork, params: Params, real: Labelled, synthetic: Labelled, keep_bytes: int = 0) -> Pull:
    """`slope_distance` between two batches, and its gradient to the synthetic images: the distance asks for a change of
    their slope, and what images do to a slope along a direction is an alignment.

    Args:
        network: any network.
        params: where both batches pull it.
        real: images, normalized, and a probability of every class for each.
        synthetic: the same, of what is to pull alike.
        keep_bytes: how much of a pass over the synthetic images may be kept instead of computing it again.
    """
    theirs = network.slope(params, *real, len(real.images)).params
    fits = keep_bytes > 0 and network.kept_bytes(params, *synthetic) <= keep_bytes
    passed = network.slope(params, *synthetic, len(synthetic.images), keep=fits)
    ours = passed.params.requires_grad_()
    distance = slope_distance(network.views(theirs), network.views(ours))
    (direction,) = torch.autograd.grad(distance, ours)
    found = network.alignment(params, *synthetic, len(synthetic.images), direction, passed.kept)
    return Pull(distance.detach(), found.images)


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
