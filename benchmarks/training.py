"""Training on real images, variant beside variant: images a second on one thread, and with two processes.

The plain loop is what a tutorial writes: a module, automatic differentiation, `torch.optim.SGD`, float images. Beside
it the project's training loop, uncompiled and compiled, from 8-bit images, without augmentation in any of them.
Variants are interleaved in one process; times are process CPU seconds of one pass over the images, medians of the
repetitions after one that is not counted. The pair is two processes of the compiled loop at once, in seconds on the
wall.

    python -m benchmarks.training --size 28 --width 128 --depth 3
"""

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.clock import seconds_of
from medistill.images import LabelledImages
from medistill.jobs import keep_freed_memory
from medistill.networks import FlatNetwork, build, can_compile
from medistill.networks.convnet import convnet
from medistill.package import Transform
from medistill.recipe import AugmentSettings, MachineSettings, NetworkSettings
from medistill.train import Optimization, TrainingSet, fresh, train

SHAPE = {"channels": 1, "size": 28, "classes": 4, "width": 128, "depth": 3, "batch": 128, "images": 1024}
RATE = 0.01


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print one table or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in SHAPE.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    shape = {name: getattr(options, name) for name in SHAPE}
    torch.set_num_threads(1)
    keep_freed_memory()
    variants = _variants(shape)
    seconds = {name: list[float]() for name in variants}
    for repeat in range(options.repeats + 1):
        for name, one_pass in variants.items():
            taken = seconds_of(one_pass)
            if repeat:
                seconds[name].append(taken)
    rates = {name: shape["images"] / statistics.median(times) for name, times in seconds.items()}
    spreads = {name: max(times) / min(times) - 1 for name, times in seconds.items()}
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        rates["compiled, two processes"] = sum(pool.map(_wall_rate, [(shape, options.repeats)] * 2))
    rows = [
        {"name": name, "images_per_second": rate, "speedup": rate / rates["plain"], "spread": spreads.get(name)}
        for name, rate in rates.items()
    ]
    if options.json:
        print(json.dumps({"shape": shape, "compiled": can_compile(), "variants": rows}, indent=2))
        return
    print(" ".join(f"{name} {value}" for name, value in shape.items()))
    for row in rows:
        spread = "" if row["spread"] is None else f"   spread {100 * row['spread']:.0f} %"
        print(f"{row['name']:24} {row['images_per_second']:7.0f} images/s {row['speedup']:6.2f}{spread}")


def _variants(shape: dict[str, int]) -> dict[str, Callable[[], None]]:
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (shape["images"], shape["channels"], shape["size"], shape["size"]), dtype=np.uint8)
    labels = np.arange(shape["images"]) % shape["classes"]
    images = LabelledImages(pixels, labels, tuple(f"class {index}" for index in range(shape["classes"])))
    form = (NetworkSettings(width=shape["width"], depth=shape["depth"]), *_input(shape))
    data = TrainingSet.of(images, Transform(mean=(0.5,) * shape["channels"], std=(0.25,) * shape["channels"]))
    compiled = MachineSettings(compiles=can_compile())
    return {
        "plain": lambda: _plain(form, data, labels, shape["batch"]),
        "uncompiled": lambda: _ours(build(*form), data, shape["batch"]),
        "compiled": lambda: _ours(build(*form, machine=compiled), data, shape["batch"]),
    }


def _input(shape: dict[str, int]) -> tuple[int, int, int]:
    return shape["channels"], shape["size"], shape["classes"]


def _plain(form: tuple[Any, ...], data: TrainingSet, labels: Any, batch: int) -> None:
    module = convnet(*form)
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE)
    images, _ = data.batch(torch.arange(len(data)))
    classes = torch.from_numpy(labels)
    for indices in torch.split(torch.randperm(len(images)), batch):
        optimizer.zero_grad()
        loss: Tensor = functional.cross_entropy(module(images[indices]), classes[indices])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _ours(network: FlatNetwork, data: TrainingSet, batch: int) -> None:
    still = AugmentSettings(rotate_degrees=0, scale=0, shift=0, brightness=0, contrast=0)
    how = Optimization(RATE, 1, batch, 0.0, 0.0, False, "natural", still)
    for _ in train(network, fresh(network, 0), data, how, lambda purpose: 0):
        pass


def _wall_rate(job: tuple[dict[str, int], int]) -> float:
    """Images a second of one of two processes that run side by side."""
    shape, repeats = job
    torch.set_num_threads(1)
    keep_freed_memory()
    one_pass = _variants(shape)["compiled"]
    one_pass()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        one_pass()
        times.append(time.perf_counter() - started)
    return shape["images"] / statistics.median(times)


if __name__ == "__main__":
    main()
