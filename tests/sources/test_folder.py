"""A folder for each class, on disk and in a zip."""

import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medistill.errors import SourceError
from medistill.sources.folder import read_folder
from medistill.sources.picture import decode


def picture(shade: int, size: tuple[int, int] = (8, 8), mode: str = "L", suffix: str = "png") -> bytes:
    pixels = (np.arange(size[0] * size[1]).reshape(size[1], size[0]) + shade) % 256
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).convert(mode).save(stream, {"jpg": "JPEG"}.get(suffix, suffix))
    return stream.getvalue()


def laid_out(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


PLAIN = {f"{name}/{i}.png": picture(i + 50 * k) for k, name in enumerate(("Normal", "COVID")) for i in range(3)}


def split_up(files: dict[str, bytes], *splits: str) -> dict[str, bytes]:
    return {f"{split}/{name}": content for split in splits for name, content in files.items()}


def test_classes_are_folders_in_alphabetical_order(tmp_path):
    found = read_folder(laid_out(tmp_path / "films", PLAIN))
    assert (found.class_names, found.named, list(found.parts)) == (("COVID", "Normal"), True, ["all"])
    part = found.parts["all"]
    assert part.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert part.groups is None
    np.testing.assert_array_equal(next(iter(part.images)), decode(PLAIN["COVID/0.png"], "0.png"))


def test_a_zip_gives_the_same_images_as_its_folder_and_is_not_unpacked(tmp_path):
    files = split_up(PLAIN, "train", "test")
    folder, archive = laid_out(tmp_path / "films", files), zipped(tmp_path / "films.zip", dict(reversed(files.items())))
    before = sorted(tmp_path.rglob("*"))
    on_disk, in_zip = read_folder(folder), read_folder(archive)
    assert list(on_disk.parts) == list(in_zip.parts) == ["train", "test"]
    for name, part in on_disk.parts.items():
        assert part.labels.tolist() == in_zip.parts[name].labels.tolist()
        np.testing.assert_array_equal(np.stack(list(part.images)), np.stack(list(in_zip.parts[name].images)))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("prefix", ["", "outer/", "outer/inner/"])
@pytest.mark.parametrize("inside", ["", "images/"])
@pytest.mark.parametrize("splits", [(), ("train",), ("Train", "VAL", "test")])
def test_every_layout_is_read_alike(tmp_path, prefix, inside, splits):
    plain = {name.replace("/", f"/{inside}"): content for name, content in PLAIN.items()}
    files = split_up(plain, *splits) if splits else plain
    found = read_folder(laid_out(tmp_path / "films", {prefix + name: content for name, content in files.items()}))
    assert list(found.parts) == (["train", "validation", "test"][: len(splits)] if splits else ["all"])
    assert found.class_names == ("COVID", "Normal")
    assert all(part.labels.tolist() == [0, 0, 0, 1, 1, 1] for part in found.parts.values())


def test_masks_hidden_files_and_other_files_are_left_out_and_noted(tmp_path):
    extra = {
        "COVID/masks/0.png": picture(0),
        "COVID/masks/1.png": picture(1),
        "COVID/.DS_Store": b"x",
        ".git/a.png": picture(0),
        "__MACOSX/COVID/._0.png": b"x",
        "README.txt": b"x",
    }
    for source in (laid_out(tmp_path / "films", PLAIN | extra), zipped(tmp_path / "f.zip", PLAIN | extra)):
        found = read_folder(source)
        assert len(found.parts["all"].labels) == 6
        assert found.notes == (
            "2 images in folders called masks were left out.",
            "1 files that are not PNG, JPEG, BMP or TIFF were left out (.txt).",
        )


def test_no_note_repeats_what_a_file_is_called(tmp_path):
    strange = {
        f"COVID/{name}": b"x" for name in ("Befund Hr. Mueller 1954-03-01", "IM.Mueller^Hans", "Mueller", "a.DCM")
    }
    (note,) = read_folder(laid_out(tmp_path / "films", PLAIN | strange)).notes
    assert note == "4 files that are not PNG, JPEG, BMP or TIFF were left out (other endings, no ending, .dcm)."


def test_classes_are_one_list_even_where_a_split_lacks_one(tmp_path):
    files = split_up(PLAIN, "train") | {"test/Normal/a.png": picture(3), "val/Pneumonia/b.png": picture(4)}
    found = read_folder(laid_out(tmp_path / "films", files))
    assert found.class_names == ("COVID", "Normal", "Pneumonia")
    assert found.parts["test"].labels.tolist() == [1]
    assert found.parts["validation"].labels.tolist() == [2]


def test_other_splits_beside_known_ones_are_kept_under_their_names(tmp_path):
    found = read_folder(laid_out(tmp_path / "films", split_up(PLAIN, "train", "external")))
    assert list(found.parts) == ["train", "external"]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "found nothing"),
        ({"COVID/a.dcm": b"x"}, r"1 files \(\.dcm\) but no image"),
        ({"COVID/masks/a.png": picture(0)}, "masks only"),
        ({"COVID/a.png": picture(0)}, "found 1 class"),
        ({"a.png": picture(0), "b.png": picture(0)}, "a.png in 0 folders"),
        (PLAIN | {"stray.png": picture(0)}, "stray.png in 0 folders"),
        (PLAIN | {"COVID/patient/deep.png": picture(0)}, "deep.png in 2 folders"),
        (split_up(PLAIN, "Training", "Testing"), "in 2 folders.*train, val and test"),
        (split_up(PLAIN, "train") | {"train/loose.png": picture(0)}, "loose.png in 1 folders"),
    ],
)
def test_another_layout_is_refused_with_the_layouts_there_are(tmp_path, files, says):
    (tmp_path / "films").mkdir()
    for source in (laid_out(tmp_path / "films", files), zipped(tmp_path / "films.zip", files)):
        with pytest.raises(SourceError, match=says) as refusal:
            read_folder(source)
        assert str(tmp_path) not in str(refusal.value)


def test_a_link_that_points_at_its_own_parent_ends(tmp_path):
    root = laid_out(tmp_path / "films", PLAIN)
    (root / "COVID" / "loop").symlink_to(root, target_is_directory=True)
    with pytest.raises(SourceError, match="folders"):
        read_folder(root)


def test_a_class_folder_may_be_a_link(tmp_path):
    root = laid_out(tmp_path / "films", PLAIN)
    shutil.move(root / "COVID", tmp_path / "elsewhere")
    (root / "COVID").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert read_folder(root).class_names == ("COVID", "Normal")


def test_a_folder_that_may_not_be_read_is_never_passed_over(tmp_path, monkeypatch):
    root = laid_out(tmp_path / "films", PLAIN)

    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refused)
    with pytest.raises(SourceError, match="films cannot be read") as refusal:
        read_folder(root)
    assert str(tmp_path) not in str(refusal.value)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04" + bytes(40)])
def test_a_file_that_is_no_zip_is_refused(tmp_path, content):
    (tmp_path / "films.zip").write_bytes(content)
    with pytest.raises(SourceError, match="does not open as a zip"):
        read_folder(tmp_path / "films.zip")


def test_a_damaged_zip_entry_is_named(tmp_path):
    path = zipped(tmp_path / "films.zip", PLAIN)
    path.write_bytes(path.read_bytes().replace(PLAIN["Normal/1.png"], bytes(len(PLAIN["Normal/1.png"]))))
    with pytest.raises(SourceError, match=r"films.zip: 1.png is damaged"):
        list(read_folder(path).parts["all"].images)


def test_a_zip_entry_too_large_for_an_image_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr("medistill.sources.container.LARGEST_FILE_BYTES", 10)
    with pytest.raises(SourceError, match=r"0\.png unpacks to"):
        list(read_folder(zipped(tmp_path / "films.zip", PLAIN)).parts["all"].images)


@pytest.mark.parametrize(
    ("suffix", "modes"),
    [
        ("png", {"L": 1, "1": 1, "LA": 1, "P": 3, "RGB": 3, "RGBA": 3}),
        ("jpg", {"L": 1, "1": 1, "RGB": 3, "CMYK": 3}),
        ("bmp", {"L": 1, "1": 1, "RGB": 3, "RGBA": 3}),
        ("tiff", {"L": 1, "1": 1, "LA": 1, "P": 3, "RGB": 3, "RGBA": 3, "CMYK": 3}),
    ],
)
def test_every_format_and_mode_becomes_grey_or_color(suffix, modes):
    for mode, channels in modes.items():
        pixels = decode(picture(0, (6, 4), mode, suffix), "x")
        assert (mode, pixels.shape, pixels.dtype) == (mode, (channels, 4, 6), np.uint8)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_grey_is_scaled_by_its_type_and_not_by_its_content(suffix):
    stream = io.BytesIO()
    Image.fromarray(np.array([[0, 257, 4095, 32896]], np.uint16)).save(stream, suffix)
    assert decode(stream.getvalue(), "x")[0].tolist() == [[0, 1, 16, 128]]


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tiff"])
def test_a_truncated_image_is_refused_by_its_file_name_alone(tmp_path, suffix):
    content = picture(0, (32, 32), suffix=suffix)
    files = PLAIN | {f"COVID/patient.{suffix}": content[: len(content) // 2]}
    with pytest.raises(SourceError, match=rf"^patient\.{suffix} cannot be decoded"):
        list(read_folder(laid_out(tmp_path / "films", files)).parts["all"].images)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + bytes(30), b"\xff\xd8\xff" + bytes(30)])
def test_what_is_not_an_image_is_refused(content):
    with pytest.raises(SourceError, match=r"x\.png cannot be decoded"):
        decode(content, "x.png")


@pytest.mark.parametrize("limit", [40, 20], ids=["warning", "error"])
def test_an_image_with_too_many_pixels_is_refused(monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(SourceError, match=f"more than {limit} pixels"):
        decode(picture(0), "x.png")


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_without_a_fixed_range_are_refused(dtype):
    stream = io.BytesIO()
    Image.fromarray(np.ones((4, 4), dtype)).save(stream, "TIFF")
    with pytest.raises(SourceError, match="32-bit"):
        decode(stream.getvalue(), "x.tif")


def test_a_stack_of_slices_is_refused():
    stream = io.BytesIO()
    page = Image.fromarray(np.ones((4, 4), np.uint8))
    page.save(stream, "TIFF", save_all=True, append_images=[page])
    with pytest.raises(SourceError, match="several pictures"):
        decode(stream.getvalue(), "x.tif")


def test_an_orientation_written_by_a_camera_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.fromarray(np.ones((4, 8), np.uint8)).save(stream, "JPEG", exif=exif)
    assert decode(stream.getvalue(), "x.jpg").shape == (1, 8, 4)
