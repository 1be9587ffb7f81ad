"""Documents are held against the code they speak of."""

import re
import tomllib
from pathlib import Path

import pytest

from medistill.cli import app
from medistill.recipe import read_recipe

ROOT = Path(__file__).parent.parent
COMMANDS = {command.callback.__name__ for command in app.registered_commands if command.callback}
COMMANDS |= {str(group.name) for group in app.registered_groups}
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("recipe", sorted(ROOT.glob("recipes/*.toml")), ids=lambda path: path.stem)
def test_every_recipe_is_one_and_its_header_says_how_to_run_it(recipe: Path) -> None:
    assert read_recipe(recipe).name
    header = recipe.read_text().split("\n\n")[0]
    assert f"medistill run recipes/{recipe.name}" in header


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_in_the_documents_exists(document: Path) -> None:
    named = set(re.findall(r"^(?:\s*|.*`)medistill ([a-z]+)", document.read_text(), flags=re.MULTILINE))
    assert named <= COMMANDS


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(document: Path) -> None:
    for target, _, heading in re.findall(r"\]\(([^)#:]+)(#([^)]+))?\)", document.read_text()):
        assert (document.parent / target).exists(), target
        if heading:
            assert heading in _headings(document.parent / target), f"{target}#{heading}"


def _headings(document: Path) -> set[str]:
    """How links spell a document's headings: small letters, hyphens for spaces, no other signs."""
    titles = re.findall(r"^#+ (.*)$", document.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_architecture_names_every_room() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    for room in (ROOT / "src/medistill").iterdir():
        if room.stem.startswith("__"):
            continue
        assert f"`{room.stem}/`" in text or f"`{room.stem}`" in text, room.name


def test_every_target_of_make_that_the_documents_name_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for document in DOCUMENTS:
        assert set(re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)`", document.read_text(), flags=re.MULTILINE)) <= {
            pair for target in targets for pair in ((target, ""), ("", target))
        }


def test_the_pins_cover_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    pinned = {
        line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    names = {re.split(r"[>=<\[]", requirement)[0].lower() for requirement in wanted} - {"medistill"}
    assert names <= pinned
