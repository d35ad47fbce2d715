"""Learning curves on OGBench beside published ones, scaled down; JSON results, a table from them.

    ooorl data make scene-play --out scene-play.npz --rows 250250
    python experiments/ogbench_curves.py --dataset scene=scene-play.npz             # every cell without a result; resumes
    python experiments/ogbench_curves.py --dataset scene=scene-play.npz --cells scene:1:ifql:small
    python experiments/ogbench_curves.py --table --published curves.csv             # what the results in the repository say

A cell is family:task:method:size. It runs `configs/<folder>/ogbench_manipulation.toml` with the method's tuned settings for that
family, in a run directory below `--out`; stopped at any moment, the same command goes on from the last checkpoint. Updates of
`--updates` and of the table are the published ones, steps of the critic; ReBRAC's agent here takes two of them in an update.
Published are means and deviations over 12 seeds of ColinQiyangLi/qam@f93efd2 (`exp_data`), every 50,000 updates, with ten
critics of 512 x 4, batches of 256 and 1,000,000 rows. The csv has the columns task, method, updates, seeds, success_mean,
success_std.
"""

import argparse
import csv
import json
import os
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import ogbench_figures

from ooorl.errors import UsageError
from ooorl.mapping import num_cores
from ooorl.reporting import writers
from ooorl.runner import config
from ooorl.runner.interruption import Interrupted
from ooorl.runner.prepare import prepare
from ooorl.runner.seed_list import parse_seeds
from ooorl.runner.session import execute
from ooorl.training.run import Diverged

HERE = Path(__file__).resolve().parent
CONFIGS, RESULTS, PREFIX = HERE.parent / 'configs', HERE / 'results', 'ogbench_curves-'

class Method(NamedTuple):
    """The folder of a method's config, its name in the published table, its tables, tuned settings.

    `tables` have networks, the last of them the critics; `steps` of the critic make one update of ours, published is one.
    """

    folder: str
    published: str
    tables: tuple[str, ...]
    tuned: dict[str, dict]
    steps: int = 1


def _tuned(key, *values):
    """The knob that is tuned for each family."""
    return {family: {key: value} for family, value in zip(FAMILIES, values, strict=True)}


FAMILIES = ('scene', 'puzzle-3x3', 'cube-double')
SPARSE = ('scene', 'puzzle-3x3')
# Tuned knobs: experiments/reproduce.py there. PA-RL was not published on these tasks: IFQL's, whose critic it has.
METHODS = {
    'ifql': Method('idql', 'IFQL', ('agent.policy', 'agent'), _tuned('agent.expectile', 0.9, 0.95, 0.9)),
    'fql': Method('fql', 'FQL', ('agent.policy', 'agent'), _tuned('agent.distil_weight', 300.0, 300.0, 300.0)),
    'edit': Method('expo', 'FEdit', ('agent', 'agent.policy', 'agent.critic'), _tuned('agent.edit_scale', 0.2, 0.2, 0.2)),
    'rebrac': Method('rebrac', 'ReBRAC', ('agent',), _tuned('agent.cloning_weight', 0.03, 0.1, 0.01), steps=2),
    'parl': Method('parl', 'PA-RL', ('agent.policy', 'agent.critic'), _tuned('agent.critic.expectile', 0.9, 0.95, 0.9)),
    'dsrl': Method('dsrl', 'DSRL', ('agent', 'agent.policy', 'agent.critic'), _tuned('agent.noise_bound', 0.4, 1.0, 1.0)),
    'qam': Method('qam', 'QAM', ('agent',), _tuned('agent.inverse_temperature', 1.0, 3.0, 1.0)),
}
# What networks and batches are; 'full' is what is published.
SIZES = {
    'tiny': {'width': 128, 'depth': 3, 'num_critics': 2, 'batch_size': 128},
    'small': {'width': 256, 'depth': 3, 'num_critics': 2, 'batch_size': 128},
    'full': {'width': 512, 'depth': 4, 'num_critics': 10, 'batch_size': 256},
}
KEPT = ('q/mean', 'q/target', 'q/loss', 'value/mean', 'policy/loss')


class Cell(NamedTuple):
    """One training: a family's task, a method, a size."""

    family: str
    task: int
    method: str
    size: str

    def __str__(self):
        return ':'.join(map(str, self))

    @property
    def environment(self) -> str:
        """The id that the published table has, too."""
        return f'{self.family}-play-singletask-task{self.task}-v0'

    @property
    def name(self) -> str:
        """For files and folders."""
        return str(self).replace(':', '-')


def all_cells() -> list[Cell]:
    """The cells in the order of their worth."""
    return [Cell(family, 1, method, 'small') for family in SPARSE for method in METHODS] + [Cell('scene', 1, 'ifql', 'full')]


def parse_cell(text: str) -> Cell:
    """'scene:1:ifql:small' as a cell.

    Raises:
      UsageError: where a part is unknown.
    """
    family, task, method, size = (*text.split(':'), *[''] * 4)[:4]
    known = family in FAMILIES and task in tuple('12345') and method in METHODS and size in SIZES
    if not known or text.count(':') != 3:
        choices = f'one of {FAMILIES}, 1 to 5, one of {tuple(METHODS)}, one of {tuple(SIZES)}'
        raise UsageError(f'--cells takes FAMILY:TASK:METHOD:SIZE, {choices}; got {text!r}')
    return Cell(family, int(task), method, size)


def settings_of(cell: Cell, dataset: str, seeds: str, updates: int, overrides) -> dict:
    """The config of a cell; `updates` as they are counted in the published table."""
    method, size = METHODS[cell.method], SIZES[cell.size]
    updates //= method.steps
    changed = {
        'run.seeds': seeds,
        'run.evaluate_every': max(updates // 2, 1),
        'offline.num_updates': updates,
        'environment.id': cell.environment,
        'environment.settings.reward': 'sparse' if cell.family in SPARSE else 'dense',
        'dataset.path': dataset,
        **{f'{table}.hidden': [size['width']] * size['depth'] for table in method.tables},
        f'{method.tables[-1]}.num_critics': size['num_critics'],
        'agent.sampling.batch_size': size['batch_size'] * method.steps,
        **method.tuned[cell.family],
    }
    texts = [f'{key}={json.dumps(value)}' for key, value in changed.items()]
    return config.read(CONFIGS / method.folder / 'ogbench_manipulation.toml', [*texts, *overrides])


def collected(cell: Cell, run_dir: Path, label: str = '') -> dict:
    """The result of a cell as far as its run directory has come; `label` says what was changed about it."""
    settings = tomllib.loads((run_dir / 'config.toml').read_text(encoding='utf-8'))
    rows = [json.loads(line) for line in (run_dir / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()]
    seeds = parse_seeds(settings['run']['seeds'])
    summary = run_dir / 'summary.json'
    known = json.loads(summary.read_text(encoding='utf-8')) if summary.is_file() else {}
    dataset = settings['dataset']
    return {
        'cell': str(cell),
        'label': label,
        'seeds': list(seeds),
        'updates_asked': settings['offline']['num_updates'],
        'num_episodes': settings['evaluation']['num_episodes'],
        'curve': _curve(rows, 'eval', seeds, ('success', 'length', 'return')),
        'metrics': _curve(rows, 'train', seeds, KEPT),
        'notes': known.get('notes', []),
        'dataset': {key: known.get('dataset', {}).get(key) for key in ('name', 'sha256', 'rows')},
        'wall_seconds': known.get('wall_seconds'),
        'times': known.get('times'),
        'versions': known.get('versions'),
        'config': {**settings, 'dataset': {**dataset, 'path': Path(dataset['path']).name}},
    }


def _curve(rows, kind, seeds, columns, most=20):
    """`{column: [points][seeds]}` and the updates of the points, at most `most` of them, the last one included."""
    found = {}
    for row in rows:
        if row['kind'] == kind:
            found.setdefault(row['updates'], {})[row['seed']] = row
    points = [updates for updates, by_seed in sorted(found.items()) if set(by_seed) == set(seeds)]
    points = points[:: -1][:: -(-len(points) // most) or 1][::-1]
    values = {name: [[found[u][s].get(name) for s in seeds] for u in points] for name in columns}
    return {'updates': points, **{name: column for name, column in values.items() if column and column[0][0] is not None}}


def _file(cell, label):
    return cell.name + (f'-{label}' if label else '')


def run_cell(cell: Cell, arguments, path: Path) -> None:
    """Trains a cell, or goes on with it, and writes its result, also of an unfinished one."""
    out = arguments.out / _file(cell, arguments.label)
    datasets = dict(text.split('=', 1) for text in arguments.dataset)
    if cell.family not in datasets:
        raise UsageError(f'--dataset {cell.family}=FILE is needed for {cell}; got {arguments.dataset}')
    prepared = prepare(settings_of(cell, datasets[cell.family], arguments.seeds, arguments.updates, arguments.set))
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        execute(prepared, out, resume=(out / 'config.toml').is_file())
    finally:
        if (out / 'metrics.jsonl').is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            writers.write_json(path, collected(cell, out, arguments.label))


def published(path: Path) -> dict[tuple[str, str, int], tuple[float, float]]:
    """Published (mean, deviation) by (task, method, updates)."""
    with open(path, newline='', encoding='utf-8') as file:
        return {
            (row['task'], row['method'], int(row['updates'])): (float(row['success_mean']), float(row['success_std']))
            for row in csv.DictReader(file)
        }


def table(results: Mapping[str, dict], known: Mapping) -> str:
    """One line for every evaluation of every result."""
    rows = []
    for _, result in sorted(results.items()):
        cell = parse_cell(result['cell'])
        method = METHODS[cell.method]
        for updates, success in zip(result['curve']['updates'], result['curve'].get('success', []), strict=True):
            updates *= method.steps
            there = known.get((cell.environment, method.published, updates))
            rows.append([
                f'{cell.family} {cell.task}',
                method.published,
                ', '.join(filter(None, (cell.size, result.get('label', '')))),
                f'{_rows(result):,}',
                f'{updates:,}',
                ' '.join(f'{value:.2f}' for value in success),
                f'{np.mean(success):.2f}',
                'no point there' if there is None else f'{there[0]:.2f} ± {there[1]:.2f}',
                '' if there is None else _verdict(float(np.mean(success)), *there),
            ])
    head = ['task', 'method', 'size', 'rows of data', 'updates', 'success by seed', 'mean', 'published', 'within two deviations']
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in [head, ['---'] * len(head), *rows])


def _rows(result):
    return result['dataset'].get('rows') or 0


def _verdict(mean, published_mean, deviation):
    return 'yes' if abs(mean - published_mean) <= 2.0 * deviation else f'no, by {mean - published_mean:+.2f}'


def all_curves(folder: Path) -> list[ogbench_figures.Curve]:
    """Curves of all results of a folder and of the released code, seeds of one setting together; updates as published ones."""
    found = []
    for result in read_results(folder).values():
        cell, label = parse_cell(result['cell']), result.get('label', '')
        updates = [METHODS[cell.method].steps * number for number in result['curve']['updates']]
        success = dict(zip(updates, result['curve'].get('success', []), strict=False))
        found.append(ogbench_figures.Curve(*_named(cell), ogbench_figures.setting_of(cell.size, label), success))
    released = ogbench_figures.released(folder, lambda text: _named(parse_cell(text)))
    return ogbench_figures.pooled(curve for curve in (*found, *released) if curve.success)


def _named(cell):
    return cell.environment, METHODS[cell.method].published


def read_results(folder: Path) -> dict[str, dict]:
    """Results by cell and label."""
    found = [json.loads(path.read_text(encoding='utf-8')) for path in sorted(folder.glob(f'{PREFIX}*.json'))]
    return {f'{result["cell"]} {result.get("label", "")}': result for result in found}


def _arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--cells', default='', metavar='FAMILY:TASK:METHOD:SIZE,...', help='default: all, by their worth')
    parser.add_argument('--dataset', action='append', default=[], metavar='FAMILY=FILE', help='made by `ooorl data make`')
    parser.add_argument('--updates', type=int, default=50_000)
    parser.add_argument('--seeds', default='0:2', metavar='A:B')
    parser.add_argument('--set', action='append', default=[], metavar='SECTION.KEY=VALUE', help='change the configs')
    parser.add_argument('--out', type=Path, default=Path('runs') / 'ogbench_curves', metavar='DIR', help='of the run directories')
    parser.add_argument('--label', default='', metavar='WORD', help='of cells that --set and --updates make others')
    parser.add_argument('--results', type=Path, default=RESULTS, metavar='DIR')
    parser.add_argument('--collect', action='store_true', help='only write the results of run directories as far as they are')
    parser.add_argument('--table', action='store_true', help='only print the table of the results')
    parser.add_argument('--published', type=Path, metavar='CSV', help='published curves: also a table of pooled seeds, figures')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Runs the cells that have no whole result yet, then prints the table."""
    arguments = _arguments(argv)
    if 'JAX_NUM_CPU_DEVICES' not in os.environ:
        jax.config.update('jax_num_cpu_devices', min(num_cores(), len(parse_seeds(arguments.seeds))))
    cells = [parse_cell(text) for text in arguments.cells.split(',')] if arguments.cells else all_cells()
    for cell in () if arguments.table else cells:
        path = arguments.results / f'{PREFIX}{_file(cell, arguments.label)}.json'
        if arguments.collect:
            if (arguments.out / _file(cell, arguments.label) / 'metrics.jsonl').is_file():
                writers.write_json(path, collected(cell, arguments.out / _file(cell, arguments.label), arguments.label))
            continue
        done = json.loads(path.read_text(encoding='utf-8'))['curve']['updates'] if path.is_file() else []
        if done and done[-1] * METHODS[cell.method].steps >= arguments.updates:
            continue
        print(f'--- {cell}', flush=True)
        try:
            run_cell(cell, arguments, path)
        except (Diverged, UsageError) as error:
            print(f'{cell}: {error}', file=sys.stderr, flush=True)
        except Interrupted:
            return 130
    known = published(arguments.published) if arguments.published else {}
    print(table(read_results(arguments.results), known))
    if known:
        curves = all_curves(arguments.results)
        print('', ogbench_figures.table(curves, known), *ogbench_figures.figures(curves, known, arguments.results), sep='\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
