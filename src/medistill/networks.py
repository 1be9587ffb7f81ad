"""Networks as pure functions of one flat parameter vector.

Trajectory matching compares, subtracts and masks whole networks, so a network here is a function
`(params, images) -> logits` and its parameters are one vector. Normalization never looks across images: instance and
group norm treat each alone, which is what lets an inner step be split into micro-batches exactly. Batch norm couples
the images of a batch and is refused.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from medistill.errors import RecipeError
from medistill.recipe import NetworkSettings
from medistill.shapes import Images, Logits, Params, Scalar, Targets


class FlatNetwork:
    """A network as a function of one flat vector: `network(params, images)` returns logits.

    Args:
        module: any module without batch norm or other state that is updated in the forward pass.

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
        self._module = module
        self._names = [name for name, _ in module.named_parameters()]
        self._shapes = [parameter.shape for parameter in module.parameters()]
        self._sizes = [shape.numel() for shape in self._shapes]

    @property
    def size(self) -> int:
        """The number of parameters."""
        return sum(self._sizes)

    def __call__(self, params: Params, images: Images) -> Logits:
        """One row of logits for each image, differentiable in `params` and `images`."""
        views = torch.split(params, self._sizes)
        named = {n: v.view(s) for n, v, s in zip(self._names, views, self._shapes, strict=True)}
        logits: Tensor = functional_call(self._module, named, (images,))
        return logits

    def initial(self, seed: int) -> Params:
        """Fresh parameters, drawn by each layer's own default from `seed` alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for layer in self._module.modules():
                reset = getattr(layer, "reset_parameters", None)
                if callable(reset):
                    reset()
        return torch.cat([parameter.detach().reshape(-1) for parameter in self._module.parameters()]).clone()


def build(settings: NetworkSettings, channels: int, size: int, classes: int) -> FlatNetwork:
    """The network of a recipe for images of `channels` x `size` x `size`.

    Raises:
        RecipeError: the images are too small for the depth.
    """
    builders: dict[str, Callable[[], nn.Module]] = {
        "convnet": lambda: _convnet(settings, channels, size, classes),
        "resnet18": lambda: _ResNet18(channels, size, classes, settings.width),
    }
    return FlatNetwork(builders[settings.architecture]())


def cross_entropy(logits: Logits, targets: Targets, batch_size: int) -> Scalar:
    """Cross-entropy against class probabilities, divided by `batch_size`.

    The size of the whole batch is given, so that the values of its micro-batches add up to the value of the batch.
    """
    return -(targets * functional.log_softmax(logits, 1)).sum() / batch_size


def _convnet(settings: NetworkSettings, channels: int, size: int, classes: int) -> nn.Module:
    """The field's ConvNet: depth x [3x3 convolution, instance norm, ReLU, 2x2 average pool], then a linear layer.

    Source: Gidaris and Komodakis, CVPR 2018, as used by Zhao et al., ICLR 2021 (arXiv 2006.05929).
    """
    layers: list[nn.Module] = []
    width, side, padding, before = settings.width, size, settings.first_padding, channels
    for _ in range(settings.depth):
        side = (side + 2 * padding - 2) // 2
        if side < 1:
            raise RecipeError(
                f"network.depth = {settings.depth} halves an image of {size} px to nothing. It can be at most "
                f"{size.bit_length() - 1} at this size."
            )
        layers += [
            nn.Conv2d(before, width, 3, padding=padding),
            nn.GroupNorm(width, width),
            nn.ReLU(),
            nn.AvgPool2d(2),
        ]
        before, padding = width, 1
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * side * side, classes))


class _ResidualBlock(nn.Module):
    """Two 3x3 convolutions with group norm beside a shortcut."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.first_norm = nn.GroupNorm(_groups(width), width)
        self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.second_norm = nn.GroupNorm(_groups(width), width)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, width, 1, stride, bias=False), nn.GroupNorm(_groups(width), width)
            )

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(inner)) + self.shortcut(x))


class _ResNet18(nn.Module):
    """ResNet-18 with group norm: 4 stages of 2 blocks, `width` channels in the first.

    The stem halves the image once, and once more above 64 px.

    Source: He et al., CVPR 2016 (arXiv 1512.03385), table 1; group norm after Wu and He, ECCV 2018.
    """

    def __init__(self, channels: int, size: int, classes: int, width: int) -> None:
        super().__init__()
        stem: list[nn.Module] = [
            nn.Conv2d(channels, width, 3, 2, 1, bias=False),
            nn.GroupNorm(_groups(width), width),
            nn.ReLU(),
        ]
        if size > 64:
            stem.append(nn.AvgPool2d(2))
        blocks: list[nn.Module] = []
        before = width
        for stage in range(4):
            after = width * 2**stage
            blocks += [_ResidualBlock(before, after, 1 if stage == 0 else 2), _ResidualBlock(after, after, 1)]
            before = after
        self.features = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x))
        return logits


def _groups(width: int) -> int:
    """Groups of 16 channels, or one group where 16 does not divide `width`: never a group of a single value."""
    return width // 16 if width % 16 == 0 else 1
