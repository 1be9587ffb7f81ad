"""SimSiam: two views predict each other through one network, and no gradient flows into what is predicted.

Source: Chen and He, CVPR 2021 (arXiv 2011.10566), algorithm 1.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from medistill.baselines.pretraining import Pretext, features_of, perceptron
from medistill.shapes import Features, Images, Scalar

_HIDDEN, _PROJECTED, _NARROW = 512, 512, 128  # published: 2048, 2048, 512, and a projector of three layers


class SimSiam(Pretext):
    """An encoder, a projector with a norm at its end, and a predictor with a narrow middle.

    Args:
        encoder: images to features.
        image: the shape [c, h, w] of an image.
    """

    def __init__(self, encoder: nn.Module, image: Sequence[int]) -> None:
        super().__init__()
        self.encoder = encoder
        projector = perceptron(features_of(encoder, image), _HIDDEN, _PROJECTED)
        self.projector = nn.Sequential(*projector, nn.BatchNorm1d(_PROJECTED, affine=False))
        self.predictor = perceptron(_PROJECTED, _NARROW, _PROJECTED)

    def loss(self, first: Images, second: Images, draw: torch.Generator) -> Scalar:
        """Between -1, where both views are predicted, and 1."""
        z1, z2 = (self.projector(self.encoder(view)) for view in (first, second))
        return (negative_cosine(self.predictor(z1), z2) + negative_cosine(self.predictor(z2), z1)) / 2


def negative_cosine(prediction: Features, target: Features) -> Scalar:
    """How far a prediction points away from its target, which is held fixed (equations 1 and 3)."""
    return -functional.cosine_similarity(prediction, target.detach(), dim=1).mean()
