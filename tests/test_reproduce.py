from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import toys
from medistill import pipeline
from medistill.errors import PackageError, SourceError
from medistill.evidence import Interval
from medistill.jobs import Silence
from medistill.package import Package, open_package
from medistill.reproduce import Reproduction, reproduce


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    folder = tmp_path_factory.mktemp("made")
    films = toys.write_npz(folder / "films.npz")
    recipe = toys.recipe({"source.path": str(films), "machine.processes": 1, "machine.threads": 1})
    return open_package(pipeline.run(pipeline.open_run(recipe, folder / "out"), Silence()).package, allow_unsigned=True)


def judged() -> toys.LabelledImages:
    films = toys.films((20, 20), seed=8)
    return toys.LabelledImages(films.pixels, films.labels, ("0", "1"))


def test_a_package_is_laid_beside_its_own_evidence(package: Package) -> None:
    found = reproduce(package, judged(), "ours", 2, 0, 1, Silence())
    assert found.recorded == package.utility.row("distilled")
    assert (found.found.split, found.found.accuracy.n) == ("ours", 2)


@pytest.mark.parametrize(
    ("low", "high", "agrees"), [(0.5, 0.7, True), (0.7, 0.9, True), (0.71, 0.9, False), (0.1, 0.49, False)]
)
def test_two_figures_agree_where_their_intervals_touch(package: Package, low: float, high: float, agrees: bool) -> None:
    row = package.utility.row("distilled").model_copy(
        update={"balanced_accuracy_interval": Interval(low=0.5, high=0.7)}
    )
    other = row.model_copy(update={"balanced_accuracy_interval": Interval(low=low, high=high)})
    assert Reproduction(row, other).agrees == Reproduction(other, row).agrees == agrees


def test_a_package_without_evidence_has_nothing_to_compare_with(tmp_path: Path) -> None:
    films = toys.write_npz(tmp_path / "films.npz")
    bare = pipeline.seal_images(str(films), tmp_path / "bare.medistill", None, 1, 0.01)
    with pytest.raises(PackageError, match="carries no evidence"):
        reproduce(bare, judged(), "ours", 1, 0, 1, Silence())


def test_a_figure_over_all_classes_is_not_laid_beside_one_over_some(package: Package) -> None:
    films = judged()
    one_class = films.take(np.flatnonzero(films.labels == 0))
    with pytest.raises(SourceError, match="Found images of 0 to judge on; expected of 0, 1, over which"):
        reproduce(package, one_class, "ours", 3, 0, 1, Silence())
    row = package.utility.row("distilled")
    of_one = row.model_copy(update={"sensitivity": {"1": row.sensitivity["1"]}})
    measured = replace(package, utility=package.utility.model_copy(update={"rows": (of_one,)}))
    with pytest.raises(SourceError, match="Found images of 0, 1 to judge on; expected of 1, over which"):
        reproduce(measured, films, "ours", 3, 0, 1, Silence())
