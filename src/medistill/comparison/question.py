"""What is to be compared: methods, budgets, repetitions."""

from dataclasses import dataclass

from medistill.baselines.encoders import PRETEXTS
from medistill.baselines.selection import RULES
from medistill.errors import RecipeError
from medistill.files import digest
from medistill.recipe import COMPARE_CLASSES, FOLLOW_TEACHERS, Objective, Recipe, recipe_from

OBJECTIVES: tuple[Objective, ...] = ("soft-label", "dm", "dsa", "mtt", "pruned")
METHODS = ("scratch", *PRETEXTS, "transfer", "random", *RULES, *OBJECTIVES, "full")
REFERENCES = ("scratch", "random", *RULES, *OBJECTIVES, "full-natural", "full-balanced")
"""Rows that others can be held against: those of methods with one row for a network and a budget."""

_SHORT_STEPS = 10  # of a student, in an outer step of those that need no more or of a table in little time
_MOST_ROUNDS = 4  # DSA looks from networks that have seen the set for at most so many rounds of student steps


@dataclass(frozen=True)
class Question:
    """What is to be compared.

    Attributes:
        methods: some of `METHODS`.
        ipcs: images a class, one budget after another; empty for the recipe's alone.
        seeds: how many repetitions, the recipe's seed first.
        final: judge on the test split, which is recorded, instead of on validation.
        natural: a source of images to pre-train on for `transfer`; None lets the project draw some.
        weights: weights of timm's for `transfer` instead: a safetensors file, or `hub`.
        timm: the model that those are for.
        against: one of `REFERENCES`, whose row the others are held against where it is in the table.
    """

    methods: tuple[str, ...] = METHODS
    ipcs: tuple[int, ...] = ()
    seeds: int = 3
    final: bool = False
    natural: str | None = None
    weights: str | None = None
    timm: str = "resnet18"
    against: str = "random"

    def __post_init__(self) -> None:
        unknown = sorted(set(self.methods) - set(METHODS))
        if unknown or not self.methods:
            raise RecipeError(f"--methods {','.join(unknown)}: expected some of {', '.join(METHODS)}.")
        if self.against not in REFERENCES:
            raise RecipeError(f"--against {self.against}: expected one of {', '.join(REFERENCES)}.")
        if self.natural is not None and self.weights is not None:
            raise RecipeError("--natural and --weights both say what transfer begins with. Give one of them.")
        if any(ipc < 1 for ipc in self.ipcs) or len(set(self.ipcs)) < len(self.ipcs):
            raise RecipeError(f"--ipc {','.join(map(str, self.ipcs))}: expected different numbers of 1 or more.")

    @property
    def of_the_test_split(self) -> str:
        """What a final comparison asks of the test split, in short; how its answer is printed is no part of it."""
        asked = (sorted(self.methods), sorted(self.ipcs), self.seeds)
        return digest(repr((*asked, self.natural, self.weights, self.timm)).encode())[:12]

    def turns(self, recipe: Recipe) -> "list[Turn]":
        """Seed by seed, and within a seed budget by budget."""
        budgets = self.ipcs or (recipe.distill.ipc,)
        # What all images teach does not depend on the budget.
        few = tuple(name for name in METHODS if name in self.methods and name != "full")
        full = ("full",) if "full" in self.methods else ()
        return [
            Turn(
                with_budget(recipe.model_copy(update={"seed": recipe.seed + number}), ipc),
                few + full if ipc == budgets[0] else few,
            )
            for number in range(self.seeds)
            for ipc in budgets
        ]


@dataclass(frozen=True)
class Turn:
    """One repetition at one budget, which its recipe names, and who takes part, in the order of `METHODS`."""

    recipe: Recipe
    methods: tuple[str, ...]


def with_budget(recipe: Recipe, ipc: int) -> Recipe:
    """The recipe with another number of images a class, which its outer steps follow unless it states them."""
    distill = recipe.distill.model_dump() | {"ipc": ipc}
    if "outer_steps" not in recipe.distill.model_fields_set:
        del distill["outer_steps"]
    return recipe_from(recipe.model_dump() | {"distill": distill})


def with_objective(recipe: Recipe, objective: Objective) -> Recipe:
    """The recipe with another objective.

    Labels are learned where the objective is about them, and stay hard where it cannot teach them; class offsets are
    stated where they help the objective and the recipe does not forbid them. DM and DSA move the pixels
    once in an outer step, however long it is: theirs counts as ten student steps, so they take more of them, and
    DSA looks from networks that are about as young as those it was searched with.
    """
    changed = recipe.distill.model_dump() | {"objective": objective}
    if objective not in FOLLOW_TEACHERS:
        changed |= {"learn_labels": None, "label_start": "class", "class_offsets": None}
    if objective in COMPARE_CLASSES:
        rounds = min(recipe.distill.max_start_epoch, _MOST_ROUNDS)
        changed |= {"min_start_epoch": 0, "window_steps": 0, "max_start_epoch": rounds}
    if objective in COMPARE_CLASSES and recipe.distill.student_steps > _SHORT_STEPS:
        changed |= {
            "student_steps": _SHORT_STEPS,
            "inner_rate": recipe.distill.student_way / _SHORT_STEPS,
            "outer_steps": round(recipe.distill.outer_steps * recipe.distill.student_steps / _SHORT_STEPS),
        }
    return recipe_from(recipe.model_dump() | {"distill": changed})


def quickened(recipe: Recipe) -> Recipe:
    """The recipe for a table in little time: everybody gets less of what takes it, and only the recipe's network;
    trajectories are matched in shorter stretches of fewer and shorter teachers, from early ones to late ones, and an
    image holds one film."""
    settings = recipe.model_dump()
    most = {
        ("teachers", "count"): max(4, 1 + len(recipe.teachers.also)),
        ("teachers", "epochs"): 6,
        ("distill", "outer_steps"): 100,
        ("distill", "student_steps"): _SHORT_STEPS,
        ("distill", "expert_epochs"): 2,
        ("distill", "validate_networks"): 2,
        ("pretrain", "steps"): 300,
        ("evaluate", "networks"): 3,
        ("evaluate", "steps"): 150,
    }
    for (section, key), value in most.items():
        settings[section][key] = min(settings[section][key], value)
    distill = settings["distill"]
    latest = min(recipe.last_teacher_epoch, settings["teachers"]["epochs"]) - distill["expert_epochs"]
    distill |= {
        "inner_rate": recipe.distill.student_way / distill["student_steps"],  # as far in fewer steps
        "max_start_epoch": latest,
        **{key: min(distill[key], latest) for key in ("min_start_epoch", "first_max_start_epoch")},
    }
    if distill["formation"] > 1:  # batches are of films, of which there are fewer then
        distill |= {"formation": 1, "batch_size": None}
    if not distill["window_steps"]:  # so few steps are wasted on late stretches before early ones are matched
        distill |= {"window_steps": distill["outer_steps"], "first_max_start_epoch": distill["min_start_epoch"]}
    settings["evaluate"]["unseen"] = ()
    return recipe_from(settings)
