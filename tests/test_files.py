import errno
import math
import os
from pathlib import Path

import pytest

from medistill.errors import StorageError
from medistill.files import (
    append_line,
    digest,
    free_bytes,
    read_json,
    remove_partials,
    storage_errors,
    whole_folder,
    write_json,
)
from medistill.files import write_whole as write
from toys import grow_old


def refusing(number: int):
    def refuse(*arguments: object) -> None:
        raise OSError(number, os.strerror(number), "/secret/folder/file")

    return refuse


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_whole_and_no_part_of_the_new(tmp_path, monkeypatch, step):
    path = tmp_path / "kept.bin"
    write(path, b"old")
    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), refusing(errno.ENOSPC))
    with pytest.raises(StorageError, match=r"^kept\.bin: No space left on device\. The disk is full: free some space"):
        write(path, b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["kept.bin"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EACCES, "choose a folder you may write to"),
        (errno.EROFS, "choose another folder"),
        (errno.EISDIR, "name a file"),
        (errno.ENOENT, "check the spelling"),
        (errno.EIO, "Run the same command again"),
    ],
)
def test_a_refusal_says_what_to_do_and_names_no_folder(number, advice):
    with pytest.raises(StorageError, match=advice) as caught, storage_errors(Path("/secret/folder/file.bin")):
        refusing(number)()
    assert str(caught.value).startswith(f"file.bin: {os.strerror(number)}.")
    assert "/" not in str(caught.value).replace("Input/output", "")


@pytest.mark.parametrize("kind", [OSError, FileNotFoundError])
def test_a_refusal_without_a_number_names_no_folder_either(kind):
    with pytest.raises(StorageError, match=r"^file\.bin: ") as caught, storage_errors(Path("/secret/file.bin")):
        raise kind("cannot open /secret/file.bin")
    assert "secret" not in str(caught.value)


def test_a_write_makes_its_folders_and_replaces_what_was_there(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    write(path, b"long content")
    write(path, b"short")
    assert path.read_bytes() == b"short"


def test_writing_where_a_folder_is_says_so(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(StorageError, match="It is a folder: name a file"):
        write(tmp_path / "taken", b"content")
    assert [file.name for file in tmp_path.iterdir()] == ["taken"]


def test_only_what_interrupted_writes_left_is_removed(tmp_path):
    kept = [tmp_path / "a.bin", tmp_path / "deep" / "b.partial.bin", tmp_path / "partial"]
    left = [tmp_path / "a.bin.123.partial", tmp_path / "deep" / "b.9.partial"]
    for path in kept + left:
        write(path, b"content")
        grow_old(path)
    (tmp_path / "folder.partial").mkdir()
    grow_old(tmp_path / "folder.partial")
    write(being_written := tmp_path / "c.bin.7.partial", b"cont")
    remove_partials(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted([*kept, being_written])


def test_a_folder_is_whole_or_absent(tmp_path):
    with whole_folder(tmp_path / "new" / "folder") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "a.txt").write_text("a")
        assert not (tmp_path / "new" / "folder").exists()
    assert (tmp_path / "new" / "folder" / "inner" / "a.txt").read_text() == "a"
    with pytest.raises(StorageError, match="It is a folder"), whole_folder(tmp_path / "other") as folder:
        folder.write_text("a file in its place")
    with pytest.raises(StorageError, match="folder: "), whole_folder(tmp_path / "new" / "folder"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["folder"]


def test_a_folder_clears_away_what_a_killed_process_left_of_it_and_nothing_else(tmp_path):
    names = {"mine": ".out[1]-a1b2c3d4.partial", "young": ".out[1]-b2c3d4e5.partial", "other": ".out-a1b2c3d4.partial"}
    for kind, name in names.items():
        (tmp_path / name / "inner").mkdir(parents=True)
        if kind != "young":
            grow_old(tmp_path / name)
    with whole_folder(tmp_path / "out[1]") as folder:
        (folder / "a.txt").write_text("a")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["out[1]", names["young"], names["other"]])


def test_removing_partials_from_a_folder_that_does_not_exist_is_no_error(tmp_path):
    remove_partials(tmp_path / "absent")


def test_json_comes_back_and_is_the_same_bytes_in_any_order(tmp_path):
    value = {"b": [1, 2.5, None, "é"], "a": {"y": True, "x": "ok"}}
    write_json(tmp_path / "one.json", value)
    write_json(tmp_path / "two.json", dict(reversed(value.items())))
    assert read_json(tmp_path / "one.json") == value
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


def test_json_refuses_what_is_not_a_number(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "bad.json", {"value": math.nan})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b""])
def test_a_damaged_json_file_is_refused_by_name(tmp_path, content):
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(StorageError, match=r"^bad\.json is not readable as JSON\. Delete it"):
        read_json(tmp_path / "bad.json")


def test_a_missing_json_file_is_refused_by_name(tmp_path):
    with pytest.raises(StorageError, match=r"^absent\.json: .*check the spelling"):
        read_json(tmp_path / "absent.json")


def test_a_log_keeps_what_was_there(tmp_path):
    for line in ("first", "zweite Zeile: ä"):
        append_line(tmp_path / "logs" / "run.log", line)
    assert (tmp_path / "logs" / "run.log").read_text(encoding="utf-8") == "first\nzweite Zeile: ä\n"


def test_free_space_is_known_before_a_folder_exists(tmp_path):
    assert free_bytes(tmp_path / "not" / "yet") == pytest.approx(free_bytes(tmp_path), rel=0.05)


def test_a_digest_is_sha_256():
    assert digest(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
