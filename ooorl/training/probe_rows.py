"""Rows of a store to look at: always the same ones of a data set, the newest of what was collected, with what became of them.

And how an agent is asked about them: `questions`, in one batch of always the same size, and `answers`.
"""

from typing import NamedTuple

import jax
import numpy as np

from ooorl.training.learn import SOURCES
from ooorl.types import Array, Transition
from ooorl.wrap import with_extras

NUM_ROWS = 512  # of a data set, drawn uniformly; twice as many of an online store
NUM_SPECIAL = 128  # further rows at the ends of episodes, and with the highest reward


class Probe(NamedTuple):
    """Rows `[n]` of one store to look at, in numpy.

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


def window_steps(capacity: int, num_streams: int, horizon: int) -> int:
    """Steps of a store that are looked at: enough for the rows to draw and for two whole episodes, where it holds them."""
    return min(capacity // num_streams, max(-(-2 * NUM_ROWS // num_streams), 2 * horizon))


def online_probes(window: Transition, num_valid, num_streams: int, gamma: float, best: float | None) -> list[Probe]:
    """For each seed, rows of the newest rows `[S, n]` of a store that holds `num_streams` environments side by side.

    The first `num_valid` `[S]` of them have been written; `best` is the reward to look for, by default the window's highest.
    """
    num = window.reward.shape[1]
    valid = np.arange(num)[None, :] < np.asarray(num_valid)[:, None]
    discount, boundary = np.where(valid, window.discount, 1.0), np.where(valid, window.extras['boundary'], 0.0)
    rewards = np.where(valid, window.reward, 0.0)
    steps = [x.reshape(len(x), -1, num_streams).swapaxes(0, 1) for x in (rewards, discount, boundary)]  # [T, S, N]
    known = [x.swapaxes(0, 1).reshape(len(rewards), -1) for x in _returns_to_go(*steps, gamma)]
    return [
        _online_probe(jax.tree.map(lambda leaf, s=s: leaf[s], window), valid[s], discount[s], boundary[s], num_streams,
                      *(column[s] for column in known), best)
        for s in range(len(rewards))
    ]  # fmt: skip


def _online_probe(rows, valid, discount, boundary, num_streams, returns, horizon, best):
    num = len(valid)
    ended = (boundary > 0) | (discount == 0)
    times = np.where(ended.reshape(-1, num_streams), np.arange(num // num_streams)[:, None], num // num_streams - 1)
    last = np.minimum.accumulate(times[::-1], axis=0)[::-1] * num_streams + np.arange(num_streams)[None, :]
    last = last.reshape(-1)
    high = np.where(valid, rows.reward, -np.inf).max() if best is None else best
    at_best = valid & (rows.reward >= high)
    some = np.sort(np.random.default_rng(0).permutation(num)[: 2 * NUM_ROWS])
    newest = [np.flatnonzero(mask)[::-1][:NUM_SPECIAL] for mask in (ended, at_best)]
    chosen = np.concatenate([some, *newest])
    group = np.repeat([0, 1, 2], [len(some), *map(len, newest)])
    return Probe(
        rows=jax.tree.map(lambda leaf: leaf[chosen], rows),
        uniform=np.float32((group == 0) & valid[chosen]),
        ends=np.float32(group == 1),
        best=np.float32(group == 2),
        cut=np.float32(discount[last] > 0)[chosen],
        tail=rows.next_observation[last[chosen]],
        returns=returns[chosen],
        horizon=horizon[chosen],
    )


def _returns_to_go(reward, discount, boundary, gamma):
    """`episodes.returns_to_go` and `discounted_horizon` of `[T, ...]`, in numpy: a window is small, and compiling is not."""
    ended = (boundary > 0) | (discount == 0)
    carry = np.where(ended, 0.0, gamma * discount)
    returns, horizon = np.zeros(reward.shape, np.float32), np.zeros(reward.shape, np.float32)
    total, ones, known = np.zeros(reward.shape[1:]), np.zeros(reward.shape[1:]), np.zeros(reward.shape[1:], bool)
    for step in reversed(range(len(reward))):
        total, ones, known = reward[step] + carry[step] * total, 1.0 + carry[step] * ones, known | ended[step]
        returns[step], horizon[step] = np.where(known, total, np.nan), np.where(known, ones, np.nan)
    return returns, horizon


class Look(NamedTuple):
    """What one seed's agent is given of a probe's rows, and its values of them and of the ends, None where it has no Q."""

    given: Transition
    q: np.ndarray | None = None
    rest: np.ndarray | None = None


def _rows_asked(collects):
    """Rows of the online store in every question, so that one program serves phases with and without a store."""
    return 2 * NUM_ROWS + 2 * NUM_SPECIAL if collects else 0


def questions(probes, low, high, collects):
    """All rows that one seed's agent is asked about, and the last observations of their episodes.

    First the probes, the online one filled up with rows of zeros, then the first probe three times with a column set by hand.
    How many rows these are depends on the data set alone, so that one program answers in every round.
    """
    parts = {name: _with_columns(probe, low, high, name) for name, probe in probes.items()}
    if 'online' in parts:
        parts['online'] = jax.tree.map(lambda leaf: _filled(leaf, _rows_asked(collects)), parts['online'])
    first = next(iter(parts.values()))
    asked = [part._replace(extras={c: part.extras.get(c, _none_of(first.extras[c], part)) for c in first.extras})
             for part in parts.values()]  # fmt: skip
    tails = [_filled(probe.tail, len(part.reward)) for probe, part in zip(probes.values(), parts.values(), strict=True)]
    if collects and 'online' not in parts:
        asked.append(jax.tree.map(lambda leaf: _filled(leaf[:0], _rows_asked(collects)), first))
        tails.append(_filled(tails[0][:0], _rows_asked(collects)))
    asked.append(first._replace(reward=first.reward + 1.0))
    asked += [first._replace(discount=np.full_like(first.discount, value)) for value in (0.0, 1.0)]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves).astype(np.float32), *asked), np.concatenate(tails)


def _none_of(column, rows):
    """Zeros in the place of a column that these rows lack."""
    return np.zeros((len(rows.reward), *column.shape[1:]), np.float32)


def _filled(leaf, num):
    return np.concatenate([leaf, np.zeros((num - len(leaf), *leaf.shape[1:]), np.float32)])


def _with_columns(probe, low, high, name):
    """The rows with every column that `learn` computes; the return moves with the reward."""
    columns = {'return_to_go': probe.returns, 'discounted_horizon': probe.horizon, 'reward_low': low, 'reward_high': high,
               'source': SOURCES[name]}  # fmt: skip
    columns = {name: np.broadcast_to(np.float32(value), probe.rows.reward.shape) for name, value in columns.items()}
    return with_extras(probe.rows, **columns)


def answers(found, probes):
    """The answers to `questions`, taken apart: a `Look` by source, and three of the varied rows."""
    looks, first = {}, 0

    def part(first, num):
        each = {name: value[first : first + num] for name, value in found.items()}
        extras = {name: each[name] for name in ('return_to_go', 'bonus') if name in each}
        given = Transition(*(each.get(name) for name in Transition._fields[:-1]), extras)
        return Look(given, each.get('q'), each.get('rest'))

    for name, probe in probes.items():
        looks[name] = part(first, len(probe.uniform))
        first += len(probe.uniform)
    plain = len(found['observation'])  # what is varied comes behind, without the columns that nobody asks for
    each, num = (len(found['reward']) - plain) // 3, len(probes[next(iter(probes))].uniform)
    return looks, [part(plain + number * each, num) for number in range(3)]
