import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from medistill.errors import StorageError
from medistill.export import FORMS, export
from medistill.formation import unfold
from medistill.package import Training, documents, pack
from samples import contents

ODD = ("Normal", "Lung <opacity> | \u00e9")
SOFT = np.array([[0.75, 0.25], [0.1, 0.9]], dtype=np.float32)


@pytest.fixture
def package(tmp_path):
    return pack(tmp_path / "odd.medistill", **contents(class_names=ODD, labels=SOFT))


def test_an_npz_is_what_medmnist_readers_expect(tmp_path, package):
    assert export(package, "medmnist", tmp_path / "out.npz") == 2
    with np.load(tmp_path / "out.npz") as found:
        assert (found["train_images"].dtype, found["train_images"].shape) == (np.uint8, (2, 8, 8))
        assert found["train_labels"].tolist() == [[0], [1]]
        np.testing.assert_array_equal(found["train_probabilities"], SOFT)
        assert tuple(found["class_names"]) == ODD
        expected = np.rint(255 * np.clip(package.images[:, 0], 0, 1))
        np.testing.assert_array_equal(found["train_images"], expected)


def test_color_stays_color(tmp_path):
    images = np.random.default_rng(0).random((2, 3, 8, 8), dtype=np.float32)
    transform = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    color = contents(images=images)
    color["transform"] = type(color["transform"])(**transform)
    package = pack(tmp_path / "color.medistill", **color)
    export(package, "medmnist", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as found:
        assert found["train_images"].shape == (2, 8, 8, 3)
    export(package, "png", tmp_path / "out")
    with Image.open(next((tmp_path / "out").glob("*/*.png"))) as picture:
        assert picture.mode == "RGB"


def test_a_hugging_face_folder_names_its_classes(tmp_path, package):
    export(package, "hf", tmp_path / "hf")
    with (tmp_path / "hf/train/metadata.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["file_name"], row["label"]) for row in rows] == [("00000.png", ODD[0]), ("00001.png", ODD[1])]
    assert json.loads(rows[0]["probabilities"]) == [0.75, 0.25]
    card = (tmp_path / "hf/README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n")
    assert "path: train/*\n" in card.split("---\n")[1]
    assert "Nobody is looked for" in (tmp_path / "hf/DUA.md").read_text(encoding="utf-8")
    assert "Not anonymized" in card
    assert package.digest in card


def test_a_folder_of_pictures_has_a_folder_for_each_class(tmp_path, package):
    export(package, "png", tmp_path / "png")
    found = sorted(path.relative_to(tmp_path / "png").as_posix() for path in (tmp_path / "png").glob("*/*.png"))
    assert found == ["000-normal/00000.png", "001-lung-opacity-e/00001.png"]


@pytest.mark.parametrize("form", FORMS)
def test_nothing_that_exists_is_replaced_and_nothing_half_written_stays(tmp_path, package, form, monkeypatch):
    (tmp_path / "there").write_text("mine")
    with pytest.raises(StorageError, match="there exists and is not replaced"):
        export(package, form, tmp_path / "there")
    assert (tmp_path / "there").read_text() == "mine"
    if form != "medmnist":
        monkeypatch.setattr("medistill.export._save", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(StorageError, match="The disk is full"):
            export(package, form, tmp_path / "new")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["odd.medistill", "there"]


@pytest.mark.parametrize("formation", [2, 4])
@pytest.mark.parametrize("enlarging", ["bilinear", "cosine"])
def test_films_of_a_formation_are_those_that_networks_see(tmp_path, formation, enlarging):
    images = np.random.default_rng(0).random((2, 1, 8, 8), dtype=np.float32)
    given = contents(images=images)
    given["training"] = Training(**given["training"].model_dump() | {"formation": formation, "enlarging": enlarging})
    package = pack(tmp_path / "several.medistill", **given)
    assert export(package, "medmnist", tmp_path / "out.npz") == 2 * formation**2
    seen = unfold(torch.from_numpy(images), formation, enlarging).clamp(0, 1).numpy()[:, 0]
    with np.load(tmp_path / "out.npz") as found:
        assert np.abs(found["train_images"] - 255 * seen).max() <= 0.51
        assert found["train_labels"][:, 0].tolist() == [0] * formation**2 + [1] * formation**2


def test_a_folder_of_films_does_not_say_that_they_hold_films(tmp_path):
    given = contents()
    given["training"] = Training(**given["training"].model_dump() | {"formation": 2})
    package = pack(tmp_path / "several.medistill", **given)
    assert "2 x 2 films" in "".join(documents.card(package.manifest, 2, "*"))
    count = export(package, "hf", tmp_path / "hf")
    card = (tmp_path / "hf/README.md").read_text()
    assert f"{count} synthetic images" in card
    assert "2 x 2 films" not in card


@pytest.mark.parametrize(("form", "file"), [("medmnist", ""), ("hf", "README.md"), ("png", "README.txt")])
def test_every_form_says_what_networks_add_to_their_logits(tmp_path, form, file):
    given = contents()
    for offsets, said in (((0.25, -0.25), 1), (None, 0)):
        given["training"] = given["training"].model_copy(update={"class_offsets": offsets})
        package = pack(tmp_path / f"leaning-{said}.medistill", **given)
        path = tmp_path / f"out-{said}"
        export(package, form, path)
        text = str(np.load(path)["about"]) if form == "medmnist" else (path / file).read_text()
        assert text.count("add [0.25, -0.25] to their logits, in order of label") == said


def test_what_may_show_patients_says_so_in_every_form(tmp_path):
    real = contents()["provenance"].model_copy(update={"start": "real", "leaks_real_images": True})
    for leaks, given in ((True, {"provenance": real}), (False, {})):
        package = pack(tmp_path / f"{leaks}.medistill", **contents(**given))
        said = []
        for form in FORMS:
            export(package, form, tmp_path / f"{form}-{leaks}.npz")
        with np.load(tmp_path / f"medmnist-{leaks}.npz") as found:
            said.append(str(found["about"]))
        said.append((tmp_path / f"hf-{leaks}.npz/README.md").read_text())
        said.append((tmp_path / f"png-{leaks}.npz/README.txt").read_text())
        assert all(("may show real patients" in text) == leaks for text in said)
        assert all("Not anonymized" in text for text in said)
