"""Measures the claim of PA-RL (arXiv:2412.06685) at a size that one core can run, and prints the table.

    python experiments/parl_claim.py --dataset maze2d_umaze=FILE    # every cell whose result is not there yet; resumes within one
    python experiments/parl_claim.py --cells maze2d_umaze:flow --dataset maze2d_umaze=FILE
    python experiments/parl_claim.py --table                        # what the results in the repository say; draws the figure

The claim: fine-tuning online after training offline, PA-RL with an expressive policy needs up to half the environment steps that
the same critic needs with its own Gaussian policy. A cell is task:arm. `configs/parl/<task>.toml` is the base method, Cal-QL; the
other arms are PA-RL over the same critic with the same search, and differ by their policy alone. Offline the policy is cloned
beside its critic, online it imitates what the search finds, as published.

Every cell runs all its seeds in one program. Seeds 0 to 4 are for the numbers that are shown; anything to be tuned belongs to
seeds from 1000 on.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import jax
from cells import Cell, chosen, read_results
from parl_table import ARMS, BASE, PREFIX, figures, table

from ooorl.errors import UsageError
from ooorl.reporting import writers
from ooorl.runner import build, config
from ooorl.runner.prepare import Prepared, prepare
from ooorl.runner.session import execute
from ooorl.training.run import Diverged

HERE = Path(__file__).resolve().parent
CONFIGS = HERE.parent / 'configs' / 'parl'
TASKS = ('maze2d_umaze', 'hopper_medium_expert', 'cube_single')  # configs of the base method
STARTS = {'cube_single': ('environment.settings.starts',)}  # settings that name the data set, too

# One search for critic, distillation and acting. Published: 32 candidates, 10 kept, 10 steps of 3e-4, a draw in proportion to
# exp(Q) to imitate. Those constants belong to values in [-100, 0]; here Q differs by 0.1 between the candidates of a state and
# rises by 0.5 a unit of action: such draws are uniform and such steps reach 0.001. 'best' is the published choice for CALVIN.
SEARCH = {'num_candidates': 8, 'num_kept': 3, 'num_steps': 2, 'step_size': 0.1, 'distil_choice': 'best'}
RATES = {'cloning': 1e-3, 'imitating': 3e-4}  # published: 3e-4 and 5e-5
NETWORK = {'hidden': [64, 64], 'ema_rate': 0.01}
POLICIES = {
    'diffusion': {
        'kind': 'diffusion', 'process': 'cosine', 'num_levels': 5, 'network': 'mlp', 'dropout': 0.0,
        'time_features': 'sinusoidal', 'num_time_features': 16, 'time_hidden': [32, 16], **NETWORK,
    },
    'flow': {'kind': 'flow', 'num_steps': 4, **NETWORK},
    'autoregressive': {
        'kind': 'autoregressive', 'num_bins': 41, 'num_layers': 1, 'num_heads': 2, 'width': 32, 'dropout': 0.0, 'ema_rate': 0.01,
    },
    'gaussian': {'kind': 'gaussian', 'hidden': [64, 64]},  # is it the policy, or cloning and the search?
}  # fmt: skip
OF_ANY_AGENT = ('reward', 'bounds', 'sampling', 'online_sampling', 'normalise_observation', 'chunk')  # not the critic's
KEPT_METRICS = ('q/mean', 'q/target', 'q/gap', 'policy/loss', 'policy/entropy', 'search/q', 'search/data_share')


def all_cells() -> list[Cell]:
    """Every task with every arm, the base method first."""
    return [Cell(task, arm) for task in TASKS for arm in ARMS]


def settings_of(cell: Cell, overrides: Iterable[str]) -> dict:
    """The config that a cell runs: the base method's, with PA-RL over its critic in the place of its agent."""
    settings = config.read(CONFIGS / f'{cell.task}.toml', overrides)
    settings['name'] = f'parl-{cell.task}-{cell.arm}'
    if cell.arm == BASE:
        return settings
    agent = settings['agent']
    kept = {key: agent[key] for key in OF_ANY_AGENT if key in agent}
    critic = {key: value for key, value in agent.items() if key not in kept and key not in ('agent', 'hidden')}
    critic = {'kind': 'calql', **critic, 'importance_sampling': False}
    own = {'agent': 'parl', 'learning_rate': RATES['imitating'], **SEARCH, 'critic': critic, 'policy': POLICIES[cell.arm]}
    return {**settings, 'agent': own | kept}


def ready(cell: Cell, overrides: Iterable[str]) -> Prepared:
    """The checked run of a cell. PA-RL clones the data in its first phase, which no table of an agent says beside the second."""
    prepared = prepare(settings_of(cell, overrides))
    if cell.arm == BASE:
        return prepared
    table = prepared.config['agent'] | {'imitate': 'data', 'learning_rate': RATES['cloning']}
    dataset = None if prepared.dataset is None else prepared.dataset.transitions
    cloning = build.build_agent(table, prepared.setup.environment.spec, dataset)
    offline, online = prepared.setup.phases
    note = 'the policy is cloned beside its critic'
    phases = (replace(offline, agent=cloning, note=note), online)
    return prepared._replace(setup=replace(prepared.setup, phases=phases))


def result(cell: Cell, prepared: Prepared, summary: Mapping, rows: Iterable[Mapping]) -> dict:
    """What is kept of a finished run: curves by phase and seed, and all that it takes to run it again."""
    seeds, rows = summary['seeds'], list(rows)
    return {
        'cell': str(cell),
        'seeds': seeds,
        'num_episodes': summary['num_episodes'],
        'task': prepared.config['evaluation']['task'],
        'curves': {phase['name']: _curves(phase, seeds, rows) for phase in summary['phases']},
        'phases': {phase['name']: {key: phase[key] for key in ('num_updates', 'num_env_steps')} for phase in summary['phases']},
        'dataset': summary['dataset'],
        'rates': RATES,
        'wall_seconds': round(summary['wall_seconds'], 1),
        'times': {name: round(seconds, 1) for name, seconds in summary['times'].items()},
        'versions': summary['versions'],
        'config': _portable(prepared.config),
    }


def _curves(phase, seeds, rows):
    own = [row for row in rows if row['phase'] == phase['name']]
    found = {}
    for kind, names in (('eval', ('return', 'normalised', 'success')), ('train', KEPT_METRICS)):
        some = [row for row in own if row['kind'] == kind]
        steps = sorted({(row['updates'], row['env_steps']) for row in some})
        columns = {
            name: [[_rounded(row[name]) for row in some if row['seed'] == seed] for seed in seeds]
            for name in names
            if some and all(name in row for row in some)
        }
        found[kind] = {'updates': [step[0] for step in steps], 'env_steps': [step[1] for step in steps], **columns}
    return found


def _rounded(value):
    return float(f'{value:.5g}')


def _portable(settings):
    """The config without the folder in which somebody keeps a data set."""
    dataset = {**settings['dataset'], 'path': Path(settings['dataset']['path']).name if settings['dataset']['path'] else ''}
    place = settings['environment']
    named = {key: Path(value).name if key == 'starts' else value for key, value in place['settings'].items()}
    return {**settings, 'dataset': dataset, 'environment': {**place, 'settings': named}}


def run_cell(cell: Cell, overrides: Iterable[str], work: Path) -> dict:
    """Runs a cell, or what is left of it, in a run directory of its own."""
    prepared, out = ready(cell, overrides), work / str(cell).replace(':', '-')
    summary = execute(prepared, out, resume=out.exists())
    return result(cell, prepared, summary, writers.read_rows(out / 'metrics.jsonl'))


def _arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--cells', default='', metavar='TASK[:ARM],...', help='default: every one')
    parser.add_argument('--seeds', default='', metavar='A:B', help="default: the configs', 0:5")
    parser.add_argument('--out', type=Path, default=HERE / 'results', metavar='DIR')
    parser.add_argument('--work', type=Path, default=Path('runs/parl_claim'), metavar='DIR', help='run directories')
    parser.add_argument('--set', action='append', default=[], metavar='SECTION.KEY=VALUE', help='change the configs')
    parser.add_argument('--dataset', action='append', default=[], metavar='TASK=PATH', help='where the data of a task lie')
    parser.add_argument('--table', action='store_true', help='only print the table and draw the figures of the results in --out')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Runs the cells that have no result yet, then prints the table and draws the figures."""
    arguments = _arguments(argv)
    if not arguments.table:
        jax.config.update('jax_num_cpu_devices', 1)
        paths = dict(text.split('=', 1) for text in arguments.dataset)
        overrides = [*arguments.set, *([f"run.seeds='{arguments.seeds}'"] if arguments.seeds else [])]
        for cell in chosen(arguments.cells, all_cells()):
            if cell.path(arguments.out, PREFIX).exists():
                continue
            print(f'--- {cell}', flush=True)
            keys = ('dataset.path', *STARTS.get(cell.task, ())) if cell.task in paths else ()
            data = [f"{key}='{paths[cell.task]}'" for key in keys]
            try:
                found = run_cell(cell, [*overrides, *data], arguments.work)
            except (Diverged, UsageError) as error:
                print(f'{cell}: {error}', file=sys.stderr, flush=True)
                continue
            arguments.out.mkdir(parents=True, exist_ok=True)
            writers.write_json(cell.path(arguments.out, PREFIX), found)
    results = read_results(arguments.out, PREFIX, ARMS)
    print(table(results))
    figures(results, arguments.out)
    return 0


if __name__ == '__main__':
    sys.exit(main())
