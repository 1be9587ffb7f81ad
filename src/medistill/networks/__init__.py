"""Networks as pure functions of one flat parameter vector, and their derivatives."""

import functools

import torch
from torch import nn

from medistill.networks.batchnorm import BatchNormNetwork
from medistill.networks.compiling import can_compile
from medistill.networks.convnet import ConvNet, convnet
from medistill.networks.flat import Alignment, FlatNetwork, Slope, cross_entropy
from medistill.networks.kernels import fused
from medistill.networks.pretrained import Timm, timm_network
from medistill.networks.recorded import RecordedConvNet
from medistill.networks.resnet import ResNet18, group_norm
from medistill.networks.vgg import VGG11
from medistill.networks.vit import ViT
from medistill.recipe import MachineSettings, NetworkSettings, Precision

__all__ = [
    "AUTOMATIC",
    "Alignment",
    "BatchNormNetwork",
    "FlatNetwork",
    "Slope",
    "Timm",
    "build",
    "can_compile",
    "cross_entropy",
    "forget_recordings",
]


AUTOMATIC = MachineSettings(compiles=False)
"""Derivatives by automatic differentiation, on the CPU."""


def build(
    settings: NetworkSettings | Timm, channels: int, size: int, classes: int, machine: MachineSettings = AUTOMATIC
) -> FlatNetwork:
    """The network of a recipe for images of `channels` x `size` x `size`.

    On a GPU this also states for the whole process whether products of float32 may be rounded to TensorFloat-32, which
    torch by default allows in convolutions and not in matrix products.

    Args:
        settings: architecture, width and depth; or one of timm's models, which has its own.
        channels: of the images.
        size: of the images, in pixels.
        classes: how many logits.
        machine: where it will compute, whether to take a ConvNet's derivatives as they are written out, compiled,
            instead of by automatic differentiation, and in which precision. Other architectures have no such form.

    Raises:
        RecipeError: the images are too small for the depth, or timm knows no such model.
        MissingPart: timm is asked for and not installed.
    """
    if machine.device == "cuda":
        is_rounded = machine.precision == "tensorfloat32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = is_rounded
    if isinstance(settings, Timm):
        return FlatNetwork(timm_network(settings, channels, classes))
    if settings.architecture == "resnet18":
        return FlatNetwork(ResNet18(channels, size, classes, settings.width, group_norm))
    if settings.architecture == "resnet18bn":
        return BatchNormNetwork(ResNet18(channels, size, classes, settings.width, nn.BatchNorm2d))
    if settings.architecture == "vgg11":
        return FlatNetwork(VGG11(channels, size, classes, settings.width))
    if settings.architecture == "vit":
        return FlatNetwork(ViT(channels, size, classes, settings.width, settings.depth))
    if not machine.compiles:
        return FlatNetwork(convnet(settings, channels, size, classes))
    narrow = machine.precision == "bfloat16"
    if machine.device == "cuda" and machine.graphs:
        return _recorded(settings, channels, size, classes, narrow, machine.precision)
    return ConvNet(convnet(settings, channels, size, classes), fused(), narrow)


@functools.lru_cache(maxsize=4)
def _recorded(
    settings: NetworkSettings, channels: int, size: int, classes: int, narrow: bool, precision: Precision
) -> RecordedConvNet:
    """The same network whenever it is asked for, so that it is recorded once; `precision` is part of a recording."""
    return RecordedConvNet(convnet(settings, channels, size, classes), fused(), narrow)


def forget_recordings() -> None:
    """Give back the GPU memory of the networks that were recorded last; whoever still holds one keeps it."""
    _recorded.cache_clear()
