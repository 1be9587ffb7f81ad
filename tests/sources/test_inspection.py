"""What an inspection finds, and what it says about it."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medistill.images import LabelledImages
from medistill.sources import Inspection, inspect_source


def noise(n: int, seed: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, size, size), dtype=np.uint8)


def healthy() -> dict[str, np.ndarray]:
    arrays = {}
    for seed, split in enumerate(("train", "val", "test")):
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = noise(50, seed), np.arange(50) % 2
    return arrays | {"class_names": np.array(["ill", "well"])}


def inspected(folder: Path, **changed: np.ndarray) -> Inspection:
    arrays = healthy() | changed
    np.savez(folder / "films.npz", **{key: value for key, value in arrays.items() if value is not None})
    return inspect_source(str(folder / "films.npz"))


def test_a_sound_source_is_counted_and_warned_of_nothing_but_unknown_patients(tmp_path):
    seen = inspected(tmp_path)
    assert seen.counts == {name: {"ill": 25, "well": 25} for name in ("train", "validation", "test")}
    assert (seen.sizes, seen.channels, seen.groups, seen.constant) == ({"8x8": 150}, (1,), None, 0)
    assert seen.duplicates_within == {"train": 0, "validation": 0, "test": 0}
    assert (seen.duplicates_across, seen.two_labels, seen.groups_across) == (0, 0, 0)
    assert len(seen.warnings) == 1
    assert "same patient" in seen.warnings[0]


def test_one_split_can_be_inspected_alone(tmp_path):
    inspected(tmp_path)
    assert list(inspect_source(str(tmp_path / "films.npz#test")).counts) == ["test"]


def test_nothing_but_the_files_own_name_is_told(tmp_path):
    seen = inspected(tmp_path)
    assert seen.name == "films.npz"
    assert str(tmp_path) not in seen.model_dump_json()


def test_a_record_survives_being_written_as_json(tmp_path):
    seen = inspected(tmp_path)
    assert Inspection.model_validate_json(seen.model_dump_json()) == seen


@pytest.mark.parametrize(
    ("changed", "count", "says"),
    [
        ({"train_labels": (np.arange(50) == 0).astype(int)}, {}, "49.0 times"),
        ({"val_labels": (np.arange(50) < 3).astype(int)}, {}, r"Fewer than 20 images of well \(3\) in validation"),
        ({"class_names": None}, {"named": False}, "only the numbers 0, 1"),
        ({"val_images": None, "val_labels": None}, {}, "no validation split.*source.validation_fraction"),
        ({"test_images": noise(50, 0)}, {"duplicates_across": 50}, "more than one split: 50"),
        ({"train_images": np.repeat(noise(25, 7), 2, 0)}, {"two_labels": 25}, "under two classes: 25"),
        (
            {"train_images": np.concatenate([noise(48, 0), noise(2, 0)])},
            {"duplicates_within": {"train": 2, "validation": 0, "test": 0}},
            "exactly: 2 in train",
        ),
        (
            {"train_images": np.stack([*noise(49, 0), np.full((8, 8), 9, np.uint8)])},
            {"constant": 1},
            "one even shade: 1",
        ),
        ({f"{s}_images": noise(50, i) // 16 for i, s in enumerate(("train", "val", "test"))}, {}, "quarter"),
        ({"test_images": noise(50, 9, 12)}, {"sizes": {"8x8": 100, "12x12": 50}}, "Set source.image_size"),
        ({"test_images": noise(150, 9).reshape(50, 8, 8, 3)}, {"channels": (1, 3)}, "grey and some in color"),
        ({"extra_images": noise(50, 9), "extra_labels": np.arange(50) % 2}, {}, "extra are not used"),
        ({"train_images": None, "train_labels": None}, {}, "no training images"),
    ],
)
def test_each_fault_has_its_number_and_its_sentence(tmp_path, changed, count, says):
    seen = inspected(tmp_path, **changed)
    assert any(re.search(says, warning) for warning in seen.warnings), seen.warnings
    assert {key: getattr(seen, key) for key in count} == count


def test_a_folder_of_mixed_sizes_is_inspected(tmp_path):
    for index, (width, height) in enumerate([(8, 8), (8, 8), (12, 6), (10, 10)]):
        place = tmp_path / "films" / ("ill", "well")[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(1, index, 12)[0, :height, :width]).save(place / f"{index}.png")
    seen = inspect_source(str(tmp_path / "films"))
    assert seen.sizes == {"8x8": 2, "12x6": 1, "10x10": 1}
    assert any("not square: 1" in warning for warning in seen.warnings)
    assert any("no validation and no test split" in warning for warning in seen.warnings)


def test_a_patient_on_both_sides_of_a_split_is_counted(tmp_path):
    lines = ["path,label,group,split"]
    for index, (group, split) in enumerate([("p1", "train"), ("p2", "train"), ("p1", "test"), ("p3", "test")]):
        Image.fromarray(noise(1, index)[0]).save(tmp_path / f"{index}.png")
        lines.append(f"{index}.png,{('ill', 'well')[index % 2]},{group},{split}")
    (tmp_path / "films.csv").write_text("\n".join(lines))
    seen = inspect_source(str(tmp_path / "films.csv"))
    assert (seen.groups, seen.groups_across) == (3, 1)
    assert any("more than one split: 1, which flatters" in warning for warning in seen.warnings)
    assert not any("It is not known which images" in warning for warning in seen.warnings)
    assert "p1" not in seen.model_dump_json()


def test_the_fingerprint_changes_with_a_pixel_a_label_and_a_split(tmp_path):
    base, pixels, labels = healthy(), noise(50, 0), np.arange(50) % 2
    pixels[3, 2, 1] ^= 1
    labels[:2] = 1, 0
    moved = {f"extra_{kind}": base[f"val_{kind}"] for kind in ("images", "labels")}
    variants = [{}, {"train_images": pixels}, {"train_labels": labels}]
    variants.append({"val_images": None, "val_labels": None} | moved)
    assert len({inspected(tmp_path, **changed).fingerprint for changed in variants}) == 4
    assert inspected(tmp_path).fingerprint == inspected(tmp_path).fingerprint


def test_the_phantom_can_be_inspected(monkeypatch):
    images = LabelledImages(noise(4, 0)[:, None], np.arange(4) % 2, ("ill", "well"), np.array(list("abcd")))
    monkeypatch.setattr("medistill.sources.opening.read_phantom", lambda size, channels: {"train": images})
    seen = inspect_source("phantom")
    assert (seen.name, seen.kind, seen.groups, seen.counts) == (
        "phantom",
        "phantom",
        4,
        {"train": {"ill": 2, "well": 2}},
    )


@pytest.mark.real_data
def test_the_zip_and_the_csv_of_the_chest_films_hold_the_same_images():
    if "MEDISTILL_DATA" not in os.environ:
        pytest.skip("MEDISTILL_DATA does not name the folder of real image sets")
    data = Path(os.environ["MEDISTILL_DATA"])
    in_zip, in_csv = (inspect_source(str(data / f"cxr4_112.{suffix}")) for suffix in ("zip", "csv"))
    assert in_zip.counts == in_csv.counts
    assert in_zip.counts["train"] == {"COVID": 1807, "Lung_Opacity": 280, "Normal": 5500, "Viral Pneumonia": 730}
    assert (in_zip.sizes, in_zip.duplicates_across) == ({"112x112": 12319}, 0)
    assert (in_zip.groups, in_csv.groups_across) == (None, 0)


@pytest.mark.real_data
def test_a_published_set_has_the_same_image_in_two_splits():
    if "MEDISTILL_DATA" not in os.environ:
        pytest.skip("MEDISTILL_DATA does not name the folder of real image sets")
    seen = inspect_source(str(Path(os.environ["MEDISTILL_DATA"]) / "breastmnist.npz"))
    assert (seen.duplicates_across, seen.two_labels) == (1, 1)
