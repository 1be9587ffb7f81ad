"""A CSV of image files: what it gives, and the line number of everything wrong with it."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medistill.errors import SourceError
from medistill.sources.table import image_files, read_table

LINES = ["path,label,group,split", "a.png,ill,p1,train", "b.png,well,p2,train", "sub/c.png,ill,p3,val"]


def films(folder: Path, lines: list[str], encoding: str = "utf-8") -> Path:
    """Three small images below `folder` and a CSV beside them."""
    (folder / "sub").mkdir()
    for shade, name in enumerate(("a.png", "b.png", "sub/c.png")):
        Image.fromarray(np.full((8, 8), 10 * shade, np.uint8)).save(folder / name)
    path = folder / "films.csv"
    path.write_bytes("\r\n".join(lines).encode(encoding))
    return path


def test_a_line_gives_an_image_its_class_group_and_split(tmp_path):
    found = read_table(films(tmp_path, LINES))
    assert (found.kind, found.class_names, found.named) == ("csv", ("ill", "well"), True)
    assert list(found.parts) == ["train", "validation"]
    train, validation = found.parts.values()
    assert (train.labels.tolist(), train.groups.tolist()) == ([0, 1], ["p1", "p2"])
    assert [int(image.max()) for image in train.images] == [0, 10]
    assert [int(image.max()) for image in validation.images] == [20]


def test_the_files_of_a_table_are_those_it_lists_or_the_archive_beside_it(tmp_path):
    path = films(tmp_path, LINES)
    (tmp_path / "unlisted.png").write_bytes(b"")
    assert image_files(path) == [tmp_path / name for name in ("a.png", "b.png", "sub/c.png")]
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as archive:
        archive.write(tmp_path / "a.png", "a.png")
    assert image_files(path) == [tmp_path / "films.zip"]


def test_group_and_split_may_be_absent_and_further_columns_are_ignored(tmp_path):
    found = read_table(films(tmp_path, ["age,label,path", "61,ill,a.png", "70,well,./b.png"]))
    assert list(found.parts) == ["all"]
    assert found.parts["all"].groups is None


def test_a_mark_that_spreadsheets_put_first_is_no_part_of_the_header(tmp_path):
    assert read_table(films(tmp_path, LINES, "utf-8-sig")).class_names == ("ill", "well")


def test_an_image_without_a_group_is_a_patient_of_its_own(tmp_path):
    lines = ["path,label,group", "a.png,ill,", "b.png,well,p2", "sub/c.png,ill,"]
    found = read_table(films(tmp_path, lines))
    assert len(set(found.parts["all"].groups.tolist())) == 3
    assert found.notes == ("2 images have no group: each counts as a patient of its own.",)


def test_a_zip_of_the_same_name_is_read_instead_of_the_folder(tmp_path):
    path = films(tmp_path, LINES)
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as archive:
        for name in ("a.png", "b.png", "sub/c.png"):
            archive.write(tmp_path / name, name)
            (tmp_path / name).unlink()
    assert [int(image.max()) for image in read_table(path).parts["validation"].images] == [20]


@pytest.mark.parametrize(
    ("number", "line", "says"),
    [
        (0, "file,label", "line 1 has no column path"),
        (0, "path;label;group;split", "line 1 has no column path.*commas"),
        (0, "path,class", "line 1 has no column label"),
        (2, "b.png,,p2,train", "line 3 has no label"),
        (2, "b.png", "line 3 has no label"),
        (2, "b.png,  ,p2,train", "line 3 has no label"),
        (2, "b.png,well,p2,holdout", "line 3 has an unknown word in the column split"),
        (2, "b.png,well,Doe, Jane,train", "line 3 has an unknown word in the column split.*quotes"),
        (2, "b.png,well,p2,", "line 3 has an unknown word in the column split"),
        (3, "a.png,well,p2,train", "line 4 lists a.png again, after line 2"),
        (3, "./a.png,well,p2,train", "line 4 lists a.png again"),
        (2, "sub/missing.png,well,p2,train", "line 3 lists missing.png, which is not there"),
        (2, "../b.png,well,p2,train", "line 3 has a path"),
        (2, "sub/../b.png,well,p2,train", "line 3 has a path"),
        (2, "/etc/b.png,well,p2,train", "line 3 has a path"),
        (2, r"C:\films\b.png,well,p2,train", "line 3 has a path"),
        (2, r"..\b.png,well,p2,train", "line 3 has a path"),
        (2, ",well,p2,train", "line 3 has a path"),
        (2, "b.png,ill,p2,train", "found 1 class"),
    ],
)
def test_what_is_wrong_is_refused_with_its_line(tmp_path, number, line, says):
    lines = [line if index == number else old for index, old in enumerate(LINES)]
    with pytest.raises(SourceError, match=says) as refusal:
        read_table(films(tmp_path, lines))
    assert str(tmp_path) not in str(refusal.value)
    assert "sub/" not in str(refusal.value)


def test_a_header_alone_is_refused(tmp_path):
    with pytest.raises(SourceError, match="no images"):
        read_table(films(tmp_path, LINES[:1]))


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(SourceError, match="line 1"):
        read_table(films(tmp_path, []))


@pytest.mark.parametrize("content", [b"path,label\n\xff\xfe\x00", b'path,label\n"' + b"x" * 200_000])
def test_what_is_no_text_table_is_refused(tmp_path, content):
    path = tmp_path / "films.csv"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"films\.csv cannot be read as a CSV"):
        read_table(path)
