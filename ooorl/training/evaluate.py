"""The one evaluation loop: whole episodes from fresh resets, each copy of the environment playing exactly one."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.training.collect import step_keys
from ooorl.types import Array, Environment, Key


class ScoreRange(NamedTuple):
    """What a normalised score speaks of: 100 * (x - low) / (high - low) of one of `evaluate`'s columns."""

    low: float
    high: float
    column: str = 'return'


def evaluate(environment: Environment, act: Callable[[Array, Key], Array], key: Key) -> dict[str, Array]:
    """Plays one episode in each copy, up to the environment's horizon, on the host until the last of them has ended.

    Args:
      environment: its last batch axis is the number of episodes.
      act: `(observation[*batch, O], key) -> action[*batch, A]`.
      key: consumed.

    Returns:
      `return`, `reward_max` (the largest reward of a step), `length` and `success` (0 or 1: the success test held at any
      step), each `[*batch]` float32.
    """
    reset_key, loop_key = jax.random.split(key)
    state, observation = environment.reset(reset_key)
    shape = environment.batch_shape
    xp = jnp if environment.compiled else np  # on the host each jax operation costs as much as a step
    zeros = xp.zeros(shape, xp.float32)
    start = (state, observation, xp.ones(shape, bool), zeros, zeros - xp.inf, zeros, xp.zeros(shape, bool))

    def step(carry, keys):
        state, observation, alive, total, best, length, success = carry
        act_key, step_key = keys
        action = xp.clip(xp.asarray(act(observation, act_key)), -1.0, 1.0)
        state, timestep = environment.step(state, action, step_key)
        total = total + xp.where(alive, timestep.reward, 0.0)
        best = xp.where(alive, xp.maximum(best, timestep.reward), best)
        length = length + alive
        success = success | (alive & timestep.success)
        alive = alive & ~(timestep.terminated | timestep.truncated)
        return (state, timestep.observation, alive, total, best, length, success), None

    # A compiled loop has a fixed length; on the host a step that no episode needs would only cost time.
    early = {} if environment.compiled else {'until': lambda carry: not carry[2].any()}
    carry, _ = environment.scan(step, start, step_keys(loop_key, environment.horizon), **early)
    _, _, _, total, best, length, success = carry
    return {'return': total, 'reward_max': best, 'length': length, 'success': xp.asarray(success, xp.float32)}


def with_normalised(scores: Mapping, score_range: ScoreRange | None) -> dict:
    """The scores, and `normalised` where there is a range; nothing is clipped."""
    if score_range is None:
        return dict(scores)
    low, high, column = score_range
    return {**scores, 'normalised': 100.0 * (scores[column] - low) / (high - low)}
