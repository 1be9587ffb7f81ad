import sys

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from medistill.networks import FlatNetwork, can_compile
from medistill.networks.convnet import ConvNet, convnet
from medistill.networks.kernels import EAGER, Kernels, fused
from medistill.recipe import NetworkSettings

CLASSES, IMAGES = 3, 5

needs_compiler = pytest.mark.skipif(not can_compile(), reason="no C++ compiler or no Python headers on this machine")


class Place:
    """A ConvNet written out, the same by automatic differentiation, and somewhere on their loss."""

    def __init__(self, channels: int, size: int, padding: int, dtype: torch.dtype, kernels: Kernels = EAGER) -> None:
        layers = convnet(NetworkSettings(width=6, depth=2, first_padding=padding), channels, size, CLASSES)  # type: ignore[arg-type]
        self.written, self.automatic = ConvNet(layers, kernels), FlatNetwork(layers)
        generator = torch.Generator().manual_seed(size)

        def noise(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        self.params, self.direction = 0.5 * noise(self.written.size), noise(self.written.size)
        self.images = noise(IMAGES, channels, size, size)
        self.targets = noise(IMAGES, CLASSES).abs()  # soft labels, not even normalized
        self.batch = (self.params, self.images, self.targets, IMAGES + 2)

    def slopes(self, network: FlatNetwork) -> list[Tensor]:
        found = network.alignment(*self.batch, self.direction)
        return [network.slope(*self.batch).params, found.value, found.params, found.images, found.targets]


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(("channels", "size", "padding"), [(1, 8, 1), (1, 9, 3), (3, 11, 1), (4, 8, 1), (5, 7, 3)])
def test_the_written_derivatives_are_those_of_automatic_differentiation(channels: int, size: int, padding: int) -> None:
    place = Place(channels, size, padding, torch.float64)
    for ours, theirs in zip(place.slopes(place.written), place.slopes(place.automatic), strict=True):
        assert relative_error(ours, theirs) < 1e-12


@needs_compiler
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # the compiler's own affair
@pytest.mark.parametrize(
    ("channels", "size", "padding", "dtype", "tolerance"),
    [
        (1, 8, 1, torch.float32, 1e-5),
        *(
            pytest.param(*shape, dtype, tolerance, marks=pytest.mark.slow)
            for shape in [(1, 8, 1), (1, 9, 3), (4, 8, 1)]
            for dtype, tolerance in [(torch.float64, 1e-12), (torch.float32, 1e-5)]
        ),
    ],
)
def test_compiled_kernels_agree_with_eager_ones(
    channels: int, size: int, padding: int, dtype: torch.dtype, tolerance: float
) -> None:
    eager, fast = Place(channels, size, padding, dtype), Place(channels, size, padding, dtype, fused())
    for ours, theirs in zip(fast.slopes(fast.written), eager.slopes(eager.written), strict=True):
        assert relative_error(ours, theirs) < tolerance


def test_narrow_convolutions_keep_the_direction_of_every_slope() -> None:
    place = Place(1, 16, 1, torch.float32)
    narrow = ConvNet(convnet(NetworkSettings(width=6, depth=2), 1, 16, CLASSES), EAGER, narrow=True)
    for ours, theirs in zip(place.slopes(narrow), place.slopes(place.written), strict=True):
        assert ours.dtype == torch.float32
        assert float(functional.cosine_similarity(ours.flatten(), theirs.flatten(), 0)) > 0.95
    passed = place.written.slope(*place.batch, keep=True), narrow.slope(*place.batch, keep=True)
    assert passed[1].kept_bytes < 0.6 * passed[0].kept_bytes


def test_what_a_pass_keeps_saves_work_and_changes_nothing() -> None:
    place = Place(1, 8, 1, torch.float32)
    passed = place.written.slope(*place.batch, keep=True)
    again = place.written.alignment(*place.batch, place.direction)
    kept = place.written.alignment(*place.batch, place.direction, passed.kept)
    assert torch.equal(kept.params, again.params)
    assert torch.equal(kept.images, again.images)
    assert passed.kept_bytes > 4 * IMAGES * (6 + 9) * 8 * 8  # at least z and the patches of the first block
    assert place.written.slope(*place.batch).kept is None


@pytest.mark.parametrize("is_kept", [True, False])
def test_parts_of_a_batch_change_the_memory_and_not_the_result(is_kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(1, 8, 3, torch.float64)
    whole = place.slopes(place.written)
    monkeypatch.setattr(sys.modules[ConvNet.__module__], "_PART_BYTES", 2 * 6 * 12 * 12 * 8)  # two images of the five
    passed = place.written.slope(*place.batch, keep=True)
    assert len(passed.kept) == 3
    found = place.written.alignment(*place.batch, place.direction, passed.kept if is_kept else None)
    in_parts = [passed.params, found.value, found.params, found.images, found.targets]
    for ours, theirs in zip(in_parts, whole, strict=True):
        assert relative_error(ours, theirs) < 1e-12


@pytest.mark.parametrize("is_narrow", [True, False])
def test_features_without_a_gradient_are_those_that_the_slope_sees(
    is_narrow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(1, 16, 1, torch.float32)
    network = ConvNet(convnet(NetworkSettings(width=6, depth=2), 1, 16, CLASSES), EAGER, is_narrow)
    monkeypatch.setattr(sys.modules[ConvNet.__module__], "_PART_BYTES", 2 * 6 * 16 * 16 * 4)  # two images of the five
    passed = network.slope(*place.batch, keep=True)
    with torch.no_grad():
        seen = network.features(place.params, place.images)
    assert seen.dtype == torch.float32
    assert torch.equal(seen, torch.cat([part.features for part in passed.kept]))
    assert relative_error(network.head_slope(*place.batch), passed.params[-network.head_size :]) < 1e-6
    assert (relative_error(seen, place.automatic.features(place.params, place.images)) < 1e-6) != is_narrow


def test_the_bias_before_a_norm_has_no_slope() -> None:
    place = Place(1, 8, 1, torch.float64)
    bias = place.written.views(place.written.slope(*place.batch).params)[1]
    assert bias.shape == (6,)
    assert not bias.any()
