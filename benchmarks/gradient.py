"""The exact gradient, variant beside variant: time, memory, and agreement with double precision.

The reference is what the field does: a flat-parameter ConvNet in eager float32, written here from the mathematics, its
J student steps unrolled by `autograd.grad(create_graph=True)`, then one pass back through everything. Beside it stand
the adjoint by automatic differentiation, the adjoint with the ConvNet's derivatives written out (activations kept or
recomputed, on a GPU also recorded as CUDA graphs; in float32 and, where the machine computes in them, TensorFloat-32
and bfloat16), and the gradient that TESLA's released code computes, which leaves out how a batch changes later weights.

Variants run interleaved in one process, one thread, on the same inputs; times are process CPU seconds (on a GPU seconds
on the wall, with everything finished), medians of the repetitions after one that is not counted. Peak memory is
measured in a process of its own for each variant (on a GPU by its allocator), beyond what it held before. Errors and
cosines are of the pixel gradient against double precision, medians over several starts: on images of noise rounding
switches a ReLU here and there, from where two students part, and which pair parts first is chance (docs/log.md). The
floor is what the convolutions of a kept step would take alone if nothing saved multiplications: 9 forward passes' work
at the rate at which forward convolutions ran in float32.

    python -m benchmarks.gradient --case a
    python -m benchmarks.gradient --size 32 --width 64 --depth 3 --batch 40 --steps 10 --json
    python -m benchmarks.gradient --case c --device cuda
    python -m benchmarks.gradient --case a --dump a.npz     the same numbers in float64, for anyone to compute again
"""

import argparse
import functools
import json
import math
import multiprocessing
import platform
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.clock import precisions_of, seconds_of
from medistill.augment import augment
from medistill.jobs import keep_freed_memory
from medistill.matching.adjoint import Gradient, InnerStep, trajectory_gradient
from medistill.matching.trajectory import trajectory_distance
from medistill.networks import FlatNetwork, build, can_compile, cross_entropy, forget_recordings
from medistill.recipe import Device, MachineSettings, NetworkSettings, Precision
from medistill.usage import measured

CASES = {
    "a": {"size": 28, "classes": 2, "width": 128, "depth": 3, "batch": 20, "steps": 10, "padding": 3},
    "b": {"size": 64, "classes": 4, "width": 128, "depth": 4, "batch": 40, "steps": 2, "padding": 3},
    "c": {"size": 112, "classes": 4, "width": 128, "depth": 5, "batch": 40, "steps": 2, "padding": 3},
}
FREE = {"channels": 1, "size": 32, "classes": 4, "width": 64, "depth": 3, "batch": 40, "steps": 10, "padding": 1}
RATE, EVERYTHING = 0.02, 2**50
FORWARD_PASSES = {
    "kept": 9,
    "recomputed": 11,
    "recorded": 11,
}  # what one student step's convolutions cost, there and back


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print one table or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, help="a published shape; single settings below override it")
    for name in FREE:
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--starts", type=int, default=3, help="over how many the errors are taken (default %(default)s)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--dump", type=Path, metavar="FILE.npz", help="write problem and exact gradient in float64")
    options = parser.parse_args(arguments)
    given = {name: getattr(options, name) for name in FREE if getattr(options, name) is not None}
    shape = FREE | CASES.get(options.case, {}) | given
    if options.dump is not None:
        return _dump(shape, options.dump)
    results = compared(shape, options.repeats, options.device, options.starts)
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        print_table(results)


class Problem:
    """A student at fresh parameters, a target a little way off, and synthetic images of noise."""

    def __init__(
        self, shape: dict[str, int], device: Device = "cpu", dtype: torch.dtype = torch.float32, seed: int = 0
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        settings = NetworkSettings(width=shape["width"], depth=shape["depth"], first_padding=shape["padding"])
        form = (settings, shape["channels"], shape["size"], shape["classes"])
        self.shape, self.steps, self.device = shape, shape["steps"], device
        self.automatic: FlatNetwork = build(*form)
        self._form = form
        start = self.automatic.initial(seed)
        target = start + 0.01 * torch.randn(self.automatic.size, generator=generator)
        images = torch.randn(shape["batch"], *(shape[n] for n in ("channels", "size", "size")), generator=generator)
        targets = torch.eye(shape["classes"])[torch.arange(shape["batch"]) % shape["classes"]]
        self.start, self.target, self.images, self.targets = (
            each.to(device, dtype) for each in (start, target, images, targets)
        )

    def written(self, precision: Precision, graphs: bool = False) -> FlatNetwork:
        """The network whose derivatives are written out, compiled where the machine can."""
        compiles = can_compile(self.device)
        machine = MachineSettings(device=self.device, compiles=compiles, precision=precision, graphs=graphs)
        return build(*self._form, machine=machine)

    def distance(self, end: Tensor) -> Tensor:
        """The objective."""
        return trajectory_distance(end, self.start, self.target)

    @property
    def place(self) -> tuple[Tensor, Tensor, Tensor, Tensor, list[InnerStep]]:
        """Start, images, targets, logarithm of the rate, and steps that all see every image."""
        log_rate = torch.tensor(math.log(RATE), dtype=self.start.dtype, device=self.device)
        steps = [InnerStep(torch.arange(len(self.images)), None)] * self.steps
        return self.start, self.images, self.targets, log_rate, steps

    def logits(self, params: Tensor, images: Tensor) -> Tensor:
        """The reference network: every block from its definition."""
        *views, weight, bias = self.automatic.views(params)
        x = images
        for i in range(0, len(views), 4):
            x = functional.conv2d(x, views[i], views[i + 1], padding=self.shape["padding"] if i == 0 else 1)
            x = functional.group_norm(x, self.shape["width"], views[i + 2], views[i + 3])
            x = functional.avg_pool2d(torch.relu(x), 2)
        return x.flatten(1) @ weight.T + bias

    def loss(self, params: Tensor, images: Tensor) -> Tensor:
        """Of the reference network."""
        return cross_entropy(self.logits(params, images), self.targets, len(images))


def unrolled_gradient(
    network: Callable[[Tensor, Tensor], Tensor],
    start: Tensor,
    images: Tensor,
    targets: Tensor,
    log_rate: Tensor,
    steps: Sequence[InnerStep],
    objective: Callable[..., Tensor],
    micro_batch: int | None = None,
    keep_bytes: int = 0,
    stops: Sequence[int] = (),
    own_share: bool = False,
) -> Gradient:
    """What `trajectory_gradient` computes, by back-propagation through all steps at once."""
    assert not stops
    assert not own_share
    leaves = [leaf.detach().requires_grad_() for leaf in (images, targets, log_rate)]
    params, rate = start.detach().requires_grad_(), leaves[2].exp()
    for step in steps:
        seen = augment(leaves[0][step.indices], step.draw)
        loss = cross_entropy(network(params, seen), leaves[1][step.indices], len(seen))
        (slope,) = torch.autograd.grad(loss, params, create_graph=True)
        params = params - rate * slope
    value = objective(params)
    to_images, to_targets, to_log_rate = torch.autograd.grad(value, leaves)
    return Gradient(value.detach(), to_images, to_targets, to_log_rate, params.detach())


def unrolled(problem: Problem) -> Tensor:
    """The reference: back-propagation through all steps at once."""
    return unrolled_gradient(problem.logits, *problem.place, problem.distance).images


def tesla(problem: Problem) -> Tensor:
    """Each step's own share alone, every step's parameters held fixed.

    Source: Cui et al., ICML 2023 (arXiv 2211.10586), as released.
    """
    path = [problem.start]
    for _ in range(problem.steps):
        params = path[-1].detach().requires_grad_()
        (slope,) = torch.autograd.grad(problem.loss(params, problem.images), params)
        path.append(path[-1] - RATE * slope)
    end = path[-1].detach().requires_grad_()
    (cotangent,) = torch.autograd.grad(problem.distance(end), end)
    gradient = torch.zeros_like(problem.images)
    for here in path[:-1]:
        params, images = here.detach().requires_grad_(), problem.images.detach().requires_grad_()
        (slope,) = torch.autograd.grad(problem.loss(params, images), params, create_graph=True)
        gradient -= RATE * torch.autograd.grad(slope @ cotangent, images)[0]
    return gradient


def adjoint(problem: Problem, network: FlatNetwork, keep_bytes: int = 0, micro_batch: int | None = None) -> Tensor:
    """The project's gradient."""
    return trajectory_gradient(network, *problem.place, problem.distance, micro_batch, keep_bytes).images


class Variant(NamedTuple):
    """One way to the gradient."""

    name: str
    precision: Precision
    mode: str

    def gradient(self, problem: Problem) -> Tensor:
        """The pixel gradient, this way."""
        if self.name == "unrolled":
            return unrolled(problem)
        if self.name == "tesla":
            return tesla(problem)
        written = problem.written(self.precision, self.mode == "recorded")
        network = problem.automatic if self.name == "adjoint-automatic" else written
        return adjoint(problem, network, EVERYTHING if self.mode == "kept" else 0)


REFERENCE = Variant("unrolled", "float32", "graph")


def variants_on(device: Device) -> list[Variant]:
    """Every variant that a device computes natively."""
    modes = ("kept", "recomputed", "recorded") if device == "cuda" else ("kept", "recomputed")
    return [
        REFERENCE,
        Variant("tesla", "float32", "graph"),
        Variant("adjoint-automatic", "float32", "recomputed"),
        *(Variant("adjoint", precision, mode) for precision in precisions_of(device) for mode in modes),
    ]


def compared(shape: dict[str, int], repeats: int, device: Device, starts: int = 1) -> dict[str, Any]:
    """Every variant's time, memory and error on one shape, and the floor."""
    torch.set_num_threads(1)
    keep_freed_memory()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    problem, variants = Problem(shape, device), variants_on(device)
    agreements = [_agreements(shape, device, seed, variants) for seed in range(starts)]
    seconds = {each: list[float]() for each in variants}
    for _ in range(repeats):
        for each in variants:
            seconds[each].append(seconds_of(functools.partial(each.gradient, problem), device))
    peaks = {each: peak_bytes(shape, each, device) for each in variants}
    median = {each: statistics.median(times) for each, times in seconds.items()}
    work, rate = convolutions(problem)
    floor = FORWARD_PASSES["kept"] * work * problem.steps / rate
    rows = [
        {
            **each._asdict(),
            "seconds_median": median[each],
            "seconds_spread": max(seconds[each]) - min(seconds[each]),
            "speedup": median[REFERENCE] / median[each],
            "peak_bytes": peaks[each],
            "peak_ratio": peaks[each] / peaks[REFERENCE],
            "error_float64": statistics.median(error for error, _ in agreement),
            "errors_float64": [error for error, _ in agreement],
            "cosine_float64": statistics.median(cosine for _, cosine in agreement),
        }
        for each, *agreement in zip(variants, *agreements, strict=True)
    ]
    return {
        "shape": shape,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
            "threads": 1,
        },
        "torch": torch.__version__,
        "allocator": "freed memory kept (mallopt), in every variant",
        "compiled": can_compile(device),
        "repeats": repeats,
        "convolution_flops_per_second": rate,
        "floor_seconds": floor,
        "floor_speedup": median[REFERENCE] / floor,
        "variants": rows,
    }


def _agreements(
    shape: dict[str, int], device: Device, seed: int, variants: Sequence[Variant]
) -> list[tuple[float, float]]:
    """Each variant's relative error to double precision, and its cosine with it, from one start."""
    precise = Problem(shape, device, torch.float64, seed)
    exact = adjoint(precise, precise.automatic, micro_batch=4)
    problem = Problem(shape, device, seed=seed)
    found = [each.gradient(problem).double() for each in variants]
    return [
        (float((each - exact).norm() / exact.norm()), float((each * exact).sum() / (each.norm() * exact.norm())))
        for each in found
    ]


def convolutions(problem: Problem) -> tuple[float, float]:
    """Floating-point operations of one forward pass's convolutions, and how many of them run in a second."""
    shape, total, seconds = problem.shape, 0.0, 0.0
    side, before, padding = shape["size"], shape["channels"], shape["padding"]
    for _ in range(shape["depth"]):
        x = torch.randn(shape["batch"], before, side, side).to(problem.device, memory_format=torch.channels_last)
        weight = torch.randn(shape["width"], before, 3, 3).to(problem.device, memory_format=torch.channels_last)
        convolve = functools.partial(functional.conv2d, x, weight, padding=padding)
        times = [seconds_of(convolve, problem.device) for _ in range(6)]
        seconds += statistics.median(times[1:])
        out = side + 2 * padding - 2
        total += 2.0 * shape["batch"] * out * out * shape["width"] * before * 9
        side, before, padding = out // 2, shape["width"], 1
    return total, total / seconds


def peak_bytes(shape: dict[str, int], variant: Variant, device: Device) -> int:
    """The most a variant holds; on a CPU in a process of its own, for freed memory is not given back there."""
    if device == "cuda":
        return _peak(shape, variant, device)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return int(pool.apply(_peak, (shape, variant, device)))


def _peak(shape: dict[str, int], variant: Variant, device: Device) -> int:
    """Bytes that a variant holds at most, beyond what a far smaller gradient of the same kind needed."""
    torch.set_num_threads(1)
    keep_freed_memory()
    forget_recordings()
    problem, small = Problem(shape, device), Problem(shape | {"batch": 1, "steps": 1}, device)
    before, most = (
        measured(functools.partial(variant.gradient, each), repeats=1, device=device)[1] for each in (small, problem)
    )
    return most - before


def _dump(shape: dict[str, int], path: Path) -> None:
    """Problem and exact gradient in float64; `start` and `target` are flat: for every block convolution weight and
    bias, norm weight and bias, then the classifier's weight and bias."""
    problem = Problem(shape, dtype=torch.float64)
    found = trajectory_gradient(problem.automatic, *problem.place, problem.distance)
    np.savez(
        path,
        start=problem.start.numpy(),
        target=problem.target.numpy(),
        images=problem.images.numpy(),
        labels=problem.targets.argmax(1).numpy(),
        rate=RATE,
        steps=problem.steps,
        threshold=0.0,
        loss=found.value.numpy(),
        grad_images=found.images.numpy(),
        grad_rate=(found.log_rate / RATE).numpy(),
    )


def print_table(results: dict[str, Any]) -> None:
    """One row a variant."""
    print(" ".join(f"{name} {value}" for name, value in results["shape"].items()))
    machine = results["machine"]
    print(f"torch {results['torch']}, {machine['gpu'] or machine['capability']}, one thread; {results['allocator']}")
    print(
        f"{'variant':18} {'precision':14} {'mode':11} {'seconds':>8} {'spread':>7} {'speed':>6} {'MB':>7} "
        f"{'memory':>7} {'error':>8} cosine"
    )
    for row in results["variants"]:
        print(
            f"{row['name']:18} {row['precision']:14} {row['mode']:11} {row['seconds_median']:8.3f} "
            f"{row['seconds_spread']:7.3f} {row['speedup']:6.2f} {row['peak_bytes'] / 1e6:7.0f} "
            f"{row['peak_ratio']:7.2f} {row['error_float64']:8.1e} {row['cosine_float64']:.4f}"
        )
    print(
        f"{'floor':18} {'':14} {'9 F':11} {results['floor_seconds']:8.3f} {'':7} {results['floor_speedup']:6.2f}   "
        f"at {results['convolution_flops_per_second'] / 1e9:.0f} GFLOP/s"
    )


if __name__ == "__main__":
    main()
