"""Several methods side by side, on the same images, networks and rates.

A row says what its networks may have seen. At the *budget* a receiver has `distill.ipc` images a class and nothing
else, whatever they are: real ones, chosen or random, or synthetic ones; self-supervision too learns from those alone.
*Unlabelled*, a receiver has all training images, but labels for the budget's only. *Full* is every image with its
label.

Everything is repeated for several seeds: distillation, choice of images, pre-training and networks. What is finished is
kept and shared with `medistill run`, so a comparison that was interrupted, or that asks for one method more, continues.
"""

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from medistill import metrics, pipeline
from medistill.baselines.encoders import PRETEXTS, Encoder, Lesson, learn_encoders
from medistill.baselines.selection import RULES, select
from medistill.baselines.transfer import learn_to_transfer
from medistill.errors import MatchingError, RecipeError
from medistill.evaluate import (
    Arm,
    Judged,
    RandomImages,
    Training,
    full_arms,
    judge_arms,
    majority,
    network_for,
    small_arm,
    train_all,
)
from medistill.evidence import Comparison, Cost, Pretrained, Protocol
from medistill.files import write_json
from medistill.images import LabelledImages
from medistill.jobs import Progress
from medistill.objectives import FOLLOWS_TEACHERS
from medistill.pipeline import Run
from medistill.recipe import Architecture, Objective, Recipe, recipe_from
from medistill.shapes import Params
from medistill.synthetic import normalized
from medistill.train import TrainingSet

OBJECTIVES: tuple[Objective, ...] = ("soft-label", "dm", "dsa", "mtt", "pruned")
METHODS = ("scratch", *PRETEXTS, "transfer", "random", *RULES, *OBJECTIVES, "full")
_PROTOCOL_OF: dict[str, Protocol] = {"budget": "budget", "all": "unlabelled"}
_FEATURES_AT_A_TIME = 512

_Key = tuple[str, Protocol]


class _Entry(NamedTuple):
    """An arm under the name and protocol of its row, and the bytes that its images take to send."""

    name: str
    protocol: Protocol
    arm: Arm
    sent_bytes: int


@dataclass(frozen=True)
class Question:
    """What is to be compared.

    Attributes:
        methods: some of `METHODS`.
        seeds: how many repetitions, the recipe's seed first.
        final: judge on the test split, which is recorded, instead of on validation.
        natural: a source of images to pre-train on for `transfer`; None lets the project draw some.
    """

    methods: tuple[str, ...] = METHODS
    seeds: int = 3
    final: bool = False
    natural: str | None = None

    def __post_init__(self) -> None:
        unknown = sorted(set(self.methods) - set(METHODS))
        if unknown or not self.methods:
            raise RecipeError(f"--methods {','.join(unknown)}: expected some of {', '.join(METHODS)}.")


def quickened(recipe: Recipe) -> Recipe:
    """The recipe for a table in little time: everybody gets less of what takes it, and only the recipe's network."""
    settings = recipe.model_dump()
    most = {
        ("teachers", "count"): 4,
        ("distill", "outer_steps"): 100,
        ("distill", "validate_networks"): 2,
        ("pretrain", "steps"): 300,
        ("evaluate", "networks"): 3,
    }
    for (section, key), value in most.items():
        settings[section][key] = min(settings[section][key], value)
    settings["evaluate"]["unseen"] = ()
    return recipe_from(settings)


def compare(opened: Run, question: Question, progress: Progress) -> Comparison:
    """Fill the table, and leave it in OUT/comparison.json after every seed.

    Args:
        opened: a recipe with its images; its network is everybody's, and `evaluate.unseen` names others besides.
        question: which methods, how often, on which split.
        progress: told of everything.

    Raises:
        MedistillError: see the stages.
    """
    judged, split = pipeline.images_to_judge(opened, question.final)
    seeds = tuple(opened.recipe.seed + number for number in range(question.seeds))
    said: dict[_Key, list[Judged]] = {}
    sent: dict[_Key, list[int]] = {}
    pretrained: list[Pretrained] = []
    comparison = None
    for number, seed in enumerate(seeds):
        progress.say(f"Seed {number + 1} of {len(seeds)}.")
        seeded = replace(opened, recipe=opened.recipe.model_copy(update={"seed": seed}))
        entries = _Entries(seeded, question, progress)
        found = judge_arms(pipeline.bench_of(seeded), [entry.arm for entry in entries.all], judged, progress)
        for entry, each in zip(entries.all, found, strict=True):
            said.setdefault((entry.name, entry.protocol), []).append(each)
            sent.setdefault((entry.name, entry.protocol), []).append(entry.sent_bytes)
        pretrained += entries.pretrained
        comparison = _comparison(opened, seeds[: number + 1], judged, split, said, sent, pretrained)
        write_json(opened.out / "comparison.json", comparison.model_dump(mode="json"))
    assert comparison is not None
    return comparison


class _Entries:
    """Every arm of one seed, made method by method."""

    def __init__(self, seeded: Run, question: Question, progress: Progress) -> None:
        self._run, self._recipe, self._question, self._progress = seeded, seeded.recipe, question, progress
        self._train, self._transform = seeded.splits.train, seeded.transform
        own = self._recipe.network.architecture
        self._backbones: tuple[Architecture, ...] = (own, *self._recipe.evaluate.unseen)
        # One draw for all that learn from the budget's images: pre-trained or not, they differ in nothing else.
        self._random = RandomImages(self._train, self._transform, self._recipe.distill.ipc)
        self._budget = self._random.draw(self._recipe.seed_for("compare/budget"))
        self._budget_bytes = png_bytes(self._budget.pixels.numpy())
        self._encoders = self._learn_encoders()
        self.all = [entry for method in METHODS if method in question.methods for entry in self._of(method)]

    @property
    def pretrained(self) -> list[Pretrained]:
        """How the encoders of this seed came about."""
        return [
            Pretrained(
                method=lesson.method,
                architecture=lesson.architecture,
                protocol=_PROTOCOL_OF[lesson.images],
                seed=self._recipe.seed,
                steps=sum(epoch.steps for epoch in encoder.epochs),
                first_loss=encoder.epochs[0].loss,
                last_loss=encoder.epochs[-1].loss,
                spread=encoder.epochs[-1].spread,
            )
            for lesson, encoder in self._encoders.items()
        ]

    def _of(self, method: str) -> list[_Entry]:
        if method in PRETEXTS:
            return self._self_supervised(method)
        if method in RULES:
            return self._selected(method)
        if method == "scratch":
            return self._scratch()
        if method == "transfer":
            return self._transferred()
        if method == "random":
            return self._few("random", self._random, self._budget_bytes)
        if method == "full":
            return self._full()
        return self._distilled(next(objective for objective in OBJECTIVES if objective == method))

    def _few(self, name: str, data: TrainingSet | RandomImages, sent_bytes: int) -> list[_Entry]:
        """A set of few images on every backbone."""
        return [self._entry(name, "budget", data, backbone, sent_bytes) for backbone in self._backbones]

    def _scratch(self) -> list[_Entry]:
        """The budget's images alone, also on the network that masked autoencoders need."""
        entries = self._few("scratch", self._budget, self._budget_bytes)
        if "mae" in self._question.methods and "vit" not in self._backbones:
            entries.append(self._entry("scratch", "budget", self._budget, "vit", self._budget_bytes))
        return entries

    def _self_supervised(self, method: str) -> list[_Entry]:
        return [
            entry
            for lesson, encoder in self._encoders.items()
            if lesson.method == method
            for entry in self._tuned(method, _PROTOCOL_OF[lesson.images], lesson.architecture, encoder.params)
        ]

    def _tuned(
        self, method: str, protocol: Protocol, architecture: Architecture, pretrained: Params, note: str = ""
    ) -> list[_Entry]:
        """Pre-trained parameters, all of them fine-tuned on the budget's images, or the classifier alone."""
        return [
            self._entry(
                f"{method}{linear}{note}",
                protocol,
                self._budget,
                architecture,
                self._budget_bytes,
                pretrained,
                only_head=bool(linear),
            )
            for linear in ("", "-linear")
        ]

    def _transferred(self) -> list[_Entry]:
        entries = []
        for backbone in self._backbones:
            learned = learn_to_transfer(
                self._recipe,
                backbone,
                self._question.natural,
                self._train,
                self._run.out / "work" / "networks",
                self._run.processes,
                self._progress,
            )
            entries += self._tuned("transfer", "budget", backbone, learned.params, f" ({learned.images})")
        return entries

    def _selected(self, method: str) -> list[_Entry]:
        rows = select(RULES[method], self._features(), self._train, self._recipe.distill.ipc)
        chosen = self._train.take(rows)
        return self._few(method, TrainingSet.of(chosen, self._transform), png_bytes(chosen.pixels))

    def _features(self) -> NDArray[np.float32]:
        """Features of all training images, of a network trained on all of them."""
        bench = pipeline.bench_of(self._run)
        arm = full_arms(self._recipe, self._train, self._transform)[1]
        rates = sorted(self._recipe.evaluate.rates)
        job = Training(arm.name, rates[len(rates) // 2], "selection", 0)
        params = train_all(bench, [arm], [job], ("network for features", self._progress))[job]
        if params is None:
            raise MatchingError(f"{arm.name}: training diverged at rate {job.rate:g}. Lower evaluate.rates.")
        network = network_for(self._recipe, arm.architecture, self._train)
        with torch.no_grad():
            parts = torch.split(torch.from_numpy(self._train.pixels), _FEATURES_AT_A_TIME)
            rows = [network.features(params, normalized(part, self._transform)) for part in parts]
        return torch.cat(rows).numpy()

    def _distilled(self, objective: Objective) -> list[_Entry]:
        variant = replace(self._run, recipe=_with_objective(self._recipe, objective))
        if objective in FOLLOWS_TEACHERS:
            pipeline.teach(variant, self._progress)
        self._progress.say(f"Distilling: {objective}.")
        distilled = pipeline.distill_images(variant, self._progress)
        rates = sorted(self._recipe.evaluate.rates)
        sealed = self._run.out / "packages" / f"{self._recipe.name}-{objective}-seed{self._recipe.seed}.medistill"
        pipeline.seal_set(variant, distilled, rates[len(rates) // 2], sealed)
        return self._few(objective, TrainingSet.of_synthetic(distilled.synthetic), sealed.stat().st_size)

    def _full(self) -> list[_Entry]:
        sent_bytes = png_bytes(self._train.pixels)
        return [
            _Entry(arm.name, "full", arm, sent_bytes) for arm in full_arms(self._recipe, self._train, self._transform)
        ]

    def _entry(
        self,
        name: str,
        protocol: Protocol,
        data: TrainingSet | RandomImages,
        backbone: Architecture,
        sent_bytes: int,
        pretrained: Params | None = None,
        only_head: bool = False,
    ) -> _Entry:
        """An arm whose key is its row's name and protocol; another network than everybody's is named in it."""
        is_own = backbone == self._recipe.network.architecture or name.startswith("mae")
        plain, bracket, note = name.partition(" (")
        row_name = name if is_own else f"{plain}-{backbone}{bracket}{note}"
        arm = small_arm(self._recipe, f"{row_name}@{protocol}", data, None, pretrained, only_head)
        return _Entry(row_name, protocol, replace(arm, architecture=backbone), sent_bytes)

    def _learn_encoders(self) -> dict[Lesson, Encoder]:
        images = {"budget": self._budget.pixels, "all": torch.from_numpy(self._train.pixels)}
        lessons = [
            Lesson(method, backbone, name)
            for method in PRETEXTS
            if method in self._question.methods
            for backbone in (("vit",) if method == "mae" else self._backbones)
            for name in images
        ]
        if not lessons:
            return {}
        folder = self._run.out / "work" / "encoders"
        return learn_encoders(
            self._recipe, lessons, images, self._transform, folder, self._run.processes, self._progress
        )


def png_bytes(pixels: NDArray[np.uint8]) -> int:
    """What images take as PNG files, the smallest lossless form that everybody opens; pixels are [n, c, h, w]."""
    total = 0
    for image in pixels.transpose(0, 2, 3, 1):
        file = io.BytesIO()
        Image.fromarray(image.squeeze()).save(file, "PNG", optimize=True)
        total += file.tell()
    return total


def _with_objective(recipe: Recipe, objective: Objective) -> Recipe:
    """The recipe with another objective; labels are learned where the objective is about them, and stay hard where it
    cannot."""
    learns = {"soft-label": True, "dm": False, "dsa": False}.get(objective, recipe.distill.learn_labels)
    changed = recipe.distill.model_dump() | {"objective": objective, "learn_labels": learns}
    return recipe_from(recipe.model_dump() | {"distill": changed})


def _comparison(
    opened: Run,
    seeds: tuple[int, ...],
    judged: LabelledImages,
    split: str,
    said: dict[_Key, list[Judged]],
    sent: dict[_Key, list[int]],
    pretrained: list[Pretrained],
) -> Comparison:
    recipe, train = opened.recipe, opened.splits.train
    rows, details, costs = [majority(train, judged, split)], [], []
    for (name, protocol), found in said.items():
        predictions = [each for seed in found for each in seed.predictions]
        rates = {each.rate for each in found}
        arm = found[0].arm
        row = metrics.row(
            name,
            arm.architecture,
            split,
            len(arm.data),
            found[0].labels,
            rates.pop() if len(rates) == 1 else None,
            predictions,
            judged,
            recipe.seed_for("evaluate/interval"),
        )
        rows.append(row.model_copy(update={"protocol": protocol}))
        details.append(metrics.detail(name, protocol, predictions, judged))
        ipc = None if protocol == "full" else recipe.distill.ipc
        costs.append(Cost(name=name, protocol=protocol, ipc=ipc, sent_bytes=int(np.mean(sent[name, protocol]))))
    return Comparison(
        title=recipe.name,
        split=split,
        judged_images=len(judged),
        classes=train.class_names,
        ipc=recipe.distill.ipc,
        seeds=seeds,
        selection="learning rates and distilled sets, by balanced accuracy on validation",
        test_reads=pipeline.test_readings(opened),
        data_fingerprint=opened.fingerprint,
        recipe_digest=recipe.digest(),
        software=pipeline.software(),
        notes=opened.splits.notes,
        original_bytes=_original_bytes(opened),
        rows=tuple(rows),
        details=tuple(details),
        costs=tuple(costs),
        pretrained=tuple(pretrained),
    )


def _original_bytes(opened: Run) -> dict[str, int]:
    """The training images as they are in memory at the recipe's size; and the whole source as it lies on disk."""
    found = {"training images, 8 bits a pixel": opened.splits.train.pixels.nbytes}
    path = Path(opened.recipe.source.path or "")
    if path.is_file():
        found["source file, all splits"] = path.stat().st_size
    elif opened.recipe.source.path and path.is_dir():
        found["source folder, all splits"] = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return found
