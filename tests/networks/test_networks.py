import math

import pytest
import torch
from torch import nn

from medistill.errors import RecipeError
from medistill.networks import FlatNetwork, build, cross_entropy
from medistill.networks.vit import patch_side, patches
from medistill.recipe import NetworkSettings


def convnet(**changes: object) -> NetworkSettings:
    return NetworkSettings.model_validate({"width": 4, "depth": 2} | changes)


@pytest.mark.parametrize(("channels", "parameters"), [(1, 597_508), (3, 599_812)])
def test_the_founding_convnet_has_as_many_parameters_as_published(channels, parameters):
    assert build(NetworkSettings(width=128, depth=5), channels, 112, 4).size == parameters


def test_the_published_padding_widens_the_first_layer_of_grey_images():
    assert build(convnet(first_padding=3, depth=1), 1, 8, 2).size == 4 * 9 + 4 + 8 + 4 * 6 * 6 * 2 + 2
    assert build(convnet(first_padding=1, depth=1), 1, 8, 2).size == 4 * 9 + 4 + 8 + 4 * 4 * 4 * 2 + 2


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), nn.SyncBatchNorm(4)])
def test_batch_norm_is_refused_in_words(norm):
    with pytest.raises(RecipeError, match=r"Found .*BatchNorm.*; expected instance, group or layer norm\..*Replace it"):
        FlatNetwork(nn.Sequential(nn.Conv2d(1, 4, 3), norm))


def test_instance_norm_is_not_batch_norm():
    FlatNetwork(nn.Sequential(nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4, affine=True)))


@pytest.mark.parametrize("architecture", ["convnet", "resnet18", "resnet18bn", "vgg11", "vit"])
def test_the_same_seed_gives_the_same_parameters_and_another_seed_others(architecture):
    settings = convnet(architecture=architecture)
    params = build(settings, 1, 8, 3).initial(5)
    torch.rand(7)
    assert torch.equal(build(settings, 1, 8, 3).initial(5), params)
    assert not torch.equal(build(settings, 1, 8, 3).initial(6), params)


def test_drawing_parameters_does_not_disturb_the_global_random_state():
    network = build(convnet(), 1, 8, 3)
    before = torch.random.get_rng_state()
    network.initial(5)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_drawn_parameters_own_their_memory():
    network = build(convnet(), 1, 8, 3)
    first = network.initial(5)
    kept = first.clone()
    network.initial(6)
    assert torch.equal(first, kept)


def test_a_network_is_a_function_of_its_flat_parameters():
    linear = FlatNetwork(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    params = torch.arange(10.0)  # weights row by row, then biases
    images = torch.tensor([1.0, 0, 2, 0]).view(1, 1, 2, 2)
    assert linear(params, images).tolist() == [[0 + 4 + 8, 4 + 12 + 9]]


@pytest.mark.parametrize("architecture", ["convnet", "resnet18", "resnet18bn", "vgg11", "vit"])
@pytest.mark.parametrize("channels", [1, 3])
def test_logits_of_one_image_do_not_depend_on_its_neighbors(architecture, channels):
    network = build(convnet(architecture=architecture), channels, 16, 3)
    params, images = network.initial(0).double(), torch.rand(5, channels, 16, 16, dtype=torch.float64)
    together = network(params, images)
    assert together.shape == (5, 3)
    for index in range(5):
        assert torch.allclose(together[index : index + 1], network(params, images[index : index + 1]), atol=1e-10)


@pytest.mark.parametrize("architecture", ["convnet", "resnet18", "resnet18bn", "vgg11", "vit"])
def test_logits_are_the_last_parameters_applied_to_the_features(architecture):
    network = build(convnet(architecture=architecture), 1, 16, 3)
    params, images = network.initial(0), torch.rand(2, 1, 16, 16)
    weight, bias = network.views(params)[-2:]
    assert network.head_size == weight.numel() + bias.numel()
    assert torch.allclose(network.features(params, images) @ weight.T + bias, network(params, images), atol=1e-5)


@pytest.mark.parametrize("architecture", ["convnet", "resnet18", "resnet18bn", "vgg11", "vit"])
def test_the_slope_of_a_classifier_is_the_last_part_of_the_whole_slope(architecture):
    network = build(convnet(architecture=architecture), 1, 8, 3)
    params, images, targets = network.initial(5), torch.randn(6, 1, 8, 8), torch.rand(6, 3)
    slope = network.slope(params, images, targets, 9).params
    found = network.head_slope(params, images, targets, 9)
    torch.testing.assert_close(found, slope[-network.head_size :], atol=1e-6, rtol=1e-4)


def test_a_module_at_parameters_computes_the_same_and_owns_its_memory():
    network = build(convnet(), 1, 8, 3)
    params, images = network.initial(0), torch.rand(2, 1, 8, 8)
    expected = network(params, images)
    module = network.module_at(params)
    params.zero_()
    assert torch.equal(module(images), expected)
    assert torch.equal(network(network.initial(0), images), expected)


@pytest.mark.parametrize(("size", "side"), [(8, 1), (28, 4), (32, 4), (64, 8), (112, 14), (65, 13)])
def test_a_vision_transformer_sees_at_most_8_patches_a_side(size, side):
    assert patch_side(size) == side


def test_patches_are_rows_of_neighbors():
    image = torch.arange(16.0).view(1, 1, 4, 4)
    assert patches(image, 2).tolist() == [[[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]]


def test_a_width_that_heads_cannot_share_is_refused():
    with pytest.raises(RecipeError, match=r"network\.width = 50 cannot be shared among 3 heads.*multiple of 16"):
        build(convnet(architecture="vit", width=50), 1, 8, 2)


def test_resnet18_has_the_parameters_of_the_published_one():
    """11,173,962 for 10 classes with a 3 x 3 stem on color images; group norm has as many as batch norm."""
    assert build(NetworkSettings(architecture="resnet18", width=64), 3, 32, 10).size == 11_173_962


@pytest.mark.parametrize("size", [8, 32, 65])
def test_resnet18_takes_images_of_every_size(size):
    network = build(convnet(architecture="resnet18"), 1, size, 3)
    assert network(network.initial(0), torch.rand(2, 1, size, size)).shape == (2, 3)


def test_a_network_too_deep_for_its_images_is_refused_with_the_greatest_depth():
    with pytest.raises(RecipeError, match=r"network\.depth = 4 halves an image of 8 px to nothing.* at most 3 "):
        build(convnet(depth=4), 1, 8, 2)
    assert build(convnet(depth=3), 1, 8, 2).size > 0


def test_cross_entropy_of_hard_labels_is_torchs():
    logits, classes = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 2, 1, 1, 0, 2])
    ours = cross_entropy(logits, nn.functional.one_hot(classes, 3).double(), 6)
    assert float(ours) == pytest.approx(float(nn.functional.cross_entropy(logits, classes)), rel=1e-12)


def test_cross_entropies_of_micro_batches_add_up_to_that_of_the_batch():
    logits, targets = torch.randn(6, 3, dtype=torch.float64), torch.rand(6, 3, dtype=torch.float64).softmax(1)
    parts = sum(cross_entropy(logits[part], targets[part], 6) for part in (slice(0, 4), slice(4, 6)))
    assert float(parts) == pytest.approx(float(cross_entropy(logits, targets, 6)), rel=1e-12)


def test_the_convnet_is_convolution_instance_norm_relu_and_mean_pooling_then_a_linear_layer():
    network = build(convnet(), 1, 8, 3)
    params = network.initial(0).double() + 0.1 * torch.randn(network.size, dtype=torch.float64)
    images = torch.randn(5, 1, 8, 8, dtype=torch.float64)
    rest, hidden = params, images

    def following(*shape: int) -> torch.Tensor:
        nonlocal rest
        taken, rest = rest[: math.prod(shape)], rest[math.prod(shape) :]
        return taken.view(shape)

    for channels in (1, 4):
        hidden = nn.functional.conv2d(hidden, following(4, channels, 3, 3), following(4), padding=1)
        hidden = nn.functional.instance_norm(hidden, weight=following(4), bias=following(4))
        hidden = nn.functional.avg_pool2d(hidden.relu(), 2)
    logits = hidden.flatten(1) @ following(3, 16).T + following(3)
    assert len(rest) == 0
    assert torch.allclose(network(params, images), logits, rtol=1e-9)
