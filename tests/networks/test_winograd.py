import pytest
import torch
from torch.nn.grad import conv2d_weight

from medistill.networks import can_compile, winograd

needs_compiler = pytest.mark.skipif(not can_compile(), reason="no C++ compiler or no Python headers on this machine")


def pair(
    side: int, dtype: torch.dtype = torch.float64, images: int = 3, widths: tuple[int, int] = (5, 7)
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(side)
    x, z_bar = (
        torch.randn(images, channels, side, side, generator=generator, dtype=torch.float64).to(
            dtype, memory_format=torch.channels_last
        )
        for channels in widths
    )
    return x, z_bar


def direct(x: torch.Tensor, z_bar: torch.Tensor) -> torch.Tensor:
    shape = torch.Size([z_bar.shape[1], x.shape[1], 3, 3])
    found: torch.Tensor = conv2d_weight(x, shape, z_bar, padding=1)  # type: ignore[no-untyped-call]
    return found


@pytest.mark.parametrize("side", [2, 4, 7, 12, 13])
@pytest.mark.parametrize("piece", [1, 20_000, 2**30], ids=["rows", "images", "everything"])
def test_it_is_the_gradient_that_the_library_computes(side: int, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "_PIECE_BYTES", piece)
    x, z_bar = pair(side)
    torch.testing.assert_close(winograd.weight_gradient([(x, z_bar)], False), direct(x, z_bar), rtol=1e-12, atol=1e-12)


def test_pairs_are_summed() -> None:
    one, other = pair(6), pair(5)
    found = winograd.weight_gradient([one, other], False)
    torch.testing.assert_close(found, direct(*one) + direct(*other), rtol=1e-12, atol=1e-12)


@needs_compiler
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # the compiler's own affair
@pytest.mark.parametrize("side", [8, 13])
def test_compiled_tiles_are_the_same_to_the_bit(side: int) -> None:
    given = [pair(side, torch.float32)]
    assert torch.equal(winograd.weight_gradient(given, True), winograd.weight_gradient(given, False))


def test_rounding_is_of_the_size_of_the_direct_sums() -> None:
    precise = pair(16, images=20, widths=(64, 64))
    rounded = tuple(each.float() for each in precise)
    exact = direct(*(each.double() for each in rounded))
    # Libraries add in an order of their own on every machine: 0.4 to 2.4 times their error was seen.
    assert (winograd.weight_gradient([rounded], False) - exact).norm() < 4 * (direct(*rounded) - exact).norm()


@pytest.mark.parametrize(
    ("channels", "side", "dtype", "device"),
    [
        (8, 16, torch.float32, "cpu"),
        (64, 2, torch.float32, "cpu"),
        (64, 16, torch.bfloat16, "cpu"),
        (64, 16, torch.float32, "meta"),
    ],
)
def test_the_library_is_left_what_it_does_better(channels: int, side: int, dtype: torch.dtype, device: str) -> None:
    values = torch.zeros(2, channels, side, side, dtype=dtype, device=device)
    assert not winograd.pays(values, values)
    usual = torch.zeros(2, 64, 16, 16)
    assert winograd.pays(usual, usual)
