"""The interval of Clopper and Pearson covers, and the number of trials is the smallest that keeps a promise."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from anomalib_spd.metrics.binomial import clopper_pearson, trials_needed

counts = st.integers(1, 3000).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials)))


@settings(deadline=None)
@given(counts, st.floats(0.5, 0.999))
def test_each_end_is_where_the_count_becomes_improbable(count: tuple[int, int], confidence: float) -> None:
    events, trials = count
    low, high = clopper_pearson(events, trials, confidence)
    assert 0 <= low <= events / trials <= high <= 1
    outside = (1 - confidence) / 2
    assert events == 0 or binom.sf(events - 1, trials, low) == pytest.approx(outside, rel=1e-5)
    assert events == trials or binom.cdf(events, trials, high) == pytest.approx(outside, rel=1e-5)


@settings(deadline=None)
@given(st.floats(1e-5, 0.9), st.floats(0.5, 0.999))
def test_the_fewest_trials_that_keep_a_promise(rate: float, confidence: float) -> None:
    number = trials_needed(rate, confidence)
    assert (1 - rate) ** number <= (1 - confidence) * (1 + 1e-6)
    assert number == 1 or (1 - rate) ** (number - 1) > (1 - confidence) * (1 - 1e-6)


def test_known_values() -> None:
    assert clopper_pearson(0, 30) == (0, pytest.approx(0.1157, abs=1e-4))  # tables of textbooks
    assert clopper_pearson(5, 10) == pytest.approx((0.1871, 0.8129), abs=1e-4)
    assert trials_needed(0.05) == 59
    assert trials_needed(0.001) == 2995


@pytest.mark.parametrize("arguments", [(-1, 3), (4, 3), (0, 0), (1, 3, 1.0)])
def test_counts_out_of_range(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="`events` is 0 to `trials`"):
        clopper_pearson(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("arguments", [(0.0,), (1.0,), (0.1, 0.0)])
def test_promises_out_of_range(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="lie within"):
        trials_needed(*arguments)
