"""What a person should know about their images before a run.

Half of what goes wrong in a published result is decided here: the same film in training and in test, one patient on
both sides, a class of eleven images. Each finding is a number in a record and, where it matters, a sentence that says
what to do. Images are looked at one by one, so that a source of any size can be inspected.

Source: the list of findings follows Kapoor & Narayanan, "Leakage and the reproducibility crisis in machine-learning-
based science", Patterns 2023, sections L1 and L3.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from medistill.evidence import Record
from medistill.sources.found import ALL, SPLITS, Found, sizes_in_words
from medistill.sources.opening import open_source

IMBALANCE = 5.0
"""Above this ratio of the largest to the smallest class, accuracy alone misleads."""

SMALL_CLASS = 20
"""Below this many images in a split, a class's figures are rough: one image is over 5 %."""

DARK = 64
"""If no pixel of any image reaches this value, of 255, bits were lost on the way."""


class Inspection(Record):
    """What a source holds, and what to heed about it; no part of it tells a path beyond the file's own name.

    Attributes:
        name: the file's or folder's own name.
        kind: phantom, folder, zip, csv or npz.
        counts: images by split, then by class.
        sizes: images by width x height, the most common first.
        channels: the numbers of channels that occur (1 grey, 3 color).
        class_names: the classes in the order of their indices.
        named: False where the source gives numbers only.
        groups: how many groups (patients) there are, or None where they are unknown.
        groups_across: groups with images in more than one split.
        duplicates_within: by split, images that repeat another of the same split pixel for pixel.
        duplicates_across: different images that occur in more than one split.
        two_labels: different images that occur under more than one class.
        constant: images of a single shade.
        warnings: what to heed, in whole sentences.
        notes: how the source was read, in whole sentences.
        fingerprint: SHA-256 over the pixels, labels, groups and splits as they are in the source, before any resizing
            or cutting (which is what `Splits.fingerprint` covers).
    """

    name: str
    kind: str
    counts: dict[str, dict[str, int]]
    sizes: dict[str, int]
    channels: tuple[int, ...]
    class_names: tuple[str, ...]
    named: bool
    groups: int | None
    groups_across: int
    duplicates_within: dict[str, int]
    duplicates_across: int
    two_labels: int
    constant: int
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    fingerprint: str


def inspect_source(path: str) -> Inspection:
    """Look at every image of a source and say what it holds and what to heed.

    Args:
        path: a folder, a .zip, .csv or .npz file, or the word `phantom`; `path#split` looks at one split alone.

    Raises:
        SourceError: the source, or one of its images, cannot be read.
    """
    found = open_source(path)
    seen = _look(found)
    across = [key for key, splits in seen.splits_of.items() if len(splits) > 1]
    groups_in = {name: set(part.groups.tolist()) for name, part in found.parts.items() if part.groups is not None}
    group_splits = Counter(group for groups in groups_in.values() for group in groups)
    inspection = Inspection(
        name=found.name,
        kind=found.kind,
        counts={name: _counts(found, name) for name in found.parts},
        sizes={f"{width}x{height}": count for (width, height), count in seen.sizes.most_common()},
        channels=tuple(sorted(seen.channels)),
        class_names=found.class_names,
        named=found.named,
        groups=len(group_splits) if groups_in else None,
        groups_across=sum(count > 1 for count in group_splits.values()),
        duplicates_within={name: seen.repeats[name] for name in found.parts},
        duplicates_across=len(across),
        two_labels=sum(len(labels) > 1 for labels in seen.labels_of.values()),
        constant=seen.constant,
        warnings=(),
        notes=found.notes,
        fingerprint=seen.fingerprint,
    )
    warnings = (*_splits_and_classes(inspection), *_leakage(inspection), *_pictures(inspection, seen))
    return inspection.model_copy(update={"warnings": warnings})


@dataclass
class _Seen:
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    channels: set[int] = field(default_factory=set)
    repeats: Counter[str] = field(default_factory=Counter)
    splits_of: dict[bytes, set[str]] = field(default_factory=dict)
    labels_of: dict[bytes, set[int]] = field(default_factory=dict)
    constant: int = 0
    brightest: int = 0
    fingerprint: str = ""


def _look(found: Found) -> _Seen:
    seen = _Seen()
    whole = hashlib.sha256(repr((found.class_names, list(found.parts))).encode())
    for split, part in found.parts.items():
        groups = part.groups if part.groups is not None else np.full(len(part.labels), "")
        for image, label, group in zip(part.images, part.labels.tolist(), groups.tolist(), strict=True):
            channels, height, width = image.shape
            key = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()
            whole.update(key + repr((split, label, group)).encode())
            seen.sizes[width, height] += 1
            seen.channels.add(channels)
            splits = seen.splits_of.setdefault(key, set())
            seen.repeats[split] += split in splits
            splits.add(split)
            seen.labels_of.setdefault(key, set()).add(label)
            darkest, brightest = int(image.min()), int(image.max())
            seen.constant += darkest == brightest
            seen.brightest = max(seen.brightest, brightest)
    seen.fingerprint = whole.hexdigest()
    return seen


def _counts(found: Found, split: str) -> dict[str, int]:
    counts = np.bincount(found.parts[split].labels, minlength=len(found.class_names))
    return dict(zip(found.class_names, counts.tolist(), strict=True))


def _splits_and_classes(inspection: Inspection) -> list[str]:
    found = []
    counts, splits = inspection.counts, list(inspection.counts)
    base = "train" if "train" in counts else ALL
    if base not in counts:
        found.append(f"There are no training images, only {', '.join(splits)}: name the training images train.")
    missing = [name for name in SPLITS[1:] if name not in counts]
    if missing:
        found.append(
            f"There is no {' and no '.join(missing)} split: a run sets training images aside instead "
            f"({' and '.join(f'source.{name}_fraction' for name in missing)} of every class)."
        )
    unused = [name for name in splits if name not in (*SPLITS, base)]
    if unused:
        found.append(f"The images of {', '.join(unused)} are not used by a run, which uses train, val and test.")
    for split, classes in counts.items():
        small = [f"{name} ({count})" for name, count in classes.items() if count < SMALL_CLASS]
        if small:
            found.append(
                f"Fewer than {SMALL_CLASS} images of {', '.join(small)} in {split}: what is learned or measured there "
                "is rough. Add images or merge classes."
            )
    classes = counts.get(base, {})
    ranked = sorted((count, name) for name, count in classes.items() if count)
    if ranked and ranked[-1][0] > IMBALANCE * ranked[0][0]:
        (few, rare), (many, common) = ranked[0], ranked[-1]
        found.append(
            f"Class {common} has {many / few:.1f} times as many training images as class {rare} "
            f"({many:,} and {few:,}): judge by balanced accuracy, because always answering the largest class would "
            "look good in plain accuracy."
        )
    if not inspection.named:
        numbers = f"{', '.join(inspection.class_names[:4])}{', ...' if len(inspection.class_names) > 4 else ''}"
        found.append(
            f"The classes have no names, only the numbers {numbers}: find out what they mean and add it (to an .npz as "
            "an array class_names) before sharing anything."
        )
    return found


def _leakage(inspection: Inspection) -> list[str]:
    found = []
    if inspection.groups is None:
        found.append(
            "It is not known which images belong to the same patient, so one patient may be in training and in test, "
            "which flatters every figure. A CSV with a group column tells."
        )
    if inspection.groups_across:
        found.append(
            f"Groups (patients) with images in more than one split: {inspection.groups_across:,}, which flatters every "
            "figure. Move each to one split."
        )
    if inspection.duplicates_across:
        found.append(
            f"Images that are in more than one split: {inspection.duplicates_across:,}. A network would be tested on "
            "what it was trained on (leakage). Remove them from test and validation first."
        )
    within = {name: count for name, count in inspection.duplicates_within.items() if count}
    if within:
        where = ", ".join(f"{count:,} in {name}" for name, count in within.items())
        found.append(
            f"Images that repeat another of the same split exactly: {where}. They count double. Remove the copies."
        )
    if inspection.two_labels:
        found.append(
            f"Images that are there under two classes: {inspection.two_labels:,}. One label of each must be wrong: "
            "have them looked at."
        )
    return found


def _pictures(inspection: Inspection, seen: _Seen) -> list[str]:
    found = []
    if len(seen.sizes) > 1:
        found.append(
            f"The images differ in size: {sizes_in_words(seen.sizes)}. Set source.image_size (for instance 64), to "
            "which every image is then brought."
        )
    skewed = sum(count for (width, height), count in seen.sizes.items() if width != height)
    if skewed:
        found.append(f"Images that are not square: {skewed:,}. A run squeezes them and crops nothing.")
    if len(seen.channels) > 1:
        found.append("Some images are grey and some in color: a run brings all of them to source.channels.")
    if inspection.constant:
        found.append(
            f"Images of one even shade: {inspection.constant:,}, perhaps blank or failed exports. Remove them."
        )
    if seen.brightest < DARK:
        found.append(
            "No image uses more than a quarter of the brightness range, as when 12-bit films are saved in 16-bit "
            "files: stretch them to the full range when exporting, or shades are lost."
        )
    return found
