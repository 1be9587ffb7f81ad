"""Encoders that are pre-trained once and kept: the beginning of every row that fine-tunes or probes.

An encoder is a job of its own, so several learn side by side, and an interrupted comparison continues with those that
are missing. Each is kept with how its epochs went, under a name that hashes what made it.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medistill.baselines.byol import BYOL
from medistill.baselines.mae import MAE
from medistill.baselines.pretraining import Epoch, Pretext, duration, pretrain
from medistill.baselines.simsiam import SimSiam
from medistill.baselines.skd import SKD
from medistill.files import remove_partials
from medistill.jobs import Progress, Tick, run_jobs
from medistill.kept import keep, recall, told_apart
from medistill.networks import build
from medistill.package import Transform
from medistill.recipe import Architecture, Recipe
from medistill.shapes import Params

PRETEXTS: dict[str, Callable[[Any, Sequence[int]], Pretext]] = {
    "byol": BYOL,
    "simsiam": SimSiam,
    "skd": SKD,
    "mae": MAE,
}


@dataclass(frozen=True)
class Lesson:
    """One encoder to be learned.

    Attributes:
        method: a key of `PRETEXTS`.
        architecture: of the network whose features are learned; `mae` needs a vision transformer.
        images: the name of the images that it learns from.
    """

    method: str
    architecture: Architecture
    images: str


@dataclass(frozen=True)
class Encoder:
    """The parameters of all of a network but its classifier, and how they came about."""

    params: Params
    epochs: tuple[Epoch, ...]


@dataclass(frozen=True)
class _Shared:
    recipe: Recipe
    transform: Transform
    images: Mapping[str, Tensor]


def learn_encoders(
    recipe: Recipe,
    lessons: Sequence[Lesson],
    images: Mapping[str, Tensor],
    transform: Transform,
    folder: Path,
    processes: int,
    progress: Progress,
) -> dict[Lesson, Encoder]:
    """Every lesson's encoder, read where it is kept already.

    Args:
        recipe: its network and pretrain sections and its seed count.
        lessons: the encoders to learn.
        images: 8-bit pixels [n, c, h, w] by the names that the lessons give.
        transform: how they are normalized.
        folder: where encoders are kept.
        processes: how many learn at once.
        progress: told of every step.

    Raises:
        MatchingError: one diverged.
        StorageError: the disk refused.
    """
    remove_partials(folder)
    paths = {lesson: folder / f"{_key(recipe, lesson, images, transform)}.safetensors" for lesson in lessons}
    found = {lesson: _load(paths[lesson]) for lesson in lessons}
    missing = [lesson for lesson in lessons if found[lesson] is None]
    steps = {lesson: math.prod(duration(recipe.pretrain, len(images[lesson.images]))) for lesson in lessons}
    total = sum(steps.values())
    progress.begin("pre-training", total, total - sum(steps[lesson] for lesson in missing))
    shared = _Shared(recipe, transform, images)
    for index, encoder in run_jobs(_learn, missing, shared, processes, progress.advance):
        lesson = missing[index]
        found[lesson] = encoder
        about = {"epochs": json.dumps([asdict(epoch) for epoch in encoder.epochs])}
        keep(paths[lesson], {"params": encoder.params}, about)
    return {lesson: encoder for lesson, encoder in found.items() if encoder is not None}


def _learn(lesson: Lesson, shared: _Shared, tick: Tick) -> Encoder:
    recipe, place = shared.recipe, shared.recipe.machine.place
    pixels = shared.images[lesson.images].to(place)
    image = pixels.shape[1:]
    network = build(recipe.network_as(lesson.architecture), image[0], image[-1], 2)  # classes do not matter

    def seed_for(purpose: str) -> int:
        return recipe.seed_for(f"pretrain/{purpose}")

    module = network.module_at(network.initial(seed_for("start")))
    encoder = module.get_submodule("features")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("heads"))
        pretext = PRETEXTS[lesson.method](encoder, image).to(place)
    epochs = []
    for epoch in pretrain(pretext, pixels, shared.transform, recipe.pretrain, seed_for):
        epochs.append(epoch)
        tick(epoch.steps)
    return Encoder(network.params_of(module.cpu())[: -network.head_size], tuple(epochs))


def _key(recipe: Recipe, lesson: Lesson, images: Mapping[str, Tensor], transform: Transform) -> str:
    """A name for a lesson's file: what is learned, and a hash of all that decides it."""
    identity = {
        "recipe": recipe.digest("network", "pretrain"),
        "lesson": asdict(lesson),
        "pixels": hashlib.sha256(images[lesson.images].numpy().tobytes()).hexdigest(),
        "transform": transform.model_dump(),
        "device": recipe.machine.place,
    }
    return f"{lesson.method}-{lesson.architecture}-{lesson.images}-{told_apart(identity)}"


def _load(path: Path) -> Encoder | None:
    kept = recall(path)
    if kept is None:
        return None
    return Encoder(kept.tensors["params"], tuple(Epoch(**epoch) for epoch in json.loads(kept.about["epochs"])))
