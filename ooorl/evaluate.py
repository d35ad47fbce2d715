"""The one evaluation loop: whole episodes from fresh resets, each copy of the environment playing exactly one."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ooorl.types import Array, Environment, Key


def evaluate(environment: Environment, act: Callable[[Array, Key], Array], key: Key) -> dict[str, Array]:
    """Plays one episode in each copy, up to the environment's horizon.

    Args:
      environment: its last batch axis is the number of episodes.
      act: `(observation[*batch, O], key) -> action[*batch, A]`.
      key: consumed.

    Returns:
      `return`, `length` (float32) and `success` (0 or 1: the success test held at any step), each `[*batch]`.
    """
    reset_key, loop_key = jax.random.split(key)
    state, observation = environment.reset(reset_key)
    shape = environment.batch_shape
    start = (state, observation, jnp.ones(shape, bool), jnp.zeros(shape), jnp.zeros(shape), jnp.zeros(shape, bool))

    def step(carry, key):
        state, observation, alive, total, length, success = carry
        act_key, step_key = jax.random.split(key)
        action = jnp.clip(act(observation, act_key), -1.0, 1.0)
        state, timestep = environment.step(state, action, step_key)
        total = total + jnp.where(alive, timestep.reward, 0.0)
        length = length + alive
        success = success | (alive & timestep.success)
        alive = alive & ~(timestep.terminated | timestep.truncated)
        return (state, timestep.observation, alive, total, length, success), None

    carry, _ = environment.scan(step, start, jax.random.split(loop_key, environment.horizon))
    _, _, _, total, length, success = carry
    return {'return': total, 'length': length, 'success': jnp.asarray(success, jnp.float32)}
