"""The tables of docs/results.md are held against what they were made from."""

import os
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from benchmarks import dials, rows
from typer.testing import CliRunner

from medistill.cli import app
from medistill.comparison import table
from medistill.files import read_json

ROOT = Path(__file__).parents[1]
RESULTS = (ROOT / "docs/results.md").read_text()
COMMANDS = [
    re.sub(r"\\\n\s*", "", command).strip()
    for command in re.findall(r"```\n(medistill compare .*?)```", RESULTS, flags=re.DOTALL)
]
READINGS = {"sizes": "unsigned", "sizes and signs": "signed", "displacements": "displacement"}


@pytest.fixture
def data() -> Path:
    if "MEDISTILL_DATA" not in os.environ:
        pytest.skip("MEDISTILL_DATA does not name the folder of real image sets")
    return Path(os.environ["MEDISTILL_DATA"])


@pytest.mark.real_data
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.rpartition("/")[2])
def test_a_comparison_is_printed_again_from_the_cells_that_are_kept(
    command: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, *arguments = shlex.split(command)
    assert program == "medistill"
    monkeypatch.chdir(tmp_path)
    for file in (ROOT / "recipes", *data.glob("*.npz")):
        (tmp_path / file.name).symlink_to(file.absolute())
    out = tmp_path / arguments[arguments.index("--out") + 1]
    shutil.copytree(ROOT / "benchmarks/cells", out / "cells")
    monkeypatch.setattr(table, "Contenders", lambda *asked: pytest.fail("a cell of this table is not kept"))
    said = CliRunner().invoke(app, arguments)
    assert said.exit_code == 0, said.output
    every_row, *by_class = re.findall(r"(?:^\| .*\n)+", (out / "comparison.md").read_text(), flags=re.M)
    assert every_row in RESULTS
    section = next(part for part in RESULTS.split("\n## ") if every_row in part)
    for table_of in ("sensitivity", "specificity"):
        (printed,) = [part.splitlines() for part in by_class if part.startswith(f"| {table_of} |")]
        told = re.findall(rf"^\| {table_of} \|.*\n(?:\| .*\n)+", section, flags=re.M)
        assert {line for part in told for line in part.splitlines()[2:]} <= set(printed)


@pytest.mark.real_data
@pytest.mark.parametrize("images", rows.SETS)
def test_the_rows_of_every_method_are_printed_again(
    images: str, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not (data / rows.SETS[images]["source.path"]).exists():
        pytest.skip(f"the images of {images} are not in that folder")
    monkeypatch.chdir(ROOT)
    rows.main(["--data", str(data), "--only", images, "--table"])
    printed = capsys.readouterr().out.strip().split("\n\n")
    assert len(printed) > 1
    for part in printed:
        assert part in RESULTS


def test_the_table_of_pruning_says_what_the_kept_trials_found() -> None:
    kept = read_json(dials.RESULTS)
    section = RESULTS.partition("## What pruning does")[2].partition("\n## ")[0]
    figures = [line for line in section.splitlines() if line.startswith("| ")][2:]
    lines = [[field.strip() for field in line.split("|")[1:-1]] for line in figures]
    assert len(lines) == 10
    for reading, threshold, share, found, at_random in lines:
        trial, shuffled = _trials(reading, threshold)
        assert found == _said(kept[trial])
        first, last = (f"{100 * part:.0f}" for part in kept[trial]["kept"])
        assert share == (f"{first} %" if first == last else f"{first} to {last} %")
        assert at_random == (shuffled and (_said(kept[shuffled]) if shuffled in kept else "not made"))


def _trials(reading: str, threshold: str) -> tuple[str, str]:
    """The dial of a line, and that of as many parameters at random where one was asked for."""
    if reading == "nothing pruned":
        return "similarity/none", ""
    if (reading, threshold) == ("sizes", "0.1"):
        return "recipe", ""
    trial, of_reading = f"similarity/{READINGS[reading]}/{threshold}", {"sizes": "", "displacements": "-displacement"}
    return trial, f"similarity/shuffled{of_reading[reading]}/{threshold}" if reading in of_reading else ""


def _said(trial: dict[str, list[float]]) -> str:
    scores = 100 * np.array(trial["scores"])
    return f"{scores.mean():.1f} ± {scores.std(ddof=1):.1f}"
