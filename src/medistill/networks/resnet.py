"""ResNet-18, with group norm or batch norm: the architecture that the images were not made for.

Source: He et al., CVPR 2016 (arXiv 1512.03385), table 1; group norm after Wu and He, ECCV 2018.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]
"""What normalizes so many channels."""


class _ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each normalized, beside a shortcut."""

    def __init__(self, before: int, width: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.first_norm = norm(width)
        self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.second_norm = norm(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != width:
            self.shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), norm(width))

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(inner)) + self.shortcut(x))


class ResNet18(nn.Module):
    """ResNet-18: 4 stages of 2 blocks, `width` channels in the first, each convolution normalized by `norm`.

    The stem halves the image once, and once more above 64 px.
    """

    def __init__(self, channels: int, size: int, classes: int, width: int, norm: Norm) -> None:
        super().__init__()
        stem: list[nn.Module] = [nn.Conv2d(channels, width, 3, 2, 1, bias=False), norm(width), nn.ReLU()]
        if size > 64:
            stem.append(nn.AvgPool2d(2))
        blocks: list[nn.Module] = []
        before = width
        for stage in range(4):
            after = width * 2**stage
            stride = 1 if stage == 0 else 2
            blocks += [_ResidualBlock(before, after, stride, norm), _ResidualBlock(after, after, 1, norm)]
            before = after
        self.features = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images."""
        logits: Tensor = self.classifier(self.features(x))
        return logits


def group_norm(width: int) -> nn.Module:
    """Groups of 16 channels, or one group where 16 does not divide `width`: never a group of a single value."""
    return nn.GroupNorm(width // 16 if width % 16 == 0 else 1, width)
