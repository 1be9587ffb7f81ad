"""Time to accuracy: how long until a set is as good as the field's own method leaves it.

The reference is trajectory matching as published (Cazenavette et al., CVPR 2022, arXiv 2203.11932) with its gradient
unrolled by automatic differentiation, teachers and students uncompiled. Its last validation score is the goal. Time is
that of training the teachers plus that of every outer step up to the first selection that reaches the goal; the
selections' own time counts for neither. Both use the same processes and threads, and both are judged by the networks,
images and rates of the same protocol. An interrupted call continues.

    python -m benchmarks.accuracy --source films.npz --out runs/time-to-accuracy
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.gradient import unrolled_gradient
from medistill import pipeline
from medistill.files import read_json, write_json
from medistill.jobs import Silence
from medistill.recipe import read_recipe
from medistill.usage import recorded_stages

REFERENCE, OURS = Path("recipes/published-mtt-cxr4-32-ipc10.toml"), Path("recipes/cxr4-32-ipc10.toml")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run both, and print one table or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="the real images that both recipes read")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--reference", type=Path, default=REFERENCE, help="recipe (default %(default)s)")
    parser.add_argument("--ours", type=Path, default=OURS, help="recipe (default %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change both recipes")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    changes = {"source.path": options.source} | dict(change.split("=", 1) for change in options.set)
    with mock.patch("medistill.objectives.trajectory_gradient", unrolled_gradient):
        reference = _timed(options.reference, changes | {"machine.compiles": "false"}, options.out)
    ours = _timed(options.ours, changes, options.out)
    goal = reference[-1]["balanced_accuracy"]
    reached = next((point for point in ours if point["balanced_accuracy"] >= goal), None)
    found = {
        "reference": reference,
        "ours": ours,
        "goal": goal,
        "seconds_reference": reference[-1]["seconds"],
        "seconds_ours": reached and reached["seconds"],
        "ratio": reached and reference[-1]["seconds"] / reached["seconds"],
    }
    print(json.dumps(found, indent=2) if options.json else _table(found))


class _Clock(Silence):
    """Remembers in a file how long every outer step took, selections included."""

    def __init__(self, path: Path) -> None:
        self._path, self._step, self._last = path, 0, 0.0
        self.seconds = {int(step): seconds for step, seconds in read_json(path)} if path.exists() else {}

    def begin(self, task: str, total: int, done: int = 0) -> None:
        self._step, self._last = done, time.perf_counter()

    def advance(self, count: int) -> None:
        now = time.perf_counter()
        self._step += count
        self.seconds[self._step], self._last = now - self._last, now
        write_json(self._path, sorted(self.seconds.items()))


def _timed(recipe: Path, changes: dict[str, str], out: Path) -> list[dict[str, Any]]:
    """Every selection of a run: its step, the seconds until then, and its balanced accuracy on validation."""
    settings = read_recipe(recipe, changes)
    # A folder for every recipe: teachers taken over from another would have cost nothing here.
    opened = pipeline.open_run(settings, out / f"{settings.name}-{settings.digest()[:12]}")
    pipeline.teach(opened, Silence())
    teachers = float(recorded_stages(opened.clocks["teachers"])["teachers"]["seconds"])
    clock = _Clock(opened.folder / "clock.json")
    log = pipeline.distill_images(opened, clock).log
    every, last = opened.recipe.distill.validate_every, opened.recipe.distill.outer_steps
    judged = {1, *range(every, last, every), last}  # the first step follows the selection of the start
    usual = statistics.median(seconds for step, seconds in clock.seconds.items() if step not in judged)
    seconds, points = teachers, []
    for outcome in log:
        if outcome.step > 0:
            seconds += usual if outcome.step in judged else clock.seconds[outcome.step]
        if outcome.validation is not None:
            points.append({"step": outcome.step, "seconds": seconds, "balanced_accuracy": outcome.validation})
    return points


def _table(found: dict[str, Any]) -> str:
    lines = [f"{'':10} {'step':>5} {'seconds':>8}  balanced accuracy on validation"]
    for name in ("reference", "ours"):
        lines += [
            f"{name:10} {point['step']:5} {point['seconds']:8.0f}  {100 * point['balanced_accuracy']:.1f}"
            for point in found[name]
        ]
    ratio = "never reached" if found["ratio"] is None else f"reached {found['ratio']:.1f} times as fast"
    return "\n".join([*lines, f"goal {100 * found['goal']:.1f}, {ratio}"])


if __name__ == "__main__":
    main()
