"""Wrappers: functions from an agent to an agent that change what its updates see.

Stored data are raw; whatever a phase wants different is one of these, applied to the sampled batch. They nest in any order
that makes sense; the order used by configs, from the outside in, is

    normalised_observation( terminal_at_reward( rescaled_reward( value_bounds( bonus( agent )))))
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ooorl.errors import UsageError
from ooorl.types import Agent, Array, Signal, State, Transition, ignore_data


class RelabelledState(NamedTuple):
    """State of an agent that listens to a signal."""

    agent: State
    signal: State


def relabelled(
    agent: Agent, signal: Signal, relabel: Callable[[Transition, Array], Transition], *, name: str = 'signal'
) -> Agent:
    """Trains the signal on every batch and lets `relabel(batch, score[B])` edit the batch before the agent learns from it.

    The score is never stored: it is computed anew for every minibatch with the signal's current state.
    """

    def init(key):
        agent_key, signal_key = jax.random.split(key)
        return RelabelledState(agent.init(agent_key), signal.init(signal_key))

    def update(state, batch, key):
        agent_key, signal_key = jax.random.split(key)
        signal_state, score, signal_metrics = signal.update(state.signal, batch, signal_key)
        score = jax.lax.stop_gradient(score)
        agent_state, metrics = agent.update(state.agent, relabel(batch, score), agent_key)
        own = {f'{name}/mean': score.mean()} | {f'{name}/{k}': v for k, v in signal_metrics.items()}
        return RelabelledState(agent_state, signal_state), metrics | own

    def observe(state, transitions):
        return RelabelledState(agent.observe(state.agent, transitions), signal.observe(state.signal, transitions))

    quiet = agent.observe is ignore_data and signal.observe is ignore_data
    return Agent(
        init=init,
        update=update,
        sample_action=lambda state, observation, key: agent.sample_action(state.agent, observation, key),
        best_action=lambda state, observation, key: agent.best_action(state.agent, observation, key),
        observe=ignore_data if quiet else observe,
        reads=agent.reads,
        sees=lambda state, batch: agent.sees(state.agent, relabel(batch, signal.score(state.signal, batch))),
        q=agent.q and (lambda state, observation, action: agent.q(state.agent, observation, action)),
    )


def bonus(agent: Agent, signal: Signal, *, scale: float) -> Agent:
    """Optimism: adds `scale * score` to the Bellman target of every critic, after any clipping (see `losses.backup`)."""

    def relabel(batch, score):
        return with_extras(batch, bonus=batch.extras.get('bonus', 0.0) + scale * score)

    return relabelled(agent, signal, relabel, name='bonus')


def with_extras(batch: Transition, **columns: Array) -> Transition:
    """The batch with columns `[B]` added to, or replaced in, its extras."""
    return batch._replace(extras={**batch.extras, **columns})


def edited(agent: Agent, edit: Callable[[Transition], Transition], *, reads: tuple[str, ...] = ()) -> Agent:
    """The agent learning from `edit(batch)`; acting and what is told of new data stay as they are."""
    return replace(
        agent,
        update=lambda state, batch, key: agent.update(state, edit(batch), key),
        reads=tuple(dict.fromkeys((*agent.reads, *reads))),
        sees=lambda state, batch: agent.sees(state, edit(batch)),
    )


def rescaled_reward(agent: Agent, *, scale: float = 1.0, shift: float = 0.0) -> Agent:
    """r' = scale * r + shift on the sampled batch, and everything in reward units with it.

    `return_to_go` becomes `scale * R + shift * H` with H = `discounted_horizon`; `reward_low` and `reward_high` move like r.

    Raises:
      UsageError: if scale is not greater than 0.
    """
    if isinstance(scale, int | float) and scale <= 0:
        raise UsageError(f'scale of the reward must be greater than 0; got {scale}')

    def edit(batch):
        extras = dict(batch.extras)
        for name in ('reward_low', 'reward_high'):
            if name in extras:
                extras[name] = scale * extras[name] + shift
        if 'return_to_go' in extras:
            extras['return_to_go'] = scale * extras['return_to_go'] + shift * extras['discounted_horizon']
        return batch._replace(reward=scale * batch.reward + shift, extras=extras)

    return edited(agent, edit, reads=('discounted_horizon',) if 'return_to_go' in agent.reads else ())


def terminal_at_reward(agent: Agent, *, reward: float) -> Agent:
    """d = 0 exactly where the raw reward equals `reward`, else 1, whatever the data's own terminals say.

    Kitchen needs it: demonstrations end with terminal marks although only a reward of 4 ends the task.
    """
    return edited(agent, lambda batch: batch._replace(discount=(batch.reward != reward).astype(batch.discount.dtype)))


def value_bounds(agent: Agent, *, gamma: float, low: float | None = None, high: float | None = None) -> Agent:
    """Clips Bellman targets and the targets of value regressions to [low, high].

    A bound of None comes from the smallest or largest (transformed) reward r in the store. A value is the sum of at least one
    discounted reward; the task may end after it or never, so it lies between

        low = min(r_min, r_min / (1 - gamma)),   high = max(r_max, r_max / (1 - gamma))

    Source: OOO's released retraining scripts, which write r / (1 - gamma) for both. That is the same for r_min <= 0 <= r_max, as
    in their mazes, kitchens and binary hand tasks; where all rewards are positive (negative) it would cut the values of episodes
    that end.
    """
    horizon = 1.0 / (1.0 - gamma)

    def edit(batch):
        def bound(given, outer, name):
            if given is not None:
                return jnp.full_like(batch.reward, given)
            return outer(batch.extras[name], batch.extras[name] * horizon)

        least, most = bound(low, jnp.minimum, 'reward_low'), bound(high, jnp.maximum, 'reward_high')
        return with_extras(batch, value_low=least, value_high=most)

    needed = tuple(n for n, bound in (('reward_low', low), ('reward_high', high)) if bound is None)
    return edited(agent, edit, reads=needed)


class NormalisedState(NamedTuple):
    """An agent's state beside the statistics its observations are normalised with."""

    agent: State
    mean: Array
    std: Array


def normalised_observation(agent: Agent, mean: Array, std: Array) -> Agent:
    """o' = (o - mean) / std for learning and for acting; the statistics are part of the state, hence of every checkpoint."""

    def norm(state, observation):
        centre, scale = (jnp.broadcast_to(x, observation.shape) for x in (state.mean, state.std))
        return (observation - centre) / scale

    def edit(state, batch):
        return batch._replace(
            observation=norm(state, batch.observation), next_observation=norm(state, batch.next_observation)
        )

    def update(state, batch, key):
        inner, metrics = agent.update(state.agent, edit(state, batch), key)
        return state._replace(agent=inner), metrics

    def observe(state, transitions):
        return state._replace(agent=agent.observe(state.agent, edit(state, transitions)))

    return replace(
        agent,
        init=lambda key: NormalisedState(agent.init(key), jnp.array(mean, jnp.float32), jnp.array(std, jnp.float32)),
        update=update,
        sample_action=lambda state, obs, key: agent.sample_action(state.agent, norm(state, obs), key),
        best_action=lambda state, obs, key: agent.best_action(state.agent, norm(state, obs), key),
        observe=ignore_data if agent.observe is ignore_data else observe,
        sees=lambda state, batch: agent.sees(state.agent, edit(state, batch)),
        q=agent.q and (lambda state, obs, action: agent.q(state.agent, norm(state, obs), action)),
    )


def reranked(
    agent: Agent, q: Callable[[State, Array, Array], Array], *, num_candidates: int, collecting: bool = False
) -> Agent:
    """Acts with the best of `num_candidates` draws of the agent under `q(state, observation, action) -> [...]`.

    Learning is untouched. With one candidate, the deployed action is a draw of the agent's policy. Data are collected with
    single draws, or if `collecting` with the best of several as well. Over `iql` with a policy that imitates without weights
    this is IDQL (a diffusion policy) or IFQL (a flow policy).

    Raises:
      UsageError: if there are no candidates.
    """
    if num_candidates < 1:
        raise UsageError(f'reranked needs at least one candidate to act with; got num_candidates = {num_candidates}')

    def best_action(state, observation, key):
        keys = jax.random.split(key, num_candidates)
        candidates = jax.vmap(lambda k: agent.sample_action(state, observation, k))(keys)  # [N, ..., A]
        values = jax.vmap(lambda action: q(state, observation, action))(candidates)  # [N, ...]
        best = values.argmax(axis=0)
        return jnp.take_along_axis(candidates, best[None, ..., None], axis=0)[0]

    return replace(agent, best_action=best_action, sample_action=best_action if collecting else agent.sample_action)
