"""What passes over all rows of a source tell: columns that only the order of rows tells, successes, the range of rewards.

`know` makes the passes, `keep_up` follows rows that were added since.
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ooorl.training import episodes
from ooorl.training.replay import Marks, ReplayState, View, capacity, mark_more, marked, newer_rows, where
from ooorl.training.sampling import Sampling
from ooorl.training.selection import Worth, worth
from ooorl.types import Agent, Array
from ooorl.wrap import with_extras

COMPUTED = ('return_to_go', 'discounted_horizon', 'next_action', 'reward_low', 'reward_high')


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
        rewards = widest([rewards, new])
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
    # What hidden rows pay changes nothing: an episode whose end is hidden has no return, and rewards are finite.
    reward, discount, boundary, _ = visible
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


def widest(ranges: list[dict[str, Array]]) -> dict[str, Array]:
    """The range that spans all of them; empty if none says anything."""
    ranges = [found for found in ranges if found]
    if not ranges:
        return {}
    low, high = (jnp.stack([found[name] for found in ranges]) for name in ('reward_low', 'reward_high'))
    return {'reward_low': low.min(), 'reward_high': high.max()}
