"""What a run will cost, before it runs.

Nothing is looked up in a table of machines: one real step of each kind is taken on this machine, timed, and multiplied
by how many the recipe asks for. Memory is what the steps were seen to hold. Work that an earlier call finished is
counted as still to do.
"""

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import torch

from medistill.distill import CHECKPOINT
from medistill.errors import RecipeError, StorageError
from medistill.evaluate import network_of, standard_arms
from medistill.files import free_bytes
from medistill.jobs import Tick, run_jobs
from medistill.matching.adjoint import InnerStep, trajectory_gradient
from medistill.matching.trajectory import trajectory_distance
from medistill.networks import FlatNetwork, Timm
from medistill.objectives import Point, matched
from medistill.pipeline import Run
from medistill.recipe import COMPARE_CLASSES, Architecture, Device, Encoding, EvaluateSettings, Recipe
from medistill.report.words import size
from medistill.synthetic import SyntheticSet, trusting_logits
from medistill.train import Optimization, TrainingSet, even_batch, fresh, train
from medistill.usage import measured, own_bytes, shared_bytes

_STEPS_TAKEN, _STEPS_TIMED = 2, 7
_MEASURED_AGAIN = 1.1  # what was begun within the budget may measure so much more the next time, and goes on


@dataclass(frozen=True)
class Stage:
    """The predicted cost of one stage: seconds on the wall, bytes of memory in all processes, bytes that it leaves on
    disk, and bytes that are there besides while it runs."""

    name: str
    seconds: float
    memory_bytes: int
    disk_bytes: int
    passing_bytes: int = 0

    def times(self, repetitions: int) -> "Stage":
        """The same so many times, one after another."""
        return replace(self, seconds=repetitions * self.seconds, disk_bytes=repetitions * self.disk_bytes)


@dataclass(frozen=True)
class Plan:
    """The predicted cost of a run, stage by stage."""

    stages: tuple[Stage, ...]

    @property
    def seconds(self) -> float:
        """Wall time of all stages, one after another."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def memory_bytes(self) -> int:
        """The most memory that any stage holds."""
        return max((stage.memory_bytes for stage in self.stages), default=0)

    @property
    def disk_bytes(self) -> int:
        """What all stages leave on disk, and the most that any holds there besides."""
        passing = max((stage.passing_bytes for stage in self.stages), default=0)
        return sum(stage.disk_bytes for stage in self.stages) + passing


def plan(opened: Run) -> Plan:
    """Predict time, memory and disk of every stage by taking a few of its steps; takes seconds."""
    teachers = (teaching(opened),) if opened.recipe.distill.follows_teachers else ()
    return Plan((*teachers, distillation(opened), _evaluation(opened)))


def fitted(opened: Run, budget: int) -> tuple[Run, Plan]:
    """The same run, kept within `budget` bytes of memory, and its cost.

    Fewer processes, fewer activations kept and smaller micro-batches change time and memory; only the last changes the
    result, and of that only the last bits.

    Raises:
        RecipeError: even one image at a time needs more.
    """
    several_at_once = (teaching, _evaluation) if opened.recipe.distill.follows_teachers else (_evaluation,)
    for stage in several_at_once:
        while (cost := stage(opened)).memory_bytes > budget:
            if opened.processes == 1:
                raise _does_not_fit(cost, budget)
            # Alone a network needs less than its share: no worker holds the images again.
            fewer = max(1, min(opened.processes - 1, opened.processes * budget // cost.memory_bytes))
            opened = _changed(opened, "machine", processes=fewer)
    asked_mb = opened.recipe.machine.keep_mb
    opened = _as_begun(_changed(opened, "machine", keep_mb=0))
    while (cost := distillation(opened)).memory_bytes > budget * (_MEASURED_AGAIN if _has_begun(opened) else 1):
        fewer_at_a_time = _halved(opened)
        if fewer_at_a_time is None:
            raise _does_not_fit(cost, budget)
        opened = fewer_at_a_time
    room_mb = max(0, budget - cost.memory_bytes) // 2**20
    opened = _changed(opened, "machine", keep_mb=min(asked_mb, room_mb))
    return opened, plan(opened)


def _as_begun(opened: Run) -> Run:
    """The run with the micro-batch of a distillation that an earlier call began: memory is never measured twice alike,
    and where it is near the budget another choice would begin anew."""
    candidate: Run | None = opened
    while candidate is not None and not _has_begun(candidate):
        candidate = _halved(candidate)
    return candidate or opened


def _has_begun(opened: Run) -> bool:
    return (opened.distillation / CHECKPOINT).exists()


def _halved(opened: Run) -> Run | None:
    """The run with half as many images at a time; None where it is one already."""
    settings, classes = opened.recipe.distill, len(opened.splits.train.class_names)
    images = settings.ipc * settings.formation**2 * classes
    at_a_time = min(each for each in (images, settings.batch_size, settings.micro_batch) if each is not None)
    return None if at_a_time == 1 else _changed(opened, "distill", micro_batch=math.ceil(at_a_time / 2))


def _changed(opened: Run, section: str, **settings: int) -> Run:
    changed = getattr(opened.recipe, section).model_copy(update=settings)
    return replace(opened, recipe=opened.recipe.model_copy(update={section: changed}))


def _does_not_fit(cost: Stage, budget: int) -> RecipeError:
    return RecipeError(
        f"Stage {cost.name} needs about {size(cost.memory_bytes)} of memory however little is held at once; "
        f"--memory allows {size(budget)}. Allow more, or choose a smaller network.width or source.image_size."
    )


def refuse_without_room(opened: Run, predicted: Plan) -> None:
    """Refuse a run that its disk cannot hold, before it begins; what earlier runs left there counts as room.

    Raises:
        StorageError: the disk has less room than the run needs.
    """
    stored = sum(path.stat().st_size for path in (opened.out / "work").rglob("*") if path.is_file())
    free = free_bytes(opened.out)
    if predicted.disk_bytes - stored > free:
        raise StorageError(
            f"The run needs about {size(predicted.disk_bytes - stored)} of disk; {size(free)} are free. Free some "
            "space, choose another --out, or train fewer teachers (teachers.count)."
        )


def teaching(opened: Run) -> Stage:
    """The teachers, several side by side."""
    recipe, buffer = opened.recipe, opened.buffer
    taking_turns = _taking_turns(recipe)
    trials = [
        training_step(opened, architecture, recipe.teachers.batch_size, recipe.teachers.sharpness_radius)
        for architecture in taking_turns
    ]
    seconds = statistics.mean(trial[0] for trial in trials)
    memory = max(trial[1] for trial in trials) + _images_of_a_worker(opened, 1)
    size = round(statistics.mean(network_of_run(opened, architecture).size for architecture in taking_turns))
    steps = math.ceil(len(opened.splits.train) / recipe.teachers.batch_size) * buffer.last_epoch * buffer.teachers
    processes = min(opened.processes, buffer.teachers)
    later_bytes = 4 if recipe.teachers.storage == "full" else 2
    per_teacher = size * (4 + later_bytes * buffer.last_epoch)
    # Until its end a teacher can go on from any epoch: parameters, velocity and average of each are on the disk.
    in_training = 3 * 4 * size * buffer.last_epoch * min(processes, len(buffer.missing()))
    held = held_together(processes, memory, recipe.machine.place)
    return Stage("teachers", steps * seconds / processes, held, per_teacher * buffer.teachers, in_training)


def distillation(opened: Run) -> Stage:
    """Outer steps with every core on one student, then the networks of the selections side by side."""
    recipe, settings = opened.recipe, opened.recipe.distill
    synthetic = _stand_in(opened)
    if settings.objective in COMPARE_CLASSES:
        outer_seconds, memory = _comparison(opened, synthetic)
    else:
        steps = [_outer_step(network_of_run(opened, each), synthetic, recipe) for each in _taking_turns(recipe)]
        outer_seconds, memory = statistics.mean(step[0] for step in steps), max(step[1] for step in steps)
    outer = settings.outer_steps * outer_seconds
    at_once = min(opened.processes, settings.validate_networks)
    selections = 1 + math.ceil(settings.outer_steps / settings.validate_every)
    batch = even_batch(len(synthetic), recipe.evaluate.batch_size)
    training_seconds, training_memory = training_step(opened, recipe.network.architecture, batch)
    rounds = selections * math.ceil(settings.validate_networks / at_once)
    selecting = rounds * recipe.evaluate.steps * training_seconds
    held = shared_bytes(recipe.machine.place) + memory + (at_once * training_memory if at_once > 1 else 0)
    stored_numbers = synthetic.images.numel() // settings.formation**2
    return Stage("distill", outer + selecting, held, 8 * 4 * stored_numbers)


def _taking_turns(recipe: Recipe) -> list[Architecture]:
    """The architectures of the teachers, as many as there are different ones."""
    turns = min(recipe.teachers.count, 1 + len(recipe.teachers.also))
    return [recipe.teacher_network(teacher).architecture for teacher in range(turns)]


def _outer_step(network: FlatNetwork, synthetic: SyntheticSet, recipe: Recipe) -> tuple[float, int]:
    """Seconds and bytes of one outer step through a student's training, from a few of the student's steps."""
    settings = recipe.distill
    kept_bytes = _kept_bytes(network, synthetic, recipe)
    kept = min(settings.student_steps, recipe.machine.keep_mb * 2**20 // kept_bytes) if kept_bytes else 0
    total_seconds, memory = 0.0, 0
    for steps, keeps in ((kept, True), (settings.student_steps - kept, False)):
        if steps:
            seconds, most = _inner_step(network, synthetic, recipe, kept_bytes if keeps else 0)
            total_seconds += steps * seconds
            memory = max(memory, most)
    path_bytes = 4 * network.size * settings.student_steps
    return total_seconds, memory + max(0, kept - _STEPS_TAKEN) * kept_bytes + path_bytes


def _comparison(opened: Run, synthetic: SyntheticSet) -> tuple[float, int]:
    """Seconds and bytes of one outer step that compares classes, from whole steps."""
    recipe, numbers = opened.recipe, itertools.count(1)
    log_rate = torch.tensor(math.log(recipe.distill.inner_rate))
    real = TrainingSet.of(opened.splits.train, opened.transform)

    def step() -> None:
        point = Point(next(numbers), synthetic.images, synthetic.targets, log_rate)
        matched(recipe, point, real, opened.buffer)

    return _measured(step, recipe.machine.threads or 1, recipe.machine.place)


def _kept_bytes(network: FlatNetwork, synthetic: SyntheticSet, recipe: Recipe) -> int:
    """What the activations of one student step take; 0 where the network cannot keep them."""
    place, count = recipe.machine.place, min(recipe.distill.batch_size or len(synthetic), len(synthetic))
    images, targets = (each[:count].to(place) for each in (synthetic.images, synthetic.targets))
    return network.kept_bytes(network.initial(0).to(place), images, targets)


def _inner_step(network: FlatNetwork, synthetic: SyntheticSet, recipe: Recipe, kept_bytes: int) -> tuple[float, int]:
    """Seconds of one step of the student, there and back, and the most bytes held; its activations kept, or not."""
    place, settings = recipe.machine.place, recipe.distill
    start, images, targets = (each.to(place) for each in (network.initial(0), synthetic.images, synthetic.targets))
    batch = torch.arange(min(settings.batch_size or len(synthetic), len(synthetic)))

    def few_steps() -> None:
        trajectory_gradient(
            network,
            start,
            images,
            targets,
            torch.tensor(math.log(settings.inner_rate), device=place),
            [InnerStep(batch, None)] * _STEPS_TAKEN,
            lambda end: trajectory_distance(end, start, start + 1),
            settings.micro_batch,
            _STEPS_TAKEN * kept_bytes,
        )

    seconds, memory = _measured(few_steps, recipe.machine.threads or 1, place)
    return seconds / _STEPS_TAKEN, memory


def _evaluation(opened: Run) -> Stage:
    recipe = opened.recipe
    arms = standard_arms(recipe, opened.splits.train, _stand_in(opened))
    each = networks_of_an_arm(recipe.evaluate)
    trainings = [Trainings(arm.architecture, len(arm.data), arm.epochs, each) for arm in arms]
    return side_by_side(opened, "evaluate", [*trainings, *choosing_an_encoding(opened)])


def networks_of_an_arm(settings: EvaluateSettings) -> int:
    """How many networks are trained for a row, the rate search among them."""
    searched = settings.search_networks * len(settings.rates) if len(settings.rates) > 1 else 0
    return searched + settings.networks


@dataclass(frozen=True)
class Trainings:
    """Networks of one architecture, each trained on so many images for so many epochs.

    `networks` is how many, `part` how much of the usual time each takes: a probe of features needs less.
    """

    architecture: Architecture | Timm
    images: int
    epochs: int
    networks: int
    part: float = 1.0


def on_few(recipe: Recipe, architecture: Architecture, images: int, networks: int, part: float = 1.0) -> Trainings:
    """Networks on a small set: passes over it until `evaluate.steps` steps are taken; see `Trainings`."""
    batches = math.ceil(images / recipe.evaluate.batch_size)
    return Trainings(architecture, images, math.ceil(recipe.evaluate.steps / batches), networks, part)


def choosing_an_encoding(opened: Run, sets: int = 1) -> list[Trainings]:
    """The networks that so many sets take where a set's encoding is measured."""
    recipe = opened.recipe
    if recipe.distill.encoding != "measured" or not sets:
        return []
    films = recipe.distill.ipc * recipe.distill.formation**2 * len(opened.splits.train.class_names)
    networks = sets * len(get_args(Encoding)) * networks_of_an_arm(recipe.evaluate)
    return [on_few(recipe, recipe.network.architecture, films, networks)]


def side_by_side(opened: Run, name: str, trainings: Sequence[Trainings]) -> Stage:
    """The cost of evaluation networks, each of which is kept, as many at once as the run has processes."""
    batch_size, place = opened.recipe.evaluate.batch_size, opened.recipe.machine.place
    seconds, memory, disk = 0.0, 0, 0
    steps: dict[tuple[Architecture | Timm, int], tuple[float, int]] = {}
    for each in trainings:
        key = (each.architecture, even_batch(each.images, batch_size))
        if key not in steps:
            steps[key] = training_step(opened, *key)
        seconds += each.part * each.networks * each.epochs * math.ceil(each.images / batch_size) * steps[key][0]
        memory = max(memory, steps[key][1])
        disk += each.networks * 4 * network_of_run(opened, each.architecture).size
    # Arms draw some of the real images, and learn from all of them.
    held = held_together(opened.processes, memory + _images_of_a_worker(opened, 2), place)
    return Stage(name, seconds / opened.processes, held, disk)


def _images_of_a_worker(opened: Run, times: int) -> int:
    """What a worker holds of the training images, which reach it so many times: the bytes that were sent, and the
    images that it makes of them; on a GPU those that it learns from. This process has them anyway."""
    size = opened.splits.train.pixels.nbytes
    if opened.recipe.machine.place == "cuda":
        return size
    return 2 * times * size if opened.processes > 1 else 0


def held_together(processes: int, each: int, device: Device) -> int:
    """Bytes that several workers hold beside this process, shared memory counted once; one works in this process."""
    return shared_bytes(device) + (each if processes == 1 else processes * each + own_bytes(device))


def network_of_run(opened: Run, architecture: Architecture | Timm) -> FlatNetwork:
    """What a network of this architecture is for the run's images."""
    images = opened.splits.train
    channels, size = images.pixels.shape[1:3]
    return network_of(opened.recipe, architecture, channels, size, len(images.class_names), opened.recipe.machine)


def _stand_in(opened: Run) -> SyntheticSet:
    """Noise of the shape that the synthetic films will have: nothing here depends on what the images show."""
    images, settings = opened.splits.train, opened.recipe.distill
    films = settings.ipc * settings.formation**2
    count = films * len(images.class_names)
    targets = torch.eye(len(images.class_names)).repeat_interleave(films, 0)
    if opened.recipe.distill.learns_labels:
        targets = trusting_logits(targets).softmax(1)
    noise = torch.randn(count, *images.pixels.shape[1:], generator=torch.Generator().manual_seed(0))
    return SyntheticSet(noise, targets, 1.0, images.class_names, opened.transform)


def training_step(
    opened: Run, architecture: Architecture | Timm, batch_size: int, sharpness_radius: float = 0.0
) -> tuple[float, int]:
    """Seconds of one step of training beside as many others as the run trains at once, and bytes of each, without the
    images that are not in the batch; with a `sharpness_radius` a step takes two slopes."""
    images = opened.splits.train
    few = TrainingSet.of(images.take(np.arange(min(batch_size, len(images)))), opened.transform)
    shared = (opened.recipe, architecture, few, sharpness_radius)
    for _ in range(2):  # in the first round workers load what they compute with
        trials = run_jobs(_train_briefly, range(opened.processes), shared, opened.processes, lambda count: None)
        found = [result for _, result in trials]
    return statistics.median(seconds for seconds, _ in found), max(memory for _, memory in found)


def _train_briefly(
    number: int, shared: tuple[Recipe, Architecture | Timm, TrainingSet, float], tick: Tick
) -> tuple[float, int]:
    """One batch an epoch, so that an epoch is a step."""
    recipe, architecture, data, radius = shared
    channels, size = data.pixels.shape[1:3]
    place = recipe.machine.place
    network = network_of(recipe, architecture, channels, size, data.targets.shape[1], recipe.machine)
    how = Optimization(
        0.01, _STEPS_TIMED + 1, len(data), 0.9, 0.0, False, "natural", recipe.augment, sharpness_radius=radius
    )
    steps = train(network, fresh(network, 0), data.on(place), how, lambda purpose: 0)
    return measured(lambda: next(steps), _STEPS_TIMED, place)


def _measured(step: Callable[[], None], threads: int, device: Device) -> tuple[float, int]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return measured(step, device=device)
    finally:
        torch.set_num_threads(before)
