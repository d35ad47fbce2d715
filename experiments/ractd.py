"""Measures what distillation to one network call costs and saves (RACTD, arXiv:2506.07822), and prints the tables.

    python experiments/ractd.py --dataset hopper=FILE --dataset maze2d=FILE     # every cell without a result; resumes within one
    python experiments/ractd.py --cells rooms             # the one task that needs no file
    python experiments/ractd.py --cells hopper,maze2d:fql --dataset hopper=FILE --dataset maze2d=FILE
    python experiments/ractd.py --latency --work DIR      # of everything that has a run directory there; wants idle cores
    python experiments/ractd.py --table                   # what the results in the repository say

A cell is task:part, `configs/distil/small.toml` on one of `TASKS` (goal_maze.toml in `rooms`). Part `students` is RACTD and the
same without its reward, from one teacher, which is then also asked in fewer steps. A part named after an entry of `ABLATION` is
another student of the same teacher, from the run directory of `students`, with the same keys, in which one detail that paper and
released code disagree on is another. `fql` and `ofql` (one-step mean flow) learn values instead, with the student's network and
as many updates as teacher and student together; `gaussian` is plain cloning, `mean_flow` OFQL's policy without values, `_weak`
has a tenth of the weight of values and `_ends` other times. Nothing was tuned for any of them.
"""

import argparse
import copy
import dataclasses
import os
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import ractd_table
from ractd_cells import ABLATION, PLAIN, PLANS, RIVALS, ROOMS, STUDENTS, TASKS, TEACHERS, WHOLE

from ooorl.errors import UsageError
from ooorl.reporting import writers
from ooorl.runner import build, config, place, run_directory
from ooorl.runner.prepare import prepare
from ooorl.runner.session import execute
from ooorl.training import checkpoint
from ooorl.training.evaluate import with_normalised
from ooorl.training.rounds import RunState
from ooorl.training.run import Diverged, run, score

HERE = Path(__file__).resolve().parent
CONFIGS = HERE.parent / 'configs' / 'distil'
SMALL = CONFIGS / 'small.toml'
PARTS = ('students', *RIVALS, *ABLATION)
CALLS, SECONDS = 200, 3.0  # of one latency: so many calls, or as many as fit
WIDE = (512, 512, 512)


def settings_of(task, part, overrides):
    """The config of a cell."""
    own = (CONFIGS / 'goal_maze.toml', [*ROOMS, *overrides]) if task == 'rooms' else (SMALL, overrides)
    settings = config.read(*own)
    settings['name'], (settings['environment']['id'], settings['evaluation']['task']) = f'ractd-{task}-{part}', TASKS[task]
    for table, plan in PLANS.get(task, {}).items():
        settings[table] |= plan
    if part not in RIVALS:
        return settings
    student, updates = settings['student'], settings.pop('distil')
    for name in ('teacher', 'returns', 'student'):
        del settings[name]
    agent = copy.deepcopy(RIVALS[part])
    held = agent['policy'] if 'policy' in agent else agent
    held['hidden'] = agent['hidden'] = student['policy']['hidden']
    if agent['agent'] == 'bc':
        del agent['hidden']
    agent |= {name: student[name] for name in ('normalise_observation', 'sampling', 'chunk', 'chunk_executed') if name in student}
    return settings | {
        'run': settings['run'] | {'scheme': 'offline'}, 'agent': agent,
        'offline': {'num_updates': updates['teacher_updates'] + updates['num_updates']},
    }  # fmt: skip


def _changed(table, changes):
    made = copy.deepcopy(table)
    for key, value in changes.items():
        made[key] = _changed(made.get(key, {}), value) if isinstance(value, dict) else value
    return made


def prepared_of(settings, part):
    """The run of a cell: of students one phase for each, all from the same teacher and model of returns."""
    prepared = prepare(settings)
    if part in RIVALS:
        return prepared
    plain = dataclasses.replace(_phase(prepared, 'student', PLAIN), name='plain')
    return _with_phases(prepared, (*prepared.setup.phases, plain))


def _with_phases(prepared, phases):
    return prepared._replace(setup=dataclasses.replace(prepared.setup, phases=phases))


def _phase(prepared, table, changes):
    """The phase of a teacher or a student with some of its settings changed."""
    settings = {**prepared.config, table: _changed(prepared.config[table], changes)}
    phases = build.build_phases(settings, prepared.spec, prepared.setup.dataset)
    return next(phase for phase in phases if phase.name == {'student': 'distil'}.get(table, table))


def acting(prepared, part):
    """`{row of the table: (agent, phase that trained it, evaluations of its network)}` of everything that a cell has act."""
    phases = {phase.name: phase for phase in prepared.setup.phases}
    if part in RIVALS:
        (phase,) = phases.values()
        agent, found = phase.agent, {part: (phase.agent, phase.name, 1)}
        others = {'draws': agent.sample_action} if part == 'gaussian' else {'from noise 0': _without_noise(agent)}
        if part != 'gaussian' and agent.decode is None:
            return found
        return found | {f'{part}, {k}': (dataclasses.replace(agent, best_action=act), phase.name, 1) for k, act in others.items()}
    found = {{'distil': 'ractd'}.get(name, name): (phases[name].agent, name, 1) for name in phases if name not in HELPING}
    for name, changes in TEACHERS.items():
        policy = {**prepared.config['teacher']['policy'], **changes}
        steps = policy['num_steps']
        calls = 2 * steps - 1 if policy['sampler'] == 'heun' else steps
        own = _phase(prepared, 'teacher', {'policy': changes}) if changes else phases['teacher']
        found[name] = own.agent, 'teacher', calls
    for own in ('ractd', 'plain'):
        for name, changes in STUDENTS.items():
            agent = _phase(prepared, 'student', {**(PLAIN if own == 'plain' else {}), 'policy': changes}).agent
            found[f'{own}, {name}'] = agent, found[own][1], 1 + len(changes.get('chain', ()))
    return found


def _without_noise(agent):
    def act(state, observation, key):
        del key
        return agent.decode(state, observation, jnp.zeros((*observation.shape[:-1], agent.noise_dim)))

    return act


HELPING = ('teacher', 'returns')
METRICS = ('normalised', 'success', 'return')


def run_cell(task, part, overrides, work):
    """Runs a cell, or what is left of it, and scores everything that acts in it."""
    prepared, out = prepared_of(settings_of(task, part, overrides), part), work / f'{task}-{part}'
    summary = execute(prepared, out, resume=out.exists())
    finished, rows = finished_of(prepared, out), {}
    scored = {phase['name']: phase['scores'] for phase in summary['phases']}
    for name, (agent, phase, calls) in acting(prepared, part).items():
        as_trained = agent is next(one.agent for one in prepared.setup.phases if one.name == phase)
        found = scored[phase] if as_trained else _scores(prepared, agent, phase, finished)
        rows[name] = _row(found, calls, spread(prepared, agent, finished[phase]))
    return {
        'cell': f'{task}:{part}', 'seeds': summary['seeds'], 'rows': rows, 'num_episodes': summary['num_episodes'],
        'data': data_scores(prepared), 'dataset': summary['dataset'], 'wall_seconds': round(summary['wall_seconds'], 1),
        'versions': summary['versions'], 'config': _portable(prepared.config),
        'times': {name: round(seconds, 1) for name, seconds in summary['times'].items()},
    }  # fmt: skip


def run_ablation(task, variant, overrides, work):
    """Trains and scores one more student of the teacher that the cell `students` has trained."""
    out = work / f'{task}-students'
    if not (out / 'summary.json').exists():
        raise UsageError(f'{task}:{variant} needs the teacher of {task}:students; got no finished run in {out}; run that first')
    began, prepared = time.monotonic(), prepared_of(settings_of(task, 'students', overrides), 'students')
    taught = {name: state for name, state in finished_of(prepared, out).items() if name in HELPING}
    helping = tuple(phase for phase in prepared.setup.phases if phase.name in HELPING)
    student = dataclasses.replace(_phase(prepared, 'student', ABLATION[variant]), name=variant)
    own = _with_phases(prepared, (*helping, student))
    begun = RunState(phase=len(helping), round=0, agent=None, finished=taught, stores={}, collectors={})
    finished = run(own.setup, resume=begun).finished
    rows = {variant: _row(_scores(own, student.agent, variant, finished), 1, spread(own, student.agent, finished[variant]))}
    return {
        'cell': f'{task}:{variant}', 'seeds': list(own.setup.seeds), 'rows': rows, 'changes': ABLATION[variant],
        'num_episodes': prepared.config['evaluation']['num_episodes'], 'config': _portable(prepared.config),
        'wall_seconds': round(time.monotonic() - began, 1),
    }  # fmt: skip


def _row(scores, calls, spreads):
    kept = {metric: [float(f'{value:.5g}') for value in scores[metric]] for metric in METRICS if metric in scores}
    return {'scores': kept, 'network_evaluations': calls, 'spread': spreads}


def spread(prepared, agent, states):
    """E[(a - a')^2] / 2 of two draws for one observation, by seed: a mean over 500 rows of the data and the plan's numbers."""
    data = prepared.setup.dataset
    observation = jnp.asarray(data.observation[np.linspace(0, len(data.reward) - 1, 500).astype(int)])
    act = jax.jit(jax.vmap(lambda state, key: agent.best_action(state, observation, key), in_axes=(0, None)))
    one, two = (np.asarray(act(states, jax.random.key(seed))) for seed in (1, 2))
    return [float(f'{value:.4g}') for value in ((one - two) ** 2).mean(axis=(1, 2)) / 2.0]


def finished_of(prepared, out):
    """The final states of all phases of a run directory."""
    return checkpoint.restore(out / 'checkpoint', place.template_of(prepared.setup))[0][1]


def _scores(prepared, agent, phase, finished):
    own = next(one for one in prepared.setup.phases if one.name == phase)
    setup = dataclasses.replace(prepared.setup, phases=(dataclasses.replace(own, agent=agent),))
    scores = with_normalised(score(setup, agent, finished[phase]), setup.score_range)
    return {name: np.mean(values, axis=-1).tolist() for name, values in scores.items()}


def data_scores(prepared):
    """The mean score of the data's episodes, and of those that its rows belong to; {} where episodes are not whole."""
    given, rows = prepared.setup.score_range, prepared.setup.dataset
    if given is None or prepared.config['name'].split('-')[1] not in WHOLE:
        return {}
    ends = np.append(0, np.flatnonzero(np.asarray(rows.extras['boundary'])) + 1)
    lengths, totals = np.diff(ends), np.add.reduceat(np.asarray(rows.reward, np.float64), ends[:-1][np.diff(ends) > 0])
    scores = 100.0 * (totals - given.low) / (given.high - given.low)
    return {'episodes': round(float(scores.mean()), 1), 'rows': round(float(np.average(scores, weights=lengths)), 1)}


def latencies_of(out):
    """Latencies of everything that acts in the cell of a run directory."""
    part = out.name.rpartition('-')[2]
    settings = run_directory.read_config(out, 'eval')
    settings['evaluation']['num_episodes'] = 1
    prepared = prepared_of(settings, part)
    finished = finished_of(prepared, out)
    return {
        name: latencies(agent, finished[phase], prepared.spec.observation_dim)
        for name, (agent, phase, _) in acting(prepared, part).items()
        if name == ractd_table.program_of(name)
    }


def latencies(agent, state, observation_dim):
    """Milliseconds of single calls of the deployed action: p50 and p99 for 1 and for 256 observations, first seed."""
    own = jax.tree.map(lambda leaf: leaf[0], state)
    act, found = jax.jit(agent.best_action), {}
    for rows in (1, 256):
        observation, keys = jnp.zeros((rows, observation_dim)), jax.random.split(jax.random.key(0), CALLS + 3)
        taken, until = [], None
        for key in keys:
            began = time.perf_counter()
            jax.block_until_ready(act(own, observation, key))
            taken.append(1e3 * (time.perf_counter() - began))
            until = until or time.perf_counter() + SECONDS  # the first call compiles
            if len(taken) > 20 and time.perf_counter() > until:
                break
        found[str(rows)] = {f'p{q}': round(float(np.percentile(taken[3:], q)), 3) for q in (50, 99)}
    return found


def untrained_latencies(out):
    """The same of freshly made networks of greater width: what a call costs does not depend on what it has learnt."""
    settings = run_directory.read_config(out, 'eval')
    settings['evaluation']['num_episodes'] = 1
    for name in ('teacher', 'student'):
        settings[name]['policy']['hidden'] = list(WIDE)
    prepared = prepared_of(settings, 'students')
    made = {phase.name: jax.vmap(phase.agent.init)(jax.random.split(jax.random.key(0), 1)) for phase in prepared.setup.phases}
    kept = ('ractd', 'teacher, Heun', 'teacher, DDIM-15', 'teacher, DDIM-5')
    rows = {name: row for name, row in acting(prepared, 'students').items() if name in kept}
    return {name: latencies(agent, made[phase], prepared.spec.observation_dim) for name, (agent, phase, _) in rows.items()}


def measure_latencies(work, out):
    """Writes the latencies of all run directories in `work`, and how busy the machine was, to a file in `out`."""
    found = {'load_before': round(os.getloadavg()[0], 2), 'cores': len(os.sched_getaffinity(0)), 'milliseconds': {}}
    if (work / 'hopper-students').exists():
        found['untrained'] = {'hidden': WIDE, 'milliseconds': untrained_latencies(work / 'hopper-students')}
    for directory in sorted(work.glob('*-*')):
        task, _, part = directory.name.rpartition('-')
        if task in TASKS and part in PARTS and (directory / 'summary.json').exists():
            print(f'--- {directory.name}', flush=True)
            found['milliseconds'].setdefault(task, {}).update(latencies_of(directory))
    writers.write_json(out / 'ractd_latency.json', found)


def _portable(settings):
    dataset = settings['dataset']
    return {**settings, 'dataset': {**dataset, 'path': Path(dataset['path']).name if dataset['path'] else ''}}


def main(argv=None):
    """Runs the cells that have no result yet, or takes latencies, then prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--cells', default='', metavar='TASK[:PART],...')
    parser.add_argument('--out', type=Path, default=HERE / 'results', metavar='DIR')
    parser.add_argument('--work', type=Path, default=Path('runs/ractd'), metavar='DIR', help='run directories')
    parser.add_argument('--set', action='append', default=[], metavar='SECTION.KEY=VALUE')
    parser.add_argument('--dataset', action='append', default=[], metavar='TASK=PATH', help='where the data of a task lie')
    parser.add_argument('--latency', action='store_true', help='take the latencies of what is trained in --work')
    parser.add_argument('--table', action='store_true', help='only print the tables of the results in --out')
    arguments = parser.parse_args(argv)
    paths = {'rooms': None} | dict(text.split('=', 1) for text in arguments.dataset)
    wanted = set(filter(None, arguments.cells.split(',')))
    cells = [(t, p) for p in PARTS for t in TASKS if t in paths and (not wanted or {t, f'{t}:{p}'} & wanted)]
    if arguments.latency:
        measure_latencies(arguments.work, arguments.out)
    for task, part in [] if arguments.table or arguments.latency else cells:
        target = arguments.out / f'ractd-{task}-{part}.json'
        if target.exists():
            continue
        print(f'--- {task}:{part}', flush=True)
        try:
            runs = run_ablation if part in ABLATION else run_cell
            where = [f"dataset.path='{paths[task]}'"] if paths[task] else []
            found = runs(task, part, [*arguments.set, *where], arguments.work)
        except (Diverged, UsageError) as error:
            print(f'{task}:{part}: {error}', file=sys.stderr, flush=True)
            continue
        arguments.out.mkdir(parents=True, exist_ok=True)
        writers.write_json(target, found)
    print(ractd_table.everything(arguments.out))
    return 0


if __name__ == '__main__':
    sys.exit(main())
