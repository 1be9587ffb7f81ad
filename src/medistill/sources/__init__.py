"""Real images, wherever they lie: a folder, a zip, a CSV, a MedMNIST file, or phantoms drawn on the spot.

Every reader looks at one kind of place and returns what it found (`found.Found`): images of any size, one class each,
in the splits that the source has. From there one path leads to what a run needs (`read_source`): three splits of one
shape. A split that is missing is cut off the training images by the same draw for every recipe, so that two runs with
different seeds are judged on the same images and no seed can be picked for its test set.

`inspect_source` looks at the same images without holding them, and says what a person should know before a run.
"""

from dataclasses import replace

from medistill.errors import SourceError
from medistill.images import LabelledImages, Splits, cut, joined
from medistill.recipe import SourceSettings
from medistill.sources.found import ALL, SPLITS, Found
from medistill.sources.inspection import Inspection, inspect_source
from medistill.sources.opening import open_source, split_off

__all__ = ["Inspection", "inspect_source", "read_judged", "read_part", "read_source"]

_CUT_SEED = 0
"""Fixed on purpose: which images are tested on must not depend on a recipe's seed."""


def read_source(settings: SourceSettings) -> Splits:
    """Read train, validation and test, cutting off train what the source does not have.

    A missing test split takes `test_fraction` of every class, a missing validation split `validation_fraction` of what
    then remains; whole groups at a time where groups are known. A source without splits is all training images to
    begin with, and so is the one split that `path#split` names. `notes` of the result say in whole sentences what was
    cut, left out or empty.

    Args:
        settings: where the images are and in which shape they are wanted.

    Raises:
        SourceError: the source cannot be read, images differ in size and `image_size` is not set, there are no
            training images, or a class has none.
    """
    if settings.path is None:
        raise SourceError(
            "The recipe names no images. Set source.path to a folder, a .zip, .csv or .npz file, or to the word "
            "phantom."
        )
    found = open_source(settings.path, settings.image_size, settings.channels)
    _, asked_split = split_off(settings.path)
    base = "train" if "train" in found.parts else ALL if asked_split is None else next(iter(found.parts))
    if base not in found.parts:
        raise SourceError(
            f"{found.name}: found only the splits {', '.join(found.parts)}; expected train among them. "
            "Name the training images train."
        )
    used = [name for name in (base, *SPLITS[1:]) if name in found.parts]
    parts = found.labelled(used, settings.image_size, settings.channels)
    train = parts.pop(base)
    for class_name, count in zip(train.class_names, train.counts, strict=True):
        if not count:
            raise SourceError(
                f"{found.name}: found no training image of class {class_name}; expected some of every class. "
                "Add images or remove the class from the other splits."
            )
    notes = [*found.notes, *_unused(found, used)]
    if not found.named:
        notes.append("The source has no class names, so classes go by their numbers, which mean nothing elsewhere.")
    for name, fraction in (("test", settings.test_fraction), ("validation", settings.validation_fraction)):
        if name not in parts:
            train, parts[name] = cut(train, fraction, _CUT_SEED)
            notes.append(
                f"The source has no {name} split: {len(parts[name]):,} training images ({100 * fraction:g} % of every "
                "class) were set aside for it, the same ones for every seed."
            )
        empty = [label for label, count in zip(train.class_names, parts[name].counts, strict=True) if not count]
        if empty:
            notes.append(f"The {name} split has no image of {', '.join(empty)}: nothing is measured for it there.")
    splits = Splits(train, parts["validation"], parts["test"], tuple(notes))
    return replace(splits, notes=(*notes, *_crossing(splits)))


def read_part(source: str, size: int | None, channels: int, default: str | None = None) -> LabelledImages:
    """Read one split, written `path#split`, or all images of a source where no split is named.

    This is how a receiver names their own images: `ours.npz#test`, `films#val`, `phantom#test`, `films.zip`.

    Args:
        source: the path and the split.
        size: height and width of the result in pixels, or None to keep the one size that all images have.
        channels: 1 or 3.
        default: the split to take where none is named and the source has it; None takes all images.

    Raises:
        SourceError: the source cannot be read or has no such split.
    """
    images, _ = _read(source, size, channels, default)
    return images


def read_judged(source: str, size: int | None, channels: int) -> tuple[LabelledImages, str]:
    """Read what networks are judged on, and say what it is called: the split that is named, otherwise `test` where the
    source has it, otherwise all images.

    Args:
        source: the path and the split, see `read_part`.
        size: height and width of the result in pixels, or None to keep the one size that all images have.
        channels: 1 or 3.

    Raises:
        SourceError: the source cannot be read or has no such split.
    """
    images, splits = _read(source, size, channels, "test")
    return images, splits[0] if len(splits) == 1 else ALL


def _read(source: str, size: int | None, channels: int, default: str | None) -> tuple[LabelledImages, list[str]]:
    """The images that `read_part` promises, and the splits that they are of."""
    found = open_source(source, size, channels)
    chosen = [default] if default in found.parts else list(found.parts)
    return joined(list(found.labelled(chosen, size, channels).values())), chosen


def _crossing(splits: Splits) -> list[str]:
    """A sentence where a patient has images on both sides of a cut that the source itself made."""
    groups = [set() if part.groups is None else set(part.groups.tolist()) for part in splits.parts.values()]
    shared = (groups[0] & groups[1]) | (groups[0] & groups[2]) | (groups[1] & groups[2])
    if not shared:
        return []
    return [f"{len(shared):,} patients or groups have images in more than one split, which flatters every figure."]


def _unused(found: Found, used: list[str]) -> list[str]:
    """How many splits the run leaves alone: not their names, which others gave and which would travel in packages."""
    left = len(found.parts.keys() - set(used))
    return [f"{left} of the source's splits not used: a run uses train, val and test."] if left else []
