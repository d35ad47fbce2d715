"""Measures success in and out of the combinations of training (arXiv:2501.13241), and prints the table.

    python experiments/generalisation.py                       # every cell without a result; resumes within one
    python experiments/generalisation.py --cells goal_maze:film,goal_maze:film@all
    python experiments/generalisation.py --table               # what the results in the repository say

A cell is task:method, of `configs/generalisation/<task>.toml`; `@all` is the oracle of a method, which learns from as many rows
of all combinations. All methods have the same rows, batches, updates and evaluation; what differs is in `METHODS`. No setting was
chosen by the seeds that are reported.
"""

import argparse
import copy
import dataclasses
import sys
from pathlib import Path

from ooorl.errors import UsageError
from ooorl.reporting import intervals, tables, writers
from ooorl.runner import config, place
from ooorl.runner.prepare import prepare
from ooorl.runner.session import execute
from ooorl.training import checkpoint
from ooorl.training.evaluate import means
from ooorl.training.run import Diverged, score

HERE = Path(__file__).resolve().parent
CONFIGS = HERE.parent / 'configs' / 'generalisation'
SCORES = ('success', 'success_in', 'success_out')
ELEMENTS = {
    'goal_maze': [[0, 1], [2, 3]],
    'tabletop': [[0, 1], [2, 3], [4], [8, 9]],
    'point_mass': [[0, 1], [2, 3], [4], [5], [6]],
}
PLAIN = {'agent': 'bc', 'learning_rate': 1e-3, 'schedule': 'cosine'}
VALUES = {'gamma': 0.97}
# Each method's [agent] table but for what all share, widths among it; `policy` changes the config's, or takes its place with a
# `kind`; None leaves it out.
METHODS = {
    'film': {'policy': {'network': 'film'}},
    'attention': {'policy': {'network': 'attention'}},
    'mlp': {'policy': {'network': 'mlp'}},
    'flow': {'policy': {'kind': 'flow', 'network': 'mlp', 'ema_rate': 0.01}},
    'flow_relu': {'policy': {'kind': 'flow', 'network': 'mlp', 'ema_rate': 0.01, 'activation': 'relu'}},
    'mean_flow': {'policy': {'kind': 'mean_flow', 'network': 'mlp', 'ema_rate': 0.01}},
    'gaussian': {'policy': {'kind': 'gaussian'}},
    'gaussian_slow': {'policy': {'kind': 'gaussian'}, 'ema_rate': 0.01},
    'iql': {'policy': None, 'agent': 'iql', **VALUES, 'learning_rate': 1e-3},
    'td3bc': {
        'policy': None, 'agent': 'td3', **VALUES, 'learning_rate': 1e-3, 'q_normalisation': 2.5, 'cloning_weight': 1.0,
        'cloning_reduce': 'mean',
    },
}
DRAWN = ('gaussian', 'iql', 'td3bc')  # they act with their mode: also measured with draws
NAMES = {
    'film': 'diffusion, FiLM', 'attention': 'diffusion, attention on elements', 'mlp': 'diffusion, side by side',
    'flow': 'flow', 'flow_relu': 'flow, ReLU', 'mean_flow': 'mean flow, one call', 'gaussian': 'Gaussian',
    'gaussian_slow': 'Gaussian, slow copy acts', 'iql': 'IQL', 'td3bc': 'TD3+BC',
}  # fmt: skip


def settings_of(task, method, overrides):
    """The config of a cell."""
    settings = config.read(CONFIGS / f'{task}.toml', overrides)
    name, _, part = method.partition('@')
    shared, given = settings['agent'], copy.deepcopy(METHODS[name])
    policy = given.pop('policy')
    agent = {**{key: shared[key] for key in ('normalise_observation', 'sampling')}, **({} if policy is None else PLAIN), **given}
    hidden = {'hidden': shared['policy']['hidden']}
    if policy is None:
        agent |= hidden
    else:
        agent['policy'] = {**(hidden if 'kind' in policy else shared['policy']), **policy}
        if policy.get('network') == 'attention':
            agent['policy']['elements'] = ELEMENTS[task]
    settings['dataset']['combinations']['part'] = part or 'train'
    return {**settings, 'agent': agent, 'name': f'generalisation-{task}-{method.replace("@", "-")}'}


def run_cell(task, method, overrides, work):
    """Runs a cell, or what is left of it."""
    prepared, out = prepare(settings_of(task, method, overrides)), work / f'{task}-{method.replace("@", "-")}'
    summary = execute(prepared, out, resume=out.exists())
    scores = summary['phases'][0]['scores']
    drawn = {'scores_of_draws': _rounded(_of_draws(prepared.setup, out))} if method.partition('@')[0] in DRAWN else {}
    return {
        'cell': f'{task}:{method}', 'seeds': summary['seeds'], 'num_episodes': summary['num_episodes'],
        'scores': _rounded(scores), **drawn, 'dataset': summary['dataset'],
        'wall_seconds': round(summary['wall_seconds'], 1), 'versions': summary['versions'], 'config': prepared.config,
    }  # fmt: skip


def _of_draws(setup, out):
    """Scores of a policy that acts with draws instead of its mode, as the others do anyway."""
    finished = checkpoint.restore(out / 'checkpoint', place.template_of(setup))[0][1]
    (phase,) = setup.phases
    agent = dataclasses.replace(phase.agent, best_action=phase.agent.sample_action)
    drawing = dataclasses.replace(setup, phases=(dataclasses.replace(phase, agent=agent),))
    return means(score(drawing, agent, finished[phase.name]))


def _rounded(scores):
    return {name: [float(f'{value:.5g}') for value in scores[name]] for name in SCORES}


def table(results):
    """The results as a Markdown table: each method, its own oracle, and out of combination the gaps to both, seed by seed."""
    names = (
        'task', 'method', 'in combination', 'out of combination', 'out, with draws', 'oracle: in', 'oracle: out',
        'this minus oracle, out', 'FiLM minus this, out', 'attention minus this, out',
    )  # fmt: skip
    lines = [f'| {" | ".join(names)} |', '|---' * len(names) + '|']
    found = {tuple(one['cell'].split(':')): one for one in results}
    tasks = dict.fromkeys(task for task, _ in found)
    for task, method in [(t, m) for t in tasks for m in METHODS if (t, m) in found]:
        own, oracle = found[task, method], found.get((task, f'{method}@all'))
        cells = [*_cells(own), _cells(own, 'scores_of_draws')[-1], *_cells(oracle), _gap(own, oracle)]
        cells += ['' if method == lead else _gap(found.get((task, lead)), own) for lead in ('film', 'attention')]
        lines.append(f'| {task} | {NAMES[method]} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def _cells(one, of='scores'):
    """Scores in and out of combination; nothing where there are none."""
    return [tables.cell(score, one[of][score]) if one and of in one else '' for score in SCORES[1:]]


def _gap(one, other):
    if one is None or other is None:
        return ''
    apart = intervals.score_difference('success_out', one['scores']['success_out'], other['scores']['success_out'])
    return f'{100 * apart.point:+.0f} [{100 * apart.low:+.0f}, {100 * apart.high:+.0f}]{tables.mark(apart)}'


def main(argv=None):
    """Runs the cells that have no result yet, then prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--cells', default='goal_maze', metavar='TASK[:METHOD],...')
    parser.add_argument('--out', type=Path, default=HERE / 'results', metavar='DIR')
    parser.add_argument('--work', type=Path, default=Path('runs/generalisation'), metavar='DIR', help='run directories')
    parser.add_argument('--set', action='append', default=[], metavar='SECTION.KEY=VALUE')
    parser.add_argument('--table', action='store_true', help='only print the table of the results in --out')
    arguments = parser.parse_args(argv)
    wanted = set(arguments.cells.split(','))
    every = [(t, m) for t in ELEMENTS for m in (*METHODS, *(f'{name}@all' for name in METHODS)) if {t, f'{t}:{m}'} & wanted]
    for task, method in [] if arguments.table else every:
        target = arguments.out / f'generalisation-{task}-{method.replace("@", "-")}.json'
        if target.exists():
            continue
        print(f'--- {task}:{method}', flush=True)
        try:
            found = run_cell(task, method, arguments.set, arguments.work)
        except (Diverged, UsageError) as error:
            print(f'{task}:{method}: {error}', file=sys.stderr, flush=True)
            continue
        arguments.out.mkdir(parents=True, exist_ok=True)
        writers.write_json(target, found)
    print(table([writers.read_json(path) for path in sorted(arguments.out.glob('generalisation-*.json'))]))
    return 0


if __name__ == '__main__':
    sys.exit(main())
