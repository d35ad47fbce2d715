"""What a data set is like before anything is trained on it: how far its actions disagree where states are alike, how far steps
lead apart, how dense its states are, and how far another set lies from it.

Let x be the observations in units of their standard deviations (columns that hardly vary left out), N_k(i) the k nearest other
rows of row i in x, N'_k(i) in x and the actions, likewise scaled. Rows of the same episode within 50 steps are nobody's
neighbours, since consecutive rows always are.

    action variance       AV = mean_i mean_dims Var_{j in N_k(i)}(a_j),  relative: over the mean of Var(a)
    transition diversity  TD = mean_i mean_dims Var_{j in N'_k(i)}(o'_j - o_j), each entry in units of its deviation
    distance              mean_i of the mean distance to N_k(i), root mean square per column
    divergence of D from P   AUROC of the distance to P's nearest row: held-out episodes of P against rows of D; .5: alike

Idea: Belkhale, Cui and Sadigh, arXiv:2306.02437 (action divergence, transition diversity); these estimators are our own. Low AV
is not high return: of two policies of the half-cheetah the better one has the larger. Noise raises it; mixing policies may.
"""

from typing import NamedTuple

import numpy as np

from ooorl.errors import UsageError
from ooorl.validation import check_not_negative

APART = 50  # steps of one episode that are too near in time to count as neighbours
_CONSTANT = 1e-6
_MANY_COLUMNS = 30


class Quality(NamedTuple):
    """What `quality` finds: numbers by name, ready for JSON. `episodes` of scores for curation, None where not asked for."""

    rows: int
    num_episodes: int
    length: dict[str, float]
    episode_return: dict[str, float]
    terminal_share: float  # of the rows
    saturated_share: float  # of action entries beyond .99 of their range
    columns: int  # of the observation that vary, which distances are taken in
    action_variance: float
    relative_action_variance: float
    transition_diversity: float
    distance: float
    nearest_over_median: float  # distance to the nearest row over that to the median one: near 1, neighbours say little
    auroc: float | None = None
    episodes: list[float] | None = None  # of each, how far its actions lie from what the others do there, mean square


class Rows(NamedTuple):
    """Rows to look for neighbours among: `x` `[n, C]`, `action` `[n, A]`, `step` `[n, C']`, and where each was lived."""

    x: np.ndarray
    action: np.ndarray
    step: np.ndarray
    episode: np.ndarray
    time: np.ndarray


def quality(
    transitions, *, k=10, rows=5_000, queries=500, seed=0, columns=None, apart=APART, against=None, by_episode=False
) -> Quality:
    """The numbers of a data set, as one `Transition` `[n]` in the order it was lived.

    Args:
      transitions: `ooorl.data.load(path).transitions`.
      k: neighbours.
      rows: how many rows are drawn to be neighbours.
      queries: how many of these are asked for theirs.
      seed: of the draws.
      columns: of the observation, to take distances in; None for all. Goals that differ between episodes belong left out.
      apart: rows of one episode nearer in time than this are no neighbours.
      against: transitions of another set, to be told apart from this one.
      by_episode: score every episode as well.

    Raises:
      UsageError: where there are too few rows, or columns that are not there.
    """
    if k < 2 or rows < k + 2:
        raise UsageError(f'At least 2 neighbours and 2 rows more than neighbours are needed; got {k} and {rows}; ask for more.')
    check_not_negative(seed=seed)
    rng = np.random.default_rng(seed)
    everything = _rows(transitions, _chosen(transitions, columns))
    if len(everything.x) < k + 2 or not everything.x.shape[1]:
        raise UsageError(f'At least {k + 2} rows and a column that varies are needed; got {everything.x.shape}; give more data.')
    some = _drawn(everything, rng, rows)
    asked = rng.permutation(len(some.x))[:queries]
    near, ratio = neighbours(some.x[asked], some.x, k, _too_near(some, asked, apart))
    alike, _ = neighbours(_with_actions(some)[asked], _with_actions(some), k, _too_near(some, asked, apart))
    variance, spread = _local_variance(some.action, near), everything.action.var(axis=0, ddof=1).mean()
    ends = np.flatnonzero(np.append(everything.episode[1:] != everything.episode[:-1], True))
    starts = np.append(0, ends[:-1] + 1)
    return Quality(
        rows=len(everything.x),
        num_episodes=len(ends),
        length=_summary(ends - starts + 1),
        episode_return=_summary(np.add.reduceat(np.asarray(transitions.reward, np.float64), starts)),
        terminal_share=float(np.mean(np.asarray(transitions.discount) == 0)),
        saturated_share=float(np.mean(np.abs(everything.action) > 0.99)),
        columns=everything.x.shape[1],
        action_variance=float(variance.mean()),
        relative_action_variance=float(variance.mean() / max(spread, 1e-12)),
        transition_diversity=float(_local_variance(some.step, alike).mean()),
        distance=float(_distances(some.x[asked], some.x, near).mean()),
        nearest_over_median=ratio,
        auroc=None if against is None else divergence(transitions, against, columns=columns, rows=rows, seed=seed),
        episodes=_of_episodes(everything, some, k, apart, rng) if by_episode else None,
    )


def divergence(reference, other, *, columns=None, rows=5_000, queries=500, seed=0) -> float:
    """AUROC of the distance to the nearest row of half of `reference`'s episodes: its other half against rows of `other`.

    Distances are in the reference's units, also for the other set.

    Raises:
      UsageError: where observations differ in size, or the reference has a single episode.
    """
    rng = np.random.default_rng(seed)
    if reference.observation.shape[1] != other.observation.shape[1]:
        sizes = reference.observation.shape[1], other.observation.shape[1]
        raise UsageError(f'Observations of one size are needed to compare two sets; got {sizes[0]} and {sizes[1]}; give others.')
    chosen = _chosen(reference, columns)
    whole = _rows(reference, chosen)
    episodes = rng.permutation(np.unique(whole.episode))
    if len(episodes) < 2:
        raise UsageError('Two episodes are needed to hold one out; the reference has one; compare the sets the other way round.')
    known = np.isin(whole.episode, episodes[: len(episodes) // 2])
    mean, deviation = _scale(np.asarray(reference.observation, np.float64)[:, chosen])
    foreign = (np.asarray(other.observation, np.float64)[:, chosen] - mean) / deviation
    index = whole.x[known][rng.permutation(known.sum())[:rows]]
    own, others = (part[rng.permutation(len(part))[:queries]] for part in (whole.x[~known], foreign))
    near, far = (np.sqrt(_squared(part, index).min(axis=1)) for part in (own, others))
    return float((far[:, None] > near).mean() + 0.5 * (far[:, None] == near).mean())


def neighbours(asked, among, k, barred) -> tuple[np.ndarray, float]:
    """Numbers `[q, k]` of the nearest rows of `among`, and the mean distance to the nearest over that to the median row.

    `barred` `[q, n]` says which rows do not count.
    """
    squared = _squared(asked, among)
    squared[barred] = np.inf
    near = np.argpartition(squared, k - 1, axis=1)[:, :k]
    nearest = np.sqrt(squared.min(axis=1))
    median = np.sqrt(np.median(np.where(np.isfinite(squared), squared, np.nanmax(squared[np.isfinite(squared)])), axis=1))
    if not np.isfinite(nearest).all() or (np.isfinite(squared).sum(axis=1) < k).any():
        raise UsageError(f'{k} neighbours from other times are needed for every row; some have fewer; ask for fewer neighbours.')
    return near, float(np.mean(nearest / np.maximum(median, 1e-12)))


def _squared(one, other):
    """Squared distances `[q, n]`, over the number of columns."""
    square = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * one @ other.T
    return np.maximum(square, 0.0) / one.shape[1]


def _distances(asked, among, near):
    return np.sqrt(((asked[:, None, :] - among[near]) ** 2).mean(axis=-1)).mean(axis=1)


def _local_variance(values, near):
    return values[near].var(axis=1, ddof=1).mean(axis=-1)


def _chosen(transitions, columns):
    width = transitions.observation.shape[1]
    chosen = np.arange(width) if columns is None else np.asarray(columns, int)
    if chosen.size == 0 or chosen.min() < 0 or chosen.max() >= width:
        raise UsageError(f'columns must lie between 0 and {width - 1}; got {list(map(int, chosen))}; name others.')
    if len(set(chosen.tolist())) != chosen.size:
        raise UsageError(f'columns must differ; got {list(map(int, chosen))}; name each once.')
    return chosen[np.asarray(transitions.observation, np.float64)[:, chosen].std(axis=0) > _CONSTANT]


def _scale(values):
    deviation = values.std(axis=0)
    return values.mean(axis=0), np.where(deviation > _CONSTANT, deviation, 1.0)


def _standardised(values):
    mean, deviation = _scale(values)
    return (values - mean) / deviation


def _rows(transitions, chosen):
    observation, following = (
        np.asarray(part, np.float64) for part in (transitions.observation, transitions.next_observation)
    )
    boundary = np.asarray(transitions.extras['boundary']) > 0
    episode = np.append(0, np.cumsum(boundary)[:-1])
    first = np.append(0, np.flatnonzero(boundary[:-1]) + 1)
    time = np.arange(len(episode)) - first[np.searchsorted(first, np.arange(len(episode)), side='right') - 1]
    step = _standardised((following - observation)[:, chosen])
    return Rows(_standardised(observation[:, chosen]), np.asarray(transitions.action, np.float64), step, episode, time)


def _drawn(rows, rng, num):
    chosen = np.sort(rng.permutation(len(rows.x))[:num])
    return Rows(*(part[chosen] for part in rows))


def _with_actions(rows):
    return np.concatenate([rows.x, _standardised(rows.action)], axis=-1)


def _too_near(rows, asked, apart):
    """`[q, n]`: itself, and what lies within `apart` steps of its episode."""
    same = rows.episode[asked][:, None] == rows.episode
    close = np.abs(rows.time[asked][:, None] - rows.time) < max(apart, 1)
    return same & close


def _of_episodes(everything, some, k, apart, rng, each=20):
    """How far an episode's actions lie from the mean of their neighbours': mean square over up to `each` of its rows."""
    scores = []
    for number in range(everything.episode[-1] + 1):
        own = np.flatnonzero(everything.episode == number)
        asked = rng.permutation(own)[:each]
        same = (some.episode == number) & (np.abs(everything.time[asked][:, None] - some.time) < max(apart, 1))
        near, _ = neighbours(everything.x[asked], some.x, k, same)
        scores.append(float(((everything.action[asked] - some.action[near].mean(axis=1)) ** 2).mean()))
    return scores


def _summary(values):
    least, median, most = np.quantile(np.asarray(values, np.float64), [0.0, 0.5, 1.0])
    return {'min': float(least), 'median': float(median), 'max': float(most), 'mean': float(np.mean(values))}


def page(name: str, found: Quality, other: str | None = None) -> list[str]:
    """The findings as lines for people."""
    lines = [
        f'{name}: {found.rows:,} rows in {found.num_episodes:,} episodes',
        f'length              {_shown(found.length)}',
        f'return              {_shown(found.episode_return)}',
        f'terminal rows       {found.terminal_share:.2%}; action entries at the edge of their box {found.saturated_share:.1%}',
        f'action variance     {found.action_variance:.3g}, {found.relative_action_variance:.3g} of all: '
        'how far actions disagree where states are alike',
        f'transition spread   {found.transition_diversity:.3g} of all: how far like steps lead apart (noise, hidden state)',
        f'distance            {found.distance:.3g} deviations to the nearest rows of other times, over {found.columns} columns',
    ]
    if found.columns > _MANY_COLUMNS:
        lines.append(
            f'nearest/median      {found.nearest_over_median:.2f}: with {found.columns} columns neighbours are far, '
            'and the three numbers above say less; --columns names those that matter'
        )
    if found.auroc is not None:
        lines.append(f'divergence          {found.auroc:.2f} from {other}: .5 if it visits the same states, 1 if all are new')
    if found.episodes:
        order = np.argsort(found.episodes)
        most, least = (', '.join(map(str, some[:5])) for some in (order, order[::-1]))
        lines.append(f'episodes            acting most like the others {most}; least {least}')
    return [*lines, 'Low action variance is not high return: it says how much of one mind the data are, not how good.']


def _shown(summary):
    return f'{summary["min"]:.4g} to {summary["max"]:.4g}, median {summary["median"]:.4g}, mean {summary["mean"]:.4g}'
