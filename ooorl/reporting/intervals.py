"""The interval of a score over seeds: one function decides it for every table, report, command and experiment.

The unit is the seed: an episode is never a sample, average the episodes of a seed first. Which interval is used was chosen by
measuring how often each holds the true value at 3 to 20 seeds (`experiments/interval_coverage.py`, tables in docs/statistics.md):

* mean: Student's t, clipped to the range of the score where that is known. Scores of a known range whose seeds all lie within a
  tenth of its ends are nearly yes or no, and their deviation says little: Gaffke's interval, whose ends are quantiles of the mean
  under Dirichlet(1, ..., 1) weights on the scores and on one end of the range. For zeros and ones that is the exact binomial
  interval, which is then computed as such.
* interquartile mean: t about the trimmed mean with the winsorised deviation, n - 2g - 1 degrees of freedom, g = n // 4.
* median: the narrowest pair of order statistics that holds it with the level's probability whatever the distribution.

No interval is given, and `Interval.method` says why, where there is no honest one:

* "too few": fewer than three seeds; fewer than six for the median at 95 %, which lies within the extremes in 1 - 2^(1-n);
* "all equal": equal scores of unknown range, which say nothing about how much scores vary;
* "missing": a score that is not finite. A seed that failed is not dropped.

Sources: Student, Biometrika 6, 1908; Clopper & Pearson, Biometrika 26, 1934; Tukey & McLaughlin, Sankhya A 25, 1963 (trimmed
mean); Gaffke, "Three test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative variable", 2005, and
Learned-Miller & Thomas, arXiv:1905.06208.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from ooorl.errors import UsageError

RANGES = dict.fromkeys(('success', 'success_in', 'success_out'), (0.0, 1.0))  # of scores by name; others are not bounded
NEAR = 0.1  # of the range: scores so close to an end of it are nearly yes or no
NUM_WEIGHTS = 20_000  # draws of Dirichlet weights, from a fixed seed: the same scores give the same digits


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A point estimate and its interval.

    Attributes:
      point: the statistic of the sample itself.
      low: lower end, NaN where there is no interval.
      high: upper end, NaN where there is no interval.
      num: how many seeds it rests on.
      method: "t", "trimmed t", "order statistics", "exact binomial" or "bounded" (Gaffke's), "bootstrap" (`stats`); or why there
        is none: "too few", "all equal", "missing".
    """

    point: float
    low: float
    high: float
    num: int
    method: str


def score_interval(name, values, statistic='mean', *, level=0.95):
    """Interval of a score that runs record under `name`, whose range is that of `RANGES`; None in `values` is a missing seed."""
    values = as_array(values)
    return interval(values, statistic, level=level, bounds=_range(name, values))


def score_difference(name, x, y, *, level=0.95):
    """Interval of the mean paired difference of two arms in the score recorded under `name`; None is a missing seed."""
    x, y = as_array(x), as_array(y)
    return paired_difference(x, y, level=level, bounds=_range(name, np.append(x, y)))


def interval(values, statistic='mean', *, level=0.95, bounds=None):
    """Interval of a statistic over seeds; see the module for which, and for the cases that have none.

    Args:
      values: `[S]`, one number a seed.
      statistic: 'mean', 'iqm' or 'median'.
      level: coverage, in (0, 1).
      bounds: `(low, high)` that no score can leave; None where no such range is known.

    Raises:
      UsageError: for another shape, statistic or level, and for finite scores outside of their bounds.
    """
    values = np.asarray(values, np.float64)
    _check(values, statistic, level, bounds)
    if not np.isfinite(values).all():
        return _none(np.nan, values, 'missing')
    if len(values) < 3:
        return _none(_POINTS[statistic](values), values, 'too few')
    if statistic == 'median':
        return _order_statistics(values, level)
    # What is equal but for rounding is equal.
    is_equal = np.ptp(values) <= 1e-9 * (1 + np.abs(values).max())
    if statistic == 'mean' and bounds is not None and (is_equal or _nearly_yes_or_no(values, bounds)):
        return _bounded(values, level, bounds)
    if is_equal:
        return _none(_POINTS[statistic](values), values, 'all equal')
    return _student(values, statistic, level, bounds)


def paired_difference(x, y, *, level=0.95, bounds=None):
    """Interval of the mean of `x - y` where both share their seeds: t on the differences of pairs.

    Args:
      x: `[S]`.
      y: `[S]`, in the same order of seeds.
      level: coverage.
      bounds: of either side, where known: their difference cannot exceed the width.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.shape != y.shape:
        raise UsageError(
            f'a paired difference needs the same seeds on both sides; got shapes {x.shape} and {y.shape}; '
            'use stats.probability_of_improvement for unmatched seeds.'
        )
    width = None if bounds is None else bounds[1] - bounds[0]
    return interval(x - y, level=level, bounds=None if width is None else (-width, width))


def iqm(values, axis=None):
    """Interquartile mean: the mean after dropping the lowest and the highest quarter, each rounded down."""
    values = np.asarray(values, np.float64)
    if axis is None:
        values, axis = values.reshape(-1), -1
    size = values.shape[axis]
    cut = size // 4
    middle = np.take(np.sort(values, axis=axis), np.arange(cut, size - cut), axis=axis)
    return middle.mean(axis=axis)


def as_array(values):
    """Scores as numbers; a seed without one is NaN."""
    return np.array([np.nan if value is None else float(value) for value in values])


_POINTS = {'mean': np.mean, 'iqm': iqm, 'median': np.median}


def _range(name, values):
    """The range of a score by its name, unless the values are on another scale."""
    low, high = RANGES.get(name, (np.inf, -np.inf))
    return None if low > high or (values < low).any() or (values > high).any() else (low, high)


def _check(values, statistic, level, bounds):
    if values.ndim != 1 or values.size == 0:
        raise UsageError(f'scores must be a non-empty array [seeds]; got shape {values.shape}; average episodes first.')
    if statistic not in _POINTS:
        raise UsageError(f'statistic must be one of {", ".join(_POINTS)}; got {statistic!r}; name one of them.')
    if not 0 < level < 1:
        raise UsageError(f'level must be in (0, 1); got {level}; try 0.95.')
    finite = values[np.isfinite(values)]
    if bounds is not None and not (bounds[0] < bounds[1] and (bounds[0] <= finite).all() and (finite <= bounds[1]).all()):
        raise UsageError(f'scores must lie in their bounds {tuple(bounds)}; got {values.tolist()}; leave the bounds out.')


def _none(point, values, method):
    return Interval(point=float(point), low=np.nan, high=np.nan, num=len(values), method=method)


def _student(values, statistic, level, bounds):
    """t = (point - true) / (s_w sqrt(n / (h (h - 1)))), h = n - 2g scores kept, s_w the winsorised deviation (1 / n)."""
    size, point = len(values), _POINTS[statistic](values)
    cut = size // 4 if statistic == 'iqm' else 0
    kept = size - 2 * cut
    ordered = np.sort(values)
    winsorised = np.clip(ordered, ordered[cut], ordered[size - 1 - cut])
    if np.ptp(winsorised) <= 1e-9 * (1 + np.abs(winsorised).max()):
        return _none(point, values, 'all equal')  # all that is left of them
    with np.errstate(over='ignore'):  # the interval of scores whose squares overflow is everything
        half = special.stdtrit(kept - 1, (1 + level) / 2) * winsorised.std() * np.sqrt(size / (kept * (kept - 1)))
    low, high = np.clip((point - half, point + half), *(bounds or (-np.inf, np.inf)))
    method = 't' if statistic == 'mean' else 'trimmed t'
    return Interval(point=float(point), low=float(low), high=float(high), num=size, method=method)


def _nearly_yes_or_no(values, bounds):
    place = (values - bounds[0]) / (bounds[1] - bounds[0])
    return (np.minimum(place, 1 - place) <= NEAR + 1e-6).all()  # runs record float32: 18 of 20 is .89999998


def _bounded(values, level, bounds):
    low, high = bounds
    place, tail = np.clip((values - low) / (high - low), 0, 1), (1 - level) / 2
    if np.isin(place, (0.0, 1.0)).all():
        ends, method = _binomial_ends(len(place), int(place.sum()), tail), 'exact binomial'
    else:
        weights = np.random.default_rng(0).dirichlet(np.ones(len(place) + 1), NUM_WEIGHTS)
        means = weights[:, :-1] @ np.sort(place)
        ends, method = (np.quantile(means, tail), np.quantile(means + weights[:, -1], 1 - tail)), 'bounded'
    first, last = (float(low + (high - low) * end) for end in ends)
    return Interval(point=float(values.mean()), low=first, high=last, num=len(values), method=method)


def _binomial_ends(num, hits, tail):
    low = 0.0 if hits == 0 else special.betaincinv(hits, num - hits + 1, tail)
    high = 1.0 if hits == num else special.betaincinv(hits + 1, num - hits, 1 - tail)
    return low, high


def _order_statistics(values, level):
    """The k-th lowest and k-th highest score with the largest k for which 2 P(Binomial(n, 1/2) < k) <= 1 - level."""
    size = len(values)
    tails = special.bdtr(np.arange(size), size, 0.5)
    num_outside = int((tails <= (1 - level) / 2).sum())
    if num_outside == 0:
        return _none(np.median(values), values, 'too few')
    low, high = np.sort(values)[[num_outside - 1, size - num_outside]]
    return Interval(
        point=float(np.median(values)), low=float(low), high=float(high), num=size, method='order statistics',
    )
