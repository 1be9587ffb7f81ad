"""What images take to send: those that a receiver trains on, and beside them the real ones that stay where they are."""

from collections.abc import Mapping, Sequence

from medistill.evidence import Compared, Cost
from medistill.images import png_bytes
from medistill.pipeline import Run
from medistill.report.charts import sent
from medistill.sources.opening import PHANTOM, files_of

BANDWIDTHS = {"1 Mbit/s": 1e6, "10 Mbit/s": 1e7, "100 Mbit/s": 1e8}
"""Lines on which times are told, in bits a second."""

_MEASURE = "training images as PNG files"


def original_bytes(opened: Run) -> dict[str, int]:
    """The training images at the recipe's size, as PNG files and as they are in memory; the source's files on disk."""
    pixels = opened.splits.train.pixels
    found = {_MEASURE: png_bytes(pixels), "training images, 8 bits a value": pixels.nbytes}
    if files := files_of(opened.recipe.source.path or PHANTOM):
        found["source files, all splits"] = sum(file.stat().st_size for file in files)
    return found


def costs(rows: Sequence[Compared], originals: Mapping[str, int]) -> tuple[Cost, ...]:
    """What the images of every row take whose networks need nothing but those, and after them the real ones.

    Args:
        rows: of any budget.
        originals: what `original_bytes` found.
    """
    whole = originals[_MEASURE]
    received = [_cost(row.name, row.sent_bytes, whole, row.images, row.train_seconds) for row in sent(rows)]
    return (*received, *(_cost(name, size, whole) for name, size in originals.items()))


def _cost(name: str, size: int, whole: int, images: int | None = None, train_seconds: float | None = None) -> Cost:
    return Cost(
        name=name,
        images=images,
        size_bytes=size,
        share=size / whole,
        transmission_seconds={line: 8 * size / bits for line, bits in BANDWIDTHS.items()},
        train_seconds=train_seconds,
    )
