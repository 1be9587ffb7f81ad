"""The exact gradient by the adjoint, beside full unrolling: time, memory and agreement as the student takes more steps.

Full unrolling keeps the graph of all J steps (`autograd.grad(create_graph=True)`, then one backward); the adjoint keeps
one step's. Each measurement runs in a process of its own, so that one's memory is not another's, the two variants
directly after one another on the same inputs. Times are process CPU seconds of one gradient after a smaller one that is
not counted; memory is what the process held beyond what it held before. Repetitions alternate; medians are shown.

    python -m benchmarks.gradient --size 32 --width 64 --depth 3 --batch 40 --steps 5 10 20 40
"""

import argparse
import json
import math
import multiprocessing
import resource
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from medistill.jobs import keep_freed_memory
from medistill.matching.adjoint import InnerStep, trajectory_gradient
from medistill.matching.trajectory import trajectory_distance
from medistill.networks import FlatNetwork, build, cross_entropy
from medistill.recipe import NetworkSettings

VARIANTS = ("unrolled", "adjoint")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print one table or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--size", type=int, default=32, help="pixels")
    parser.add_argument("--classes", type=int, default=4)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--batch", type=int, default=40, help="synthetic images in each step")
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 10, 20, 40], help="J, one or several")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)

    rows = []
    for steps in options.steps:
        measured: dict[str, list[dict[str, Any]]] = {variant: [] for variant in VARIANTS}
        for _ in range(options.repeats):
            for variant in VARIANTS:
                measured[variant].append(_in_own_process(vars(options) | {"steps": steps, "variant": variant}))
        reference = torch.tensor(measured["unrolled"][0]["gradient"])
        for variant, runs in measured.items():
            gradient = torch.tensor(runs[0]["gradient"])
            rows.append(
                {
                    "name": variant,
                    "steps": steps,
                    "seconds_median": statistics.median(run["seconds"] for run in runs),
                    "seconds_spread": max(run["seconds"] for run in runs) - min(run["seconds"] for run in runs),
                    "peak_bytes": int(statistics.median(run["peak_bytes"] for run in runs)),
                    "difference": float((gradient - reference).norm() / reference.norm()),
                }
            )
    if options.json:
        print(json.dumps({"settings": vars(options), "variants": rows}, indent=2))
        return
    print(f"{'variant':10} {'J':>4} {'CPU s':>8} {'spread':>7} {'MB':>7} {'speed':>6} {'memory':>7} {'difference':>11}")
    for index, row in enumerate(rows):
        base = rows[index - index % len(VARIANTS)]
        print(
            f"{row['name']:10} {row['steps']:4d} {row['seconds_median']:8.2f} {row['seconds_spread']:7.2f} "
            f"{row['peak_bytes'] / 1e6:7.0f} {base['seconds_median'] / row['seconds_median']:6.2f} "
            f"{row['peak_bytes'] / base['peak_bytes']:7.2f} {row['difference']:11.1e}"
        )


def _in_own_process(settings: dict[str, Any]) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (settings,))


def _measure(settings: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(1)
    keep_freed_memory()
    gradient = {"unrolled": _unrolled, "adjoint": _adjoint}[settings["variant"]]
    gradient(_Problem(settings | {"batch": 1, "steps": 1}))
    problem, held = _Problem(settings), _peak_bytes()
    started = time.process_time()
    result = gradient(problem)
    seconds = time.process_time() - started
    return {"seconds": seconds, "peak_bytes": _peak_bytes() - held, "gradient": result.flatten().tolist()}


class _Problem:
    """A student, a target and synthetic images, the same in both variants."""

    def __init__(self, settings: dict[str, Any]) -> None:
        generator = torch.Generator().manual_seed(0)
        network = NetworkSettings(width=settings["width"], depth=settings["depth"])
        size, batch, classes = settings["size"], settings["batch"], settings["classes"]
        self.network: FlatNetwork = build(network, settings["channels"], size, classes)
        self.start = self.network.initial(0)
        self.target = self.start + 0.01 * torch.randn(self.network.size, generator=generator)
        self.images = torch.randn(batch, settings["channels"], size, size, generator=generator)
        self.targets = torch.eye(classes)[torch.arange(batch) % classes]
        self.log_rate = torch.tensor(math.log(0.02))
        self.steps = int(settings["steps"])

    def distance(self, end: Tensor) -> Tensor:
        return trajectory_distance(end, self.start, self.target)


def _adjoint(problem: _Problem) -> Tensor:
    steps = [InnerStep(torch.arange(len(problem.images)), None)] * problem.steps
    result = trajectory_gradient(
        problem.network,
        problem.start,
        problem.images,
        problem.targets,
        problem.log_rate,
        steps,
        problem.distance,
    )
    return result.images


def _unrolled(problem: _Problem) -> Tensor:
    images, params = problem.images.requires_grad_(), problem.start.requires_grad_()
    rate = problem.log_rate.exp()
    for _ in range(problem.steps):
        loss = cross_entropy(problem.network(params, images), problem.targets, len(images))
        (slope,) = torch.autograd.grad(loss, params, create_graph=True)
        params = params - rate * slope
    problem.start = problem.start.detach()
    (result,) = torch.autograd.grad(problem.distance(params), images)
    return result


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
