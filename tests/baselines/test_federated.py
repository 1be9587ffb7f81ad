import pytest
import torch

from medistill.baselines.federated import average_federated, federated_bytes
from medistill.evaluate import network_of
from medistill.jobs import Silence
from medistill.train import Optimization, TrainingSet, fresh, train
from toys import NO_AUGMENT, TRANSFORM, PowerCut, Watch, films, recipe


def test_a_federation_of_one_is_ordinary_training(tmp_path):
    toy = recipe(NO_AUGMENT | {"evaluate.networks": 1, "evaluate.momentum": 0.0})
    data = TrainingSet.of(films((8, 8)), TRANSFORM)
    found = average_federated(toy, [data], (1, 3), 0.1, tmp_path, 1, Silence())
    network = network_of(toy, "convnet", 1, 8, 2)
    how = Optimization(0.1, 3, 8, 0.0, toy.evaluate.weight_decay, False, "balanced", toy.augment)
    state = fresh(network, toy.seed_for("federated/0/start"))
    states = list(train(network, state, data, how, lambda purpose: toy.seed_for(f"federated/0/0/{purpose}")))
    assert torch.allclose(found[1][0], states[0].params, atol=1e-6)
    assert torch.allclose(found[3][0], states[2].params, atol=1e-6)


def test_a_federation_weighs_hospitals_by_their_images(tmp_path):
    toy = recipe(NO_AUGMENT | {"evaluate.networks": 1})
    large, small = (TrainingSet.of(films(counts, seed=1), TRANSFORM) for counts in ((9, 9), (3, 3)))
    both = average_federated(toy, [large, small], (1,), 0.1, tmp_path, 1, Silence())[1][0]
    network = network_of(toy, "convnet", 1, 8, 2)
    start = fresh(network, toy.seed_for("federated/0/start"))
    how = Optimization(0.1, 1, 8, toy.evaluate.momentum, toy.evaluate.weight_decay, False, "balanced", toy.augment)
    alone = [
        next(train(network, start, data, how, lambda purpose, n=n: toy.seed_for(f"federated/0/{n}/{purpose}"))).params
        for n, data in enumerate((large, small))
    ]
    assert torch.allclose(both, 0.75 * alone[0] + 0.25 * alone[1], atol=1e-6)


def test_a_federation_that_was_interrupted_keeps_its_finished_networks(tmp_path):
    toy = recipe({"evaluate.networks": 2})
    data = [TrainingSet.of(films((8, 8), seed=seed), TRANSFORM) for seed in (0, 1)]
    with pytest.raises(PowerCut):
        average_federated(toy, data, (2,), 0.1, tmp_path, 1, Watch(power_fails_after=100))
    watch = Watch()
    after = average_federated(toy, data, (2,), 0.1, tmp_path, 1, watch)[2]
    assert watch.begun == [("federated", 128, 64)]
    whole = average_federated(toy, data, (2,), 0.1, tmp_path / "other", 1, Silence())[2]
    assert all(torch.equal(one, other) for one, other in zip(after, whole, strict=True))


def test_what_a_federation_sends_counts_both_ways():
    network = network_of(recipe(), "convnet", 1, 8, 2)
    assert federated_bytes(network, 3, 10) == 3 * 10 * 2 * 4 * network.size
