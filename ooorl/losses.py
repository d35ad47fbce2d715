"""Losses and targets: arrays in, arrays out, no networks and no parameters.

`backup` is the one place where a Bellman target is written, so that optimism (a bonus), caution (a floor for
irreversible successors) and value bounds compose with every critic.
"""

import jax.numpy as jnp

from ooorl.types import Array, Transition


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


def expectile_loss(difference: Array, expectile: float) -> Array:
    """`|expectile - 1(u < 0)| u^2`, elementwise; u is target minus prediction.

    A difference of exactly 0 has no gradient, so on which side it counts is immaterial.
    Source: Newey & Powell 1987; as used in IQL, arXiv:2110.06169, section 4.1.
    """
    return jnp.where(difference > 0, expectile, 1.0 - expectile) * difference**2


def awr_weight(advantage: Array, inverse_temperature: float, max_weight: float) -> Array:
    """`min(exp(inverse_temperature * advantage), max_weight)`; computed without overflow."""
    return jnp.exp(jnp.minimum(inverse_temperature * advantage, jnp.log(max_weight)))
