"""What was measured, on what, how often.

One record type serves everything that judges a set, so that a table from the maker and a table from the receiver
can be laid side by side. All figures lie between 0 and 1.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict

Labels = Literal["hard", "soft"]


class Record(BaseModel):
    """A frozen record that refuses unknown keys and values that are not numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Figure(Record):
    """A mean over `n` independent networks with its sample standard deviation (0 when n is 1)."""

    mean: float
    sd: float
    n: int

    @classmethod
    def of(cls, values: ArrayLike) -> "Figure":
        """Summarize one value a network."""
        numbers = np.asarray(values, dtype=np.float64)
        spread = float(numbers.std(ddof=1)) if numbers.size > 1 else 0.0
        return cls(mean=float(numbers.mean()), sd=spread, n=int(numbers.size))

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} ± {100 * self.sd:.1f}"


class Interval(Record):
    """A 95 % bootstrap interval over networks and over the groups (patients) of the judged images."""

    low: float
    high: float


class Row(Record):
    """How networks trained on one training set did on one split of real images.

    `images` is the number of training images, `labels` whether they carry one class or a probability for each,
    `rate` the learning rate that the search on validation chose (absent for the majority class).
    """

    name: str
    architecture: str
    split: str
    images: int
    labels: Labels
    rate: float | None
    accuracy: Figure
    balanced_accuracy: Figure
    auc: Figure
    macro_f1: Figure
    calibration_error: Figure
    balanced_accuracy_interval: Interval
    sensitivity: dict[str, Figure]
    specificity: dict[str, Figure]
    same_as: str | None = None


class Utility(Record):
    """The evidence of use that travels in a package: rows, and the circumstances that make them readable."""

    split: str
    judged_images: int
    selection: str
    test_reads: int
    data_fingerprint: str
    recipe_digest: str
    software: dict[str, str]
    notes: tuple[str, ...]
    rows: tuple[Row, ...]

    def row(self, name: str) -> Row | None:
        """The row of that name, if there is one."""
        return next((row for row in self.rows if row.name == name), None)
