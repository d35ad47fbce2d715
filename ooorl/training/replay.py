"""Replay: stored transitions on the device, and how batches are drawn from one or several stores.

A `ReplayState` is a ring buffer; `extend` and `sample` compile, and the buffer should be donated to whatever extends it.
Rows collected from N environments are stored time-major: row `t * N + e`.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ooorl.types import Array, Key, Transition

BLOCK = 128  # rows of a block of `Marks`
# Columns that say something where a store lacks them: nobody has judged its rows; they are no examples to follow.
ABSENT = {'label': -1.0, 'imitated': 0.0}


class ReplayState(NamedTuple):
    """Stored transitions: `storage` with leading axis [capacity], the next row to write, the number of rows that are valid."""

    storage: Transition
    cursor: Array
    size: Array


class Marks(NamedTuple):
    """Some rows of a buffer: `mask` `[capacity, rounded up]` says which, `counts` how many in each block of `BLOCK` rows."""

    mask: Array
    counts: Array


class View(NamedTuple):
    """Rows that may be drawn: the first `size` of `storage`, or where there are marks, the first `size` of the marked ones.

    `up_to` `[blocks]` counts the marked rows up to the end of each block. `stored` and `cursor` are those of the buffer. Where
    there is a `cumulative` `[capacity]`, rows are drawn in proportion to the weights that it sums up.
    """

    storage: Transition
    mask: Array | None
    up_to: Array | None
    size: Array
    stored: Array
    cursor: Array
    cumulative: Array | None = None


def create(example: Transition, capacity: int) -> ReplayState:
    """An empty buffer for transitions like `example` (one transition, no leading axis)."""
    storage = jax.tree.map(lambda leaf: jnp.zeros((capacity, *jnp.shape(leaf)), jnp.float32), example)
    return ReplayState(storage, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def full(transitions: Transition) -> ReplayState:
    """A buffer that holds exactly the given transitions `[n]`: how a data set becomes a store."""
    storage = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), transitions)
    num = storage.reward.shape[0]
    return ReplayState(storage, jnp.zeros((), jnp.int32), jnp.asarray(num, jnp.int32))


def capacity(replay: ReplayState) -> int:
    """How many rows fit."""
    return replay.storage.reward.shape[0]


def extend(replay: ReplayState, batch: Transition) -> ReplayState:
    """Appends `[n]` rows, n <= capacity; the oldest rows are overwritten once the buffer is full."""
    num, most = batch.reward.shape[0], capacity(replay)
    if num > most:
        raise ValueError(f'extend needs at most as many rows as the capacity, {most}; got {num}')
    rows = (replay.cursor + jnp.arange(num)) % most
    storage = jax.tree.map(lambda old, new: old.at[rows].set(new), replay.storage, batch)
    return ReplayState(storage, (replay.cursor + num) % most, jnp.minimum(replay.size + num, most))


def take(replay: ReplayState, limit: Array) -> ReplayState:
    """The first `limit` rows, as a view of the same storage; valid until the buffer has wrapped."""
    return replay._replace(size=jnp.minimum(replay.size, limit))


def sample(replay: ReplayState, key: Key, num: int) -> Transition:
    """`num` rows drawn uniformly with replacement; the buffer must not be empty (`run` checks on the host)."""
    return sample_views((view(replay),), key, num)


def sample_windows(replay: ReplayState, key: Key, num: int, length: int, *, num_streams: int = 1) -> Transition:
    """`num` windows of `length` rows in the order they were lived, their first rows drawn uniformly with replacement.

    The rows of a stream lie `num_streams` apart. A window goes on as long as its episode does (to a row with `boundary`, whose
    successor belongs to another one) and as its stream's rows are known: never past the newest of them to the oldest in a ring
    that is full. Behind its end it repeats its last row, and `extras['valid']` `[num, length]` is 0 there and 1 before.

    Source: windows of Q-chunking's released code, ColinQiyangLi/qam@f93efd2, which draws no first row whose window would leave
    the buffer, lets actions of the next episode stand behind an end and joins the newest row of a ring to its oldest.
    """
    return sample_views((view(replay),), key, num, length=length, streams=(num_streams,))


def sample_views(
    views: tuple[View, ...],
    key: Key,
    num: int,
    *,
    weights: Array | None = None,
    exact: bool = False,
    length: int | None = None,
    streams: tuple[int, ...] = (),
) -> Transition:
    """`num` rows, or windows of rows, from several views.

    Args:
      views: where rows may come from; an empty view gets no rows.
      key: consumed.
      num: rows.
      weights: `[len(views)]` share of each view, any scale; None means in proportion to their sizes, which is uniform over
        the union of all rows. So they are drawn, too, where all shares are those of empty views.
      exact: give each view its share of the rows exactly (up to rounding) rather than in expectation.
      length: of windows as in `sample_windows`, which begin with the rows drawn; None: the rows alone.
      streams: for windows, how many streams lie side by side in each view.

    Returns:
      Transition `[num]`, of windows `[num, length]`; of `extras` only columns that every view has, and those in `ABSENT`.
    """
    source_key, row_key = jax.random.split(key)
    sizes = jnp.stack([view.size for view in views]).astype(jnp.float32)
    if weights is None:
        weights = sizes
    else:
        weights = jnp.asarray(weights, jnp.float32) * (sizes > 0)
        weights = jnp.where(weights.sum() > 0, weights, sizes)
    edges = jnp.cumsum(weights) / jnp.maximum(weights.sum(), 1e-30)
    level = (jnp.arange(num) + 0.5) / num if exact else jax.random.uniform(source_key, (num,))
    source = jnp.minimum((level[:, None] >= edges[None, :]).sum(axis=-1), len(views) - 1)
    rows = [_draw(view, view_key, num) for view, view_key in zip(views, _keys(row_key, len(views)), strict=True)]
    if length is None:
        found = [jax.tree.map(lambda leaf, r=r: leaf[r], view.storage) for view, r in zip(views, rows, strict=True)]
    else:
        found = [_window(view, r, length, apart) for view, r, apart in zip(views, rows, streams, strict=True)]
    picked = _shared_columns(found)
    chosen = picked[0]
    for number, other in enumerate(picked[1:], start=1):
        chosen = jax.tree.map(lambda a, b, n=number: jnp.where(_expand(source == n, b), b, a), chosen, other)
    return chosen


def _keys(key, num):
    return [key] if num == 1 else list(jax.random.split(key, num))


def _draw(view, key, num):
    if view.cumulative is not None:
        level = jax.random.uniform(key, (num,)) * view.cumulative[-1]
        return jnp.minimum(jnp.searchsorted(view.cumulative, level, side='right'), view.cumulative.size - 1)
    rows = jax.random.randint(key, (num,), 0, jnp.maximum(view.size, 1))
    if view.mask is not None:
        rows = jnp.where(view.up_to[-1] > 0, _marked_row(view, rows), rows)
    return rows


def newer_rows(rows: Array, stored: Array, cursor: Array, most: int) -> Array:
    """How many rows were stored after each of `rows`, by its place in a buffer of `most`, of which `stored` are known."""
    # In a ring that is full the oldest row is the one to be overwritten next.
    return jnp.where(stored == most, (cursor - 1 - rows) % most, stored - 1 - rows)


def _window(view, first, length, num_streams):
    most, steps = view.storage.reward.shape[0], jnp.arange(length)[None, :]
    places = (first[:, None] + num_streams * steps) % most
    ends = jnp.cumsum(view.storage.extras['boundary'][places] > 0, axis=1)
    before = jnp.pad(ends[:, :-1], ((0, 0), (1, 0)))
    newer = newer_rows(first, view.stored, view.cursor, most)[:, None]
    valid = (before == 0) & (num_streams * steps <= newer)
    last = jnp.maximum(valid.sum(axis=1, keepdims=True) - 1, 0)
    places = jnp.take_along_axis(places, jnp.minimum(steps, last), axis=1)
    rows = jax.tree.map(lambda leaf: leaf[places], view.storage)
    return rows._replace(extras={**rows.extras, 'valid': valid.astype(jnp.float32)})


def _marked_row(view, rank):
    """The marked row with so many marked ones before it: first its block, then the place in the block."""
    block = jnp.minimum(jnp.searchsorted(view.up_to, rank, side='right'), view.up_to.size - 1)
    left = rank - jnp.where(block > 0, view.up_to[block - 1], 0)
    inside = view.mask[block[:, None] * BLOCK + jnp.arange(BLOCK)[None, :]]
    # A product with a triangle: sums of up to 128 ones are exact, and a cumulative sum would be a dozen small programs.
    before = inside.astype(jnp.float32) @ jnp.tri(BLOCK).T
    return block * BLOCK + (before <= left[:, None]).sum(axis=-1)


def _shared_columns(rows):
    rows = _with_absent(rows)
    shared = set.intersection(*(set(row.extras) for row in rows))
    return [row._replace(extras={name: row.extras[name] for name in sorted(shared)}) for row in rows]


def _with_absent(rows):
    """The rows with the columns that mean something where a store lacks them and another has them."""
    held = set().union(*(row.extras for row in rows))
    absent = {name: value for name, value in ABSENT.items() if name in held}
    return [
        row._replace(extras={**{name: jnp.full_like(row.reward, value) for name, value in absent.items()}, **row.extras})
        for row in rows
    ]


def _expand(mask, like):
    return mask.reshape(mask.shape + (1,) * (like.ndim - mask.ndim))


def view(replay: ReplayState) -> View:
    """All valid rows of a buffer."""
    return View(replay.storage, None, None, replay.size, replay.size, replay.cursor)


def marked(mask: Array) -> Marks:
    """Marks where `mask` `[capacity]` is true; costs a pass over it."""
    mask = jnp.pad(mask, (0, -mask.size % BLOCK))
    return Marks(mask, mask.reshape(-1, BLOCK).sum(axis=-1, dtype=jnp.int32))


def mark_more(marks: Marks, first: Array, mask: Array) -> Marks:
    """Marks the rows from `first` on where `mask` `[n]` is true, too; costs a pass over these rows only."""
    old = jax.lax.dynamic_slice_in_dim(marks.mask, first, mask.size)
    counts = marks.counts.at[(first + jnp.arange(mask.size)) // BLOCK].add(mask & ~old)
    return Marks(jax.lax.dynamic_update_slice_in_dim(marks.mask, old | mask, first, 0), counts)


def where(replay: ReplayState, marks: Marks) -> View:
    """The marked rows. Where nothing is marked its size is 0; set to another, it draws from the first so many rows instead."""
    up_to = jnp.cumsum(marks.counts)
    return View(replay.storage, marks.mask, up_to, up_to[-1], replay.size, replay.cursor)


def in_proportion(replay: ReplayState, weights: Array) -> View:
    """All valid rows of a buffer, to be drawn in proportion to `weights` `[capacity]`, which are 0 on all others."""
    return view(replay)._replace(cumulative=jnp.cumsum(weights))


def shares(mix: Mapping[str, float] | str, names: tuple[str, ...]) -> tuple[Array | None, bool]:
    """Translates a mix into the `weights` and `exact` of `sample_views`.

    'union' draws uniformly over all rows of all stores; 'growing' gives each store its share of all rows exactly (Cal-QL's
    rule, |D| / (|D| + n) of every batch); a mapping gives fixed shares exactly.
    """
    if isinstance(mix, str):
        return None, mix == 'growing'
    return jnp.asarray([mix.get(name, 0.0) for name in names], jnp.float32), True
