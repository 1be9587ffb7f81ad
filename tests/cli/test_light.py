"""The receiver's half where nothing but the core is installed: its own process, another umask, another locale."""

import json
import os
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from medistill.package import pack
from samples import contents

CORE = {Requirement(text).name for text in requires("medistill") or () if "extra ==" not in text}
# Only what the core brings along may be imported; everything else is as if it were not there.
ALONE = """
import importlib.metadata, importlib.util, os, sys
os.umask(0o077)
needed, queue = set(), list({core!r})
from packaging.requirements import Requirement
while queue:
    name = queue.pop().lower().replace('_', '-')
    if name in needed:
        continue
    needed.add(name)
    try:
        texts = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        continue
    queue += [r.name for r in map(Requirement, texts) if not r.marker or r.marker.evaluate({{'extra': ''}})]
brought = importlib.metadata.packages_distributions()
absent = {{module for module, names in brought.items()
          if not {{n.lower().replace('_', '-') for n in names}} & (needed | {{'medistill'}})}}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in absent:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)

for module in absent & set(sys.modules):
    del sys.modules[module]
sys.meta_path.insert(0, Absent())
from medistill.cli import main
sys.argv[0] = 'medistill'
main()
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sent") / "süß.medistill"
    pack(path, **contents(name="süß", class_names=("normal", "pneumonie virale é")))
    return path


def alone(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG"))}
    return subprocess.run(
        [sys.executable, "-c", ALONE.format(core=sorted(CORE)), *map(str, arguments), "--allow-unsigned"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environment | {"LC_ALL": "C", "PYTHONIOENCODING": "utf-8"},
        check=False,
    )


def test_the_core_verifies_and_shows(package: Path) -> None:
    verified = alone("verify", package, "--json")
    assert verified.returncode == 0, verified.stderr
    assert json.loads(verified.stdout)["classes"] == ["normal", "pneumonie virale é"]
    assert alone("show", package, "--sheet", package.with_suffix(".png")).returncode == 0
    assert package.with_suffix(".png").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("form", ["medmnist", "hf", "png"])
def test_the_core_exports(package: Path, tmp_path: Path, form: str) -> None:
    done = alone("export", package, "--to", form, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").exists()


def test_the_core_says_what_training_needs(package: Path) -> None:
    done = alone("train", package, "--test", "phantom")
    assert done.returncode == 1
    assert "pip install 'medistill[distill]'" in done.stderr


def test_the_command_line_is_there_before_anything_heavy_is_imported() -> None:
    """What a command computes with, it imports itself: help and mistakes are answered at once."""
    code = "import sys, medistill.cli, medistill.keys; print(*sorted({'numpy', 'torch', 'sklearn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
