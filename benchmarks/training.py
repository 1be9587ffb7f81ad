"""Training on real images, variant beside variant: images a second on one thread, and with two processes.

The plain loop is what a tutorial writes: a module, automatic differentiation, `torch.optim.SGD`, float images. Beside
it the project's training loop, uncompiled, compiled, and on a GPU recorded as CUDA graphs, in every precision that the
machine computes in, from 8-bit images, without augmentation in any of them. Variants are interleaved in one process;
times are process CPU seconds of one pass over the images (on a GPU seconds on the wall), medians of the repetitions
after one that is not counted. Last, several processes of the last variant at once, in seconds on the wall.

    python -m benchmarks.training --size 28 --width 128 --depth 3
"""

import argparse
import json
import multiprocessing
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.clock import precisions_of, seconds_of, wall_seconds_of
from medistill.images import LabelledImages
from medistill.jobs import keep_freed_memory
from medistill.networks import FlatNetwork, build, can_compile, forget_recordings
from medistill.networks.convnet import convnet
from medistill.package import Transform
from medistill.recipe import AugmentSettings, Device, MachineSettings, NetworkSettings, Precision
from medistill.train import Optimization, TrainingSet, fresh, train

SHAPE = {"channels": 1, "size": 28, "classes": 4, "width": 128, "depth": 3, "batch": 128, "images": 1024}
RATE = 0.01
_PROCESSES: dict[Device, tuple[int, ...]] = {"cpu": (2,), "cuda": (2, 4)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print one table or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in SHAPE.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args(arguments)
    shape = {name: getattr(options, name) for name in SHAPE}
    rates, spreads = training_rates(shape, options.repeats, options.device)
    if options.json:
        rows = [
            {"name": name, "images_per_second": rate, "speedup": rate / rates["plain"], "spread": spreads.get(name)}
            for name, rate in rates.items()
        ]
        print(json.dumps({"shape": shape, "compiled": can_compile(options.device), "variants": rows}, indent=2))
        return
    print(" ".join(f"{name} {value}" for name, value in shape.items()))
    print_rates(rates, spreads)


def training_rates(shape: dict[str, int], repeats: int, device: Device) -> tuple[dict[str, float], dict[str, float]]:
    """Images a second of every variant, and by how much the slowest repetition exceeded the fastest."""
    torch.set_num_threads(1)
    keep_freed_memory()
    variants = _variants(shape, device)
    seconds = {name: list[float]() for name in variants}
    for repeat in range(repeats + 1):
        for name, one_pass in variants.items():
            taken = seconds_of(one_pass, device)
            if repeat:
                seconds[name].append(taken)
    rates = {name: shape["images"] / statistics.median(times) for name, times in seconds.items()}
    spreads = {name: max(times) / min(times) - 1 for name, times in seconds.items()}
    best = list(variants)[-1]
    del variants
    forget_recordings()
    torch.cuda.empty_cache()
    for processes in _PROCESSES[device]:
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            jobs = [(shape, repeats, device, best)] * processes
            rates[f"{best}, {processes} processes"] = sum(pool.map(_wall_rate, jobs))
    return rates, spreads


def print_rates(rates: dict[str, float], spreads: dict[str, float]) -> None:
    """One row a variant."""
    for name, rate in rates.items():
        spread = f"   spread {100 * spreads[name]:.0f} %" if name in spreads else ""
        print(f"{name:34} {rate:9.0f} images/s {rate / rates['plain']:6.2f}{spread}")


def _variants(shape: dict[str, int], device: Device) -> dict[str, Callable[[], None]]:
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (shape["images"], shape["channels"], shape["size"], shape["size"]), dtype=np.uint8)
    labels = np.arange(shape["images"]) % shape["classes"]
    images = LabelledImages(pixels, labels, tuple(f"class {index}" for index in range(shape["classes"])))
    form = (NetworkSettings(width=shape["width"], depth=shape["depth"]), *_input(shape))
    transform = Transform(mean=(0.5,) * shape["channels"], std=(0.25,) * shape["channels"])
    data = TrainingSet.of(images, transform).on(device)

    def ours(precision: Precision, compiles: bool, graphs: bool = False) -> Callable[[], None]:
        machine = MachineSettings(device=device, compiles=compiles, precision=precision, graphs=graphs)
        return lambda: _ours(build(*form, machine=machine), data, shape["batch"])

    variants = {"plain": lambda: _plain(form, data, shape["batch"]), "uncompiled": ours("float32", False)}
    if can_compile(device):
        variants |= {f"compiled {precision}": ours(precision, True) for precision in precisions_of(device)}
    if can_compile(device) and device == "cuda":
        variants |= {f"recorded {precision}": ours(precision, True, graphs=True) for precision in precisions_of(device)}
    return variants


def _input(shape: dict[str, int]) -> tuple[int, int, int]:
    return shape["channels"], shape["size"], shape["classes"]


def _plain(form: tuple[Any, ...], data: TrainingSet, batch: int) -> None:
    module = convnet(*form).to(data.pixels.device)
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE)
    images, targets = data.batch(torch.arange(len(data)))
    for indices in torch.split(torch.randperm(len(images), device=images.device), batch):
        optimizer.zero_grad()
        loss: Tensor = functional.cross_entropy(module(images[indices]), targets[indices])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _ours(network: FlatNetwork, data: TrainingSet, batch: int) -> None:
    still = AugmentSettings(rotate_degrees=0, scale=0, shift=0, brightness=0, contrast=0)
    how = Optimization(RATE, 1, batch, 0.0, 0.0, False, "natural", still)
    for _ in train(network, fresh(network, 0), data, how, lambda purpose: 0):
        pass


def _wall_rate(job: tuple[dict[str, int], int, Device, str]) -> float:
    """Images a second of one of several processes that run side by side."""
    shape, repeats, device, name = job
    torch.set_num_threads(1)
    keep_freed_memory()
    one_pass = _variants(shape, device)[name]
    return shape["images"] / statistics.median([wall_seconds_of(one_pass, device) for _ in range(repeats + 1)][1:])


if __name__ == "__main__":
    main()
