import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medistill.baselines.selection import RULES, herding, k_center, select
from medistill.errors import RecipeError
from toys import films


def rows(seed: int, count: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3)).astype(np.float32)


@given(st.integers(0, 1000), st.integers(1, 12), st.sampled_from(sorted(RULES)))
def test_as_many_rows_as_asked_none_twice_and_more_only_adds(seed, count, name):
    chosen = RULES[name](rows(seed), count)
    assert len(set(chosen.tolist())) == count
    assert chosen.tolist() == RULES[name](rows(seed), 12)[:count].tolist()


def test_herding_finds_the_pair_that_stands_for_the_class():
    features = np.array([[1.0, 0], [9, 0], [5.5, 0], [5, 0], [4.5, 0.1]], dtype=np.float32)
    assert herding(features, 1).tolist() == [3]  # the mean is (5, 0.02)
    first, second = herding(features, 2)
    best = min(
        (abs(features[first] + each - 2 * features.mean(0)).sum(), i) for i, each in enumerate(features) if i != first
    )
    assert second == best[1]


def test_herding_follows_the_mean_better_than_chance():
    features = rows(0, 200)
    herded = np.linalg.norm(features[herding(features, 10)].mean(0) - features.mean(0))
    draw = np.random.default_rng(1)
    lucky = [
        np.linalg.norm(features[draw.choice(200, 10, replace=False)].mean(0) - features.mean(0)) for _ in range(50)
    ]
    assert herded < min(lucky)


@given(st.integers(0, 200))
def test_k_center_covers_at_most_twice_as_far_as_the_best_choice(seed):
    """The theorem about greedy choice, against every choice there is."""

    def radius(chosen):
        return np.linalg.norm(features[:, None] - features[list(chosen)], axis=2).min(1).max()

    features = rows(seed, 8)
    best = min(radius(each) for each in itertools.combinations(range(8), 3))
    assert radius(k_center(features, 3)) <= 2 * best + 1e-6


def test_every_class_gets_its_share_in_order():
    images = films((5, 7))
    chosen = select(herding, rows(0, 12), images, (1, 3))
    assert images.labels[chosen].tolist() == [0, 1, 1, 1]


def test_a_class_that_is_too_small_is_named():
    with pytest.raises(RecipeError, match=r"Class class 1 has 1 training image\(s\), fewer than the 2 of the set"):
        select(k_center, rows(0, 4), films((3, 1)), (2, 2))
