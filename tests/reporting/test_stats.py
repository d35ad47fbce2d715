"""rliable's statistics against arithmetic done by hand."""

import itertools

import numpy as np
import pytest

from ooorl.errors import UsageError
from ooorl.reporting import stats


def test_aggregates_say_what_they_are_medians_and_means_of():
    scores = np.array([[0.0, 10.0, 1.0], [2.0, 10.0, 1.0], [100.0, 10.0, 1.0]])  # task means 34, 10, 1
    assert stats.median_of_task_means(scores) == 10.0
    assert stats.median_of_runs(scores) == 2.0  # of 0 1 1 1 2 10 10 10 100
    assert stats.mean_of_runs(scores) == pytest.approx(135 / 9)
    assert stats.iqm_of_runs(scores) == pytest.approx((1 + 1 + 2 + 10 + 10) / 5)
    stacked = np.stack([scores, scores + 1])
    for statistic in (stats.median_of_task_means, stats.median_of_runs, stats.mean_of_runs, stats.iqm_of_runs):
        np.testing.assert_allclose(statistic(stacked), [statistic(scores), statistic(scores) + 1])


def test_interval_matches_the_enumerated_distribution():
    # All 3^3 resamples of (0, 3, 6) have means 0..6 with weights 1 3 6 7 6 3 1 over 27. At level 0.8 the
    # tails of 0.1 lie inside the weights of the means 1 (cumulative 1/27..4/27) and 5.
    found = stats.rliable_interval(np.array([[0.0], [3.0], [6.0]]), stats.mean_of_runs, level=0.8, num=20_000)
    assert (found.point, found.low, found.high, found.method) == (3.0, 1.0, 5.0, "bootstrap")


def test_each_task_draws_its_own_seeds():
    # Two tasks with opposite scores. Were the same seeds drawn for both, every resample's mean would be 3.
    up = np.array([0.0, 3.0, 6.0])
    found = stats.rliable_interval(np.stack([up, 6 - up], axis=1), stats.mean_of_runs, level=0.8, num=20_000)
    one = [sum(draw) / 3 for draw in itertools.product(up, repeat=3)]
    means = np.sort([(a + b) / 2 for a in one for b in one])  # all 27 x 27 resamples
    assert (found.low, found.high) == tuple(np.quantile(means, (0.1, 0.9))) == (1.5, 4.5)
    # Nor may the profile be sure that half of all runs are above 3.
    _, low, high = stats.performance_profile(np.stack([up, 6 - up], axis=1), [4.0])
    assert low[0] < 1 / 3 < high[0]


def test_same_seed_gives_the_same_interval():
    values = np.array([[0.1], [0.4], [0.35], [0.8], [0.2]])
    first, again, other = (stats.rliable_interval(values, stats.mean_of_runs, num=100, seed=seed) for seed in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize(
    ("values", "method"), [([0.3, 0.4], "too few"), ([0.7] * 6, "all equal"), ([0.3, np.nan, 0.4], "missing")]
)
def test_no_interval_where_none_is_honest(values, method):
    found = stats.rliable_interval(np.array(values)[:, None])
    assert found.method == method and np.isnan([found.low, found.high]).all()


def test_resampling_never_mixes_tasks():
    # Each task is constant over seeds but one: only that task's spread may reach the interval of the mean.
    scores = np.array([[0.0, 100.0], [0.0, 100.0], [0.0, 100.0], [0.0, 100.0], [10.0, 100.0]])
    interval = stats.rliable_interval(scores, stats.mean_of_runs)
    assert interval.point == pytest.approx(51.0)
    assert 50.0 <= interval.low and interval.high <= 55.0


def test_stratified_bootstrap_draws_the_seeds_of_every_task_anew():
    # The second task is the first one mirrored: drawn together, every resample would have a mean of exactly 0.
    first = np.arange(9.0) - 4.0
    interval = stats.rliable_interval(np.stack([first, -first], axis=1), stats.mean_of_runs)
    # Variance of one task's mean: (60 / 9) / 9; of the mean of two independent ones half of it, deviation 0.61; 1.96 of them.
    assert interval.point == 0.0
    np.testing.assert_allclose([interval.low, interval.high], [-1.19, 1.19], atol=0.1)


def test_probability_of_improvement_counts_pairs():
    # Of 12 pairs, 1 wins twice and 3 wins four times; 1 and 0 tie twice each: (6 + 4 / 2) / 12.
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


def test_regret_is_the_area_below_best():
    # Shortfall 1 -> 0.5 over 10 steps (7.5), 0.5 -> 0 over 30 steps (7.5): 15 of 40.
    assert stats.regret([0.0, 0.5, 1.0], [0, 10, 40]) == pytest.approx(15 / 40)
    np.testing.assert_allclose(stats.regret([[1.0, 1.0], [0.0, 0.0]], [5, 6]), [0.0, 1.0])


def test_unusable_input_is_refused():
    for call in (
        lambda: stats.rliable_interval(np.zeros((0, 1))),
        lambda: stats.rliable_interval([1.0, 2.0, 3.0]),
        lambda: stats.rliable_interval(np.ones((3, 1)), level=95),
        lambda: stats.probability_of_improvement(np.ones((3, 2)), np.ones((3, 1))),
        lambda: stats.regret([1.0, 1.0], [3, 3]),
    ):
        with pytest.raises(UsageError):
            call()
