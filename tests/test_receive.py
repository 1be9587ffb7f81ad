from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import toys
from medistill.errors import PackageError, RecipeError, SourceError
from medistill.evaluate import small_arm
from medistill.images import LabelledImages
from medistill.jobs import Silence
from medistill.merge import pooled
from medistill.networks import BatchNormNetwork
from medistill.package import Package, open_package, pack
from medistill.receive import train_on
from medistill.recipe import AugmentSettings, NetworkSettings
from medistill.train import TrainingSet
from samples import contents


@pytest.fixture
def package(tmp_path: Path) -> Package:
    """A package whose images are toy films, so that training on it must work."""
    return packed(tmp_path, toys.films((10, 10), seed=7))


def packed(folder: Path, films: LabelledImages) -> Package:
    """A package of these very films."""
    training = contents()["training"].model_copy(
        update={
            "network": NetworkSettings(width=8, depth=2),
            "steps": 60,
            "rate": 0.05,
            "schedule": "cosine",
            "augment": AugmentSettings(**{name.removeprefix("augment."): 0 for name in toys.NO_AUGMENT}),
        }
    )
    held = contents(
        images=np.divide(films.pixels, 255, dtype=np.float32),
        labels=films.labels,
        class_names=films.class_names,
        transform=toys.TRANSFORM,
        training=training,
    )
    pack(folder / "toy.medistill", **held)
    return open_package(folder / "toy.medistill", allow_unsigned=True)


def test_networks_trained_on_a_package_recognize_the_receivers_images(package: Package) -> None:
    row = train_on([package], toys.films((20, 20), seed=8), "ours", 2, 0, 1, Silence()).row
    assert row.balanced_accuracy.mean > 0.9
    assert (row.split, row.images, row.labels, row.rate, row.accuracy.n) == ("ours", 20, "hard", 0.05, 2)


def test_networks_refuse_packages_of_images_that_are_not_square(tmp_path: Path) -> None:
    films = toys.films((10, 10), seed=7)
    wide = packed(tmp_path, replace(films, pixels=films.pixels[:, :, ::2]))
    with pytest.raises(PackageError, match="Found images of 4 x 8; expected square ones"):
        train_on([wide], films, "ours", 1, 0, 1, Silence())


def test_networks_are_moved_by_the_offsets_that_a_package_states(package: Package) -> None:
    def trained(offsets: tuple[float, ...] | None) -> np.ndarray:
        training = package.manifest.training.model_copy(update={"class_offsets": offsets})
        stated = replace(package, manifest=package.manifest.model_copy(update={"training": training}))
        return train_on([stated], toys.films((20, 20), seed=8), "ours", 1, 0, 1, Silence()).params.numpy()

    moved = trained((0.75, -0.75)) - trained(None)
    assert moved[-2:] == pytest.approx([0.75, -0.75])
    assert not moved[:-2].any()


def test_a_receiver_is_told_what_the_same_networks_do_without_offsets(package: Package) -> None:
    training = package.manifest.training.model_copy(update={"class_offsets": (9.0, -9.0)})
    stated = replace(package, manifest=package.manifest.model_copy(update={"training": training}))
    judged = toys.films((20, 20), seed=8)
    plain = train_on([package], judged, "ours", 2, 0, 1, Silence())
    found = train_on([stated], judged, "ours", 2, 0, 1, Silence())
    without = train_on([stated], judged, "ours", 2, 0, 1, Silence(), adds_offsets=False)
    assert plain.plain_row is without.plain_row is None
    assert found.plain_row is not None
    assert found.plain_row.name == "distilled (without class offsets)"
    assert found.plain_row.balanced_accuracy == without.row.balanced_accuracy == plain.row.balanced_accuracy
    assert found.row.balanced_accuracy.mean == pytest.approx(0.5, abs=0.1)


def test_batch_norm_is_measured_on_a_receivers_images(package: Package) -> None:
    judged, own = toys.films((20, 20), seed=8), toys.films((3, 6), seed=9)
    plain, found = (
        train_on([package], judged, "ours", 1, 0, 1, Silence(), architecture="resnet18bn", statistics=statistics)
        for statistics in (None, own)
    )
    assert isinstance(found.network, BatchNormNetwork)
    learned = len(found.params) - sum(each.numel() for each in found.network.views(found.params))
    assert (found.params != plain.params)[:learned].any()
    assert (found.params == plain.params)[learned:].all()
    again = found.network.calibrated(found.params, [TrainingSet.of(own, toys.TRANSFORM).batch(torch.arange(9))[0]])
    assert torch.allclose(again, found.params, atol=1e-5)  # threads may differ, and so the last bits
    assert (found.row.name, found.measured_on) == ("distilled-resnet18bn (batch norm of own images)", 9)


def test_images_to_measure_batch_norm_on_are_refused_where_there_is_none(package: Package) -> None:
    judged = toys.films((20, 20), seed=8)
    with pytest.raises(RecipeError, match="convnet has no batch norm"):
        train_on([package], judged, "ours", 1, 0, 1, Silence(), statistics=judged)
    none = judged.take(np.arange(0))
    with pytest.raises(SourceError, match="no image to measure batch norm on"):
        train_on([package], judged, "ours", 1, 0, 1, Silence(), architecture="resnet18bn", statistics=none)


def test_classes_are_matched_by_name_and_not_by_index(package: Package) -> None:
    films = toys.films((20, 20), seed=8)
    swapped = toys.LabelledImages(films.pixels, 1 - films.labels, films.class_names[::-1])
    straight = train_on([package], films, "ours", 1, 0, 1, Silence()).row
    assert train_on([package], swapped, "ours", 1, 0, 1, Silence()).row.accuracy == straight.accuracy


def test_a_class_that_the_package_does_not_know_is_refused_by_name(package: Package) -> None:
    films = toys.films((3, 3))
    strange = toys.LabelledImages(films.pixels, films.labels, ("class 0", "fracture"))
    with pytest.raises(SourceError, match="fracture"):
        train_on([package], strange, "ours", 1, 0, 1, Silence())


def test_the_receivers_figure_does_not_depend_on_the_number_of_processes(package: Package) -> None:
    films = toys.films((20, 20), seed=8)
    assert (
        train_on([package], films, "ours", 2, 0, 1, Silence()).row
        == train_on([package], films, "ours", 2, 0, 2, Silence()).row
    )


def other(tmp_path: Path, package: Package, **changes: object) -> Package:
    """Another hospital's package of the same kind."""
    films = toys.films((10, 10), seed=9)
    pack(
        tmp_path / "other.medistill",
        **{
            "name": "other",
            "images": np.divide(films.pixels, 255, dtype=np.float32),
            "labels": films.labels,
            "inner_rate": 0.1,
            "class_names": films.class_names,
            "transform": toys.TRANSFORM,
            "training": package.manifest.training,
            "provenance": package.manifest.provenance,
        }
        | changes,
    )
    return open_package(tmp_path / "other.medistill", allow_unsigned=True)


def test_a_receiver_is_warned_of_judging_on_what_was_learned_from(package: Package) -> None:
    films, watch = toys.films((6, 6), seed=8), toys.Watch()
    learned, apart = films.take(np.arange(8)), films.take(np.arange(8, 12))
    train_on([package], films, "ours", 1, 0, 1, watch, own=learned)
    assert [said for said in watch.said if said.startswith("8 of the 12 images to judge on are among your own")]
    silent = toys.Watch()
    train_on([package], apart, "ours", 1, 0, 1, silent, own=learned)
    assert silent.said == []


def test_a_package_that_states_no_batch_is_seen_whole_and_own_images_in_batches_as_large(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(
        "medistill.receive.small_arm", lambda recipe, *rest: asked.append(recipe) or small_arm(recipe, *rest)
    )
    training = package.manifest.training.model_copy(update={"batch_size": None})
    stated = replace(package, manifest=package.manifest.model_copy(update={"training": training}))
    judged = toys.films((20, 20), seed=8)
    train_on([stated], judged, "ours", 1, 0, 1, Silence(), own=toys.films((30, 30), seed=5))
    assert asked[0].evaluate.batch_size == len(package.images) == 20


def test_several_packages_and_own_images_are_learned_from_together(package: Package, tmp_path: Path) -> None:
    both = [package, other(tmp_path, package)]
    row = train_on(both, toys.films((20, 20), seed=8), "ours", 1, 0, 1, Silence(), own=toys.films((9, 3), seed=5)).row
    assert (row.name, row.images) == ("distilled-and-own", 52)
    assert row.balanced_accuracy.mean > 0.9


def test_a_mapping_says_which_classes_are_the_same(package: Package, tmp_path: Path) -> None:
    strange = other(tmp_path, package, class_names=("class 0", "Befund"))
    judged = toys.films((20, 20), seed=8)
    row = train_on([package, strange], judged, "ours", 1, 0, 1, Silence(), classes={"Befund": "class 1"}).row
    assert row.balanced_accuracy.mean > 0.9
    assert row.sensitivity.keys() == {"class 0", "class 1"}


def test_another_network_can_be_trained_and_is_named(package: Package) -> None:
    row = train_on([package], toys.films((20, 20), seed=8), "ours", 1, 0, 1, Silence(), architecture="resnet18").row
    assert (row.name, row.architecture) == ("distilled-resnet18", "resnet18")


def test_one_package_alone_is_trained_on_as_its_maker_did(package: Package) -> None:
    """Pooling one package changes nothing about it."""
    alone = pooled([package])
    assert alone.transform == package.manifest.transform
    assert alone.training.rate == pytest.approx(package.manifest.training.rate)
    assert np.array_equal(alone.images, package.images)
    assert np.array_equal(alone.targets, package.targets)
