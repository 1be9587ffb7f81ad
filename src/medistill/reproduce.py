"""Whether a package does what its maker measured: train on it again, and lay the figure beside the recorded one.

A receiver has other images than the maker, so equal figures are not to be expected. What is asked is whether the two
could be the same: whether the 95 % intervals of their balanced accuracy, over networks and groups of judged images,
have a point in common. On images of another kind they may differ although everything is honest; then the package is of
less use here, which is worth knowing too.
"""

from dataclasses import dataclass

from medistill.errors import PackageError, SourceError
from medistill.evidence import Row
from medistill.images import LabelledImages
from medistill.jobs import Progress
from medistill.package import Package
from medistill.receive import train_on


@dataclass(frozen=True)
class Reproduction:
    """The recorded row, the one found here, and whether they agree."""

    recorded: Row
    found: Row

    @property
    def agrees(self) -> bool:
        """Whether the intervals of balanced accuracy have a point in common."""
        one, other = self.recorded.balanced_accuracy_interval, self.found.balanced_accuracy_interval
        return max(one.low, other.low) <= min(one.high, other.high)


def reproduce(
    package: Package, judged: LabelledImages, split: str, networks: int, seed: int, processes: int, progress: Progress
) -> Reproduction:
    """Train on a package as it asks to be trained on, and compare with its evidence.

    Args:
        package: a verified package.
        judged: the receiver's labelled images, in the package's shape; classes are matched by name.
        split: what to call them.
        networks: how many networks.
        seed: of their first parameters and their augmentation.
        processes: how many are trained at once.
        progress: told of every image seen.

    Raises:
        PackageError: the package has no evidence to compare with.
        SourceError: the judged images are of other classes than its maker's.
        MatchingError: a network diverged.
    """
    recorded = None if package.utility is None else package.utility.row("distilled")
    if recorded is None:
        raise PackageError(
            f"{package.manifest.name} carries no evidence to compare with. Train on it and judge for yourself: "
            "medistill train."
        )
    counted = zip(package.class_names, judged.in_order_of(package.class_names).counts, strict=True)
    found = {name for name, count in counted if count}
    if found != recorded.sensitivity.keys():
        raise SourceError(
            f"Found images of {', '.join(sorted(found))} to judge on; expected of {', '.join(recorded.sensitivity)}, "
            "over which the recorded figure is a mean. Name another split, or judge for yourself: medistill train."
        )
    received = train_on([package], judged, split, networks, seed, processes, progress)
    return Reproduction(recorded, received.row)
