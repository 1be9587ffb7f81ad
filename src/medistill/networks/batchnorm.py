"""Networks with batch norm, which others use and sets are judged on; nothing is distilled through them.

While such a network learns, each batch is normalized by its own statistics, so what it says of an image depends on the
others. For answers the statistics of all training images are taken instead: they stand at the beginning of the flat
vector, are no parameters that learn, and are measured once, after training.

Source: Ioffe and Szegedy, ICML 2015 (arXiv 1502.03167), algorithm 2, with statistics of the whole set instead of a
moving average.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from medistill.errors import RecipeError
from medistill.networks.flat import Alignment, FlatNetwork, Slope, cross_entropy
from medistill.shapes import Images, Params, Targets


class BatchNormNetwork(FlatNetwork):
    """A network as a function of one flat vector: statistics of its batch norms first, then its parameters.

    Args:
        module: any module with batch norm; no other state may be updated in the forward pass.
    """

    def __init__(self, module: nn.Module) -> None:
        self._adopt(module.eval())
        self._statistics = [name for name, buffer in module.named_buffers() if buffer.is_floating_point()]
        self._first = sum(module.get_buffer(name).numel() for name in self._statistics)

    @property
    def size(self) -> int:
        """The number of statistics and parameters."""
        return self._first + super().size

    def module_at(self, params: Params) -> nn.Module:
        """A module of its own with copies of these statistics and parameters."""
        module = super().module_at(params[self._first :])
        with torch.no_grad():
            for name, value in self._named(params).items():
                if name in self._statistics:
                    module.get_buffer(name).copy_(value)
        return module

    def params_of(self, module: nn.Module) -> Params:
        """The flat vector of a module that `module_at` made and that was trained since, with its running statistics."""
        statistics = [module.get_buffer(name).reshape(-1) for name in self._statistics]
        return torch.cat([*statistics, super().params_of(module)])

    def initial(self, seed: int) -> Params:
        """Fresh parameters, drawn by each layer's own default from `seed` alone; means 0 and variances 1."""
        params = super().initial(seed)
        statistics = [self._module.get_buffer(name).reshape(-1) for name in self._statistics]
        return torch.cat([*statistics, params])

    def views(self, params: Params) -> list[Tensor]:
        """Each layer's parameters in order, as views of the flat vector, without the statistics."""
        return super().views(params[self._first :])

    def slope(self, params: Params, images: Images, targets: Targets, batch_size: int, keep: bool = False) -> Slope:
        """The gradient of `cross_entropy`, the batch normalized by its own statistics; 0 for the statistics."""
        leaf = params.detach().requires_grad_()
        named = self._named(leaf)
        discarded = {name: torch.empty_like(named[name]).detach() for name in self._statistics}
        logits = functional_call(self._module.train(), named | discarded, (images,))
        self._module.eval()
        (slope,) = torch.autograd.grad(cross_entropy(logits, targets, batch_size), leaf)
        return Slope(slope)

    def head_slope(self, params: Params, images: Images, targets: Targets, batch_size: int) -> Tensor:
        """The classifier's part of `slope`, with features as they are while the network learns."""
        return self.slope(params, images, targets, batch_size).params[-self.head_size :]

    def alignment(
        self, params: Params, images: Images, targets: Targets, batch_size: int, direction: Params, kept: Any = None
    ) -> Alignment:
        """Refused.

        Raises:
            RecipeError: always.
        """
        raise RecipeError(
            "Nothing is distilled through batch norm, where every image's gradient depends on its neighbors. Choose "
            "another network.architecture, and name this one in evaluate.unseen."
        )

    def calibrated(self, params: Params, batches: Iterable[Images]) -> Params:
        """The same parameters with the mean statistics of these batches."""
        module = self.module_at(params).train()
        norms = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over batches
        with torch.no_grad():
            for images in batches:
                module(images)
        return self.params_of(module)

    def _named(self, params: Params) -> dict[str, Tensor]:
        """Statistics and parameters by the names that the module gives them."""
        named, at = super()._named(params), 0
        for name in self._statistics:
            shape = self._module.get_buffer(name).shape
            named[name] = params[at : at + shape.numel()].view(shape)
            at += shape.numel()
        return named
