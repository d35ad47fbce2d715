"""How far a detector's probabilities can be believed: reliability, AUROC, and false alarms at a threshold.

`tallied` makes a signal count the same while it learns, for reports. All other functions take `score` `[n]` and `label` `[n]` (1
irreversible, 0 reversible; rows with any other label are left out) and return plain numbers; NaN where a class is missing.
"""

from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ooorl.errors import UsageError
from ooorl.types import Array, Signal

BINS = 10  # of `tally`


class Reliability(NamedTuple):
    """A reliability curve, one entry for each bin of scores that holds rows.

    Attributes:
      predicted: mean score.
      observed: share of irreversible rows.
      rows: how many.
    """

    predicted: np.ndarray
    observed: np.ndarray
    rows: np.ndarray


class Calibration(NamedTuple):
    """What is reported of a detector.

    Attributes:
      auroc: probability that an irreversible row scores above a reversible one, ties counting half.
      expected_error: mean over rows of |observed - predicted| of their bin.
      false_alarms: share of reversible rows above the threshold.
      detected: share of irreversible rows above it.
      curve: the reliability curve.
    """

    auroc: float
    expected_error: float
    false_alarms: float
    detected: float
    curve: Reliability


def _judged(score, label):
    score, label = np.asarray(score, np.float64).reshape(-1), np.asarray(label).reshape(-1)
    if score.shape != label.shape:
        raise UsageError(f'calibration needs a label for each score; got {score.size} scores and {label.size} labels')
    known = (label == 0) | (label == 1)
    return score[known], label[known] == 1


def auroc(score: np.ndarray, label: np.ndarray) -> float:
    """Area under the curve of detected over false alarms, from ranks; ties count half."""
    score, bad = _judged(score, label)
    if bad.all() or not bad.any():
        return float('nan')
    good, total = np.sort(score[~bad]), 0.0
    below, upto = np.searchsorted(good, score[bad], 'left'), np.searchsorted(good, score[bad], 'right')
    total = (below + upto).sum() / 2.0
    return float(total / (bad.sum() * good.size))


def alarm_rates(score: np.ndarray, label: np.ndarray, threshold: float) -> tuple[float, float]:
    """(share of reversible rows above the threshold, share of irreversible ones); above is strict."""
    score, bad = _judged(score, label)
    alarm = score > threshold
    return tuple(float(alarm[rows].mean()) if rows.any() else float('nan') for rows in (~bad, bad))


def reliability(score: np.ndarray, label: np.ndarray, bins: int = 10) -> Reliability:
    """The reliability curve over `bins` equal bins of [0, 1]; empty bins are left out.

    Raises:
      UsageError: if a score is no probability.
    """
    score, bad = _judged(score, label)
    if score.size and not (score.min() >= 0 and score.max() <= 1):
        raise UsageError(f'reliability needs scores in [0, 1]; got {score.min():.3g} to {score.max():.3g}; rescale them')
    place = np.minimum((score * bins).astype(int), bins - 1)
    rows = np.bincount(place, minlength=bins)
    kept = rows > 0
    predicted, observed = (np.bincount(place, weights=x, minlength=bins)[kept] / rows[kept] for x in (score, bad))
    return Reliability(predicted, observed, rows[kept])


def calibration(score: np.ndarray, label: np.ndarray, threshold: float = 0.5, bins: int = 10) -> Calibration:
    """Everything at once."""
    curve = reliability(score, label, bins)
    error = float(np.average(np.abs(curve.observed - curve.predicted), weights=curve.rows)) if curve.rows.size else float('nan')
    return Calibration(auroc(score, label), error, *alarm_rates(score, label, threshold), curve)


def tally(score: Array, label: Array) -> dict[str, Array]:
    """Shares of a batch's rows by class and bin of the score, `reversible_in_0` to `irreversible_in_9`, as metrics.

    Their means over updates are a histogram of all rows with a known label, from which `reporting.assistance` draws the curve.
    """
    place = jnp.clip((score * BINS).astype(jnp.int32), 0, BINS - 1)
    classes = {'reversible': label == 0, 'irreversible': label == 1}
    return {f'{name}_in_{k}': ((place == k) & rows).mean() for name, rows in classes.items() for k in range(BINS)}


def tallied(signal: Signal) -> Signal:
    """The signal with `tally` among its metrics, where a batch has a column `label`."""

    def update(state, batch, key):
        state, score, metrics = signal.update(state, batch, key)
        label = batch.extras.get('label')
        return state, score, metrics if label is None else metrics | tally(score, label)

    return replace(signal, update=update)
