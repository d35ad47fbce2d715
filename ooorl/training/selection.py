"""Which rows are worth more: whole episodes by what they returned, as weights of rows.

    g       'return': G, the sum of the episode's rewards;   'advantage': G - b(s_0), b linear in the episode's first observation
    weight  exp(((g - g_min) / (g_max - g_min) - 1) / temperature), the same for all rows of an episode
    'top'   1 for the rows of the share of episodes with the largest G, 0 for all others

Smallest and largest are over the episodes of all sources together; an episode that is not finished counts as the worst. Where all
are worth the same, every row is. b is the least-squares fit over finished episodes.

Source: Hong et al., arXiv:2306.13085 (return- and advantage-weighted trajectories); the uniform share beside them is ours.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ooorl.training import episodes
from ooorl.training.sampling import Sampling
from ooorl.types import Array

FEW = 10.0  # effective rows below which a batch is the same few rows again and again


class Worth(NamedTuple):
    """What each row `[capacity]` of a source knows of its episode.

    The sum of its rewards `total`, whether it is `finished`, whether the row is `valid` and `opens` it, and the `opening`
    observation `[capacity, O]` of the episode.
    """

    total: Array
    finished: Array
    valid: Array
    opens: Array
    opening: Array


def worth(reward: Array, boundary: Array, valid: Array, observation: Array) -> Worth:
    """`Worth` of rows `[T, N]` of N streams; `observation` `[capacity, O]` may hold more rows, which count as not valid."""
    steps, streams = reward.shape
    total = episodes.episode_sum(jnp.where(valid, reward, 0.0), boundary)
    finished = jax.lax.cummax((boundary > 0).astype(jnp.int32), axis=0, reverse=True) > 0
    opens = jnp.concatenate([jnp.ones((1, streams), bool), boundary[:-1] > 0])
    first = jax.lax.cummax(jnp.where(opens, jnp.arange(steps)[:, None], 0), axis=0)
    rows, more = (first * streams + jnp.arange(streams)[None, :]).reshape(-1), observation.shape[0] - steps * streams

    def flat(column):
        return jnp.pad(column.reshape(-1), (0, more))

    valid = flat(valid)
    return Worth(flat(total), flat(finished) & valid, valid, flat(opens) & valid, observation[jnp.pad(rows, (0, more))])


def row_weights(sources: Sequence[Worth], sampling: Sampling) -> list[Array]:
    """Weights `[capacity]` of the rows of each source; 0 where a row is not valid."""
    every = jax.tree.map(lambda *columns: jnp.concatenate(columns), *sources)
    score = every.total - (_baseline(every) if sampling.weighting == 'advantage' else 0.0)
    if sampling.weighting == 'top':
        weight = _of_the_best(every, score, sampling.top_share)
    else:
        low = jnp.where(every.finished, score, jnp.inf).min()
        high = jnp.where(every.finished, score, -jnp.inf).max()
        share = (jnp.where(every.finished, score, low) - low) / jnp.where(high > low, high - low, 1.0)
        weight = jnp.where(jnp.isfinite(low), jnp.exp((share - (high > low)) / sampling.weight_temperature), 1.0)
    weight, parts, begin = jnp.where(every.valid, weight, 0.0), [], 0
    for own in sources:
        parts.append(weight[begin : begin + own.valid.size])
        begin += own.valid.size
    return parts


def _of_the_best(every, score, top_share):
    ranked = jnp.sort(jnp.where(every.opens & every.finished, score, -jnp.inf))
    num = (every.opens & every.finished).sum()
    kept = jnp.maximum(jnp.ceil(top_share * num - 1e-4).astype(jnp.int32), 1)
    best = every.finished & (score >= ranked[ranked.size - kept])
    return jnp.where(num > 0, best.astype(jnp.float32), 1.0)


def _baseline(every):
    """The fit of total on opening observations, at every row's opening."""
    used = (every.opens & every.finished).astype(jnp.float32)
    num = jnp.maximum(used.sum(), 1.0)
    centre = (used[:, None] * every.opening).sum(axis=0, keepdims=True) / num
    moved = every.opening - centre
    size = jnp.sqrt((used[:, None] * moved**2).sum(axis=0, keepdims=True) / num) + 1e-6
    inputs = jnp.concatenate([moved / size, jnp.ones_like(every.total)[:, None]], axis=-1)
    # Conjugate gradients: no kernel of LAPACK is needed, and columns that never change are left at 0.
    gram, moment = (used[:, None] * inputs).T @ inputs / num, (used * every.total) @ inputs / num
    found, _ = jax.scipy.sparse.linalg.cg(lambda x: gram @ x, moment, maxiter=4 * inputs.shape[1], tol=1e-7)
    return inputs @ found


def effective_rows(weights: Sequence[Array]) -> Array:
    """(sum w)^2 / sum w^2 over all rows: how many equally likely ones they come down to."""
    total, squares = sum(w.sum() for w in weights), sum((w**2).sum() for w in weights)
    return total**2 / jnp.maximum(squares, 1e-30)


def described(settings: Mapping) -> str:
    """In words, what a table of sampling settings selects beside successes; '' where nothing."""
    kind = settings.get('weighting', 'none')
    if kind == 'none':
        return ''
    share = f'{settings["weight_share"]:.0%} of the rows from '
    if kind == 'top':
        return f'{share}the best {settings["top_share"]:.0%} of episodes'
    return f'{share}{kind}-weighted episodes'
