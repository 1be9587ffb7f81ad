from pathlib import Path

import numpy as np
import pytest
from benchmarks import rows
from benchmarks.asked import digest_of

import toys
from medistill.files import read_json
from medistill.images import LabelledImages
from medistill.recipe import Recipe, read_recipe

ROOT = Path(__file__).parents[1]


def judged() -> LabelledImages:
    """Forty images of two classes, two of each patient."""
    labels = np.arange(40) % 2
    return LabelledImages(
        np.zeros((40, 1, 8, 8), dtype=np.uint8),
        labels,
        ("a", "b"),
        np.array([f"p{i // 2}" for i in range(40)]),
    )


def guesses(images: LabelledImages, wrong: int, networks: int = 3) -> list[np.ndarray]:
    """What networks say that are wrong on so many images each, on different ones."""
    said = []
    for number in range(networks):
        guess = images.labels.astype(np.uint8).copy()
        at = (np.arange(wrong) * 3 + number) % len(guess)
        guess[at] = 1 - guess[at]
        said.append(guess)
    return said


def test_every_cell_has_one_key_and_a_recipe_that_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    wanted = list(rows.cells())
    assert len({cell.key for cell in wanted}) == len(wanted)
    for cell in wanted:
        recipe = rows._recipe(cell, Path("data"), {})
        assert recipe.seed == cell.seed
        assert recipe.distill.ipc == max(cell.ipc, 1)
        if cell.is_distilled and cell.method != "ours-twenty-steps":  # which had as many at every number of images
            ours = rows._recipe(rows.Cell(cell.images, cell.ipc, "ours", 0), Path("data"), {})
            assert _inner_steps(recipe) == _inner_steps(ours), "methods take as many steps of a student, all in all"


def _inner_steps(recipe: Recipe) -> int:
    return recipe.distill.outer_steps * recipe.distill.student_steps


def test_cells_are_filled_once_and_told_in_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toys.write_npz(tmp_path / "films.npz")
    base = tmp_path / "base.toml"
    base.write_text(toys.recipe({"distill.outer_steps": 1}).to_toml())
    few = [rows.Cell("toy", ipc, method, 0) for ipc, method in ((2, "random"), (2, "mtt"), (2, "ours"))]
    others = [rows.Cell("toy", 2, "random", 0, network) for network in rows.UNSEEN]
    wanted = [rows.Cell("toy", 0, "full-natural", 0), *few, *others]
    monkeypatch.setattr(rows, "BASE", base)
    monkeypatch.setattr(rows, "SETS", {"toy": {"source.path": "films.npz"}})
    monkeypatch.setattr(rows, "METHODS", {"ours": {}, "mtt": {"distill.objective": "mtt"}})
    monkeypatch.setattr(rows, "cells", lambda: iter(wanted))
    monkeypatch.setattr(rows, "keep_freed_memory", lambda: None)
    arguments = ["--data", str(tmp_path), "--results", str(tmp_path / "rows.json")]
    rows.main([*arguments, "--work", str(tmp_path / "work"), "--set", "machine.processes=1"])
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [cell.key for cell in wanted]
    kept = (tmp_path / "rows.json").read_bytes()
    rows.main([*arguments, "--work", str(tmp_path / "elsewhere")])
    assert (tmp_path / "rows.json").read_bytes() == kept
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(rows, "METHODS", {"ours": {}, "mtt": {"distill.objective": "dm"}})
    rows.main([*arguments, "--work", str(tmp_path / "work"), "--set", "machine.processes=1"])
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["toy/ipc2/mtt/0"]
    rows.main([*arguments, "--table"])
    told = capsys.readouterr().out
    assert "toy, all images" in told
    assert all(cell.row in told for cell in wanted)
    held_against_ours = [line for line in told.splitlines() if " to " in line]
    assert [line.split(" | ")[0] for line in held_against_ours] == ["| random", "| mtt"]
    monkeypatch.setattr(rows, "METHODS", {"ours": {}, "mtt": {"distill.objective": "mtt", "distill.outer_steps": 2}})
    rows.main([*arguments, "--table"])
    assert "| mtt |" not in capsys.readouterr().out, "a cell of an earlier recipe is no answer"
    (tmp_path / "films.npz").unlink()
    rows.main([*arguments, "--table"])
    assert capsys.readouterr().out.strip() == "**toy**: films.npz is not in that folder"


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("published-mtt-cxr4-32-ipc10", rows.Cell("cxr4-32", 10, "mtt", 0)),
        ("published-mtt-cxr4-32-ipc20", rows.Cell("cxr4-32", 20, "mtt", 0)),
        ("cxr4-32-ipc10", rows.Cell("cxr4-32", 10, "ours", 0)),
        ("cxr4-32-ipc20", rows.Cell("cxr4-32", 20, "ours", 0)),
        ("cxr4-64-ipc10", rows.Cell("cxr4-64", 10, "ours", 0)),
        ("pneumonia-28-ipc10", rows.Cell("pneumonia-28", 10, "ours", 0)),
    ],
)
def test_a_recipe_asks_for_what_its_row_was_measured_with(
    name: str, cell: rows.Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    recipe = read_recipe(ROOT / f"recipes/{name}.toml")
    of_row = rows._recipe(cell, Path("data"), {})
    assert recipe.digest() == of_row.model_copy(update={"name": name}).digest()
    assert digest_of(recipe) == read_json(rows.RESULTS)[cell.key]["recipe"]


def test_a_cells_recipe_is_printed_for_other_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    rows.main(["--data", "data", "--recipe", "cxr4-32/ipc10/dsa/1"])
    written = tmp_path / "dsa.toml"
    written.write_text(capsys.readouterr().out)
    asked = rows._recipe(rows.Cell("cxr4-32", 10, "dsa", 1), Path("data"), {})
    assert read_recipe(written).digest() == asked.digest()
    for nothing in ("cxr4-32/ipc10/dse/1", "cxr4-32/ipc10/random/1", "cxr4-32/ipc0/full-balanced-20-epochs/0"):
        with pytest.raises(SystemExit):
            rows.main(["--data", "data", "--recipe", nothing])
    assert "expected a cell with distilled images" in capsys.readouterr().err
