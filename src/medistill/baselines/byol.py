"""BYOL: an online network predicts what a slow copy of itself says of another view.

Source: Grill et al., NeurIPS 2020 (arXiv 2006.07733).
"""

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from medistill.baselines.pretraining import Pretext, features_of, perceptron
from medistill.shapes import Features, Images, Scalar

_HIDDEN, _PROJECTED = 512, 128  # published: 4096 and 256, for ResNet-50 and a million images
_MOMENTUM = 0.99  # published: 0.996 at first, for hundreds of times as many steps


class Seen(NamedTuple):
    """A view as both networks project it; nothing goes back through the target."""

    online: Features
    target: Features


class BYOL(Pretext):
    """An online encoder, projector and predictor; a target encoder and projector that follow.

    Args:
        encoder: images to features.
        image: the shape [c, h, w] of an image.
    """

    def __init__(self, encoder: nn.Module, image: Sequence[int]) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = perceptron(features_of(encoder, image), _HIDDEN, _PROJECTED)
        self.predictor = perceptron(_PROJECTED, _HIDDEN, _PROJECTED)
        self.target_encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.target_projector = copy.deepcopy(self.projector).requires_grad_(False)

    def loss(self, first: Images, second: Images, draw: torch.Generator) -> Scalar:
        """Both views predict each other."""
        return self.apart(self._seen(first), self._seen(second))

    def apart(self, first: Seen, second: Seen) -> Scalar:
        """How far each view's prediction lies from what the target says of the other."""
        return self._predicted(first, second) + self._predicted(second, first)

    @torch.no_grad()
    def follow(self, progress: float) -> None:
        """The target's parameters move toward the online ones, ever more slowly."""
        momentum = 1 - (1 - _MOMENTUM) * (1 + math.cos(math.pi * progress)) / 2
        pairs = ((self.target_encoder, self.encoder), (self.target_projector, self.projector))
        for target, online in pairs:
            for slow, fast in zip(target.parameters(), online.parameters(), strict=True):
                slow.lerp_(fast, 1 - momentum)

    def _seen(self, view: Images) -> Seen:
        with torch.no_grad():
            target = self.target_projector(self.target_encoder(view))
        return Seen(self.projector(self.encoder(view)), target)

    def _predicted(self, here: Seen, there: Seen) -> Scalar:
        return prediction_distance(self.predictor(here.online), there.target)


def prediction_distance(prediction: Features, target: Features) -> Scalar:
    """The mean squared distance of unit vectors: 0 where they point alike, 4 where they point apart (equation 2)."""
    return (2 - 2 * functional.cosine_similarity(prediction, target, dim=1)).mean()
