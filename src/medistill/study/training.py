"""What hospital B can train on, scene by scene, and what its networks say of the images it is judged on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from medistill.baselines.federated import average_federated, federated_bytes
from medistill.evaluate import Arm, Bench, judge_arms, network_for, small_arm
from medistill.evidence import Help, Labels, Scenario
from medistill.images import LabelledImages, joined, png_bytes
from medistill.jobs import Progress
from medistill.merge import pooled
from medistill.metrics import Answers
from medistill.receive import learned_from
from medistill.study.scenes import Scene
from medistill.train import TrainingSet, predict


@dataclass(frozen=True)
class Attempt:
    """One thing to train on, and what each network that did said of the judged images; see `evidence.Helped`."""

    scenario: Scenario
    help: Help
    own: int
    rounds: int | None
    images: int
    labels: Labels
    sent_bytes: int
    answers: tuple[Answers, ...]


def by_itself(scene: Scene, judged: LabelledImages, own: Sequence[int], progress: Progress) -> Iterator[Attempt]:
    """What B does with what it has and what it was sent: its own images alone, with A's package, with A's and C's.

    Args:
        scene: who has which images.
        judged: what networks are asked about.
        own: how many images a class B has, one size after another.
        progress: told of everything.

    Raises:
        MedistillError: see the stages.
    """
    tried: list[tuple[Help, int, int, TrainingSet]] = []
    for of_each in own:
        images = scene.hospitals.own(of_each)
        tried.append(("alone", of_each, 0, TrainingSet.of(images, images.transform())))
    packages, paths = zip(*scene.packages(progress), strict=True)
    helps: tuple[tuple[Help, int], ...] = (("package", 1), ("packages", 2))
    for help_, count in helps:
        together, sent_bytes = pooled(packages[:count]), sum(path.stat().st_size for path in paths[:count])
        tried.append((help_, 0, sent_bytes, learned_from(together)))
        tried += [(help_, few, sent_bytes, learned_from(together, scene.hospitals.own(few))) for few in own]
    arms = [
        replace(small_arm(scene.run.recipe, f"{help_}-{of_each}", data), sampling="balanced" if of_each else "natural")
        for help_, of_each, _, data in tried
    ]
    found = judge_arms(_bench(scene), arms, judged, progress)
    for (help_, of_each, sent_bytes, data), said in zip(tried, found, strict=True):
        yield Attempt(scene.scenario, help_, of_each, None, data.image_count, said.labels, sent_bytes, said.answers)


def with_everybody(
    scene: Scene, judged: LabelledImages, own: int, rounds: Sequence[int], progress: Progress
) -> Iterator[Attempt]:
    """What nobody may do, and what takes everybody's time: all real images in one place, and a federation.

    Args:
        scene: who has which images.
        judged: what networks are asked about.
        own: how many images a class B brings.
        rounds: after how many the federation is judged; empty leaves it out.
        progress: told of everything.

    Raises:
        MatchingError: a network diverged.
        StorageError: the disk refused.
    """
    recipe, hospitals = scene.run.recipe, scene.hospitals
    members = (hospitals.a, hospitals.c, hospitals.own(own))
    everything = joined(members)
    transform, count = everything.transform(), len(everything)
    data, settings = TrainingSet.of(everything, transform), recipe.evaluate
    arm = Arm("pooled", data, recipe.network.architecture, settings.full_epochs, "balanced")
    (pooled_networks,) = judge_arms(_bench(scene), [arm], judged, progress)
    sent_bytes = png_bytes(hospitals.a.pixels) + png_bytes(hospitals.c.pixels)
    yield Attempt(scene.scenario, "pooled", own, None, count, "hard", sent_bytes, pooled_networks.answers)
    if not rounds:
        return
    sets = [TrainingSet.of(images, transform) for images in members]
    folder, processes = scene.run.out / "work" / "networks", scene.run.processes
    trained = average_federated(recipe, sets, rounds, settings.rates[0], folder, processes, progress)
    network = network_for(recipe, recipe.network.architecture, judged)
    for number, everyones in trained.items():
        said = (predict(network, params.to(recipe.machine.place), judged, transform) for params in everyones)
        answers = tuple(Answers.of(each, judged) for each in said)
        sent_bytes = federated_bytes(network, len(members), number)
        yield Attempt(scene.scenario, "federated", own, number, count, "hard", sent_bytes, answers)


def _bench(scene: Scene) -> Bench:
    """Without validation images: B has none to spare."""
    return Bench(scene.run.recipe, None, scene.run.out / "work" / "networks", scene.run.processes)
