"""One cell of OOO with the paper's networks and batches on antmaze-umaze: hours a seed on one core, resumed as often as it takes.

    python experiments/paper_size.py --dataset antmaze-umaze.hdf5 --seeds 2000          # begins, or goes on where it was stopped
    python experiments/paper_size.py --gather                                           # the result as far as it has come
    python experiments/paper_size.py --table

A seed is two run directories below --work: `configs/ooo/paper_size/antmaze_umaze.toml` (explorer, the recipe's weighted policy,
base method), and then the recipe's climbing policy on what that one collected. The result is written whenever a run ends or is
stopped.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import recipes

from ooorl.errors import UsageError
from ooorl.reporting import writers
from ooorl.runner import config, run_directory
from ooorl.runner.interruption import Interrupted
from ooorl.runner.prepare import prepare
from ooorl.runner.seed_list import parse_seeds
from ooorl.runner.session import execute
from ooorl.runner.summary import versions

HERE = Path(__file__).resolve().parent
CONFIG = HERE.parent / 'configs' / 'ooo' / 'paper_size' / 'antmaze_umaze.toml'
RESULT = 'paper_size-antmaze_umaze.json'
ARMS = {
    'pretrain': 'explorer, offline alone', 'explore': 'explorer with bonus', 'retrain@200000': 'OOO, weighted',
    'climb': 'OOO, climbing', 'plain-pretrain': 'base method, offline alone', 'plain-explore': 'base method',
}  # fmt: skip


WHOLE = ('explore', 'retrain@200000', 'climb', 'plain-explore')  # evaluated ten times each


def directories(work: Path, seed: int) -> tuple[Path, Path]:
    """Where a seed's two runs lie."""
    return work / f'antmaze_umaze-{seed}', work / f'antmaze_umaze-{seed}-climb'


def climbing(table: Mapping, store: Path) -> dict:
    """The config of the climbing policy, on what an earlier run collected."""
    recipe = recipes.read(HERE / 'recipe.toml')
    table = recipes.applied(table, {'climb': recipe['climb']}, 'climb')
    kept = {key: value for key, value in table['ooo'].items() if key != 'without_bonus'}
    return {**table, 'ooo': kept, 'run': {**table['run'], 'store': str(store)}}


def run_seed(dataset: str, seed: int, work: Path) -> None:
    """Runs what is left of a seed.

    Raises:
      Interrupted: if it is stopped meanwhile; its directories hold checkpoints.
    """
    first, second = directories(work, seed)
    table = config.read(CONFIG, [f"run.seeds='{seed}'", f"dataset.path='{dataset}'"])
    for directory, own in ((first, table), (second, climbing(table, first))):
        if not (directory / 'summary.json').exists() or writers.read_json(directory / 'summary.json')['status'] != 'complete':
            execute(prepare(own), directory, resume=directory.exists())


def _gathered_seed(found: tuple[Path, Path]) -> dict:
    phases, seconds = {}, 0.0
    for directory in filter(Path.is_dir, found):
        for row in writers.read_rows(directory / 'metrics.jsonl'):
            name = row['phase'] if directory == found[0] else 'climb'
            own = phases.setdefault(name, {'updates': 0, 'env_steps': 0, 'curve': []})
            own |= {key: max(own[key], row[key]) for key in ('updates', 'env_steps')}
            if row['kind'] == 'eval':
                own['curve'].append([row['updates'], row['env_steps'], row['success']])
        if (directory / 'summary.json').exists():
            seconds += writers.read_json(directory / 'summary.json')['wall_seconds']
    return {'wall_seconds': round(seconds, 1), 'phases': phases}


def gathered(work: Path) -> dict:
    """What all seeds have come to: of each phase its updates and its curve, `[updates, environment steps, success]`."""
    first = {path.name.rpartition('-')[2]: path for path in sorted(work.glob('antmaze_umaze-*')) if path.name.count('-') == 1}
    if not first:
        raise UsageError(f'--work needs run directories antmaze_umaze-SEED; {work} has none; begin one with --dataset')
    seeds = {seed: _gathered_seed(directories(work, int(seed))) for seed in first}
    settings = run_directory.read_config(next(iter(first.values())), '--work')
    dataset = {**settings['dataset'], 'path': Path(settings['dataset']['path']).name}
    whole = all(len(own['phases'].get(name, {}).get('curve', ())) == 10 for own in seeds.values() for name in WHOLE)
    return {'complete': whole, 'seeds': seeds, 'versions': versions(), 'config': {**settings, 'dataset': dataset}}


def table(result: Mapping) -> str:
    """The result as Markdown: by seed and arm, updates and steps done, success at the end and the curve's points before."""
    lines = ['| seed | arm | updates | environment steps | newest success | before |', '|---|---|---|---|---|---|']
    for seed, own in result['seeds'].items():
        for name, words in ARMS.items():
            if name in own['phases']:
                found = own['phases'][name]
                scores = [f'{success:.2f}' for _, _, success in found['curve']]
                newest, before = (scores[-1], ' '.join(scores[:-1])) if scores else ('not yet', '')
                lines.append(f'| {seed} | {words} | {found["updates"]:,} | {found["env_steps"]:,} | {newest} | {before} |')
            else:
                lines.append(f'| {seed} | {words} | not begun | | | |')
    return '\n'.join(lines)


def main(argv: list[str] | None = None) -> int:
    """Goes on with the seeds, then writes the result and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--dataset', default='', metavar='FILE', help='antmaze-umaze, 100,000 rows; without it nothing is run')
    parser.add_argument('--seeds', default='2000:2003', metavar='A:B')
    parser.add_argument('--work', type=Path, default=Path('runs/paper_size'), metavar='DIR', help='run directories')
    parser.add_argument('--out', type=Path, default=HERE / 'results', metavar='DIR')
    parser.add_argument('--gather', action='store_true', help='only write the result of the directories in --work')
    parser.add_argument('--table', action='store_true', help='only print the table of the result in --out')
    arguments = parser.parse_args(argv)
    try:
        for seed in parse_seeds(arguments.seeds) if arguments.dataset and not (arguments.gather or arguments.table) else ():
            run_seed(arguments.dataset, seed, arguments.work)
    except Interrupted:
        print('stopped after a checkpoint; the same command goes on')
    finally:
        if not arguments.table:
            arguments.out.mkdir(parents=True, exist_ok=True)
            writers.write_json(arguments.out / RESULT, gathered(arguments.work))
    print(table(writers.read_json(arguments.out / RESULT)))
    return 0


if __name__ == '__main__':
    sys.exit(main())
