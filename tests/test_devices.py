"""That work stays on one device, checked on any machine: torch's `meta` device refuses to mix with another, and refuses
every question that a GPU would have to finish its work to answer."""

import pytest
import torch

from medistill.augment import draw_augmentation
from medistill.images import LabelledImages
from medistill.matching.adjoint import InnerStep, trajectory_gradient
from medistill.networks import FlatNetwork, build
from medistill.networks.convnet import ConvNet, convnet
from medistill.networks.kernels import EAGER
from medistill.package import Transform
from medistill.recipe import AugmentSettings, NetworkSettings
from medistill.train import Optimization, TrainingSet, fresh, train

AUGMENT = AugmentSettings(cutout=0.2, flip=True)
NETWORK = NetworkSettings(width=8, depth=2)
NETWORKS = {
    "automatic": build(NETWORK, 1, 16, 4),
    "written": ConvNet(convnet(NETWORK, 1, 16, 4), EAGER),
    "written, narrow": ConvNet(convnet(NETWORK, 1, 16, 4), EAGER, narrow=True),
    "resnet": build(NETWORK.model_copy(update={"architecture": "resnet18"}), 1, 16, 4),
}


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("keep_bytes", [0, 2**30])
def test_a_gradient_stays_on_its_device_and_never_waits_for_it(network: FlatNetwork, keep_bytes: int) -> None:
    start, target, images, targets, log_rate = (
        torch.empty(shape, device="meta") for shape in ((network.size,), (network.size,), (8, 1, 16, 16), (8, 4), ())
    )
    steps = [InnerStep(torch.arange(8), draw_augmentation(AUGMENT, 8, seed)) for seed in range(2)]
    gradient = trajectory_gradient(
        *(network, start, images, targets, log_rate, steps),
        lambda end: (end - target).square().sum(),
        micro_batch=3,
        keep_bytes=keep_bytes,
    )
    assert all(part.device.type == "meta" for part in vars(gradient).values())


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_training_stays_on_its_device_and_waits_for_it_once_an_epoch(
    network: FlatNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = []

    def slope(*arguments: object) -> object:
        batches.append(arguments)
        return original(*arguments)  # type: ignore[arg-type]

    original = network.slope
    monkeypatch.setattr(network, "slope", slope)
    films = torch.zeros(32, 1, 16, 16, dtype=torch.uint8).numpy()
    images = LabelledImages(films, torch.arange(32).numpy() % 4, ("a", "b", "c", "d"))
    data = TrainingSet.of(images, Transform(mean=(0.5,), std=(0.2,)))
    data = TrainingSet(data.pixels.to("meta"), data.targets.to("meta"), data.transform)
    how = Optimization(0.01, 2, 8, 0.9, 1e-4, True, "natural", AUGMENT)
    with pytest.raises(RuntimeError, match="item"):  # whether all is finite is asked at the end of an epoch
        next(train(network, fresh(network, 0), data, how, lambda purpose: 0))
    assert len(batches) == 4
