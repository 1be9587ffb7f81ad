"""VGG-11 with instance norm: a deeper network than the images were made for, without shortcuts.

Source: Simonyan and Zisserman, ICLR 2015 (arXiv 1409.1556), table 1, column A; a small classifier, and the norm of the
field's ConvNet, so that no image sees its neighbors.
"""

from torch import Tensor, nn

_STAGES = (1, 1, 2, 2, 2)  # convolutions in each; the width doubles with the stage, up to eight times


class VGG11(nn.Module):
    """Eight 3x3 convolutions in five stages; a stage ends in pooling as long as there is more than one pixel.

    Args:
        channels: of the images.
        size: of the images, in pixels.
        classes: how many logits.
        width: channels of the first stage.
    """

    def __init__(self, channels: int, size: int, classes: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before, side = channels, size
        for stage, count in enumerate(_STAGES):
            after = width * min(2**stage, 8)
            for _ in range(count):
                # Instance norm has nothing to divide by where one pixel is left.
                norm = nn.GroupNorm(after, after) if side > 1 else nn.GroupNorm(1, after)
                layers += [nn.Conv2d(before, after, 3, 1, 1), norm, nn.ReLU()]
                before = after
            if side > 1:
                layers.append(nn.MaxPool2d(2))
                side //= 2
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.classifier = nn.Linear(before * side**2, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images."""
        logits: Tensor = self.classifier(self.features(x))
        return logits
