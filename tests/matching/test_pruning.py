import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medistill.errors import MatchingError
from medistill.matching.pruning import easy_parameters, kept_parameters
from medistill.matching.trajectory import trajectory_distance

READINGS = ("unsigned", "signed", "displacement")


def kept(end: object, target: object, threshold: float, reading: str = "unsigned", start: object = None) -> list[float]:
    end, target = (torch.tensor(values, dtype=torch.float64) for values in (end, target))
    start = torch.zeros_like(end) if start is None else torch.tensor(start, dtype=torch.float64)
    return kept_parameters(end, start, target, threshold, reading).tolist()


def similarity_reference(end: np.ndarray, start: np.ndarray, target: np.ndarray, reading: str) -> list[float]:
    """The three readings, one parameter at a time."""
    values = []
    for a, s, b in zip(end.tolist(), start.tolist(), target.tolist(), strict=True):
        if reading == "displacement":
            a, b = a - s, b - s
        if a == b == 0:
            values.append(1.0)
        elif a == 0 or b == 0 or (reading != "unsigned" and math.copysign(1, a) != math.copysign(1, b)):
            values.append(0.0)
        else:
            values.append(min(abs(a / b), abs(b / a)))
    return values


@pytest.mark.parametrize(
    ("end", "target", "similarity"),
    [
        (0.0, 0.0, 1.0),  # two zeros are alike
        (0.0, 2.0, 0.0),
        (2.0, 0.0, 0.0),
        (1.0, 2.0, 0.5),
        (2.0, 1.0, 0.5),
        (-1.0, 4.0, 0.25),
        (-3.0, -3.0, 1.0),
    ],
)
def test_the_unsigned_similarity_of_values_known_by_hand(end, target, similarity):
    """A parameter stays up to its similarity and goes above it; the other one, alike, always stays."""
    assert kept([end, 1.0], [target, 1.0], similarity) == [1, 1]
    if similarity < 1:
        assert kept([end, 1.0], [target, 1.0], math.nextafter(similarity, 2)) == [0, 1]


@pytest.mark.parametrize("reading", READINGS)
def test_a_parameter_at_the_threshold_stays(reading):
    assert kept([0.1, 0.05], [1.0, 1.0], 0.1, reading) == [1, 0]


def test_only_the_signed_readings_prune_where_signs_differ():
    assert kept([-1.0, 1.0], [1.0, 1.0], 0.1, "unsigned") == [1, 1]
    assert kept([-1.0, 1.0], [1.0, 1.0], 0.1, "signed") == [0, 1]
    assert kept([-1.0, 1.0], [1.0, 1.0], 0.1, "displacement") == [0, 1]


def test_displacement_compares_steps_and_the_others_values():
    start, end, target = [10.0, 10.0], [10.1, 9.9], [12.0, 9.9]
    assert kept(end, target, 0.1, "unsigned", start) == [1, 1]
    assert kept(end, target, 0.1, "signed", start) == [1, 1]
    assert kept(end, target, 0.1, "displacement", start) == [0, 1]


def test_parameters_that_nobody_moved_are_alike():
    assert kept([3.0, 1.0], [3.0, -5.0], 1.0, "displacement", start=[3.0, 1.0]) == [1, 0]


@given(st.integers(0, 2**32 - 1), st.sampled_from(READINGS), st.floats(0, 0.6))
def test_masks_of_random_numbers_are_those_of_a_reference(seed, reading, threshold):
    draw = np.random.default_rng(seed)
    end, start, target = draw.standard_normal((3, 200))
    for values in (end, start, target):
        values[draw.integers(0, 200, 20)] = 0
    found = kept_parameters(*(torch.from_numpy(v) for v in (end, start, target)), threshold, reading)
    expected = [value >= threshold for value in similarity_reference(end, start, target, reading)]
    assert found.tolist() == expected


@given(st.integers(0, 2**32 - 1), st.sampled_from(READINGS))
def test_threshold_0_is_plain_trajectory_matching_in_value_and_gradient(seed, reading):
    end, start, target = torch.from_numpy(np.random.default_rng(seed).standard_normal((3, 60)).astype(np.float32))
    values, slopes = [], []
    for pruned in (False, True):
        here = end.clone().requires_grad_()
        mask = kept_parameters(here, start, target, 0.0, reading) if pruned else None
        value = trajectory_distance(here, start, target, mask)
        values.append(value.detach())
        slopes.append(torch.autograd.grad(value, here)[0])
    assert torch.equal(*values)
    assert torch.equal(*slopes)


@given(st.integers(0, 2**32 - 1), st.sampled_from(READINGS), st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_higher_threshold_keeps_no_more(seed, reading, one, two):
    walk = torch.from_numpy(np.random.default_rng(seed).standard_normal((3, 200)))
    low, high = (kept_parameters(*walk, threshold, reading) for threshold in sorted((one, two)))
    assert (high <= low).all()


def test_threshold_1_keeps_only_equal_parameters():
    assert kept([2.0, 2.000001, -2.0], [2.0, 2.0, 2.0], 1.0, "signed") == [1, 0, 0]


@pytest.mark.parametrize("reading", READINGS)
def test_nothing_kept_cannot_be_matched(reading):
    with pytest.raises(MatchingError, match=rf"similarity of 0\.5 \({reading}\)\. Lower distill\.threshold"):
        kept([0.1, 0.2], [1.0, 1.0], 0.5, reading)


def test_a_mask_carries_no_gradient_and_the_type_of_the_parameters():
    end, start, target = torch.rand(3, 10)
    mask = kept_parameters(end.requires_grad_(), start, target, 0.0, "unsigned")
    assert not mask.requires_grad
    assert mask.dtype == torch.float32


@pytest.mark.parametrize(("reading", "control"), [("unsigned", "shuffled"), ("displacement", "shuffled-displacement")])
def test_a_control_keeps_as_many_parameters_as_its_similarity_but_others(reading, control):
    walk = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 2000)))
    real = kept_parameters(*walk, 0.3, reading)
    shuffled = kept_parameters(*walk, 0.3, control, seed=1)
    share = float(real.mean())
    assert 0.05 < share < 0.95
    assert shuffled.sum() == real.sum()
    # Two masks of that share that know nothing of each other agree on so many parameters.
    assert float((shuffled == real).double().mean()) == pytest.approx(share**2 + (1 - share) ** 2, abs=0.05)
    assert torch.equal(shuffled, kept_parameters(*walk, 0.3, control, seed=1))
    assert not torch.equal(shuffled, kept_parameters(*walk, 0.3, control, seed=2))


def test_an_easy_parameter_once_admitted_stays():
    target = torch.zeros(3)
    first = easy_parameters(torch.tensor([0.1, 0.5, 2.0]), target, torch.zeros(3), 0.05)
    assert first.tolist() == [1, 0, 0]
    assert easy_parameters(torch.tensor([9.0, 0.5, 2.0]), target, first, 0.3).tolist() == [1, 1, 0]
    with pytest.raises(MatchingError, match=r"Raise distill\.easy_error"):
        easy_parameters(torch.ones(3), target, torch.zeros(3), 1.0)
