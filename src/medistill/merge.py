"""Several packages in one: for a receiver who trains on what several hospitals sent.

Classes are matched by name, never by index, through a mapping where hospitals use different words. Everything else that
packages may disagree in is either the same in all (size, channels, network) or said to be mixed: the result lists what
it was made of, and carries no evidence, because nobody has measured it yet.
"""

import csv
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medistill.errors import PackageError
from medistill.package import Package, Provenance, Source, Training, Transform, common_terms, pack
from medistill.package.manifest import validated


@dataclass(frozen=True)
class Pooled:
    """What networks learn from when several packages lie together.

    Attributes:
        class_names: all classes, in the order in which the packages bring them.
        images: intensities, float32 [n, channels, height, width], as they were.
        targets: a probability of every class for each, float32 [n, classes].
        inner_rate: the geometric mean.
        transform: that of all images together, weighted by their number.
        training: the first package's, at the geometric mean of the rates; class offsets count by the number of images.
    """

    class_names: tuple[str, ...]
    images: NDArray[np.float32]
    targets: NDArray[np.float32]
    inner_rate: float
    transform: Transform
    training: Training


def pooled(packages: Sequence[Package], classes: Mapping[str, str] | None = None) -> Pooled:
    """The images of one or more packages together, classes matched by name.

    Args:
        packages: opened ones.
        classes: what a class is called here, by what a package calls it; classes that are left out keep their names.

    Raises:
        PackageError: they differ in shape, network or formation, one comes twice, or a mapped class is in none of them.
    """
    _refuse(packages, classes or {})
    renamed = _renamed(packages, classes or {})
    names = pooled_names(packages, classes)
    targets, offsets = [], np.zeros(len(names))
    for package, own in zip(packages, renamed, strict=True):
        matrix = np.zeros((len(own), len(names)), dtype=np.float32)
        for old, new in enumerate(own):
            matrix[old, names.index(new)] = 1
        targets.append(package.targets @ matrix)
        own_offsets = np.array(package.manifest.training.class_offsets or [0.0] * len(own))
        # Classes of one package that go by one name here have one logit: the mean of what theirs were to gain.
        offsets += len(package.images) * own_offsets @ (matrix / np.maximum(matrix.sum(0), 1))
    counts = np.array([len(package.images) for package in packages])
    training = packages[0].manifest.training.model_copy(
        update={
            "rate": _typical([package.manifest.training.rate for package in packages]),
            "class_offsets": tuple((offsets / counts.sum()).tolist()) if offsets.any() else None,
        }
    )
    return Pooled(
        class_names=names,
        images=np.concatenate([package.images for package in packages]),
        targets=np.concatenate(targets),
        inner_rate=_typical([package.inner_rate for package in packages]),
        transform=_pooled([package.manifest.transform for package in packages], counts / counts.sum()),
        training=training,
    )


def pooled_names(packages: Sequence[Package], classes: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """What the classes of packages are called together, in the order in which they bring them; see `pooled`."""
    return tuple(dict.fromkeys(name for of_one in _renamed(packages, classes or {}) for name in of_one))


def refuse_numbered_classes(packages: Sequence[Package], classes: Mapping[str, str] | None = None) -> None:
    """Refuse to match the classes of several hospitals by their numbers; see `pooled`.

    Raises:
        PackageError: there are several packages, and one has a number for a class name.
    """
    for package, names in zip(packages, _renamed(packages, classes or {}), strict=True):
        if len(packages) > 1 and any(name.isdecimal() for name in names):
            raise PackageError(
                f"{package.manifest.name}: found the class names {', '.join(names)}, with numbers that another "
                "hospital may have given to other diseases; expected words. Where they mean the same in all packages, "
                "say what in a CSV: --map. Otherwise ask their makers to seal them with names."
            )


def _renamed(packages: Sequence[Package], classes: Mapping[str, str]) -> list[list[str]]:
    """What the classes of each package are called here."""
    return [[classes.get(name, name) for name in package.class_names] for package in packages]


def merge(packages: Sequence[Package], path: Path, name: str, classes: Mapping[str, str] | None = None) -> Package:
    """Seal the images of several packages in one, unsigned; see `pooled`.

    What the terms of all packages allow is allowed.

    Args:
        packages: two or more, opened.
        path: the package to write.
        name: what to call it.
        classes: what a class is called in the result, by what a package calls it; classes that are left out keep their
            names.

    Raises:
        PackageError: there are fewer than two, they differ in shape, network or formation, one comes twice, a mapped
            class is in none of them, or one has a number for a class name.
    """
    if len(packages) < 2:
        raise PackageError(f"found {len(packages)} package(s); expected two or more to merge.")
    refuse_numbered_classes(packages, classes)
    found = pooled(packages, classes)
    is_hard = bool(((found.targets == 0) | (found.targets == 1)).all())
    return pack(
        path,
        name=name,
        images=found.images,
        labels=found.targets.argmax(1) if is_hard else found.targets,
        inner_rate=found.inner_rate,
        class_names=found.class_names,
        transform=found.transform,
        training=found.training,
        provenance=_provenance(packages),
        terms=common_terms([package.manifest.terms for package in packages]),
    )


def read_mapping(path: Path) -> dict[str, str]:
    """A mapping of class names from a CSV with the header `from,to`.

    Raises:
        PackageError: the file cannot be read, has another header, or maps a name twice.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            header, *lines = [line for line in csv.reader(stream) if line] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PackageError(f"{path.name} cannot be read as a CSV in UTF-8. Check the file.") from error
    if header != ["from", "to"]:
        raise PackageError(
            f"{path.name}: found the header {','.join(header)!r}; expected from,to. Correct the first line."
        )
    mapping: dict[str, str] = {}
    for line in lines:
        if len(line) != 2 or not all(line) or line[0] in mapping:
            raise PackageError(
                f"{path.name}: found the line {','.join(line)!r}; expected two names, the first of them once. "
                "Correct it."
            )
        mapping[line[0]] = line[1]
    return mapping


def _refuse(packages: Sequence[Package], classes: Mapping[str, str]) -> None:
    if any(_hold_the_same(one, other) for one, other in itertools.combinations(packages, 2)):
        raise PackageError("one set of images comes twice and would count double. Name each once.")
    (first, expected), *others = ((package.manifest.name, _shape(package)) for package in packages)
    for name, shape in others:
        different = [f"{what} ({value} and {shape[what]})" for what, value in expected.items() if shape[what] != value]
        if different:
            raise PackageError(
                f"{first} and {name} differ in {', '.join(different)}. Only packages that are trained on alike can "
                "be merged."
            )
    known = {name for package in packages for name in package.class_names}
    if unknown := sorted(set(classes) - known):
        raise PackageError(
            f"the mapping names {', '.join(unknown)}, which no package has; expected some of "
            f"{', '.join(sorted(known))}."
        )


def _hold_the_same(one: Package, other: Package) -> bool:
    """Whether the images are the same but for how they are stored."""
    if one.images.shape != other.images.shape:
        return False
    rounding = one.manifest.images.error + other.manifest.images.error  # of intensities up to 1
    apart = np.abs(one.images - other.images)
    return bool((apart <= rounding * np.maximum(1, np.abs(one.images)) + 1e-6).all())


def _shape(package: Package) -> dict[str, object]:
    """What packages must agree in."""
    form, training = package.manifest.images, package.manifest.training
    size = {"size": f"{form.width} x {form.height}", "channels": form.channels}
    films = {"formation": training.formation or 1, "enlarging": training.enlarging or "bilinear"}
    return size | films | training.network.model_dump()


def _pooled(transforms: Sequence[Transform], weights: NDArray[np.float64]) -> Transform:
    """Mean and standard deviation of all pixels together; what all agree in stays as it is, to the last bit."""
    if len(set(transforms)) == 1:
        return transforms[0]
    means, stds = (np.array([getattr(each, key) for each in transforms]) for key in ("mean", "std"))
    mean = weights @ means
    variance = weights @ (stds**2 + (means - mean) ** 2)
    pooled = {"mean": tuple(mean.tolist()), "std": tuple(np.sqrt(variance).tolist())}
    return validated(Transform, pooled, "transform")


def _typical(rates: Sequence[float]) -> float:
    """The geometric mean; what all agree in stays as it is, to the last bit."""
    return rates[0] if len(set(rates)) == 1 else math.exp(sum(map(math.log, rates)) / len(rates))


def _provenance(packages: Sequence[Package]) -> Provenance:
    made = [package.manifest.provenance for package in packages]
    starts, methods = {each.start for each in made}, sorted({each.method for each in made})
    sources = tuple(
        Source(
            name=package.manifest.name,
            package_id=package.manifest.package_id,
            signer=package.manifest.signer,
            method=package.manifest.provenance.method,
        )
        for package in packages
    )
    said = {
        "method": f"merged: {', '.join(methods)}"[:200].rstrip(),
        "start": starts.pop() if len(starts) == 1 else "unknown",
        "leaks_real_images": any(each.leaks_real_images for each in made),
        "software": {},
        "sources": sources,
    }
    return validated(Provenance, said, "provenance")
