"""Federated averaging: hospitals that send parameters, round after round, instead of images.

In every round each hospital trains the common network for an epoch on images of its own, every class equally often, and
sends its parameters; their mean, weighted by the numbers of images, is where the next round begins. The rate stays as
it is, so the network after ten rounds is on the way to the one after a hundred.

Source: McMahan et al., AISTATS 2017 (arXiv 1602.05629), algorithm 1, with every hospital in every round.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from medistill.evaluate import network_of
from medistill.files import remove_partials
from medistill.jobs import Progress, Tick, run_jobs
from medistill.kept import keep, recall, told_apart
from medistill.networks import FlatNetwork
from medistill.recipe import Recipe
from medistill.shapes import Params
from medistill.train import Optimization, SeedFor, State, TrainingSet, fresh, train

_PARAMETER_BYTES = 4


def average_federated(
    recipe: Recipe,
    hospitals: Sequence[TrainingSet],
    rounds: Sequence[int],
    rate: float,
    folder: Path,
    processes: int,
    progress: Progress,
) -> dict[int, list[Params]]:
    """Train `evaluate.networks` networks by federated averaging; each one's parameters after each number of rounds.

    Args:
        recipe: its seed, network, augment and evaluate sections count.
        hospitals: the images of each, all normalized alike.
        rounds: after how many rounds parameters are wanted.
        rate: the learning rate, in every round.
        folder: where finished networks are kept.
        processes: how many networks are trained at once.
        progress: told of every image seen.

    Raises:
        MatchingError: a network diverged.
        StorageError: the disk refused.
    """
    remove_partials(folder)
    replicas = range(recipe.evaluate.networks)
    key = _key(recipe, hospitals, rounds, rate)
    paths = [folder / f"federated-{replica}-{key}.safetensors" for replica in replicas]
    found = {replica: _load(paths[replica], rounds) for replica in replicas}
    missing = [replica for replica, params in found.items() if params is None]
    work = max(rounds) * sum(len(images) for images in hospitals)
    progress.begin("federated", len(replicas) * work, (len(replicas) - len(missing)) * work)
    shared = (recipe, hospitals, rounds, rate)
    for index, params in run_jobs(_train_one, missing, shared, processes, progress.advance):
        found[missing[index]] = params
        keep(paths[missing[index]], {str(count): each for count, each in params.items()})
    return {count: [params[count] for params in found.values() if params is not None] for count in rounds}


def federated_bytes(network: FlatNetwork, hospitals: int, rounds: int) -> int:
    """What all hospitals together receive and send in so many rounds, in float32."""
    return 2 * _PARAMETER_BYTES * network.size * hospitals * rounds


def _train_one(
    replica: int, shared: tuple[Recipe, Sequence[TrainingSet], Sequence[int], float], tick: Tick
) -> dict[int, Params]:
    recipe, hospitals, rounds, rate = shared
    settings, place = recipe.evaluate, recipe.machine.place
    channels, size = hospitals[0].pixels.shape[1:3]
    classes = hospitals[0].targets.shape[1]
    network = network_of(recipe, recipe.network.architecture, channels, size, classes, recipe.machine)
    everyone = [images.on(place) for images in hospitals]
    shares = torch.tensor([len(images) for images in everyone], device=place) / sum(map(len, everyone))
    params = fresh(network, recipe.seed_for(f"federated/{replica}/start")).params.to(place)
    wanted = {}
    for number in range(1, max(rounds) + 1):
        how = Optimization(
            rate=rate,
            epochs=number,
            batch_size=settings.batch_size,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            cosine=False,
            sampling="balanced",
            augment=recipe.augment,
        )
        sent = []
        for hospital, images in enumerate(everyone):
            begun = State(number - 1, params, torch.zeros_like(params), params)
            trained = train(network, begun, images, how, _seeds(recipe, replica, hospital))
            sent.append(next(trained).params)
            tick(len(images))
        params = shares @ torch.stack(sent)
        if number in rounds:
            wanted[number] = params.cpu()
    return wanted


def _seeds(recipe: Recipe, replica: int, hospital: int) -> SeedFor:
    return lambda purpose: recipe.seed_for(f"federated/{replica}/{hospital}/{purpose}")


def _key(recipe: Recipe, hospitals: Sequence[TrainingSet], rounds: Sequence[int], rate: float) -> str:
    optimizer = recipe.evaluate.model_dump(include={"batch_size", "momentum", "weight_decay"})
    identity = {
        "recipe": recipe.digest("network", "augment"),
        "arithmetic": recipe.machine.arithmetic,
        "optimizer": optimizer,
        "hospitals": [images.fingerprint() for images in hospitals],
        "rounds": sorted(rounds),
        "rate": rate,
    }
    return told_apart(identity)


def _load(path: Path, rounds: Sequence[int]) -> dict[int, Params] | None:
    kept = recall(path)
    return None if kept is None else {count: kept.tensors[str(count)] for count in rounds}
