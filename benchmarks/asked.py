"""What a finished cell or trial was asked: its recipe, and the digest that tells when another is asked."""

import json
from pathlib import Path
from typing import Any

from medistill.recipe import Recipe, read_recipe


def recipe_with(base: Path, own: dict[str, Any], changes: dict[str, str]) -> Recipe:
    """A recipe with plain values for some settings and, over those, `--set` changes."""
    # Values are read as TOML, in which these are spelled as in JSON.
    return read_recipe(base, {key: json.dumps(value) for key, value in own.items()} | changes)


def digest_of(recipe: Recipe) -> str:
    """Of all settings that decide what is found; the machine's do not."""
    return recipe.digest("source", "network", "teachers", "distill", "augment", "evaluate")
