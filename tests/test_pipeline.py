import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import toys
from medistill import pipeline
from medistill.errors import MedistillError, PackageError, RecipeError, SourceError, StorageError
from medistill.evidence import Utility
from medistill.jobs import Silence
from medistill.package import open_package
from medistill.pipeline import Run
from medistill.recipe import recipe_from
from medistill.usage import recorded_stages


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy films as a MedMNIST-style file."""
    return toys.write_npz(tmp_path_factory.mktemp("source") / "films.npz")


def opened(films: Path, out: Path, **changes: Any) -> Run:
    settings = {"source.path": str(films), "machine.processes": 1, "machine.threads": 1}
    return pipeline.open_run(toys.recipe(settings | changes), out)


def test_a_run_ends_with_a_package_that_opens_and_what_people_look_at(films: Path, tmp_path: Path) -> None:
    products = pipeline.run(opened(films, tmp_path), Silence())
    package = open_package(products.package, allow_unsigned=True)
    assert package.images.shape == (4, 1, 8, 8)
    assert package.class_names == ("0", "1")
    assert package.recipe_toml is not None
    assert "films.npz" not in package.recipe_toml
    assert str(tmp_path) not in products.report.read_text()
    assert products.contact_sheet.read_bytes().startswith(b"\x89PNG")
    utility = Utility.model_validate_json(products.utility.read_text())
    assert utility == package.utility
    assert [row.name for row in utility.rows] == [
        "majority",
        "random",
        "distilled",
        "full-natural",
        "full-balanced",
        "full",
    ]
    assert {row.split for row in utility.rows} == {"validation"}


@pytest.mark.parametrize("split", ["val", "test"])
def test_images_to_judge_on_of_one_class_are_refused_before_hours_of_work(
    films: Path, tmp_path: Path, split: str
) -> None:
    with np.load(films) as arrays:
        changed = dict(arrays)
    kept = changed[f"{split}_labels"][:, 0] == 1
    changed |= {f"{split}_{kind}": changed[f"{split}_{kind}"][kept] for kind in ("images", "labels")}
    np.savez(tmp_path / "films.npz", **changed)
    with pytest.raises(SourceError, match=r"images of 1 alone in the (validation|test) split; expected two classes"):
        opened(tmp_path / "films.npz", tmp_path / "out")


def test_the_same_recipe_gives_the_same_package_bytes(films: Path, tmp_path: Path) -> None:
    packages = [pipeline.run(opened(films, tmp_path / name), Silence()).package for name in ("one", "two")]
    assert packages[0].read_bytes() == packages[1].read_bytes()


@pytest.mark.parametrize("encoding", ["float16", "uint8"])
def test_what_is_judged_is_what_a_receiver_reads(films: Path, tmp_path: Path, encoding: str) -> None:
    small, exact = (
        open_package(
            pipeline.run(opened(films, tmp_path / name, **{"distill.encoding": name}), Silence()).package,
            allow_unsigned=True,
        )
        for name in (encoding, "float32")
    )
    assert (small.manifest.images.encoding, exact.manifest.images.encoding) == (encoding, "float32")
    assert 0 < np.abs(small.images - exact.images).max() < 0.01
    assert small.utility is not None
    assert exact.utility is not None
    assert small.utility.row("distilled").calibration_error != exact.utility.row("distilled").calibration_error
    assert small.utility.row("random") == exact.utility.row("random")


def test_a_measured_encoding_is_the_smallest_that_costs_nothing_on_validation(films: Path, tmp_path: Path) -> None:
    run = opened(films, tmp_path, **{"distill.encoding": "measured"})
    pipeline.teach(run, Silence())
    distilled = pipeline.distill_images(run, Silence())
    chosen = pipeline.encoding_of(run, distilled, Silence())
    kept = run.folder / "encodings.json"
    assert set(json.loads(kept.read_text())) == {"uint8", "float16", "float32"}
    figures = {"uint8": 0.70, "float16": 0.79, "float32": 0.80}
    for spread, expected in ((0.0, "float32"), (0.03, "float16"), (0.3, "uint8")):
        kept.write_text(json.dumps({name: {"mean": mean, "sd": spread, "n": 4} for name, mean in figures.items()}))
        assert pipeline.encoding_of(run, distilled, Silence()) == expected
    assert chosen in figures


@pytest.mark.parametrize("after", [5, 40, 90, 200])
def test_a_run_that_loses_power_continues_to_the_same_bytes(films: Path, tmp_path: Path, after: int) -> None:
    with pytest.raises(toys.PowerCut):
        pipeline.run(opened(films, tmp_path / "cut"), toys.Watch(power_fails_after=after))
    resumed = pipeline.run(opened(films, tmp_path / "cut"), Silence()).package
    whole = pipeline.run(opened(films, tmp_path / "whole"), Silence()).package
    assert resumed.read_bytes() == whole.read_bytes()


def test_a_finished_run_repeats_no_work(films: Path, tmp_path: Path) -> None:
    pipeline.run(opened(films, tmp_path), Silence())
    again = toys.Watch()
    pipeline.run(opened(films, tmp_path), again)
    assert again.advanced == 0


class Poison:
    """A split that must not be looked at."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the test split was read: {name}")


def test_without_final_the_test_split_is_not_read(films: Path, tmp_path: Path) -> None:
    run = opened(films, tmp_path)
    guarded = dataclasses.replace(run, splits=dataclasses.replace(run.splits, test=Poison()))
    pipeline.run(guarded, Silence())


def test_every_reading_of_the_test_split_is_counted_in_the_evidence(films: Path, tmp_path: Path) -> None:
    run = opened(films, tmp_path)
    pipeline.run(run, Silence())
    first, again = (pipeline.judge(run, Silence(), final=True) for _ in range(2))
    assert (first.split, first.test_reads) == ("test", 1)
    assert first == again, "the same question hears the same answer and counts once"
    turned = run.with_images(dataclasses.replace(run.splits, train=run.splits.validation))
    assert pipeline.images_to_judge(turned, final=True)[1] == "test"
    assert pipeline.test_readings(run) == 2, "other training images ask another question"
    other = opened(films, tmp_path, seed=4)
    pipeline.run(other, Silence(), final=True)
    assert pipeline.judge(other, Silence()).test_reads == 3


def test_recipes_that_differ_never_share_a_distillation(films: Path, tmp_path: Path) -> None:
    base = opened(films, tmp_path)
    for changes in ({"distill.ipc": 3}, {"distill.threshold": 0.2}, {"seed": 9}, {"teachers.rate": 0.2}):
        assert opened(films, tmp_path, **changes).distillation != base.distillation
    assert opened(films, tmp_path, **{"distill.ipc": 3}).buffer.folder == base.buffer.folder
    assert opened(films, tmp_path, **{"teachers.rate": 0.2}).buffer.folder != base.buffer.folder
    assert opened(films, tmp_path, **{"evaluate.networks": 3}).distillation == base.distillation


def test_the_same_recipe_on_other_images_never_shares_a_file(films: Path, tmp_path: Path) -> None:
    with np.load(films) as arrays:
        changed = dict(arrays)
    changed["train_images"] = changed["train_images"].copy()
    changed["train_images"][0, 0, 0] ^= 1
    np.savez(tmp_path / "other.npz", **changed)
    one, other = opened(films, tmp_path), opened(tmp_path / "other.npz", tmp_path)
    assert one.buffer.folder != other.buffer.folder
    assert one.distillation != other.distillation


def test_a_stage_whose_earlier_stage_is_missing_says_which(films: Path, tmp_path: Path) -> None:
    run = opened(films, tmp_path)
    with pytest.raises(RecipeError, match="Found 0 of 2 teachers"):
        pipeline.distill_images(run, Silence())
    with pytest.raises(RecipeError, match="not distilled yet"):
        pipeline.judge(run, Silence())
    pipeline.teach(run, Silence())
    pipeline.distill_images(run, Silence())
    with pytest.raises(RecipeError, match="not judged yet"):
        pipeline.seal(run)


def test_a_real_start_is_marked_as_leaking_in_package_and_report(films: Path, tmp_path: Path) -> None:
    products = pipeline.run(opened(films, tmp_path, **{"distill.start": "real"}), Silence())
    provenance = open_package(products.package, allow_unsigned=True).manifest.provenance
    assert (provenance.start, provenance.leaks_real_images) == ("real", True)
    assert "may show real patients" in products.report.read_text()


def test_a_damaged_checkpoint_is_refused_and_not_taken_for_a_result(films: Path, tmp_path: Path) -> None:
    run = opened(films, tmp_path)
    pipeline.run(run, Silence())
    checkpoint = run.distillation / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-10])
    with pytest.raises(StorageError, match="damaged"):
        pipeline.run(run, Silence())


def test_wall_time_and_memory_of_every_stage_are_recorded(films: Path, tmp_path: Path) -> None:
    run = opened(films, tmp_path)
    pipeline.run(run, Silence())
    judged_longer = opened(films, tmp_path, **{"evaluate.networks": 4})
    assert judged_longer.distillation == run.distillation
    for stage, clock in judged_longer.clocks.items():
        if stage != "evaluate":  # whoever shares the teachers and the set is told what those took
            assert recorded_stages(clock)[stage]["seconds"] > 0
            assert recorded_stages(clock)[stage]["peak_bytes"] > 50e6
    assert list(recorded_stages(run.clocks["evaluate"])) == ["evaluate"]
    assert "teachers" not in opened(films, tmp_path, **{"distill.objective": "dm"}).clocks


def test_any_labelled_images_can_be_sealed_as_not_distilled_here(films: Path, tmp_path: Path) -> None:
    path = tmp_path / "control.medistill"
    pipeline.seal_images(f"{films}#val", path, None, 1, 0.01)
    package = open_package(path, allow_unsigned=True)
    assert package.manifest.provenance.method == "not distilled here"
    assert package.manifest.provenance.leaks_real_images
    with np.load(films) as arrays:
        assert np.array_equal(np.rint(package.images[:, 0] * 255), arrays["val_images"])


def test_every_refusal_is_a_medistill_error_without_a_path(films: Path, tmp_path: Path) -> None:
    with pytest.raises(MedistillError) as refusal:
        opened(tmp_path / "secret-folder" / "absent.npz", tmp_path)
    assert "secret-folder" not in str(refusal.value)


def test_a_class_name_that_no_package_could_carry_is_refused_before_any_work(tmp_path: Path) -> None:
    for split, part in toys.splits().parts.items():
        for index, (pixels, label) in enumerate(zip(part.pixels, part.labels, strict=True)):
            path = tmp_path / "films" / split / ("=SUM(A1)", "normal")[label] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[0]).save(path)
    with pytest.raises(PackageError, match="formula"):
        opened(tmp_path / "films", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_gpu_that_is_not_there_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    films = toys.write_npz(tmp_path / "films.npz")
    recipe = toys.recipe({"source.path": str(films), "machine.device": "cuda"})
    with pytest.raises(RecipeError, match="finds no GPU here"):
        pipeline.open_run(recipe, tmp_path / "out")


def test_a_depth_and_a_smoothness_that_are_not_given_are_stated_once_the_images_are_open(tmp_path: Path) -> None:
    source = {"path": str(toys.write_npz(tmp_path / "films.npz"))}
    for given, depth in ({}, 1), ({"depth": 3}, 3):
        distilled = {"ipc": 2, "start": "noise"}
        recipe = recipe_from({"source": source, "network": {"width": 4} | given, "distill": distilled})
        opened = pipeline.open_run(recipe, tmp_path / "out").recipe
        assert opened.network.depth == depth
        assert opened.distill.smoothness == 0
