"""SKD: BYOL, and besides it the similarities within a batch, handed from the slow network to the fast one.

A rival from the founding work's own group. We could not read its equations; this is our reading of its summary: an
online and a momentum network, a loss across views, and soft labels that are similarities within the batch, of one
network from the other.

Source: Li, Togo, Ogawa and Haseyama, ICASSP 2022 (arXiv 2206.03009).
"""

import torch
from torch import Tensor
from torch.nn import functional

from medistill.baselines.byol import BYOL, Seen
from medistill.shapes import Features, Scalar

_TEMPERATURE = 0.1
_WEIGHT = 1.0


class SKD(BYOL):
    """What BYOL is made of; only the loss has a second part."""

    def apart(self, first: Seen, second: Seen) -> Scalar:
        """BYOL's loss, and the distance of the two networks' similarities, both ways."""
        return super().apart(first, second) + _WEIGHT * (_similar(first, second) + _similar(second, first)) / 2


def _similar(here: Seen, there: Seen) -> Scalar:
    return similarity_divergence(here.online, there.target, _TEMPERATURE)


def similarity_divergence(online: Features, target: Features, temperature: float) -> Scalar:
    """How far the online network's similarities within a batch lie from the target's, in nats; 0 where they agree.

    For each image a softmax of its cosines to all others, divided by `temperature`; the Kullback-Leibler divergence
    from the target's to the online network's, averaged over the images.
    """
    ours, theirs = _log_similarities(online, temperature), _log_similarities(target.detach(), temperature)
    return functional.kl_div(ours, theirs, reduction="sum", log_target=True) / len(online)


def _log_similarities(features: Features, temperature: float) -> Tensor:
    """[n, n - 1]: each image's row leaves out the image itself."""
    n = len(features)
    units = functional.normalize(features, dim=1)
    others = (units @ units.T)[~torch.eye(n, dtype=torch.bool, device=features.device)].view(n, n - 1)
    return functional.log_softmax(others / temperature, dim=1)
