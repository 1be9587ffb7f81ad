"""The outer loop: synthetic images that teach what the teachers learned.

Each outer step moves images (on a canvas, `canvas.py`), labels and inner rate along the gradient of the recipe's
objective (`objectives.py`). What a step draws depends on the recipe and the step's number alone, so the state between
steps is tensors and a few numbers, and a resumed run repeats an uninterrupted one to the bit. The set that is kept is
the one whose networks did best on validation.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from medistill.buffer import Buffer
from medistill.canvas import canvas_of, painted
from medistill.errors import MatchingError, StorageError
from medistill.evaluate import Bench, Training, mean_score, network_for, of_every_class, synthetic_arm, train_all
from medistill.files import remove_partials, storage_errors, write_whole
from medistill.formation import unfold
from medistill.images import LabelledImages, Splits
from medistill.jobs import Progress
from medistill.leaning import class_offsets
from medistill.matching.adjoint import Gradient
from medistill.networks import build
from medistill.objectives import Point, matched
from medistill.package import Transform
from medistill.recipe import DistillSettings, Recipe
from medistill.shapes import Images, Params
from medistill.synthetic import SyntheticSet, starting_set, trusting_logits
from medistill.train import TrainingSet, predict

CHECKPOINT = "checkpoint.safetensors"
"""What a distillation that has begun leaves in its folder."""

_MOST_SKIPPED_IN_A_ROW = 10
_CHECKPOINT_EVERY = 10
_LEVELED_ON = 512  # training images of a class, all of a smaller one; of so many, offsets are known to about a tenth


@dataclass(frozen=True)
class Outcome:
    """What one outer step did.

    Attributes:
        step: its number, from 1; 0 is the start, before any step.
        teacher: whose trajectory was followed, if any was.
        start_epoch: where the student began on it; of `dsa`, how many rounds on the set came before.
        value: of the objective, or None where the step was skipped because a number was not finite.
        kept: the fraction of parameters that pruning left in the match; None where no parameters are matched.
        inner_rate: the student's learning rate after the step.
        validation: balanced accuracy of a selection after the step; None between selections, or where one diverged.
    """

    step: int
    teacher: int | None
    start_epoch: int | None
    value: float | None
    kept: float | None
    inner_rate: float
    validation: float | None = None


@dataclass(frozen=True)
class Distilled:
    """The selected set, the step it comes from, and what every step did."""

    synthetic: SyntheticSet
    selected_step: int
    log: tuple[Outcome, ...]


def distill(
    recipe: Recipe,
    splits: Splits,
    transform: Transform,
    buffer: Buffer,
    folder: Path | None,
    processes: int,
    progress: Progress,
) -> Distilled:
    """Distill the training images into a synthetic set, continuing an interrupted run.

    Args:
        recipe: every setting; its distill section describes the two loops.
        splits: training images for the start, validation images for the selection; the test split is not touched.
        transform: how real images are normalized.
        buffer: the teachers' trajectories; empty where the objective follows none.
        folder: where checkpoints lie, or None to keep none; it must belong to this recipe and these images alone.
        processes: how many networks of a selection are trained at once.
        progress: told of every outer step.

    Raises:
        MatchingError: ten steps in a row were not finite, nothing was left to match, or a teacher did not move.
        RecipeError: a class has too few images for the start.
        StorageError: the disk refused, or the buffer is damaged.
    """
    settings = recipe.distill
    learned = _begun(recipe, splits.train, transform)
    checkpoint = None if folder is None else folder / CHECKPOINT
    if folder is not None:
        remove_partials(folder)
    if checkpoint is not None and checkpoint.exists():
        learned.restore(checkpoint)
    elif settings.learns_labels and settings.label_start == "teachers":
        learned.logits.copy_(teachers_logits(recipe, learned.start, buffer))  # in place: the optimizer holds it
    real = TrainingSet.of(splits.train, transform)
    progress.begin("distill", settings.outer_steps, learned.step)
    if not learned.log:
        score = learned.choose(_selection(recipe, learned.current(), splits, processes))
        learned.log.append(Outcome(0, None, None, None, None, learned.inner_rate, score))
        if checkpoint is not None:
            learned.store(checkpoint)
    while learned.step < settings.outer_steps:
        outcome = _outer_step(recipe, real, buffer, learned)
        if outcome.value is None:
            _mind_skipped(learned, outcome, progress)
        is_last = learned.step == settings.outer_steps
        if learned.step % settings.validate_every == 0 or is_last:
            score = learned.choose(_selection(recipe, learned.current(), splits, processes))
            outcome = replace(outcome, validation=score)
        learned.log.append(outcome)
        if checkpoint is not None and (learned.step % _CHECKPOINT_EVERY == 0 or is_last):
            learned.store(checkpoint)
        progress.advance(1)
    return Distilled(learned.chosen, learned.chosen_step, tuple(learned.log))


def finished(recipe: Recipe, splits: Splits, transform: Transform, folder: Path) -> Distilled | None:
    """The result of a distillation that ran to its last step in `folder`; None where there is none.

    Raises:
        StorageError: the checkpoint is damaged.
    """
    checkpoint = folder / CHECKPOINT
    if not checkpoint.exists():
        return None
    learned = _begun(recipe, splits.train, transform)
    learned.restore(checkpoint)
    if learned.step < recipe.distill.outer_steps:
        return None
    return Distilled(learned.chosen, learned.chosen_step, tuple(learned.log))


class _Learned:
    """Everything that outer steps change, with its way to disk and back."""

    _TENSORS = (
        "canvas",
        "logits",
        "log_rate",
        "average",
        "admitted",
        "importance",
        "chosen_images",
        "chosen_targets",
        "chosen_offsets",
    )
    _NUMBERS = ("step", "skipped", "chosen_rate", "chosen_step", "chosen_score")

    def __init__(self, settings: DistillSettings, start: SyntheticSet, groups: int) -> None:
        self.settings, self.start = settings, start
        assert settings.smoothness is not None  # the size of the images has said it where the recipe did not
        self.smoothness = settings.smoothness
        self.canvas = canvas_of(start.images, self.smoothness, settings.formation).clone()
        self.logits = trusting_logits(start.targets)
        self.log_rate = torch.tensor(math.log(start.inner_rate))
        self.average = start.images.clone()
        self.importance = torch.zeros(groups)
        self.admitted = torch.empty(0)  # until an objective says which parameters it has admitted
        self.chosen_images, self.chosen_targets = start.images.clone(), start.targets.clone()
        self.chosen_offsets = torch.empty(0, dtype=torch.float64)
        self.chosen_rate, self.chosen_step, self.chosen_score = start.inner_rate, 0, -math.inf
        self.step, self.skipped = 0, 0
        self.log: list[Outcome] = []
        self.optimizer = self._new_optimizer()

    @property
    def targets(self) -> Tensor:
        """A probability of every class for each image."""
        return self.logits.softmax(1) if self.settings.learns_labels else self.start.targets

    @property
    def images(self) -> Images:
        return self.shown(self.canvas)

    @property
    def inner_rate(self) -> float:
        return float(self.log_rate.exp())

    @property
    def chosen(self) -> SyntheticSet:
        """The set of the best selection so far."""
        return replace(
            self.start,
            images=self.chosen_images,
            targets=self.chosen_targets,
            inner_rate=self.chosen_rate,
            offsets=tuple(self.chosen_offsets.tolist()),
        )

    def shown(self, canvas: Tensor) -> Images:
        """The images that a canvas of this distillation stands for."""
        return painted(canvas, self.smoothness, self.settings.formation)

    def current(self) -> SyntheticSet:
        """The set as it stands; with `ema`, its images averaged over the steps."""
        images = self.average if self.settings.ema > 0 else self.images
        return replace(self.start, images=images.clone(), targets=self.targets.clone(), inner_rate=self.inner_rate)

    def choose(self, candidate: "_Candidate | None") -> float | None:
        """Keep the candidate if no earlier one did as well, and say how well it did."""
        if candidate is None:
            return None
        if candidate.score > self.chosen_score:
            found = candidate.synthetic
            self.chosen_images, self.chosen_targets = found.images, found.targets
            self.chosen_offsets = torch.tensor(found.offsets, dtype=torch.float64)
            self.chosen_rate, self.chosen_step, self.chosen_score = found.inner_rate, self.step, candidate.score
        return candidate.score

    def move(self, gradient: Gradient, to_importance: Tensor | None) -> None:
        """One step of the optimizer along a finite gradient."""
        self.importance.grad = to_importance
        self.canvas.grad, self.log_rate.grad = gradient.images, gradient.log_rate
        if self.settings.optimizer == "sgd":
            # Adam bounds the step of the log rate by itself; plain descent once threw rates out of the range of floats.
            self.log_rate.grad = gradient.log_rate.clamp(-1, 1)
        if self.settings.learns_labels:
            targets = self.targets
            slope = gradient.targets
            self.logits.grad = targets * (slope - (targets * slope).sum(1, keepdim=True))
        self.optimizer.step()
        self.average.lerp_(self.images, 1 - self.settings.ema)

    def store(self, path: Path) -> None:
        """Write everything to one file, whole or not at all."""
        tensors = {name: getattr(self, name) for name in self._TENSORS}
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": torch.as_tensor(value) for name, value in slots.items()}
        plain = {name: getattr(self, name) for name in self._NUMBERS} | {
            "log": [asdict(outcome) for outcome in self.log]
        }
        content = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
        write_whole(path, save(content, {"state": json.dumps(plain, sort_keys=True)}))

    def restore(self, path: Path) -> None:
        """Read everything back.

        Raises:
            StorageError: the file is damaged.
        """
        try:
            with storage_errors(path), safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not iterable)
                plain = json.loads(file.metadata()["state"])
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{path.name} is damaged. Delete it to begin the distillation anew.") from error
        for name in self._TENSORS:
            setattr(self, name, tensors.pop(name))
        for name in self._NUMBERS:
            setattr(self, name, plain[name])
        self.log = [Outcome(**outcome) for outcome in plain["log"]]
        self.optimizer = self._new_optimizer()
        slots: dict[int, dict[str, Any]] = {}
        for name, tensor in tensors.items():
            _, index, slot = name.split("/")
            slots.setdefault(int(index), {})[slot] = tensor
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": slots})

    def _new_optimizer(self) -> torch.optim.Optimizer:
        settings = self.settings
        groups = [
            {"params": [self.canvas], "lr": settings.image_rate},
            {"params": [self.log_rate], "lr": settings.log_rate_step},
            {"params": [self.logits], "lr": settings.label_rate},
            {"params": [self.importance], "lr": settings.importance_rate},
        ]
        if settings.optimizer == "adam":
            return torch.optim.Adam(groups)
        return torch.optim.SGD(groups, momentum=settings.image_momentum)


def _begun(recipe: Recipe, real: LabelledImages, transform: Transform) -> _Learned:
    start = starting_set(recipe.distill, real, transform, recipe.seed_for("distill/start"))
    channels, size = real.pixels.shape[1:3]
    network = build(recipe.network, channels, size, len(real.class_names))
    return _Learned(recipe.distill.for_images(size), start, len(network.group_sizes))


def teachers_logits(recipe: Recipe, start: SyntheticSet, buffer: Buffer) -> Tensor:
    """Where learned labels begin: the mean logits of the finished teachers that put an image into its class; those of
    `trusting_logits` where none does.

    Source: Guo et al., ICLR 2024 (arXiv 2310.05773), "soft label initialization".
    """
    films = start.unfolded()
    channels, size = films.images.shape[1:3]

    def finished_teacher(teacher: int) -> Tensor:
        network = build(recipe.teacher_network(teacher), channels, size, len(start.class_names))
        return network(buffer.snapshot(teacher, buffer.last_epoch), films.images)

    with torch.no_grad():
        said = torch.stack([finished_teacher(teacher) for teacher in range(buffer.teachers)])
    is_right = (said.argmax(2) == films.targets.argmax(1)).float()[:, :, None]
    mean = (is_right * said).sum(0) / is_right.sum(0).clamp(min=1)
    of_films = torch.where(is_right.any(0), mean, trusting_logits(films.targets))
    return of_films.reshape(len(start), -1, of_films.shape[1]).mean(1)


def _outer_step(recipe: Recipe, real: TrainingSet, buffer: Buffer, learned: _Learned) -> Outcome:
    """Move along the objective's gradient; a step whose numbers are not finite changes nothing but the count."""
    learned.step += 1
    admitted = learned.admitted if len(learned.admitted) else None
    canvas, formation = learned.canvas.detach().requires_grad_(), recipe.distill.formation
    films = unfold(learned.shown(canvas), formation, recipe.distill.enlarging)
    targets = learned.targets.repeat_interleave(formation**2, 0)
    importance = learned.importance if recipe.distill.importance_rate > 0 else None
    point = Point(learned.step, films.detach(), targets, learned.log_rate, admitted, importance)
    found = matched(recipe, point, real, buffer)
    of_films = Gradient(*(getattr(found.gradient, field.name).cpu() for field in fields(Gradient)))
    gradient = replace(
        of_films,
        images=torch.autograd.grad(films, canvas, of_films.images)[0],  # from here on of the canvas
        targets=of_films.targets.reshape(len(canvas), -1, targets.shape[1]).sum(1),
    )
    parts = (gradient.value, gradient.images, gradient.targets, gradient.log_rate)
    is_finite = all(bool(torch.isfinite(part).all()) for part in parts)
    if is_finite:
        learned.move(gradient, None if found.importance is None else found.importance.cpu())
        if found.admitted is not None:
            learned.admitted = found.admitted.cpu()
    value = float(gradient.value) if is_finite else None
    return Outcome(learned.step, found.teacher, found.start_epoch, value, found.kept, learned.inner_rate)


def _mind_skipped(learned: _Learned, outcome: Outcome, progress: Progress) -> None:
    learned.skipped += 1
    where = "from a fresh network"
    if outcome.teacher is not None:
        where = f"starting at epoch {outcome.start_epoch} of teacher {outcome.teacher}"
    progress.say(f"Step {outcome.step}, {where}, was not finite: skipped, images and rate stay as they were.")
    earlier_steps = learned.log[1:]  # the first entry is the start
    recent = [past.value for past in earlier_steps[-_MOST_SKIPPED_IN_A_ROW + 1 :]]
    if len(recent) == _MOST_SKIPPED_IN_A_ROW - 1 and all(value is None for value in recent):
        raise MatchingError(
            f"{_MOST_SKIPPED_IN_A_ROW} outer steps in a row were not finite, the last {where}, at an inner rate of "
            f"{outcome.inner_rate:g}. Lower distill.inner_rate or distill.image_rate; the last checkpoint is kept."
        )


@dataclass(frozen=True)
class _Candidate:
    """A set that may be selected, leveled where the recipe asks for it, and its balanced accuracy on validation."""

    synthetic: SyntheticSet
    score: float


def _selection(recipe: Recipe, synthetic: SyntheticSet, splits: Splits, processes: int) -> _Candidate | None:
    """Train fresh networks on the set at the middle rate of the search, and ask how well they do on validation.

    None where one diverged.
    """
    settings = recipe.distill
    draw = np.random.default_rng(recipe.seed_for("distill/validation-images"))
    chosen = np.sort(draw.permutation(len(splits.validation))[: settings.validate_images])
    bench = Bench(recipe, splits.validation.take(chosen), None, processes)
    arm = synthetic_arm(recipe, synthetic)
    jobs = [
        Training(arm.name, recipe.evaluate.middle_rate, "selection", replica)
        for replica in range(settings.validate_networks)
    ]
    networks = [each for each in train_all(bench, [arm], jobs, None).values() if each is not None]
    if len(networks) < len(jobs):
        return None
    if settings.states_offsets:
        lean = _lean(recipe, [each.params for each in networks], splits.train, synthetic)
        synthetic = replace(synthetic, offsets=lean)
        leveled = TrainingSet.of_synthetic(synthetic).leveled
        networks = [each._replace(params=leveled(each.params)) for each in networks]
    score = mean_score(bench, arm, networks)
    assert score is not None  # none of these networks diverged
    return _Candidate(synthetic, score)


def _lean(
    recipe: Recipe, trained: Sequence[Params], real: LabelledImages, synthetic: SyntheticSet
) -> tuple[float, ...]:
    """The mean over networks of the class offsets that level each on training images, to three digits."""
    draw = np.random.default_rng(recipe.seed_for("distill/lean"))
    of_each = np.minimum(real.counts, _LEVELED_ON).tolist()
    images = real.take(of_every_class(real, of_each, lambda members, n: draw.choice(members, n, False)))
    network = network_for(recipe, recipe.network.architecture, real)
    found = [
        class_offsets(predict(network, params.to(recipe.machine.place), images, synthetic.transform), images.labels)
        for params in trained
    ]
    return tuple(np.mean(found, 0).round(3).tolist())
