"""Statistics over seeds: point estimates that come with an interval, or with the reason why there is none.

The unit is the seed: an episode is never a sample, average the episodes of a seed first. Bootstrap intervals
are percentile intervals over resampled seeds, drawn with a fixed generator seed, so a table can be rebuilt
digit for digit. Three cases have no honest bootstrap interval, and each says so in `Interval.method`:

* fewer than three seeds ("too few"): low and high are NaN; fewer than five warn;
* every value the same ("all equal"): resampling would return a width of zero and so claim a certainty that a
  few equal numbers do not give; low and high are NaN. A mean of zeros and ones is the exception: it gets the
  exact binomial interval ("clopper-pearson");
* a value that is not finite ("missing"): point, low and high are NaN. A seed that failed is not dropped.

Sources: Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 13 (percentile interval); Clopper &
Pearson, Biometrika 26, 1934; Agarwal et al., "Deep RL at the Edge of the Statistical Precipice", NeurIPS
2021, arXiv:2108.13264 (interquartile mean, stratified bootstrap, performance profile, probability of
improvement).
"""

import warnings
from dataclasses import dataclass

import numpy as np

from ooorl.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A point estimate and its interval.

    Attributes:
      point: the statistic of the sample itself.
      low: lower end, NaN where there is no interval.
      high: upper end, NaN where there is no interval.
      num: how many seeds it rests on.
      method: "bootstrap", "clopper-pearson", "too few", "all equal" or "missing".
    """

    point: float
    low: float
    high: float
    num: int
    method: str


def bootstrap_interval(values, statistic=np.mean, *, level=0.95, num=5000, seed=0, binary=None):
    """Interval of a statistic over seeds; see the module for the cases that have none.

    Args:
      values: `[S]`, one number a seed.
      statistic: `(values[..., S], axis=-1) -> [...]`; `np.mean`, `np.median`, `iqm`.
      level: coverage, in (0, 1).
      num: bootstrap samples.
      seed: of the generator.
      binary: whether a value is a yes or no. None decides by the values: all of them 0 or 1. Say False for
        scores that may be 0 or 1 by accident, such as returns. Only the mean has a binomial interval.
    """
    values = _scores(values, 1)
    _check(level, num)
    refused = _refusal(values[:, None], statistic(values, axis=-1))
    is_binary = bool(np.isin(values, (0.0, 1.0)).all()) if binary is None else binary
    if is_binary and not np.isin(values[np.isfinite(values)], (0.0, 1.0)).all():
        raise UsageError(f"binary=True needs values of 0 and 1; got {values.tolist()}; leave it out.")
    if is_binary and statistic is np.mean and (refused is None or refused.method == "all equal"):
        return _clopper_pearson(values, level)
    if refused is not None:
        return refused
    samples = values[np.random.default_rng(seed).integers(len(values), size=(num, len(values)))]
    return _percentiles(statistic(values, axis=-1), statistic(samples, axis=-1), level, len(values))


def iqm(values, axis=None):
    """Interquartile mean: the mean after dropping the lowest and the highest quarter, each rounded down."""
    values = np.asarray(values, np.float64)
    if axis is None:
        values, axis = values.reshape(-1), -1
    size = values.shape[axis]
    cut = size // 4
    middle = np.take(np.sort(values, axis=axis), np.arange(cut, size - cut), axis=axis)
    return middle.mean(axis=axis)


def stratified_bootstrap(scores, statistic=iqm, *, level=0.95, num=5000, seed=0):
    """Interval of an aggregate over all tasks, resampling seeds within each task.

    Args:
      scores: `[S, T]`, one number a seed and task, on a scale that tasks share (normalised scores).
      statistic: of all S * T numbers, called as in `bootstrap_interval`.
      level: coverage.
      num: bootstrap samples.
      seed: of the generator.
    """
    scores = _scores(scores, 2)
    _check(level, num)
    point = statistic(scores.reshape(-1), axis=-1)
    refused = _refusal(scores, point)
    if refused is not None:
        return refused
    samples = _resample(scores, num, np.random.default_rng(seed)).reshape(num, -1)
    return _percentiles(point, statistic(samples, axis=-1), level, len(scores))


def probability_of_improvement(x, y, *, level=0.95, num=2000, seed=0):
    """How likely a seed of `x` beats a seed of `y`: P(x > y) + P(x = y) / 2, averaged over tasks.

    Args:
      x: `[S]` or `[S, T]`.
      y: `[R]` or `[R, T]`; the seeds need not match.
      level: coverage.
      num: bootstrap samples.
      seed: of the generator.
    """
    x, y = (_scores(value, np.ndim(value)).reshape(len(value), -1) for value in (x, y))
    _check(level, num)
    if x.shape[1] != y.shape[1]:
        raise UsageError(
            f"both sides need the same tasks; got {x.shape[1]} and {y.shape[1]}; drop what one lacks."
        )

    def improvement(left, right):  # [..., S, T], [..., R, T] -> [...]
        return np.mean(
            [
                (np.sign(left[..., :, None, task] - right[..., None, :, task]) + 1).mean((-2, -1)) / 2
                for task in range(x.shape[1])
            ],
            axis=0,
        )

    finite = np.isfinite(x).all() and np.isfinite(y).all()
    point = improvement(x, y) if finite else np.nan
    smaller = x if len(x) <= len(y) else y
    refused = _refusal(smaller, point) if finite else _refusal(np.full_like(smaller, np.nan), point)
    # Equal values within a side are no obstacle here, a probability at an end of its range is.
    if refused is not None and refused.method != "all equal":
        return refused
    generator = np.random.default_rng(seed)
    samples = improvement(_resample(x, num, generator), _resample(y, num, generator))
    if np.ptp(samples) == 0:
        return Interval(point=float(point), low=np.nan, high=np.nan, num=len(smaller), method="all equal")
    return _percentiles(point, samples, level, len(smaller))


def performance_profile(scores, thresholds, *, level=0.95, num=2000, seed=0):
    """Fraction of runs that score above each threshold, with a pointwise stratified-bootstrap band.

    Args:
      scores: `[S, T]`.
      thresholds: `[K]`.
      level: coverage of the band.
      num: bootstrap samples.
      seed: of the generator.

    Returns:
      `(fraction[K], low[K], high[K])`; the band is NaN for fewer than three seeds. A score that is not finite
      is above no threshold: a failed run counts as failed.
    """
    scores, thresholds = _scores(scores, 2), np.asarray(thresholds, np.float64)
    _check(level, num)
    scores = np.where(np.isfinite(scores), scores, -np.inf)
    fraction = np.array([(scores > threshold).mean() for threshold in thresholds])
    if len(scores) < 3:
        return fraction, np.full_like(fraction, np.nan), np.full_like(fraction, np.nan)
    samples = _resample(scores, num, np.random.default_rng(seed)).reshape(num, -1)
    ends = [
        np.quantile((samples > threshold).mean(-1), ((1 - level) / 2, (1 + level) / 2))
        for threshold in thresholds
    ]
    low, high = np.array(ends).reshape(-1, 2).T
    return fraction, low, high


def paired_difference(x, y, *, level=0.95, num=5000, seed=0):
    """Interval of the mean of `x - y` where both share their seeds: pairs are resampled together.

    Args:
      x: `[S]`.
      y: `[S]`, in the same order of seeds.
      level: coverage.
      num: bootstrap samples.
      seed: of the generator.
    """
    x, y = _scores(x, 1), _scores(y, 1)
    if x.shape != y.shape:
        raise UsageError(
            f"a paired difference needs the same seeds on both sides; got {len(x)} and {len(y)}; "
            "use probability_of_improvement for unmatched seeds."
        )
    return bootstrap_interval(x - y, level=level, num=num, seed=seed, binary=False)


def regret(scores, env_steps, best=1.0):
    """Mean shortfall below `best` along a learning curve, by the trapezoid rule over environment steps.

    With success rates and `best=1` this is the fraction of the budget lost to failures; times the length of
    the budget it is the cumulative regret.

    Args:
      scores: `[..., K]` score at each evaluation.
      env_steps: `[K]`, increasing.
      best: the score of a perfect policy, in the units of `scores`.

    Returns:
      `[...]`, 0 for a curve that is at `best` throughout.
    """
    scores, env_steps = np.asarray(scores, np.float64), np.asarray(env_steps, np.float64)
    gaps = np.diff(env_steps)
    if len(gaps) == 0 or (gaps <= 0).any():
        raise UsageError(
            "regret needs at least two evaluations at increasing environment steps; "
            f"got {env_steps.tolist()}; pass one phase, sorted and without repeats."
        )
    shortfall = best - scores
    return ((shortfall[..., 1:] + shortfall[..., :-1]) / 2 * gaps).sum(-1) / gaps.sum()


def _scores(values, ndim):
    values = np.asarray(values, np.float64)
    if values.ndim != ndim or ndim not in (1, 2) or values.size == 0:
        needed = "[seeds]" if ndim == 1 else "[seeds, tasks]"
        raise UsageError(
            f"scores must be a non-empty array {needed}; got shape {values.shape}; average episodes first."
        )
    return values


def _check(level, num):
    if not 0 < level < 1 or num < 1:
        raise UsageError(
            f"level must be in (0, 1) and num positive; got level={level}, num={num}; try level=0.95."
        )


def _refusal(scores, point):
    """The interval of `scores[S, T]` where bootstrapping must not answer, else None."""
    num = len(scores)
    if not np.isfinite(scores).all():
        return Interval(point=np.nan, low=np.nan, high=np.nan, num=num, method="missing")
    if num < 3:
        return Interval(point=float(point), low=np.nan, high=np.nan, num=num, method="too few")
    if num < 5:
        warnings.warn(
            f"an interval over {num} seeds is too narrow to be relied on; use five or more", stacklevel=3
        )
    if (np.ptp(scores, axis=0) == 0).all():
        return Interval(point=float(point), low=np.nan, high=np.nan, num=num, method="all equal")
    return None


def _clopper_pearson(values, level):
    from scipy.special import betaincinv  # the beta quantile

    num, hits, tail = len(values), int(values.sum()), (1 - level) / 2
    low = 0.0 if hits == 0 else float(betaincinv(hits, num - hits + 1, tail))
    high = 1.0 if hits == num else float(betaincinv(hits + 1, num - hits, 1 - tail))
    return Interval(point=hits / num, low=low, high=high, num=num, method="clopper-pearson")


def _resample(scores, num, generator):
    """`[S, T] -> [num, S, T]`, seeds drawn with replacement within each task."""
    rows = generator.integers(len(scores), size=(num, *scores.shape))
    return np.take_along_axis(scores[None], rows, axis=1)


def _percentiles(point, samples, level, num):
    low, high = np.quantile(samples, ((1 - level) / 2, (1 + level) / 2))
    return Interval(point=float(point), low=float(low), high=float(high), num=num, method="bootstrap")
