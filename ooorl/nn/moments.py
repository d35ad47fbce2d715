"""Running means and variances that stay right over very long runs in float32.

Batches are merged by the parallel-variance rule (Chan, Golub & LeVeque 1983) with the batch's population variance:

    w = n_batch / n,  mean += w * delta,  S += S_batch + delta^2 * w * n_before,  var = S / n

After 1e8 rows one batch moves the mean by less than a float32 ulp, so a plain sum would stop there. Every sum
therefore carries the remainder that rounding has cut off (Kahan) and adds it again with the next batch.
"""

from typing import NamedTuple

import jax.numpy as jnp

from ooorl.types import Array


class CompensatedSum(NamedTuple):
    """A float32 sum and what is still missing from it."""

    total: Array
    missing: Array


class RunningMoments(NamedTuple):
    """Count, mean and sum of squared deviations of everything absorbed so far."""

    count: CompensatedSum
    mean: CompensatedSum
    squares: CompensatedSum


def start(shape: tuple[int, ...] = (), count: float = 1e-4) -> RunningMoments:
    """Mean 0 and variance 1, worth `count` rows: `mean` and `variance` are `[*shape]`."""

    def filled(value, shape):
        return CompensatedSum(jnp.full(shape, value, jnp.float32), jnp.zeros(shape, jnp.float32))

    return RunningMoments(count=filled(count, ()), mean=filled(0.0, shape), squares=filled(count, shape))


def absorb(moments: RunningMoments, values: Array) -> RunningMoments:
    """Merges a batch `[B, *shape]`."""
    num = values.shape[0]
    batch_mean = values.mean(axis=0)
    batch_squares = ((values - batch_mean[None]) ** 2).sum(axis=0)
    count = _add(moments.count, num)
    delta = (batch_mean - moments.mean.total) - moments.mean.missing
    weight = num / count.total
    return RunningMoments(
        count=count,
        mean=_add(moments.mean, weight * delta),
        squares=_add(moments.squares, batch_squares + delta**2 * (weight * moments.count.total)),
    )


def mean(moments: RunningMoments) -> Array:
    """The mean `[*shape]`."""
    return moments.mean.total


def deviation(moments: RunningMoments, floor: float = 1e-8) -> Array:
    """The standard deviation `[*shape]`; variances below `floor` (constant dimensions) count as `floor`."""
    return jnp.sqrt(jnp.maximum(moments.squares.total / moments.count.total, floor))


def _add(running, increment):
    increment = increment + running.missing
    total = running.total + increment
    return CompensatedSum(total, increment - (total - running.total))
