"""Gradient matching's step, variant beside variant: time, and agreement with double precision.

A step asks how far two batches of one class pull a network apart, and what the images of one of them change in that.
The reference differentiates a slope by automatic differentiation, as the field does; beside it stands
`matching.gradient.pull_apart` with the network's derivatives by automatic differentiation and written out, in float32
and, where the machine computes in it, bfloat16. Variants run interleaved in one process, one thread, on the same noise;
times are process CPU seconds, medians after a repetition that is not counted.

    python -m benchmarks.slopes
    python -m benchmarks.slopes --size 112 --width 128 --depth 5 --real 128 --synthetic 20
"""

import argparse
import functools
import statistics
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.clock import precisions_of, seconds_of
from medistill.jobs import keep_freed_memory
from medistill.matching.gradient import Labelled, pull_apart, slope_distance
from medistill.networks import FlatNetwork, build, can_compile, cross_entropy
from medistill.recipe import MachineSettings, NetworkSettings

CLASSES, EVERYTHING = 4, 2**50


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, usual in (("size", 32), ("width", 64), ("depth", 3), ("real", 128), ("synthetic", 80), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    keep_freed_memory()
    form = (NetworkSettings(width=options.width, depth=options.depth), 1, options.size, CLASSES)
    automatic = build(*form)
    params = automatic.initial(0)
    real, synthetic = (
        _batch(count, options.size, seed) for seed, count in enumerate((options.real, options.synthetic))
    )
    variants: dict[str, Callable[[], Tensor]] = {
        "differentiated slope, float32": functools.partial(differentiated, automatic, params, real, synthetic),
        "alignment, automatic, float32": functools.partial(_alignment, automatic, params, real, synthetic),
    }
    for precision in precisions_of("cpu"):
        written = build(*form, machine=MachineSettings(device="cpu", compiles=can_compile("cpu"), precision=precision))
        variants[f"alignment, {precision}"] = functools.partial(_alignment, written, params, real, synthetic)
    doubled = [Labelled(batch.images.double(), batch.targets.double()) for batch in (real, synthetic)]
    exact = differentiated(automatic, params.double(), *doubled)
    errors = {name: float((found().double() - exact).norm() / exact.norm()) for name, found in variants.items()}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(options.repeats):
        for name, found in variants.items():
            seconds[name].append(seconds_of(found, "cpu"))
    median = {name: statistics.median(times) for name, times in seconds.items()}
    first = next(iter(variants))
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, one thread; {vars(options)}")
    print(f"{'variant':32} {'seconds':>8} {'spread':>7} {'speed':>6} {'error':>8}")
    for name in variants:
        spread = max(seconds[name]) - min(seconds[name])
        print(f"{name:32} {median[name]:8.3f} {spread:7.3f} {median[first] / median[name]:6.2f} {errors[name]:8.1e}")


def differentiated(network: FlatNetwork, params: Tensor, real: Labelled, synthetic: Labelled) -> Tensor:
    """The gradient to the synthetic images by back-propagation through a slope."""
    leaf, images = params.detach().requires_grad_(), synthetic.images.detach().requires_grad_()
    (theirs,) = torch.autograd.grad(cross_entropy(network(leaf, real.images), real.targets, len(real.images)), leaf)
    loss = cross_entropy(network(leaf, images), synthetic.targets, len(images))
    (ours,) = torch.autograd.grad(loss, leaf, create_graph=True)
    return torch.autograd.grad(slope_distance(network.views(theirs), network.views(ours)), images)[0]


def _alignment(network: FlatNetwork, params: Tensor, real: Labelled, synthetic: Labelled) -> Tensor:
    return pull_apart(network, params, real, synthetic, EVERYTHING).to_images


def _batch(count: int, size: int, seed: int) -> Labelled:
    images = torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(seed))
    return Labelled(images, torch.eye(CLASSES)[torch.zeros(count, dtype=torch.long)])


if __name__ == "__main__":
    main()
