import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medistill.errors import MatchingError
from medistill.matching.trajectory import trajectory_distance


def walk(seed: int = 0, size: int = 50) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A student's end, the common start and the teacher's target."""
    end, start, target = torch.from_numpy(np.random.default_rng(seed).standard_normal((3, size)))
    return end, start, target


def test_a_student_that_arrives_has_nothing_left_to_go():
    _, start, target = walk()
    assert float(trajectory_distance(target, start, target)) == 0


def test_a_student_that_does_not_learn_keeps_the_whole_distance():
    _, start, target = walk()
    assert float(trajectory_distance(start, start, target)) == 1


def test_a_student_half_way_keeps_a_quarter():
    _, start, target = walk()
    assert float(trajectory_distance((start + target) / 2, start, target)) == pytest.approx(0.25)


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_the_distance_has_no_unit_and_no_origin(seed, unit):
    end, start, target = walk(seed)
    moved = trajectory_distance(unit * end + 3, unit * start + 3, unit * target + 3)
    assert float(moved) == pytest.approx(float(trajectory_distance(end, start, target)), rel=1e-6)


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_the_distance_is_the_published_formula(seed, pruned):
    end, start, target = walk(seed)
    kept = torch.from_numpy(np.random.default_rng(seed + 1).integers(0, 2, 50).astype(float)) if pruned else None
    if kept is not None:
        kept[0] = 1
    chosen = slice(None) if kept is None else kept.numpy() == 1
    missing, step = (end - target).numpy()[chosen], (start - target).numpy()[chosen]
    expected = np.linalg.norm(missing) ** 2 / np.linalg.norm(step) ** 2
    assert float(trajectory_distance(end, start, target, kept)) == pytest.approx(expected, rel=1e-12)


def test_a_pruned_parameter_counts_neither_above_nor_below_the_fraction_bar():
    end, start, target = walk()
    kept = torch.ones(50, dtype=torch.float64)
    kept[7] = 0
    before = float(trajectory_distance(end, start, target, kept))
    end[7], start[7], target[7] = 100, -200, 300
    assert float(trajectory_distance(end, start, target, kept)) == before
    assert float(trajectory_distance(end, start, target)) != before


def test_the_gradient_is_that_of_the_formula_and_zero_where_pruned():
    end, start, target = walk()
    kept = (torch.arange(50) % 3 > 0).double()
    end.requires_grad_()
    trajectory_distance(end, start, target, kept).backward()
    expected = 2 * kept * (end.detach() - target) / (kept * (start - target)).square().sum()
    assert torch.allclose(end.grad, expected, rtol=1e-12)


def test_a_teacher_that_did_not_move_cannot_be_followed():
    end, start, target = walk()
    with pytest.raises(MatchingError, match=r"The teacher did not move.*Train teachers at a higher rate"):
        trajectory_distance(end, start, start)
    with pytest.raises(MatchingError, match="in the parameters that are matched"):
        trajectory_distance(end, start, target, torch.zeros(50, dtype=torch.float64))


def test_a_teacher_whose_parameters_are_no_numbers_cannot_be_followed():
    end, start, target = walk()
    target[3] = torch.nan
    with pytest.raises(MatchingError, match="The teacher did not move"):
        trajectory_distance(end, start, target)
