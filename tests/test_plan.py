from pathlib import Path

import pytest

import toys
from medistill import files, pipeline
from medistill.buffer import write_trajectory
from medistill.distill import CHECKPOINT
from medistill.errors import RecipeError, StorageError
from medistill.pipeline import open_run
from medistill.plan import Stage, _images_of_a_worker, fitted, plan, refuse_without_room


def test_a_plan_predicts_every_stage_and_leaves_nothing_on_disk(tmp_path: Path) -> None:
    run = _toy_run(tmp_path)
    predicted = plan(run)
    assert [stage.name for stage in predicted.stages] == ["teachers", "distill", "evaluate"]
    assert all(stage.seconds > 0 and stage.memory_bytes > 50e6 for stage in predicted.stages)
    assert list(tmp_path.iterdir()) == []


def test_what_the_recipe_asks_for_besides_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medistill.plan.training_step", lambda *asked: (1.0 + (asked[3:] > (0.0,)), 100 * MEGABYTE))
    usual, more = (
        plan(_toy_run(tmp_path, **changes))
        for changes in ({}, {"teachers.sharpness_radius": 0.1, "distill.encoding": "measured"})
    )
    assert more.stages[0].seconds == 2 * usual.stages[0].seconds, "each step of such a teacher takes two slopes"
    assert more.stages[2].seconds > usual.stages[2].seconds, "every encoding is judged on validation"


@pytest.mark.usefixtures("made_up_costs")
def test_one_process_is_tried_before_a_budget_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What several workers hold of the images, one process need not."""
    held = lambda run, times: (run.processes > 1) * 200 * MEGABYTE  # noqa: E731
    monkeypatch.setattr("medistill.plan._images_of_a_worker", held)
    asked = _toy_run(tmp_path, **{"machine.processes": 4, "teachers.count": 4})
    assert fitted(asked, 250 * MEGABYTE)[0].processes == 1


@pytest.mark.parametrize("processes", [1, 2])
def test_workers_hold_the_training_images_besides(tmp_path: Path, processes: int) -> None:
    run = _toy_run(tmp_path, **{"machine.processes": processes})
    size = run.splits.train.pixels.nbytes
    assert _images_of_a_worker(run, 2) == (0 if processes == 1 else 4 * size)


def test_twice_the_teachers_take_twice_the_disk(tmp_path: Path) -> None:
    one, two = (plan(_toy_run(tmp_path, **{"teachers.count": count})).stages[0] for count in (2, 4))
    assert two.disk_bytes == 2 * one.disk_bytes


def test_the_predicted_disk_is_what_the_buffer_takes(tmp_path: Path) -> None:
    run = _toy_run(tmp_path)
    predicted = plan(run).stages[0].disk_bytes
    buffer = pipeline.teach(run, toys.Silence())
    taken = sum(path.stat().st_size for path in buffer.folder.rglob("*.safetensors"))
    assert taken == pytest.approx(predicted, rel=0.1)


def test_a_teacher_in_training_needs_no_more_room_than_was_predicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _toy_run(tmp_path)
    predicted = plan(run).stages[0]
    taken = []

    def remember(*arguments: object) -> None:
        files = [path for path in run.buffer.folder.rglob("*") if path.is_file()]
        taken.append(sum(path.stat().st_size for path in files))
        write_trajectory(*arguments)

    monkeypatch.setattr("medistill.teachers.write_trajectory", remember)
    pipeline.teach(run, toys.Silence())
    assert predicted.disk_bytes < max(taken) <= 1.1 * (predicted.disk_bytes + predicted.passing_bytes)
    assert plan(run).stages[0].passing_bytes == 0, "nothing is left to train"


def test_a_run_that_does_not_fit_on_the_disk_is_refused_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medistill.plan.free_bytes", lambda folder: 10)
    run = _toy_run(tmp_path)
    with pytest.raises(StorageError, match="Free some space"):
        refuse_without_room(run, plan(run))


MEGABYTE = 2**20


@pytest.fixture
def made_up_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 MB for each process that trains; for a student 100 MB, 10 for each image at a time, and what is kept."""

    def student(run: pipeline.Run) -> Stage:
        images = run.recipe.distill.micro_batch or 12
        return Stage("distill", 1.0, (100 + 10 * images + min(run.recipe.machine.keep_mb, 300)) * MEGABYTE, 0)

    monkeypatch.setattr("medistill.plan.training_step", lambda *asked: (1.0, 100 * MEGABYTE))
    for name in ("own_bytes", "shared_bytes"):
        monkeypatch.setattr(f"medistill.plan.{name}", lambda device: 0)
    monkeypatch.setattr("medistill.plan.distillation", student)


@pytest.mark.usefixtures("made_up_costs")
@pytest.mark.parametrize(
    ("megabytes", "processes", "keep_mb", "micro_batch"),
    [(100_000, 4, 2048, None), (450, 4, 230, None), (350, 3, 130, None), (220, 2, 0, None), (165, 1, 5, 6)],
)
def test_a_budget_is_met_by_fewer_processes_then_less_kept_then_fewer_images_at_a_time(
    tmp_path: Path, megabytes: int, processes: int, keep_mb: int, micro_batch: int | None
) -> None:
    asked = _toy_run(tmp_path, **{"machine.processes": 4, "teachers.count": 4, "distill.ipc": 6})
    run, predicted = fitted(asked, megabytes * MEGABYTE)
    assert run.recipe.machine.processes == processes
    assert run.recipe.machine.keep_mb == keep_mb
    assert run.recipe.distill.micro_batch == micro_batch
    assert predicted.memory_bytes <= megabytes * MEGABYTE


@pytest.mark.usefixtures("made_up_costs")
def test_a_distillation_that_was_begun_is_gone_on_with_whatever_memory_measures_now(tmp_path: Path) -> None:
    asked = _toy_run(tmp_path, **{"machine.processes": 1, "teachers.count": 4, "distill.ipc": 6})
    begun, _ = fitted(asked, 135 * MEGABYTE)
    assert begun.recipe.distill.micro_batch == 3
    assert fitted(asked, 165 * MEGABYTE)[0].recipe.distill.micro_batch == 6
    begun.distillation.mkdir(parents=True)
    (begun.distillation / CHECKPOINT).touch()
    more, less = (fitted(asked, megabytes * MEGABYTE)[0] for megabytes in (165, 128))
    assert more.distillation == less.distillation == begun.distillation
    assert fitted(asked, 112 * MEGABYTE)[1].memory_bytes <= 112 * MEGABYTE, "far too little is too little"


@pytest.mark.usefixtures("made_up_costs")
def test_a_run_without_teachers_is_not_refused_for_what_they_would_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medistill.plan.teaching", lambda run: Stage("teachers", 1.0, 500 * MEGABYTE, 0))
    asked = _toy_run(tmp_path, **{"distill.objective": "dm"})
    assert [stage.name for stage in fitted(asked, 300 * MEGABYTE)[1].stages] == ["distill", "evaluate"]


@pytest.mark.usefixtures("made_up_costs")
@pytest.mark.parametrize(("megabytes", "stage"), [(99, "teachers"), (105, "distill")])
def test_a_budget_that_nothing_meets_is_refused_with_the_stage_that_breaks_it(
    tmp_path: Path, megabytes: int, stage: str
) -> None:
    with pytest.raises(RecipeError, match=f"Stage {stage} needs about"):
        fitted(_toy_run(tmp_path), megabytes * MEGABYTE)


def test_a_real_budget_is_met_by_a_real_run(tmp_path: Path) -> None:
    asked = _toy_run(tmp_path)
    needed = plan(asked).memory_bytes
    run, predicted = fitted(asked, 2 * needed)
    assert run.recipe.distill.micro_batch is None
    assert predicted.memory_bytes <= 2 * needed


def test_free_space_is_asked_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    assert files.free_bytes(tmp_path / "not" / "yet") == pytest.approx(files.free_bytes(tmp_path), rel=0.01)


def _toy_run(out: Path, **changes: int) -> pipeline.Run:
    films = toys.write_npz(out.with_suffix(".npz"))
    settings = {"source.path": str(films), "network.width": 16, "machine.processes": 1, "machine.threads": 1}
    return open_run(toys.recipe(settings | changes), out)
