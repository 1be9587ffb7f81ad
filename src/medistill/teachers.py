"""Teachers: networks trained on the real images, recorded epoch by epoch.

Teachers are independent of one another, so each is a job; each epoch is on disk before the next begins, so a killed run
loses at most one epoch of each. They are trained only to the last epoch that distillation can ask for.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from medistill.buffer import Buffer, write_trajectory
from medistill.files import remove_partials, storage_errors, write_whole
from medistill.images import LabelledImages
from medistill.jobs import Progress, Tick, run_jobs
from medistill.networks import FlatNetwork, build
from medistill.package import Transform
from medistill.recipe import Recipe
from medistill.train import Optimization, State, TrainingSet, fresh, train

_STATE = ("params", "velocity", "average")


def train_teachers(
    recipe: Recipe, images: LabelledImages, transform: Transform, folder: Path, processes: int, progress: Progress
) -> Buffer:
    """Train the recipe's teachers and return the buffer of their trajectories, continuing what an earlier run began.

    Args:
        recipe: its network, augment and teachers sections count.
        images: the real training images.
        transform: how they are normalized.
        folder: where the buffer lies; it must belong to this recipe and these images alone.
        processes: how many teachers at once.
        progress: told of every image seen.

    Raises:
        MatchingError: a teacher diverged or did not move.
        StorageError: the disk refused.
    """
    buffer = Buffer(folder, recipe.teachers.count, recipe.last_teacher_epoch)
    remove_partials(folder)
    missing = buffer.missing()
    for teacher in set(range(buffer.teachers)) - set(missing):
        shutil.rmtree(buffer.path(teacher).with_suffix(""), ignore_errors=True)
    per_teacher = len(images) * buffer.last_epoch
    progress.begin("teachers", per_teacher * buffer.teachers, per_teacher * (buffer.teachers - len(missing)))
    shared = _Shared(recipe, images, transform, buffer)
    for _ in run_jobs(_train_teacher, missing, shared, processes, progress.advance):
        pass
    return buffer


@dataclass(frozen=True)
class _Shared:
    recipe: Recipe
    images: LabelledImages
    transform: Transform
    buffer: Buffer


def _train_teacher(teacher: int, shared: _Shared, tick: Tick) -> None:
    recipe, images, buffer = shared.recipe, shared.images, shared.buffer
    channels, size = images.pixels.shape[1:3]
    network = build(recipe.teacher_network(teacher), channels, size, len(images.class_names), recipe.machine)
    epochs = buffer.path(teacher).with_suffix("")
    start = fresh(network, recipe.seed_for(f"teacher/{teacher}/start"))
    done = _recorded(network, epochs, start)
    tick(len(images) * (len(done) - 1))
    how = Optimization(
        rate=recipe.teachers.rate,
        epochs=buffer.last_epoch,
        batch_size=recipe.teachers.batch_size,
        momentum=recipe.teachers.momentum,
        weight_decay=recipe.teachers.weight_decay,
        cosine=False,
        sampling=recipe.teachers.sampling,
        augment=recipe.augment,
        average=recipe.teachers.average,
        logit_adjustment=recipe.teachers.logit_adjustment,
        sharpness_radius=recipe.teachers.sharpness_radius,
        surrogate_gap=recipe.teachers.surrogate_gap,
    )
    data = TrainingSet.of(images, shared.transform).on(recipe.machine.place)
    for state in train(network, done[-1], data, how, lambda purpose: recipe.seed_for(f"teacher/{teacher}/{purpose}")):
        content = save({name: getattr(state, name) for name in _STATE})
        write_whole(_epoch_path(epochs, state.epoch), content)
        done.append(state)
        tick(len(images))
    about = {"teacher": str(teacher), "recipe": recipe.digest("source", "network", "augment", "teachers")}
    write_trajectory(buffer.path(teacher), [state.average.cpu() for state in done], recipe.teachers.storage, about)
    shutil.rmtree(epochs)


def _recorded(network: FlatNetwork, folder: Path, start: State) -> list[State]:
    """The states of an interrupted training in order, from the start up to the first epoch that is not whole."""
    done = [start]
    while (path := _epoch_path(folder, len(done))).exists():
        with storage_errors(path):
            content = path.read_bytes()
        try:
            tensors = load(content)
            state = State(len(done), **{name: tensors[name] for name in _STATE})
        except (SafetensorError, KeyError):
            break
        if state.params.shape != torch.Size([network.size]):
            break
        done.append(state)
    return done


def _epoch_path(folder: Path, epoch: int) -> Path:
    return folder / f"epoch-{epoch:04d}.safetensors"
