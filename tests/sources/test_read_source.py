"""From any source to three splits of one shape."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medistill.errors import SourceError
from medistill.recipe import SourceSettings
from medistill.sources import read_judged, read_part, read_source


def pair(split: str, n: int, seed: int, size: int = 16, classes: int = 2) -> dict[str, np.ndarray]:
    pixels = np.random.default_rng(seed).integers(0, 256, (n, size, size), dtype=np.uint8)
    return {f"{split}_images": pixels, f"{split}_labels": np.arange(n) % classes}


def saved(folder: Path, *pairs: dict[str, np.ndarray]) -> str:
    path = folder / "films.npz"
    arrays = {key: value for given in pairs for key, value in given.items()}
    classes = max(value.max() for key, value in arrays.items() if key.endswith("labels")) + 1
    np.savez(path, class_names=np.array(list("abcdef"[:classes])), **arrays)
    return str(path)


def pictures(root: Path, sizes: list[tuple[int, int]]) -> str:
    for index, (width, height) in enumerate(sizes):
        place = root / ("ill", "well")[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 256, (height, width), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{index:03}.png")
    return str(root)


def as_set(images) -> set[bytes]:
    return {image.tobytes() for image in images.pixels}


def test_splits_of_the_source_are_kept_as_they_are(tmp_path):
    source = saved(tmp_path, pair("train", 20, 0), pair("val", 8, 1), pair("test", 10, 2))
    splits = read_source(SourceSettings(path=source))
    assert [len(part) for part in splits.parts.values()] == [20, 8, 10]
    assert splits.train.pixels.shape == (20, 1, 16, 16)
    assert splits.notes == ()


def test_what_is_missing_is_cut_off_train_and_said(tmp_path):
    source = saved(tmp_path, pair("train", 100, 0))
    splits = read_source(SourceSettings(path=source, test_fraction=0.2, validation_fraction=0.25))
    assert [part.counts.tolist() for part in splits.parts.values()] == [[30, 30], [10, 10], [10, 10]]
    train, validation, test = map(as_set, splits.parts.values())
    assert len(train | validation | test) == 100
    assert len(splits.notes) == 2
    assert "no test split: 20 training images (20 %" in splits.notes[0]


def test_only_the_missing_split_is_cut(tmp_path):
    splits = read_source(SourceSettings(path=saved(tmp_path, pair("train", 40, 0), pair("test", 10, 1))))
    assert [len(part) for part in splits.parts.values()] == [36, 4, 10]


def test_a_source_without_splits_is_cut_the_same_way_every_time(tmp_path):
    settings = SourceSettings(path=pictures(tmp_path / "films", [(16, 16)] * 40))
    first, second = read_source(settings), read_source(settings)
    assert first.fingerprint() == second.fingerprint()
    assert sum(map(len, first.parts.values())) == 40


def test_no_patient_crosses_a_cut(tmp_path):
    pictures(tmp_path, [(16, 16)] * 40)
    rows = [f"{('ill', 'well')[i % 2]}/{i:03}.png,{('ill', 'well')[i % 2]},p{i // 4}-{i % 2}" for i in range(40)]
    (tmp_path / "films.csv").write_text("\n".join(["path,label,group", *rows]))
    splits = read_source(SourceSettings(path=str(tmp_path / "films.csv")))
    train, validation, test = (set(part.groups.tolist()) for part in splits.parts.values())
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_images_of_several_sizes_need_a_size(tmp_path):
    source = pictures(tmp_path / "films", [(16, 16), (16, 16), (16, 16), (20, 10), (30, 30), (31, 31)] * 4)
    with pytest.raises(SourceError, match=r"16x16 \(12 images\), .* and 1 other sizes.*source.image_size") as refusal:
        read_source(SourceSettings(path=source))
    assert str(tmp_path) not in str(refusal.value)
    splits = read_source(SourceSettings(path=source, image_size=8, channels=3))
    assert splits.train.pixels.shape[1:] == (3, 8, 8)


def test_splits_of_different_sizes_need_a_size_too(tmp_path):
    source = saved(tmp_path, pair("train", 20, 0, size=16), pair("test", 20, 0, size=12))
    with pytest.raises(SourceError, match=r"16x16.*12x12"):
        read_source(SourceSettings(path=source))


def test_large_images_need_a_size(tmp_path):
    source = pictures(tmp_path / "films", [(1025, 4), (1025, 4)] * 3)
    with pytest.raises(SourceError, match="1025x4; expected at most 1024x1024"):
        read_source(SourceSettings(path=source))


def test_files_and_arrays_are_resized_by_the_same_rule(tmp_path):
    folder = pictures(tmp_path / "films", [(16, 16)] * 12)
    stored = read_part(folder, 16, 1)
    np.savez(tmp_path / "films.npz", images=stored.pixels[:, 0], labels=stored.labels)
    from_files, from_arrays = read_part(folder, 8, 1), read_part(str(tmp_path / "films.npz"), 8, 1)
    np.testing.assert_array_equal(from_files.pixels, from_arrays.pixels)
    exact = stored.pixels.reshape(12, 1, 8, 2, 8, 2).mean((3, 5))
    np.testing.assert_allclose(from_files.pixels, exact, atol=1)


def test_a_class_absent_from_test_is_noted_and_absent_from_train_is_refused(tmp_path):
    source = saved(tmp_path, pair("train", 21, 0, classes=3), pair("val", 21, 1, classes=3), pair("test", 4, 2))
    assert read_source(SourceSettings(path=source)).notes == (
        "The test split has no image of c: nothing is measured for it there.",
    )
    source = saved(tmp_path, pair("train", 20, 0), pair("val", 21, 1, classes=3))
    with pytest.raises(SourceError, match="no training image of class c"):
        read_source(SourceSettings(path=source))


def test_a_split_that_no_run_uses_is_noted(tmp_path):
    parts = [pair(name, 20, seed) for seed, name in enumerate(("train", "val", "test", "extra"))]
    splits = read_source(SourceSettings(path=saved(tmp_path, *parts)))
    assert len(splits.train) == 20
    assert splits.notes == ("1 of the source's splits not used: a run uses train, val and test.",)


def test_a_source_without_training_images_is_refused(tmp_path):
    with pytest.raises(SourceError, match="only the splits test; expected train"):
        read_source(SourceSettings(path=saved(tmp_path, pair("test", 20, 0))))


def test_a_class_too_small_to_cut_is_refused(tmp_path):
    with pytest.raises(SourceError, match="Class b has 1 image"):
        read_source(SourceSettings(path=saved(tmp_path, pair("train", 3, 0))))


def test_what_is_not_there_or_not_known_is_refused_by_its_name_alone(tmp_path):
    (tmp_path / "film.dcm").touch()
    for name, says in (("nothing.npz", "nothing.npz does not exist"), ("film.dcm", "film.dcm is of a kind")):
        with pytest.raises(SourceError, match=says) as refusal:
            read_source(SourceSettings(path=str(tmp_path / name)))
        assert str(tmp_path) not in str(refusal.value)


def test_a_part_is_named_behind_a_hash_and_no_name_means_all(tmp_path):
    source = saved(tmp_path, pair("train", 20, 0), pair("val", 8, 1), pair("test", 10, 2))
    assert len(read_part(source, 16, 1)) == 38
    assert [len(read_part(f"{source}#{name}", 16, 1)) for name in ("train", "val", "validation", "test")] == [
        20,
        8,
        8,
        10,
    ]
    assert read_part(f"{source}#test", 8, 3).pixels.shape == (10, 3, 8, 8)


def test_networks_are_judged_on_the_split_that_is_named_or_else_on_test_or_else_on_all(tmp_path):
    source = saved(tmp_path, pair("train", 20, 0), pair("val", 8, 1), pair("test", 10, 2))
    found = {name: read_judged(f"{source}{name}", 16, 1) for name in ("", "#val", "#train")}
    assert {name: (len(images), called) for name, (images, called) in found.items()} == {
        "": (10, "test"),
        "#val": (8, "validation"),
        "#train": (20, "train"),
    }
    images, called = read_judged(saved(tmp_path, pair("train", 20, 0), pair("val", 8, 1)), 16, 1)
    assert (len(images), called) == (28, "all")


def test_a_run_on_one_split_cuts_the_others_off_it(tmp_path):
    source = saved(tmp_path, pair("pool", 40, 0), pair("test", 10, 2))
    splits = read_source(SourceSettings(path=f"{source}#pool", test_fraction=0.25))
    assert [len(part) for part in splits.parts.values()] == [26, 4, 10]
    assert not set(splits.test.pixels.mean((1, 2, 3))) & set(splits.train.pixels.mean((1, 2, 3)))


@pytest.mark.parametrize("split", ["", "holdout"])
def test_an_unknown_part_is_refused_with_those_there_are(tmp_path, split):
    source = saved(tmp_path, pair("train", 20, 0), pair("val", 8, 1))
    with pytest.raises(SourceError, match=f"no split '{split}'; it has train, validation"):
        read_part(f"{source}#{split}", 16, 1)


def test_a_hash_in_a_name_that_exists_belongs_to_the_name(tmp_path):
    source = pictures(tmp_path / "ward#3", [(16, 16)] * 4)
    assert len(read_part(source, 16, 1)) == len(read_part(f"{source}#all", 16, 1)) == 4


def test_the_phantom_is_drawn_at_the_size_asked_rather_than_resized():
    splits = read_source(SourceSettings(path="phantom", image_size=16))
    assert splits.train.pixels.shape[1:] == (1, 16, 16)
    assert splits.notes == ()
    np.testing.assert_array_equal(read_part("phantom#test", 16, 1).pixels, splits.test.pixels)


@pytest.mark.real_data
def test_the_chest_films_are_read_whole():
    if "MEDISTILL_DATA" not in os.environ:
        pytest.skip("MEDISTILL_DATA does not name the folder of real image sets")
    splits = read_source(SourceSettings(path=str(Path(os.environ["MEDISTILL_DATA"]) / "cxr4_64.npz")))
    assert splits.train.counts.tolist() == [1807, 280, 5500, 730]
    assert [len(part) for part in splits.parts.values()] == [8317, 922, 3080]


def test_class_names_come_in_composed_unicode_whatever_a_file_system_made_of_them(tmp_path: Path) -> None:
    for name in ("E\u0301panchement", "Normal"):
        (tmp_path / "films" / name).mkdir(parents=True)
        for index in range(3):
            pixels = np.full((8, 8), 10 * index, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "films" / name / f"{index}.png")
    found = read_part(str(tmp_path / "films"), 8, 1)
    assert set(found.class_names) == {"\u00c9panchement", "Normal"}


def test_patients_on_both_sides_of_a_given_cut_are_noted(tmp_path: Path) -> None:
    lines = ["path,label,group,split"]
    for index, (label, split) in enumerate([(a, b) for b in ("train", "val", "test") for a in "xy" for _ in range(2)]):
        Image.fromarray(np.full((8, 8), index, np.uint8)).save(tmp_path / f"{index}.png")
        lines.append(f"{index}.png,{label},{'p1' if index in (0, 8) else f'q{index}'},{split}")
    (tmp_path / "films.csv").write_text("\n".join(lines))
    splits = read_source(SourceSettings(path=str(tmp_path / "films.csv")))
    assert any("1 patients or groups have images in more than one split" in note for note in splits.notes)


def test_classes_that_go_by_numbers_are_noted(tmp_path: Path) -> None:
    np.savez(tmp_path / "films.npz", **pair("train", 20, 0), **pair("val", 8, 1), **pair("test", 4, 2))
    (note,) = read_source(SourceSettings(path=str(tmp_path / "films.npz"))).notes
    assert note.startswith("The source has no class names, so classes go by their numbers")
