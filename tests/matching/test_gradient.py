import pytest
import torch
from torch import Tensor
from torch.nn import functional

from medistill.matching.gradient import Labelled, pull_apart
from medistill.networks import FlatNetwork, build, cross_entropy
from medistill.networks.convnet import ConvNet, convnet
from medistill.networks.kernels import EAGER
from medistill.recipe import NetworkSettings

CLASSES = 3


def batch(count: int, seed: int) -> Labelled:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 1, 8, 8, generator=generator).double()
    return Labelled(images, torch.rand(count, CLASSES, generator=generator).double().softmax(1))


def unrolled(network: FlatNetwork, params: Tensor, real: Labelled, synthetic: Labelled) -> tuple[Tensor, Tensor]:
    """The distance and its gradient by differentiating a slope, cosine by cosine."""
    leaf, images = params.clone().requires_grad_(), synthetic.images.clone().requires_grad_()
    (theirs,) = torch.autograd.grad(cross_entropy(network(leaf, real.images), real.targets, len(real.images)), leaf)
    loss = cross_entropy(network(leaf, images), synthetic.targets, len(images))
    (ours,) = torch.autograd.grad(loss, leaf, create_graph=True)
    distance = torch.zeros((), dtype=torch.float64)
    for one, other in zip(network.views(theirs), network.views(ours), strict=True):
        if one.dim() > 1:
            for row, own_row in zip(one.flatten(1), other.flatten(1), strict=True):
                distance = distance + 1 - functional.cosine_similarity(row, own_row, dim=0)
    return distance.detach(), torch.autograd.grad(distance, images)[0]


SETTINGS = NetworkSettings(width=8, depth=2)
NETWORKS = {
    "written out": ConvNet(convnet(SETTINGS, 1, 8, CLASSES), EAGER),
    "automatic": build(NetworkSettings(architecture="vit", width=8, depth=2), 1, 8, CLASSES),
}


@pytest.mark.parametrize("keep_bytes", [0, 100, 2**30])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradient_is_that_of_differentiating_the_slope(name, keep_bytes):
    network = NETWORKS[name]
    params, real, synthetic = network.initial(1).double(), batch(5, 1), batch(4, 2)
    found = pull_apart(network, params, real, synthetic, keep_bytes)
    distance, to_images = unrolled(network, params, real, synthetic)
    assert float(found.distance) == pytest.approx(float(distance), rel=1e-12)
    assert float((found.to_images - to_images).norm() / to_images.norm()) < 1e-9


@pytest.mark.parametrize(("keep_bytes", "kept"), [(0, False), (100, False), (2**30, True)])
def test_a_pass_is_kept_where_there_is_room_for_it(monkeypatch, keep_bytes, kept):
    network, given = NETWORKS["written out"], []
    alignment = network.alignment
    monkeypatch.setattr(network, "alignment", lambda *asked: given.append(asked[-1]) or alignment(*asked))
    pull_apart(network, network.initial(1).double(), batch(5, 1), batch(4, 2), keep_bytes)
    assert [each is not None for each in given] == [kept]


def test_batches_that_pull_alike_are_at_rest():
    network = build(NetworkSettings(width=4, depth=2), 1, 8, CLASSES)
    found = pull_apart(network, network.initial(0).double(), batch(4, 1), batch(4, 1))
    assert float(found.distance) == pytest.approx(0, abs=1e-9)
    assert float(found.to_images.abs().max()) < 1e-6
