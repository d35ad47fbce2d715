"""Statistics against arithmetic done by hand."""

import warnings

import numpy as np
import pytest

from ooorl.errors import UsageError
from ooorl.reporting import stats


def test_exact_binomial_interval_of_all_successes():
    # Five of five: low solves p^5 = 0.025, so low = 0.025^(1/5); high is 1.
    interval = stats.bootstrap_interval([1.0] * 5)
    assert interval.method == "clopper-pearson"
    assert interval.low == pytest.approx(0.025 ** (1 / 5), abs=1e-9)
    assert (interval.point, interval.high) == (1.0, 1.0)


def test_exact_binomial_interval_has_the_stated_tails():
    # 3 of 10: P(X >= 3 | low) = P(X <= 3 | high) = 0.025 by definition.
    interval = stats.bootstrap_interval([1, 0, 0, 1, 0, 0, 0, 1, 0, 0])
    choose = [1, 10, 45, 120]

    def at_most(k, p):
        return sum(choose[i] * p**i * (1 - p) ** (10 - i) for i in range(k + 1))

    assert 1 - at_most(2, interval.low) == pytest.approx(0.025, abs=1e-9)
    assert at_most(3, interval.high) == pytest.approx(0.025, abs=1e-9)


def test_bootstrap_interval_matches_the_enumerated_distribution():
    # All 3^3 resamples of (0, 3, 6) have means 0..6 with weights 1 3 6 7 6 3 1 over 27. At level 0.8 the
    # tails of 0.1 lie inside the weights of the means 1 (cumulative 1/27..4/27) and 5.
    with pytest.warns(UserWarning, match="3 seeds"):
        interval = stats.bootstrap_interval([0.0, 3.0, 6.0], level=0.8, num=20_000)
    assert (interval.point, interval.low, interval.high, interval.method) == (3.0, 1.0, 5.0, "bootstrap")


def test_same_seed_gives_the_same_interval():
    values = [0.1, 0.4, 0.35, 0.8, 0.2]
    assert stats.bootstrap_interval(values, seed=3) == stats.bootstrap_interval(values, seed=3)
    assert stats.bootstrap_interval(values, seed=3) != stats.bootstrap_interval(values, seed=4)


@pytest.mark.parametrize(
    ("values", "method", "point"),
    [
        ([0.3, 0.4], "too few", 0.35),
        ([1.0, 1.0], "too few", 1.0),
        ([0.7] * 6, "all equal", 0.7),
        ([0.3, np.nan, 0.4, 0.1, 0.2], "missing", np.nan),
        ([1.0, np.inf, 0.0, 1.0, 1.0], "missing", np.nan),
    ],
)
def test_no_interval_where_none_is_honest(values, method, point):
    interval = stats.bootstrap_interval(values)
    assert interval.method == method
    assert interval.point == pytest.approx(point, nan_ok=True)
    assert np.isnan([interval.low, interval.high]).all()


def test_equal_returns_of_zero_are_not_taken_for_failures():
    assert stats.bootstrap_interval([0.0] * 5, binary=False).method == "all equal"
    assert stats.bootstrap_interval([0.0] * 5).method == "clopper-pearson"


def test_few_seeds_warn_and_five_do_not():
    with pytest.warns(UserWarning, match="4 seeds"):
        stats.bootstrap_interval([0.1, 0.2, 0.3, 0.4])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stats.bootstrap_interval([0.1, 0.2, 0.3, 0.4, 0.5])


def test_iqm_drops_a_quarter_from_each_end():
    assert stats.iqm([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -50.0]) == 3.5  # 2 3 4 5
    assert stats.iqm([9.0, 1.0, 2.0]) == 4.0  # 3 // 4 = 0: nothing dropped
    np.testing.assert_allclose(stats.iqm([[0.0, 1, 2, 99], [4, 5, 6, 7]], axis=-1), [1.5, 5.5])


def test_stratified_bootstrap_never_mixes_tasks():
    # Each task is constant over seeds but one: only that task's spread may reach the interval of the mean.
    scores = np.array([[0.0, 100.0], [0.0, 100.0], [0.0, 100.0], [0.0, 100.0], [10.0, 100.0]])
    interval = stats.stratified_bootstrap(scores, np.mean)
    assert interval.point == pytest.approx(51.0)
    assert 50.0 <= interval.low and interval.high <= 55.0


def test_probability_of_improvement_counts_pairs():
    # Of 12 pairs, 1 wins twice and 3 wins four times; 1 and 0 tie twice each: (6 + 4 / 2) / 12.
    with pytest.warns(UserWarning):
        interval = stats.probability_of_improvement([1.0, 3.0, 0.0], [0.0, 1.0, 0.0, 1.0])
    assert interval.point == pytest.approx(8 / 12)
    assert 0 <= interval.low < interval.point < interval.high <= 1


def test_probability_of_improvement_averages_tasks_and_flags_certainty():
    x, y = np.arange(10.0).reshape(5, 2), np.arange(10.0).reshape(5, 2) + [[100.0, -100.0]]
    interval = stats.probability_of_improvement(x, y)
    assert (interval.point, interval.method) == (0.5, "all equal")
    assert stats.probability_of_improvement([1.0, np.nan, 2.0], [0.0, 0.0, 0.0]).method == "missing"


def test_performance_profile_counts_runs_above_and_failed_runs_as_failed():
    scores = [[0.1, 0.9], [0.5, np.nan], [0.7, 0.3], [0.2, 0.4]]
    fraction, low, high = stats.performance_profile(scores, [0.0, 0.3, 0.8])
    np.testing.assert_allclose(fraction, [7 / 8, 4 / 8, 1 / 8])
    assert (low <= fraction).all() and (fraction <= high).all()


def test_paired_difference_removes_what_seeds_share():
    shared = np.array([0.0, 100.0, 200.0, 300.0, 400.0])
    interval = stats.paired_difference(shared + [1, 2, 3, 2, 2], shared)
    assert interval.point == pytest.approx(2.0)
    assert 1.0 <= interval.low <= interval.high <= 3.0


def test_regret_is_the_area_below_best():
    # Shortfall 1 -> 0.5 over 10 steps (7.5), 0.5 -> 0 over 30 steps (7.5): 15 of 40.
    assert stats.regret([0.0, 0.5, 1.0], [0, 10, 40]) == pytest.approx(15 / 40)
    np.testing.assert_allclose(stats.regret([[1.0, 1.0], [0.0, 0.0]], [5, 6]), [0.0, 1.0])


@pytest.mark.filterwarnings("ignore:an interval over 3 seeds")
def test_unusable_input_is_refused():
    for call in (
        lambda: stats.bootstrap_interval([]),
        lambda: stats.bootstrap_interval([[1.0, 2.0]]),
        lambda: stats.bootstrap_interval([1.0, 2.0, 3.0], level=95),
        lambda: stats.bootstrap_interval([0.5, 0.2, 0.1], binary=True),
        lambda: stats.paired_difference([1.0, 2.0], [1.0]),
        lambda: stats.probability_of_improvement(np.ones((3, 2)), np.ones((3, 1))),
        lambda: stats.regret([1.0, 1.0], [3, 3]),
    ):
        with pytest.raises(UsageError):
            call()
