"""What a receiver does with packages: train fresh networks on them, and judge them on images of their own.

The package says how: transform, network, rate, number of steps, augmentation. Nothing is chosen on the receiver's
images, so their figure can be laid beside the maker's. Several packages are taken together, and the receiver's own
labelled images may join them; every class is then seen equally often.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from medistill.errors import PackageError, RecipeError, SourceError
from medistill.evaluate import Arm, Bench, judge_arms, network_for, row_of, small_arm
from medistill.evidence import Row
from medistill.files import digest
from medistill.images import LabelledImages
from medistill.jobs import Progress
from medistill.merge import Pooled, pooled
from medistill.metrics import Answers
from medistill.networks import BatchNormNetwork, FlatNetwork
from medistill.package import Package
from medistill.recipe import Architecture, DistillSettings, EvaluateSettings, Recipe
from medistill.shapes import Params
from medistill.synthetic import SyntheticSet
from medistill.train import TrainingSet, predict

_WITHOUT_OFFSETS = " (without class offsets)"
_OWN_STATISTICS = " (batch norm of own images)"


@dataclass(frozen=True)
class Received:
    """What a receiver has of packages: how networks trained on them did on the receiver's images, and one of them.

    Attributes:
        row: the figures of all networks.
        plain_row: those of the same networks with no class offsets added to their logits; None where none were.
        network: their architecture.
        params: the parameters of the first one; none was chosen by what it said of the judged images.
        together: what they learned from, besides images of the receiver's own.
        digests: SHA-256 of the packages.
        own_images: how many of the receiver's own they saw.
        measured_on: how many of the receiver's own their batch norm was measured on; 0 for none but those learned from.
    """

    row: Row
    plain_row: Row | None
    network: FlatNetwork
    params: Params
    together: Pooled
    digests: tuple[str, ...]
    own_images: int
    measured_on: int


def train_on(
    packages: Sequence[Package],
    judged: LabelledImages,
    split: str,
    networks: int,
    seed: int,
    processes: int,
    progress: Progress,
    own: LabelledImages | None = None,
    classes: Mapping[str, str] | None = None,
    architecture: Architecture | None = None,
    adds_offsets: bool = True,
    statistics: LabelledImages | None = None,
) -> Received:
    """Train `networks` fresh networks on packages as they ask to be trained on, and judge each once.

    Args:
        packages: one or more, verified.
        judged: the receiver's labelled images, in the packages' shape; classes are matched by name.
        split: what to call them in the row.
        networks: how many networks.
        seed: of their first parameters and their augmentation, together with the packages' digests.
        processes: how many are trained at once.
        progress: told of every image seen.
        own: the receiver's labelled images to train on besides, in the packages' shape.
        classes: what a class is called, by what a package calls it.
        architecture: of the networks; None takes the one that the images were made with.
        adds_offsets: whether to add to logits what the packages say is to be added (`leaning.py`).
        statistics: the receiver's images, in the packages' shape, that batch norm is measured on once the networks are
            trained; their labels are not looked at. None takes the images learned from, which synthetic ones serve
            badly.

    Raises:
        SourceError: a class of the receiver's images is in no package, or there are none to judge or measure on.
        RecipeError: statistics are given, and the networks have no batch norm.
        PackageError: the packages cannot be trained on together, or their images are not square.
        MatchingError: a network diverged, or the images to judge on are of one class.
    """
    if not len(judged):
        raise SourceError("Found no image to judge on; expected at least one. Name another split.")
    together = pooled(packages, classes)
    height, width = together.images.shape[2:]
    if height != width:
        raise PackageError(
            f"Found images of {height} x {width}; expected square ones, which alone networks here train on. For other "
            "tools: medistill export."
        )
    data = learned_from(together, own)
    if not adds_offsets:
        data = replace(data, offsets=())
    recipe = _recipe(packages, together, len(data), networks, seed)
    name = "distilled" if own is None else "distilled-and-own"
    other = None if architecture == together.training.network.architecture else architecture
    arm = small_arm(recipe, name, data, other)
    if own is not None:
        arm = replace(arm, sampling="balanced")
        seen = judged.seen_in(own)
        if seen:
            progress.say(
                f"{seen:,} of the {len(judged):,} images to judge on are among your own to learn from, or of the same "
                "patients, which flatters every figure."
            )
    matched = judged.in_order_of(together.class_names)
    network = network_for(recipe, arm.architecture, matched)
    if statistics is not None:
        arm = _measured_on(arm, network, statistics)
    bench = Bench(recipe, None, None, processes)
    (said,) = judge_arms(bench, [arm], matched, progress)
    plain_row = None
    if data.offsets:
        taken_off = replace(data, offsets=tuple(-offset for offset in data.offsets))
        plain = [predict(network, taken_off.leveled(each.params), matched, data.transform) for each in said.networks]
        answers = tuple(Answers.of(each, matched) for each in plain)
        plain_arm = replace(arm, name=f"{arm.name}{_WITHOUT_OFFSETS}")
        plain_row = row_of(bench, replace(said, arm=plain_arm, answers=answers), matched, split)
    return Received(
        row=row_of(bench, said, matched, split),
        plain_row=plain_row,
        network=network,
        params=said.networks[0].params,
        together=together,
        digests=tuple(package.digest for package in packages),
        own_images=0 if own is None else len(own),
        measured_on=0 if statistics is None else len(statistics),
    )


def _measured_on(arm: Arm, network: FlatNetwork, statistics: LabelledImages) -> Arm:
    """The arm with batch norm measured on a receiver's images."""
    if not isinstance(network, BatchNormNetwork):
        raise RecipeError(
            f"Found images to measure batch norm on; expected none, for {arm.architecture} has no batch norm. Leave "
            "them out, or choose resnet18bn."
        )
    if not len(statistics):
        raise SourceError("Found no image to measure batch norm on; expected at least one. Name another split.")
    measured = TrainingSet.of(statistics, arm.data.transform)
    return replace(arm, name=f"{arm.name}{_OWN_STATISTICS}", statistics=measured)


def learned_from(together: Pooled, own: LabelledImages | None = None) -> TrainingSet:
    """What networks learn from: the images of packages and, besides, a receiver's own, normalized alike.

    Args:
        together: what the packages hold.
        own: the receiver's labelled images, in the packages' shape; classes are matched by name.

    Raises:
        SourceError: a class of the receiver's images is in no package.
    """
    data = TrainingSet.of_synthetic(_synthetic(together))
    if own is None:
        return data
    return TrainingSet.joined([data, TrainingSet.of(own.in_order_of(together.class_names), together.transform)])


def _synthetic(together: Pooled) -> SyntheticSet:
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (together.transform.mean, together.transform.std))
    return SyntheticSet(
        images=(torch.from_numpy(together.images) - mean) / std,
        targets=torch.from_numpy(together.targets),
        inner_rate=together.inner_rate,
        class_names=together.class_names,
        transform=together.transform,
        formation=together.training.formation or 1,
        enlarging=together.training.enlarging or "bilinear",
        offsets=together.training.class_offsets or (),
    )


def _recipe(packages: Sequence[Package], together: Pooled, images: int, networks: int, seed: int) -> Recipe:
    """How the packages ask to be trained on, as a recipe."""
    training = together.training
    digests = "".join(package.digest for package in packages)
    films = len(together.images) * (training.formation or 1) ** 2
    return Recipe(
        # Other seeds than the maker's, whose networks a receiver would otherwise train again.
        seed=int(digest(digests.encode())[:8], 16) + seed,
        network=training.network,
        augment=training.augment,
        distill=DistillSettings(ipc=int(np.ceil(images / len(together.class_names)))),
        evaluate=EvaluateSettings(
            networks=networks,
            rates=(training.rate,),
            steps=training.steps,
            batch_size=training.batch_size or films,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
            schedule=training.schedule,
        ),
    )
