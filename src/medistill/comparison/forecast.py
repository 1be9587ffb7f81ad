"""What a comparison will cost, before it begins: a few steps of every kind, times how many there will be."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from medistill.baselines.encoders import PRETEXTS
from medistill.baselines.pretraining import duration, pretrain
from medistill.baselines.selection import RULES
from medistill.comparison.contenders import check_transfer
from medistill.comparison.question import OBJECTIVES, Question, with_budget, with_objective
from medistill.jobs import Tick, run_jobs
from medistill.networks import build
from medistill.package import Transform
from medistill.pipeline import Run
from medistill.plan import Plan, Stage, distillation, held_together, teaching, training_step
from medistill.recipe import FOLLOW_TEACHERS, Architecture, Recipe
from medistill.usage import measured

_STEPS_TIMED = 3
_PROBE = 1 / 3  # of a whole network's time: nothing goes back through the features of a linear probe


def forecast(opened: Run, question: Question) -> Plan:
    """Predict time, memory and disk of a whole comparison, all seeds and budgets; takes about a minute.

    What transfer learns from, apart from the gratings, is not read for this: its own training is left out.
    """
    check_transfer(opened, question)
    ipcs = question.ipcs or (opened.recipe.distill.ipc,)
    asked = [name for name in OBJECTIVES if name in question.methods]
    stages = []
    if FOLLOW_TEACHERS & set(asked):
        stages.append(teaching(opened).times(question.seeds))
    for name in asked:
        for ipc in ipcs:
            variant = opened.with_recipe(with_objective(with_budget(opened.recipe, ipc), name))
            cost = distillation(variant).times(question.seeds)
            stages.append(Stage(f"{name}, {ipc} a class", cost.seconds, cost.memory_bytes, cost.disk_bytes))
    stages += [stage.times(question.seeds) for stage in _pretraining(opened, question, ipcs)]
    return Plan((*stages, *(stage.times(question.seeds) for stage in _networks(opened, question, ipcs))))


def _pretraining(opened: Run, question: Question, ipcs: Sequence[int]) -> list[Stage]:
    """Every pretext on the few of each budget and on all images."""
    recipe, train = opened.recipe, opened.splits.train
    stages = []
    for method in (name for name in PRETEXTS if name in question.methods):
        counts = [*(ipc * len(train.class_names) for ipc in ipcs), len(train)]
        for architecture in ("vit",) if method == "mae" else (recipe.network.architecture, *recipe.evaluate.unseen):
            costs = [
                (math.prod(duration(recipe.pretrain, count)), _pretraining_step(opened, method, architecture, count))
                for count in counts
            ]
            seconds = sum(steps * each for steps, (each, _) in costs) / opened.processes
            memory = max(bytes_held for _, (_, bytes_held) in costs)
            held = held_together(opened.processes, memory, recipe.machine.place)
            stages.append(Stage(f"{method} pre-training", seconds, held, 0))
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


def _networks(opened: Run, question: Question, ipcs: Sequence[int]) -> list[Stage]:
    """The networks of every row, the rate search among them."""
    recipe, settings, train = opened.recipe, opened.recipe.evaluate, opened.splits.train
    each = settings.networks + (settings.search_networks * len(settings.rates) if len(settings.rates) > 1 else 0)
    backbones = (recipe.network.architecture, *settings.unseen)
    stages = []
    for ipc in ipcs:
        count = ipc * len(train.class_names)
        seconds, memory = 0.0, 0
        for architecture, arms in _arms(question, backbones).items():
            step, held = training_step(opened, architecture, min(count, settings.batch_size))
            batches = math.ceil(count / settings.batch_size)
            steps = batches * math.ceil(settings.steps / batches)
            seconds, memory = seconds + arms * each * steps * step, max(memory, held)
        held = held_together(opened.processes, memory, recipe.machine.place)
        stages.append(Stage(f"networks, {ipc} a class", seconds / opened.processes, held, 0))
    if "full" in question.methods:
        step, held = training_step(opened, backbones[0], settings.batch_size)
        steps = settings.full_epochs * math.ceil(len(train) / settings.batch_size)
        held = held_together(opened.processes, held, recipe.machine.place)
        stages.append(Stage("networks, all images", 2 * each * steps * step / opened.processes, held, 0))
    return stages


def _arms(question: Question, backbones: Sequence[Architecture]) -> dict[Architecture, float]:
    """How many arms of one budget each architecture has, a linear probe counted as what it takes."""
    few = [name for name in ("scratch", "random", *RULES, *OBJECTIVES) if name in question.methods]
    pretexts = [name for name in PRETEXTS if name in question.methods and name != "mae"]
    tuned = 1 + _PROBE  # with the same encoder once all is fine-tuned and once the classifier alone
    arms = dict.fromkeys(backbones, len(few) + tuned * (2 * len(pretexts) + ("transfer" in question.methods)))
    if "mae" in question.methods:
        scratch = 0 if "vit" in arms else 1  # a backbone's own rows have it from scratch already
        arms["vit"] = arms.get("vit", 0) + scratch + 2 * tuned
    return {architecture: count for architecture, count in arms.items() if count}


def _mute(count: int) -> None:
    """Nobody watches a trial."""
