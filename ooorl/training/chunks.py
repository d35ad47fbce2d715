"""Carrying out decisions of several steps: the queue of actions that an agent has decided on, written once for all loops.

An agent of `chunk` h answers an observation with the actions of h steps. A loop takes them one by one and asks again where none
is left or an episode has ended.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.errors import UsageError
from ooorl.types import Agent, Array, Environment, Key


class Queue(NamedTuple):
    """Actions decided on: `plan` `[*batch, h, A]`, the next one first, of which `left` `[*batch]` have not been taken yet."""

    plan: Array
    left: Array


def empty_queue(environment: Environment, chunk: int, shape: tuple[int, ...] | None = None) -> Queue | None:
    """A queue that nothing has been put in; None for agents that decide on every step.

    Args:
      environment: whose actions are queued.
      chunk: h.
      shape: leading axes; None: those of the environment.
    """
    if chunk == 1:
        return None
    shape, xp = environment.batch_shape if shape is None else shape, arrays_of(environment)
    return Queue(xp.zeros((*shape, chunk, environment.spec.action_dim), xp.float32), xp.zeros(shape, xp.int32))


def arrays_of(environment: Environment):
    """numpy for environments on the host, where each jax operation outside a program costs as much as a step."""
    return jnp if environment.compiled else np


def next_action(
    act: Callable[[Array, Key], Array], queue: Queue | None, observation: Array, key: Key, xp
) -> tuple[Array, Queue | None, Array | None]:
    """The action to take now, what is left to take, and where this was decided only now.

    Args:
      act: `(observation[*batch, O], key) -> [*batch, h * A]`, asked if any copy has nothing left, heeded for such copies only.
      queue: from `empty_queue` or the step before.
      observation: `[*batch, O]`.
      key: consumed.
      xp: numpy or jax.numpy, as the environment has it.

    Returns:
      `(action[*batch, A], queue, decided[*batch])`; the last two are None without a queue.
    """
    if queue is None:
        return xp.asarray(act(observation, key)), None, None
    decided = queue.left == 0

    def planned():
        return xp.asarray(act(observation, key)).reshape(queue.plan.shape)

    if xp is np:
        fresh = planned() if decided.any() else queue.plan
    else:
        fresh = jax.lax.cond(decided.any(), planned, lambda: queue.plan)
    plan = xp.where(decided[..., None, None], fresh, queue.plan)
    left = xp.where(decided, plan.shape[-2], queue.left) - 1
    return plan[..., 0, :], Queue(xp.roll(plan, -1, axis=-2), left), decided


def after_step(queue: Queue | None, ended: Array, xp) -> Queue | None:
    """The queue, emptied where an episode ended: what was decided in one is not carried out in the next."""
    return queue and queue._replace(left=xp.where(ended, 0, queue.left))


def receding(agent: Agent, steps: int) -> Agent:
    """Carries out the first `steps` = k of the steps that the agent decides on, then decides again.

    Learning is untouched: windows, targets and imitation are of whole chunks. To the loops the agent is one of chunks of k, whose
    decisions are the first k A numbers of the plan; with k = 1 it acts on every step. It stands around all of `ooorl.wrap`, also
    around `reranked`, which judges whole plans. With k = h it is the agent as it is.

    Values are those of whole chunks, which are not carried out any more; so there is no `q`. Cloning and distillation do not
    mind: RACTD plans 16 steps and takes one.

    Raises:
      UsageError: if a chunk has fewer steps.
    """
    if not isinstance(steps, int) or not 1 <= steps <= agent.chunk:
        raise UsageError(f'chunk_executed must lie between 1 and the chunk, {agent.chunk}; got {steps!r}')
    if steps == agent.chunk:
        return agent

    def first(act):
        def acted(state, observation, key):
            plan = act(state, observation, key)
            return jax.lax.slice_in_dim(plan, 0, plan.shape[-1] // agent.chunk * steps, axis=-1)

        return acted

    return replace(
        agent, sample_action=first(agent.sample_action), best_action=first(agent.best_action), chunk=steps, q=None,
    )
