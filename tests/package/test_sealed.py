import csv
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from pydantic import ValidationError

from medistill.errors import PackageError
from medistill.files import digest
from medistill.package import Manifest, Package, Provenance, Transform, archive, open_package, pack
from medistill.package.previews import render
from medistill.recipe import Encoding
from samples import contents, evidence, full

GOLDEN = Path(__file__).with_name("golden.bin")
Seal = Callable[..., Package]


@pytest.fixture
def seal(tmp_path: Path) -> Seal:
    """Pack the tiny contents, with changes by name, as tiny.medistill."""
    return lambda **changes: pack(tmp_path / "tiny.medistill", **contents(**changes))


def files_of(path: Path) -> dict[str, bytes]:
    return archive.parse(path.read_bytes())


def assert_same(one: Package, other: Package) -> None:
    assert one.manifest == other.manifest
    assert one.digest == other.digest
    assert one.images.tobytes() == other.images.tobytes()
    assert one.labels.tobytes() == other.labels.tobytes()
    assert (one.inner_rate, one.recipe_toml, one.utility) == (other.inner_rate, other.recipe_toml, other.utility)


@pytest.mark.parametrize("given_parts", [contents(), full()], ids=["hard", "full"])
def test_what_was_packed_is_what_opens(tmp_path: Path, given_parts: dict[str, Any]) -> None:
    path = tmp_path / "set.medistill"
    packed, opened = pack(path, **given_parts), open_package(str(path), allow_unsigned=True)
    assert_same(packed, opened)
    assert opened.digest == digest(path.read_bytes())
    assert opened.images.tobytes() == given_parts["images"].tobytes()
    assert np.array_equal(opened.labels, given_parts["labels"])
    assert opened.inner_rate == np.float32(given_parts["inner_rate"])
    assert opened.class_names == given_parts["class_names"]
    assert opened.recipe_toml == given_parts.get("recipe_toml")
    assert opened.utility == given_parts.get("utility")
    assert opened.manifest.class_prior == given_parts.get("class_prior")
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_contents_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.medistill", "two.medistill"):
        pack(tmp_path / name, **full())
    assert (tmp_path / "one.medistill").read_bytes() == (tmp_path / "two.medistill").read_bytes()


def test_a_package_has_these_bytes_on_every_machine_and_in_every_release_that_writes_version_1(
    seal: Seal, tmp_path: Path
) -> None:
    # If this is red, files of earlier releases may no longer open: a new format version is due, not a new golden file.
    seal()
    assert (tmp_path / "tiny.medistill").read_bytes() == GOLDEN.read_bytes()


def test_the_golden_package_opens() -> None:
    assert open_package(GOLDEN, allow_unsigned=True).class_names == ("normal", "pneumonia")


@given(
    arrays.arrays(np.float32, (2, 1, 3, 2), elements=st.floats(-1e4, 1e4, width=32)),
    st.floats(2**-20, 1000, width=32),
)
def test_every_finite_set_survives_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory, images: np.ndarray, rate: float
) -> None:
    path = tmp_path_factory.mktemp("law") / "a.medistill"
    packed = pack(path, **contents(images=images, inner_rate=rate))
    assert packed.images.tobytes() == images.tobytes()
    assert packed.inner_rate == rate
    assert_same(packed, open_package(path, allow_unsigned=True))


def test_targets_are_probabilities_for_hard_and_soft_labels(seal: Seal, tmp_path: Path) -> None:
    assert seal(labels=np.array([1, 0], dtype=np.uint8)).targets.tolist() == [[0, 1], [1, 0]]
    soft = pack(tmp_path / "soft.medistill", **full())
    assert np.array_equal(soft.targets, full()["labels"])
    assert soft.targets.dtype == np.float32


def test_the_arrays_of_a_package_cannot_be_changed(seal: Seal) -> None:
    with pytest.raises(ValueError, match="read-only"):
        seal().images[0] = 0


def test_neither_import_nor_opening_needs_torch(seal: Seal, tmp_path: Path) -> None:
    seal()
    program = (
        "import sys, medistill; assert 'numpy' not in sys.modules, 'importing medistill is not light';"
        "medistill.open_package(sys.argv[1], allow_unsigned=True); import medistill.package;"
        "assert not {'torch', 'sklearn', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program, str(tmp_path / "tiny.medistill")], check=True)


def test_an_unknown_attribute_of_medistill_is_missing() -> None:
    import medistill

    assert medistill.open_package is open_package
    with pytest.raises(AttributeError, match="no attribute 'teleport'"):
        _ = medistill.teleport


def test_the_safetensors_library_reads_the_arrays_and_would_write_the_same_bytes(tmp_path: Path) -> None:
    for name, parts in {"hard": contents(), "soft": full()}.items():
        package = pack(tmp_path / f"{name}.medistill", **parts)
        content = files_of(tmp_path / f"{name}.medistill")["data/synthetic.safetensors"]
        loaded = safetensors.numpy.load(content)
        assert {key: value.tobytes() for key, value in loaded.items()} == {
            "images": package.images.tobytes(),
            "labels": package.labels.tobytes(),
            "inner_rate": np.float32([package.inner_rate]).tobytes(),
        }
        assert safetensors.numpy.save(loaded) == content


def test_previews_show_the_stored_intensities_cut_to_black_and_white(tmp_path: Path) -> None:
    for name, parts in {"grey": contents(), "color": full()}.items():
        pack(tmp_path / f"{name}.medistill", **parts)
        files = files_of(tmp_path / f"{name}.medistill")
        pictures = [path for path in sorted(files) if path.endswith(".png")]
        for path, image in zip(pictures, parts["images"], strict=True):
            shown = np.asarray(Image.open(io.BytesIO(files[path])))
            expected = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
            assert np.array_equal(shown, expected[0] if len(image) == 1 else expected.transpose(1, 2, 0))


def test_a_preview_larger_than_one_deflate_block_opens() -> None:
    images = np.random.default_rng(0).random((1, 3, 150, 200), dtype=np.float32)
    _, content = next(iter(render(images, np.array([0]), ("a", "b"))))
    shown = np.asarray(Image.open(io.BytesIO(content)))
    assert np.array_equal(shown, np.rint(images[0] * np.float32(255)).astype(np.uint8).transpose(1, 2, 0))


def test_the_table_of_previews_names_the_most_probable_class(tmp_path: Path) -> None:
    pack(tmp_path / "a.medistill", **full())
    files = files_of(tmp_path / "a.medistill")
    rows = list(csv.DictReader(io.StringIO(files["images/train/metadata.csv"].decode())))
    assert [row["label"] for row in rows] == ["normal", 'pneumonie, "virale" é', "normal"]
    assert rows[1]["file_name"] == "00001-pneumonie-virale-e.png"
    assert all(f"images/train/{row['file_name']}" in files for row in rows)


def nan_image() -> np.ndarray:
    images = contents()["images"].copy()
    images[1, 0, 3, 3] = np.nan
    return images


BIDI = "normal\u202e"
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "NaN pixels": ({"images": nan_image()}, "image 1 holds a pixel that is not a number"),
    "pixels of another scale": ({"images": contents()["images"] * 1e6}, "beyond ±10,000"),
    "8-bit pixels": ({"images": np.zeros((2, 1, 8, 8), np.uint8)}, "found uint8"),
    "images without channels": ({"images": np.zeros((2, 8, 8), np.float32)}, "expected float32"),
    "no images": ({"images": np.zeros((0, 1, 8, 8), np.float32)}, "none of them 0"),
    "two channels": ({"images": np.zeros((2, 2, 8, 8), np.float32)}, "channels"),
    "a label too many": ({"labels": np.array([0, 1, 1])}, "found 3 for 2 images"),
    "a label beyond the classes": ({"labels": np.array([0, 2])}, "from 0 to 2; expected 0 to 1"),
    "a negative label": ({"labels": np.array([-1, 0])}, "from -1 to 0"),
    "fractional labels": ({"labels": np.array([0.0, 1.0])}, "expected integers"),
    "soft labels of another width": ({"labels": np.ones((2, 3), np.float32) / 3}, "expected integers"),
    "soft labels that do not sum to 1": ({"labels": np.ones((2, 2), np.float32)}, "sum to 1"),
    "negative soft labels": ({"labels": np.array([[2, -1], [0, 1]], np.float32)}, "sum to 1"),
    "NaN soft labels": ({"labels": np.full((2, 2), np.nan, np.float32)}, "sum to 1"),
    "a rate of zero": ({"inner_rate": 0.0}, "above 0"),
    "a rate that is NaN": ({"inner_rate": float("nan")}, "above 0"),
    "a rate that vanishes in float32": ({"inner_rate": 1e-60}, "above 0"),
    "an infinite rate": ({"inner_rate": float("inf")}, "at most 1000"),
    "one class": ({"class_names": ("normal",)}, "classes"),
    "a class twice": ({"class_names": ("normal", "normal")}, "comes twice"),
    "a class without a name": ({"class_names": ("", "b")}, "at least 1 character"),
    "a class name without end": ({"class_names": ("a" * 65, "b")}, "at most 64 characters"),
    "a class name that turns text around": ({"class_names": (BIDI, "b")}, "text-direction"),
    "a class name of two lines": ({"class_names": ("a\nb", "c")}, "control"),
    "a class name in pieces": ({"class_names": ("e\u0301", "c")}, "normal form C"),
    "a class name that is no text": ({"class_names": ("\ud800", "c")}, "classes"),
    "a class name that is a formula": ({"class_names": ("=1+1", "c")}, "formula"),
    "a class name that is a wide formula": ({"class_names": ("\uff1d1", "c")}, "formula"),
    "a class name that ends in a space": ({"class_names": ("normal ", "c")}, "space"),
    "a set without a name": ({"name": ""}, "name"),
    "a transform for color": ({"transform": Transform(mean=(0.0,) * 3, std=(1.0,) * 3)}, "expected one a channel"),
    "a prior of other classes": ({"class_prior": {"normal": 1.0}}, "exactly the classes"),
    "a prior of more than all": ({"class_prior": {"normal": 1.0, "pneumonia": 0.5}}, "sum to 1"),
    "a recipe that is not TOML": ({"recipe_toml": "= ="}, "not TOML"),
    "a recipe that is no text": ({"recipe_toml": "a = '\ud800'"}, "not TOML"),
    "a recipe of endless depth": ({"recipe_toml": "a = " + "[\n" * 30_000}, "not TOML"),
    "a recipe of an endless line": ({"recipe_toml": "#" * 1001}, "a line of 1,001 bytes"),
    "a recipe of endless length": ({"recipe_toml": "#\n" * 40_000}, "at most 65,536"),
    "a recipe with a path": ({"recipe_toml": '[source]\npath = "films"'}, "holder's disk"),
    "evidence about other data": ({"utility": evidence(data_fingerprint="c" * 64)}, "data_fingerprint is not"),
    "evidence about another recipe": ({"utility": evidence(recipe_digest="c" * 64)}, "recipe_digest is not"),
    "evidence beyond JSON": ({"utility": evidence(judged_images=2**60)}, "below 2"),
}


@pytest.mark.parametrize(("changes", "reason"), REFUSED.values(), ids=REFUSED)
def test_pack_refuses_and_leaves_no_file(seal: Seal, tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(PackageError, match=r"^tiny\.medistill: ") as refusal:
        seal(**changes)
    assert reason in str(refusal.value)
    assert str(tmp_path) not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_pack_refuses_another_suffix(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"set\.zip: expected a name that ends in \.medistill\. Name it set\.med"):
        pack(tmp_path / "set.zip", **contents())
    assert list(tmp_path.iterdir()) == []


def test_a_refused_pack_keeps_the_package_that_was_there(seal: Seal, tmp_path: Path) -> None:
    before = seal().digest
    with pytest.raises(PackageError):
        seal(images=nan_image())
    assert open_package(tmp_path / "tiny.medistill", allow_unsigned=True).digest == before


def test_images_that_started_as_real_ones_are_said_to_leak() -> None:
    with pytest.raises(ValidationError, match="leaks_real_images"):
        Provenance(method="anything", start="real", leaks_real_images=False, software={})


def test_the_specification_names_every_statement_of_the_manifest() -> None:
    text = (Path(__file__).parents[2] / "docs" / "format.md").read_text()

    def keys(schema: dict[str, Any], definitions: dict[str, Any]) -> set[str]:
        found = set(schema.get("properties", {}))
        return found.union(*(keys(part, {}) for part in definitions.values()))

    schema = Manifest.model_json_schema()
    missing = {key for key in keys(schema, schema["$defs"]) if f"`{key}`" not in text}
    assert not missing


@given(
    arrays.arrays(np.float32, (2, 1, 3, 2), elements=st.floats(-2, 3, width=32)), st.sampled_from(["float16", "uint8"])
)
def test_a_smaller_encoding_is_off_by_at_most_what_it_states_and_is_what_the_maker_has_too(
    tmp_path_factory: pytest.TempPathFactory, images: np.ndarray, encoding: Encoding
) -> None:
    path = tmp_path_factory.mktemp("law") / "a.medistill"
    packed = pack(path, **contents(images=images), encoding=encoding)
    assert_same(packed, open_package(path, allow_unsigned=True))
    form, inside = packed.manifest.images, (images >= 0) & (images <= 1)
    assert np.abs(packed.images - images)[inside].max(initial=0) <= form.error * (1 + 1e-4)
    again = pack(path, **contents(images=packed.images.copy()), encoding="float32")
    assert again.images.tobytes() == packed.images.tobytes()


@pytest.mark.parametrize(("encoding", "pixel_bytes"), [("float32", 4), ("float16", 2), ("uint8", 1)])
def test_an_encoding_has_the_librarys_spelling_and_its_size(
    seal: Seal, tmp_path: Path, encoding: Encoding, pixel_bytes: int
) -> None:
    package = seal(encoding=encoding)
    found = safetensors.numpy.load(files_of(tmp_path / "tiny.medistill")["data/synthetic.safetensors"])
    assert (found["images"].dtype.name, found["images"].nbytes) == (encoding, 128 * pixel_bytes)
    assert safetensors.numpy.save(found) == files_of(tmp_path / "tiny.medistill")["data/synthetic.safetensors"]
    assert (package.manifest.images.range is not None) == (encoding == "uint8")


def test_images_of_one_value_can_be_stored_in_eight_bits(seal: Seal) -> None:
    flat = np.full((2, 1, 8, 8), 0.25, dtype=np.float32)
    assert np.array_equal(seal(images=flat, encoding="uint8").images, flat)
