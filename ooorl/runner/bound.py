"""How much there is to gain from what a run collected: `ooorl bound RUN_DIR --columns 0,1`."""

from collections.abc import Sequence

import jax
import numpy as np

from ooorl.data.in_sample import bound, grid_of
from ooorl.errors import UsageError
from ooorl.runner import earlier_runs, run_directory
from ooorl.runner.build import gamma_of
from ooorl.runner.prepare import prepare


def bound_run(text: str, columns: Sequence[int], bins: int) -> list[str]:
    """Lines on the best chain of recorded steps: with the run's data set alone, and with what each seed collected beside it.

    Args:
      text: RUN_DIR or RUN_DIR:store.
      columns: of the observation, that cells are made of.
      bins: cells along each column.

    Raises:
      UsageError: if there is no such run or store, or no such column, or too many cells.
    """
    if bins < 2 or bins ** len(columns) > 2**24:
        raise UsageError(f'bins must be 2 or more, with at most {2**24:,} cells in all; got {bins} along {len(columns)} columns')
    directory, name = run_directory.named(text)
    settings = run_directory.read_config(directory, 'bound')
    table = settings.get('exploit', settings.get('agent', {}))
    how = {'gamma': gamma_of(table) or 0.99, 'success': table.get('sampling', {}).get('success_reward', 1.0)}
    found, _, line = earlier_runs.load(f'{directory}:{name}' if name else str(directory), None, 'bound')
    dataset = prepare(settings).dataset
    data = None if dataset is None else dataset.transitions
    stores = [earlier_runs.as_dataset(found, text, seeds=(seed,)).transitions for seed in range(found.rows.size.shape[0])]
    every = [*([] if data is None else [data]), *stores]
    edges = grid_of([np.concatenate([own.observation, own.next_observation]) for own in every], list(columns), bins)
    starts = np.concatenate([_starts(own) for own in every])
    each = [store if data is None else _joined(data, store) for store in stores]
    both = [bound(rows, starts, list(columns), edges, **how) for rows in each]
    lines = [line] if data is None else [line, f'data alone: {_said([bound(data, starts, list(columns), edges, **how)])}']
    return [*lines, f'with the store: {_said(both)}', _remark(columns, bins)]


def _starts(rows):
    ended = np.asarray(rows.extras['boundary']) > 0
    return np.asarray(rows.observation)[np.concatenate([[True], ended[:-1]])]


def _joined(one, other):
    one = one._replace(extras={'boundary': one.extras['boundary']})
    return jax.tree.map(lambda a, b: np.concatenate([a, b]), one, other)


def _said(bounds):
    steps, value, reached = (np.mean([getattr(own, name) for own in bounds]) for name in ('steps', 'value', 'reached'))
    if not np.isfinite(steps) and reached == 0.0:
        return f'no recorded way to a success from any start; best value {value:.3g}'
    spread = f' ({min(b.steps for b in bounds):.1f} to {max(b.steps for b in bounds):.1f})' if len(bounds) > 1 else ''
    return f'{steps:.1f} steps to a success{spread}, from {reached:.0%} of the starts; best value {value:.3g}'


def _remark(columns, bins):
    return (
        f'no policy that keeps to recorded steps does better, up to cells ({bins} along each of columns {list(columns)}), which '
        'flatter; other --bins show by how much'
    )
