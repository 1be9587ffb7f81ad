from pathlib import Path

import pytest
import typer

from medistill.cli import console
from medistill.errors import PackageError
from medistill.package import check_class_names


def refusing(error: Exception) -> None:
    @console.reported
    def command() -> None:
        raise error

    command()


def test_a_file_that_the_system_refuses_is_named_without_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit):
        refusing(PermissionError(13, "Permission denied", str(tmp_path / "films.npz")))
    said = capsys.readouterr().err
    assert said.startswith("StorageError films.npz: Permission denied. ")
    assert str(tmp_path) not in said


@pytest.mark.parametrize(
    "error", [OSError("libcudnn.so.9: cannot open"), BrokenPipeError(32, "Broken pipe"), OSError(2)]
)
def test_what_is_about_no_file_stays_what_it_is(error: OSError) -> None:
    with pytest.raises(type(error)) as caught:
        refusing(error)
    assert caught.value is error


@pytest.mark.parametrize("names", [("a", "a"), ("a",), ("a", "b\N{NO-BREAK SPACE}c"), tuple(map(str, range(1001)))])
def test_class_names_that_no_package_can_carry_are_refused_before_any_work(names: tuple[str, ...]) -> None:
    with pytest.raises(PackageError, match="class"):
        check_class_names(names)
