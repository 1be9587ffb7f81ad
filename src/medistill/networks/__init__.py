"""Networks as pure functions of one flat parameter vector, and their derivatives."""

from medistill.networks.convnet import ConvNet, convnet
from medistill.networks.flat import Alignment, FlatNetwork, Slope, cross_entropy
from medistill.networks.kernels import can_compile, compiled
from medistill.networks.resnet import ResNet18
from medistill.recipe import MachineSettings, NetworkSettings

__all__ = ["Alignment", "FlatNetwork", "Slope", "build", "can_compile", "cross_entropy"]


AUTOMATIC = MachineSettings(compiles=False)


def build(
    settings: NetworkSettings, channels: int, size: int, classes: int, machine: MachineSettings = AUTOMATIC
) -> FlatNetwork:
    """The network of a recipe for images of `channels` x `size` x `size`.

    Args:
        settings: architecture, width and depth.
        channels: of the images.
        size: of the images, in pixels.
        classes: how many logits.
        machine: whether to take a ConvNet's derivatives as they are written out, compiled, instead of by automatic
            differentiation, and in which precision. Other architectures have no such form.

    Raises:
        RecipeError: the images are too small for the depth.
    """
    if settings.architecture == "resnet18":
        return FlatNetwork(ResNet18(channels, size, classes, settings.width))
    layers = convnet(settings, channels, size, classes)
    if not machine.compiles:
        return FlatNetwork(layers)
    return ConvNet(layers, compiled(), narrow=machine.precision == "bfloat16")
