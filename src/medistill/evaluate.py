"""The fair protocol: train fresh networks on a set of images, judge each once.

Every training set gets the same search over learning rates, the same augmentation, the same optimizer and networks with
the same first parameters; only the images differ. Rates are chosen by balanced accuracy on validation. What is then
reported on another split was decided before that split was looked at.

Trained networks are kept under a name that hashes what made them, so an interrupted evaluation continues, and rows that
do not depend on a distillation (random images, all images) are trained once for all recipes that share them.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from medistill import intervals, metrics
from medistill.errors import MatchingError, RecipeError
from medistill.evidence import Labels, Row
from medistill.files import remove_partials
from medistill.images import Indices, LabelledImages
from medistill.jobs import Progress, Silence, Tick, run_jobs
from medistill.kept import keep, recall, told_apart
from medistill.networks import AUTOMATIC, FlatNetwork, Timm, build
from medistill.package import Transform
from medistill.recipe import Architecture, MachineSettings, Recipe, Sampling
from medistill.shapes import Params
from medistill.synthetic import SyntheticSet
from medistill.train import Optimization, TrainingSet, fresh, predict, train

Role = Literal["selection", "search", "final"]


@dataclass(frozen=True)
class RandomImages:
    """Real images of which every network gets its own random few, so that spread covers the luck of the draw.

    `of_each` is how many of each class.
    """

    images: LabelledImages
    transform: Transform
    of_each: tuple[int, ...]

    def __len__(self) -> int:
        return sum(self.of_each)

    @property
    def image_count(self) -> int:
        """How many images every network gets."""
        return len(self)

    def draw(self, seed: int) -> TrainingSet:
        """`of_each` images of every class, without repeats.

        Raises:
            RecipeError: a class has fewer.
        """
        generator = np.random.default_rng(seed)
        chosen = of_every_class(self.images, self.of_each, lambda members, n: generator.choice(members, n, False))
        return TrainingSet.of(self.images.take(chosen), self.transform)


def of_every_class(
    images: LabelledImages, of_each: Sequence[int], choose: Callable[[Indices, int], Indices]
) -> Indices:
    """The indices of `of_each` images of every class, classes in order: `choose(members, how_many)` of each.

    Raises:
        RecipeError: a class has fewer.
    """
    chosen = []
    for index, (name, count) in enumerate(zip(images.class_names, of_each, strict=True)):
        members = np.flatnonzero(images.labels == index)
        if len(members) < count:
            raise RecipeError(
                f"Class {name} has {len(members)} training image(s), fewer than the {count} of the set. "
                "Lower distill.ipc, or add images to the class."
            )
        chosen.append(choose(members, count))
    return np.concatenate(chosen)


@dataclass(frozen=True)
class Arm:
    """One training set under test, and the network that is trained on it.

    Attributes:
        name: of the row in the table.
        data: what is learned from.
        architecture: of the network.
        epochs: passes over the set.
        sampling: of the set's images.
        pretrained: what every network begins with, the parameters of all but its classifier; None begins afresh.
        only_head: train the classifier alone, a linear probe of the pre-trained features.
        statistics: the images that batch norm is measured on once a network is trained; None for those it learned from.
    """

    name: str
    data: TrainingSet | RandomImages
    architecture: Architecture | Timm
    epochs: int
    sampling: Sampling = "natural"
    pretrained: Params | None = None
    only_head: bool = False
    statistics: TrainingSet | None = None


@dataclass(frozen=True)
class Bench:
    """Where arms are compared.

    Attributes:
        recipe: its seed, network, augment and evaluate sections count.
        validation: the images that rates are chosen on; needed where the recipe names several rates.
        folder: where trained networks are kept, or None to keep none.
        processes: how many networks are trained at once.
    """

    recipe: Recipe
    validation: LabelledImages | None
    folder: Path | None
    processes: int


def small_arm(
    recipe: Recipe,
    name: str,
    data: TrainingSet | RandomImages,
    architecture: Architecture | Timm | None = None,
    pretrained: Params | None = None,
    only_head: bool = False,
) -> Arm:
    """An arm of few images: passes over them until `evaluate.steps` steps are taken.

    Args:
        recipe: its evaluate section counts.
        name: of the arm's row; another architecture than the recipe's is added to it.
        data: the images.
        architecture: of the network, or None for the recipe's.
        pretrained: see `Arm`.
        only_head: see `Arm`.
    """
    epochs = math.ceil(recipe.evaluate.steps / math.ceil(len(data) / recipe.evaluate.batch_size))
    full_name = name if architecture is None else f"{name}-{architecture}"
    network = architecture or recipe.network.architecture
    return Arm(full_name, data, network, epochs, pretrained=pretrained, only_head=only_head)


def synthetic_arm(recipe: Recipe, synthetic: SyntheticSet, architecture: Architecture | None = None) -> Arm:
    """The row `distilled`, or `distilled-ARCHITECTURE` for a network that the images were not made for."""
    return small_arm(recipe, "distilled", TrainingSet.of_synthetic(synthetic), architecture)


def standard_arms(recipe: Recipe, real: LabelledImages, synthetic: SyntheticSet) -> list[Arm]:
    """The table's rows that the recipe asks for: random and distilled images, all images sampled both ways, then
    random and distilled images again for every unseen network.

    Where labels were learned, a row `distilled-hard` has the same images with nothing but each one's likeliest class:
    random images have hard labels too.
    """
    transform = synthetic.transform
    random = RandomImages(real, transform, recipe.distill.images_of_each(real.counts.tolist()))
    known = (small_arm(recipe, "random", random), synthetic_arm(recipe, synthetic), *full_arms(recipe, real, transform))
    arms = [arm for arm in known if arm.name in recipe.evaluate.rows]
    if synthetic.has_soft_labels:
        hard = functional.one_hot(synthetic.targets.argmax(1), len(synthetic.class_names)).float()
        certain = TrainingSet.of_synthetic(replace(synthetic, targets=hard))
        arms.append(small_arm(recipe, "distilled-hard", certain))
    for architecture in recipe.evaluate.unseen:
        arms += [
            small_arm(recipe, "random", random, architecture),
            synthetic_arm(recipe, synthetic, architecture),
        ]
    return arms


def full_arms(recipe: Recipe, real: LabelledImages, transform: Transform) -> tuple[Arm, Arm]:
    """All images with their labels, as they come and with every class equally often."""
    everything, own, epochs = TrainingSet.of(real, transform), recipe.network.architecture, recipe.evaluate.full_epochs
    return (
        Arm("full-natural", everything, own, epochs, "natural"),
        Arm("full-balanced", everything, own, epochs, "balanced"),
    )


@dataclass(frozen=True)
class Judged:
    """What an arm's networks, trained at the rate that the search chose, said of images they had never seen."""

    arm: Arm
    rate: float
    networks: tuple["Trained", ...]
    answers: tuple[metrics.Answers, ...]

    @property
    def labels(self) -> Labels:
        """Whether the training images carried hard or soft labels."""
        return "hard" if isinstance(self.arm.data, RandomImages) or self.arm.data.has_hard_labels else "soft"


def judge_arms(bench: Bench, arms: Sequence[Arm], judged: LabelledImages, progress: Progress) -> list[Judged]:
    """Search every arm's rate on validation, train its networks at the best, and show each once the images to judge.

    Args:
        bench: where arms are compared.
        arms: what is compared.
        judged: the images that figures are reported on.
        progress: told of every image seen.

    Raises:
        MatchingError: an arm diverged at every rate, or all judged images are of one class.
        RecipeError: a class has fewer images than a random subset needs.
    """
    found = []
    for each in judge_each(bench, arms, judged, progress):
        if isinstance(each, MatchingError):
            raise each
        found.append(each)
    return found


def judge_each(
    bench: Bench, arms: Sequence[Arm], judged: LabelledImages, progress: Progress
) -> Iterator[Judged | MatchingError]:
    """What `judge_arms` finds, arm by arm as each is judged; an arm that diverged has the error that says so instead.

    All networks are trained before the first is judged, so that no process waits for the others of its arm.

    Raises:
        MatchingError: all judged images are of one class.
        RecipeError: a class has fewer images than a random subset needs.
    """
    rates = _search(bench, arms, progress)
    finals = [
        Training(arm.name, rate, "final", replica)
        for arm, rate in zip(arms, rates, strict=True)
        if rate is not None
        for replica in range(bench.recipe.evaluate.networks)
    ]
    trained = train_all(bench, arms, finals, ("networks", progress))
    for arm, rate in zip(arms, rates, strict=True):
        networks = tuple(each for job, each in trained.items() if job.arm == arm.name and each is not None)
        if rate is None:
            yield MatchingError(f"{arm.name}: training diverged at every rate of evaluate.rates. Add smaller ones.")
        elif len(networks) < bench.recipe.evaluate.networks:
            yield MatchingError(f"{arm.name}: a network diverged at rate {rate:g}. Lower evaluate.rates.")
        else:
            network = network_for(bench.recipe, arm.architecture, judged)
            place = bench.recipe.machine.place
            said = [predict(network, each.params.to(place), judged, arm.data.transform) for each in networks]
            yield Judged(arm, rate, networks, tuple(metrics.Answers.of(each, judged) for each in said))


def evaluate(bench: Bench, arms: Sequence[Arm], judged: LabelledImages, split: str, progress: Progress) -> list[Row]:
    """The table: a row for every arm, see `judge_arms`.

    A last row `full` repeats the full arm, or the one of the two that did better on validation.

    Args:
        bench: where arms are compared.
        arms: what is compared.
        judged: the images that figures are reported on.
        split: what those are called.
        progress: told of every image seen.

    Raises:
        MatchingError: an arm diverged at every rate, or all judged images are of one class.
        RecipeError: a class has fewer images than a random subset needs.
    """
    found = judge_arms(bench, arms, judged, progress)
    rows = [row_of(bench, each, judged, split) for each in found]
    return rows + _ceiling(bench, found, rows)


def row_of(bench: Bench, said: Judged, judged: LabelledImages, split: str) -> Row:
    """The row of one arm that was judged.

    Args:
        bench: where it was judged.
        said: what its networks said.
        judged: of these images.
        split: what those are called.
    """
    draws = intervals.draws_of([said.answers], judged, bench.recipe.seed_for("evaluate/interval"))
    return metrics.row(
        said.arm.name,
        str(said.arm.architecture),
        split,
        said.arm.data.image_count,
        said.labels,
        said.rate,
        [said.answers],
        judged,
        intervals.interval_of(draws),
    )


def majority(training: LabelledImages, judged: LabelledImages, split: str) -> Row:
    """The floor: always answer the commonest class of the training images."""
    said = [[commonest(training, judged)]]
    interval = intervals.interval_of(intervals.draws_of(said, judged, seed=0))
    return metrics.row("majority", "none", split, len(training), "hard", None, said, judged, interval)


def commonest(training: LabelledImages, judged: LabelledImages) -> metrics.Answers:
    """What somebody says of the judged images who only knows the commonest class of the training images."""
    answer = np.zeros((len(judged), len(judged.class_names)), dtype=np.float32)
    answer[:, training.counts.argmax()] = 1
    return metrics.Answers.of(answer, judged)


@dataclass(frozen=True)
class Training:
    """One network to be trained: on which arm, at which rate, in which role, and which one of several."""

    arm: str
    rate: float
    role: Role
    replica: int


class Trained(NamedTuple):
    """A network's parameters, and the wall time in seconds that its training took among the others."""

    params: Params
    seconds: float


def train_all(
    bench: Bench, arms: Sequence[Arm], jobs: Sequence[Training], watch: tuple[str, Progress] | None = None
) -> dict[Training, Trained | None]:
    """The network that every job ends with, read where it is kept already; None where training diverged.

    Args:
        bench: where arms are compared.
        arms: the arms that the jobs name.
        jobs: the networks to train.
        watch: what a progress bar calls this, and the bar that is told of every image seen; None stays silent.
    """
    task, progress = watch or ("", Silence())
    by_name = {arm.name: arm for arm in arms}
    work = {job: len(by_name[job.arm].data) * by_name[job.arm].epochs for job in jobs}
    paths = _kept_paths(bench, by_name, jobs)
    results = {job: _load(paths[job]) for job in jobs}
    missing = sorted((job for job in jobs if results[job] is None), key=lambda job: -work[job])
    progress.begin(task, sum(work.values()), sum(work.values()) - sum(work[job] for job in missing))
    for index, network in run_jobs(_train_one, missing, (bench.recipe, by_name), bench.processes, progress.advance):
        job = missing[index]
        results[job] = network
        path = paths[job]
        if path is not None and network is not None:
            keep(path, {"params": network.params}, {"seconds": str(network.seconds)})
    return results


def _train_one(job: Training, shared: tuple[Recipe, dict[str, Arm]], tick: Tick) -> Trained | None:
    recipe, arms = shared
    arm = arms[job.arm]

    def seed_for(purpose: str) -> int:
        return recipe.seed_for(f"evaluate/{job.role}/{job.replica}/{purpose}")

    data = arm.data.draw(seed_for("random-images")) if isinstance(arm.data, RandomImages) else arm.data
    data = data.on(recipe.machine.place)
    channels, size = data.pixels.shape[1:3]
    network = network_of(recipe, arm.architecture, channels, size, data.targets.shape[1], recipe.machine)
    state = fresh(network, seed_for("start"), arm.pretrained)
    settings = recipe.evaluate
    how = Optimization(
        rate=job.rate,
        epochs=arm.epochs,
        batch_size=settings.batch_size,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        cosine=settings.schedule == "cosine",
        sampling=arm.sampling,
        augment=recipe.augment,
        only_head=arm.only_head,
    )
    started = time.perf_counter()
    try:
        for after_epoch in train(network, state, data, how, seed_for):
            state = after_epoch
            tick(len(data))
    except MatchingError:
        return None
    seen = data if arm.statistics is None else arm.statistics.on(recipe.machine.place)
    parts = np.array_split(np.arange(len(seen)), math.ceil(len(seen) / settings.batch_size))
    batches = (seen.batch(torch.from_numpy(part))[0] for part in parts)
    params = data.leveled(network.calibrated(state.params, batches))
    return Trained(params.cpu(), round(time.perf_counter() - started, 3))


def _search(bench: Bench, arms: Sequence[Arm], progress: Progress) -> list[float | None]:
    """The rate of every arm that does best on validation, over the networks of the search; None where all diverged."""
    settings, validation = bench.recipe.evaluate, bench.validation
    if len(settings.rates) == 1:
        return [settings.rates[0]] * len(arms)
    if validation is None:
        raise RecipeError(
            "evaluate.rates names several rates, but there are no validation images to choose on. Name one."
        )
    jobs = [
        Training(arm.name, rate, "search", replica)
        for arm in arms
        for rate in settings.rates
        for replica in range(settings.search_networks)
    ]
    trained = train_all(bench, arms, jobs, ("rate search", progress))
    best: list[float | None] = []
    for arm in arms:
        scores = {
            rate: mean_score(
                bench, arm, [each for job, each in trained.items() if (job.arm, job.rate) == (arm.name, rate)]
            )
            for rate in settings.rates
        }
        found = {rate: score for rate, score in scores.items() if score is not None}
        best.append(max(found, key=lambda rate: found[rate]) if found else None)
    return best


def mean_score(bench: Bench, arm: Arm, networks: Sequence[Trained | None]) -> float | None:
    """Mean balanced accuracy of networks on validation; None where one diverged, for it has none."""
    assert bench.validation is not None
    network = network_for(bench.recipe, arm.architecture, bench.validation)
    scores = []
    for each in networks:
        if each is None:
            return None
        params = each.params.to(bench.recipe.machine.place)
        guess = predict(network, params, bench.validation, arm.data.transform).argmax(1)
        scores.append(metrics.balanced_accuracy(bench.validation.labels, guess, len(bench.validation.class_names)))
    return float(np.mean(scores))


def _ceiling(bench: Bench, found: Sequence[Judged], rows: Sequence[Row]) -> list[Row]:
    full = [
        (each, row) for each, row in zip(found, rows, strict=True) if each.arm.name in ("full-natural", "full-balanced")
    ]
    if not full or (len(full) > 1 and bench.validation is None):
        return []

    def score(candidate: tuple[Judged, Row]) -> float:
        return mean_score(bench, candidate[0].arm, candidate[0].networks) or 0.0

    _, better = max(full, key=score) if len(full) > 1 else full[0]
    return [better.model_copy(update={"name": "full", "same_as": better.name})]


def network_for(recipe: Recipe, architecture: Architecture | Timm, images: LabelledImages) -> FlatNetwork:
    """The network that judges such images, by automatic differentiation: predictions are all that it is asked for."""
    channels, size = images.pixels.shape[1:3]
    return network_of(recipe, architecture, channels, size, len(images.class_names))


def network_of(
    recipe: Recipe,
    architecture: Architecture | Timm,
    channels: int,
    size: int,
    classes: int,
    machine: MachineSettings = AUTOMATIC,
) -> FlatNetwork:
    """An arm's network; the arguments from `channels` on are those of `networks.build`."""
    settings = architecture if isinstance(architecture, Timm) else recipe.network_as(architecture)
    return build(settings, channels, size, classes, machine)


def _kept_paths(bench: Bench, arms: dict[str, Arm], jobs: Sequence[Training]) -> dict[Training, Path | None]:
    """Where each network is kept: a file whose name hashes all that decides the network."""
    folder = bench.folder
    if folder is None:
        return dict.fromkeys(jobs)
    remove_partials(folder)
    content = {name: _content(arm) for name, arm in arms.items()}
    optimizer = bench.recipe.evaluate.model_dump(include={"batch_size", "momentum", "weight_decay", "schedule"})
    paths: dict[Training, Path | None] = {}
    for job in jobs:
        arm = arms[job.arm]
        identity = {
            "recipe": bench.recipe.digest("network", "augment"),
            "arithmetic": bench.recipe.machine.arithmetic,
            "optimizer": optimizer,
            "architecture": str(arm.architecture),
            "epochs": arm.epochs,
            "sampling": arm.sampling,
            "content": content[arm.name],
            "only head": arm.only_head,
            "job": asdict(job),
        }
        paths[job] = folder / f"{arm.name}-{job.role}-{job.replica}-{told_apart(identity)}.safetensors"
    return paths


def _content(arm: Arm) -> str:
    """What an arm's networks begin with, learn from and are measured on, as digests."""
    data = arm.data
    if isinstance(data, RandomImages):
        learned = f"random {data.of_each} of {TrainingSet.of(data.images, data.transform).fingerprint()}"
    else:
        learned = data.fingerprint()
    begun = "" if arm.pretrained is None else hashlib.sha256(arm.pretrained.numpy().tobytes()).hexdigest()
    measured = "" if arm.statistics is None else arm.statistics.fingerprint()
    return f"{learned} {begun} {measured}"


def _load(path: Path | None) -> Trained | None:
    kept = None if path is None else recall(path)
    return None if kept is None else Trained(kept.tensors["params"], float(kept.about["seconds"]))
