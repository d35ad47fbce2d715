"""Rows of a store to look at: always the same ones of a data set, the newest of what was collected, with what became of them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.training import episodes, replay
from ooorl.types import Array, Transition

NUM_ROWS = 512  # of a data set, drawn uniformly; twice as many of an online store
NUM_SPECIAL = 128  # further rows at the ends of episodes, and with the highest reward


class Probe(NamedTuple):
    """Rows `[n]` of one store to look at.

    `uniform`, `ends` and `best` `[n]` are 1 on an unbiased sample of the store, on ends of episodes, and on an unbiased sample of
    the rows with the highest reward. `cut` is 1 where a time limit ended the row's episode, `tail` `[n, O]` the observation after
    the end, `returns` and `horizon` `[n]` are those of `episodes`.
    """

    rows: Transition
    uniform: Array
    ends: Array
    best: Array
    cut: Array
    tail: Array
    returns: Array
    horizon: Array


def dataset_probe(transitions: Transition, gamma: float, *, seed: int = 0) -> Probe:
    """The rows of a data set to look at, the same for the same data."""
    reward, discount = (np.asarray(x) for x in (transitions.reward, transitions.discount))
    end = (np.asarray(transitions.extras['boundary']) > 0) | (discount == 0)
    random = np.random.default_rng(seed)
    uniform = random.choice(len(reward), min(NUM_ROWS, len(reward)), replace=False)
    ends, best = (_some(random, mask) for mask in (end, reward >= reward.max()))
    chosen = np.concatenate([uniform, ends, best])
    group = np.repeat([0, 1, 2], [len(uniform), len(ends), len(best)])
    places = np.flatnonzero(end)
    after = np.searchsorted(places, chosen)
    last = np.append(places, len(reward) - 1)[after]
    weights = [gamma ** np.arange(stop - start + 1.0) for start, stop in zip(chosen, last, strict=True)]
    returns = [w @ reward[start : start + len(w)] for w, start in zip(weights, chosen, strict=True)]
    known = after < len(places)
    return Probe(
        rows=jax.tree.map(lambda leaf: np.asarray(leaf)[chosen].astype(np.float32), transitions),
        uniform=np.float32(group == 0),
        ends=np.float32(end[chosen] & (group < 2)),
        best=np.float32((reward[chosen] >= reward.max()) & (group != 1)),
        cut=np.float32(discount[last] > 0),
        tail=np.asarray(transitions.next_observation)[last].astype(np.float32),
        returns=np.float32(np.where(known, returns, np.nan)),
        horizon=np.float32([w.sum() for w in weights]),
    )


def _some(random, mask):
    (places,) = np.nonzero(mask)
    return random.choice(places, min(NUM_SPECIAL, len(places)), replace=False)


def online_probe(store: replay.ReplayState, num_streams: int, horizon: int, gamma: float, best: Array | None) -> Probe:
    """The newest rows of a store that holds `num_streams` environments side by side; `best` is the reward to look for."""
    capacity = replay.capacity(store) // num_streams
    length = min(capacity, max(-(-2 * NUM_ROWS // num_streams), 2 * horizon))
    first = jnp.clip(store.size // num_streams - length, 0, capacity - length) * num_streams

    def window(leaf):
        return jax.lax.dynamic_slice_in_dim(leaf, first, length * num_streams)

    rows = jax.tree.map(window, store.storage)
    valid = (first + jnp.arange(length * num_streams)) < store.size
    shape = (length, num_streams)
    discount = jnp.where(valid, rows.discount, 1.0).reshape(shape)
    boundary = jnp.where(valid, rows.extras['boundary'], 0.0).reshape(shape)
    reward = jnp.where(valid, rows.reward, 0.0)
    rewards = jnp.stack([reward.reshape(shape), jnp.ones(shape)], axis=-1)  # a horizon is the return of ones
    both = episodes.returns_to_go(rewards, *(jnp.stack([x, x], axis=-1) for x in (discount, boundary)), gamma)
    ended = (boundary > 0) | (discount == 0)
    times = jnp.where(ended, jnp.arange(length)[:, None], length - 1)
    last = jax.lax.cummin(times, axis=0, reverse=True) * num_streams + jnp.arange(num_streams)[None, :]
    high = jnp.where(valid, rows.reward, -jnp.inf).max() if best is None else best
    at_best = valid & (rows.reward >= high)
    some = np.sort(np.random.default_rng(0).permutation(length * num_streams)[: 2 * NUM_ROWS])
    picked, counted = zip(*(_first(mask, NUM_SPECIAL) for mask in (ended.reshape(-1), at_best)), strict=True)
    chosen = jnp.concatenate([jnp.asarray(some), *picked])
    sizes = [len(some), NUM_SPECIAL, NUM_SPECIAL]
    in_uniform, in_ends, in_best = (
        jnp.concatenate([jnp.full(size, float(n == m)) for m, size in enumerate(sizes)]) for n in range(3)
    )
    true_end, true_best = (jnp.concatenate([jnp.zeros(len(some)), *counted]) for _ in range(2))
    return Probe(
        rows=jax.tree.map(lambda leaf: leaf[chosen], rows),
        uniform=in_uniform * valid[chosen],
        ends=in_ends * true_end,
        best=in_best * true_best,
        cut=(discount.reshape(-1)[last.reshape(-1)] > 0).astype(jnp.float32)[chosen],
        tail=rows.next_observation[last.reshape(-1)[chosen]],
        returns=both[..., 0].reshape(-1)[chosen],
        horizon=both[..., 1].reshape(-1)[chosen],
    )


def _first(mask, num):
    """Indices of up to `num` true entries, the newest first, and 1 where an index is one of them."""
    (backwards,) = jnp.nonzero(mask[::-1], size=num, fill_value=0)
    return mask.size - 1 - backwards, (jnp.arange(num) < mask.sum()).astype(jnp.float32)
