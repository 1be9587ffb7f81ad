"""What was measured, on what, how often.

One record type serves everything that judges a set, so that a table from the maker and a table from the receiver
can be laid side by side. All figures lie between 0 and 1.
"""

from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, model_validator

Labels = Literal["hard", "soft"]
Protocol = Literal["budget", "unlabelled", "full"]
Help = Literal["alone", "package", "packages", "pooled", "federated"]
Scenario = Literal["natural", "skewed", "shifted"]

_ROUNDING = 1e-9
Share = Annotated[float, Field(ge=-_ROUNDING, le=1 + _ROUNDING)]
Apart = Annotated[float, Field(ge=-1 - _ROUNDING, le=1 + _ROUNDING)]
Whole = Annotated[int, Field(ge=0)]


class Record(BaseModel):
    """A frozen record that refuses unknown keys and values that are not numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Figure(Record):
    """A mean over `n` networks with its sample standard deviation (0 when n is 1).

    Where there are several seeds, the networks of one share their images: their spread is not that of independent sets.
    """

    mean: Share
    sd: Share
    n: Annotated[Whole, Field(ge=1)]

    @classmethod
    def of(cls, values: ArrayLike) -> "Figure":
        """Summarize one value a network."""
        numbers = np.asarray(values, dtype=np.float64)
        spread = float(numbers.std(ddof=1)) if numbers.size > 1 else 0.0
        return cls(mean=float(numbers.mean()), sd=spread, n=int(numbers.size))

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} ± {100 * self.sd:.1f}"


class _Ordered(Record):
    low: float
    high: float

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError("low must not be above high")
        return self


class Interval(_Ordered):
    """A 95 % interval of a share: over the groups (patients) of the judged images by a bootstrap, and over repetitions
    by Student's t (ADR 19). Of a single one it is over its networks and knows nothing of the next."""

    low: Share
    high: Share


class Difference(_Ordered):
    """The same of how far one share lies above another, both from the same draws."""

    low: Apart
    high: Apart


class Row(Record):
    """How networks trained on one training set did on one split of real images.

    `images` is the number of training images, `labels` whether they carry one class or a probability for each,
    `rate` the learning rate that the search on validation chose (absent for the majority class, and where networks of
    several seeds chose several). `harmonic_mean` is that of each class's sensitivity and specificity, averaged over the
    classes.
    """

    name: str
    architecture: str
    split: str
    images: Whole
    labels: Labels
    rate: Annotated[float, Field(gt=0)] | None
    accuracy: Figure
    balanced_accuracy: Figure
    auc: Figure
    macro_f1: Figure
    calibration_error: Figure
    balanced_accuracy_interval: Interval
    sensitivity: dict[str, Figure]
    specificity: dict[str, Figure]
    same_as: str | None = None
    harmonic_mean: Figure | None = None


class Utility(Record):
    """The evidence of use that travels in a package: rows, and the circumstances that make them readable."""

    split: str
    judged_images: Whole
    selection: str
    test_reads: Whole
    data_fingerprint: str
    recipe_digest: str
    software: dict[str, str]
    notes: tuple[str, ...]
    rows: Annotated[tuple[Row, ...], Field(min_length=1, max_length=1000)]

    def row(self, name: str) -> Row | None:
        """The row of that name, if there is one."""
        return next((row for row in self.rows if row.name == name), None)


class Detail(Record):
    """What stands behind a row, averaged over its networks.

    `confusion` has a line for each true class, in the order of `classes`: the share of its images taken for each class.
    `roc` is the true positive rate at 0, 1, ... 100 % false positives, one class against the rest, averaged over the
    classes. `calibration` has mean confidence, accuracy and share of images for each filled bin of confidence.
    """

    confusion: tuple[tuple[float, ...], ...]
    roc: tuple[float, ...]
    calibration: tuple[tuple[float, float, float], ...]


class Intervals(Record):
    """The intervals of a row's figures besides that of balanced accuracy, from the same draws.

    `sensitivity` and `specificity` are by class. `auc` is over repetitions alone, by Student's t, and so knows nothing
    of other images; None of a single repetition.
    """

    accuracy: Interval
    harmonic_mean: Interval
    sensitivity: dict[str, Interval]
    specificity: dict[str, Interval]
    auc: Interval | None


class Compared(Row):
    """A row of a comparison of methods.

    `protocol` says what the networks may have seen: `budget` a few images a class (and transfer what its name says),
    `unlabelled` all images but the labels of a few a class, `full` all images with their labels (None: no images, the
    commonest class). `ipc` is how many images a class had labels, None where that was every image. `sent_bytes` is what
    the images take to send, as PNG files or as sealed; `train_seconds` is the wall time of training one network on them
    while others trained beside it. `above` is how far the row lies above that of `Comparison.against` on the same
    network, at the same budget or of all images, image by image and repetition by repetition; None where there is no
    such row.
    """

    protocol: Protocol | None
    ipc: int | None
    sent_bytes: int
    train_seconds: float
    above: Difference | None
    detail: Detail
    intervals: Intervals


class Pretrained(Record):
    """How an encoder came about: the losses of its first and last epoch, and its features' spread (0 is collapse)."""

    method: str
    architecture: str
    protocol: Protocol
    images: int
    seed: int
    steps: int
    first_loss: float
    last_loss: float
    spread: float


class Cost(Record):
    """What images take to send.

    `share` is how much that is beside all training images as PNG files: 1 is as much, and a package can be larger.
    `transmission_seconds` has the time on each line. The real images of which nobody needs to send any have neither
    `images` nor `train_seconds`, the wall time of training one network.
    """

    name: str
    images: int | None
    size_bytes: Whole
    share: float
    transmission_seconds: dict[str, float]
    train_seconds: float | None


class Comparison(Record):
    """Methods side by side on the same images, networks and rates; `seeds` repetitions of everything.

    `against` names the row that the others are held against, `costs` has the rows whose networks need nothing but what
    is sent and then the real images, `machines` is what computed the rows.
    """

    title: str
    split: str
    judged_images: int
    classes: tuple[str, ...]
    ipcs: tuple[int, ...]
    seeds: tuple[int, ...]
    selection: str
    test_reads: int
    data_fingerprint: str
    recipe_digest: str
    software: dict[str, str]
    machines: tuple[str, ...]
    against: str
    notes: tuple[str, ...]
    rows: tuple[Compared, ...]
    costs: tuple[Cost, ...]
    pretrained: tuple[Pretrained, ...]

    @property
    def rows_with_most(self) -> list[Compared]:
        """The rows of the most images a class that were asked for, and those of all images."""
        wanted = (max(self.ipcs), None)
        return [row for row in self.rows if row.ipc in wanted]


class Worth(Record):
    """How many own images a class, alone, do as well: a number between 0 and `most`, with its 95 % interval.

    `most` itself means that no number that was tried is enough.
    """

    images: float
    low: float
    high: float
    most: int


class Helped(Row):
    """How a hospital with few images did with some help.

    `help` says with what: nobody's (`alone`), the package of hospital A, the packages of A and C, their real images
    (`pooled`), or a network trained by all three (`federated`, in so many `rounds`). `own` is how many images a class
    the hospital brought itself, `sent_bytes` what had to be sent for the help, in all directions.
    """

    scenario: Scenario
    help: Help
    own: int
    rounds: int | None
    sent_bytes: int
    worth: Worth | None


class Sharing(Record):
    """How the images of a study lie: hospital by hospital, the training images of each class, of the last seed."""

    scenario: Scenario
    counts: dict[str, dict[str, int]]


class Study(Record):
    """What sharing is worth to a small hospital; `seeds` repetitions of everything, `networks` networks each.

    `patients_apart` is whether it is known that no patient's images lie in two hospitals.
    """

    title: str
    split: str
    patients_apart: bool
    judged_images: dict[Scenario, int]
    classes: tuple[str, ...]
    ipc: int
    seeds: tuple[int, ...]
    networks: int
    rate: float
    test_reads: int
    data_fingerprint: str
    recipe_digest: str
    software: dict[str, str]
    notes: tuple[str, ...]
    sharing: tuple[Sharing, ...]
    rows: tuple[Helped, ...]
