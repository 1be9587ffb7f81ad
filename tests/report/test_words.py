from typing import Any

import made_up
import pytest

from medistill.evidence import Figure, Worth
from medistill.report import words


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("majority", "always the commonest class"),
        ("random", "random real images"),
        ("distilled", "distilled images"),
        ("full-natural", "all real images, natural sampling"),
        ("full-balanced", "all real images, balanced sampling"),
        ("full", "all real images"),
        ("distilled-resnet18", "distilled images (ResNet-18)"),
        ("byol-linear-resnet18", "BYOL, linear probe (ResNet-18)"),
        ("transfer (natural images)", "transfer, fine-tuned (natural images)"),
        ("transfer-linear-resnet18 (films)", "transfer, linear probe (ResNet-18) (films)"),
        ("transfer (natural images, CIFAR-10)", "transfer, fine-tuned, from natural images (CIFAR-10)"),
        (
            "transfer-linear-resnet18 (natural images, CIFAR-10)",
            "transfer, linear probe (ResNet-18), from natural images (CIFAR-10)",
        ),
        ("random-newnet", "random real images (newnet)"),
        ("some-method", "some-method"),
    ],
)
def test_rows_have_plain_names(name: str, plain: str) -> None:
    assert words.plain_name(name) == plain


@pytest.mark.parametrize(
    ("name", "changes", "seen"),
    [
        ("random", {}, "the few"),
        ("byol", {"protocol": "unlabelled"}, "all, unlabelled"),
        ("transfer-linear (gratings drawn here)", {}, "others, then the few"),
        ("full-natural", {"ipc": None}, "all"),
    ],
)
def test_a_row_says_what_its_networks_saw(name: str, changes: dict[str, Any], seen: str) -> None:
    assert words.images_seen(made_up.compared(name, 0.6, **changes)) == seen


def test_the_headline_says_what_was_measured() -> None:
    assert words.headline(made_up.utility(*made_up.ROWS, split="validation")) == (
        "40 synthetic images: networks trained on them reach 68.3 ± 1.2 % balanced accuracy on validation; trained on "
        "40 random real images 54.1 ± 1.2 %, on all 2,000 real images 77.0 ± 1.2 %."
    )


def test_the_headline_leaves_out_what_was_not_measured() -> None:
    distilled, full = made_up.row("distilled", 0.683, 1), made_up.row("full-natural", 0.77, 2000)
    assert words.headline(made_up.utility(distilled)).endswith("68.3 ± 1.2 % balanced accuracy on test.")
    assert words.headline(made_up.utility(distilled)).startswith("1 synthetic image:")
    assert words.headline(made_up.utility(distilled, full)).endswith("; trained on all 2,000 real images 77.0 ± 1.2 %.")
    assert not any(letter.isdigit() for letter in words.headline(made_up.utility(full)))


def test_one_network_claims_no_spread() -> None:
    assert words.percent(Figure(mean=0.5, sd=0, n=1)) == "50.0"
    assert words.percent(Figure(mean=0.5, sd=0, n=2)) == "50.0 ± 0.0"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (184_321, "184.3 kB"), (999_960, "1.0 MB"), (2**40, "1099.5 GB")],
)
def test_sizes_come_in_the_unit_that_suits_them(count: int, text: str) -> None:
    assert words.size(count) == text


@pytest.mark.parametrize(
    ("part", "text"),
    [(0, "0 %"), (0.0024, "0.24 %"), (0.0996, "10 %"), (0.997, "100 %"), (1.07, "107 %"), (12.5, "1,250 %")],
)
def test_a_share_above_the_whole_is_told_as_it_is(part: float, text: str) -> None:
    assert words.share(part) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (59.94, "59.9 s"), (59.96, "1 min 0 s"), (412.3, "6 min 52 s"), (3725, "1 h 2 min")],
)
def test_durations_come_in_the_unit_that_suits_them(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_what_something_is_worth_is_said_with_its_interval_and_its_limit():
    assert words.worth_said(Worth(images=33.4, low=20.6, high=50, most=50)) == "33 (21 to more than 50)"
    assert words.worth_said(None) == ""
