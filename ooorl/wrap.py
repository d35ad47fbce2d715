"""Wrappers: functions from an agent to an agent that change what its updates see.

Stored data are raw; whatever a phase wants different is one of these, applied to the sampled batch. They nest in any order
that makes sense; the order used by configs, from the outside in, is

    labelled( normalised_observation( terminal_at_reward( rescaled_reward( value_bounds( chunked( cautious( bonus( agent ))))))))

What stands outside of `chunked` edits rows, what stands inside sees whole chunks as if they were actions.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ooorl.errors import UsageError
from ooorl.types import Agent, Array, Signal, State, Transition, ignore_data, sees_all
from ooorl.validation import check_choice, check_unit
from ooorl.windows import lived_steps, one_decision

CHUNK_ENDS = ('keep', 'drop')


def nested(agent: Agent, **changes) -> Agent:
    """An agent that keeps `agent`'s state as `state.agent` in one of its own, and asks it for whatever is not among `changes`."""

    def asked(function):
        return function and (lambda state, *args: function(state.agent, *args))

    def told(function):
        return function and (lambda state, given: state._replace(agent=function(state.agent, given)))

    kept = {name: asked(getattr(agent, name)) for name in ('sample_action', 'best_action', 'sees', 'q', 'decode')}
    kept |= {'observe': ignore_data if agent.observe is ignore_data else told(agent.observe), 'inherit': told(agent.inherit)}
    return replace(agent, **kept | changes)


class RelabelledState(NamedTuple):
    """State of an agent that listens to a signal."""

    agent: State
    signal: State


def relabelled(
    agent: Agent, signal: Signal, relabel: Callable[[Transition, Array], Transition], *, name: str = 'signal'
) -> Agent:
    """Trains the signal on every batch and lets `relabel(batch, score[B])` edit the batch before the agent learns from it.

    The score is never stored: it is computed anew for every minibatch with the signal's current state.

    Raises:
      UsageError: if the agent learns from windows, which a signal cannot score.
    """
    if agent.window > 1:
        raise UsageError('a signal scores what one decision does and belongs inside of chunked; got it outside; exchange the two')

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
        weighs=agent.weighs,
        decode=agent.decode and (lambda state, observation, noise: agent.decode(state.agent, observation, noise)),
        noise_dim=agent.noise_dim,
    )


def bonus(agent: Agent, signal: Signal, *, scale: float) -> Agent:
    """Optimism: adds `scale * score` to the Bellman target of every critic, after any clipping (see `losses.backup`)."""

    def relabel(batch, score):
        return with_extras(batch, bonus=batch.extras.get('bonus', 0.0) + scale * score)

    return relabelled(agent, signal, relabel, name='bonus')


def cautious(agent: Agent, signal: Signal, *, floor: float) -> Agent:
    """Pessimism: whatever cannot be taken back is worth `floor`, in the Bellman target of every critic (see `losses.backup`).

        w = label of the successor where it is known, else the signal's score clipped to [0, 1];   y' = (1 - w) y + w floor

    Labels are in the column `label` (1, 0, or -1 for unknown). w replaces a bonus as well, so that inside or outside of `bonus`
    an explorer seeks what is unknown unless there is no way back. The floor is in the agent's reward units: (R_min - eps) /
    (1 - gamma) is worse than anything reversible. Of several such wrappers the surest w counts, with the innermost's floor.

    Source: Xie et al., arXiv:2210.10765. Nothing is added to any policy's loss.
    """

    return relabelled(agent, signal, lambda batch, score: penalised(batch, score, floor), name='cautious')


def penalised(batch: Transition, score: Array, floor: float) -> Transition:
    """The batch as `cautious` gives it to its agent, for scores `[B]`."""
    score = jnp.clip(score, 0.0, 1.0)
    if 'label' in batch.extras:
        score = jnp.where(batch.extras['label'] >= 0, batch.extras['label'], score)
    surest = jnp.maximum(batch.extras.get('irreversible', 0.0), score)
    return with_extras(batch, irreversible=surest, floor=jnp.full_like(batch.reward, floor))


def labelled(agent: Agent, irreversible: Callable[[Array], Array]) -> Agent:
    """Labels every row by `irreversible(next_observation[..., O])`, an environment's own test: privileged, and outermost.

    The metric `privileged_labels` says how many each update took, which nobody was asked for.
    """

    def edit(batch):
        return with_extras(batch, label=irreversible(batch.next_observation).astype(jnp.float32))

    def update(state, batch, key):
        state, metrics = agent.update(state, edit(batch), key)
        return state, {**metrics, 'privileged_labels': jnp.float32(batch.reward.size)}

    return replace(edited(agent, edit), update=update)


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

    A bound of None comes from the smallest or largest (transformed) reward r in the store and needs gamma < 1 (or `UsageError`).
    A value is the sum of at least one discounted reward; the task may end after it or never, so it lies between

        low = min(r_min, r_min / (1 - gamma)),   high = max(r_max, r_max / (1 - gamma))

    Source: OOO's released retraining scripts, which write r / (1 - gamma) for both. That is the same for r_min <= 0 <= r_max, as
    in their mazes, kitchens and binary hand tasks; where all rewards are positive (negative) it would cut the values of episodes
    that end.
    """
    endless = isinstance(gamma, int | float) and gamma == 1
    if endless and None in (low, high):
        raise UsageError(f'bounds of values from rewards need gamma below 1; got 1 with low {low} and high {high}; give both')
    horizon = 0.0 if endless else 1.0 / (1.0 - gamma)  # where both are given, nobody reads it

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

    return nested(
        agent,
        init=lambda key: NormalisedState(agent.init(key), jnp.array(mean, jnp.float32), jnp.array(std, jnp.float32)),
        update=update,
        sample_action=lambda state, obs, key: agent.sample_action(state.agent, norm(state, obs), key),
        best_action=lambda state, obs, key: agent.best_action(state.agent, norm(state, obs), key),
        observe=ignore_data if agent.observe is ignore_data else observe,
        sees=lambda state, batch: agent.sees(state.agent, edit(state, batch)),
        q=agent.q and (lambda state, obs, action: agent.q(state.agent, norm(state, obs), action)),
        decode=agent.decode and (lambda state, obs, noise: agent.decode(state.agent, norm(state, obs), noise)),
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


def chunked(agent: Agent, length: int, *, gamma: float, ends: str = 'keep', backup_steps: int | None = None) -> Agent:
    """Decides on `length` = h steps at once: an action of the agent, of h A numbers, is that of h steps, one after another.

        y = R + gamma^h m v(s_{t+h}),    R = sum_{i<h} gamma^i r_{t+i},    m = prod_{i<h} d_{t+i}

    The agent learns from one row for each window of h rows: reward R, discount gamma^(h-1) m, so that the gamma of its own backup
    completes gamma^h, and the window's last successor and its label. That is unbiased as long as chunks are carried out whole,
    which collection and evaluation do. Other columns are those of the window's first row. With h = 1 it is the agent as it is.

    Windows of more rows, `backup_steps`, make the backup span them while h steps are decided on: with h = 1 that is the n-step
    return, biased by what the data did after the first h steps.

    A window that its episode's end cuts short holds no whole chunk. With `ends='drop'` it weighs 0, as published: an end is then
    learnt from the one window that ends with it, and an episode of fewer than h steps from none. With 'keep' it counts where the
    MDP ended (d = 0): R stops there, m = 0, and of the action, whose other steps are 0, only those carried out are imitated.
    Where the record goes on behind the MDP's end, as play does to which a task's rewards were given, the chunk is whole under
    both and m = 0; R stops there with 'keep' and goes on to the window's end with 'drop', as published: who leaves a goal at
    once pays for it.
    A window cut by a time-out or by the newest row of its stream weighs 0 under both: what came after h steps is not known.
    Losses are divided by all rows of a batch, whatever they weigh.

    Metrics: `chunk/weight`, mean weight of a window; `chunk/steps`, mean number of its steps.

    Args:
      agent: made for `Spec(O, h A)`, with losses that weigh their rows (`Agent.weighs`).
      length: h.
      gamma: the discount factor of one step, the agent's own.
      ends: 'keep' or 'drop'.
      backup_steps: rows of a window, at least h; None means h.

    Raises:
      UsageError: if the agent does not weigh rows, is chunked already, or needs what windows do not tell.

    Source: Li, Zhou & Levine, "Reinforcement Learning with Action Chunking", NeurIPS 2025, arXiv:2507.07969; 'drop' and the
    division are those of ColinQiyangLi/qam@f93efd2.
    """
    check_unit(gamma=gamma)
    check_choice(CHUNK_ENDS, chunk_ends=ends)
    rows = length if backup_steps is None else backup_steps
    _check_chunk(agent, length, rows)
    if rows == 1:
        return agent

    def update(state, windows, key):
        decided = one_decision(windows, gamma, ends, length)
        state, metrics = agent.update(state, decided, key)
        own = {'chunk/weight': decided.extras['weight'].mean(), 'chunk/steps': lived_steps(windows).sum(axis=-1).mean()}
        return state, metrics | own

    return replace(agent, update=update, chunk=length, window=rows, sees=sees_all)


def _check_chunk(agent, length, rows):
    if not isinstance(length, int) or length < 1:
        raise UsageError(f'a chunk must cover at least one step; got {length!r}')
    if not isinstance(rows, int) or rows < length:
        raise UsageError(f'backup_steps must be at least the chunk, {length}; got {rows!r}')
    if rows == 1:
        return
    if agent.window > 1:
        raise UsageError(f'chunked needs an agent of single steps; got one with chunks of {agent.chunk}; wrap it once')
    if not agent.weighs:
        raise UsageError(
            'chunks need an agent whose losses weigh their rows and a policy that leaves out what is not known of an action; got '
            "another; use the project's own agents and policies, say how yours does (Agent.weighs, Policy.masks), or chunks of 1"
        )
    if 'next_action' in agent.reads:
        raise UsageError('chunks have no next chunk to give; got an agent that reads next_action; set critic_cloning_weight to 0')
    if agent.observe is not ignore_data:
        raise UsageError('chunks are not stored, single steps are; got an agent that observes what is stored; use rnd, say')
