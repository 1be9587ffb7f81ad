"""Networks as pure functions of one flat parameter vector, with the two derivatives that distillation asks for.

Trajectory matching compares, subtracts and masks whole networks, so a network here is a function
`(params, images) -> logits` and its parameters are one vector. Training needs the slope of its loss; the exact gradient
through a training needs the slopes of an *alignment*, the inner product of that slope with a direction. Here both come
from automatic differentiation, for any architecture; `convnet.py` has them written out for one.

Normalization never looks across images: instance and group norm treat each alone, which is what lets an inner step be
split into micro-batches exactly. Batch norm couples the images of a batch and is refused; `batchnorm.py` has networks
with it, for judging alone.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from medistill.errors import RecipeError
from medistill.shapes import Features, Images, Logits, Params, Scalar, Targets


@dataclass(frozen=True)
class Slope:
    """The gradient of a loss to the parameters, and what the network kept of the pass, if asked to and able to."""

    params: Tensor
    kept: Any = None
    kept_bytes: int = 0


@dataclass(frozen=True)
class Alignment:
    """The inner product of a loss's slope with a direction, and its gradients to everything the loss depends on."""

    value: Tensor
    params: Tensor
    images: Tensor
    targets: Tensor


class FlatNetwork:
    """A network as a function of one flat vector: `network(params, images)` returns logits.

    Args:
        module: any module without batch norm or other state that is updated in the forward pass. Where features are
            asked for, it holds `features`, whose output a linear `classifier` behind it turns into logits.

    Raises:
        RecipeError: the module holds batch norm.
    """

    def __init__(self, module: nn.Module) -> None:
        coupled = next((m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)), None)
        if coupled is not None and not isinstance(coupled, nn.modules.instancenorm._InstanceNorm):
            raise RecipeError(
                f"Found {type(coupled).__name__} in the network; expected instance, group or layer norm. With batch "
                "norm every image's gradient depends on its neighbors and the exact gradient cannot be split. "
                "Replace it."
            )
        self._adopt(module)

    def _adopt(self, module: nn.Module) -> None:
        self._module = module
        self._names = [name for name, _ in module.named_parameters()]
        self._shapes = [parameter.shape for parameter in module.parameters()]
        self._sizes = [shape.numel() for shape in self._shapes]

    @property
    def size(self) -> int:
        """The number of parameters."""
        return sum(self._sizes)

    @property
    def group_sizes(self) -> list[int]:
        """How many parameters each of the module's tensors has, in the order of the flat vector."""
        return list(self._sizes)

    def __call__(self, params: Params, images: Images) -> Logits:
        """One row of logits for each image, differentiable in `params` and `images`."""
        logits: Tensor = functional_call(self._module, self._named(params), (images,))
        return logits

    def features(self, params: Params, images: Images) -> Features:
        """What the classifier sees of each image, differentiable in `params` and `images`."""
        named = self._named(params).items()
        own = {name.removeprefix("features."): view for name, view in named if name.startswith("features.")}
        seen: Tensor = functional_call(self._module.get_submodule("features"), own, (images,))
        return seen

    @property
    def head_size(self) -> int:
        """How many parameters the classifier has; they are the last ones."""
        return sum(parameter.numel() for parameter in self._module.get_submodule("classifier").parameters())

    def module_at(self, params: Params) -> nn.Module:
        """A module of its own with copies of these parameters, for training of another kind than this library's."""
        module = copy.deepcopy(self._module).to(params.device)
        nn.utils.vector_to_parameters(params.detach().clone(), module.parameters())
        return module

    def params_of(self, module: nn.Module) -> Params:
        """The flat vector of a module that `module_at` made and that was trained since."""
        return nn.utils.parameters_to_vector(module.parameters()).detach()

    def initial(self, seed: int) -> Params:
        """Fresh parameters, drawn by each layer's own default from `seed` alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for layer in self._module.modules():
                reset = getattr(layer, "reset_parameters", getattr(layer, "_reset_parameters", None))  # attention's
                if callable(reset):
                    reset()
        return torch.cat([parameter.detach().reshape(-1) for parameter in self._module.parameters()]).clone()

    def calibrated(self, params: Params, batches: Iterable[Images]) -> Params:
        """The parameters once training is over, having seen the training images again; here they need nothing."""
        return params

    def views(self, params: Params) -> list[Tensor]:
        """Each layer's parameters in order, as views of the flat vector."""
        parts = torch.split(params, self._sizes)
        return [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def _named(self, params: Params) -> dict[str, Tensor]:
        """The parts of the flat vector by the names that the module gives them."""
        return dict(zip(self._names, self.views(params), strict=True))

    def slope(self, params: Params, images: Images, targets: Targets, batch_size: int, keep: bool = False) -> Slope:
        """The gradient of `cross_entropy` to the parameters.

        Args:
            params: where on the loss.
            images: a batch, or a micro-batch of one.
            targets: a probability of every class for each image.
            batch_size: of the whole batch.
            keep: keep what `alignment` at the same place would compute again; a network may be unable to.
        """
        leaf = params.detach().requires_grad_()
        (slope,) = torch.autograd.grad(cross_entropy(self(leaf, images), targets, batch_size), leaf)
        return Slope(slope)

    def kept_bytes(self, params: Params, images: Images, targets: Targets) -> int:
        """How much `slope` keeps of a pass over these images, as the first of them tells; 0 where it cannot."""
        return self.slope(params, images[:1], targets[:1], 1, keep=True).kept_bytes * len(images)

    @torch.no_grad()
    def head_slope(self, params: Params, images: Images, targets: Targets, batch_size: int) -> Tensor:
        """The classifier's part of `slope`, `head_size` numbers; nothing goes back through the features."""
        seen = self.features(params, images)
        weight, bias = self.views(params)[-2:]
        _, logits_bar = head_cotangent(seen, weight, bias, targets, batch_size)
        return torch.cat([(logits_bar.T @ seen).flatten(), logits_bar.sum(0)])

    def alignment(
        self, params: Params, images: Images, targets: Targets, batch_size: int, direction: Params, kept: Any = None
    ) -> Alignment:
        """<direction, slope> and its gradients, `direction` held fixed.

        Args:
            params: where on the loss.
            images: a batch, or a micro-batch of one.
            targets: a probability of every class for each image.
            batch_size: of the whole batch.
            direction: of the same size as `params`.
            kept: what `slope` kept at the same place; None computes it again.
        """
        leaves = [leaf.detach().requires_grad_() for leaf in (params, images, targets)]
        loss = cross_entropy(self(leaves[0], leaves[1]), leaves[2], batch_size)
        (slope,) = torch.autograd.grad(loss, leaves[0], create_graph=True)
        value = slope @ direction
        return Alignment(value.detach(), *torch.autograd.grad(value, leaves))


def cross_entropy(logits: Logits, targets: Targets, batch_size: int) -> Scalar:
    """Cross-entropy against class probabilities, divided by `batch_size`.

    The size of the whole batch is given, so that the values of its micro-batches add up to the value of the batch.
    """
    return -(targets * functional.log_softmax(logits, 1)).sum() / batch_size


def head_cotangent(
    features: Features, weight: Tensor, bias: Tensor, targets: Targets, batch_size: int
) -> tuple[Tensor, Tensor]:
    """What a linear classifier thinks of features, as probabilities, and the slope of `cross_entropy` to its logits."""
    odds = functional.linear(features, weight, bias).softmax(1)
    return odds, (odds * targets.sum(1, keepdim=True) - targets) / batch_size
