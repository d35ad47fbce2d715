"""Statistics over several tasks as rliable computes them, for comparison with papers that use it; and regret.

Intervals here are percentile intervals of a stratified bootstrap, seeds resampled within each task, drawn with a fixed seed,
so that a table can be rebuilt digit for digit. With few seeds they are too narrow: at a nominal 95 % they hold a mean in 84 %
of samples of five normal seeds and in 88 % of eight (docs/statistics.md). Everything else in this project therefore uses
`ooorl.reporting.intervals`; name these rliable's where you show them.

Source: Agarwal et al., "Deep RL at the Edge of the Statistical Precipice", NeurIPS 2021, arXiv:2108.13264 (interquartile mean,
stratified bootstrap, performance profile, probability of improvement).
"""

import numpy as np

from ooorl.errors import UsageError
from ooorl.reporting.intervals import Interval, iqm


def mean_of_runs(scores):
    """`[..., S, T] -> [...]`: the mean of all runs, which is also that of the task means."""
    return np.mean(scores, axis=(-2, -1))


def iqm_of_runs(scores):
    """`[..., S, T] -> [...]`: rliable's IQM, of all runs of all tasks together."""
    return iqm(np.reshape(scores, (*np.shape(scores)[:-2], -1)), axis=-1)


def median_of_task_means(scores):
    """`[..., S, T] -> [...]`: rliable's median: a mean over the seeds of each task, then the median task."""
    return np.median(np.mean(scores, axis=-2), axis=-1)


def median_of_runs(scores):
    """`[..., S, T] -> [...]`: the median of all runs of all tasks together, which is not rliable's median."""
    return np.median(scores, axis=(-2, -1))


def optimality_gap(scores, best):
    """`[..., S, T] -> [...]`: rliable's, how far the runs stay below `best` on average, those above it counting as at it."""
    return best - np.mean(np.minimum(scores, best), axis=(-2, -1))


def rliable_interval(scores, statistic=iqm_of_runs, *, level=0.95, num=5000, seed=0):
    """rliable's interval of an aggregate over all tasks: percentiles over seeds resampled within each task.

    Args:
      scores: `[S, T]`, one number a seed and task, on a scale that tasks share (normalised scores).
      statistic: `[..., S, T] -> [...]`; one of this module's.
      level: coverage it is meant to have; the module says what it has.
      num: bootstrap samples.
      seed: of the generator.
    """
    scores = _scores(scores, 2)
    _check(level, num)
    point = statistic(scores)
    refused = _refusal(scores, point)
    if refused is not None:
        return refused
    return _percentiles(point, statistic(_resample(scores, num, np.random.default_rng(seed))), level, len(scores))


def probability_of_improvement(x, y, *, level=0.95, num=2000, seed=0):
    """rliable's: how likely a seed of `x` beats one of `y`, P(x > y) + P(x = y) / 2, averaged over tasks.

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
    """rliable's: the fraction of runs above each threshold, with a pointwise stratified-bootstrap band.

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
    if (np.ptp(scores, axis=0) == 0).all():
        return Interval(point=float(point), low=np.nan, high=np.nan, num=num, method="all equal")
    return None


def _resample(scores, num, generator):
    """`[S, T] -> [num, S, T]`, seeds drawn with replacement within each task."""
    rows = generator.integers(len(scores), size=(num, *scores.shape))
    return np.take_along_axis(scores[None], rows, axis=1)


def _percentiles(point, samples, level, num):
    low, high = np.quantile(samples, ((1 - level) / 2, (1 + level) / 2))
    return Interval(point=float(point), low=float(low), high=float(high), num=num, method="bootstrap")
