"""A short search for what a set of images asks for: rates, the student's steps, how far it looks ahead.

Every trial is a distillation of its own with few outer steps, judged as selections are, on validation; the first is the
recipe as it stands, so a search can say that nothing was gained. Test images are never read. Teachers are trained once:
trials differ in nothing that teachers depend on. Finished trials are kept, so a search that was interrupted continues.

Trials are points of a scrambled Sobol sequence: as blind as random search (Bergstra and Bengio, JMLR 2012, compare the
two), but half a dozen of them are spread over the whole range and do not fall into one corner of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.quasirandom import SobolEngine

from medistill import pipeline
from medistill.errors import MatchingError, RecipeError
from medistill.files import write_json, write_whole
from medistill.jobs import Progress
from medistill.pipeline import Run
from medistill.recipe import MachineSettings, Recipe, recipe_from

RECIPE = "tuned.toml"

_FACTOR = 4.0
_STUDENT_STEPS = (5, 10, 20, 40)
_EXPERT_EPOCHS = (1, 2, 3)


@dataclass(frozen=True)
class Trial:
    """What was tried, the distill settings by name, and the best balanced accuracy of its selections on validation,
    that of the start not among them; None where it diverged."""

    settings: dict[str, Any]
    score: float | None


def tune(opened: Run, trials: int, outer_steps: int, progress: Progress) -> tuple[list[Trial], Recipe]:
    """Try settings around the recipe's, and return all trials and the recipe with the best one's.

    Leaves OUT/tuning.json with every trial and OUT/tuned.toml, the recipe that won, with its own number of outer steps.

    Args:
        opened: the recipe with its images.
        trials: how many, the recipe itself among them.
        outer_steps: of each.
        progress: told of everything.

    Raises:
        RecipeError: the recipe leaves nothing to choose on validation.
        MatchingError: every trial diverged.
    """
    if not len(opened.splits.validation):
        raise RecipeError("There are no validation images to choose on. Raise source.validation_fraction.")
    recipe = opened.recipe
    if recipe.distill.follows_teachers:
        pipeline.teach(opened, progress)
    found: list[Trial] = []
    short = {"outer_steps": outer_steps, "validate_every": max(1, outer_steps // 2)}
    tried = [(settings, _with(recipe, settings | short)) for settings in candidates(recipe, trials)]
    for number, (settings, one) in enumerate(tried):
        said = ", ".join(f"{key} {value:g}" for key, value in settings.items())
        progress.say(f"Trial {number + 1} of {trials}: {said or 'the recipe as it stands'}.")
        found.append(Trial(settings, _score(opened.with_recipe(one), progress)))
        write_json(opened.out / "tuning.json", [{"settings": trial.settings, "score": trial.score} for trial in found])
    best = max(found, key=lambda trial: -math.inf if trial.score is None else trial.score)
    if best.score is None:
        raise MatchingError(
            "Every trial failed: it diverged, or nothing was left to match. Lower distill.inner_rate and "
            "distill.image_rate to a tenth, or distill.threshold."
        )
    own = MachineSettings(precision=recipe.machine.precision)  # the rest was chosen for this machine
    tuned = _with(recipe, best.settings).model_copy(update={"machine": own})
    write_whole(opened.out / RECIPE, tuned.to_toml().encode())
    return found, tuned


def candidates(recipe: Recipe, trials: int) -> list[dict[str, Any]]:
    """The settings of every trial: the recipe's own first, then points that depend on its seed alone.

    The step size of the pixels and the way of a student, its rate times its steps, are up to four times larger or
    smaller than the recipe's; steps and epochs are a few usual ones.
    Teachers stay the ones there are: a student that looks further ahead starts earlier.
    """
    sequence = SobolEngine(4, scramble=True, seed=recipe.seed_for("tune"))  # type: ignore[no-untyped-call]
    points = sequence.draw(trials - 1).tolist() if trials > 1 else []
    return [{}, *(_candidate(recipe, *point) for point in points)]


def _candidate(recipe: Recipe, image: float, inner: float, steps: float, epochs: float) -> dict[str, Any]:
    """The settings at a point of the unit cube."""
    settings = recipe.distill
    one: dict[str, Any] = {"image_rate": _rounded(settings.image_rate * _FACTOR ** (2 * image - 1))}
    student_steps = settings.student_steps
    if settings.follows_teachers or settings.objective == "soft-label":
        student_steps = one["student_steps"] = _at(_STUDENT_STEPS, steps)
    if settings.objective != "dm":  # which trains no student
        one["inner_rate"] = _rounded(settings.student_way * _FACTOR ** (2 * inner - 1) / student_steps)
    if settings.follows_teachers:
        furthest = recipe.last_teacher_epoch
        earliest = max(settings.min_start_epoch, settings.first_max_start_epoch if settings.window_steps else 0)
        least = 2 if settings.angle_weight > 0 else 1
        fitting = [each for each in _EXPERT_EPOCHS if least <= each <= furthest - earliest]
        one["expert_epochs"] = _at(fitting or [settings.expert_epochs], epochs)
        one["max_start_epoch"] = furthest - one["expert_epochs"]
    return one


def _at(choices: Sequence[int], part: float) -> int:
    return choices[min(int(part * len(choices)), len(choices) - 1)]


def _score(trial: Run, progress: Progress) -> float | None:
    try:
        log = pipeline.distill_images(trial, progress).log
    except MatchingError:
        return None
    scores = [outcome.validation for outcome in log if outcome.step > 0 and outcome.validation is not None]
    return max(scores, default=None)


def _with(recipe: Recipe, settings: dict[str, Any]) -> Recipe:
    return recipe_from(recipe.model_dump() | {"distill": recipe.distill.model_dump() | settings})


def _rounded(rate: float) -> float:
    """Two digits: more would pretend to know."""
    return float(f"{rate:.2g}")
