from pathlib import Path

import pytest

import toys
from medistill import files, pipeline
from medistill.errors import StorageError
from medistill.pipeline import open_run
from medistill.plan import plan, refuse_without_room


def test_a_plan_predicts_every_stage_and_leaves_nothing_on_disk(tmp_path: Path) -> None:
    run = _toy_run(tmp_path)
    predicted = plan(run)
    assert [stage.name for stage in predicted.stages] == ["teachers", "distill", "evaluate"]
    assert all(stage.seconds > 0 and stage.memory_bytes > 50e6 for stage in predicted.stages)
    assert list(tmp_path.iterdir()) == []


def test_twice_the_teachers_take_twice_the_disk(tmp_path: Path) -> None:
    one, two = (plan(_toy_run(tmp_path, **{"teachers.count": count})).stages[0] for count in (2, 4))
    assert two.disk_bytes == 2 * one.disk_bytes


def test_the_predicted_disk_is_what_the_buffer_takes(tmp_path: Path) -> None:
    run = _toy_run(tmp_path)
    predicted = plan(run).stages[0].disk_bytes
    buffer = pipeline.teach(run, toys.Silence())
    taken = sum(path.stat().st_size for path in buffer.folder.rglob("*.safetensors"))
    assert taken == pytest.approx(predicted, rel=0.1)


def test_a_run_that_does_not_fit_on_the_disk_is_refused_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medistill.plan.free_bytes", lambda folder: 10)
    run = _toy_run(tmp_path)
    with pytest.raises(StorageError, match="Free some space"):
        refuse_without_room(run, plan(run))


def test_free_space_is_asked_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    assert files.free_bytes(tmp_path / "not" / "yet") == pytest.approx(files.free_bytes(tmp_path), rel=0.01)


def _toy_run(out: Path, **changes: int) -> pipeline.Run:
    films = toys.write_npz(out.with_suffix(".npz"))
    settings = {"source.path": str(films), "network.width": 16, "machine.processes": 1, "machine.threads": 1}
    return open_run(toys.recipe(settings | changes), out)
