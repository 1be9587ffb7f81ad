import math

import numpy as np
import pytest
from pydantic import ValidationError

from medistill import intervals, metrics
from medistill.evidence import Figure, Interval, Utility
from toys import films


def utility() -> Utility:
    judged = films()
    said = [[metrics.Answers.of(np.full((len(judged), 2), 0.5, np.float32), judged)] * 2]
    interval = intervals.interval_of(intervals.draws_of(said, judged, seed=0))
    row = metrics.row("random", "convnet", "test", 4, "hard", 0.1, said, judged, interval)
    return Utility(
        split="test",
        judged_images=len(judged),
        selection="validation",
        test_reads=1,
        data_fingerprint="a" * 64,
        recipe_digest="b" * 64,
        software={},
        notes=(),
        rows=(row,),
    )


def test_a_figure_is_a_mean_with_the_sample_standard_deviation():
    found = Figure.of([0.5, 0.7, 0.9])
    assert (found.mean, found.sd, found.n) == (pytest.approx(0.7), pytest.approx(0.2), 3)


def test_one_network_has_no_spread():
    assert Figure.of([0.5]) == Figure(mean=0.5, sd=0.0, n=1)


def test_a_figure_reads_as_percent_with_one_digit():
    assert str(Figure(mean=0.7236, sd=0.0151, n=5)) == "72.4 ± 1.5"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_figure_that_is_not_a_number_is_refused(value):
    with pytest.raises(ValidationError, match="finite number"):
        Figure.of([value])
    with pytest.raises(ValidationError, match="finite number"):
        Interval(low=value, high=1)


def test_evidence_comes_back_from_json_unchanged():
    assert Utility.model_validate_json(utility().model_dump_json()) == utility()


def test_evidence_refuses_what_it_does_not_know():
    with pytest.raises(ValidationError, match="extra"):
        Utility.model_validate(utility().model_dump() | {"patients": ["x"]})


def test_a_row_is_found_by_its_name():
    assert utility().row("random") is not None
    assert utility().row("distilled") is None
