import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medistill.matching.angle import angle_distance


def reference(student: np.ndarray, teacher: np.ndarray) -> float:
    """Every corner and every pair of sides, one after another."""
    total = 0.0
    for i in range(3):
        for j in range(3):
            for k in range(3):
                cosines = []
                for points in (student, teacher):
                    sides = [points[other] - points[i] for other in (j, k)]
                    lengths = [np.linalg.norm(side) for side in sides]
                    cosines.append(0.0 if 0 in lengths else sides[0] @ sides[1] / (lengths[0] * lengths[1]))
                gap = abs(cosines[0] - cosines[1])
                total += gap**2 / 2 if gap < 1 else gap - 0.5
    return total / 27


@given(st.integers(0, 2**32 - 1))
def test_it_is_the_distance_of_a_reference(seed):
    student, teacher = np.random.default_rng(seed).standard_normal((2, 3, 7))
    found = angle_distance(tuple(torch.from_numpy(student)), tuple(torch.from_numpy(teacher)))
    assert float(found) == pytest.approx(reference(student, teacher), rel=1e-6)


def test_a_shape_twice_as_large_elsewhere_is_the_same_shape():
    points = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 5)))
    assert float(angle_distance(tuple(points), tuple(2 * points + 3))) == pytest.approx(0, abs=1e-12)


def test_a_student_that_stands_still_has_angles_of_nothing_and_a_finite_slope():
    points = torch.zeros(3, 5, requires_grad=True)
    teacher = torch.from_numpy(np.random.default_rng(1).standard_normal((3, 5))).float()
    value = angle_distance(tuple(points), tuple(teacher))
    (slope,) = torch.autograd.grad(value, points)
    assert float(value.detach()) > 0
    assert torch.isfinite(slope).all()
