"""MedMNIST-style archives: what is read, and every way to refuse one."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medistill.errors import SourceError
from medistill.sources.npz import read_npz

GREY = np.arange(4 * 8 * 8, dtype=np.uint8).reshape(4, 8, 8)
LABELS = np.array([[0], [1], [0], [1]])


def saved(folder: Path, **arrays: object) -> Path:
    path = folder / "films.npz"
    np.savez_compressed(path, **arrays)
    return path


def jpeg(shade: int, width: int = 8) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (width, 8), (shade, shade, shade)).save(content, "JPEG")
    return content.getvalue()


def packed(folder: Path, **changes: object) -> Path:
    """Four JPEG files one after another, the last one a test image; None leaves an array out."""
    files = [jpeg(shade) for shade in (0, 80, 160, 240)]
    arrays = {
        "jpeg": np.frombuffer(b"".join(files), np.uint8),
        "offsets": np.cumsum([0, *map(len, files)]),
        "labels": np.array([0, 1, 0, 1], np.uint8),
        "is_test": np.array([False, False, False, True]),
        "class_names": np.array(["cat", "ship"]),
    }
    return saved(folder, **{key: value for key, value in (arrays | changes).items() if value is not None})


def with_header(header: str, data: bytes, folder: Path, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """An archive whose `train_images` has a hand-written header."""
    path = folder / "films.npz"
    body = header.encode() + b"\n"
    labels = io.BytesIO()
    np.save(labels, LABELS)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("train_images.npy", b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body + data)
        archive.writestr("train_labels.npy", labels.getvalue())
    return path


def test_each_pair_is_a_split_in_fixed_order(tmp_path):
    pairs = {f"{s}_{k}": v for s in ("val", "test", "train") for k, v in (("images", GREY), ("labels", LABELS))}
    found = read_npz(saved(tmp_path, **pairs))
    assert list(found.parts) == ["train", "validation", "test"]
    assert found.parts["train"].images.shape == (4, 1, 8, 8)
    np.testing.assert_array_equal(found.parts["test"].images[:, 0], GREY)
    assert found.parts["test"].labels.tolist() == [0, 1, 0, 1]


def test_packed_photographs_are_decoded_split_by_split(tmp_path):
    found = read_npz(packed(tmp_path))
    assert (list(found.parts), found.class_names) == (["train", "test"], ("cat", "ship"))
    train = found.labelled(["train"], None, 1)["train"]
    assert train.pixels.mean((1, 2, 3)).tolist() == pytest.approx([0, 80, 160], abs=2)
    assert train.labels.tolist() == [0, 1, 0]
    assert found.labelled(["test"], None, 3)["test"].pixels.shape == (1, 3, 8, 8)
    assert list(read_npz(packed(tmp_path, is_test=None)).parts) == ["all"]


@pytest.mark.parametrize(
    "changes",
    [
        {"offsets": None},
        {"labels": None},
        {"offsets": np.array([0, 10, 5, 20, 30])},
        {"offsets": np.array([0, 10, 20, 30, 10**9])},
        {"offsets": np.array([-5, 10, 20, 30, 40])},
        {"offsets": np.array([0, 10, 20])},
        {"is_test": np.array([0, 1, 0, 1])},
        {"is_test": np.array([True])},
        {"jpeg": np.zeros((4, 4), np.uint8)},
        {"labels": np.array([0, 1, 0, -1])},
        {"labels": np.array([0, 1])},
        {"offsets": np.array(["0", "1", "2", "3", "4"])},
        {"offsets": np.array([0]), "labels": np.array([], np.uint8), "is_test": np.array([], np.bool_)},
    ],
)
def test_packed_photographs_that_do_not_fit_together_are_refused(tmp_path, changes):
    with pytest.raises(SourceError, match=r"films\.npz"):
        read_npz(packed(tmp_path, **changes))


def test_a_packed_photograph_that_is_damaged_is_named_by_its_number(tmp_path):
    found = read_npz(packed(tmp_path, offsets=np.array([0, 3, 5, 8, 9])))
    with pytest.raises(SourceError, match="image 0 cannot be decoded"):
        found.labelled(["train"], None, 1)


def test_classes_without_names_are_called_by_their_numbers(tmp_path):
    found = read_npz(saved(tmp_path, train_images=GREY, train_labels=LABELS[:, 0]))
    assert (found.class_names, found.named) == (("0", "1"), False)


def test_an_array_of_class_names_names_them_and_a_bare_pair_has_no_split(tmp_path):
    found = read_npz(saved(tmp_path, images=GREY, labels=LABELS, class_names=np.array(["ill", "well"])))
    assert (found.class_names, found.named, list(found.parts)) == (("ill", "well"), True, ["all"])


@pytest.mark.parametrize(("channels", "expected"), [(1, (4, 1, 8, 6)), (3, (4, 3, 8, 6))])
def test_channels_come_last_in_the_file_and_second_in_memory(tmp_path, channels, expected):
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 6, channels), dtype=np.uint8)
    part = read_npz(saved(tmp_path, train_images=images, train_labels=LABELS)).parts["train"]
    assert part.images.shape == expected
    np.testing.assert_array_equal(np.moveaxis(part.images, 1, -1), images)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"train_labels": None}, "no train_labels"),
        ({"train_images": None}, "no train_images"),
        ({"train_images": GREY / 255}, "float64; expected uint8"),
        ({"train_images": GREY.astype(np.int64)}, "int64; expected uint8"),
        ({"train_images": GREY[0]}, "shape"),
        ({"train_images": GREY.reshape(4, 1, 8, 8)}, r"\[4, 1, 8, 8\]"),
        ({"train_images": GREY[:0], "train_labels": LABELS[:0]}, "shape"),
        ({"train_images": GREY[:3]}, "3 images in train_images but 4 labels"),
        ({"train_labels": -LABELS}, "negative"),
        ({"train_labels": LABELS / 2}, "float64"),
        ({"train_labels": np.tile(LABELS, 3)}, r"\[4, 3\].*Several labels"),
        ({"train_labels": LABELS * 10**9}, "label 1000000000 among 4 images"),
        ({"train_labels": LABELS * 0}, "found 1 class"),
        ({"val_images": GREY, "val_labels": LABELS, "VAL_images": GREY, "VAL_labels": LABELS}, "two splits"),
        ({"class_names": np.array(["only one"])}, "class_names"),
        ({"class_names": np.arange(2)}, "class_names"),
    ],
)
def test_an_archive_that_is_not_a_classified_image_set_is_refused(tmp_path, changed, says):
    arrays = {"train_images": GREY, "train_labels": LABELS, **changed}
    path = saved(tmp_path, **{key: value for key, value in arrays.items() if value is not None})
    with pytest.raises(SourceError, match=says) as refusal:
        read_npz(path)
    assert str(tmp_path) not in str(refusal.value)


def test_an_archive_without_pairs_says_which_arrays_were_expected(tmp_path):
    with pytest.raises(SourceError, match="train_images and train_labels"):
        read_npz(saved(tmp_path, x=GREY, y=LABELS))


class Trap:
    sprung = False

    def __reduce__(self):
        return (setattr, (Trap, "sprung", True))


def test_pickled_objects_are_never_loaded(tmp_path):
    objects = np.array([Trap()] * 4, dtype=object)
    with pytest.raises(SourceError, match="pickled objects"):
        read_npz(saved(tmp_path, train_images=GREY, train_labels=objects))
    assert not Trap.sprung


def test_a_header_that_declares_more_than_its_entry_holds_is_refused_before_loading(tmp_path):
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (4000000000, 1000, 1000), }"
    with pytest.raises(SourceError, match="declares another size"):
        read_npz(with_header(header, bytes(100), tmp_path))


def test_a_large_array_of_nothing_is_refused_as_a_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr("medistill.sources.npz.SMALLEST_BOMB_BYTES", 10_000)
    with pytest.raises(SourceError, match="Do not use this file"):
        read_npz(saved(tmp_path, train_images=np.zeros((4, 400, 400), np.uint8), train_labels=LABELS))


def test_many_arrays_of_nothing_are_refused_together(tmp_path, monkeypatch):
    arrays = {f"{split}_images": np.zeros((4, 40, 40), np.uint8) for split in ("train", "val", "test")}
    arrays |= {f"{split}_labels": LABELS for split in ("train", "val", "test")}
    monkeypatch.setattr("medistill.sources.npz.SMALLEST_BOMB_BYTES", 10_000)
    monkeypatch.setattr("medistill.sources.npz.LARGEST_RATIO", 10)
    with pytest.raises(SourceError, match="unpack to"):
        read_npz(saved(tmp_path, **arrays))


def test_what_does_not_compress_hides_no_bomb(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (4, 200, 200), np.uint8)
    monkeypatch.setattr("medistill.sources.npz.SMALLEST_BOMB_BYTES", 10_000)
    path = tmp_path / "packed.npz"
    np.savez_compressed(
        path, jpeg=noise.reshape(-1), offsets=np.zeros(200_001, np.int64), labels=np.zeros(200_000, int)
    )
    with pytest.raises(SourceError, match="Do not use this file"):
        read_npz(path)


@pytest.mark.parametrize("header", ["{'descr': '|u1'}", "not a header", "{'descr': '|u1', 'shape': (4,"])
def test_a_header_that_is_not_one_is_refused(tmp_path, header):
    with pytest.raises(SourceError, match="damaged"):
        read_npz(with_header(header, bytes(256), tmp_path))


def test_a_file_cut_short_anywhere_is_refused(tmp_path):
    path = saved(tmp_path, train_images=GREY, train_labels=LABELS)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 37):
        path.write_bytes(whole[:length])
        with pytest.raises(SourceError, match="damaged"):
            read_npz(path)


def test_a_flipped_byte_in_the_pixels_is_noticed(tmp_path):
    path = tmp_path / "films.npz"
    np.savez(path, train_images=GREY, train_labels=LABELS)
    content = bytearray(path.read_bytes())
    content[content.find(GREY.tobytes()) + 17] ^= 1
    path.write_bytes(content)
    with pytest.raises(SourceError, match="damaged"):
        read_npz(path)
