"""What a finished cell or trial was asked: its recipe, and the digest that tells when another is asked."""

import json
from pathlib import Path
from typing import Any

from medistill.recipe import Recipe, read_recipe

BASE = Path(__file__).with_name("base.toml")
"""What every method and every dial shares."""

TEN_STEPS: dict[str, Any] = {
    "teachers.count": 12,
    "teachers.epochs": 6,
    "distill.student_steps": 10,
    "distill.inner_rate": 0.04,
    "distill.expert_epochs": 2,
    "distill.max_start_epoch": 4,
    "distill.outer_steps": 400,
}
"""What recipes asked at first, until longer stretches were found to be better (docs/log.md)."""

FOUR_FILMS: dict[str, Any] = {"distill.formation": 2, "distill.batch_size": 80}
"""Four films in each image, of which each student step sees eighty."""


def recipe_with(base: Path, own: dict[str, Any], changes: dict[str, str]) -> Recipe:
    """A recipe with plain values for some settings and, over those, `--set` changes."""
    # Values are read as TOML, in which these are spelled as in JSON.
    return read_recipe(base, {key: json.dumps(value) for key, value in own.items()} | changes)


def digest_of(recipe: Recipe) -> str:
    """Of all settings that decide what is found; the machine's do not."""
    return recipe.digest("source", "network", "teachers", "distill", "augment", "evaluate")
