"""How much there is to gain from what a run has: `ooorl bound RUN_DIR --columns 0,1`."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from ooorl.data.in_sample import Bound, bound, grid_of
from ooorl.errors import UsageError
from ooorl.runner import earlier_runs, run_directory
from ooorl.runner.build import gamma_of
from ooorl.runner.prepare import prepare
from ooorl.runner.seed_list import parse_seeds


class Found(NamedTuple):
    """The bound with the data set of a run `alone` (None without one), and by seed with what it collected beside it.

    `line` says what was collected, '' where nothing was. `starts` is how many first observations the bounds are means over:
    those of what was collected, the environment's own, and where nothing was those of the data set.
    """

    run: str
    line: str
    columns: tuple[int, ...]
    bins: int
    gamma: float
    success: float
    starts: int
    alone: Bound | None
    seeds: dict[int, Bound]


def bound_run(text: str, columns: Sequence[int], bins: int, success: float | None = None) -> Found:
    """The best chain of recorded steps: with the run's data set alone, and with what each seed collected beside it.

    Args:
      text: RUN_DIR or RUN_DIR:store.
      columns: of the observation, that cells are made of.
      bins: cells along each column.
      success: the smallest reward of a success; that of the run's `success_reward` if not given.

    Raises:
      UsageError: if there is no such run or store, or no such column, or too many cells.
    """
    if bins < 2 or bins ** len(columns) > 2**24:
        raise UsageError(f'bins must be 2 or more, with at most {2**24:,} cells in all; got {bins} along {len(columns)} columns')
    if success is not None and not np.isfinite(success):
        raise UsageError(f'--success must be a finite reward; got {success}')
    directory, name = run_directory.named(text)
    settings = run_directory.read_config(directory, 'bound')
    table = settings.get('exploit', settings.get('agent', {}))
    success = table.get('sampling', {}).get('success_reward', 1.0) if success is None else success
    how = {'gamma': gamma_of(table) or 0.99, 'success': success}
    line, stores = _stores(directory, name, settings)
    dataset = prepare(settings).dataset
    data = None if dataset is None else dataset.transitions
    every = [*([] if data is None else [data]), *stores.values()]
    edges = grid_of([np.concatenate([own.observation, own.next_observation]) for own in every], list(columns), bins)
    starts = np.concatenate([_starts(own) for own in stores.values() or every])

    def of(rows):
        return bound(rows, starts, list(columns), edges, **how)

    alone = None if data is None else of(data)
    seeds = {seed: of(own if data is None else _joined(data, own)) for seed, own in stores.items()}
    return Found(text, line, tuple(columns), bins, **how, starts=len(starts), alone=alone, seeds=seeds)


def _stores(directory, name, settings):
    """A line about what was collected, and the rows of each seed; nothing for a run on data alone."""
    if settings['run']['scheme'] == 'offline' and not name:
        return '', {}
    text = f'{directory}:{name}' if name else str(directory)
    found, _, line = earlier_runs.load(text, None, 'bound')
    seeds = parse_seeds(settings['run']['seeds'])
    return line, {seed: earlier_runs.as_dataset(found, text, seeds=(place,)).transitions for place, seed in enumerate(seeds)}


def _starts(rows):
    ended = np.asarray(rows.extras['boundary']) > 0
    return np.asarray(rows.observation)[np.concatenate([[True], ended[:-1]])]


def _joined(one, other):
    one = one._replace(extras={'boundary': one.extras['boundary']})
    return jax.tree.map(lambda a, b: np.concatenate([a, b]), one, other)


def said(found: Found) -> list[str]:
    """Lines for people."""
    whose = 'of what was collected' if found.seeds else 'of the data set'
    lines = [found.line] if found.line else []
    lines.append(f'a success: a reward of {found.success:g} or more (--success); means over the {found.starts:,} starts {whose}')
    if found.alone is not None:
        lines.append(f'data alone: {_said({None: found.alone})}')
    if found.seeds:
        lines.append(f'with the store: {_said(found.seeds)}')
    return [*lines, _remark(found.columns, found.bins)]


def _said(bounds):
    """One sentence for the bounds of several seeds, or of `{None: rows}`: the seeds with a way, and why the others have none."""
    won = {seed: own for seed, own in bounds.items() if own.reached}
    none = {seed: own for seed, own in bounds.items() if not own.success_rows}
    apart = {seed: own for seed, own in bounds.items() if own.success_rows and not own.reached}
    parts = [_way(won, len(bounds))] if won else []
    if none:
        rows, most = max(own.rows for own in none.values()), max(own.largest_reward for own in none.values())
        which = _of(none, bounds)
        parts.append(f'{which}no row is a success (of {rows:,}, largest reward {most:.3g}): nothing to learn one from')
    if apart:
        rows = max(own.success_rows for own in apart.values())
        parts.append(f'{_of(apart, bounds)}no recorded way to a success from any start, though rows are one (at most {rows:,})')
    value = np.mean([own.value for own in bounds.values()])
    return '; '.join([*parts, f'best value {value:.3g}' if np.isfinite(value) else 'no row begins where the episodes do'])


def _way(won, num):
    steps, reached = [own.steps for own in won.values()], np.mean([own.reached for own in won.values()])
    spread = f' ({min(steps):.1f} to {max(steps):.1f})' if len(steps) > 1 else ''
    which = f', in {len(won)} of {num} seeds' if len(won) < num else ''
    return f'{np.mean(steps):.1f} steps to a success{spread}, from {reached:.0%} of the starts{which}'


def _of(some, bounds):
    """'seeds 3, 5: ' where these are some of several seeds."""
    return '' if len(some) == len(bounds) else f'seed{"s" * (len(some) > 1)} {", ".join(map(str, some))}: '


def _remark(columns, bins):
    return (
        f'no policy that keeps to recorded steps does better, up to cells ({bins} along each of columns {list(columns)}), which '
        'flatter; other --bins show by how much'
    )


def as_plain(found: Found) -> dict:
    """What was found as JSON has it; null where there is no way, or no start that rows begin at."""
    alone = None if found.alone is None else _plain(found.alone)
    return {**found._asdict(), 'alone': alone, 'seeds': {str(seed): _plain(own) for seed, own in found.seeds.items()}}


def _plain(own):
    return {key: value if np.isfinite(value) else None for key, value in own._asdict().items()}
