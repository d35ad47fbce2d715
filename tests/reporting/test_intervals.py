"""Intervals over seeds against arithmetic done by hand, and the measurement by which they were chosen."""

import importlib

import numpy as np
import pytest
from conftest import ROOT

from ooorl.errors import UsageError
from ooorl.reporting import intervals, tables, writers
from ooorl.reporting.intervals import interval, paired_difference, score_difference, score_interval

UNIT = (0.0, 1.0)


def ends(found):
    return found.low, found.high


def test_t_interval_of_five_scores():
    # Mean 3, variance 10 / 4, t(4, .975) = 2.776445: 3 -+ 2.776445 sqrt(2.5 / 5).
    found = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.point, found.num, found.method) == (3.0, 5, 't')
    assert ends(found) == pytest.approx((3 - 1.963243, 3 + 1.963243), abs=1e-6)


def test_t_interval_at_another_level_and_three_seeds():
    # t(2, .9) = 1.885618, variance 9 / 9 = 1 of (0, 1, 2).
    assert ends(interval([0.0, 1.0, 2.0], level=0.8)) == pytest.approx((1 - 1.885618 / 3**0.5, 1 + 1.885618 / 3**0.5), abs=1e-6)


def test_intervals_end_where_the_range_does():
    scores = [0.9, 0.7, 1.0, 0.8, 0.5]
    free, bound = interval(scores), interval(scores, bounds=UNIT)
    assert free.high > 1.0 and bound.high == 1.0 and bound.low == free.low
    assert ends(interval([2 * s - 1 for s in scores], bounds=(-1, 1))) == pytest.approx((2 * bound.low - 1, 1.0))


def test_trimmed_t_interval_of_eight_scores():
    # Kept: 3 4 5 6, mean 4.5; winsorised: 3 3 3 4 5 6 6 6 with squares about their mean of 14; h = 4, t(3, .975) = 3.182446:
    # half width 3.182446 sqrt(14 / (4 * 3)).
    found = interval([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -50.0], 'iqm')
    assert found.point == 3.5 and found.method == 'trimmed t'
    found = interval([3.0, 4.0, 5.0, 6.0, 70.0, 80.0, -9.0, -9.0], 'iqm')
    assert found.point == 4.5
    assert (found.high - found.low) / 2 == pytest.approx(3.182446 * (14 / 12) ** 0.5, abs=1e-5)


def test_median_lies_between_order_statistics():
    # Two-sided chance outside: n = 6: 2 / 64 at the extremes; n = 9: 2 (1 + 9) / 512 = .039 at the second; n = 8: .07 at the
    # second, which is too much.
    assert ends(interval([5.0, 1, 4, 2, 6, 3], 'median')) == (1.0, 6.0)
    assert ends(interval(np.arange(9.0), 'median')) == (1.0, 7.0)
    assert ends(interval(np.arange(8.0), 'median')) == (0.0, 7.0)
    assert interval(np.arange(5.0), 'median').method == 'too few'


def test_exact_binomial_interval_of_all_successes():
    # Five of five: low solves p^5 = 0.025; high is 1. Yes and no may be any two ends.
    found = interval([1.0] * 5, bounds=UNIT)
    assert (found.point, found.high, found.method) == (1.0, 1.0, 'exact binomial')
    assert found.low == pytest.approx(0.025 ** (1 / 5), abs=1e-9)
    assert interval([-1.0] * 5, bounds=(-1, 1)).high == pytest.approx(1 - 2 * 0.025 ** (1 / 5), abs=1e-9)


def test_exact_binomial_interval_has_the_stated_tails():
    # 3 of 10: P(X >= 3 | low) = P(X <= 3 | high) = 0.025 by definition.
    found = interval([1, 0, 0, 1, 0, 0, 0, 1, 0, 0], bounds=UNIT)
    choose = [1, 10, 45, 120]

    def at_most(k, p):
        return sum(choose[i] * p**i * (1 - p) ** (10 - i) for i in range(k + 1))

    assert 1 - at_most(2, found.low) == pytest.approx(0.025, abs=1e-9)
    assert at_most(3, found.high) == pytest.approx(0.025, abs=1e-9)


def test_equal_scores_of_known_range_may_have_been_others():
    # The weight of the end is Beta(1, 6): its .975 quantile is w = 1 - .025^(1/6) = .459; the mean then .7 (1 - w) or .7 + .3 w.
    found = interval([0.7] * 6, bounds=UNIT)
    assert found.method == 'bounded'
    assert ends(found) == pytest.approx((0.7 * 0.541, 0.7 + 0.3 * 0.459), abs=0.01)


def test_scores_close_to_yes_or_no_have_nearly_the_interval_of_yes_or_no():
    exact = interval([1.0] * 7 + [0.0], bounds=UNIT)
    close = interval([0.98] * 7 + [0.02], bounds=UNIT)
    assert close.method == 'bounded'
    assert ends(close) == pytest.approx(ends(exact), abs=0.04)
    # 18 of 20 episodes as a run records it, in float32, is as close as in exact arithmetic.
    assert interval([1.0] * 7 + [float(np.float32(18) / np.float32(20)) - 2e-8], bounds=UNIT).method == 'bounded'
    # One score in between is enough for a deviation to mean something.
    assert interval([0.98] * 7 + [0.5], bounds=UNIT).method == 't'


@pytest.mark.parametrize(
    ('values', 'method', 'point'),
    [
        ([0.3, 0.4], 'too few', 0.35),
        ([1.0, 1.0], 'too few', 1.0),
        ([0.7] * 6, 'all equal', 0.7),
        ([0.1 + 0.2, 0.3, 0.3, 0.3], 'all equal', 0.3),
        ([0.3, np.nan, 0.4, 0.1, 0.2], 'missing', np.nan),
        ([1.0, np.inf, 0.0, 1.0, 1.0], 'missing', np.nan),
    ],
)
def test_no_interval_where_none_is_honest(values, method, point):
    for statistic in ('mean', 'iqm'):
        found = interval(values, statistic)
        assert found.method == method
        assert found.point == pytest.approx(point, nan_ok=True)
        assert np.isnan(ends(found)).all()


def test_range_of_a_score_follows_from_its_name():
    assert score_interval('success', [0.0] * 5).method == 'exact binomial'
    assert score_interval('return', [0.0] * 5).method == 'all equal'
    assert score_interval('success', [0.5, None, 0.5]).method == 'missing'
    assert score_interval('success', [0.5, 1.5, 0.7]).high > 1  # another scale than the one known
    assert score_difference('success', [1.0] * 5, [0.0] * 5).method == 'exact binomial'
    assert score_difference('success', [70.0] * 5, [None] * 5).method == 'missing'


def test_iqm_drops_a_quarter_from_each_end():
    assert intervals.iqm([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -50.0]) == 3.5  # 2 3 4 5
    assert intervals.iqm([9.0, 1.0, 2.0]) == 4.0  # 3 // 4 = 0: nothing dropped
    np.testing.assert_allclose(intervals.iqm([[0.0, 1, 2, 99], [4, 5, 6, 7]], axis=-1), [1.5, 5.5])


def test_paired_difference_removes_what_seeds_share():
    shared = np.array([0.0, 100.0, 200.0, 300.0, 400.0])
    found = paired_difference(shared + [1, 2, 3, 2, 2], shared)  # variance 2 / 4
    assert found.point == pytest.approx(2.0)
    assert found.high - found.point == pytest.approx(2.776445 * (0.5 / 5) ** 0.5, abs=1e-6)


def test_differences_of_rates_reach_from_minus_one_to_one():
    # Eight times 1: the exact interval of eight of eight, on [-1, 1]; eight times 0: up to 1 - .025^(1/8) either way.
    ones = paired_difference([1.0] * 8, [0.0] * 8, bounds=UNIT)
    assert ends(ones) == pytest.approx((2 * 0.025 ** (1 / 8) - 1, 1.0), abs=1e-6)
    same = paired_difference([0.4] * 8, [0.4] * 8, bounds=UNIT)
    assert ends(same) == pytest.approx((0.025 ** (1 / 8) - 1, 1 - 0.025 ** (1 / 8)), abs=0.01)
    assert paired_difference([1.0, 1, 1, 0], [0.0, 0, 0, 0.4], bounds=UNIT).low >= -1


def test_unusable_input_is_refused():
    for call in (
        lambda: interval([]),
        lambda: interval([[1.0, 2.0]]),
        lambda: interval([1.0, 2.0, 3.0], level=95),
        lambda: interval([1.0, 2.0, 3.0], 'mode'),
        lambda: interval([0.5, 0.2, 1.1], bounds=UNIT),
        lambda: paired_difference([1.0, 2.0], [1.0]),
    ):
        with pytest.raises(UsageError):
            call()


@pytest.fixture(scope='module')
def coverage():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / 'experiments'))
        yield importlib.import_module('interval_coverage')


def test_measured_tables_stand_in_the_docs_and_hold_what_is_said(coverage):
    rows = writers.read_json(coverage.RESULT)['rows']
    page = (ROOT / 'docs' / 'statistics.md').read_text()
    for statistic in coverage.STATISTICS:
        assert coverage.table(rows, statistic) in page
    found = {(row['statistic'], row['scores'], row['seeds']): row['intervals'] for row in rows}
    for (statistic, scores, size), own in found.items():
        if statistic == 'mean':
            rivals = max(own[name]['coverage'] for name in ('percentile', 'BCa'))
            assert own['ours']['coverage'] >= min(rivals, 0.92) - 0.01, (scores, size)
    assert all(found['mean', 'normal', size]['ours']['coverage'] > 0.935 for size in coverage.SIZES)


def test_contenders_follow_their_formulas(coverage):
    generator = np.random.default_rng(0)
    values = generator.random((3, 8)).round(1)
    for name in ('mean', 'iqm'):
        low, high = coverage.student(values, name)
        expected = [ends(interval(row, name)) for row in values]
        np.testing.assert_allclose(np.stack([low, high], -1), expected)
    found = coverage.contenders(values, 'median', UNIT, 50, generator)
    np.testing.assert_array_equal(found['order statistics'], found['ours'])
    zeros_and_ones = np.array([[1.0] * 5, [0.0] * 5, [0.0, 1.0, 1.0, 0.0, 1.0]])
    np.testing.assert_allclose(
        coverage.binomial(zeros_and_ones, 'mean'), coverage.ours(zeros_and_ones, 'mean', UNIT, paired=False), atol=1e-9
    )


def test_footnote_explains_every_mark():
    assert tables.mark(interval([1.0] * 5, bounds=UNIT)) in tables.FOOTNOTE
    assert tables.mark(interval([1.0, 2.0, 4.0])) == ''
