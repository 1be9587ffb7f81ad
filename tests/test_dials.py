import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks import dials

import toys
from medistill.recipe import Recipe

ROOT = Path(__file__).parents[1]


def test_every_dial_changes_the_recipe_and_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    digests = {dials.recipe_of(name, Path("data"), {}).digest() for name in dials.DIALS}
    assert len(digests) == len(dials.DIALS)


def test_a_finished_trial_is_kept_and_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toys.write_npz(tmp_path / "cxr4_64.npz")
    tried, really = [], dials._tried

    def toy(name: str, data: Path, everywhere: dict[str, str]) -> Recipe:
        changes = {"source.path": str(data / "cxr4_64.npz"), "distill.outer_steps": 2, "machine.processes": 1}
        return toys.recipe(changes | dials.DIALS[name] | {key: int(value) for key, value in everywhere.items()})

    def remember(recipe: Recipe, work: Path) -> dict[str, Any]:
        tried.append(recipe.distill.outer_steps)
        return really(recipe, work)

    monkeypatch.setattr(dials, "recipe_of", toy)
    monkeypatch.setattr(dials, "_tried", remember)
    results = tmp_path / "dials.json"
    call = ["--data", str(tmp_path), "--work", str(tmp_path / "work"), "--results", str(results), "--only", "recipe"]
    for _ in range(2):
        dials.main(call)
    assert tried == [2]
    dials.main([*call, "--set", "distill.outer_steps=1"])
    assert tried == [2, 1]
    found = json.loads(results.read_text())["recipe"]
    assert len(found["scores"]) == 10
    assert all(0 <= score <= 1 for score in found["scores"])
    assert found["kept"][0] is not None
    dials.main(["--results", str(results), "--table"])
    assert capsys.readouterr().out.splitlines()[-1].startswith("recipe")
