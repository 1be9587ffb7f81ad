"""That the benchmarks run and compute what they claim; how fast anything is, only running them can tell."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import accuracy, gradient, slopes, training
from torch.nn import functional

import toys
from medistill.augment import draw_augmentation
from medistill.matching.adjoint import InnerStep, trajectory_gradient
from medistill.recipe import AugmentSettings

SHAPE = {"size": 10, "width": 6, "depth": 2, "batch": 4, "steps": 2, "classes": 3, "padding": 3}
ARGUMENTS = [part for name, value in SHAPE.items() for part in (f"--{name}", str(value))]


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (gradient, slopes, training):
        monkeypatch.setattr(module, "can_compile", lambda device: False)
        monkeypatch.setattr(module, "precisions_of", lambda device: ["float32"])
        monkeypatch.setattr(module, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(gradient, "peak_bytes", lambda shape, variant, device: 1000 + len(variant.mode))
    monkeypatch.setattr(training, "_PROCESSES", {"cpu": ()})


def test_every_variant_of_the_gradient_is_measured_and_the_exact_ones_are_exact(
    capsys: pytest.CaptureFixture[str],
) -> None:
    gradient.main([*ARGUMENTS, "--repeats", "1", "--json"])
    found = json.loads(capsys.readouterr().out)
    rows = {(row["name"], row["mode"]): row for row in found["variants"]}
    assert set(rows) == {
        ("unrolled", "graph"),
        ("tesla", "graph"),
        ("adjoint-automatic", "recomputed"),
        ("adjoint", "kept"),
        ("adjoint", "recomputed"),
    }
    assert rows["unrolled", "graph"]["speedup"] == 1
    for (name, _), row in rows.items():
        assert row["seconds_median"] > 0
        assert (row["error_float64"] < 1e-4) == (name != "tesla")
    assert rows["tesla", "graph"]["cosine_float64"] < 1


def test_the_table_shows_every_variant(capsys: pytest.CaptureFixture[str]) -> None:
    gradient.main([*ARGUMENTS, "--repeats", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[3:]] == [
        *("unrolled", "tesla", "adjoint-automatic", "adjoint", "adjoint", "floor")
    ]


def test_a_dump_can_be_computed_again_from_what_it_says(tmp_path: Path) -> None:
    """By finite differences of a student that is trained here, block by block, from the flat vector's layout."""
    gradient.main([*ARGUMENTS, "--dump", str(tmp_path / "dump.npz")])
    with np.load(tmp_path / "dump.npz") as file:
        dump = {name: torch.from_numpy(file[name]) for name in file.files}
    start, target, labels = dump["start"], dump["target"], dump["labels"]
    shapes = [s for before in (1, 6) for s in ((6, before, 3, 3), (6,), (6,), (6,))]
    features = 6 * ((10 + 6 - 2) // 2 // 2) ** 2
    shapes += [(3, features), (3,)]

    def loss_of(images: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
        params = start
        for _ in range(int(dump["steps"])):
            leaf = params.clone().requires_grad_()
            parts = leaf.split([math.prod(shape) for shape in shapes])
            views = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
            x = images
            for block in range(2):
                weight, bias, gain, shift = views[4 * block : 4 * block + 4]
                x = functional.conv2d(x, weight, bias, padding=3 if block == 0 else 1)
                x = functional.instance_norm(x, weight=gain, bias=shift)
                x = functional.avg_pool2d(x.relu(), 2)
            loss = functional.cross_entropy(x.flatten(1) @ views[-2].T + views[-1], labels)
            params = (params - rate * torch.autograd.grad(loss, leaf)[0]).detach()
        return (params - target).square().sum() / (start - target).square().sum()

    images, rate = dump["images"], dump["rate"]
    assert float(loss_of(images, rate)) == pytest.approx(float(dump["loss"]), rel=1e-9)
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    direction /= direction.norm()
    step = 1e-4
    slope = (loss_of(images + step * direction, rate) - loss_of(images - step * direction, rate)) / (2 * step)
    assert float((dump["grad_images"] * direction).sum()) == pytest.approx(float(slope), rel=1e-4)
    slope = (loss_of(images, rate + 1e-6) - loss_of(images, rate - 1e-6)) / 2e-6
    assert float(dump["grad_rate"]) == pytest.approx(float(slope), rel=1e-4)


def test_training_is_measured_beside_the_plain_loop(capsys: pytest.CaptureFixture[str]) -> None:
    training.main(["--size", "8", "--width", "4", "--depth", "2", "--images", "16", "--batch", "8", "--repeats", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["plain", "uncompiled"]


def test_gradient_matching_is_measured_beside_a_differentiated_slope(capsys: pytest.CaptureFixture[str]) -> None:
    slopes.main(["--size", "8", "--width", "4", "--depth", "2", "--real", "6", "--synthetic", "4", "--repeats", "1"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows][:2] == ["differentiated", "alignment,"]
    errors = [float(row[-1]) for row in rows]
    assert len(errors) == 3
    assert max(errors) < 1e-4


def test_the_unrolled_gradient_is_the_adjoints() -> None:
    problem = gradient.Problem(gradient.FREE | SHAPE, dtype=torch.float64)
    steps = [InnerStep(torch.tensor([0, 2, 3]), draw_augmentation(AugmentSettings(), 3, seed)) for seed in range(2)]
    place = (problem.start, problem.images, problem.targets, torch.tensor(-4.0, dtype=torch.float64), steps)
    found = gradient.unrolled_gradient(problem.automatic, *place, problem.distance)
    exact = trajectory_gradient(problem.automatic, *place, problem.distance)
    for name in ("value", "images", "targets", "log_rate", "end"):
        torch.testing.assert_close(getattr(found, name), getattr(exact, name), rtol=1e-9, atol=1e-12)


def test_the_time_to_accuracy_is_that_of_the_first_selection_that_reaches_the_references_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    films = toys.write_npz(tmp_path / "films.npz")
    recipe = tmp_path / "toy.toml"
    recipe.write_text(toys.recipe({"distill.outer_steps": 4, "machine.processes": 1, "machine.threads": 1}).to_toml())
    arguments = ["--source", str(films), "--out", str(tmp_path), "--reference", str(recipe), "--ours", str(recipe)]
    accuracy.main([*arguments, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [point["step"] for point in found["ours"]] == [0, 2, 4]
    seconds = [point["seconds"] for point in found["ours"]]
    assert 0 < seconds[0] < seconds[1] < seconds[2]
    assert found["goal"] == found["reference"][-1]["balanced_accuracy"]
    reached = next(point for point in found["ours"] if point["balanced_accuracy"] >= found["goal"])
    assert found["seconds_ours"] == reached["seconds"]
    assert found["ratio"] == found["seconds_reference"] / reached["seconds"]
    accuracy.main(arguments)  # continues where nothing is left to do
    assert "times as fast" in capsys.readouterr().out
