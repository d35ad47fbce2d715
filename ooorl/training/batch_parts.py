"""How a batch is put together: rows by weight, rows as they come, rows of successes, each from all sources."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ooorl.training.known import Known, widest
from ooorl.training.replay import ReplayState, View, capacity, in_proportion, sample_views, shares, view, where
from ooorl.training.sampling import Sampling
from ooorl.training.selection import row_weights
from ooorl.types import Array, Key, Transition
from ooorl.wrap import with_extras


class _Part(NamedTuple):
    """`num` rows of a batch, drawn as `replay.sample_views` says."""

    num: int
    views: tuple[View, ...]
    weights: Array | None
    exact: bool = False


def batches(
    sources: Mapping[str, ReplayState], known: Mapping[str, Known], sampling: Sampling, windows: Mapping
) -> Callable[[Key], Transition]:
    """`draw(key) -> batch` from sources of which the passes that `sampling` needs are `known`.

    `windows` are the `length` and `streams` of `replay.sample_views`, where windows of rows are drawn.
    """
    rest = sampling.batch_size - sampling.success_rows
    num_weighted = round(sampling.weight_share * rest) if sampling.weighting != 'none' else 0
    parts = [
        _by_weight(sources, known, sampling, num_weighted) if num_weighted else None,
        _as_they_come(sources, sampling, rest - num_weighted) if rest > num_weighted else None,
        _successes(sources, known, sampling) if sampling.success_rows else None,
    ]
    reward_range = widest([known[name].rewards for name in sources])

    def draw(key):
        drawn = [
            sample_views(part.views, part_key, part.num, weights=part.weights, exact=part.exact, **windows)
            for part, part_key in zip(parts, _part_keys(key, num_weighted), strict=True)
            if part is not None
        ]
        batch = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *drawn)
        columns = {name: jnp.broadcast_to(value, batch.reward.shape) for name, value in reward_range.items()}
        return with_extras(batch, **columns)

    return draw


def _part_keys(key, num_weighted):
    plain_key, win_key = jax.random.split(key)
    plain_key, weighted_key = jax.random.split(plain_key) if num_weighted else (plain_key, None)
    return weighted_key, plain_key, win_key


def _by_weight(sources, known, sampling, num):
    weights = row_weights([known[name].worth for name in sources], sampling)
    views = tuple(in_proportion(source, own) for source, own in zip(sources.values(), weights, strict=True))
    return _Part(num, views, jnp.stack([own.cumulative[-1] for own in views]))


def _as_they_come(sources, sampling, num):
    weights, exact = _mixed(sources, sampling)
    return _Part(num, _views(sources), weights, exact)


def _successes(sources, known, sampling):
    """Rows of successes; while there are none, rows as they come."""
    every, wins = _views(sources), [where(source, known[name].wins) for name, source in sources.items()]
    sizes = _sizes(wins)
    weights = sizes
    if not isinstance(sampling.success_mix, str):
        weights = shares(sampling.success_mix, tuple(sources))[0] * (sizes > 0)
    mixed, _ = _mixed(sources, sampling)
    none_yet = sizes.sum() == 0
    weights = jnp.where(none_yet, _sizes(every) if mixed is None else mixed, weights)
    wins = [win._replace(size=jnp.where(none_yet, own.size, win.size)) for win, own in zip(wins, every, strict=True)]
    return _Part(sampling.success_rows, tuple(wins), weights)


def _mixed(sources, sampling):
    """Weights of the sources under `mix`, and whether they hold exactly."""
    weights, exact = shares(sampling.mix, tuple(sources))
    if sampling.mix_end is not None:
        online = sources['online']
        filled = online.size / capacity(online)
        weights = weights + (shares(sampling.mix_end, tuple(sources))[0] - weights) * filled
    return weights, exact


def _views(sources):
    return tuple(view(source) for source in sources.values())


def _sizes(views):
    return jnp.stack([each.size for each in views]).astype(jnp.float32)
