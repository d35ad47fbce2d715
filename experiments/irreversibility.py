"""Measures what asking for help costs and brings where things cannot be taken back, at a size that one core runs in an hour.

    python experiments/irreversibility.py                       # every cell whose result is not there yet
    python experiments/irreversibility.py --cells maze:paint,cliffs:episodic
    python experiments/irreversibility.py --table               # what the results say, and which targets are held

A cell is task:method. Each runs all its seeds in one program for the same number of environment steps and updates, deploys the
last policy in ordinary episodes, and counts what it cost somebody: resets (asked for, and not), label queries, false alarms. All
methods have the same agent, demonstrations, detector widths and sampling; they differ in what follows. Tuned on seeds from 1000
on.

| method | what it is |
|---|---|
| episodic, episodic_sac | a reset after every episode, no detector; with SAC in the place of IQL |
| naive | one life after another, ended only by the horizon |
| oracle | asks as soon as something irreversible has happened; floor with the labels and the classifier |
| paint | asks `patience` steps after the classifier's score exceeds one half; floor |
| paint_without_floor | the same, no caution in the targets |
| value, drop | asks where the value is low, or lies far below that at the reset; floor as in paint |
| rae, reach, neighbour | as paint, with the detector that needs no labels; its scores are the floor's weights |
| medal, paint_medal | a backward policy in turns, that matches the demonstrations; paint_medal asks as paint does |
| leave_no_trace | a backward policy that must come home; asks where it does not |
| recovery, priced | a recovery policy that takes over where risk is high; a price on what is irreversible; reset as in paint |
| fixed@b, plan@b | at most b requests: granted as paint asks, or as a plan from one logged run says |
| ooo, ooo_cautious | OOO with counts in ordinary episodes; its explorer besides cautious, told the truth of every row |
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from irreversibility_table import table

from ooorl import signals, wrap
from ooorl.agents.iql import IQLConfig, iql
from ooorl.agents.sac import SACConfig, sac
from ooorl.agents.td3 import TD3Config, td3
from ooorl.envs import batched, cliffs, make_task, tabletop
from ooorl.reporting import writers
from ooorl.signals.calibration import calibration
from ooorl.signals.familiarity import usual_distance
from ooorl.signals.reversibility import visited
from ooorl.training import budget, interventions
from ooorl.training.constraints import priced, recovering
from ooorl.training.interventions import intervening, own_columns, value_of
from ooorl.training.learn import Sampling
from ooorl.training.lives import WIDTH, Rules, as_lives, column, endless
from ooorl.training.phases import Setup, online, ooo
from ooorl.training.run import iterate
from ooorl.types import Agent, Transition

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get('OOORL_SHARED_DATA', HERE.parent.parent / 'shared' / 'data')) / 'earl'
BUDGETS = (1, 2, 5, 10, 20)
METHODS = (
    'episodic', 'episodic_sac', 'paint', 'naive', 'oracle', *(f'{kind}@{b}' for b in BUDGETS for kind in ('fixed', 'plan')),
    'paint_without_floor', 'value', 'drop', 'rae', 'reach', 'neighbour', 'medal', 'paint_medal', 'leave_no_trace',
)  # fmt: skip
GAMMA, EPISODES, RISK_EDGES = 0.97, 20, (0.2, 0.5, 0.8)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A task and the sizes of its runs: steps and updates of all methods, steps of an episode, a life and patience."""

    id: str
    steps: int
    updates: int
    episode: int
    life: int = 4000
    patience: int = 50
    turn: int = 100
    seed_steps: int = 200
    columns: tuple[int, ...] = (0, 1)
    demonstrations: int = 20
    width: int = 64
    settings: Mapping = field(default_factory=dict)
    floor: float = 0.0
    inverse_temperature: float = 10.0

    def task(self, **more):
        """The task, whose success ends values."""
        return make_task(self.id, terminate_on_success=True, **self.settings, **more)


PLACES = {
    'maze': Place(
        id='ooorl/IrreversibleMaze-v0', steps=4_000, updates=2_000, episode=50, life=2000, patience=500, demonstrations=4
    ),
    'cliffs': Place(id='ooorl/PointMassCliffs-v0', steps=6_000, updates=3_000, episode=60, life=1000, demonstrations=4),
    'tabletop': Place(
        id='ooorl/TabletopNoWalls-v0', steps=8_000, updates=4_000, episode=200, columns=(0, 1, 2, 3, 4), demonstrations=50,
        inverse_temperature=3.0, patience=300, life=8000, floor=-3.3,
    ),
}


def demonstrations(name: str) -> Transition | None:
    """Rows of demonstrations with a column `label`: all their states are taken to be reversible, which is privileged
    knowledge."""
    place = PLACES[name]
    if not place.demonstrations:
        return None
    rows = _walked(place.demonstrations) if name == 'cliffs' else _loaded(name, place.demonstrations)
    return rows._replace(extras={**rows.extras, 'label': np.zeros(len(rows.reward), np.float32)})


def _loaded(name, episodes):
    file = {'maze': 'maze-config0_forward.npz', 'tabletop': 'tabletop_manipulation_no_walls_forward.npz'}[name]
    with np.load(DATA / file) as arrays:
        rewards, ends = arrays['rewards'].reshape(-1), arrays['terminals'].reshape(-1).astype(bool)
        keep = slice(0, np.flatnonzero(ends)[episodes - 1] + 1)
        columns = [arrays[key][keep].astype(np.float32) for key in ('observations', 'actions', 'next_observations')]
    before, action, after = columns
    going = 1.0 - ends[keep].astype(np.float32)
    return Transition(before, action, rewards[keep].astype(np.float32), going, after, {'boundary': 1.0 - going})


def _walked(episodes):
    """Noisy walks round the canyon, ended at the goal."""
    task = make_task('ooorl/PointMassCliffs-v0', horizon=60)
    points = np.array([[-0.1, 0.5], [0.85, 0.5], cliffs.GOAL_PLACE])
    rng, rows, key = np.random.default_rng(0), [], jax.random.key(0)
    step = jax.jit(task.step)
    while sum(row[3] == 0 for row in rows) < episodes:
        key, reset_key = jax.random.split(key)
        (state, seen), stage, walk = task.reset(reset_key), 0, []
        for _ in range(60):
            seen = np.asarray(seen)
            stage += int(np.abs(points[stage] - seen).max() < 0.1 and stage < 2)
            action = np.clip((points[stage] - seen) / cliffs.STEP_SIZE + 0.3 * rng.normal(size=2), -1, 1).astype(np.float32)
            key, step_key = jax.random.split(key)
            state, after, reward, over, _ = step(state, action, step_key)
            walk.append((seen, action, float(reward), 1.0 - float(over), np.asarray(after)))
            seen = after
            if bool(over):
                rows += walk
                break
    columns = [np.asarray(one, np.float32) for one in zip(*rows, strict=True)]
    return Transition(*columns, extras={'boundary': 1.0 - columns[3]})


def learner(place: Place) -> Agent:
    """The agent of all methods: IQL where there are demonstrations, else SAC with normalised critics, as RLPD's."""
    spec = make_task(place.id).spec
    if place.demonstrations:
        return iql(spec, IQLConfig(
            hidden=(place.width, place.width), gamma=GAMMA, learning_rate=1e-3, polyak=0.02, expectile=0.9,
            inverse_temperature=place.inverse_temperature,
        ))  # fmt: skip
    return sac(spec, SACConfig(
        hidden=(place.width, place.width), gamma=GAMMA, learning_rate=1e-3, polyak=0.02, critic_layer_norm='before',
        init_temperature=0.1,
    ))  # fmt: skip


def detectors(place: Place, rows: Transition | None) -> dict:
    """By name; those without labels are given what they need of the demonstrations."""
    spec, start = make_task(place.id).spec, np.asarray(make_task(place.id).reset(jax.random.key(0))[1])
    radius = 0.1 if rows is None else usual_distance(rows.observation[:1000, list(place.columns)])
    widths = {'hidden': (64, 64), 'columns': place.columns}
    reset = tuple(float(x) for x in start[list(place.columns)])
    return {
        'classifier': signals.reversibility_classifier(spec, signals.ClassifierConfig(**widths)),
        'rae': signals.precedence(spec, signals.PrecedenceConfig(**widths, threshold=0.9)),
        'reach': signals.reset_reachability(spec, signals.ReachabilityConfig(**widths, reset=reset, radius=0.2)),
        'neighbour': signals.nearest_neighbour(
            spec, signals.NeighbourConfig(columns=place.columns, radius=radius, capacity=1024)
        ),
    }


def method(name: str, place: Place, rows: Transition | None, planned: dict | None) -> tuple[Agent, Rules, dict]:
    """(agent, rules, further settings of `endless`) of a method; `planned` holds the trigger of `plan@b`."""
    agent, known = learner(place), detectors(place, rows)
    kind, _, most = name.partition('@')
    rules = Rules(horizon=place.life, patience=place.patience, seed_steps=place.seed_steps, budget=int(most) if most else None)
    detected = interventions.when_detected(known['classifier'])
    paint = partial(intervening, agent, detector=known['classifier'], floor=place.floor, trigger=detected)
    plain = partial(intervening, agent)
    both = {
        'backward': learner(place), 'discriminator': known['classifier'],
        'backward_reward': interventions.matching(known['classifier']),
    }
    turns = replace(rules, switch_every=place.turn)
    at_once, start = replace(rules, patience=0), make_task(place.id).reset(jax.random.key(0))[1]
    if kind in known:
        return paint(detector=known[kind], trigger=interventions.when_detected(known[kind], 0.9)), rules, {}
    if kind == 'leave_no_trace':
        home = _at_start(place)
        made = plain(
            backward=both['backward'], backward_reward=interventions.returning(home),
            trigger=interventions.when_no_way_back(both['backward'], 0.1),
        )
        return made, replace(turns, wish='switch'), {'returned': home}
    return {
        'episodic': lambda: (plain(), Rules(horizon=place.episode, end_at_success=True), {}),
        'episodic_sac': lambda: (
            intervening(learner(replace(place, demonstrations=0))), Rules(horizon=place.episode, end_at_success=True), {}
        ),
        'naive': lambda: (plain(), rules, {}),
        'oracle': lambda: (paint(trigger=interventions.when_true(make_task(place.id).irreversible)), at_once, {}),
        'paint': lambda: (paint(), rules, {}),
        'fixed': lambda: (paint(), rules, {}),
        'plan': lambda: (paint(trigger=_planned(planned, agent, known['classifier'], place, int(most))), at_once, {}),
        'paint_without_floor': lambda: (paint(floor=None), rules, {}),
        'value': lambda: (paint(trigger=interventions.when_worthless(agent, 0.02)), rules, {}),
        'drop': lambda: (paint(trigger=interventions.when_value_drops(agent, start, 0.3)), rules, {}),
        'medal': lambda: (plain(**both), turns, {}),
        'recovery': lambda: (_kept(recovering(agent, _keeper(place), threshold=0.3), known), rules, {}),
        'priced': lambda: (_kept(priced(agent, limit=0.01), known), rules, {}),
        'paint_medal': lambda: (paint(**both), turns, {}),
    }[kind]()


def _kept(agent, known):
    """Another forward agent, reset as paint's is, without a floor."""
    detector = known['classifier']
    return intervening(agent, detector=detector, trigger=interventions.when_detected(detector))


def _keeper(place):
    spec = make_task(place.id).spec
    return td3(spec, TD3Config(hidden=(place.width, place.width), gamma=GAMMA, learning_rate=1e-3, polyak=0.02))


def _at_start(place):
    if 'Tabletop' in place.id:
        return tabletop.is_at_start
    start = np.asarray(make_task(place.id).reset(jax.random.key(0))[1])
    return lambda seen: jnp.sum((seen - jnp.broadcast_to(start, seen.shape)) ** 2, axis=-1) <= 0.15**2


def _cell(agent, detector, edges, state, observation, key):
    flat = observation.reshape(-1, observation.shape[-1])
    value = value_of(agent, state.forward, flat, key, draws=4)
    return budget.cells(value, detector.score(state.detector, visited(flat)), edges, RISK_EDGES).reshape(observation.shape[:-1])


def _planned(planned, agent, detector, place, most):
    cell_of = partial(_cell, agent, detector, planned['edges'])
    made = budget.plan(planned['log'], place.steps // planned['every'], most)
    return budget.when_it_pays(made, cell_of, total_steps=place.steps, decision_steps=planned['every'])


def logged(place: Place, rows: Transition, event, every: int = 10) -> dict:
    """What a finished run of paint tells a plan: its decisions, one every so many steps, in cells of the final value and risk."""
    agent, known = learner(place), detectors(place, rows)['classifier']
    state, store = event.state.finished['online'], event.state.stores['online']
    told, columns = jax.vmap(interventions.labels)(state.told, store.storage), store.storage.observation
    seen = columns[..., :-WIDTH]
    values = jax.vmap(lambda s, o: value_of(agent, s.forward, o, jax.random.key(0), draws=4))(state, seen)
    edges = tuple(float(x) for x in np.quantile(values, (0.33, 0.67)))
    cell = jax.vmap(lambda s, o: _cell(agent, known, edges, s, o, jax.random.key(0)))(state, seen)
    due = np.asarray((column(columns, 'age') % every == 0) & (told >= 0))
    life = np.asarray(column(columns, 'life')) + 1e6 * np.arange(len(seen))[:, None]
    num = (len(edges) + 1) * (len(RISK_EDGES) + 1)
    log = budget.count(np.asarray(cell)[due], life[due], (np.asarray(told)[due] == 0).astype(float), num)
    return {'log': log, 'edges': edges, 'every': every}


def setup_of(name: str, place_name: str, seeds, planned: dict | None) -> tuple[Setup, Transition]:
    """The run of a cell and its demonstrations."""
    place, rows = PLACES[place_name], demonstrations(place_name)
    agent, rules, more = method(name, place, rows, planned)
    if place_name == 'tabletop':
        more = {**more, 'new_goal': tabletop.with_new_goal}
    environment = endless(place.task(), rules, **more)
    phases = online(
        agent, num_env_steps=place.steps, num_updates=place.updates, cycle_steps=4, random_steps=place.seed_steps,
        random_agent=interventions.wandering(environment.spec),
        sampling=Sampling(batch_size=64, mix='union' if rows is None else {'dataset': 0.5, 'online': 0.5}),
    )
    evaluation = batched(place.task(horizon=place.episode), EPISODES)
    setup = Setup(
        phases=phases, seeds=seeds, dataset=None if rows is None else as_lives(rows), environment=environment,
        evaluation=evaluation, updates_per_round=place.updates // 4, evaluate_every=place.updates // 4,
    )
    return setup, rows


def run_cell(name: str, place_name: str, seeds, planned: dict | None) -> tuple[dict, dict]:
    """The result of a cell, and what its run tells a plan (paint only)."""
    began, found, event = time.monotonic(), [], None
    setup, rows = setup_of(name, place_name, seeds, planned)
    for event in iterate(setup):
        found += event.rows
        if event.round_done:
            print(f'  {place_name}:{name} {event.phase.name} {event.updates}', flush=True)
    kept = [row for row in found if row['phase'] == 'online' and row['kind'] in ('eval', 'counts')]
    result = {'task': place_name, 'method': name, 'seeds': list(seeds)}
    result['privileged_labels'] = 0 if rows is None else len(rows.reward)
    result['curve'] = _curve(kept)
    result |= {key: values[-1] for key, values in result['curve'].items()}
    place = PLACES[place_name]
    if name in ('paint', 'oracle'):
        result['calibration'], result['risk'] = _calibration(place, rows, event), _risk(place, event)
    result['wall_seconds'] = time.monotonic() - began
    return result, logged(place, rows, event) if name == 'paint' else {}


def run_ooo(name: str, place_name: str, seeds) -> dict:
    """OOO in ordinary episodes with an explorer that is cautious or not: the exploiter's success and the store's lost rows."""
    began, found, event, place, rows = time.monotonic(), [], None, PLACES[place_name], demonstrations(place_name)
    task, base = place.task(horizon=place.episode), learner(place)
    counts = signals.state_action_counts([-1.2] * 2, [1.2] * 2, (15, 15), (3, 3))
    explorer = wrap.bonus(base, counts, scale=3.0)
    if name == 'ooo_cautious':
        explorer = wrap.cautious(explorer, detectors(place, rows)['classifier'], floor=-10.0)
        explorer = wrap.labelled(explorer, task.irreversible)
    halves = Sampling(batch_size=64, mix={'dataset': 0.5, 'online': 0.5})
    phases = ooo(
        explorer, base, pretrain_updates=500, num_env_steps=place.steps, explore_updates=place.updates,
        retrain_updates=place.updates, explore_sampling=Sampling(batch_size=64), online_sampling=halves, retrain_sampling=halves,
    )
    plain = {**rows.extras}
    plain.pop('label')
    setup = Setup(
        phases=phases, seeds=seeds, dataset=rows._replace(extras=plain), environment=batched(task, 2),
        evaluation=batched(task, EPISODES), updates_per_round=place.updates,
    )
    for event in iterate(setup):
        found += event.rows
    lost = np.asarray(task.irreversible(event.state.stores['online'].storage.next_observation))
    scores = {row['phase']: [] for row in found if row['kind'] == 'eval'}
    for row in found:
        if row['kind'] == 'eval':
            scores[row['phase']].append(row['success'])
    last = [phase for phase in scores if phase.startswith('retrain')][-1]
    return {
        'task': place_name, 'method': name, 'seeds': list(seeds), 'success': scores[last], 'explorer': scores['explore'],
        'irreversible_steps': lost.sum(axis=1).tolist(), 'wall_seconds': time.monotonic() - began,
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


def _arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--cells', default='', metavar='TASK:METHOD,...', help='default: all')
    parser.add_argument('--seeds', type=int, nargs=2, default=(0, 10), metavar=('FIRST', 'BEHIND_LAST'))
    parser.add_argument('--out', type=Path, default=HERE / 'results' / 'irreversibility.json', metavar='FILE')
    parser.add_argument('--table', action='store_true', help='only print the table of the results')
    return parser.parse_args(argv)


def _read(path) -> dict:
    return json.loads(path.read_text(encoding='utf-8')) if path.exists() else {}


def main(argv: list[str] | None = None) -> int:
    """Runs the cells that have no result yet, one JSON entry after another, then prints the table."""
    arguments = _arguments(argv)
    cells = arguments.cells.split(',') if arguments.cells else [f'{place}:{name}' for name in METHODS for place in PLACES]
    plans: dict[str, Mapping] = {}
    for cell in () if arguments.table else cells:
        if cell in _read(arguments.out):
            continue
        place, name = cell.split(':')
        if name.startswith('plan@') and place not in plans:
            # A run of its own, on other seeds: the plan must not have seen the lives that it is measured on.
            plans[place] = run_cell('paint', place, range(2000, 2004), None)[1]
        seeds = range(*arguments.seeds)
        result = run_ooo(name, place, seeds) if name.startswith('ooo') else run_cell(name, place, seeds, plans.get(place))[0]
        writers.write_json(arguments.out, {**_read(arguments.out), cell: result})
    print(table(_read(arguments.out)))
    return 0


if __name__ == '__main__':
    sys.exit(main())
