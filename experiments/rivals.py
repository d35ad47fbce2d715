"""OOO beside WSRL, RLPD and Cal-QL at equal environment steps, on tasks whose data miss the goal: curves and the area under them.

    python experiments/rivals.py --dataset pointmaze_medium=FILE    # every cell whose result is not there yet; rivals resume
    python experiments/rivals.py --cells pointmaze_medium:wsrl --dataset pointmaze_medium=FILE
    python experiments/rivals.py --cells pointmaze_medium --seeds 2005:2010 --added    # more seeds, in files of their own
    python experiments/rivals.py --table                            # what the results in the repository say; draws the figures

A cell is task:method and runs `configs/rivals/<task>-<method>.toml`. OOO is the whole recipe (`recipe.toml`): at each budget of
`retrain_at` it retrains two policies and deploys, seed by seed, what a trial prefers. Its point on the curve lies at the budget
plus the steps of that trial, so that rivals are given as many steps as it can have taken. Seeds from 2000 on are for the numbers
that are shown, those from 1000 on for choosing settings.
"""

import argparse
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import recipes
from cells import Cell, chosen, read_results
from ooo_claims import advanced, buffer, portable
from rivals_table import ADDED, METHODS, OWN, PREFIX, figures, joined, told

from ooorl.errors import UsageError
from ooorl.reporting import writers
from ooorl.runner import config
from ooorl.runner.choice import as_plain
from ooorl.runner.prepare import Prepared, make_environments, prepare
from ooorl.runner.session import execute
from ooorl.runner.summary import versions
from ooorl.training import deployment
from ooorl.training.phases import Phase
from ooorl.training.programs import Programs
from ooorl.training.run import Diverged

HERE = Path(__file__).resolve().parent
CONFIGS = HERE.parent / 'configs' / 'rivals'
STARTS = ('cube_held',)  # tasks whose environment begins in recorded states of a file, `--starts`
_WHOLE = (
    "environment.id='ooorl/cube-single-singletask-task1-v0'", 'environment.settings={horizon=100}',  # OGBench: 200
    'evaluation.num_episodes=5', 'run.updates_per_round=375',
)  # fmt: skip
_LONG = {  # twice the steps of pointmaze-large
    'ooo': ('ooo.num_env_steps=160000', 'ooo.explore_updates=20000', 'ooo.retrain_at=[0,80000,160000]'),
    'wsrl': ('wsrl.num_env_steps=170000', 'wsrl.num_updates=10375'),
    'rlpd': ('online.num_env_steps=166000', 'online.num_updates=20750'),
    'calql': ('finetune.num_env_steps=170000', 'finetune.num_updates=10625'),
}
VARIANTS = {  # tasks that are another one, with other data or with settings changed, method by method
    'pointmaze_medium_stitch': ('pointmaze_medium', {}),
    'pointmaze_medium_stitch_long': ('pointmaze_medium', {
        'ooo': ('ooo.num_env_steps=100000', 'ooo.explore_updates=12500', 'ooo.retrain_at=[0,100000]'),
        'wsrl': ('wsrl.num_env_steps=106000', 'wsrl.num_updates=6375'),
        'rlpd': (
            'online.num_env_steps=102000', 'online.num_updates=12750', 'run.evaluate_every=2550', 'run.updates_per_round=2550',
        ),
        'calql': ('finetune.num_env_steps=106000', 'finetune.num_updates=6625'),
    }),
    'pointmaze_large_long': ('pointmaze_large', _LONG),
    'pointmaze_large_stitch': ('pointmaze_large', _LONG),
    'hammer_late': ('hammer_truncated', dict.fromkeys(METHODS, ('dataset.first_rows=26',))),
    'cube_single': ('cube_held', {
        'ooo': _WHOLE,
        'wsrl': (*_WHOLE, 'wsrl.num_env_steps=6000', 'wsrl.num_updates=700', 'run.evaluate_every=350'),
        'rlpd': (*_WHOLE, 'online.num_env_steps=5600', 'online.num_updates=700', 'run.evaluate_every=350'),
        'calql': (*_WHOLE, 'finetune.num_env_steps=6000', 'finetune.num_updates=750', 'run.evaluate_every=375'),
    }),
}  # fmt: skip


def all_cells() -> list[Cell]:
    """Every cell that has a config or is a variant of one, tasks one after another."""
    cells = [Cell(*path.stem.rsplit('-', 1)) for path in CONFIGS.glob('*.toml')]
    cells += [Cell(task, cell.arm) for task, (base, _) in VARIANTS.items() for cell in cells if cell.task == base]
    return sorted(cells, key=lambda cell: (cell.task, list(METHODS).index(cell.arm)))


def phases_of(table: Mapping, recipe: Mapping) -> tuple[Prepared, tuple[Phase, ...]]:
    """OOO with the recipe, its exploration cut at every budget so that the explorer of each is a candidate.

    Phases: pretrain, data (retraining on the data alone); then for each budget T explore@T, retrain@T, climb@T.
    """
    prepared = prepare(recipes.applied(table, recipe))
    made = {phase.name: phase for phase in prepared.setup.phases}
    climb = {phase.name: phase for phase in prepare(recipes.applied(table, recipe, 'climb')).setup.phases}
    whole, budgets = made['explore'], [budget for budget in prepared.config['ooo']['retrain_at'] if budget]
    data = replace(made['retrain@0'], name='data', store=None, online_limit=None)
    phases, before, steps = [*([made['pretrain']] if 'pretrain' in made else []), data], whole.start, 0
    for budget in budgets:
        share = (budget - steps) / whole.num_env_steps
        updates = round(share * whole.num_updates)
        piece = replace(whole, name=f'explore@{budget}', start=before, num_env_steps=budget - steps, num_updates=updates)
        phases += [piece, made[f'retrain@{budget}'], replace(climb[f'retrain@{budget}'], name=f'climb@{budget}')]
        before, steps = piece.name, budget
    return prepared, tuple(phases)


def deployed(setup, settings: Mapping, state, last: Mapping, budget: int, num_episodes: int) -> dict:
    """What the trial deploys at a budget: success by seed, the steps by then with those of the trial, and the trial itself."""
    names = (f'retrain@{budget}', f'climb@{budget}', 'data', f'explore@{budget}')
    by_name = {phase.name: phase for phase in setup.phases}
    candidates = [deployment.Candidate(name, by_name[name].agent, state.finished[name]) for name in names]
    short = {**settings, 'evaluation': {**settings['evaluation'], 'num_episodes': num_episodes}}
    _, evaluation = make_environments(short, len(setup.seeds))
    observation = deployment.states_of(setup.dataset, state.stores['online'], len(setup.seeds))
    choice = deployment.choose(Programs(replace(setup, evaluation=evaluation)), candidates, candidates[0], observation)
    success = [last['eval', name, seed]['success'] for name, seed in zip(choice.chosen, setup.seeds, strict=True)]
    taken = np.sum(list(choice.steps.values()), axis=0)
    return {'env_steps': (budget + taken).tolist(), 'success': success, 'trial': as_plain(choice)}


def run_own(settings: Mapping, recipe: Mapping) -> dict:
    """OOO's result: its curve by seed, and every candidate's at each budget."""
    prepared, phases = phases_of(settings, recipe)
    setup, last = replace(prepared.setup, phases=phases), {}
    state = advanced(setup, None, last, {})
    points = {}
    for phase in phases:
        if phase.name.startswith('climb@'):
            budget = phase.online_limit
            points[budget] = deployed(setup, prepared.config, state, last, budget, recipe['ooo']['episodes'])
    arms = {phase.name: [last['eval', phase.name, seed]['success'] for seed in setup.seeds] for phase in phases}
    columns = [arms['data'], *(point['success'] for point in points.values())]
    steps = [[0.0] * len(setup.seeds), *(point['env_steps'] for point in points.values())]
    found = {'env_steps': np.transpose(steps).tolist(), 'success': np.transpose(columns).tolist(), 'arms': arms}
    trials = {str(budget): point['trial'] for budget, point in points.items()}
    collected = buffer(state.stores['online'], prepared.config['exploit']['sampling'].get('success_reward', 1.0))
    return {**found, 'trials': trials, 'buffer': collected, 'recipe': dict(recipe), 'config': portable(prepared.config)}


def run_rival(settings: Mapping, work: Path) -> dict:
    """A rival's result: its curve from the end of its offline phase on; without one it begins at 0."""
    prepared = prepare(settings)
    summary = execute(prepared, work, resume=work.exists())
    rows = [row for row in writers.read_rows(work / 'metrics.jsonl') if row['kind'] == 'eval']
    names = [phase['name'] for phase in summary['phases']]
    offline, online = [row for row in rows if row['phase'] == 'offline'], [row for row in rows if row['phase'] == names[-1]]
    success = []
    for seed in summary['seeds']:
        first = [row['success'] for row in offline if row['seed'] == seed][-1:] or [0.0]
        success.append([*first, *(row['success'] for row in online if row['seed'] == seed)])
    steps = [0, *sorted({row['env_steps'] for row in online})]
    return {'env_steps': [steps] * len(success), 'success': success, 'config': portable(prepared.config)}


def settings_of(cell: Cell, overrides: Iterable[str]) -> dict:
    """The config of a cell: that of its method, with the changes of a variant."""
    base, changed = VARIANTS.get(cell.task, (cell.task, {}))
    settings = config.read(CONFIGS / f'{base}-{cell.arm}.toml', (*changed.get(cell.arm, ()), *overrides))
    return {**settings, 'name': '-'.join(cell)}


def run_cell(cell: Cell, overrides: Iterable[str], work: Path, recipe: Mapping) -> dict:
    """Runs a cell and returns its result as plain data: steps and success `[S][K]`, the trials of OOO, config, versions."""
    began, settings = time.monotonic(), settings_of(cell, overrides)
    found = run_own(settings, recipe) if cell.arm == OWN else run_rival(settings, work / str(cell).replace(':', '-'))
    if cell.task in STARTS:
        own = found['config']['environment']['settings']
        own['starts'] = Path(own['starts']).name
    seconds = round(time.monotonic() - began, 1)
    head = {'cell': str(cell), 'seeds': found['config']['run']['seeds'], 'wall_seconds': seconds, 'versions': versions()}
    return {**head, 'num_episodes': found['config']['evaluation']['num_episodes'], **found}


def _arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--cells', default='', metavar='TASK[:METHOD],...', help='default: every one')
    parser.add_argument('--seeds', default='2000:2005', metavar='A:B')
    parser.add_argument('--out', type=Path, default=HERE / 'results', metavar='DIR')
    parser.add_argument('--work', type=Path, default=Path('runs/rivals'), metavar='DIR', help='run directories')
    parser.add_argument('--recipe', type=Path, default=HERE / 'recipe.toml', metavar='FILE.toml')
    parser.add_argument('--set', action='append', default=[], metavar='SECTION.KEY=VALUE', help='change the configs')
    parser.add_argument('--dataset', action='append', default=[], metavar='TASK=PATH', help='where the data of a task lie')
    parser.add_argument('--starts', default='', metavar='PATH', help='states that cube_held begins in')
    parser.add_argument('--added', action='store_true', help='more seeds of cells that were looked at: in files of their own')
    parser.add_argument('--table', action='store_true', help='only print the table and draw the figures of the results in --out')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Runs the cells that have no result yet, then prints the table and draws the figures."""
    arguments = _arguments(argv)
    if not arguments.table:
        jax.config.update('jax_num_cpu_devices', 1)
        paths, recipe = dict(text.split('=', 1) for text in arguments.dataset), recipes.read(arguments.recipe)
        for cell in chosen(arguments.cells, all_cells()):
            path = cell.path(arguments.out, ADDED if arguments.added else PREFIX)
            if path.exists():
                continue
            print(f'--- {cell}', flush=True)
            data = [f"dataset.path='{paths[cell.task]}'"] if cell.task in paths else []
            data += [f"environment.settings.starts='{arguments.starts}'"] if cell.task in STARTS else []
            try:
                work = arguments.work / 'added' if arguments.added else arguments.work
                found = run_cell(cell, [f"run.seeds='{arguments.seeds}'", *arguments.set, *data], work, recipe)
            except (Diverged, UsageError) as error:
                print(f'{cell}: {error}', file=sys.stderr, flush=True)
                continue
            arguments.out.mkdir(parents=True, exist_ok=True)
            writers.write_json(path, found)
    results, added = (read_results(arguments.out, prefix, METHODS) for prefix in (PREFIX, ADDED))
    print(told(results, added))
    figures(joined(results, added), arguments.out)
    return 0


if __name__ == '__main__':
    sys.exit(main())
