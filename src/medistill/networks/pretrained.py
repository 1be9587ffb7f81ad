"""Networks from timm, with weights that others learned from millions of photographs, as functions of a flat vector.

Here alone timm is imported. Batch norm couples the images of a batch, so it is frozen, as is common for sets of a few
images: its running statistics become a scale and a shift of each channel, which are learned on like any other
parameter. Grey images go through first-layer filters summed over color, and images below 64 px are enlarged to that,
because these networks halve their images five times.

Weights are read from safetensors files alone: the other usual kind can run code.
"""

import difflib
import functools
import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from medistill.errors import MissingPart, RecipeError
from medistill.shapes import Params

HUB = "hub"
_LEAST_SIDE = 64


@dataclass(frozen=True)
class Timm:
    """One of timm's architectures, by the name that timm gives it."""

    name: str

    def __str__(self) -> str:
        return f"{self.name} (timm)"


class TimmNetwork(nn.Module):
    """A network of timm's without batch norm, and a linear classifier behind its features.

    Args:
        body: of timm, without its own classifier.
        classes: how many logits.
    """

    def __init__(self, body: nn.Module, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(_Enlarge(), _frozen(body))
        self.classifier = nn.Linear(int(body.num_features), classes)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images."""
        logits: Tensor = self.classifier(self.features(x))
        return logits


def timm_network(model: Timm, channels: int, classes: int) -> TimmNetwork:
    """The network with weights nobody has learned.

    Raises:
        RecipeError: timm knows no such model.
        MissingPart: timm is not installed.
    """
    return TimmNetwork(_created(model, channels, pretrained=False), classes)


def learned_params(model: Timm, channels: int, weights: str) -> Params:
    """The learned parameters of all of a network but its classifier.

    Args:
        model: the architecture.
        channels: of the images, 1 or 3.
        weights: a safetensors file as timm writes it, or the word `hub` to fetch timm's own.

    Raises:
        RecipeError: the file is missing, is no safetensors file or fits another model, or the hub cannot be reached.
        MissingPart: timm is not installed.
    """
    try:
        body = _created(model, channels, pretrained=True, **_from(weights))
    except (RuntimeError, OSError, KeyError) as error:
        name = "timm's hub" if weights == HUB else Path(weights).name
        raise RecipeError(
            f"--weights: found no weights for {model.name} in {name}; expected those of this very model. "
            "Name another model with --timm, or another file."
        ) from error
    network = TimmNetwork(body, classes=2)
    return nn.utils.parameters_to_vector(network.features.parameters()).detach()


def _from(weights: str) -> dict[str, Any]:
    if weights == HUB:
        return {}
    path = Path(weights).expanduser()
    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise RecipeError(
            f"--weights {path.name}: found no safetensors file; expected one, or the word hub. Other files of weights "
            "can run code and are not opened: convert them where they come from."
        ) from error
    return {"pretrained_cfg_overlay": {"file": str(path)}}


def _created(model: Timm, channels: int, pretrained: bool, **how: Any) -> nn.Module:
    timm = _timm()
    if not timm.is_model(model.name):
        near = ", ".join(difflib.get_close_matches(model.name, timm.list_models(), 5)) or "see timm.list_models()"
        raise RecipeError(f"--timm {model.name}: expected a model that timm knows ({near}).")
    body: nn.Module = timm.create_model(model.name, pretrained=pretrained, in_chans=channels, num_classes=0, **how)
    return body


def _timm() -> Any:
    """Timm, after torchvision. Beside a CPU build of torch that refuses to be imported until two operators are
    declared, which no classifier calls (issue 8985 of pytorch/vision)."""
    if importlib.util.find_spec("timm") is None:
        raise MissingPart("Weights of others need timm, which is not installed: pip install 'medistill[pretrained]'")
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in ("nms", "qnms"):
            schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            _declarations().define(schema)  # type: ignore[no-untyped-call]
    import timm

    return timm


@functools.cache
def _declarations() -> torch.library.Library:
    """Operators stay declared as long as this is kept."""
    return torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]


class _Enlarge(nn.Module):
    """Bilinear enlargement of images whose side is below 64 px."""

    def forward(self, x: Tensor) -> Tensor:
        side = x.shape[-1]
        if side >= _LEAST_SIDE:
            return x
        return functional.interpolate(x, size=_LEAST_SIDE, mode="bilinear", align_corners=False, antialias=False)


class _Affine(nn.Module):
    """A scale and a shift of each channel: what batch norm does once its statistics stand still."""

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm) -> None:
        super().__init__()
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None
        assert variance is not None
        scale = (norm.weight if norm.affine else torch.ones_like(mean)) / (variance + norm.eps).sqrt()
        shift = (norm.bias if norm.affine else torch.zeros_like(mean)) - mean * scale
        self.weight, self.bias = nn.Parameter(scale.detach()), nn.Parameter(shift.detach())

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1) + (1,) * (x.dim() - 2)
        return x * self.weight.view(shape) + self.bias.view(shape)


def _frozen(module: nn.Module) -> nn.Module:
    """The module with every batch norm replaced, in place where it lies deeper."""
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        after = [
            getattr(module, name) for name in ("drop", "act") if isinstance(getattr(module, name, None), nn.Module)
        ]
        return nn.Sequential(_Affine(module), *after) if after else _Affine(module)
    for name, child in module.named_children():
        setattr(module, name, _frozen(child))
    return module
