"""What the recorded steps alone allow: dynamic programming over cells of a few columns of the observation.

    V(c) = max over rows that begin in cell c of  r + gamma d V(c')          value of the best chain of recorded steps
    D(c) = min over the same rows of  1 if r >= success else 1 + d D(c')     its steps to a success (infinite where d = 0 before)

No policy that keeps to recorded steps does better than the true versions of these, and cells flatter them: whoever is in a cell
may go on from any row of it. So they bound from above what retraining on these rows can gain, and say at once whether there is
anything. From a cell without rows nothing is recorded: what follows there counts as the worst reward for ever (nothing where no
reward is negative), so that a way out of the record is no escape from its costs.
"""

from typing import NamedTuple

import numpy as np

from ooorl.errors import UsageError


class Bound(NamedTuple):
    """Means over the starts of episodes: `value` of the best chain, `steps` of the shortest one to a success (starts from which
    there is one), and `reached`, the share of starts from which there is one. `cells` were visited. Of all `rows` `success_rows`
    are successes, and `largest_reward` is theirs.
    """

    value: float
    steps: float
    reached: float
    cells: int
    rows: int
    success_rows: int
    largest_reward: float


def grid_of(observations, columns, bins) -> np.ndarray:
    """Edges `[C, bins + 1]` of the cells along each column, over all the given observations `[n, O]`.

    Raises:
      UsageError: if a column is none of theirs, or named twice.
    """
    size = observations[0].shape[-1]
    if not columns or not 0 <= min(columns) <= max(columns) < size:
        raise UsageError(f'columns must be observation columns, 0 to {size - 1}; got {list(columns)}')
    if len(set(columns)) < len(columns):
        raise UsageError(f'columns must differ; got {list(columns)}; name each once')
    low = np.min([own[:, columns].min(axis=0) for own in observations], axis=0)
    high = np.max([own[:, columns].max(axis=0) for own in observations], axis=0)
    return np.linspace(low, np.where(high > low, high, low + 1.0), bins + 1, axis=1)


def cells_of(observation, columns, edges) -> np.ndarray:
    """The number of the cell `[n]` that each observation `[n, O]` lies in."""
    bins = edges.shape[1] - 1
    along = zip(edges, observation[:, columns].T, strict=True)
    places = [np.clip(np.searchsorted(own, values, side='right') - 1, 0, bins - 1) for own, values in along]
    return np.ravel_multi_index(places, (bins,) * len(columns))


def bound(rows, starts, columns, edges, *, gamma, success) -> Bound:
    """The bound for rows of a `Transition` `[n]` in numpy, from the observations `starts` `[m, O]`."""
    here, there = (cells_of(own, columns, edges) for own in (rows.observation, rows.next_observation))
    num = (edges.shape[1] - 1) ** len(columns)
    begin = cells_of(starts, columns, edges)
    lowest = min(0.0, float(rows.reward.min())) / max(1.0 - gamma, 1e-6)

    def backup(value):
        return rows.reward + gamma * rows.discount * np.where(np.isfinite(value), value, lowest)[there]

    value = _fixed_point(here, num, np.maximum, -np.inf, backup)
    won = rows.reward >= success
    ahead = np.where(rows.discount > 0, 0.0, np.inf)
    steps = _fixed_point(here, num, np.minimum, np.inf, lambda d: np.where(won, 1.0, 1.0 + d[there] + ahead))
    known, reached = np.isfinite(value[begin]), np.isfinite(steps[begin])
    return Bound(
        value=float(value[begin][known].mean()) if known.any() else float('nan'),
        steps=float(steps[begin][reached].mean()) if reached.any() else float('inf'),
        reached=float(reached.mean()),
        cells=len(np.unique(here)),
        rows=len(won),
        success_rows=int(won.sum()),
        largest_reward=float(np.max(rows.reward)),
    )


def _fixed_point(here, num, better, worst, backup, most=100_000):
    current = np.full(num, worst)
    for _ in range(most):
        new = np.full(num, worst)
        better.at(new, here, backup(current))
        if np.allclose(new, current, rtol=0, atol=1e-6):
            return new
        current = new
    return current
