import pytest
import torch
from torch import nn

from medistill.errors import RecipeError
from medistill.evaluate import Bench, judge_arms, small_arm
from medistill.jobs import Silence
from medistill.networks import build
from medistill.networks.batchnorm import BatchNormNetwork
from medistill.recipe import NetworkSettings
from medistill.train import TrainingSet
from toys import TRANSFORM, films, recipe


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 36, 2))


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_the_published_resnet_has_as_many_parameters_besides_its_statistics():
    network = build(NetworkSettings(architecture="resnet18bn", width=64), 3, 32, 10)
    statistics = 2 * (64 + 4 * 64 + (4 + 1) * 128 + (4 + 1) * 256 + (4 + 1) * 512)
    assert network.size == 11_173_962 + statistics


def test_while_it_learns_a_batch_is_normalized_by_its_own_statistics():
    network, module = BatchNormNetwork(small()), small()
    params, batch = network.initial(3), images(5)
    nn.utils.vector_to_parameters(params[6:].clone(), module.parameters())
    targets = torch.eye(2)[torch.tensor([0, 1, 1, 0, 1])]
    nn.functional.cross_entropy(module.train()(batch), targets).backward()
    expected = nn.utils.parameters_to_vector(parameter.grad for parameter in module.parameters())
    found = network.slope(params, batch, targets, 5).params
    assert torch.allclose(found[6:], expected, atol=1e-6)
    assert (found[:6] == 0).all()


def test_learning_leaves_the_statistics_of_the_network_alone():
    network = BatchNormNetwork(small())
    params = network.initial(3)
    network.slope(params, 5 + images(4), torch.eye(2)[torch.tensor([0, 1, 1, 0])], 4)
    assert torch.equal(params, network.initial(3))


def test_calibration_measures_the_images_that_were_learned_from():
    network = BatchNormNetwork(small())
    params = network.initial(3)
    parts = (2 + images(6, 1), 4 + images(6, 2))
    weight, bias = network.views(params)[:2]
    seen = [nn.functional.conv2d(part, weight, bias) for part in parts]
    calibrated = network.calibrated(params, parts)
    assert torch.allclose(calibrated[:3], torch.stack([each.mean((0, 2, 3)) for each in seen]).mean(0), atol=1e-5)
    assert torch.allclose(calibrated[3:6], torch.stack([each.var((0, 2, 3)) for each in seen]).mean(0), atol=1e-5)
    assert torch.equal(calibrated[6:], params[6:])


def test_a_module_of_its_own_answers_the_same_with_its_statistics():
    network = BatchNormNetwork(small())
    params = network.calibrated(network.initial(3), [3 + images(6)])
    module = network.module_at(params)
    assert torch.allclose(module.eval()(images(2)), network(params, images(2)), atol=1e-6)
    assert not torch.allclose(network(network.initial(3), images(2)), network(params, images(2)))
    assert torch.equal(network.params_of(module), params)


def test_nothing_is_distilled_through_it():
    network = BatchNormNetwork(small())
    params = network.initial(0)
    with pytest.raises(RecipeError, match=r"through batch norm.*evaluate\.unseen"):
        network.alignment(params, images(2), torch.eye(2), 2, params)
    for changes in ({"network.architecture": "resnet18bn"}, {"teachers.also": ["resnet18bn"]}):
        with pytest.raises(RecipeError, match=r"through batch norm.*evaluate\.unseen"):
            recipe(changes)


def test_what_is_judged_has_been_calibrated():
    toy = recipe({"evaluate.networks": 1, "evaluate.steps": 2})
    data = TrainingSet.of(films((8, 8)), TRANSFORM)
    (judged,) = judge_arms(
        Bench(toy, None, None, 1), [small_arm(toy, "real", data, "resnet18bn")], films(seed=1), Silence()
    )
    assert judged.arm.name == "real-resnet18bn"
    statistics = judged.networks[0].params[:4]
    assert not (statistics == 0).any()
