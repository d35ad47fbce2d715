"""Algorithms by tasks: cells with intervals, and over all tasks what rliable computes. Numbers in, plain data out.

Over all tasks only those count in which every algorithm has every seed of its cell: a mean over tasks that one side lacks would
compare different things. How many these are, and which are left out, is part of the result. Intervals of a cell are those of
`intervals`, over all tasks those of a stratified bootstrap (`stats`), both over seeds, and there is none below three seeds.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ooorl.errors import UsageError
from ooorl.reporting import stats
from ooorl.reporting.intervals import Interval, score_interval
from ooorl.reporting.results import METRICS, STATUSES, Result

PROTOCOLS = {'last': 'last evaluation', 'mean_last': 'mean of the last evaluations'}
BEST = {'normalised': 100.0, 'success': 1.0}  # what optimality gaps are counted from
AGGREGATES = ('mean', 'iqm', 'median', 'optimality_gap')
NUM_THRESHOLDS = 41


class Cell(NamedTuple):
    """One algorithm on one task.

    Attributes:
      scores: by protocol, one number a complete seed, in order of seeds.
      intervals: by protocol, of the mean; None without a complete seed.
      counts: how many seeds have each status.
    """

    scores: dict[str, list[float]]
    intervals: dict[str, Interval | None]
    counts: dict[str, int]


class Comparison(NamedTuple):
    """Everything that a table says.

    Attributes:
      metric: 'normalised', 'success' or 'return'.
      algorithms, tasks: in order.
      cells: by (algorithm, task); missing where nothing was planned.
      shared: tasks that the aggregates are over.
      aggregates: by protocol, algorithm and name of `AGGREGATES`; empty where scores of tasks have no common scale.
      improvement: by protocol and pair of algorithms, the probability that the first improves on the second.
      profiles: by algorithm, `(thresholds, fraction, low, high)` of the last evaluation.
      results: what it was made from.
      notes: one sentence each.
    """

    metric: str
    algorithms: list[str]
    tasks: list[str]
    cells: dict[tuple[str, str], Cell]
    shared: list[str]
    aggregates: dict
    improvement: dict
    profiles: dict
    results: list[Result]
    notes: list[str]


def compare(results: Sequence[Result]) -> Comparison:
    """The comparison of all algorithms on all tasks.

    Raises:
      UsageError: if there is nothing to compare, or an algorithm has two results for one task and seed.
    """
    if not results:
        raise UsageError('a table needs runs; none were found; name the directory of a sweep or of runs')
    _refuse_twins(results)
    metric = _metric(results)
    algorithms, tasks = (list(dict.fromkeys(getattr(one, name) for one in results)) for name in ('algorithm', 'task'))
    grouped = {}
    for one in sorted(results, key=lambda one: one.seed):
        grouped.setdefault((one.algorithm, one.task), []).append(one)
    cells = {key: _cell(own, metric) for key, own in grouped.items()}
    shared = [task for task in tasks if _is_shared(cells, algorithms, task)]
    matrices = {
        protocol: {name: _matrix([cells[name, task].scores[protocol] for task in shared]) for name in algorithms}
        for protocol in PROTOCOLS
    } if shared and (metric in BEST or len(tasks) == 1) else {}  # fmt: skip
    return Comparison(
        metric=metric, algorithms=algorithms, tasks=tasks, cells=cells, shared=shared,
        aggregates={p: {name: _aggregates(scores, metric) for name, scores in own.items()} for p, own in matrices.items()},
        improvement={p: _improvements(own) for p, own in matrices.items()},
        profiles=_profiles(matrices.get('last', {}), metric),
        results=list(results), notes=_notes(results, tasks, shared, metric),
    )  # fmt: skip


def _refuse_twins(results):
    seen = {}
    for one in results:
        other = seen.setdefault((one.algorithm, one.task, one.seed), one)
        if other is not one:
            raise UsageError(
                f'a table needs one result for an algorithm, task and seed; {one.algorithm} on {one.task} has seed {one.seed} '
                f'in {other.run or "one run"} and in {one.run or "another"}; name one of them, or give other seeds'
            )


def _metric(results):
    """The leading score that all complete results have: normalised, or success where anything succeeded, or the return."""
    complete = [one.last for one in results if one.status == 'complete']
    shared = [metric for metric in METRICS if complete and all(metric in own for own in complete)]
    one_task = len({one.task for one in results}) == 1
    if shared[:1] == ['success'] and 'return' in shared and one_task and not any(own['success'] for own in complete):
        return 'return'
    return shared[0] if shared else 'return'


def _cell(results, metric):
    complete = [one for one in results if one.status == 'complete' and metric in one.last]
    scores = {protocol: [getattr(one, protocol)[metric] for one in complete] for protocol in PROTOCOLS}
    intervals = {protocol: score_interval(metric, own) if own else None for protocol, own in scores.items()}
    return Cell(scores, intervals, dict(Counter(one.status for one in results)))


def _is_shared(cells, algorithms, task):
    own = [cells.get((name, task)) for name in algorithms]
    return all(cell is not None and set(cell.counts) == {'complete'} for cell in own)


def _matrix(columns):
    """`[S, T]` with the seeds that all tasks have; rliable's statistics are of such arrays."""
    num = min(map(len, columns))
    return np.array([column[:num] for column in columns]).T


def _aggregates(scores, metric):
    best = BEST.get(metric, float(scores.max()))
    chosen = {
        'mean': stats.mean_of_runs, 'iqm': stats.iqm_of_runs, 'median': stats.median_of_task_means,
        'optimality_gap': lambda own: stats.optimality_gap(own, best),
    }  # fmt: skip
    return {name: stats.rliable_interval(scores, chosen[name]) for name in AGGREGATES}


def _improvements(matrices):
    return {
        (one, other): stats.probability_of_improvement(matrices[one], matrices[other])
        for one in matrices for other in matrices if one != other
    }  # fmt: skip


def _profiles(matrices, metric):
    if not matrices:
        return {}
    every = np.concatenate([scores.ravel() for scores in matrices.values()])
    high = max(BEST.get(metric, -np.inf), float(every.max()))
    thresholds = np.linspace(min(0.0, float(every.min())), high, NUM_THRESHOLDS)
    return {name: (thresholds, *stats.performance_profile(scores, thresholds)) for name, scores in matrices.items()}


def _notes(results, tasks, shared, metric):
    counts = Counter(one.status for one in results)
    words = ', '.join(f'{counts[status]} {status}' for status in STATUSES if counts[status])
    notes = [f'{len(results)} seeds in all: {words}.']
    left = [task for task in tasks if task not in shared]
    if left and metric in BEST:
        lacking = f'not every algorithm has every seed on {", ".join(left)}'
        notes.append(f'Over all tasks {len(shared)} of {len(tasks)} count; {lacking}.')
    sizes = Counter((one.algorithm, one.task) for one in results)
    if len(set(sizes.values())) > 1 and shared:
        notes.append('Over all tasks as many seeds of each algorithm count, the first ones, as all of its tasks have.')
    if metric not in BEST and len(tasks) > 1:
        notes.append('Returns of different tasks have no common scale: nothing is said over all tasks.')
    for task in tasks:
        kinds = {tuple(sorted(one.data.items())) for one in results if one.task == task and one.data}
        if len(kinds) > 1:
            notes.append(f'WARNING: runs on {task} differ in their data, environment or number of episodes; see the CSV.')
    for name, task in dict.fromkeys((one.algorithm, one.task) for one in results):
        runs = {one.settings: one.run for one in results if (one.algorithm, one.task) == (name, task) and one.settings}
        if len(runs) > 1:
            which = ' and '.join(runs.values())
            notes.append(f'WARNING: {name} on {task} puts runs of different settings together, such as {which}.')
    short = {one.num_last for one in results if one.status == 'complete'}
    if short:
        least, most = min(short), max(short)
        notes.append(f'The mean of the last evaluations is over {most if least == most else f"{least} to {most}"} of them.')
    return notes
