from pathlib import Path

import pytest
import torch

from medistill.buffer import Buffer
from medistill.errors import MatchingError
from medistill.images import LabelledImages
from medistill.jobs import Silence
from medistill.recipe import Recipe
from medistill.teachers import train_teachers
from toys import TRANSFORM, PowerCut, Watch, films, grow_old, recipe

FILMS = 24
HOW = {"teachers.momentum": 0.9, "teachers.average": 0.5}


def trained(folder: Path, toy: Recipe | None = None, progress: Silence | None = None, images=None) -> Buffer:
    images: LabelledImages = images or films()
    return train_teachers(toy or recipe(HOW), images, TRANSFORM, folder, 1, progress or Silence())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("buffer")
    trained(folder)
    return folder


def test_as_many_teachers_as_asked_for_are_stored_and_nothing_else(uninterrupted):
    assert sorted(contents(uninterrupted)) == ["teacher-0000.safetensors", "teacher-0001.safetensors"]
    buffer = Buffer(uninterrupted, 2, 3)
    assert not torch.equal(buffer.snapshot(0, 3), buffer.snapshot(1, 3))
    assert not torch.equal(buffer.snapshot(0, 0), buffer.snapshot(1, 0))


def test_no_two_snapshots_of_a_teacher_are_alike(uninterrupted):
    buffer = Buffer(uninterrupted, 2, 3)
    walk = [buffer.snapshot(0, epoch) for epoch in range(4)]
    for one in range(4):
        for two in range(one):
            assert float((walk[one] - walk[two]).norm()) > 1e-3


def test_the_same_recipe_gives_the_same_bytes_and_another_seed_others(tmp_path, uninterrupted):
    trained(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(uninterrupted)
    other = trained(tmp_path / "other", recipe(HOW | {"seed": 4}))
    assert not torch.equal(other.snapshot(0, 0), Buffer(uninterrupted, 2, 3).snapshot(0, 0))


def test_a_teacher_does_not_depend_on_how_many_there_are(tmp_path, uninterrupted):
    trained(tmp_path, recipe(HOW | {"teachers.count": 1}))
    assert Buffer(tmp_path, 1, 3).snapshot(0, 3).equal(Buffer(uninterrupted, 2, 3).snapshot(0, 3))


@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 5])
def test_an_interrupted_training_resumes_to_the_same_bytes(tmp_path, uninterrupted, epochs):
    with pytest.raises(PowerCut):
        trained(tmp_path, progress=Watch(power_fails_after=epochs * FILMS))
    left = contents(tmp_path)
    assert left != contents(uninterrupted)
    watch = Watch()
    trained(tmp_path, progress=watch)
    assert contents(tmp_path) == contents(uninterrupted)
    assert len(list(tmp_path.iterdir())) == 2
    finished = 1 if epochs > 3 else 0
    assert watch.begun == [("teachers", 2 * 3 * FILMS, finished * 3 * FILMS)]
    assert watch.advanced == (2 - finished) * 3 * FILMS


def test_a_resumed_training_repeats_only_what_is_missing(tmp_path, uninterrupted, monkeypatch):
    with pytest.raises(PowerCut):
        trained(tmp_path, progress=Watch(power_fails_after=2 * FILMS))
    kept = contents(tmp_path)
    assert sorted(kept) == [f"teacher-0000/epoch-000{epoch}.safetensors" for epoch in (1, 2)]
    written: list[str] = []
    real_write = train_teachers.__globals__["write_whole"]
    monkeypatch.setitem(
        train_teachers.__globals__,
        "write_whole",
        lambda path, content: (written.append(path.name), real_write(path, content)),
    )
    trained(tmp_path)
    assert written == [f"epoch-000{epoch}.safetensors" for epoch in (3, 1, 2, 3)]


@pytest.mark.parametrize("kept", [0, 5, 200, 1000])
def test_a_truncated_epoch_is_trained_again_to_the_same_bytes(tmp_path, uninterrupted, kept):
    with pytest.raises(PowerCut):
        trained(tmp_path, progress=Watch(power_fails_after=2 * FILMS))
    epoch = tmp_path / "teacher-0000" / "epoch-0001.safetensors"
    epoch.write_bytes(epoch.read_bytes()[:kept])
    (half := tmp_path / "teacher-0001.safetensors.77.partial").write_bytes(b"half")
    grow_old(half)
    trained(tmp_path)
    assert contents(tmp_path) == contents(uninterrupted)


def test_a_deleted_teacher_is_trained_again_to_the_same_bytes(tmp_path, uninterrupted):
    trained(tmp_path)
    before = (tmp_path / "teacher-0000.safetensors").stat().st_mtime_ns
    (tmp_path / "teacher-0001.safetensors").unlink()
    trained(tmp_path)
    assert contents(tmp_path) == contents(uninterrupted)
    assert (tmp_path / "teacher-0000.safetensors").stat().st_mtime_ns == before


def test_teachers_are_trained_only_to_the_last_epoch_that_can_be_asked_for(tmp_path):
    watch = Watch()
    buffer = trained(tmp_path, recipe({"teachers.epochs": 50}), watch)
    assert buffer.last_epoch == 3
    assert watch.advanced == 2 * 3 * FILMS
    with pytest.raises(Exception, match="damaged"):
        buffer.snapshot(0, 4)


def test_full_storage_and_differences_hold_the_same_trajectory(tmp_path):
    full, differences = (trained(tmp_path / how, recipe({"teachers.storage": how})) for how in ("full", "differences"))
    step = full.snapshot(0, 2) - full.snapshot(0, 1)
    stored = differences.snapshot(0, 2) - differences.snapshot(0, 1)
    assert 0 < float((stored - step).norm() / step.norm()) < 0.002


def test_a_teacher_that_diverges_is_told(tmp_path):
    with pytest.raises(MatchingError, match="Training diverged in epoch 1"):
        trained(tmp_path, recipe({"teachers.rate": 1e30}))


def test_a_teacher_that_does_not_move_is_refused(tmp_path):
    with pytest.raises(MatchingError, match=r"teacher-0000: epochs 0 and 1 hold the same parameters"):
        trained(tmp_path, recipe({"teachers.rate": 1e-300}))


def test_a_balanced_teacher_knows_nothing_of_how_common_a_class_is(tmp_path):
    """Trained on 2 films of one class and 40 of the other, natural teachers prefer the common class more."""
    from medistill.networks import build
    from medistill.train import predict

    rare = {}
    for sampling in ("natural", "balanced"):
        toy = recipe({"teachers.sampling": sampling, "teachers.count": 1, "teachers.rate": 0.02})
        buffer = trained(tmp_path / sampling, toy, images=films((2, 40)))
        network = build(toy.network, 1, 8, 2)
        rare[sampling] = predict(network, buffer.snapshot(0, 3), films((20, 20), seed=5), TRANSFORM)[:, 0].mean()
    assert rare["balanced"] > rare["natural"] + 0.1
