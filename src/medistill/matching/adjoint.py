"""The exact gradient through the student's training, in memory that need not grow with its steps.

A student takes J steps th_{j+1} = th_j - a g_j on synthetic images, where g_j is the gradient of its loss at th_j on
the batch (X_j, Y_j) and `a` the inner rate; an objective L judges where it lands. Back-propagating through all J steps
at once keeps J graphs of graphs in memory. The adjoint walks back instead. With lam_J = dL/dth_J and
phi_j = <lam_{j+1}, g_j>, lam held fixed, for j = J-1 .. 0:

    dL/dX_j += -a dphi_j/dX_j      dL/dY_j += -a dphi_j/dY_j      dL/da += -phi_j
    lam_j    = lam_{j+1} - a dphi_j/dth_j

An objective may also look at the student on its way: what it says of th_j is added to lam_j when the walk comes by.

This is the same gradient, not an approximation. Of the J steps only the parameters th_j must be kept; each step's
activations are computed again, or kept too where there is memory, which saves time. Because instance, group and layer
norm treat every image alone, phi_j is a sum over micro-batches, and memory can be cut further without changing the
result.

Source: the chain rule for discrete dynamics, as in Maclaurin et al., ICML 2015 (arXiv 1502.03492), section 2; applied
to the objective of Cazenavette et al., CVPR 2022 (arXiv 2203.11932).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medistill.augment import Draw, augment
from medistill.networks import FlatNetwork
from medistill.shapes import Images, Params, Scalar, Targets


@dataclass(frozen=True)
class InnerStep:
    """What the student sees in one step: which synthetic images, and how they are augmented."""

    indices: Tensor
    draw: Draw | None


@dataclass(frozen=True)
class Gradient:
    """The objective's value, its gradient to everything that can be learned, and where the student landed.

    `log_rate` is the gradient to the logarithm of the inner rate: the rate times the gradient to the rate.
    """

    value: Tensor
    images: Tensor
    targets: Tensor
    log_rate: Tensor
    end: Tensor


def trajectory_gradient(
    network: FlatNetwork,
    start: Params,
    images: Images,
    targets: Targets,
    log_rate: Scalar,
    steps: Sequence[InnerStep],
    objective: Callable[..., Tensor],
    micro_batch: int | None = None,
    keep_bytes: int = 0,
    stops: Sequence[int] = (),
    own_share: bool = False,
) -> Gradient:
    """Train a student on synthetic images from `start`, judge it, and differentiate the judgement.

    Args:
        network: any network whose images do not influence one another (no batch norm).
        start: the student's first parameters.
        images: the synthetic images, normalized.
        targets: a probability of every class for each.
        log_rate: natural logarithm of the inner rate.
        steps: the batches of the J steps, in order.
        objective: a differentiable function of the student's parameters after each of `stops`, then of its last ones.
        micro_batch: at most so many images at a time; None takes a whole batch. Changes memory, not the result.
        keep_bytes: how much the steps may keep of their activations, where the network can, instead of computing them
            again: the first steps keep theirs, as many as fit. Changes time and memory, not the result.
        stops: after how many steps the objective looks at the student before the end: different numbers, 1 to J - 1.
        own_share: leave out how a step's parameters move the steps after it, d phi_j / d th_j above: not the gradient,
            but what Cui et al. released (ICML 2023, arXiv 2211.10586), for comparison.
    """
    rate = log_rate.exp()
    path, kept = [start], []
    for step in steps:
        slope = torch.zeros_like(start)
        for part in _parts(step, images, targets, micro_batch):
            passed = network.slope(path[-1], part.seen, part.targets, part.batch_size, keep=keep_bytes > 0)
            slope += passed.params
            keep_bytes -= passed.kept_bytes
            kept.append(passed.kept if keep_bytes >= 0 else None)
        path.append(path[-1] - rate * slope)

    seen = [path[stop].detach().requires_grad_() for stop in (*stops, len(steps))]
    value = objective(*seen)
    *pulls, cotangent = torch.autograd.grad(value, seen)
    pull_at = dict(zip(stops, pulls, strict=True))

    image_gradient, target_gradient = torch.zeros_like(images), torch.zeros_like(targets)
    rate_gradient = torch.zeros_like(rate)
    for number, step in reversed(list(enumerate(steps))):
        curvature = torch.zeros_like(start)
        for part in reversed(_parts(step, images, targets, micro_batch)):
            found = network.alignment(path[number], part.seen, part.targets, part.batch_size, cotangent, kept.pop())
            image_gradient.index_add_(0, part.indices, part.to_images(found.images))
            target_gradient.index_add_(0, part.indices, found.targets)
            rate_gradient += found.value
            curvature += found.params
        if not own_share:
            cotangent = cotangent - rate * curvature
        if number in pull_at:
            cotangent = cotangent + pull_at[number]
    descent = -rate
    return Gradient(
        value.detach(), descent * image_gradient, descent * target_gradient, descent * rate_gradient, path[-1].detach()
    )


class _Part:
    """A micro-batch of a step: its images as the student sees them, augmented."""

    def __init__(self, indices: Tensor, images: Tensor, targets: Tensor, draw: Draw | None, batch_size: int) -> None:
        self.indices, self.targets, self.batch_size = indices, targets[indices], batch_size
        self._images = images[indices].detach().requires_grad_()
        self._augmented = augment(self._images, draw)
        self.seen = self._augmented.detach()

    def to_images(self, seen_bar: Tensor) -> Tensor:
        """The gradient to the images from the gradient to what the student sees of them."""
        (gradient,) = torch.autograd.grad(self._augmented, self._images, seen_bar)
        return gradient


def _parts(step: InnerStep, images: Tensor, targets: Tensor, micro_batch: int | None) -> list[_Part]:
    total, indices = len(step.indices), step.indices.to(images.device)
    size = micro_batch or total
    return [
        _Part(
            indices[first : first + size],
            images,
            targets,
            step.draw and step.draw.part(first, first + size),
            total,
        )
        for first in range(0, total, size)
    ]
