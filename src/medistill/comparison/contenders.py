"""Who takes part in a comparison: the training sets of every method, and what their networks begin with."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from medistill import pipeline
from medistill.baselines.encoders import PRETEXTS, Encoder, Lesson, learn_encoders
from medistill.baselines.selection import RULES, select
from medistill.baselines.transfer import learn_to_transfer, learned_elsewhere
from medistill.comparison.question import METHODS, OBJECTIVES, Question, with_objective
from medistill.errors import MatchingError
from medistill.evaluate import Arm, RandomImages, Training, full_arms, network_for, small_arm, train_all
from medistill.evidence import Pretrained, Protocol
from medistill.files import digest
from medistill.images import png_bytes
from medistill.jobs import Progress
from medistill.networks import Timm
from medistill.pipeline import Run
from medistill.recipe import Architecture, Objective
from medistill.shapes import Params
from medistill.sources.opening import open_source
from medistill.synthetic import normalized
from medistill.train import TrainingSet, shown_together

_PROTOCOL_OF: dict[str, Protocol] = {"budget": "budget", "all": "unlabelled"}


@dataclass(frozen=True)
class Contender:
    """An arm under the name and protocol of its row, and the bytes that its images take to send."""

    name: str
    protocol: Protocol
    arm: Arm
    sent_bytes: int


class Contenders:
    """Every arm of one seed and one budget, made method by method: `of` has them, and `failed` why a method has none.

    Args:
        seeded: the run, with the seed and the budget of its recipe.
        question: which methods, and what `transfer` learns from.
        progress: told of everything.
    """

    def __init__(self, seeded: Run, question: Question, progress: Progress) -> None:
        self._run, self._recipe, self._question, self._progress = seeded, seeded.recipe, question, progress
        self._train, self._transform = seeded.splits.train, seeded.transform
        own = self._recipe.network.architecture
        self._backbones: tuple[Architecture, ...] = (own, *self._recipe.evaluate.unseen)
        # One draw for all that learn from the budget's images: pre-trained or not, they differ in nothing else.
        self._of_each = self._recipe.distill.images_of_each(self._train.counts.tolist())
        self._random = RandomImages(self._train, self._transform, self._of_each)
        self._budget = self._random.draw(self._recipe.seed_for("compare/budget"))
        self._budget_bytes = png_bytes(self._budget.pixels.numpy())
        self._images = {"budget": self._budget.pixels, "all": torch.from_numpy(self._train.pixels)}
        self._encoders = self._learn_encoders()
        self.of: dict[str, list[Contender]] = {}
        self.failed: list[MatchingError] = []
        for method in (name for name in METHODS if name in question.methods):
            try:
                self.of[method] = self._of(method)
            except MatchingError as error:  # hours of the others' work need not be lost with it
                self.failed.append(MatchingError(f"{method}: {error}"))

    @property
    def pretrained(self) -> list[Pretrained]:
        """How the encoders of this seed came about."""
        return [
            Pretrained(
                method=lesson.method,
                architecture=lesson.architecture,
                protocol=_PROTOCOL_OF[lesson.images],
                images=len(self._images[lesson.images]),
                seed=self._recipe.seed,
                steps=sum(epoch.steps for epoch in encoder.epochs),
                first_loss=encoder.epochs[0].loss,
                last_loss=encoder.epochs[-1].loss,
                spread=encoder.epochs[-1].spread,
            )
            for lesson, encoder in self._encoders.items()
        ]

    def _of(self, method: str) -> list[Contender]:
        if method == "mae":
            return [*self._without_mae(), *self._self_supervised(method)]
        if method in PRETEXTS:
            return self._self_supervised(method)
        if method in RULES:
            return self._selected(method)
        if method == "scratch":
            return self._few("scratch", self._budget, self._budget_bytes)
        if method == "transfer":
            return self._transferred()
        if method == "random":
            return self._few("random", self._random, self._budget_bytes)
        if method == "full":
            return self._full()
        return self._distilled(next(objective for objective in OBJECTIVES if objective == method))

    def _few(self, name: str, data: TrainingSet | RandomImages, sent_bytes: int) -> list[Contender]:
        """A set of few images on every backbone."""
        return [self._entry(name, "budget", data, backbone, sent_bytes) for backbone in self._backbones]

    def _without_mae(self) -> list[Contender]:
        """What masked autoencoders' network learns from scratch; where it is a backbone, `scratch` says."""
        if "vit" in self._backbones:
            return []
        return [self._entry("scratch", "budget", self._budget, "vit", self._budget_bytes)]

    def _self_supervised(self, method: str) -> list[Contender]:
        return [
            entry
            for lesson, encoder in self._encoders.items()
            if lesson.method == method
            for entry in self._tuned(method, _PROTOCOL_OF[lesson.images], lesson.architecture, encoder.params)
        ]

    def _tuned(
        self, method: str, protocol: Protocol, architecture: Architecture | Timm, pretrained: Params, note: str = ""
    ) -> list[Contender]:
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

    def _transferred(self) -> list[Contender]:
        question = self._question
        if question.weights is not None:
            model = Timm(question.timm)
            elsewhere = learned_elsewhere(model, question.weights, self._train)
            return self._tuned("transfer", "budget", model, elsewhere.params, f" ({elsewhere.images})")
        entries = []
        for backbone in self._backbones:
            learned = learn_to_transfer(
                self._recipe,
                backbone,
                question.natural,
                self._train,
                self._run.out / "work" / "networks",
                self._run.processes,
                self._progress,
            )
            entries += self._tuned("transfer", "budget", backbone, learned.params, f" ({learned.images})")
        return entries

    def _selected(self, method: str) -> list[Contender]:
        rows = select(RULES[method], self._features(), self._train, self._of_each)
        chosen = self._train.take(rows)
        return self._few(method, TrainingSet.of(chosen, self._transform), png_bytes(chosen.pixels))

    def _features(self) -> NDArray[np.float32]:
        """Features of all training images, of a network trained on all of them."""
        bench = pipeline.bench_of(self._run)
        arm = full_arms(self._recipe, self._train, self._transform)[1]
        job = Training(arm.name, self._recipe.evaluate.middle_rate, "selection", 0)
        trained = train_all(bench, [arm], [job], ("network for features", self._progress))[job]
        if trained is None:
            raise MatchingError(f"{arm.name}: training diverged at rate {job.rate:g}. Lower evaluate.rates.")
        network = network_for(self._recipe, arm.architecture, self._train)
        with torch.no_grad():
            parts = shown_together(torch.from_numpy(self._train.pixels))
            rows = [network.features(trained.params, normalized(part, self._transform)) for part in parts]
        return torch.cat(rows).numpy()

    def _distilled(self, objective: Objective) -> list[Contender]:
        variant = self._run.with_recipe(with_objective(self._recipe, objective))
        if variant.recipe.distill.follows_teachers:
            pipeline.teach(variant, self._progress)
        self._progress.say(f"Distilling: {objective}.")
        distilled = pipeline.distill_images(variant, self._progress)
        sealed = sealed_as(self._run, objective)
        encoding = pipeline.encoding_of(variant, distilled, self._progress)
        pipeline.seal_set(variant, distilled, self._recipe.evaluate.middle_rate, sealed, encoding)
        received = TrainingSet.of_synthetic(distilled.synthetic.stored_as(encoding))
        return self._few(objective, received, sealed.stat().st_size)

    def _full(self) -> list[Contender]:
        sent_bytes = png_bytes(self._train.pixels)
        return [
            Contender(arm.name, "full", arm, sent_bytes)
            for arm in full_arms(self._recipe, self._train, self._transform)
        ]

    def _entry(
        self,
        name: str,
        protocol: Protocol,
        data: TrainingSet | RandomImages,
        backbone: Architecture | Timm,
        sent_bytes: int,
        pretrained: Params | None = None,
        only_head: bool = False,
    ) -> Contender:
        """An arm whose key is its row's name and protocol; another network than everybody's is named in it."""
        is_own = isinstance(backbone, Timm) or backbone == self._recipe.network.architecture or name.startswith("mae")
        plain, bracket, note = name.partition(" (")
        row_name = name if is_own else f"{plain}-{backbone}{bracket}{note}"
        arm = small_arm(self._recipe, f"{row_name}@{protocol}", data, None, pretrained, only_head)
        return Contender(row_name, protocol, replace(arm, architecture=backbone), sent_bytes)

    def _learn_encoders(self) -> dict[Lesson, Encoder]:
        lessons = [
            Lesson(method, backbone, name)
            for method in PRETEXTS
            if method in self._question.methods
            for backbone in (("vit",) if method == "mae" else self._backbones)
            for name in self._images
        ]
        if not lessons:
            return {}
        folder = self._run.out / "work" / "encoders"
        return learn_encoders(
            self._recipe, lessons, self._images, self._transform, folder, self._run.processes, self._progress
        )


def check_transfer(opened: Run, question: Question) -> None:
    """Refuse what transfer is to begin with, if it cannot, before any work is done.

    Raises:
        RecipeError: the weights cannot be read, or are another model's.
        SourceError: the images cannot be read.
        MissingPart: timm is needed and not installed.
    """
    if "transfer" in question.methods and question.weights is not None:
        learned_elsewhere(Timm(question.timm), question.weights, opened.splits.train)
    if "transfer" in question.methods and question.natural is not None:
        open_source(question.natural)


def sealed_as(seeded: Run, objective: Objective) -> Path:
    """Where the package of one objective, budget and seed lies."""
    recipe = seeded.recipe
    # After a change of settings or images nobody takes what was distilled before for what is asked now.
    told = digest(f"{recipe.digest()} {seeded.fingerprint}".encode())[:8]
    name = f"{recipe.name}-{objective}-ipc{recipe.distill.ipc}-seed{recipe.seed}-{told}.medistill"
    return seeded.out / "packages" / name
