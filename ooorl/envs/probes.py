"""Probe tasks: one or two steps long, each with a known answer, each able to catch one kind of mistake.

Run an agent on them in this order; the first that fails says where to look.
"""

import jax
import jax.numpy as jnp

from ooorl.types import Spec, Task


def _one_step(reward_of, draw_observation) -> Task:
    """A task that ends after one step with `reward_of(observation, action)`; the state is the observation."""

    def reset(key):
        observation = draw_observation(key)
        return observation, observation

    def step(state, action, key):
        del key
        reward = jnp.asarray(reward_of(state, action), jnp.float32)
        return state, state, reward, jnp.array(True), jnp.array(False)

    return Task(spec=Spec(observation_dim=1, action_dim=1), horizon=1, reset=reset, step=step)


def _zero(key):
    del key
    return jnp.zeros((1,), jnp.float32)


def _sign(key):
    return jnp.where(jax.random.bernoulli(key, 0.5, (1,)), 1.0, -1.0).astype(jnp.float32)


def probe_constant_reward() -> Task:
    """Reward 1 whatever happens: V(0) = Q(0, a) = 1. Fails if a value cannot be fitted at all."""
    return _one_step(lambda observation, action: 1.0, _zero)


def probe_observation_reward() -> Task:
    """Observation -1 or 1, drawn evenly, is the reward: V(o) = Q(o, a) = o. Fails if values ignore observations."""
    return _one_step(lambda observation, action: observation[0], _sign)


def probe_two_steps() -> Task:
    """Two steps, observations 0 then 1, reward 0 then 1: V(1) = 1 and V(0) = gamma. Fails if the backup is wrong."""

    def reset(key):
        observation = _zero(key)
        return observation, observation

    def step(state, action, key):
        del action, key
        last = state[0] > 0.5
        successor = jnp.ones((1,), jnp.float32)
        return successor, successor, last.astype(jnp.float32), last, jnp.array(False)

    return Task(spec=Spec(observation_dim=1, action_dim=1), horizon=2, reset=reset, step=step)


def probe_action_reward() -> Task:
    """Reward 1 - (a - 0.5)^2: Q(0, a) is the same, the best action 0.5, V(0) = 1.

    Fails if the policy does not improve.
    """
    return _one_step(lambda observation, action: 1.0 - (jnp.clip(action[0], -1.0, 1.0) - 0.5) ** 2, _zero)


def probe_action_and_observation_reward() -> Task:
    """Observation o is -1 or 1, reward 1 - (a - o/2)^2: Q(o, a) is the same, the best action o/2, V(o) = 1.

    Fails if the policy ignores observations.
    """
    return _one_step(
        lambda observation, action: 1.0 - (jnp.clip(action[0], -1.0, 1.0) - 0.5 * observation[0]) ** 2, _sign
    )
