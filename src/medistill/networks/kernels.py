"""What a ConvNet block does after its convolution, with the derivatives that the exact gradient needs.

A block normalizes each channel of each image, scales and shifts it, cuts off what is negative and halves the image:

    n = (z - mean) s,  s = (var + eps)^-1/2        a = gain n + shift        y = pool(max(a, 0))

Four functions suffice: y; the pullback of y (first order); the tangent of y along a direction of z, gain and shift; and
the pullback of that tangent (second order). A prefix `d` marks a tangent, a suffix `_bar` a cotangent. With
P(v) = s (v - mean(v) - n mean(n v)), the derivative of n, and A = [a > 0] spread(y_bar), the pullback of the pool:

    z_bar  = P(gain A)                                               gain_bar = sum A n        shift_bar = sum A
    dn     = P(dz)                                                   dy = pool([a > 0] (gain dn + dgain n + dshift))

and for phi = <dy_bar, dy>, with A' of dy_bar, whose pullbacks to dz, dgain, dshift are those of first order again:

    n_bar  = gain A + dgain A' - s gain (A' mean(n dz) + dz mean(A' n))
    z_bar  = P(n_bar) - s n gain mean(A' dn)                         gain_bar = sum A n + A' dn

z, y and their tangents and cotangents may be bfloat16; means, s, gain and shift stay wider.

Every function is a few passes over memory once compiled. Sums run over a row before they run over rows, which keeps a
row in the cache while all channels of it are added.

Source: the formulas are this project's own, by the chain rule; tests hold them against automatic differentiation.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from medistill.networks.compiling import compiled

_EPS = 1e-5


@dataclass(frozen=True)
class Kernels:
    """The four functions, compiled or as they stand."""

    forward: Callable[..., tuple[Tensor, Tensor, Tensor]]
    pullback: Callable[..., tuple[Tensor, Tensor, Tensor]]
    tangent: Callable[..., tuple[Tensor, Tensor, Tensor]]
    tangent_pullback: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]
    is_compiled: bool = False


def forward(z: Tensor, gain: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """y [n, c, h // 2, w // 2] of a convolution's output z [n, c, h, w], with each channel's mean and s."""
    given, z = z, _widened(z)
    mean = _mean(z)
    s = (_mean((z - mean).square()) + _EPS).rsqrt()
    return _pool(torch.relu((z - mean) * (s * _wide(gain)) + _wide(shift))).to(given.dtype), mean, s


def pullback(
    z: Tensor, mean: Tensor, s: Tensor, gain: Tensor, shift: Tensor, y_bar: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Cotangents of z, gain and shift from that of y."""
    given, z, y_bar = z, _widened(z), _widened(y_bar)
    g, n = _wide(gain), (z - mean) * s
    is_on = g * n + _wide(shift) > 0
    shift_bar, gain_bar = _sum(y_bar * _pool(_where(is_on, 1.0))), _sum(y_bar * _pool(_where(is_on, n)))
    area = z.shape[2] * z.shape[3]
    z_bar = s * g * (_where(is_on, _spread(y_bar, z)) - shift_bar / area - n * (gain_bar / area))
    return z_bar.to(given.dtype), gain_bar.sum((0, 2, 3)), shift_bar.sum((0, 2, 3))


def tangent(
    z: Tensor, mean: Tensor, s: Tensor, gain: Tensor, shift: Tensor, dz: Tensor, dgain: Tensor, dshift: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """dy from dz, dgain and dshift, with mean(dz) and mean(n dz)."""
    given, z, dz = z, _widened(z), _widened(dz)
    g, n = _wide(gain), (z - mean) * s
    along_one, along_n = _mean(dz), _mean(n * dz)
    dn = s * (dz - along_one - n * along_n)
    da = g * dn + _wide(dgain) * n + _wide(dshift)
    return _pool(_where(g * n + _wide(shift) > 0, da)).to(given.dtype), along_one, along_n


def tangent_pullback(
    z: Tensor,
    mean: Tensor,
    s: Tensor,
    gain: Tensor,
    shift: Tensor,
    dz: Tensor,
    dgain: Tensor,
    along_one: Tensor,
    along_n: Tensor,
    y_bar: Tensor,
    dy_bar: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cotangents of z, dz, gain and shift from those of y and of dy; `along_one` and `along_n` come from `tangent`.

    The cotangent of dz is that of first order once more, which costs less to make here than to have kept.
    """
    given, z, dz, y_bar, dy_bar = z, *(_widened(each) for each in (z, dz, y_bar, dy_bar))
    g, n, area = _wide(gain), (z - mean) * s, z.shape[2] * z.shape[3]
    is_on = g * n + _wide(shift) > 0
    on, on_n = _pool(_where(is_on, 1.0)), _pool(_where(is_on, n))
    shift_bar, sum_n = _sum(y_bar * on), _sum(y_bar * on_n)
    dsum, dsum_n = _sum(dy_bar * on), _sum(dy_bar * on_n)
    dsum_dn = s * (_sum(dy_bar * _pool(_where(is_on, dz))) - along_one * dsum - along_n * dsum_n)

    for_dy = _wide(dgain) - s * g * along_n  # what multiplies A' in n_bar
    for_dz = s * g * dsum_n / area
    mean_n_bar = (g * shift_bar + for_dy * dsum) / area - for_dz * along_one
    mean_n_n_bar = (g * sum_n + for_dy * dsum_n) / area - for_dz * along_n
    spread_dy_bar = _spread(dy_bar, z)
    n_bar = _where(is_on, g * _spread(y_bar, z) + for_dy * spread_dy_bar) - for_dz * dz
    z_bar = s * (n_bar - mean_n_bar - n * (mean_n_n_bar + g * dsum_dn / area))
    dz_bar = s * g * (_where(is_on, spread_dy_bar) - (dsum + n * dsum_n) / area)
    return (
        z_bar.to(given.dtype),
        dz_bar.to(given.dtype),
        (sum_n + dsum_dn).sum((0, 2, 3)),
        shift_bar.sum((0, 2, 3)),
    )


EAGER = Kernels(forward, pullback, tangent, tangent_pullback)


@functools.cache
def fused() -> Kernels:
    """The four functions compiled; see `compiled`."""
    return Kernels(
        compiled(forward), compiled(pullback), compiled(tangent), compiled(tangent_pullback), is_compiled=True
    )


def _widened(values: Tensor) -> Tensor:
    """bfloat16 as float32, in which everything here is computed; other precisions as they are."""
    return values.float() if values.dtype == torch.bfloat16 else values


def _wide(values: Tensor) -> Tensor:
    """One value a channel, as [1, c, 1, 1]."""
    return values.view(1, -1, 1, 1)


def _sum(values: Tensor) -> Tensor:
    return values.sum(3, keepdim=True).sum(2, keepdim=True)


def _mean(values: Tensor) -> Tensor:
    return _sum(values) / (values.shape[2] * values.shape[3])


def _where(is_on: Tensor, values: Tensor | float) -> Tensor:
    return torch.where(is_on, values, 0.0)


def _pool(values: Tensor) -> Tensor:
    h, w = values.shape[2] // 2 * 2, values.shape[3] // 2 * 2
    top, bottom = values[:, :, 0:h:2], values[:, :, 1:h:2]
    return 0.25 * (top[..., 0:w:2] + top[..., 1:w:2] + bottom[..., 0:w:2] + bottom[..., 1:w:2])


def _spread(y_bar: Tensor, z: Tensor) -> Tensor:
    """The pullback of `_pool` without its mask: a quarter to each of four pixels, nothing to an odd last row."""
    n, c, h, w = y_bar.shape
    spread = (0.25 * y_bar)[:, :, :, None, :, None].expand(n, c, h, 2, w, 2).reshape(n, c, 2 * h, 2 * w)
    below, right = z.shape[2] - 2 * h, z.shape[3] - 2 * w
    return functional.pad(spread, (0, right, 0, below)) if below or right else spread
