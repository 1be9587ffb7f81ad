import pytest
import torch

from medistill.errors import StorageError
from medistill.kept import keep, recall, told_apart


def test_what_is_kept_is_recalled_and_what_is_damaged_counts_as_none(tmp_path):
    path = tmp_path / "deep/kept.safetensors"
    assert recall(path) is None
    keep(path, {"params": torch.arange(3.0)}, {"seconds": "1.5"})
    found = recall(path)
    assert found is not None
    assert torch.equal(found.tensors["params"], torch.arange(3.0))
    assert found.about == {"seconds": "1.5"}
    path.write_bytes(path.read_bytes()[:-1])
    assert recall(path) is None


def test_tensors_alone_are_kept_too(tmp_path):
    keep(tmp_path / "kept", {"3": torch.ones(2)})
    found = recall(tmp_path / "kept")
    assert found is not None
    assert found.about == {}


def test_a_folder_in_the_place_of_a_file_is_told(tmp_path):
    (tmp_path / "kept").mkdir()
    with pytest.raises(StorageError):
        recall(tmp_path / "kept")


def test_a_name_tells_every_setting_and_no_order():
    name = told_apart({"rate": 0.1, "seed": 3})
    assert name == told_apart({"seed": 3, "rate": 0.1})
    assert len({name, told_apart({"rate": 0.1, "seed": 4}), told_apart({"rate": 0.1})}) == 3
    assert len(name) == 24
