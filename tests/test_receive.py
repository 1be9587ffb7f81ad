from pathlib import Path

import numpy as np
import pytest

import toys
from medistill.errors import SourceError
from medistill.jobs import Silence
from medistill.package import Package, Provenance, Training, open_package, pack
from medistill.receive import train_on
from medistill.recipe import AugmentSettings, NetworkSettings


@pytest.fixture
def package(tmp_path: Path) -> Package:
    """A package whose images are toy films, so that training on it must work."""
    films = toys.films((10, 10), seed=7)
    pack(
        tmp_path / "toy.medistill",
        name="toy",
        images=np.divide(films.pixels, 255, dtype=np.float32),
        labels=films.labels,
        inner_rate=0.1,
        class_names=films.class_names,
        transform=toys.TRANSFORM,
        training=Training(
            network=NetworkSettings(width=8, depth=2),
            steps=60,
            rate=0.05,
            momentum=0.9,
            weight_decay=0.0,
            schedule="cosine",
            augment=AugmentSettings(**{name.removeprefix("augment."): 0 for name in toys.NO_AUGMENT}),
            inner_rate_learned=False,
        ),
        provenance=Provenance(method="not distilled here", start="unknown", leaks_real_images=True, software={}),
    )
    return open_package(tmp_path / "toy.medistill", allow_unsigned=True)


def test_networks_trained_on_a_package_recognize_the_receivers_images(package: Package) -> None:
    row = train_on(package, toys.films((20, 20), seed=8), "ours", 2, 0, 1, Silence())
    assert row.balanced_accuracy.mean > 0.9
    assert (row.split, row.images, row.labels, row.rate, row.accuracy.n) == ("ours", 20, "hard", 0.05, 2)


def test_classes_are_matched_by_name_and_not_by_index(package: Package) -> None:
    films = toys.films((20, 20), seed=8)
    swapped = toys.LabelledImages(films.pixels, 1 - films.labels, films.class_names[::-1])
    straight = train_on(package, films, "ours", 1, 0, 1, Silence())
    assert train_on(package, swapped, "ours", 1, 0, 1, Silence()).accuracy == straight.accuracy


def test_a_class_that_the_package_does_not_know_is_refused_by_name(package: Package) -> None:
    films = toys.films((3, 3))
    strange = toys.LabelledImages(films.pixels, films.labels, ("class 0", "fracture"))
    with pytest.raises(SourceError, match="fracture"):
        train_on(package, strange, "ours", 1, 0, 1, Silence())


def test_the_receivers_figure_does_not_depend_on_the_number_of_processes(package: Package) -> None:
    films = toys.films((20, 20), seed=8)
    assert train_on(package, films, "ours", 2, 0, 1, Silence()) == train_on(package, films, "ours", 2, 0, 2, Silence())
