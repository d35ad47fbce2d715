"""The one collection loop: step an environment with a policy, keep every transition, count finished episodes.

It works for compiled environments (call it under `jit`) and for host environments (call it as it is, with a compiled policy):
the environment brings its own `scan`.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax

from ooorl.training.chunks import Queue, after_step, arrays_of, empty_queue, next_action
from ooorl.types import Array, Environment, Key, Metrics, State, Transition


class CollectState(NamedTuple):
    """Where collection stands: the environment's state, what to act on, and running sums of the episodes under way.

    `queue` holds what an agent that decides on several steps at once has decided on; None for all others.
    """

    environment: State
    observation: Array
    episode_return: Array
    episode_length: Array
    episode_success: Array
    queue: Queue | None = None


def start(environment: Environment, key: Key) -> CollectState:
    """Fresh episodes in every copy of the environment."""
    state, observation = environment.reset(key)
    xp, shape = arrays_of(environment), environment.batch_shape
    zeros = xp.zeros(shape, xp.float32)
    return CollectState(state, observation, zeros, zeros, xp.zeros(shape, bool))


def undecided(environment: Environment, state: CollectState, chunk: int) -> CollectState:
    """The state for an agent of this `chunk` that begins to act: nothing is decided on. It may have leading axes of its own."""
    return state._replace(queue=empty_queue(environment, chunk, state.episode_length.shape))


@partial(jax.jit, static_argnums=1)
def step_keys(key: Key, num_steps: int) -> tuple[Key, Key]:
    """Keys `[T]` to act with and keys `[T]` to step with."""
    keys = jax.vmap(jax.random.split)(jax.random.split(key, num_steps))
    return keys[:, 0], keys[:, 1]


def collect(
    environment: Environment,
    act: Callable[[Array, Key], Array],
    state: CollectState,
    key: Key,
    num_steps: int,
) -> tuple[CollectState, Transition, Metrics]:
    """Takes `num_steps` steps in every copy.

    Args:
      environment: what to step.
      act: `(observation[*batch, O], key) -> action[*batch, A]`, of an agent with chunks `[*batch, h * A]`; actions are clipped to
        the box before they are stored.
      state: from `start`, or the previous call; of an agent with chunks begun with `undecided`.
      key: consumed.
      num_steps: steps per copy.

    Returns:
      the new state; transitions `[T, *batch]` with `boundary` in extras; sums over the copies along the last batch axis of the
      episodes that ended: `num_episodes`, `return_sum`, `length_sum`, `num_successes`; with chunks also `num_steps` taken and
      `num_decisions` made, whether or not their episode ended.
    """
    return collect_keyed(environment, act, state, step_keys(key, num_steps))


def collect_keyed(
    environment: Environment, act: Callable[[Array, Key], Array], state: CollectState, keys: tuple[Key, Key]
) -> tuple[CollectState, Transition, Metrics]:
    """`collect` with keys `[T]` to act with and `[T]` to step with, for callers that make those of many calls at once."""
    xp = arrays_of(environment)

    def step(carry, keys):
        act_key, step_key = keys
        action, queue, decided = next_action(act, carry.queue, carry.observation, act_key, xp)
        action = xp.clip(action, -1.0, 1.0)
        environment_state, timestep = environment.step(carry.environment, action, step_key)
        ended = timestep.terminated | timestep.truncated
        episode_return = carry.episode_return + timestep.reward
        length = carry.episode_length + 1
        success = carry.episode_success | timestep.success
        transition = Transition(
            observation=carry.observation,
            action=action,
            reward=xp.asarray(timestep.reward, xp.float32),
            discount=xp.asarray(~timestep.terminated, xp.float32),
            next_observation=timestep.next_observation,
            extras={'boundary': xp.asarray(ended, xp.float32)},
        )
        finished = {
            'num_episodes': xp.asarray(ended, xp.float32),
            'return_sum': xp.where(ended, episode_return, 0.0),
            'length_sum': xp.where(ended, length, 0.0),
            'num_successes': xp.asarray(ended & success, xp.float32),
        }
        if decided is not None:
            finished |= {'num_decisions': xp.asarray(decided, xp.float32), 'num_steps': xp.ones(ended.shape, xp.float32)}
        carry = CollectState(
            environment_state,
            timestep.observation,
            xp.where(ended, 0.0, episode_return),
            xp.where(ended, 0.0, length),
            success & ~ended,
            after_step(queue, ended, xp),
        )
        return carry, (transition, finished)

    state, (transitions, finished) = environment.scan(step, state, keys)
    return state, transitions, {name: value.sum(axis=(0, -1)) for name, value in finished.items()}


def rows(transitions: Transition) -> Transition:
    """`[T, N]` as rows `[T * N]`, time-major, the order in which `replay` stores them."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), transitions)
