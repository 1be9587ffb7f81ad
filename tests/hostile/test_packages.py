"""Every way to break a package that we could think of, each refused by name."""

import contextlib
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from medistill.cli import console
from medistill.errors import PackageError, Tampered, Unsupported
from medistill.files import digest
from medistill.package import archive, open_package
from samples import evidence

GOLDEN = (Path(__file__).parents[1] / "package" / "golden.bin").read_bytes()
TENSORS = "data/synthetic.safetensors"
FIRST_PREVIEW = "images/train/00000-normal.png"
Refuse = Callable[..., PackageError]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile") / "sent.medistill"


@pytest.fixture(scope="module")
def refuse(scratch: Path) -> Refuse:
    """Open these bytes as a package, which must be refused with this error and this reason."""

    def opened(content: bytes, kind: type[PackageError] = PackageError, reason: str = "") -> PackageError:
        scratch.write_bytes(content)
        with pytest.raises(kind) as refusal:
            open_package(scratch, allow_unsigned=True)
        message = str(refusal.value)
        assert message.startswith("sent.medistill: ")
        assert reason in message
        assert str(scratch.parent) not in message
        assert message.isprintable()
        assert len(message) < 500
        return refusal.value

    return opened


def files() -> dict[str, bytes]:
    return archive.parse(GOLDEN)


def resealed(parts: dict[str, bytes], **said: Any) -> bytes:
    """A package whose manifest, digests, id and zip all follow from `parts` and `said`, as a forger would make it."""
    body = json.loads(parts["manifest.json"]) | said
    if "files" not in said:
        body["files"] = [
            {"path": path, "bytes": len(parts[path]), "sha256": digest(parts[path])}
            for path in sorted(parts)
            if path != "manifest.json"
        ]
    del body["package_id"]
    body = {key: value for key, value in body.items() if value is not ...}
    manifest = rfc8785.dumps(body | {"package_id": digest(rfc8785.dumps(body))})
    return archive.build(parts | {"manifest.json": manifest})


def said(key: str) -> Any:
    return json.loads(files()["manifest.json"])[key]


def zipped(entries: list[tuple[str | zipfile.ZipInfo, bytes]], **options: Any) -> bytes:
    """What a zip tool makes of the entries."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as target:
        for name, content in entries:
            target.writestr(as_written(name) if isinstance(name, str) else name, content, options.get("compression"))
    return stream.getvalue()


def as_written(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.create_system, entry.external_attr = 3, 0o100644 << 16
    return entry


def test_the_forger_of_these_tests_can_forge(scratch: Path) -> None:
    assert resealed(files()) == GOLDEN == zipped(list(files().items()))


# Bytes


def test_every_byte_counts(scratch: Path) -> None:
    for place in range(len(GOLDEN)):
        flipped = bytearray(GOLDEN)
        flipped[place] ^= 1 << place % 8
        scratch.write_bytes(flipped)
        with pytest.raises(PackageError):
            open_package(scratch, allow_unsigned=True)


def test_a_cut_package_is_refused_wherever_it_ends(refuse: Refuse) -> None:
    for end in {*range(0, len(GOLDEN), 23), *range(len(GOLDEN) - 30, len(GOLDEN))}:
        refuse(GOLDEN[:end])


@pytest.mark.parametrize("junk", [b"\0", b"\n", b"#!/bin/sh\n", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), GOLDEN])
def test_junk_is_refused_before_between_and_behind(refuse: Refuse, junk: bytes) -> None:
    refuse(GOLDEN + junk)
    directory = GOLDEN.index(b"PK\x01\x02")
    refuse(GOLDEN[:directory] + junk + GOLDEN[directory:])
    refuse(junk + GOLDEN)


@given(st.binary(max_size=200), st.sampled_from([b"", b"PK\x03\x04", GOLDEN[:60], GOLDEN[:-40]]))
def test_noise_is_refused(refuse: Refuse, noise: bytes, beginning: bytes) -> None:
    refuse(beginning + noise)


@given(st.integers(0, len(GOLDEN)), st.integers(0, 40), st.binary(max_size=40))
def test_a_package_with_some_bytes_replaced_is_refused(refuse: Refuse, at: int, length: int, other: bytes) -> None:
    changed = GOLDEN[:at] + other + GOLDEN[at + length :]
    if changed != GOLDEN:
        refuse(changed)


# Places


def test_an_empty_file_is_no_package(refuse: Refuse) -> None:
    refuse(b"", PackageError, "found 0 bytes")


@pytest.mark.parametrize("name", ["absent.medistill", "a\0b", "x" * 5000, "absent/absent.medistill"])
def test_what_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(PackageError, match=r"cannot be read|no file can have"):
        open_package(tmp_path / name, allow_unsigned=True)


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="a folder or a device"):
        open_package(tmp_path, allow_unsigned=True)
    os.mkfifo(tmp_path / "pipe.medistill")
    with pytest.raises(PackageError, match="a folder or a device"):
        open_package(tmp_path / "pipe.medistill", allow_unsigned=True)


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.medistill"
    with path.open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(PackageError, match="at most 268,435,456"):
        open_package(path, allow_unsigned=True)


# The archive


def link() -> zipfile.ZipInfo:
    entry = as_written("recipe.toml")
    entry.external_attr = 0o120777 << 16
    return entry


def dated() -> zipfile.ZipInfo:
    entry = as_written("recipe.toml")
    entry.date_time = (2024, 2, 29, 12, 0, 0)
    return entry


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../x", "expected a relative path"),
        ("/etc/passwd", "expected a relative path"),
        ("images/../../x", "expected a relative path"),
        ("c:\\x", "expected a relative path"),
        ("é", "expected a relative path"),
        ("\x1b[31m", "expected a relative path"),
        ("x/", "expected a relative path"),
        ("x" * 5000, "expected a relative path"),
        (link(), "changed"),
        (dated(), "changed"),
    ],
)
def test_an_entry_that_is_not_a_plain_file_is_refused(refuse: Refuse, name: Any, reason: str) -> None:
    others = [(path, content) for path, content in files().items() if path != "recipe.toml"]
    refuse(zipped([*others, (name, files()["recipe.toml"])]), PackageError, reason)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compressed_entry_is_unsupported(refuse: Refuse, method: int) -> None:
    refuse(zipped(list(files().items()), compression=method), Unsupported, "compressed")


def test_a_bomb_is_not_inflated(refuse: Refuse) -> None:
    bomb = zipped([("manifest.json", bytes(2**26))], compression=zipfile.ZIP_DEFLATED)
    refuse(bomb, Unsupported, "compressed")


def test_an_encrypted_entry_is_unsupported(refuse: Refuse) -> None:
    refuse(GOLDEN[:6] + b"\1" + GOLDEN[7:], Unsupported, "encrypted")


def test_a_name_that_comes_twice_is_refused(refuse: Refuse) -> None:
    entries = list(files().items())
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = zipped([*entries, entries[-1]])
    refuse(twice, Tampered, "twice")


def test_another_order_is_refused(refuse: Refuse) -> None:
    first, second, *rest = files().items()
    refuse(zipped([first, *reversed(rest), second]), Tampered, "order")
    refuse(zipped([second, first, *rest]), Tampered, "order")


def test_a_comment_is_refused(refuse: Refuse) -> None:
    refuse(GOLDEN[:-2] + b"\2\0hi", Tampered)


def test_a_zip_tool_that_rewrites_headers_is_noticed(refuse: Refuse) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        for name, content in files().items():
            with target.open(as_written(name), "w", force_zip64=True) as entry:
                entry.write(content)
    refuse(stream.getvalue(), PackageError)


def test_a_directory_that_tells_another_story_is_refused(refuse: Refuse) -> None:
    at = GOLDEN.rindex(b"PK\x01\x02")
    refuse(GOLDEN[:at] + GOLDEN[at:].replace(b"recipe.toml", b"recipe.TOML"), Tampered, "directory")


def test_a_million_entries_are_refused(refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_ENTRIES", 3)
    refuse(GOLDEN, PackageError, "more than 3 entries")


# Files


def without(path: str) -> dict[str, bytes]:
    return {name: content for name, content in files().items() if name != path}


def test_an_unlisted_file_is_refused(refuse: Refuse) -> None:
    refuse(archive.build(files() | {"virus.exe": b"MZ"}), Tampered, "does not list")


def test_a_listed_file_that_nobody_knows_is_unsupported(refuse: Refuse) -> None:
    refuse(resealed(files() | {"virus.exe": b"MZ"}), Unsupported, "virus.exe")
    refuse(resealed(files() | {"images/train/99999-normal.png": b""}), Unsupported, "99999")


@pytest.mark.parametrize("path", [path for path in files() if path != "manifest.json"])
def test_a_missing_file_is_refused(refuse: Refuse, path: str) -> None:
    refuse(archive.build(without(path)), Tampered, "missing")
    if path != "recipe.toml":
        refuse(resealed(without(path)), PackageError, f"found no {path}")


def test_a_package_without_a_manifest_is_refused(refuse: Refuse) -> None:
    refuse(archive.build(without("manifest.json")), PackageError, "found no manifest.json")
    refuse(zipped([("hello.txt", b"hello")]), PackageError, "found no manifest.json")


@pytest.mark.parametrize("path", [path for path in files() if path != "manifest.json"])
def test_a_changed_file_is_refused_even_in_a_flawless_zip(refuse: Refuse, path: str) -> None:
    content = files()[path]
    refuse(archive.build(files() | {path: content[:-1] + bytes([content[-1] ^ 1])}), Tampered, path)
    refuse(archive.build(files() | {path: content + b"\n"}), Tampered, path)


def test_a_preview_that_shows_something_else_is_refused(refuse: Refuse) -> None:
    other = files()["images/train/00001-pneumonia.png"]
    refuse(resealed(files() | {FIRST_PREVIEW: other}), Tampered, "does not show")
    refuse(resealed(files() | {FIRST_PREVIEW: b"<svg onload=alert(1)>"}), Tampered, "does not show")
    table = files()["images/train/metadata.csv"].replace(b"normal\n", b"=cmd()\n")
    refuse(resealed(files() | {"images/train/metadata.csv": table}), Tampered, "metadata.csv")


@pytest.mark.parametrize(
    "text",
    [
        b"= =",
        b"\xff",
        b"a = " + b"[\n" * 30_000,
        b"#" * 70_000,
        b"source.path = '/home'",
        b"a." * 30_000 + b"a = 1",  # half a minute and gigabytes, were it read
    ],
    ids=lambda text: text[:8].decode("ascii", "replace"),
)
def test_a_recipe_that_is_none_is_refused(refuse: Refuse, text: bytes) -> None:
    refuse(resealed(files() | {"recipe.toml": text}), PackageError, "recipe.toml")


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"{ }", b"[" * 10**5, b'{"split":NaN}', b" " * 2**21])
def test_evidence_that_is_none_is_refused(refuse: Refuse, text: bytes) -> None:
    refuse(resealed(files() | {"reports/utility.json": text}), PackageError, "reports/utility.json")


def told(**changes: Any) -> bytes:
    """Evidence with changes to its only row, as a forger would write it."""
    plain = evidence().model_dump(mode="json")
    plain["rows"][0] |= changes
    return rfc8785.dumps(plain)


@pytest.mark.parametrize(
    "text",
    [
        told(name="a\x1b[31m"),
        told(name="a\u202egpj"),
        told(sensitivity={"normal\u3164": {"mean": 0.5, "sd": 0, "n": 1}}),
        told(accuracy={"mean": 68.3, "sd": 0, "n": 1}),
        told(accuracy={"mean": 0.5, "sd": 0, "n": 0}),
        told(balanced_accuracy_interval={"low": -1, "high": 1}),
        told(balanced_accuracy_interval={"low": 0.9, "high": 0.1}),
        told(name="a\U000e0080"),
        told(name="a" + "\u0301" * 20_000 + "\u0316" * 20_000),  # seconds, were it put in order
        told(images=-1),
        told(rate=0),
        rfc8785.dumps(evidence().model_dump(mode="json") | {"rows": []}),
        rfc8785.dumps(evidence().model_dump(mode="json") | {"notes": ["\r"]}),
    ],
)
def test_evidence_with_figures_or_words_that_nobody_measured_is_refused(refuse: Refuse, text: bytes) -> None:
    refuse(resealed(files() | {"reports/utility.json": text}), PackageError, "reports/utility.json")


def test_evidence_in_the_words_of_a_console_is_printed_as_it_is(
    scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "[red][/b]:bug:"
    scratch.write_bytes(resealed(files() | {"reports/utility.json": told(name=name)}))
    utility = open_package(scratch, allow_unsigned=True).utility
    assert utility is not None
    console.out.print(console.rows_table(utility.rows, f"on images of {name}"))
    printed = capsys.readouterr().out
    assert printed.count(name) == 2


# Arrays


def pixels(value: float) -> bytes:
    content = files()[TENSORS]
    return content[:-8] + struct.pack("<f", value) + content[-4:]


def signaling_nan() -> bytes:
    content = files()[TENSORS]
    return content[:-8] + b"\x01\x00\x80\x7f" + content[-4:]


def labelled(first: int) -> bytes:
    content = files()[TENSORS]
    at = 8 + int.from_bytes(content[:8], "little")
    return content[:at] + struct.pack("<q", first) + content[at + 8 :]


def headed(**changes: Any) -> bytes:
    content = files()[TENSORS]
    at = 8 + int.from_bytes(content[:8], "little")
    text = json.dumps(json.loads(content[8:at]) | changes, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + content[at:]


def npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, images=np.array([{"a": 1}], dtype=object))
    return stream.getvalue()


class Bomb:
    def __reduce__(self) -> Any:
        return pytest.fail, ("a pickle was executed",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pixels(float("nan")), "pixel"),
        (signaling_nan(), "pixel"),
        (pixels(float("-inf")), "pixel"),
        (pixels(2e4), "pixel"),
        (labelled(2), "labels"),
        (labelled(-1), "labels"),
        (labelled(2**62), "labels"),
        (files()[TENSORS][:-4] + struct.pack("<f", 0), "inner_rate"),
        (files()[TENSORS][:-4] + struct.pack("<f", -0.02), "inner_rate"),
        (files()[TENSORS][:-4] + struct.pack("<f", float("nan")), "inner_rate"),
        (npz(), TENSORS),
        (pickle.dumps(Bomb()), TENSORS),
        (b"", TENSORS),
        (b"\xff" * 8 + files()[TENSORS][8:], TENSORS),
        (files()[TENSORS] + b"\0", TENSORS),
        (headed(__metadata__={"a": "b"}), TENSORS),
        (headed(images={"dtype": "F32", "shape": [2**40, 1, 8, 8], "data_offsets": [16, 528]}), TENSORS),
        (headed(images={"dtype": "F32", "shape": [2, 1, 8, 8], "data_offsets": [0, 512]}), TENSORS),
    ],
)
def test_arrays_that_nobody_could_train_on_are_refused(refuse: Refuse, content: bytes, reason: str) -> None:
    refuse(resealed(files() | {TENSORS: content}), PackageError, reason)


def test_a_huge_declared_shape_costs_nothing(refuse: Refuse) -> None:
    huge = said("images") | {"count": 50_000, "height": 4096, "width": 4096}
    refuse(resealed(files(), images=huge), Tampered, "bytes in all")
    refuse(resealed(files(), images=huge | {"count": 10**15}), PackageError, "images.count")


def test_labels_of_another_kind_than_the_manifest_says_are_refused(refuse: Refuse) -> None:
    refuse(resealed(files(), images=said("images") | {"labels": "soft"}), Tampered, TENSORS)


# The manifest


@pytest.mark.parametrize("version", [0, 2, 10**15, -1, "1", True, None, [1], {"": 1}, 1.5])
def test_another_version_is_unsupported(refuse: Refuse, version: Any) -> None:
    refuse(resealed(files(), version=version), Unsupported, "Update medistill")


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "other"},
        {"format": ...},
        {"name": ""},
        {"name": "x" * 10**5},
        {"name": "x" * 2**21},
        {"name": "a\x1b[31m"},
        {"name": 1},
        {"classes": ["normal", "normal"]},
        {"classes": ["normal", "a\u202egpj"]},
        {"classes": ["normal", "a\u200b"]},
        {"classes": ["normal", "a\u3164"]},
        {"classes": ["normal", "a\ufe0f"]},
        {"classes": ["normal", "a\u00a0b"]},
        {"classes": ["normal", "a\ue000"]},
        {"classes": ["normal", "a\u2065"]},
        {"classes": ["normal", "a" + "\u0301" * 31]},
        {"classes": ["normal", "=HYPERLINK(1)"]},
        {"classes": ["normal", "a\nb"]},
        {"classes": ["normal", ["pneumonia"]]},
        {"classes": ["normal"]},
        {"classes": []},
        {"classes": [str(index) for index in range(1001)]},
        {"classes": [0] * 200_000},
        {"classes": {"0": "normal", "1": "pneumonia"}},
        {"images": said("images") | {"channels": 2}},
        {"images": said("images") | {"count": "2"}},
        {"images": said("images") | {"count": True}},
        {"images": said("images") | {"height": 0}},
        {"images": said("images") | {"depth": 1}},
        {"transform": {"scale": "unit", "mean": [0.5], "std": [0]}},
        {"transform": {"scale": "unit", "mean": [0.5, 0.5], "std": [1, 1]}},
        {"transform": {"scale": "unit", "mean": [1e300], "std": [1]}},
        {"transform": {"scale": "bytes", "mean": [0.5], "std": [1]}},
        {"transform": {"mean": [0.5], "std": [1]}},
        {"transform": ...},
        {"training": said("training") | {"rate": 0}},
        {"training": said("training") | {"steps": 2**53 - 1}},
        {
            "training": said("training")
            | {"network": said("training")["network"] | {"architecture": "__import__('os')"}}
        },
        {"training": said("training") | {"network": said("training")["network"] | {"architecture": "resnet18bn"}}},
        {"training": said("training") | {"batch_size": None}},
        {"training": said("training") | {"augment": {}}},
        {"training": said("training") | {"augment": said("training")["augment"] | {"scale": "0.1"}}},
        {"provenance": said("provenance") | {"privacy": "Anonymous."}},
        {"provenance": said("provenance") | {"start": "real"}},
        {"provenance": said("provenance") | {"leaks_real_images": 0}},
        {"provenance": said("provenance") | {"data_fingerprint": "A" * 64}},
        {"provenance": said("provenance") | {"software": {"a" * 65: "1"}}},
        {"class_prior": {"normal": 1}},
        {"class_prior": {"normal": 2, "pneumonia": -1}},
        {"class_prior": {"normal": 0.9, "pneumonia": 0.9}},
        {"class_prior": None},
        {"files": ...},
        {"files": {}},
        {"files": [{"path": ["unhashable"]}]},
        {"files": said("files")[::-1]},
        {"files": [*said("files"), said("files")[0]]},
        {"files": [*said("files"), {"path": "../x", "bytes": 0, "sha256": digest(b"")}]},
        {"files": [said("files")[0] | {"bytes": 1}, *said("files")[1:]]},
        {"files": [said("files")[0] | {"mode": "0777"}, *said("files")[1:]]},
        {"signature": "none"},
    ],
    ids=lambda changes: str(changes)[:60].encode("ascii", "replace").decode(),
)
def test_a_statement_that_is_not_allowed_is_refused(refuse: Refuse, changes: dict[str, Any]) -> None:
    refuse(resealed(files(), **changes), PackageError)


NAME = b'"name":"tiny"'


@pytest.mark.parametrize(
    ("new", "kind"),
    [
        (NAME + b" ", Tampered),
        (b'"name":"\\u0074iny"', Tampered),
        (NAME + b"," + NAME, Tampered),
        (b'"name":"tinx"', Tampered),
        (b'"name":"\xff"', PackageError),
        (b'"name":"\\ud800"', PackageError),
        (b'"name":NaN', PackageError),
        (b'"name":1e999', PackageError),
        (b'"name":' + b"9" * 100, PackageError),
        (b'"name":' + b"9" * 10_000, PackageError),
        (b'"name":1.0', Tampered),
        (b'"name":-0', Tampered),
        (b'"name":' + b"[" * 10**5 + b"]" * 10**5, PackageError),
        (b'"name":' + b"[" * 400 + b"]" * 400, PackageError),
        (b'"name":' + b'{"a":' * 10**5, PackageError),
        (b'"name":', PackageError),
    ],
    ids=lambda value: str(value)[:40],
)
def test_json_that_is_not_canonical_is_refused(refuse: Refuse, new: bytes, kind: type[PackageError]) -> None:
    text = files()["manifest.json"]
    assert NAME in text
    refuse(archive.build(files() | {"manifest.json": text.replace(NAME, new)}), kind, "manifest.json")


@pytest.mark.parametrize("text", [b"", b"null", b"[]", b"1", b'"x"', b"\xef\xbb\xbf{}", b" " * (2**24 + 1), b"{}"])
def test_a_manifest_that_is_no_statement_is_refused(refuse: Refuse, text: bytes) -> None:
    refuse(archive.build(files() | {"manifest.json": text}), PackageError, "manifest.json")


def test_a_package_id_of_other_contents_is_refused(refuse: Refuse) -> None:
    text = json.loads(files()["manifest.json"]) | {"package_id": "0" * 64}
    refuse(archive.build(files() | {"manifest.json": rfc8785.dumps(text)}), Tampered, "package_id")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-1e9, 1e9) | st.text(max_size=5),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=5), part, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(json.loads(files()["manifest.json"]))), json_values)
def test_a_manifest_with_anything_in_place_of_a_statement_is_refused_or_opens(
    scratch: Path, key: str, value: Any
) -> None:
    if key == "package_id":
        return
    scratch.write_bytes(resealed(files(), **{key: value}))
    with contextlib.suppress(PackageError):
        assert json.loads(open_package(scratch, allow_unsigned=True).manifest.model_dump_json())[key] == value


@pytest.mark.parametrize("formation", [3, 5, 7, 1, 0, 9, 2.5, "2"])
def test_a_formation_that_no_image_can_have_is_refused(refuse: Refuse, formation: object) -> None:
    said = json.loads(files()["manifest.json"])["training"] | {"formation": formation}
    refuse(resealed(files(), training=said))


def test_a_small_file_does_not_hold_more_films_than_a_package_may_hold_images(refuse: Refuse) -> None:
    """Of 800 images a formation of 8 makes 51,200 films of a pixel each, and as many files to export."""
    form = said("images") | {"count": 800}
    refuse(resealed(files(), images=form, training=said("training") | {"formation": 8}), PackageError, "51,200 films")


@pytest.mark.parametrize("offsets", [[], [1], [1, 2, 3], [1, 101], ["1", "2"], [None, 0], 0.5])
def test_class_offsets_that_are_not_one_number_a_class_are_refused(refuse: Refuse, offsets: object) -> None:
    said = json.loads(files()["manifest.json"])["training"] | {"class_offsets": offsets}
    refuse(resealed(files(), training=said))


@pytest.mark.parametrize("films", [{"enlarging": "cosine"}, {"enlarging": "sharp", "formation": 2}])
def test_an_enlarging_of_no_films_or_an_unknown_one_is_refused(refuse: Refuse, films: dict[str, object]) -> None:
    said = json.loads(files()["manifest.json"])["training"] | films
    refuse(resealed(files(), training=said))
