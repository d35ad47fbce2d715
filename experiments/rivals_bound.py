"""What the rows of a cell of `rivals.py` allow: the in-sample bound on the data and on what OOO's explorers collected.

    python experiments/rivals_bound.py --cells cube_single --dataset cube_single=FILE     # cells that have no result yet
    python experiments/rivals_bound.py --table

Exploration alone is run again, from the same seeds as the cell, into a run directory, `--work`, which `ooorl bound` reads like
any other. `same_rows` says whether as many rows with a success came of it as the cell itself had.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import recipes
from cells import Cell
from rivals import HERE, phases_of, settings_of
from rivals_table import OWN, PREFIX, curve

from ooorl.errors import UsageError
from ooorl.reporting import writers
from ooorl.runner import earlier_runs
from ooorl.runner.bound import as_plain, bound_run
from ooorl.runner.session import execute
from ooorl.runner.summary import versions

BOUND = 'rivals_bound-'
HEADINGS = ('cell', 'rows of the data', 'collected, a seed', 'rows with a success', 'steps of the best way', 'OOO at the end')


class Cells(NamedTuple):
    """What a task's bound is over: columns of the observation, bins along each, the least reward of a success."""

    columns: tuple[int, ...]
    bins: int
    success: float


TASKS = {
    'cube_single': Cells((19, 20, 21), 20, 0.0),  # where the cube is
    'hammer_truncated': Cells((26, 36, 37, 38), 20, 75.0),  # the nail's depth, where the hammer is; 75 more with the nail in
    'hammer_late': Cells((26, 36, 37, 38), 20, 75.0),
    'pointmaze_medium': Cells((0, 1), 40, 0.0),
    'pointmaze_medium_stitch_long': Cells((0, 1), 40, 0.0),
    'pointmaze_large': Cells((0, 1), 40, 0.0),
    'pointmaze_large_long': Cells((0, 1), 40, 0.0),
    'pointmaze_large_stitch': Cells((0, 1), 40, 0.0),
}


def collected(task: str, overrides: list[str], work: Path, recipe: Mapping) -> Path:
    """The run directory of a cell's exploration, seed for seed as `rivals.py` does it.

    Randomness comes from the number of a phase, so those of retraining stay in their places, as one update of the explorer.
    """
    prepared, phases = phases_of(settings_of(Cell(task, OWN), overrides), recipe)
    explorer = next(phase.agent for phase in phases if phase.name.startswith('explore@'))
    kept = [phase.name == 'pretrain' or phase.name.startswith('explore@') for phase in phases]
    cut = [replace(phase, agent=explorer, num_updates=1, start=None) for phase in phases]
    phases = tuple(own if keep else other for own, other, keep in zip(phases, cut, kept, strict=True))
    out = work / f'{task}-explore'
    execute(prepared._replace(setup=replace(prepared.setup, phases=phases)), out, resume=out.exists())
    return out


def measured(task: str, directory: Path, cell: Mapping) -> dict:
    """The bound as plain data, with the threshold of the task; and whether the result of the `cell` counted the same rows."""
    how = TASKS[task]
    found, own = (as_plain(bound_run(str(directory), how.columns, how.bins, success)) for success in (how.success, None))
    same = {} if 'buffer' not in cell else {'same_rows': _collected(own) == cell['buffer']['success_rows']}
    rows = earlier_runs.load(str(directory), None, 'bound')[0].rows.storage
    highest = np.asarray(rows.next_observation)[..., list(how.columns)].max(axis=1).tolist()  # of each column, by seed
    found = {key: value for key, value in found.items() if key not in ('run', 'line')}  # paths of a machine
    return {**found, 'highest': highest, **same}


def _collected(found):
    """How many rows with a success each seed collected."""
    return [one['success_rows'] - found['alone']['success_rows'] for one in found['seeds'].values()]


def table(found: Mapping[str, dict], results: Path) -> str:
    """The bounds as Markdown, a row a task; numbers by seed."""
    lines = ['| ' + ' | '.join(HEADINGS) + ' |', '|---' * len(HEADINGS) + '|']
    for task, own in found.items():
        seeds, alone = list(own['seeds'].values()), own['alone']
        ends = curve(writers.read_json(Cell(task, OWN).path(results, PREFIX))).success[:, -1]
        rows = [f'{alone["rows"]:,}', f'{seeds[0]["rows"] - alone["rows"]:,}', _successes(own)]
        entries = [task, *rows, _by_seed(map(_steps, seeds)), _by_seed(f'{end:.2f}' for end in ends)]
        lines.append('| ' + ' | '.join(entries) + ' |')
    return '\n'.join(lines)


def _by_seed(words):
    words = list(words)
    return words[0] if len(set(words)) == 1 else ', '.join(words)


def _successes(own):
    return f'{own["alone"]["success_rows"]} + {_by_seed(map(str, _collected(own)))}'


def _steps(one):
    if one['steps'] is None:
        return 'no success' if not one['success_rows'] else 'no way'
    return f'{one["steps"]:.0f}' if one['reached'] == 1.0 else f'{one["steps"]:.0f} ({one["reached"]:.0%})'


def _arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--cells', default='', metavar='TASK,...', help='default: every one')
    parser.add_argument('--out', type=Path, default=HERE / 'results', metavar='DIR', help='the results of rivals.py lie here too')
    parser.add_argument('--work', type=Path, default=Path('runs/rivals'), metavar='DIR', help='run directories')
    parser.add_argument('--recipe', type=Path, default=HERE / 'recipe.toml', metavar='FILE.toml')
    parser.add_argument('--dataset', action='append', default=[], metavar='TASK=PATH', help='where the data of a task lie')
    parser.add_argument('--set', action='append', default=[], metavar='SECTION.KEY=VALUE', help='change the configs')
    parser.add_argument('--table', action='store_true', help='only print what the results in --out say')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measures the cells that have no bound yet, then prints the table."""
    arguments = _arguments(argv)
    wanted = arguments.cells.split(',') if arguments.cells else list(TASKS)
    unknown = [task for task in wanted if task not in TASKS]
    if unknown:
        raise UsageError(f'--cells takes {", ".join(TASKS)}; got {unknown[0]}')
    paths = dict(text.split('=', 1) for text in arguments.dataset)
    jax.config.update('jax_num_cpu_devices', 1)
    for task in () if arguments.table else wanted:
        path, cell = arguments.out / f'{BOUND}{task}.json', writers.read_json(Cell(task, OWN).path(arguments.out, PREFIX))
        if not path.exists():
            data = [f"dataset.path='{paths[task]}'"] if task in paths else []
            overrides = [f"run.seeds='{cell['seeds']}'", *arguments.set, *data]
            directory = collected(task, overrides, arguments.work, recipes.read(arguments.recipe))
            writers.write_json(path, {'task': task, **measured(task, directory, cell), 'versions': versions()})
    found = {task: arguments.out / f'{BOUND}{task}.json' for task in TASKS}
    print(table({task: writers.read_json(path) for task, path in found.items() if path.exists()}, arguments.out))
    return 0


if __name__ == '__main__':
    sys.exit(main())
