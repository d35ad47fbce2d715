"""Measures what asking for help costs and brings where things cannot be taken back, at a size that one core runs in an hour.

    python experiments/irreversibility.py                       # every cell whose result is not there yet
    python experiments/irreversibility.py --cells maze:paint,cliffs:episodic
    python experiments/irreversibility.py --table               # what the results say, and which targets are held

A cell is task:method. Each runs all its seeds in one program for the same number of environment steps and updates, deploys the
last policy in ordinary episodes, and counts what it cost somebody: resets (asked for, and not), label queries, false alarms. All
methods have the same agent, demonstrations, detector widths and sampling; they differ in what follows. Tuned on seeds from 1000
on. Policies imitate the demonstrations alone, in the first series (`--first`) all rows. On the table paint and its kin have a
backward policy in turns, as in the paper, in the first series none.

| method | what it is |
|---|---|
| episodic, episodic_sac | a reset after every episode, no detector; with SAC in the place of IQL |
| naive | one life after another, ended only by the horizon |
| oracle | asks as soon as something irreversible has happened; floor with the labels and the classifier |
| paint | asks `patience` steps after the classifier's score exceeds one half; floor |
| paint_without_floor, paint_sac | the same, no caution in the targets; with SAC in the place of IQL |
| value, drop | asks where the value is low, or lies far below that at the reset; floor as in paint |
| rae, reach, neighbour | as paint, with the detector that needs no labels; its scores are the floor's weights (rae's of steps) |
| medal, paint_medal | a backward policy in turns, that matches the demonstrations; paint_medal asks as paint does |
| leave_no_trace | a backward policy that must come home; asks where it does not |
| recovery, priced | a recovery policy that takes over where risk is high; a price on what is irreversible; reset as in paint |
| fixed@b, plan@b | at most b requests: granted as paint asks, or as a plan from the stages of a logged run says |
| ooo, ooo_cautious | OOO with counts in ordinary episodes, by SAC (IQL in the first series); besides cautious, told the truth |
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from irreversibility_methods import (
    BUDGETS,
    FIRST,
    PLACES,
    STAGES,
    backward_demonstrations,
    demonstrations,
    detectors,
    learner,
    logged,
    method,
)
from irreversibility_table import table

from ooorl import signals, wrap
from ooorl.envs import batched, make_task, tabletop
from ooorl.reporting import writers
from ooorl.signals.calibration import calibration
from ooorl.signals.reversibility import visited
from ooorl.training import interventions
from ooorl.training.interventions import own_columns
from ooorl.training.lives import as_lives, endless
from ooorl.training.phases import Setup, online, ooo
from ooorl.training.run import iterate
from ooorl.training.sampling import Sampling
from ooorl.types import Transition

HERE = Path(__file__).resolve().parent

METHODS = (
    'episodic', 'episodic_sac', 'paint', 'naive', 'oracle', *(f'{kind}@{b}' for b in BUDGETS for kind in ('fixed', 'plan')),
    'paint_without_floor', 'value', 'drop', 'rae', 'reach', 'neighbour', 'medal', 'paint_medal', 'leave_no_trace',
    'recovery', 'priced',
)  # fmt: skip
EPISODES = 20


def setup_of(name: str, place_name: str, seeds, planned: tuple | None) -> tuple[Setup, Transition]:
    """The run of a cell and its demonstrations."""
    place, rows = PLACES[place_name], demonstrations(place_name)
    agent, rules, more = method(name, place, rows, planned)
    if place_name == 'tabletop':
        more = {**more, 'new_goal': tabletop.with_new_goal}
    environment = endless(place.task(), rules, **more)
    phases = online(
        agent, num_env_steps=place.steps, num_updates=place.updates, cycle_steps=4, random_steps=place.seed_steps,
        random_agent=interventions.wandering(environment.spec),
        sampling=Sampling(batch_size=place.batch, mix={'dataset': place.share, 'online': 1.0 - place.share}),
    )
    evaluation = batched(place.task(horizon=place.episode), EPISODES)
    setup = Setup(
        phases=phases, seeds=seeds, dataset=_as_data_set(rows, backward_demonstrations(place)), environment=environment,
        evaluation=evaluation, updates_per_round=place.updates // 4, evaluate_every=place.updates // 4,
    )
    return setup, rows


def _as_data_set(forward, backward):
    """The demonstrations of both policies, as rows of `endless`."""
    if forward is None or backward is None:
        return None if forward is None else as_lives(forward)
    parts = as_lives(forward), as_lives(backward, backward=True)
    return jax.tree.map(lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves]), *parts)


def log_of(place_name: str, seeds) -> tuple:
    """What a run of paint without a budget tells a plan (`logged`)."""
    setup, rows = setup_of('paint', place_name, seeds, None)
    # Rounds are stages, all of one length, so that an evaluation must not cut any.
    setup = replace(setup, updates_per_round=PLACES[place_name].updates // STAGES, evaluate_every=0)
    kept, event = [], None
    for event in iterate(setup):
        if event.round_done and event.phase.name == 'online':
            state = event.state.finished.get('online', event.state.agent)
            kept.append(jax.tree.map(lambda leaf: np.array(leaf), state))
            print(f'  log of {place_name} {event.updates}', flush=True)
    return logged(PLACES[place_name], rows, kept, event.state.stores['online'])


def run_cell(name: str, place_name: str, seeds, planned: tuple | None) -> dict:
    """The result of a cell."""
    began, found, event = time.monotonic(), [], None
    setup, rows = setup_of(name, place_name, seeds, planned)
    for event in iterate(setup):
        found += event.rows
        if event.round_done:
            print(f'  {place_name}:{name} {event.phase.name} {event.updates}', flush=True)
    kept = [row for row in found if row['phase'] == 'online' and row['kind'] in ('eval', 'counts')]
    result = {'task': place_name, 'method': name, 'seeds': list(seeds)}
    result |= {'steps': PLACES[place_name].steps, 'updates': PLACES[place_name].updates}
    result['privileged_labels'] = 0 if rows is None else len(rows.reward)
    result['curve'] = _curve(kept)
    result |= {key: values[-1] for key, values in result['curve'].items()}
    place = PLACES[place_name]
    if name in ('paint', 'oracle'):
        result['calibration'], result['risk'] = _calibration(place, rows, event), _risk(place, event)
    result['wall_seconds'] = time.monotonic() - began
    return result


def run_ooo(name: str, place_name: str, seeds) -> dict:
    """OOO in ordinary episodes with an explorer that is cautious or not: the exploiter's success and the store's lost rows."""
    began, found, event, place, rows = time.monotonic(), [], None, PLACES[place_name], demonstrations(place_name)
    task, base = place.task(horizon=place.episode), learner(place)
    # An explorer that only imitates can neither seek nor shun; in the first series it was the exploiter's twin.
    seeker = base if place.imitate == 'all' else learner(replace(place, demonstrations=0))
    counts = signals.state_action_counts([-1.2] * 2, [1.2] * 2, (15, 15), (3, 3))
    explorer = wrap.bonus(seeker, counts, scale=3.0)
    if name == 'ooo_cautious':
        explorer = wrap.cautious(explorer, detectors(place, rows)['classifier'], floor=-10.0)
        explorer = wrap.labelled(explorer, task.irreversible)
    halves, updates = Sampling(batch_size=64, mix={'dataset': 0.5, 'online': 0.5}), place.steps // 2
    phases = ooo(
        explorer, base, pretrain_updates=500, num_env_steps=place.steps, explore_updates=updates,
        retrain_updates=updates if place.imitate == 'all' else place.steps,
        explore_sampling=Sampling(batch_size=64), online_sampling=halves, retrain_sampling=halves,
    )
    plain = {'boundary': rows.extras['boundary']}
    if place.imitate == 'demonstrations':
        plain['imitated'] = np.ones_like(rows.reward)
    setup = Setup(
        phases=phases, seeds=seeds, dataset=rows._replace(extras=plain), environment=batched(task, 2),
        evaluation=batched(task, EPISODES), updates_per_round=updates,
    )
    for event in iterate(setup):
        found += event.rows
    before, after = event.state.stores['online'].storage.observation, event.state.stores['online'].storage.next_observation
    lost, was_lost = (np.asarray(task.irreversible(seen)) for seen in (after, before))
    scores = {row['phase']: [] for row in found if row['kind'] == 'eval'}
    for row in found:
        if row['kind'] == 'eval':
            scores[row['phase']].append(row['success'])
    last = [phase for phase in scores if phase.startswith('retrain')][-1]
    return {
        'task': place_name, 'method': name, 'seeds': list(seeds), 'success': scores[last], 'explorer': scores['explore'],
        'irreversible_steps': lost.sum(axis=1).tolist(), 'lost_lives': (lost & ~was_lost).sum(axis=1).tolist(),
        'wall_seconds': time.monotonic() - began,
    }


def _risk(place, event):
    """The first seed's classifier over two columns of the observation, beside the truth: `[21][21]` each."""
    known, task = detectors(place, None)['classifier'], make_task(place.id)
    first = np.asarray(task.reset(jax.random.key(0))[1])
    columns, width = ((2, 3), 3.8) if 'Tabletop' in place.id else ((0, 1), 1.2 if 'Cliffs' in place.id else 1.0)
    ticks = np.linspace(-width, width, 41)
    seen = np.tile(first, (41, 41, 1))
    seen[..., columns[0]], seen[..., columns[1]] = np.meshgrid(ticks, ticks, indexing='ij')
    state = jax.tree.map(lambda leaf: leaf[0], event.state.finished['online'].detector)
    score = np.asarray(known.score(state, visited(jnp.asarray(seen.reshape(-1, seen.shape[-1]))))).reshape(41, 41)
    truth = np.asarray(task.irreversible(jnp.asarray(seen)))
    return {'ticks': ticks.round(3).tolist(), 'score': score.round(3).tolist(), 'truth': truth.astype(int).tolist()}


def _curve(kept):
    """Each number `[evaluations][seeds]`."""
    steps = sorted({row['env_steps'] for row in kept})
    curve = {'env_steps': steps}
    for kind, names in (('eval', ('success', 'length')), ('counts', tuple(_counts(kept)))):
        for name in names:
            curve[name] = [[row[name] for row in kept if row['kind'] == kind and row['env_steps'] == at] for at in steps]
    return curve


def _counts(kept):
    first = next(row for row in kept if row['kind'] == 'counts')
    return [name for name in first if name not in ('kind', 'phase', 'seed', 'updates', 'env_steps')]


def _calibration(place, rows, event):
    """Of each seed's classifier on everything that it has seen, against the truth."""
    known, task = detectors(place, rows)['classifier'], make_task(place.id)
    state, store = event.state.finished['online'], event.state.stores['online']
    batch = jax.vmap(own_columns)(store.storage)
    score = np.asarray(jax.vmap(known.score)(state.detector, batch))
    truth = np.asarray(task.irreversible(batch.next_observation))
    found = [calibration(s, t.astype(int)) for s, t in zip(score, truth, strict=True)]
    return {name: [getattr(one, name) for one in found] for name in ('auroc', 'expected_error', 'false_alarms', 'detected')}


def _never_bound(results, place, name, seeds):
    """Paint's result for a budget that it never spent: the same run, bit for bit; None where it was not."""
    kind, _, most = name.partition('@')
    found = results.get(f'{place}:paint')
    if kind != 'fixed' or found is None or found['seeds'] != list(seeds) or max(found['help']) >= int(most):
        return None
    shared = {key: value for key, value in found.items() if key not in ('calibration', 'risk')}
    return {**shared, 'method': name, 'same_as': 'paint'}


def _arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--cells', default='', metavar='TASK:METHOD,...', help='default: all')
    parser.add_argument('--seeds', type=int, nargs=2, default=(0, 10), metavar=('FIRST', 'BEHIND_LAST'))
    parser.add_argument('--out', type=Path, default=HERE / 'results' / 'irreversibility.json', metavar='FILE')
    parser.add_argument('--first', action='store_true', help='the first series, whose policies imitate every row')
    parser.add_argument('--times', type=int, default=1, metavar='N', help='so many times the steps and updates; give --out')
    parser.add_argument('--table', action='store_true', help='only print the table of the results')
    return parser.parse_args(argv)


def _read(path) -> dict:
    return json.loads(path.read_text(encoding='utf-8')) if path.exists() else {}


def main(argv: list[str] | None = None) -> int:
    """Runs the cells that have no result yet, one JSON entry after another, then prints the table."""
    arguments = _arguments(argv)
    if arguments.first:
        PLACES.update(FIRST)
    n = arguments.times
    PLACES.update({name: replace(place, steps=n * place.steps, updates=n * place.updates) for name, place in PLACES.items()})
    cells = arguments.cells.split(',') if arguments.cells else [f'{place}:{name}' for name in METHODS for place in PLACES]
    plans: dict[str, tuple] = {}
    for cell in () if arguments.table else cells:
        if cell in _read(arguments.out):
            continue
        place, name = cell.split(':')
        seeds = range(*arguments.seeds)
        if name.startswith('plan@') and place not in plans:
            # A run of its own, on other seeds: the plan must not have seen the lives that it is measured on.
            plans[place] = log_of(place, range(2000, 2004))
        run = run_ooo if name.startswith('ooo') else partial(run_cell, planned=plans.get(place))
        result = _never_bound(_read(arguments.out), place, name, seeds) or run(name, place, seeds)
        writers.write_json(arguments.out, {**_read(arguments.out), cell: result})
    print(table(_read(arguments.out)))
    return 0


if __name__ == '__main__':
    sys.exit(main())
