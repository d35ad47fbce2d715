"""Losses and targets: arrays in, arrays out, no networks and no parameters.

`backup` is the one place where a Bellman target is written, so that optimism (a bonus), caution (a floor for
irreversible successors) and value bounds compose with every critic.
"""

import jax
import jax.numpy as jnp

from ooorl.types import Array, Transition
from ooorl.validation import check_choice


def backup(batch: Transition, next_value: Array, gamma: float) -> Array:
    """The Bellman target

        y = (1 - w) * [ clip(r + gamma * d * v', low, high) + bonus ] + w * floor

    `bonus` and w = `irreversible` are read from `batch.extras` and default to 0; `floor` must come with w;
    low = `value_low` and high = `value_high` default to -inf and +inf. The bonus is added after the clipping, not
    discounted, also on terminal rows, as OOO's released code does.

    Args:
      batch: reward, discount and extras, each `[B]`.
      next_value: `[..., B]` value of the successor; leading axes (an ensemble) are kept.
      gamma: discount factor in [0, 1).

    Returns:
      `[..., B]`.
    """
    extras = batch.extras

    def column(values):
        return jnp.broadcast_to(values, next_value.shape)

    target = bounded(batch, column(batch.reward) + gamma * column(batch.discount) * next_value)
    target = target + column(extras.get('bonus', 0.0))
    if 'irreversible' in extras:
        irreversible = column(extras['irreversible'])
        target = (1.0 - irreversible) * target + irreversible * column(extras['floor'])
    return target


def bounded(batch: Transition, value: Array) -> Array:
    """Clips values to the batch's `value_low` and `value_high` where a `value_bounds` wrapper has put them there."""
    if 'value_low' not in batch.extras:
        return value
    low, high = (jnp.broadcast_to(batch.extras[name], value.shape) for name in ('value_low', 'value_high'))
    return jnp.clip(value, low, high)


def weighted(batch: Transition, loss: Array) -> Array:
    """Losses `[..., B]` times the batch's `weight` `[B]`, where it has one; the caller averages over all B rows.

    For losses that read a row's action or what came of it. What climbs Q at an observation reads neither.
    """
    if 'weight' not in batch.extras:
        return loss
    return loss * jnp.broadcast_to(batch.extras['weight'], loss.shape)


def summed(terms: Array, known: Array | None = None) -> Array:
    """Terms `[..., A]` summed over A: all of them, or those that `known` `[..., A]` marks with 1 and not 0."""
    return (terms if known is None else terms * known).sum(axis=-1)


def expectile_loss(difference: Array, expectile: float) -> Array:
    """`|expectile - 1(u < 0)| u^2`, elementwise; u is target minus prediction.

    A difference of exactly 0 has no gradient, so on which side it counts is immaterial.
    Source: Newey & Powell 1987; as used in IQL, arXiv:2110.06169, section 4.1.
    """
    return jnp.where(difference > 0, expectile, 1.0 - expectile) * difference**2


AGGREGATES = ('min', 'mean', 'lower')


def ensemble_value(q: Array, aggregate: str, rho: float = 0.5) -> Array:
    """One value from those of an ensemble, `[E, ...] -> [...]`.

        min: min_e q_e;   mean: mean_e q_e;   lower: mean_e q_e - rho * std_e q_e      (population deviation)

    The gradient of the minimum goes to the first smallest member.

    Raises:
      UsageError: if `aggregate` is none of these.
    """
    check_choice(AGGREGATES, aggregate=aggregate)
    if aggregate == 'lower':
        return q.mean(axis=0) - rho * _deviation(q)
    if aggregate == 'mean':
        return q.mean(axis=0)
    return _smallest(q)


def _deviation(q):
    """`q.std(axis=0)`, without its infinite slope where all members agree."""
    variance = q.var(axis=0)
    return jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1.0)), 0.0)


@jax.custom_jvp
def _smallest(q):
    """`q.min(axis=0)`, whose own gradient would find the member again by comparing floats.

    Where the compiler rounds the two sides differently, that finds another one or none (seen on CPU, on a fifth of the rows).
    """
    return q.min(axis=0)


@_smallest.defjvp
def _slope_of_smallest(primals, tangents):
    place = primals[0].argmin(axis=0)[None]
    return tuple(jnp.take_along_axis(values[0], place, axis=0)[0] for values in (primals, tangents))


def awr_weight(advantage: Array, inverse_temperature: float, max_weight: float) -> Array:
    """`min(exp(inverse_temperature * advantage), max_weight)`; computed without overflow."""
    return jnp.exp(jnp.minimum(inverse_temperature * advantage, jnp.log(max_weight)))


def conservative_gap(q_data: Array, q_sampled: Array, log_density: Array | None, temperature: float = 1.0) -> Array:
    """How far a soft maximum of Q over actions lies above the value of the data's action; CQL makes it small.

        gap = temperature * log sum_n exp(x_n / temperature) - q_data

    With densities, x_n = q_sampled_n - log_density_n, which estimates log of the integral of exp(Q) over actions (up to the
    constant log N). Without, the x_n are the plain values and q_data is one more of them, so the gap is never negative.

    Args:
      q_data: `[E, B]` values of the data's actions.
      q_sampled: `[E, N, B]` values of sampled actions.
      log_density: `[N, B]` log-density with which each action was drawn, or None.
      temperature: of the soft maximum.

    Returns:
      `[E, B]`.

    Source: Kumar et al., arXiv:2006.04779; nakamotoo/Cal-QL@ac6eafe.
    """
    if log_density is None:
        entries = jnp.concatenate([q_sampled, q_data[:, None]], axis=1)
    else:
        entries = q_sampled - log_density[None]
    return temperature * jax.nn.logsumexp(entries / temperature, axis=1) - q_data


def calibrated(q_sampled: Array, return_to_go: Array) -> Array:
    """Raises values of sampled actions to the data's own return, so that pessimism stops there.

    q[e, n, b] becomes max(q[e, n, b], return_to_go[b]); where the bound is active the gradient is 0.

    Args:
      q_sampled: `[E, N, B]` values of actions drawn from the current policy.
      return_to_go: `[B]` discounted return observed after each state, in the units of Q; NaN means unknown: no bound.

    Source: Nakamoto et al., "Cal-QL", NeurIPS 2023, arXiv:2303.05479.
    """
    bound = jnp.broadcast_to(return_to_go, q_sampled.shape)
    return jnp.where(q_sampled < bound, bound, q_sampled)
