import json
import os
import subprocess
import sys
import zipfile
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from medistill.files import digest
from medistill.package import Manifest, Terms, medmnist, pack, tensors
from medistill.package.documents import LEAKS, escaped, in_a_sentence
from samples import contents, full

SCHEMA = Path(__file__).parents[2] / "docs" / "manifest.schema.json"
EVIL = "<script>alert(1)</script> | [x](javascript:1)"


def entries(folder: Path, **changes: Any) -> dict[str, bytes]:
    path = folder / "set.medistill"
    pack(path, **contents(**changes))
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_medmnist_file_opens_with_numpy_and_holds_the_previews_pixels(tmp_path: Path) -> None:
    (tmp_path / "set.npz").write_bytes(entries(tmp_path)[medmnist.PATH])
    with np.load(tmp_path / "set.npz", allow_pickle=False) as found:
        assert set(found) == {"train_images", "train_labels"}
        images, labels = found["train_images"], found["train_labels"]
    assert (images.dtype, images.shape) == (np.uint8, (2, 8, 8))
    assert np.array_equal(images, np.rint(255 * contents()["images"].clip(0, 1))[:, 0])
    assert (labels.dtype, labels.tolist()) == (np.uint8, [[0], [1]])


@pytest.mark.parametrize(("classes", "kind"), [(256, np.uint8), (300, np.uint16)])
def test_many_classes_take_wider_labels_and_color_comes_last(tmp_path: Path, classes: int, kind: type) -> None:
    labels = np.array([0, classes - 1])
    (tmp_path / "set.npz").write_bytes(medmnist.render(np.zeros((2, 3, 5, 7), dtype=np.float32), labels))
    with np.load(tmp_path / "set.npz", allow_pickle=False) as found:
        assert found["train_images"].shape == (2, 5, 7, 3)
        assert found["train_labels"].dtype == kind
        assert found["train_labels"].ravel().tolist() == labels.tolist()


def test_croissant_names_files_digests_classes_and_terms(tmp_path: Path) -> None:
    terms = Terms(use="any-research", ethics_approval=True, expires=date(2031, 1, 31), contact="ward@a.example")
    files = entries(tmp_path, terms=terms)
    said = json.loads(files["croissant.json"])
    listed = {each["@id"]: each["sha256"] for each in said["distribution"] if "sha256" in each}
    assert listed == {path: digest(files[path]) for path in (tensors.PATH, medmnist.PATH, "images/train/metadata.csv")}
    assert [each["classes/name"] for each in said["recordSet"][0]["data"]] == ["normal", "pneumonia"]
    assert [each["termCode"] for each in said["usageInfo"]] == [
        "DUO_0000042",
        "DUO_0000046",
        "DUO_0000021",
        "DUO_0000025",
    ]
    assert said["creator"]["name"] == "ward@a.example"
    assert said["prov:wasDerivedFrom"]["@id"] == f"urn:sha256:{'a' * 64}"


def test_the_agreement_says_what_the_terms_say(tmp_path: Path) -> None:
    narrow, wide = (
        entries(tmp_path, terms=terms)["DUA.md"].decode()
        for terms in (
            Terms(),
            Terms(use="any", commercial=True, redistribution=True, ethics_approval=True, expires=date(2031, 1, 31)),
        )
    )
    assert "Only for research on health, medicine or biology. Not for profit." in narrow
    assert "may not be passed on" in narrow
    assert "For any lawful purpose. Also for profit." in wide
    assert "may be passed on, whole" in wide
    assert "until 2031-01-31, included" in wide
    assert "ethics committee has to approve" in wide
    assert all("Nobody may try to find, recognize or contact a person" in text for text in (narrow, wide))


def test_terms_fit_into_a_sentence() -> None:
    assert in_a_sentence(Terms(expires=date(2031, 1, 31), ethics_approval=True)) == (
        "Only for research on health, medicine or biology. Not for profit. Not to be passed on. Needs an ethics "
        "approval. Until 2031-01-31. Nobody may be looked for in them."
    )


def test_names_cannot_write_markup_into_the_card(tmp_path: Path) -> None:
    files = entries(tmp_path, name=EVIL, class_names=(EVIL, "b"), terms=Terms(contact=EVIL))
    for path in ("README.md", "DUA.md"):
        *_, body = files[path].decode().split("---\n", 2)
        assert EVIL not in body
        assert escaped(EVIL) in body
    assert json.loads(files["croissant.json"])["name"] == EVIL


def test_a_card_warns_where_real_images_may_show(tmp_path: Path) -> None:
    provenance = contents()["provenance"]
    leaking = provenance.model_copy(update={"start": "real", "leaks_real_images": True})
    assert LEAKS in entries(tmp_path, provenance=leaking)["README.md"].decode()
    assert LEAKS not in entries(tmp_path)["README.md"].decode()


def test_nothing_is_claimed_of_images_that_may_show_patients(tmp_path: Path) -> None:
    provenance = contents()["provenance"]
    leaking = provenance.model_copy(update={"leaks_real_images": True})
    for given, claims in ((provenance, True), (leaking, False)):
        files = entries(tmp_path, provenance=given)
        collection = json.loads(files["croissant.json"])["rai:dataCollection"]
        assert ("No image was taken of a patient" in collection) == claims
        for name in ("README.md", "croissant.json"):
            assert ("synthetic images" in files[name].decode()) == claims
        assert ("\n- synthetic\n" in files["README.md"].decode()) == claims


def test_the_schema_is_the_writers() -> None:
    # Where it is red: SCHEMA.write_text(json.dumps(Manifest.model_json_schema(), indent=1) + "\n")
    assert json.loads(SCHEMA.read_text()) == Manifest.model_json_schema()


@pytest.mark.parametrize("given_parts", [contents(), full()], ids=["hard", "full"])
def test_what_is_written_obeys_the_schema(tmp_path: Path, given_parts: dict[str, Any]) -> None:
    said = json.loads(entries(tmp_path, **given_parts)["manifest.json"])
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    validator.validate(said)
    assert not validator.is_valid(said | {"more": 1})
    assert not validator.is_valid({key: value for key, value in said.items() if key != "terms"})


READERS = {
    "mlcroissant": """
import sys, mlcroissant
described = mlcroissant.Dataset(f"{sys.argv[1]}/croissant.json")
assert not described.metadata.ctx.issues.errors
rows = [{key.split("/")[1]: value.decode() for key, value in row.items()} for row in described.records("images")]
""",
    "datasets": """
import sys, datasets
found = datasets.load_dataset(sys.argv[1], cache_dir=f"{sys.argv[1]}/../cache", split="train")
assert all(row["image"].size == (8, 8) for row in found)
rows = [{"label": row["label"]} for row in found]
""",
}


@pytest.mark.parametrize("tool", READERS)
def test_an_unzipped_package_opens_in_the_tools_that_people_have(tmp_path: Path, tool: str) -> None:
    files = entries(tmp_path)
    for path, content in files.items():
        (tmp_path / "folder" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / path).write_bytes(content)
    program = READERS[tool] + "assert [row['label'] for row in rows] == ['normal', 'pneumonia'], rows"
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    subprocess.run([sys.executable, "-c", program, tmp_path / "folder"], check=True, env=offline)
