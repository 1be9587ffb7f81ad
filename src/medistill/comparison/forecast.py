"""What a comparison will cost, before it begins: a few steps of every kind, times how many there will be."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from medistill.baselines.encoders import PRETEXTS
from medistill.baselines.pretraining import duration, pretrain
from medistill.baselines.selection import RULES
from medistill.comparison.cells import lacking
from medistill.comparison.contenders import check_transfer
from medistill.comparison.question import OBJECTIVES, Question, Turn, with_budget, with_objective
from medistill.jobs import Tick, run_jobs
from medistill.networks import build
from medistill.package import Transform
from medistill.pipeline import Run
from medistill.plan import (
    Plan,
    Stage,
    Trainings,
    choosing_an_encoding,
    distillation,
    held_together,
    network_of_run,
    networks_of_an_arm,
    on_few,
    side_by_side,
    teaching,
)
from medistill.recipe import FOLLOW_TEACHERS, Architecture, Recipe
from medistill.usage import measured

_STEPS_TIMED = 3
_PROBE = 1 / 3  # of a whole network's time: nothing goes back through the features of a linear probe


def forecast(opened: Run, question: Question) -> Plan:
    """Predict time, memory and disk of what no cell answers yet, all seeds and budgets; takes about a minute.

    What transfer learns from, apart from the gratings, is not read for this: its own training is left out.
    """
    check_transfer(opened, question)
    turns = lacking(opened, question)
    stages = []
    learners = {turn.recipe.seed for turn in turns if FOLLOW_TEACHERS & set(turn.methods)}
    if learners:
        stages.append(teaching(opened).times(len(learners)))
    for name in OBJECTIVES:
        for ipc, times in Counter(turn.recipe.distill.ipc for turn in _with(turns, name)).items():
            cost = distillation(opened.with_recipe(with_objective(with_budget(opened.recipe, ipc), name))).times(times)
            stages.append(Stage(f"{name}, {ipc} a class", cost.seconds, cost.memory_bytes, cost.disk_bytes))
    return Plan((*stages, *_pretraining(opened, turns), *_networks(opened, turns)))


def _with(turns: Sequence[Turn], method: str) -> list[Turn]:
    """The turns that a method takes part in."""
    return [turn for turn in turns if method in turn.methods]


def _pretraining(opened: Run, turns: Sequence[Turn]) -> list[Stage]:
    """Every pretext on the few of each budget, and once a seed on all images."""
    recipe, train = opened.recipe, opened.splits.train
    stages = []
    for method in (name for name in PRETEXTS if _with(turns, name)):
        asked = _with(turns, method)
        times = Counter(turn.recipe.distill.ipc * len(train.class_names) for turn in asked)
        times[len(train)] += len({turn.recipe.seed for turn in asked})
        for architecture in ("vit",) if method == "mae" else (recipe.network.architecture, *recipe.evaluate.unseen):
            seconds, memory = 0.0, 0
            disk = sum(times.values()) * 4 * network_of_run(opened, architecture).size
            for images, repetitions in times.items():
                step, held = _pretraining_step(opened, method, architecture, images)
                steps = math.prod(duration(recipe.pretrain, images))
                seconds, memory = seconds + repetitions * steps * step, max(memory, held)
            held = held_together(opened.processes, memory, recipe.machine.place)
            stages.append(Stage(f"{method} pre-training", seconds / opened.processes, held, disk))
    return stages


def _pretraining_step(opened: Run, method: str, architecture: Architecture, images: int) -> tuple[float, int]:
    """Seconds of one step beside as many others as there will be, and bytes of each."""
    pixels = torch.from_numpy(opened.splits.train.pixels[: min(images, opened.recipe.pretrain.batch_size)])
    shared = (opened.recipe, opened.transform, method, architecture, pixels)
    found = [each for _, each in run_jobs(_pretrain_briefly, range(opened.processes), shared, opened.processes, _mute)]
    return max(seconds for seconds, _ in found), max(memory for _, memory in found)


def _pretrain_briefly(
    number: int, shared: tuple[Recipe, Transform, str, Architecture, Tensor], tick: Tick
) -> tuple[float, int]:
    """One batch an epoch, so that an epoch is a step."""
    recipe, transform, method, architecture, pixels = shared
    channels, size = pixels.shape[1:3]
    network = build(recipe.network_as(architecture), channels, size, 2)
    encoder = network.module_at(network.initial(0)).get_submodule("features")
    pretext = PRETEXTS[method](encoder, pixels.shape[1:])
    settings = recipe.pretrain.model_copy(update={"steps": _STEPS_TIMED + 1, "batch_size": len(pixels)})
    epochs = pretrain(pretext, pixels, transform, settings, lambda purpose: 0)
    return measured(lambda: next(epochs), _STEPS_TIMED)


def _networks(opened: Run, turns: Sequence[Turn]) -> list[Stage]:
    """The networks of every row, the rate search among them."""
    recipe, settings, train = opened.recipe, opened.recipe.evaluate, opened.splits.train
    each = networks_of_an_arm(settings)
    stages = []
    for ipc in dict.fromkeys(turn.recipe.distill.ipc for turn in turns):
        budgeted = [turn for turn in turns if turn.recipe.distill.ipc == ipc]
        trainings = [
            on_few(recipe, architecture, ipc * films * len(train.class_names), arms * each, part)
            for (architecture, films, part), arms in _arms(budgeted, (recipe.network.architecture, *settings.unseen))
        ]
        distilled = sum(name in OBJECTIVES for turn in budgeted for name in turn.methods)
        trainings += choosing_an_encoding(opened.with_recipe(with_budget(recipe, ipc)), distilled)
        if trainings:
            stages.append(side_by_side(opened, f"networks, {ipc} a class", trainings))
    everything = 2 * each * len(_with(turns, "full"))
    # Whose features choose images: one network a seed, whatever the rules and budgets.
    everything += len({turn.recipe.seed for turn in turns if set(turn.methods) & set(RULES)})
    if everything:
        trainings = [Trainings(recipe.network.architecture, len(train), settings.full_epochs, everything)]
        stages.append(side_by_side(opened, "networks, all images", trainings))
    return stages


def _arms(
    turns: Sequence[Turn], backbones: Sequence[Architecture]
) -> Iterable[tuple[tuple[Architecture, int, float], int]]:
    """How many arms of one budget each architecture has at so many films an image that take such a part of the usual
    time: with the same encoder once all is fine-tuned and once the classifier alone."""
    arms: Counter[tuple[Architecture, int, float]] = Counter()
    encoders = {"transfer": 1} | dict.fromkeys(PRETEXTS, 2)
    for turn in turns:
        for name in (each for each in turn.methods if each != "full"):
            films = turn.recipe.distill.formation**2 if name in OBJECTIVES else 1
            for architecture in ("vit",) if name == "mae" else backbones:
                arms[architecture, films, 1.0] += encoders.get(name, 1)
                if name in encoders:
                    arms[architecture, films, _PROBE] += encoders[name]
            if name == "mae" and "vit" not in backbones:
                arms["vit", films, 1.0] += 1  # from scratch, which a backbone has already
    return arms.items()


def _mute(count: int) -> None:
    """Nobody watches a trial."""
