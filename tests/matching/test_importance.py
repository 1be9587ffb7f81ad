import dataclasses

import pytest
import torch

from medistill.distill import distill
from medistill.errors import RecipeError
from medistill.jobs import Silence
from medistill.matching.importance import importance
from medistill.matching.trajectory import trajectory_distance
from medistill.networks import build
from medistill.objectives import Point, matched
from medistill.teachers import train_teachers
from medistill.train import TrainingSet
from toys import TRANSFORM, films, recipe, splits

SIZES = (3, 1, 2)


def test_equal_groups_count_alike_and_weights_are_1_on_average_over_groups():
    assert importance(torch.full((3,), 7.0), SIZES).tolist() == [1] * 6
    weights = importance(torch.tensor([0.0, 2.0, -1.0]), SIZES)
    assert float(weights[[0, 3, 4]].mean()) == pytest.approx(1)
    assert float(weights[0]) == float(weights[2])


def test_a_weighted_distance_is_the_ratio_of_weighted_squares():
    draw = torch.Generator().manual_seed(0)
    end, start, target = (torch.randn(6, dtype=torch.float64, generator=draw) for _ in range(3))
    weights = importance(torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64), SIZES)
    above = sum(float(weights[i]) * float(end[i] - target[i]) ** 2 for i in range(6))
    below = sum(float(weights[i]) * float(start[i] - target[i]) ** 2 for i in range(6))
    assert float(trajectory_distance(end, start, target, weights=weights)) == pytest.approx(above / below, rel=1e-12)


@pytest.mark.parametrize("objective", ["mtt", "pruned"])
def test_importance_moves_to_what_students_follow_well(tmp_path, objective):
    toy = recipe({"distill.objective": objective, "distill.importance_rate": 0.1})
    buffer = train_teachers(toy, splits().train, TRANSFORM, tmp_path, 1, Silence())
    groups = len(build(toy.network, 1, 8, 2).group_sizes)
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    point = Point(1, images, torch.eye(2).repeat_interleave(2, 0), torch.tensor(-3.0), importance=torch.zeros(groups))
    real = TrainingSet.of(films(), TRANSFORM)
    found = matched(toy, point, real, buffer)
    assert found.importance is not None
    assert float(found.importance.sum()) == pytest.approx(0, abs=1e-6)
    lower = dataclasses.replace(point, importance=-0.5 * found.importance)
    assert float(matched(toy, lower, real, buffer).gradient.value) < float(found.gradient.value)


def test_importance_survives_an_interruption_and_is_not_learned_unasked(tmp_path):
    toy = recipe({"distill.importance_rate": 0.1, "distill.outer_steps": 4})
    buffer = train_teachers(toy, splits().train, TRANSFORM, tmp_path / "buffer", 1, Silence())
    learned = distill(toy, splits(), TRANSFORM, buffer, tmp_path / "a", 1, Silence()).log
    alike = recipe({"distill.outer_steps": 4})
    plain = distill(alike, splits(), TRANSFORM, buffer, None, 1, Silence()).log
    assert [each.value for each in learned[1:2]] == [each.value for each in plain[1:2]]
    assert [each.value for each in learned[2:]] != [each.value for each in plain[2:]]
    again = distill(toy, splits(), TRANSFORM, buffer, tmp_path / "a", 1, Silence()).log
    assert again == learned


def test_layers_of_several_networks_have_no_common_weights():
    with pytest.raises(RecipeError, match=r"importance_rate.*teachers\.also"):
        recipe({"distill.importance_rate": 0.1, "teachers.also": ["resnet18"]})
