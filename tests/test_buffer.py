import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from medistill.buffer import Buffer, write_trajectory
from medistill.errors import MatchingError, StorageError


def snapshots(epochs: int = 4, size: int = 5000, seed: int = 0) -> list[torch.Tensor]:
    """A walk like a teacher's: weights of about 0.1 that move by about 0.002 an epoch."""
    generator = torch.Generator().manual_seed(seed)
    walk = [0.1 * torch.randn(size, generator=generator)]
    for _ in range(epochs):
        walk.append(walk[-1] + 0.002 * torch.randn(size, generator=generator))
    return walk


def stored(folder, storage="differences", epochs: int = 4, teachers: int = 1) -> Buffer:
    buffer = Buffer(folder, teachers, epochs)
    for teacher in range(teachers):
        write_trajectory(buffer.path(teacher), snapshots(epochs, seed=teacher), storage, {"teacher": str(teacher)})
    return buffer


def test_as_many_teachers_as_asked_for_are_stored_each_with_its_own_trajectory(tmp_path):
    buffer = stored(tmp_path, teachers=3)
    assert len(list(tmp_path.iterdir())) == 3
    assert buffer.missing() == []
    assert Buffer(tmp_path, 5, 4).missing() == [3, 4]
    ends = [buffer.snapshot(teacher, 4) for teacher in range(3)]
    assert all(not torch.equal(ends[a], ends[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_full_storage_gives_back_the_very_bits(tmp_path):
    buffer = stored(tmp_path, "full")
    for epoch, params in enumerate(snapshots()):
        assert torch.equal(buffer.snapshot(0, epoch), params)


def test_differences_corrupt_a_teachers_step_by_less_than_two_thousandths(tmp_path):
    buffer, true = stored(tmp_path, "differences"), snapshots()
    assert torch.equal(buffer.snapshot(0, 0), true[0])
    for start in range(4):
        step = true[start + 1] - true[start]
        found = buffer.snapshot(0, start + 1) - buffer.snapshot(0, start)
        assert 0 < float((found - step).norm() / step.norm()) < 0.002


@pytest.mark.parametrize("size", [1e-30, 1e-9, 1e-6, 1.0, 1e6, 1e30])
def test_differences_are_as_exact_for_teachers_that_hardly_move_and_for_giants(tmp_path, size):
    """Plain float16 knows no number below 6e-8 and none above 65504."""
    generator = torch.Generator().manual_seed(0)
    walk = [torch.zeros(100), *(size * torch.randn(2, 100, generator=generator))]
    buffer = Buffer(tmp_path, 1, 2)
    write_trajectory(buffer.path(0), walk, "differences", {})
    for epoch in (1, 2):
        assert float((buffer.snapshot(0, epoch) / size - walk[epoch] / size).norm()) < 0.001 * 10


def test_differences_take_about_half_the_space(tmp_path):
    full, differences = (
        stored(tmp_path / how, how, epochs=20).path(0).stat().st_size for how in ("full", "differences")
    )
    assert differences < 0.55 * full


def test_a_snapshot_is_float32_and_owns_its_memory(tmp_path):
    buffer = stored(tmp_path)
    for epoch in (0, 2):
        first = buffer.snapshot(0, epoch)
        kept = first.clone()
        assert first.dtype == torch.float32
        first.zero_()
        assert torch.equal(buffer.snapshot(0, epoch), kept)


def test_snapshots_that_are_alike_are_refused_by_their_epochs(tmp_path):
    walk = snapshots()
    walk[3] = walk[2].clone()
    with pytest.raises(MatchingError, match="teacher-0000: epochs 2 and 3 hold the same parameters"):
        write_trajectory(tmp_path / "teacher-0000.safetensors", walk, "differences", {})
    assert list(tmp_path.iterdir()) == []


def test_copies_of_one_live_network_are_refused(tmp_path):
    """What `p.detach().cpu()` stores on a CPU: one network, many times."""
    live = snapshots()[0]
    aliases = []
    for _ in range(4):
        live += 0.01
        aliases.append(live.detach().cpu())
    with pytest.raises(MatchingError, match="epochs 0 and 1 hold the same parameters"):
        write_trajectory(tmp_path / "teacher-0000.safetensors", aliases, "full", {})


@pytest.mark.parametrize("kept", [0, 4, 100, 30_000])
def test_a_damaged_file_is_a_storage_error(tmp_path, kept):
    buffer = stored(tmp_path)
    path = buffer.path(0)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(StorageError, match=r"^teacher-0000\.safetensors is damaged\. Delete it and run"):
        buffer.snapshot(0, 1)


@pytest.mark.parametrize("content", [save({"other": torch.zeros(2)}), save({"other": torch.zeros(2)}, {"about": "{}"})])
def test_a_file_of_another_kind_is_a_storage_error(tmp_path, content):
    Buffer(tmp_path, 1, 4).path(0).write_bytes(content)
    with pytest.raises(StorageError, match="is damaged"):
        Buffer(tmp_path, 1, 4).snapshot(0, 1)


def test_a_missing_teacher_is_a_storage_error_without_its_folder(tmp_path):
    with pytest.raises(StorageError, match=r"^teacher-0000\.safetensors: ") as caught:
        Buffer(tmp_path, 1, 4).snapshot(0, 1)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("expected", [3, 6])
def test_another_number_of_epochs_is_a_storage_error(tmp_path, expected):
    stored(tmp_path, epochs=4)
    with pytest.raises(StorageError, match=rf"holds epochs 0 to 4; expected 0 to {expected}\. Delete it"):
        Buffer(tmp_path, 1, expected).snapshot(0, 1)


def test_a_trajectory_says_what_made_it_and_is_the_same_bytes_every_time(tmp_path):
    one, two = (stored(tmp_path / name).path(0) for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    with safe_open(one, framework="pt") as file:
        about = json.loads(file.metadata()["about"])
    assert (about["teacher"], about["last_epoch"]) == ("0", 4)
