import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from medistill.errors import MissingPart, RecipeError
from medistill.networks import FlatNetwork, build
from medistill.networks.pretrained import Timm, _Affine, _frozen, _timm, learned_params, timm_network
from medistill.train import fresh

RESNET = Timm("resnet10t")
"""Small, and with timm's own batch norm that has the activation inside."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Weights as timm writes them, with running statistics that somebody trained."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _timm().create_model(RESNET.name, pretrained=False)
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_()
                layer.running_var.uniform_(0.5, 2)
                layer.weight.data.uniform_(0.5, 2)
                layer.bias.data.normal_()
    path = tmp_path_factory.mktemp("weights") / "films.safetensors"
    save_file(model.state_dict(), path)
    return path, model.eval()


def features(path, images):
    """What the network with the weights of a file sees of images."""
    channels = images.shape[1]
    network = FlatNetwork(timm_network(RESNET, channels, 4))
    with torch.no_grad():
        return network.features(fresh(network, 0, learned_params(RESNET, channels, str(path))).params, images)


def test_features_are_those_of_the_network_that_was_saved(checkpoint):
    path, model = checkpoint
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(images), pre_logits=True)
    torch.testing.assert_close(features(path, images), expected, rtol=1e-4, atol=1e-4)


def test_grey_images_see_the_filters_summed_over_color(checkpoint):
    path, _ = checkpoint
    grey = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    color = grey.expand(-1, 3, -1, -1)
    torch.testing.assert_close(features(path, grey), features(path, color), rtol=1e-4, atol=1e-4)


def test_small_images_are_enlarged_and_large_ones_are_not(checkpoint):
    enlarge = timm_network(RESNET, 1, 2).features[0]
    for side, seen in ((16, 64), (64, 64), (96, 96)):
        assert enlarge(torch.zeros(1, 1, side, side)).shape[-1] == seen


def test_one_images_logits_do_not_depend_on_its_neighbors():
    network = build(RESNET, 1, 32, 3)
    params = network.initial(0)
    images = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(3))
    alone = torch.cat([network(params, images[index : index + 1]) for index in range(4)])
    torch.testing.assert_close(network(params, images), alone, rtol=1e-4, atol=1e-4)


def test_frozen_norms_are_batch_norms_in_use_and_go_on_learning():
    norm = nn.BatchNorm2d(3)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    images = torch.randn(2, 3, 4, 4)
    frozen = _frozen(norm.eval())
    assert isinstance(frozen, _Affine)
    torch.testing.assert_close(frozen(images), norm(images))
    assert [parameter.requires_grad for parameter in frozen.parameters()] == [True, True]


def test_weights_of_another_model_or_kind_are_refused(checkpoint, tmp_path):
    path, _ = checkpoint
    with pytest.raises(RecipeError, match=r"no weights for resnet18 in films\.safetensors"):
        learned_params(Timm("resnet18"), 1, str(path))
    pickled = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(1)}, pickled)
    with pytest.raises(RecipeError, match=r"weights\.pth: found no safetensors file"):
        learned_params(RESNET, 1, str(pickled))
    with pytest.raises(RecipeError, match=r"absent\.safetensors: found no safetensors file"):
        learned_params(RESNET, 1, str(tmp_path / "absent.safetensors"))


def test_a_model_that_timm_does_not_know_is_refused_with_near_ones():
    with pytest.raises(RecipeError, match=r"--timm resnet1: .*resnet18"):
        learned_params(Timm("resnet1"), 1, "hub")


def test_without_timm_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPart, match=r"medistill\[pretrained\]"):
        learned_params(RESNET, 1, "hub")
