"""Measures what distillation to one network call costs and saves (RACTD, arXiv:2506.07822), and prints the table.

    python experiments/ractd.py --dataset hopper=FILE             # every cell of that task without a result; resumes within one
    python experiments/ractd.py --cells hopper:ractd,hopper:plain --dataset hopper=FILE
    python experiments/ractd.py --table                           # what the results in the repository say

A cell is task:variant. `configs/distil/<task>.toml` is RACTD at this size; a variant changes one of the details that paper and
released code disagree on, or puts FQL or one-step mean flow (OFQL) in its place. Its teacher is also measured with
fewer steps. Latency is that of one compiled call that answers one observation, or 256, on the machine that `versions` names.
"""

import argparse
import copy
import dataclasses
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.errors import UsageError
from ooorl.reporting import tables, writers
from ooorl.runner import build, config, place
from ooorl.runner.prepare import prepare
from ooorl.runner.session import execute
from ooorl.training import checkpoint
from ooorl.training.evaluate import with_normalised
from ooorl.training.run import Diverged, score

HERE = Path(__file__).resolve().parent
CONFIGS = HERE.parent / 'configs' / 'distil'
VARIANTS = {
    'ractd': {},
    'plain': {'student': {'reward_weight': 0.0}},
    'one_step': {'student': {'reward_on': 'one_step'}},
    'much_noise': {'student': {'policy': {'start_noise': 80.0}}},
    'slow_targets': {'student': {'target_rate': 0.001}},
    'slow_teacher': {'student': {'teacher_weights': 'deployed'}},
    'fresh': {'student': {'begin': 'fresh'}},
    'ctm_denoising': {'student': {'policy': {'denoise': 'level'}}},
    'no_denoising': {'student': {'policy': {'denoising_weight': 0.0}}},
    'fql': None,
    'ofql': None,
}
# What learns values takes the place of teacher, returns and student.
RIVALS = {
    'fql': {'agent': 'fql', 'normalise_q': True, 'distil_weight': 1.0, 'aggregate': 'min'},
    'ofql': {
        'agent': 'td3', 'policy_delay': 1, 'target_noise': 0.0, 'policy_action': 'sample', 'policy_value': 'mean',
        'q_normalisation': 0.1, 'cloning_weight': 1.0, 'cloning_reduce': 'mean',
    },
}  # fmt: skip
# The teacher of the first variant, asked in fewer steps: its sampler, the levels it visits, and the network's evaluations.
SAMPLERS = {'teacher, Heun': ('heun', None)} | {f'teacher, DDIM-{steps}': ('ddim', steps) for steps in (15, 5, 1)}
METRICS = ('normalised', 'success', 'return')


def settings_of(task, variant, overrides):
    """The config of a cell; a rival has the student's network, its updates and those of the teacher together."""
    settings = config.read(CONFIGS / f'{task}.toml', overrides)
    settings['name'] = f'ractd-{task}-{variant}'
    if VARIANTS[variant] is not None:
        return _changed(settings, VARIANTS[variant])
    hidden, updates = settings['student']['policy']['hidden'], settings.pop('distil')
    sampling = settings['student']['sampling']
    for name in ('teacher', 'returns', 'student'):
        normalise = settings.pop(name).get('normalise_observation', False)
    policy = {'policy': {'kind': 'mean_flow', 'hidden': hidden, 'ema_rate': 0.005}} if variant == 'ofql' else {}
    return settings | {
        'run': settings['run'] | {'scheme': 'offline'},
        'offline': {'num_updates': updates['teacher_updates'] + updates['num_updates']},
        'agent': {
            **RIVALS[variant], 'hidden': hidden, 'normalise_observation': normalise, 'sampling': sampling, **policy,
        },
    }  # fmt: skip


def _changed(table, changes):
    made = copy.deepcopy(table)
    for key, value in changes.items():
        made[key] = _changed(made.get(key, {}), value) if isinstance(value, dict) else value
    return made


def run_cell(task, variant, overrides, work):
    """Runs a cell, or what is left of it, and measures what acts in it."""
    settings, out = settings_of(task, variant, overrides), work / f'{task}-{variant}'
    prepared = prepare(settings)
    summary = execute(prepared, out, resume=out.exists())
    finished = checkpoint.restore(out / 'checkpoint', place.template_of(prepared.setup))[0][1]
    phases = {phase.name: phase for phase in prepared.setup.phases if phase.name != 'returns'}
    rows = {}
    for name, phase in phases.items():
        found = next(one for one in summary['phases'] if one['name'] == name)
        rows[name] = _row(found['scores'], latencies(phase.agent, finished[name], prepared), _evaluations(name, prepared))
    if variant == 'ractd':
        for name, (sampler, steps) in SAMPLERS.items():
            rows[name] = _asked_otherwise(prepared, finished['teacher'], sampler, steps)
    return {
        'cell': f'{task}:{variant}', 'seeds': summary['seeds'], 'rows': rows, 'num_episodes': summary['num_episodes'],
        'dataset': summary['dataset'], 'wall_seconds': round(summary['wall_seconds'], 1), 'versions': summary['versions'],
        'times': {name: round(seconds, 1) for name, seconds in summary['times'].items()}, 'config': _portable(prepared.config),
    }  # fmt: skip


def _asked_otherwise(prepared, state, sampler, steps):
    """Scores and latencies of the trained teacher with another sampler."""
    table = copy.deepcopy(prepared.config['teacher'])
    table['policy'] |= {'sampler': sampler} | ({} if steps is None else {'num_steps': steps})
    setup = prepared.setup
    agent = build.build_agent(table, setup.evaluation.spec, prepared.dataset.transitions)
    phase = dataclasses.replace(setup.phases[0], agent=agent)
    scores = with_normalised(score(dataclasses.replace(setup, phases=(phase,)), agent, state), setup.score_range)
    means = {name: np.mean(values, axis=-1).tolist() for name, values in scores.items()}
    return _row(means, latencies(agent, state, prepared), _count(table['policy']))


def _row(scores, latency, evaluations):
    kept = {name: [float(f'{v:.5g}') for v in scores[name]] for name in METRICS if name in scores}
    return {'scores': kept, 'latency_ms': latency, 'network_evaluations': evaluations}


def _evaluations(phase, prepared):
    if phase == 'teacher':
        return _count(prepared.config['teacher']['policy'])
    return 1 + len(prepared.config.get('student', {}).get('policy', {}).get('chain', ()))


def _count(policy):
    steps = policy.get('num_steps') or 10
    return 2 * steps - 1 if policy['sampler'] == 'heun' else steps


def latencies(agent, state, prepared, calls=200):
    """Milliseconds of single calls of the deployed action: p50 and p99 for 1 and for 256 observations, first seed."""
    own = jax.tree.map(lambda leaf: leaf[0], state)
    act, found = jax.jit(agent.best_action), {}
    for rows in (1, 256):
        observation = jnp.zeros((rows, prepared.setup.evaluation.spec.observation_dim))
        taken = []
        for key in jax.random.split(jax.random.key(0), calls + 3):
            began = time.perf_counter()
            jax.block_until_ready(act(own, observation, key))
            taken.append(1e3 * (time.perf_counter() - began))
        found[str(rows)] = {f'p{q}': round(float(np.percentile(taken[3:], q)), 3) for q in (50, 99)}
    return found


def _portable(settings):
    dataset = settings['dataset']
    return {**settings, 'dataset': {**dataset, 'path': Path(dataset['path']).name if dataset['path'] else ''}}


def table(results):
    """The results as a Markdown table: scores, evaluations of the network, latencies and how many times quicker than Heun."""
    names = ('task', 'what acts', 'score', 'evaluations', 'p50 / p99 ms, 1', 'p50 / p99 ms, 256', 'times quicker, 1 / 256')
    lines = [f'| {" | ".join(names)} |', '|---' * len(names) + '|']
    for task in sorted({one['cell'].partition(':')[0] for one in results}):
        own = [one for one in results if one['cell'].startswith(f'{task}:')]
        slowest = next((r['latency_ms'] for one in own for n, r in one['rows'].items() if n == 'teacher, Heun'), None)
        for one in own:
            variant = one['cell'].partition(':')[2]
            for name, row in one['rows'].items():
                if name == 'teacher':
                    continue  # once, with its own sampler, below
                label = name if name.startswith('teacher') else variant
                metric = next(m for m in METRICS if m in row['scores'])
                single, many = row['latency_ms']['1'], row['latency_ms']['256']
                ratio = ' / '.join(f'{slowest[rows]["p50"] / row["latency_ms"][rows]["p50"]:.0f}' for rows in slowest or ())
                lines.append(
                    f'| {task} | {label} | {tables.cell(metric, row["scores"][metric])} | {row["network_evaluations"]} | '
                    f'{single["p50"]:.2f} / {single["p99"]:.2f} | {many["p50"]:.2f} / {many["p99"]:.2f} | {ratio} |'
                )
    return '\n'.join(lines)


def main(argv=None):
    """Runs the cells that have no result yet, then prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--cells', default='', metavar='TASK[:VARIANT],...')
    parser.add_argument('--out', type=Path, default=HERE / 'results', metavar='DIR')
    parser.add_argument('--work', type=Path, default=Path('runs/ractd'), metavar='DIR', help='run directories')
    parser.add_argument('--set', action='append', default=[], metavar='SECTION.KEY=VALUE')
    parser.add_argument('--dataset', action='append', default=[], metavar='TASK=PATH', help='where the data of a task lie')
    parser.add_argument('--table', action='store_true', help='only print the table of the results in --out')
    arguments = parser.parse_args(argv)
    paths = dict(text.split('=', 1) for text in arguments.dataset)
    tasks = [path.stem for path in sorted(CONFIGS.glob('*.toml')) if path.stem in paths]
    cells = [(t, v) for t in tasks for v in VARIANTS if not arguments.cells or {t, f'{t}:{v}'} & set(arguments.cells.split(','))]
    for task, variant in [] if arguments.table else cells:
        target = arguments.out / f'ractd-{task}-{variant}.json'
        if target.exists():
            continue
        print(f'--- {task}:{variant}', flush=True)
        try:
            found = run_cell(task, variant, [*arguments.set, f"dataset.path='{paths[task]}'"], arguments.work)
        except (Diverged, UsageError) as error:
            print(f'{task}:{variant}: {error}', file=sys.stderr, flush=True)
            continue
        arguments.out.mkdir(parents=True, exist_ok=True)
        writers.write_json(target, found)
    results = [writers.read_json(path) for path in sorted(arguments.out.glob('ractd-*.json'))]
    print(table(results))
    return 0


if __name__ == '__main__':
    sys.exit(main())
