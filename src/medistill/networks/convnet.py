"""The field's ConvNet, with its first and second derivatives written out.

Distillation spends its time in two functions of this network: the slope of the loss, and the gradients of the slope's
inner product with a direction. The second is the derivative of the loss along the direction (a tangent pass forward),
differentiated once more (one pass back). Written out, neither needs a graph of automatic differentiation, everything
between two convolutions is one compiled function (`kernels.py`), and the cotangents that both share are computed once.
With F one forward pass, a kept step costs 9 F and a step computed again 11 F; on a CPU the third of it that goes into
gradients to weights takes fewer multiplications (`winograd.py`).

Two facts save work. A convolution's bias is taken off again by the norm behind it, so it is never added and its slope
is zero. And a first layer on one or three channels is a product of small patches with a matrix, which libraries
multiply several times faster than they convolve.

No image influences another, so on a CPU a batch is worked through in parts whose activations stay near the processor.

Activations lie with channels last in memory. Suffixes and prefixes are those of `kernels.py`: `x_bar` is a cotangent,
`dx` a tangent, `dx_bar` the cotangent of a tangent, which is the cotangent of first order.

Source of the network: Gidaris and Komodakis, CVPR 2018, as used by Zhao et al., ICLR 2021 (arXiv 2006.05929).
"""

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input, conv2d_weight

from medistill.errors import RecipeError
from medistill.networks import winograd
from medistill.networks.flat import Alignment, FlatNetwork, Slope, head_cotangent
from medistill.networks.kernels import Kernels
from medistill.recipe import NetworkSettings
from medistill.shapes import Features, Images, Params, Targets

_KERNEL = 3
_MOST_CHANNELS_AS_PATCHES = 3
_PART_BYTES = 24 * 2**20  # of the first convolution's output, the largest thing that a pass makes


def convnet(settings: NetworkSettings, channels: int, size: int, classes: int) -> nn.Sequential:
    """depth x [3x3 convolution, instance norm, ReLU, 2x2 average pool], then a linear layer.

    Args:
        settings: width, depth and the padding of the first layer.
        channels: of the images.
        size: of the images, in pixels.
        classes: how many logits.

    Raises:
        RecipeError: the images are too small for the depth.
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
            nn.Conv2d(before, width, _KERNEL, padding=padding),
            nn.GroupNorm(width, width),
            nn.ReLU(),
            nn.AvgPool2d(2),
        ]
        before, padding = width, 1
    features = nn.Sequential(*layers, nn.Flatten())
    return nn.Sequential(OrderedDict(features=features, classifier=nn.Linear(width * side * side, classes)))


class _Block(NamedTuple):
    """The parameters of a block but for the bias of its convolution, which does nothing."""

    weight: Tensor
    gain: Tensor
    shift: Tensor


class _Head(NamedTuple):
    weight: Tensor
    bias: Tensor


class _Layers(NamedTuple):
    blocks: list[_Block]
    head: _Head


@dataclass(frozen=True)
class _Kept:
    """A block's input x (as its convolution arranges it), the convolution's output z, and the first-order cotangent."""

    x: Tensor
    z: Tensor
    mean: Tensor
    s: Tensor
    dy_bar: Tensor


@dataclass(frozen=True)
class _Pass:
    """What one pass forward and back leaves behind."""

    blocks: tuple[_Kept, ...]
    features: Tensor
    odds: Tensor
    logits_bar: Tensor

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for block in self.blocks for tensor in vars(block).values())


@dataclass(frozen=True)
class _ByLibrary:
    """A 3x3 convolution of an input that it has arranged, and its two pullbacks, the second summed over pairs."""

    padding: int
    is_compiled: bool

    def arranged(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last)

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return functional.conv2d(x, weight, padding=self.padding)

    def to_input(self, z_bar: Tensor, weight: Tensor) -> Tensor:
        side = z_bar.shape[2] + _KERNEL - 1 - 2 * self.padding
        shape = torch.Size([len(z_bar), weight.shape[1], side, side])
        x_bar: Tensor = conv2d_input(shape, weight, z_bar, padding=self.padding)  # type: ignore[no-untyped-call]
        return x_bar

    def to_weight(self, *pairs: tuple[Tensor, Tensor]) -> Tensor:
        if self.padding == 1 and winograd.pays(*pairs[0]):
            return winograd.weight_gradient(pairs, self.is_compiled)
        shape = torch.Size([pairs[0][1].shape[1], pairs[0][0].shape[1], _KERNEL, _KERNEL])
        parts = [conv2d_weight(x, shape, z_bar, padding=self.padding) for x, z_bar in pairs]  # type: ignore[no-untyped-call]
        return torch.stack(parts).sum(0)


@dataclass(frozen=True)
class _OfPatches:
    """On few channels: every 3x3 patch is a row, [n, places, 9 channels], multiplied with a narrow matrix."""

    padding: int

    def arranged(self, x: Tensor) -> Tensor:
        return functional.unfold(x, _KERNEL, padding=self.padding).transpose(1, 2).contiguous()

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        side = math.isqrt(x.shape[1])
        shape = (len(x), len(weight), side, side)
        z = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        # Written in place, so that z is no view: the compiler makes a variant of everything that meets one.
        torch.mm(x.flatten(0, 1), weight.flatten(1).T, out=z.permute(0, 2, 3, 1).flatten(0, 2))
        return z

    def to_input(self, z_bar: Tensor, weight: Tensor) -> Tensor:
        side = z_bar.shape[2] + _KERNEL - 1 - 2 * self.padding
        columns = weight.flatten(1).T @ z_bar.flatten(2)
        return functional.fold(columns, (side, side), _KERNEL, padding=self.padding)

    def to_weight(self, *pairs: tuple[Tensor, Tensor]) -> Tensor:
        ((x, z_bar),) = pairs  # the images do not move
        rows = z_bar.permute(0, 2, 3, 1).flatten(0, 2)
        flat = (x.flatten(0, 1).T @ rows).T  # the other way round takes libraries seven times as long
        return flat.reshape(len(flat), -1, _KERNEL, _KERNEL)


_Convolution = _ByLibrary | _OfPatches


def _convolution(channels: int, padding: int, is_compiled: bool) -> _Convolution:
    return _OfPatches(padding) if channels <= _MOST_CHANNELS_AS_PATCHES else _ByLibrary(padding, is_compiled)


class ConvNet(FlatNetwork):
    """The layers of `convnet`, with the derivatives of this module.

    Args:
        layers: made by `convnet`.
        kernels: what lies between two convolutions, compiled or as it stands.
        narrow: convolve in bfloat16 and keep activations in it; parameters, slopes, norms and loss stay wide.
    """

    def __init__(self, layers: nn.Sequential, kernels: Kernels, narrow: bool = False) -> None:
        super().__init__(layers)
        self._kernels, self._narrow = kernels, narrow
        convolutions = [layer for layer in layers.modules() if isinstance(layer, nn.Conv2d)]
        self._convolutions = [
            _convolution(layer.in_channels, int(layer.padding[0]), kernels.is_compiled) for layer in convolutions
        ]
        self._width = convolutions[0].out_channels

    def features(self, params: Params, images: Images) -> Features:
        """See `FlatNetwork.features`; where no gradient is asked for, as the derivatives here see them."""
        if torch.is_grad_enabled():
            return super().features(params, images)
        layers = self._layers(params)
        parts = [self._forward(layers, images[part])[1].flatten(1) for part in self._parts(images)]
        return torch.cat(parts).to(params.dtype)

    @torch.no_grad()
    def slope(self, params: Params, images: Images, targets: Targets, batch_size: int, keep: bool = False) -> Slope:
        """See `FlatNetwork.slope`."""
        layers, slope, kept = self._layers(params), torch.zeros_like(params), []
        for part in self._parts(images):
            passed, part_slope = self._pass(layers, images[part], targets[part], batch_size)
            slope += part_slope
            if keep:
                kept.append(passed)
        return Slope(slope, tuple(kept), sum(passed.bytes for passed in kept)) if keep else Slope(slope)

    @torch.no_grad()
    def alignment(
        self,
        params: Params,
        images: Images,
        targets: Targets,
        batch_size: int,
        direction: Params,
        kept: tuple[_Pass, ...] | None = None,
    ) -> Alignment:
        """See `FlatNetwork.alignment`."""
        layers, dlayers = self._layers(params), self._layers(direction)
        found = []
        for number, part in enumerate(self._parts(images)):
            if kept is None:
                passed, _ = self._pass(layers, images[part], targets[part], batch_size, is_again=True)
            else:
                passed = kept[number]
            found.append(self._aligned(layers, dlayers, passed, targets[part], batch_size))
        return Alignment(
            torch.stack([each.value for each in found]).sum(),
            torch.stack([each.params for each in found]).sum(0),
            torch.cat([each.images for each in found]).to(images.dtype),
            torch.cat([each.targets for each in found]),
        )

    def _parts(self, images: Images) -> list[slice]:
        """The batch in parts whose activations stay near the processor; a GPU takes everything at once."""
        count, parts = len(images), 1
        if images.device.type == "cpu":
            side = images.shape[2] + 2 * self._convolutions[0].padding - 2
            parts = -(-count * self._width * side * side * images.element_size() // _PART_BYTES)
        size = -(-count // parts)
        return [slice(begin, begin + size) for begin in range(0, count, size)]

    def _forward(self, layers: _Layers, images: Images) -> tuple[list[tuple[Tensor, Tensor, Tensor, Tensor]], Tensor]:
        """What every block has of its input, see `_Kept`, and what the last one puts out."""
        passed, y = [], images.bfloat16() if self._narrow else images
        for convolution, block in zip(self._convolutions, layers.blocks, strict=True):
            x = convolution.arranged(y)
            z = convolution.forward(x, block.weight)
            y, mean, s = self._kernels.forward(z, block.gain, block.shift)
            passed.append((x, z, mean, s))
        return passed, y

    def _pass(
        self, layers: _Layers, images: Images, targets: Targets, batch_size: int, is_again: bool = False
    ) -> tuple[_Pass, Tensor]:
        """One pass forward and back, and the slope, which is left empty where the pass `is_again` made."""
        passed, y = self._forward(layers, images)
        head = layers.head
        features = y.flatten(1).to(head.weight.dtype)
        odds, logits_bar = head_cotangent(features, *head, targets, batch_size)

        slopes = [logits_bar.T @ features, logits_bar.sum(0)]
        kept = []
        y_bar = _like(y, logits_bar @ head.weight)
        for number in reversed(range(len(passed))):
            convolution, block, (x, z, mean, s) = self._convolutions[number], layers.blocks[number], passed[number]
            kept.append(_Kept(x, z, mean, s, y_bar))
            if is_again and number == 0:
                break
            z_bar, gain_bar, shift_bar = self._kernels.pullback(z, mean, s, block.gain, block.shift, y_bar)
            if not is_again:
                weight_bar = convolution.to_weight((x, z_bar))
                slopes = [weight_bar, torch.zeros_like(shift_bar), gain_bar, shift_bar, *slopes]
            if number > 0:
                y_bar = convolution.to_input(z_bar, block.weight)
        slope = features.new_empty(0) if is_again else _flat(slopes, head.weight.dtype)
        return _Pass(tuple(reversed(kept)), features, odds, logits_bar), slope

    def _aligned(self, layers: _Layers, dlayers: _Layers, at: _Pass, targets: Targets, batch_size: int) -> Alignment:
        """The alignment with a direction, where a pass has been."""
        tangents = []
        dx: Tensor | None = None  # the images do not move
        steps = list(zip(self._convolutions, layers.blocks, dlayers.blocks, at.blocks, strict=True))
        for convolution, block, dblock, kept in steps:
            dz = convolution.forward(kept.x, dblock.weight)
            if dx is not None:
                dz += convolution.forward(dx, block.weight)
            dy, along_one, along_n = self._kernels.tangent(
                kept.z, kept.mean, kept.s, block.gain, block.shift, dz, dblock.gain, dblock.shift
            )
            tangents.append((dx, dz, along_one, along_n))
            dx = dy
        assert dx is not None
        head, dhead = layers.head, dlayers.head
        dfeatures = dx.flatten(1).to(head.weight.dtype)
        dlogits = dfeatures @ head.weight.T + at.features @ dhead.weight.T + dhead.bias
        value = (at.logits_bar * dlogits).sum()

        expected = (at.odds * dlogits).sum(1, keepdim=True)
        logits_bar = targets.sum(1, keepdim=True) / batch_size * at.odds * (dlogits - expected)
        slopes = [logits_bar.T @ at.features + at.logits_bar.T @ dfeatures, logits_bar.sum(0)]
        y_bar = _like(dx, logits_bar @ head.weight + at.logits_bar @ dhead.weight)
        for (convolution, block, dblock, kept), (dx, dz, along_one, along_n) in reversed(
            list(zip(steps, tangents, strict=True))
        ):
            z_bar, dz_bar, gain_bar, shift_bar = self._kernels.tangent_pullback(
                *(kept.z, kept.mean, kept.s, block.gain, block.shift),
                *(dz, dblock.gain, along_one, along_n, y_bar, kept.dy_bar),
            )
            moving = [] if dx is None else [(dx, dz_bar)]
            weight_bar = convolution.to_weight((kept.x, z_bar), *moving)
            slopes = [weight_bar, torch.zeros_like(shift_bar), gain_bar, shift_bar, *slopes]
            y_bar = convolution.to_input(z_bar, block.weight) + convolution.to_input(dz_bar, dblock.weight)
        return Alignment(value, _flat(slopes, head.weight.dtype), y_bar, (expected - dlogits) / batch_size)

    def _layers(self, params: Params) -> _Layers:
        *views, weight, bias = self.views(params)
        blocks = []
        for weight_of, _, gain, shift in zip(*(views[part::4] for part in range(4)), strict=True):
            narrowed = weight_of.bfloat16() if self._narrow else weight_of
            blocks.append(_Block(narrowed.contiguous(memory_format=torch.channels_last), gain, shift))
        return _Layers(blocks, _Head(weight, bias))


def _flat(slopes: list[Tensor], dtype: torch.dtype) -> Tensor:
    return torch.cat([part.reshape(-1).to(dtype) for part in slopes])


def _like(x: Tensor, features_bar: Tensor) -> Tensor:
    return features_bar.to(x.dtype).view(x.shape).contiguous(memory_format=torch.channels_last)
