"""Everything about a GPU in one table a question: one command, under ten minutes.

1. The founding setting (112 px, depth 5, 80 images, 20 student steps): milliseconds an outer step, the rate of its
   convolutions, and that as a share of the rate of one large bfloat16 matrix product on the same card.
2. Cases a, b and c of `benchmarks.gradient`: every variant against the eager float32 reference.
3. Training: images a second of the plain loop and of the project's, by precision and by networks trained at once.

Shares are of what this card was measured to do a moment before, never of a data sheet.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --json
"""

import argparse
import functools
import json
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.clock import seconds_of
from benchmarks.gradient import (
    CASES,
    FORWARD_PASSES,
    FREE,
    Problem,
    Variant,
    compared,
    convolutions,
    peak_bytes,
    print_table,
    variants_on,
)
from benchmarks.training import print_rates, training_rates

FOUNDING = FREE | {"size": 112, "width": 128, "depth": 5, "batch": 80, "steps": 20}
TRAINING = {"channels": 1, "size": 112, "classes": 4, "width": 128, "depth": 5, "batch": 256, "images": 2048}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the tables or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        raise SystemExit("torch finds no GPU here: this benchmark measures nothing without one.")
    product_rate, bandwidth = _matrix_product_rate(), _bandwidth()
    founding = _founding(options.repeats, product_rate)
    if not options.json:
        print(f"{torch.cuda.get_device_name()}: bfloat16 products {product_rate / 1e12:.0f} TFLOP/s, ", end="")
        print(f"memory {bandwidth / 1e12:.2f} TB/s")
        print("\nfounding setting: " + " ".join(f"{name} {value}" for name, value in FOUNDING.items()))
        print("\n".join(_founding_line(row) for row in founding), flush=True)
    cases = {}
    for name, case in CASES.items():
        cases[name] = compared(FREE | case, options.repeats, "cuda")
        if not options.json:
            print(f"\ncase {name}")
            print_table(cases[name])
            sys.stdout.flush()  # a lent card may be taken back before the last table
    training, spreads = training_rates(TRAINING, options.repeats, "cuda")
    if options.json:
        card = {"name": torch.cuda.get_device_name(), "bfloat16_flops": product_rate, "bytes_per_second": bandwidth}
        print(json.dumps({"card": card, "founding": founding, "cases": cases, "training": training}, indent=2))
        return
    print("\ntraining: " + " ".join(f"{name} {value}" for name, value in TRAINING.items()))
    print_rates(training, spreads)


def _founding_line(row: dict[str, Any]) -> str:
    named = f"{row['name']:18} {row['precision']:14} {row['mode']:11}"
    if row["seconds"] is None:
        return f"{named} does not fit"
    share = 100 * row["share_of_product_rate"]
    return (
        f"{named} {1e3 * row['seconds']:8.0f} ms {row['peak_bytes'] / 1e9:6.2f} GB {share:5.1f} % of the product rate"
    )


def _founding(repeats: int, product_rate: float) -> list[dict[str, Any]]:
    problem, rows = Problem(FOUNDING, "cuda"), []
    work, _ = convolutions(problem)
    for variant in variants_on("cuda"):
        passes = FORWARD_PASSES.get(variant.mode, FORWARD_PASSES["kept"])
        row: dict[str, Any] = {**variant._asdict(), "seconds": None}
        try:
            row["seconds"] = _median_seconds(problem, variant, repeats)
            row["peak_bytes"] = peak_bytes(FOUNDING, variant, "cuda")
            row["share_of_product_rate"] = passes * work * problem.steps / row["seconds"] / product_rate
        except torch.OutOfMemoryError:
            pass
        torch.cuda.empty_cache()
        rows.append(row)
    return rows


def _median_seconds(problem: Problem, variant: Variant, repeats: int) -> float:
    step = functools.partial(variant.gradient, problem)
    return statistics.median([seconds_of(step, "cuda") for _ in range(repeats + 1)][1:])


def _matrix_product_rate() -> float:
    """Floating-point operations a second of one large product in bfloat16."""
    side = 8192
    a, b = (torch.randn(side, side, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2.0 * side**3 / statistics.median([seconds_of(lambda: a @ b, "cuda") for _ in range(10)][1:])


def _bandwidth() -> float:
    """Bytes a second that one large copy reads and writes."""
    block = torch.empty(2**30, device="cuda", dtype=torch.uint8)
    other = torch.empty_like(block)
    return 2.0 * block.nbytes / statistics.median([seconds_of(lambda: other.copy_(block), "cuda") for _ in range(10)])


if __name__ == "__main__":
    main()
