"""Many copies of one compiled task, stepped together, with a time limit and automatic resets."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ooorl.errors import UsageError
from ooorl.types import Array, Environment, State, Task, TimeStep


class BatchedState(NamedTuple):
    """`task`: the copies' own states; `elapsed`: `[*batch_shape]` int32, steps since the last reset."""

    task: State
    elapsed: Array


def _check_batch_shape(batch_shape) -> tuple[int, ...]:
    shape = (batch_shape,) if isinstance(batch_shape, int) else tuple(batch_shape)
    if not shape or any(not isinstance(size, int) or size < 1 for size in shape):
        raise UsageError(f'batch_shape must be one or more positive integers; got {batch_shape!r}')
    return shape


def _mapped(function, axes: int):
    for _ in range(axes):
        function = jax.vmap(function)
    return function


def _step_copy(task: Task, state: BatchedState, action: Array, key: Array) -> tuple[BatchedState, TimeStep]:
    step_key, reset_key = jax.random.split(key)
    stepped, successor, reward, terminated, success = task.step(state.task, action, step_key)
    elapsed = state.elapsed + 1
    truncated = (elapsed >= task.horizon) & ~terminated
    ended = terminated | truncated
    # A reset is drawn in every step: under vmap both branches of a cond would run anyway.
    fresh, fresh_observation = task.reset(reset_key)
    following = jax.tree.map(lambda new, old: jnp.where(ended, new, old), fresh, stepped)
    timestep = TimeStep(
        observation=jnp.where(ended, fresh_observation, successor),
        next_observation=successor,
        reward=reward,
        terminated=terminated,
        truncated=truncated,
        success=success,
    )
    return BatchedState(following, jnp.where(ended, 0, elapsed)), timestep


def batched(task: Task, batch_shape: int | tuple[int, ...]) -> Environment:
    """Maps a task over copies and adds what `Task` leaves out: the time limit and automatic resets.

    An episode that reaches `task.horizon` without ending is truncated. Where an episode ended, `observation`
    is that of a new episode and `next_observation` the true successor.

    Args:
      task: what each copy does.
      batch_shape: number of copies N, or the leading axes of everything.

    Returns:
      A compiled environment; the keys given to `reset` and `step` are single keys, split over the copies.

    Raises:
      UsageError: if a size is not a positive integer.
    """
    shape = _check_batch_shape(batch_shape)

    def reset_copy(key):
        state, observation = task.reset(key)
        return BatchedState(state, jnp.zeros((), jnp.int32)), observation

    reset_all = _mapped(reset_copy, len(shape))
    step_all = _mapped(lambda state, action, key: _step_copy(task, state, action, key), len(shape))

    def keys(key):
        return jax.random.split(key, math.prod(shape)).reshape(shape)

    return Environment(
        spec=task.spec,
        horizon=task.horizon,
        batch_shape=shape,
        compiled=True,
        reset=lambda key: reset_all(keys(key)),
        step=lambda state, action, key: step_all(state, action, keys(key)),
        scan=jax.lax.scan,
        irreversible=task.irreversible,
    )
