import numpy as np
import pytest

from medistill import intervals
from medistill.evidence import Interval
from medistill.images import LabelledImages
from medistill.metrics import Answers
from toys import judged


def truth_and_guesses(n: int, networks: int = 3) -> tuple[list[int], list[np.ndarray]]:
    """Of every class, four of five are recognized."""
    truth = np.arange(n) % 2
    wrong = (np.arange(n) // 2) % 5 == 0
    return truth.tolist(), [np.where(wrong, 1 - truth, truth)] * networks


def found(guesses: list[list[np.ndarray]], images: LabelledImages) -> Interval:
    return intervals.interval_of(intervals.draws_of_balanced_accuracy(guesses, images, seed=0))


def ends(guesses: list[list[np.ndarray]], images: LabelledImages) -> np.ndarray:
    return intervals.bounds(intervals.draws_of_balanced_accuracy(guesses, images, seed=0))


def test_the_interval_contains_the_mean_and_is_narrower_with_more_images():
    widths = []
    for n in (50, 200, 800):
        truth, guesses = truth_and_guesses(n)
        interval = found([guesses], judged(truth, 2))
        assert interval.low < 0.8 < interval.high
        widths.append(interval.high - interval.low)
    assert widths[0] > 1.5 * widths[1] > 2 * widths[2]


def test_the_interval_of_one_network_is_about_that_of_a_proportion():
    truth, guesses = truth_and_guesses(800, networks=1)
    interval = found([guesses], judged(truth, 2))
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * (0.8 * 0.2 / 800) ** 0.5, rel=0.15)


def test_images_of_one_patient_do_not_count_as_independent():
    truth, guesses = truth_and_guesses(200)
    order = np.lexsort((guesses[0] == truth, truth))  # like beside like, ten to a patient
    truth, guesses = np.array(truth)[order].tolist(), [guess[order] for guess in guesses]
    alone = found([guesses], judged(truth, 2))
    grouped = found([guesses], judged(truth, 2, [f"p{i // 10}" for i in range(200)]))
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_the_interval_of_networks_that_disagree_is_wider():
    truth, (right, *_) = truth_and_guesses(400)
    agreeing = found([[right] * 4], judged(truth, 2))
    wrong = np.zeros(400, np.int64)
    disagreeing = found([[right, right, wrong, wrong]], judged(truth, 2))
    assert disagreeing.high - disagreeing.low > 2 * (agreeing.high - agreeing.low)


def right_so_often(shares: list[float], truth: list[int]) -> list[np.ndarray]:
    """Guesses of two classes that are right for the first so many of each."""
    truth = np.array(truth)
    place = np.arange(len(truth)) // 2 / (len(truth) // 2)
    return [np.where(place < share, truth, 1 - truth) for share in shares]


@pytest.mark.parametrize(  # 97.5 % of Student's t by degrees of freedom, from the printed tables
    ("shares", "t"), [([0.62, 0.6], 12.706), ([0.7, 0.72, 0.78], 4.303), ([0.6] * 4 + [0.7], 2.776)]
)
def test_of_few_repetitions_and_many_images_the_interval_is_students(shares, t):
    truth, _ = truth_and_guesses(4_000)
    low, high = ends([[guess, guess] for guess in right_so_often(shares, truth)], judged(truth, 2))
    error = np.std(shares, ddof=1) / len(shares) ** 0.5
    assert (low + high) / 2 == pytest.approx(np.mean(shares), abs=0.2 * t * error)
    assert (high - low) / 2 == pytest.approx(t * error, rel=0.15)


def test_every_network_of_a_repetition_counts():
    truth, _ = truth_and_guesses(4_000)
    low, high = ends([right_so_often([0.6, 0.8], truth), right_so_often([0.61, 0.81], truth)], judged(truth, 2))
    assert (low + high) / 2 == pytest.approx(0.705, abs=0.01)


def test_the_interval_is_of_balanced_accuracy_however_rare_a_class_is():
    """1,800 images of one class, 0.9 of them recognized, and 200 of another, half of them."""
    truth = np.repeat([0, 1], [1800, 200])
    guess = np.where(np.concatenate([np.arange(1800) < 1620, np.arange(200) < 100]), truth, 1 - truth)
    low, high = ends([[guess]], judged(truth.tolist(), 2))
    assert (low + high) / 2 == pytest.approx(0.7, abs=0.005)
    assert (high - low) / 2 == pytest.approx(1.96 * (0.09 / 1800 + 0.25 / 200) ** 0.5 / 2, rel=0.1)


@pytest.mark.parametrize(("last", "recalls"), [(2, (0.8, 0.8, 1)), (0, (0.8, 0.8, 0))])
def test_a_class_with_a_single_image_is_in_every_draw(last, recalls):
    truth, (right, *_) = truth_and_guesses(400)
    images, guess = judged([*truth, 2]), np.append(right, last)
    assert intervals.draws_of_balanced_accuracy([[guess]], images, 0).mean() == pytest.approx(
        np.mean(recalls), abs=0.003
    )


def test_a_class_that_does_not_occur_has_no_part_in_the_interval():
    truth, (right, *_) = truth_and_guesses(400)
    assert ends([[right]], judged(truth, 3)) == pytest.approx(ends([[right]], judged(truth, 2)))


def test_of_few_patients_the_interval_is_students_too():
    """Three patients with 2,000 images each, of which 0.6, 0.7 and 0.8 are recognized."""
    truth = np.tile([0, 1], 3000)
    guess = np.concatenate([right_so_often([share], truth[:2000])[0] for share in (0.6, 0.7, 0.8)])
    patients = np.repeat(["a", "b", "c"], 2000).tolist()
    low, high = ends([[guess]], judged(truth.tolist(), 2, patients))
    assert (high - low) / 2 == pytest.approx(4.303 * 0.1 / 3**0.5, rel=0.25)


def test_images_that_each_repetition_finds_hard_by_chance_do_not_count_thrice():
    """Ten repetitions that toss a coin for every image are known about as well as by a t test of their means."""
    draw, truth = np.random.default_rng(0), np.arange(400) % 2
    guesses = [[np.where(draw.random(400) < 0.7, truth, 1 - truth)] for _ in range(10)]
    error = np.std([(guess == truth).mean() for (guess,) in guesses], ddof=1) / 10**0.5
    assert np.ptp(ends(guesses, judged(truth.tolist(), 2))) / 2 < 1.5 * 2.262 * error


def test_of_one_repetition_the_networks_take_its_place():
    truth, _ = truth_and_guesses(4_000)
    networks, images = right_so_often([0.7, 0.72, 0.78], truth), judged(truth, 2)
    assert ends([networks], images) == pytest.approx(ends([[each] for each in networks], images))


def test_more_networks_of_a_repetition_say_nothing_of_the_next():
    truth, _ = truth_and_guesses(2000)
    one, other = right_so_often([0.7, 0.72], truth)
    images = judged(truth, 2)
    together = ends([[one] * 8, [other] * 8], images)
    assert together == pytest.approx(ends([[one], [other]], images))
    assert np.ptp(together) > 2 * np.ptp(ends([[one] * 8 + [other] * 8], images))


def test_an_interval_of_a_share_ends_at_nothing_and_at_all():
    """Two repetitions that are far apart could be anything; a share cannot."""
    truth, _ = truth_and_guesses(400)
    interval = found([[guess] for guess in right_so_often([0.1, 0.9], truth)], judged(truth, 2))
    assert (interval.low, interval.high) == (0, 1)


def test_a_difference_is_paired_over_images():
    """Where one set is right it is so on images that the other finds too: what both share adds nothing."""
    truth, (right, *_) = truth_and_guesses(400)
    better = right.copy()
    mended = np.flatnonzero(better != truth)[:8]
    better[mended] = np.array(truth)[mended]
    images, worse = judged(truth, 2), right
    one, other = (
        intervals.draws_of_balanced_accuracy(guesses, images, seed=0)
        for guesses in ([[better], [better]], [[worse], [worse]])
    )
    above = intervals.difference(one, other)
    assert 0 <= above.low < 0.01 < above.high < 0.04
    none = intervals.difference(one, one)
    assert (none.low, none.high) == (0, 0)
    below = intervals.difference(other, one)
    assert (below.low, below.high) == pytest.approx((-above.high, -above.low))


def test_a_difference_that_is_the_same_in_every_repetition_is_sure_however_far_these_are_apart():
    truth, _ = truth_and_guesses(4_000)
    images = judged(truth, 2)
    draws = [
        intervals.draws_of_balanced_accuracy([[guess] for guess in right_so_often(shares, truth)], images, seed=0)
        for shares in ([0.65, 0.75, 0.85], [0.6, 0.7, 0.8])
    ]
    above = intervals.difference(*draws)
    assert 0.04 < above.low < 0.05 < above.high < 0.06
    assert np.ptp(intervals.bounds(draws[0])) > 0.3


def test_draws_are_the_same_every_time():
    truth, guesses = truth_and_guesses(50)
    draws = [intervals.draws_of_shares([guesses], judged(truth, 2), seed=seed) for seed in (0, 0, 1)]
    assert all(np.array_equal(one, same) for one, same in zip(draws[0], draws[1], strict=True))
    assert not any(np.array_equal(one, other) for one, other in zip(draws[0], draws[2], strict=True))


def test_a_class_absent_from_the_judged_images_leaves_an_interval():
    interval = found([[np.array([0, 0, 1, 2])]], judged([0, 0, 2, 2]))
    assert 0 <= interval.low <= interval.high <= 1


def test_every_figure_has_the_interval_of_an_independent_bootstrap():
    """One network, images drawn with replacement, figures by their definitions: no code in common with ours."""
    draw, truth = np.random.default_rng(0), np.repeat([0, 1, 2], [500, 200, 100])
    guess = np.where(draw.random(800) < 0.7, truth, draw.integers(0, 3, 800))
    ours = intervals.draws_of_shares([[guess]], judged(truth.tolist(), 3), seed=0)
    drawn = []
    for _ in range(3000):
        chosen = draw.integers(0, 800, 800)
        is_, said = np.eye(3)[truth[chosen]], np.eye(3)[guess[chosen]]
        found, kept = (is_ * said).sum(0) / is_.sum(0), ((1 - is_) * (1 - said)).sum(0) / (1 - is_).sum(0)
        harmonic = (2 / (1 / found + 1 / kept)).mean()
        drawn.append([(is_ * said).sum() / 800, found.mean(), harmonic, *found, *kept])
    own = np.percentile(np.column_stack(ours), [2.5, 97.5], axis=0)
    other = np.percentile(drawn, [2.5, 97.5], axis=0)
    assert (np.abs(own - other) < 0.12 * np.ptp(other, axis=0)).all()


def test_every_figure_of_few_repetitions_and_many_images_is_students():
    """Two classes, of which the second is found less often by 0.1: three repetitions of two networks that agree."""
    truth, shares = np.arange(8_000) % 2, [0.7, 0.72, 0.78]
    place = np.arange(8_000) // 2 / 4_000
    guesses = [[np.where(place < share - 0.1 * truth, truth, 1 - truth)] * 2 for share in shares]
    drawn = intervals.draws_of_shares(guesses, judged(truth.tolist(), 2), seed=0)
    one, other = np.array(shares), np.array(shares) - 0.1
    harmonic = 2 * one * other / (one + other)
    for draws, values in (
        (drawn.accuracy, (one + other) / 2),
        (drawn.harmonic_mean, harmonic),
        (drawn.sensitivity[:, 0], one),
        (drawn.sensitivity[:, 1], other),
        (drawn.specificity[:, 0], other),
    ):
        low, high = intervals.bounds(draws)
        assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.01)
        assert (high - low) / 2 == pytest.approx(4.303 * np.std(values, ddof=1) / 3**0.5, rel=0.15)


def test_the_harmonic_mean_is_averaged_over_networks_and_not_taken_of_their_averages():
    """A network that finds all of a class and one that finds none have harmonic means of 1 and 0, so one of 0.5."""
    truth = np.arange(400) % 2
    drawn = intervals.draws_of_shares([[truth, np.zeros(400, np.int64)]] * 2, judged(truth.tolist(), 2), seed=0)
    assert drawn.harmonic_mean.mean() == pytest.approx(0.5, abs=0.005)


def test_images_of_one_patient_do_not_count_as_independent_for_any_figure():
    truth, guesses = truth_and_guesses(400)
    order = np.lexsort((guesses[0] == truth, truth))  # like beside like, ten to a patient
    truth, guess = np.array(truth)[order], guesses[0][order]
    alone, grouped = (
        intervals.draws_of_shares([[guess]], judged(truth.tolist(), 2, groups), seed=0)
        for groups in (None, [f"p{i // 10}" for i in range(400)])
    )
    widths = [np.ptp(np.percentile(np.column_stack(each), [2.5, 97.5], axis=0), axis=0) for each in (alone, grouped)]
    assert (widths[1] > 2 * widths[0]).all()


def answers(guess: np.ndarray, auc: float) -> Answers:
    return Answers(guess, auc, np.zeros(101), np.zeros((15, 3)))


def test_a_class_that_does_not_occur_has_a_specificity_alone():
    truth, (right, *_) = truth_and_guesses(50)
    images, said = judged(truth, 3), [[answers(right, 0.9)]]
    found = intervals.intervals_of(intervals.draws_of_shares([[right]], images, seed=0), said, images, seed=0)
    assert list(found.sensitivity) == ["a", "b"]
    assert list(found.specificity) == ["a", "b", "c"]


@pytest.mark.parametrize(("values", "t"), [([0.7, 0.71], 12.706), ([0.7, 0.72, 0.78], 4.303)])
def test_the_interval_of_an_auc_is_students_over_repetitions(values, t):
    interval = intervals.interval_over_repetitions([[value - 0.1, value + 0.1] for value in values], seed=0)
    error = np.std(values, ddof=1) / len(values) ** 0.5
    assert (interval.low + interval.high) / 2 == pytest.approx(np.mean(values), abs=1e-6)
    assert (interval.high - interval.low) / 2 == pytest.approx(t * error, rel=0.06)


def test_a_row_has_the_interval_of_its_networks_aucs():
    truth, (right, *_) = truth_and_guesses(50)
    images, said = judged(truth, 2), [[answers(right, 0.9)], [answers(right, 0.91)]]
    drawn = intervals.draws_of_shares([[right], [right]], images, seed=0)
    found = intervals.intervals_of(drawn, said, images, seed=0)
    assert found.auc == intervals.interval_over_repetitions([[0.9], [0.91]], seed=0)


def test_a_single_repetition_leaves_an_auc_without_an_interval():
    assert intervals.interval_over_repetitions([[0.7, 0.8]], seed=0) is None
