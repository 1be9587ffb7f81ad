"""Networks as pure functions of one flat parameter vector, and their derivatives."""

import torch

from medistill.networks.compiling import can_compile
from medistill.networks.convnet import ConvNet, convnet
from medistill.networks.flat import Alignment, FlatNetwork, Slope, cross_entropy
from medistill.networks.kernels import fused
from medistill.networks.pretrained import Timm, timm_network
from medistill.networks.resnet import ResNet18
from medistill.networks.vgg import VGG11
from medistill.networks.vit import ViT
from medistill.recipe import MachineSettings, NetworkSettings

__all__ = ["AUTOMATIC", "Alignment", "FlatNetwork", "Slope", "Timm", "build", "can_compile", "cross_entropy"]


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
        return FlatNetwork(ResNet18(channels, size, classes, settings.width))
    if settings.architecture == "vgg11":
        return FlatNetwork(VGG11(channels, size, classes, settings.width))
    if settings.architecture == "vit":
        return FlatNetwork(ViT(channels, size, classes, settings.width, settings.depth))
    layers = convnet(settings, channels, size, classes)
    if not machine.compiles:
        return FlatNetwork(layers)
    return ConvNet(layers, fused(), narrow=machine.precision == "bfloat16")
