"""The one training loop: many updates of an agent on batches drawn from stores, as a single compiled scan."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ooorl.errors import UsageError
from ooorl.training import episodes
from ooorl.training.loops import loop_part, packed, unpacked
from ooorl.training.replay import (
    Marks,
    ReplayState,
    View,
    capacity,
    in_proportion,
    mark_more,
    marked,
    newer_rows,
    sample_views,
    shares,
    view,
    where,
)
from ooorl.training.sampling import Sampling
from ooorl.training.selection import Worth, row_weights, worth
from ooorl.types import Agent, Array, Metrics, State, Transition
from ooorl.wrap import with_extras

SOURCES = {'dataset': 0.0, 'online': 1.0}  # the column `source`, for agents that read it
COMPUTED = ('return_to_go', 'discounted_horizon', 'next_action', 'reward_low', 'reward_high')


def make_learn(
    agent: Agent, sampling: Sampling, *, num_updates: int, streams: Mapping[str, int]
) -> Callable[[State, dict[str, ReplayState], jax.Array], tuple[State, Metrics]]:
    """Builds `learn(state, sources, key) -> (state, metrics)`: `num_updates` updates, metrics averaged over them.

    The function is pure and not yet compiled; it can be jitted, mapped over seeds or placed inside a larger scan. What takes a
    pass over all rows, the columns that the agent `reads` and where the successes are, is computed once per call, unless it is
    handed in as a fourth argument, `known`: what `know` and `keep_up` say of each source.

    Args:
      agent: what learns.
      sampling: how batches are drawn.
      num_updates: length of the scan.
      streams: for each source, from how many environments its rows were collected side by side (1 for a data set).
    """

    def learn(state, sources, key, known=None):
        batch_keys, update_keys = _step_keys(key, num_updates)
        return _updates(agent, state, (batch_keys, update_keys), _draw_from(agent, sources, known, streams, sampling))

    return learn


def make_learn_part(
    agent: Agent, sampling: Sampling, *, num_updates: int, streams: Mapping[str, int]
) -> Callable[[State, dict[str, ReplayState], jax.Array, Array, Array], tuple[State, Metrics]]:
    """Builds `learn(state, sources, key, first, count) -> (state, rows)`: a part of what `make_learn` does.

    It makes the updates `first` to `first + count - 1` of the `num_updates`. `rows` are their packed metrics,
    `[num_updates, ...]`, of which the first `count` count. See `loop_part` on why parts of any length are as good as the whole.
    """

    def learn(state, sources, key, first, count):
        step = _step(agent, _draw_from(agent, sources, None, streams, sampling))
        return loop_part(step, state, _step_keys(key, num_updates), first, count)

    return learn


def make_learn_ahead(
    agent: Agent, sampling: Sampling, *, num_updates: int, streams: Mapping[str, int]
) -> tuple[Callable, Callable]:
    """The same in two parts, for callers that must keep the sources out of what they map over seeds.

    Returns:
      `draw(sources, key, known=None) -> drawn`: all batches of the updates at once, in memory together.
      `learn(state, drawn) -> (state, metrics)`; `learn(state, draw(sources, key))` is what `make_learn` computes.
    """

    def draw(sources, key, known=None):
        batch_keys, update_keys = _step_keys(key, num_updates)
        return jax.vmap(_draw_from(agent, sources, known, streams, sampling))(batch_keys), update_keys

    def learn(state, drawn):
        return _updates(agent, state, drawn, lambda batch: batch)

    return draw, learn


def _step_keys(key, num):
    """`num` keys to draw with and `num` to update with."""
    pairs = jax.vmap(jax.random.split)(jax.random.split(key, num))
    return pairs[:, 0], pairs[:, 1]


def _step(agent, batch_of):
    def step(state, inputs):
        drawn, update_key = inputs
        state, metrics = agent.update(state, batch_of(drawn), update_key)
        return state, packed(metrics)

    return step


def _updates(agent, state, inputs, batch_of):
    state, metrics = jax.lax.scan(_step(agent, batch_of), state, inputs)
    return state, unpacked(jax.tree.map(lambda values: values.mean(axis=0), metrics))


def _draw_from(agent, sources, known, streams, sampling):
    known = known or {name: know(source, streams[name], agent.reads, sampling) for name, source in sources.items()}
    columns = {name: own.columns for name, own in known.items()}
    if 'source' in agent.reads:
        columns = {name: {**own, 'source': jnp.full(capacity(sources[name]), SOURCES[name])} for name, own in columns.items()}
    sources = {name: own._replace(storage=with_extras(own.storage, **columns[name])) for name, own in sources.items()}
    _check_columns(agent, sources)
    windows = {} if agent.window == 1 else {'length': agent.window, 'streams': tuple(streams[name] for name in sources)}
    return _batches(sources, known, sampling, windows)


def _check_columns(agent, sources):
    for name, source in sources.items():
        missing = [c for c in agent.reads if c not in source.storage.extras and not c.startswith('reward_')]
        if missing:
            raise UsageError(
                f'the agent reads batch.extras[{missing[0]!r}], but {name} stores only {sorted(source.storage.extras)}; '
                'add the column to the data'
            )


class Known(NamedTuple):
    """What takes a pass over a source: computed `columns` `[capacity]`, where successes are, and the range of rewards.

    Each only where somebody needs it; what its episodes are `worth` only where they are weighed.
    """

    columns: dict[str, Array]
    wins: Marks | None
    rewards: dict[str, Array]
    worth: Worth | None = None


def needs_passes(agent: Agent, sampling: Sampling) -> bool:
    """Whether there is anything to know of a source."""
    return bool(sampling.success_rows or sampling.weighting != 'none' or set(COMPUTED) & set(agent.reads))


def know(source: ReplayState, num_streams: int, reads: tuple[str, ...], sampling: Sampling) -> Known:
    """What all rows of a source say together, by a pass over them."""
    visible = _visible(source, num_streams)
    wins = marked(_padded(_won(visible, sampling), capacity(source), False)) if sampling.success_rows else None
    rewards = {}
    if {'reward_low', 'reward_high'} & set(reads):
        rewards = _reward_range(source.storage.reward, jnp.arange(capacity(source)) < source.size)
    seen = None
    if sampling.weighting != 'none':
        seen = worth(visible.reward, visible.boundary, visible.valid, source.storage.observation)
    return Known(_columns(source, num_streams, visible, reads, sampling), wins, rewards, seen)


def keep_up(
    known: Known, source: ReplayState, num_new: int, num_streams: int, horizon: int, reads: tuple[str, ...], sampling: Sampling
) -> Known:
    """`know` of a source whose newest `num_new` rows were not there when it became `known`, from the rows near its end.

    No episode may be longer than `horizon`, and nothing may have been overwritten: then the new rows change nothing further
    back. Returns are sums over the rows looked at, and so may differ from those of `know` in their last digits.
    """
    rows = min(capacity(source) // num_streams, horizon + -(-num_new // num_streams)) * num_streams
    last = (capacity(source) // num_streams * num_streams) - rows
    first = jnp.clip((source.size // num_streams) * num_streams - rows, 0, last)

    def window(leaf):
        return jax.lax.dynamic_slice_in_dim(leaf, first, rows)

    # Nothing was overwritten: the newest row is the window's last one, as if it were a buffer just filled.
    seen = ReplayState(jax.tree.map(window, source.storage), jnp.zeros_like(source.cursor), source.size - first)
    visible = _visible(seen, num_streams)
    columns, wins, rewards = dict(known.columns), known.wins, dict(known.rewards)
    for name, new in _columns(seen, num_streams, visible, reads, sampling).items():
        old = window(columns[name])  # what is known of a row stays
        columns[name] = jax.lax.dynamic_update_slice_in_dim(columns[name], jnp.where(jnp.isnan(old), new, old), first, 0)
    if wins is not None:
        wins = mark_more(wins, first, _won(visible, sampling))
    if rewards:
        place = first + jnp.arange(rows)
        new = _reward_range(window(source.storage.reward), (place >= source.size - num_new) & (place < source.size))
        rewards = _widest([rewards, new])
    return Known(columns, wins, rewards)


def _padded(column, length, value):
    return jnp.pad(column, (0, length - column.size), constant_values=value)


class _Visible(NamedTuple):
    """Reward, discount, boundary and validity of a source's rows as `[T, N]`."""

    reward: Array
    discount: Array
    boundary: Array
    valid: Array


def _visible(source, num_streams):
    """Rows that are not valid end no episode."""
    rows = capacity(source) // num_streams * num_streams
    valid = jnp.arange(rows) < source.size
    storage = source.storage
    # A row that was never written has discount 0, which would end the episode before it.
    discount = jnp.where(valid, storage.discount[:rows], 1.0)
    boundary = jnp.where(valid, storage.extras['boundary'][:rows], 0.0)
    shape = (rows // num_streams, num_streams)
    return _Visible(*(column.reshape(shape) for column in (storage.reward[:rows], discount, boundary, valid)))


def _columns(source, num_streams, visible, reads, sampling):
    columns = _episode_columns(visible, sampling) if 'return_to_go' in reads else {}
    columns = {name: _padded(column, capacity(source), jnp.nan) for name, column in columns.items()}
    if 'next_action' in reads and 'next_action' not in source.storage.extras:
        columns['next_action'] = _next_action(source, num_streams)
    return columns


def _next_action(source, num_streams):
    rows, most = jnp.arange(capacity(source)), capacity(source)
    # Rows of a stream lie `num_streams` apart.
    newer = newer_rows(rows, source.size, source.cursor, most)
    known = (newer >= num_streams) & (source.storage.extras['boundary'] == 0)
    return jnp.where(known[:, None], jnp.roll(source.storage.action, -num_streams, axis=0), jnp.nan)


def _episode_columns(visible, sampling):
    # A hidden row counts 0 here and -inf below: 0 * -inf would poison the recursion across a boundary.
    _, discount, boundary, valid = visible
    reward = jnp.where(valid, visible.reward, 0.0)
    if sampling.failure_returns:
        returns, horizon = episodes.sparse_returns_to_go(
            reward, discount, boundary, sampling.gamma, sampling.success_reward
        )
    else:
        returns = episodes.returns_to_go(reward, discount, boundary, sampling.gamma)
        horizon = episodes.discounted_horizon(discount, boundary, sampling.gamma)
    return {'return_to_go': returns.reshape(-1), 'discounted_horizon': horizon.reshape(-1)}


def _won(visible, sampling):
    """Mask `[T * N]` of the rows that count as successes."""
    reward = jnp.where(visible.valid, visible.reward, -jnp.inf)
    if sampling.success_unit == 'trajectory':
        reward = episodes.episode_max(reward, visible.boundary)
    return (visible.valid & (reward >= sampling.success_reward)).reshape(-1)


def annotated(source: ReplayState, num_streams: int, reads: tuple[str, ...], sampling: Sampling) -> ReplayState:
    """The source with the columns in `reads` that only the order of its rows tells.

    These are `return_to_go`, `discounted_horizon` and `next_action`, the action of the next row of the same episode, NaN where no
    such row is visible: on the last row of an episode, on the newest row of a stream, before rows that a limit hides. Next
    actions that the data already have are kept.
    """
    columns = know(source, num_streams, reads, replace(sampling, success_rows=0)).columns
    return source._replace(storage=with_extras(source.storage, **columns))


def successes(source: ReplayState, num_streams: int, sampling: Sampling) -> View:
    """The rows that count as successes under `sampling`."""
    mask = _won(_visible(source, num_streams), sampling)
    return where(source, marked(_padded(mask, capacity(source), False)))


def _reward_range(reward, mask):
    return {
        'reward_low': jnp.where(mask, reward, jnp.inf).min(),
        'reward_high': jnp.where(mask, reward, -jnp.inf).max(),
    }


def _widest(ranges):
    ranges = [found for found in ranges if found]
    if not ranges:
        return {}
    low, high = (jnp.stack([found[name] for found in ranges]) for name in ('reward_low', 'reward_high'))
    return {'reward_low': low.min(), 'reward_high': high.max()}


def _batches(sources, known, sampling, windows) -> Callable[[jax.Array], Transition]:
    names = tuple(sources)
    views = tuple(view(source) for source in sources.values())
    weights, exact = shares(sampling.mix, names)
    if sampling.mix_end is not None:
        online = sources['online']
        filled = online.size / capacity(online)
        weights = weights + (shares(sampling.mix_end, names)[0] - weights) * filled
    reward_range = _widest([known[name].rewards for name in names])
    num_plain = sampling.batch_size - sampling.success_rows
    if sampling.success_rows:
        wins = tuple(where(sources[name], known[name].wins) for name in names)
        none_yet = sum(win.size for win in wins) == 0
        plain_weights = jnp.stack([every.size for every in views]).astype(jnp.float32) if weights is None else weights
        win_weights = jnp.stack([win.size for win in wins]).astype(jnp.float32)
        if not isinstance(sampling.success_mix, str):
            win_weights = shares(sampling.success_mix, names)[0] * (win_weights > 0)
        win_weights = jnp.where(none_yet, plain_weights, win_weights)
        wins = tuple(
            win._replace(size=jnp.where(none_yet, every.size, win.size)) for win, every in zip(wins, views, strict=True)
        )

    num_weighted = round(sampling.weight_share * num_plain) if sampling.weighting != 'none' else 0
    num_plain -= num_weighted
    if num_weighted:
        by_row = row_weights([known[name].worth for name in names], sampling)
        weighted_views = tuple(in_proportion(sources[name], own) for name, own in zip(names, by_row, strict=True))
        totals = jnp.stack([own.cumulative[-1] for own in weighted_views])

    def draw(key):
        plain_key, win_key = jax.random.split(key)
        parts = []
        if num_weighted:
            plain_key, weighted_key = jax.random.split(plain_key)
            parts.append(sample_views(weighted_views, weighted_key, num_weighted, weights=totals, **windows))
        if num_plain:
            parts.append(sample_views(views, plain_key, num_plain, weights=weights, exact=exact, **windows))
        if sampling.success_rows:
            parts.append(sample_views(wins, win_key, sampling.success_rows, weights=win_weights, **windows))
        batch = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
        columns = {name: jnp.broadcast_to(value, batch.reward.shape) for name, value in reward_range.items()}
        return with_extras(batch, **columns)

    return draw
