"""The tasks of `irreversibility.py`, their demonstrations, and what each of its methods is made of."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ooorl import signals
from ooorl.agents.iql import IQLConfig, iql
from ooorl.agents.sac import SACConfig, sac
from ooorl.agents.td3 import TD3Config, td3
from ooorl.envs import cliffs, make_task, tabletop
from ooorl.signals.familiarity import usual_distance
from ooorl.signals.reversibility import visited
from ooorl.training import budget, interventions
from ooorl.training.constraints import priced, recovering
from ooorl.training.interventions import intervening, value_of
from ooorl.training.lives import WIDTH, Rules, column
from ooorl.types import Agent, Transition

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get('OOORL_SHARED_DATA', HERE.parent.parent / 'shared' / 'data')) / 'earl'
GAMMA, RISK_EDGES, RANK_EDGES = 0.97, (0.2, 0.5, 0.8), (0.1, 0.6)
EVERY, STAGES = 10, 4  # steps of a decision; stages of the run that a plan is made from
BUDGETS = (1, 2, 5, 10, 20)


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
    batch: int = 64
    rate: float = 1e-3  # of learning
    backward: bool = False  # whether paint and its kin have a backward policy, with demonstrations of its own
    imitate: str = 'demonstrations'  # what policies imitate; 'all' in the first series
    share: float = 0.5  # of each batch that comes from the demonstrations
    inverse_temperature: float = 10.0

    def task(self, **more):
        """The task, whose success ends values."""
        return make_task(self.id, terminate_on_success=True, **self.settings, **more)


PLACES = {
    'maze': Place(
        id='ooorl/IrreversibleMaze-v0', steps=4_000, updates=2_000, episode=50, life=2000, patience=500, demonstrations=4
    ),
    'cliffs': Place(id='ooorl/PointMassCliffs-v0', steps=6_000, updates=4_500, episode=60, life=1000, demonstrations=4),
    'tabletop': Place(
        id='ooorl/TabletopNoWalls-v0', steps=8_000, updates=6_000, episode=200, columns=(0, 1, 2, 3, 4), demonstrations=50,
        inverse_temperature=3.0, patience=20, life=2000, batch=192, share=0.75, backward=True,
        rate=2e-3,
    ),
}
# The first series: policies imitate every row, whoever made it; no demonstrations of the way back; fewer updates.
_TABLETOP = {'batch': 64, 'share': 0.5, 'patience': 300, 'life': 8000, 'floor': -3.3, 'backward': False, 'rate': 1e-3}
FIRST = {
    'maze': replace(PLACES['maze'], imitate='all'),
    'cliffs': replace(PLACES['cliffs'], imitate='all', updates=3_000),
    'tabletop': replace(PLACES['tabletop'], imitate='all', updates=4_000, **_TABLETOP),
}


def demonstrations(name: str) -> Transition | None:
    """Rows of demonstrations with a column `label`: all their states are taken to be reversible, which is privileged
    knowledge."""
    place = PLACES[name]
    if not place.demonstrations:
        return None
    rows = _walked(place.demonstrations) if name == 'cliffs' else _loaded(name, place.demonstrations)
    return _reversible(rows)


def backward_demonstrations(place: Place) -> Transition | None:
    """The table's ways back, each with the goal of its first row throughout, which is that of the turn before; nothing ends and
    nothing is rewarded."""
    if not place.backward:
        return None
    rows = _loaded('back', place.demonstrations)
    starts = np.append(0, np.flatnonzero(rows.extras['boundary'])[:-1] + 1)
    first = starts[np.searchsorted(starts, np.arange(len(rows.reward)), side='right') - 1]
    goal = rows.observation[first, 6:10]
    for seen in (rows.observation, rows.next_observation):
        seen[:, 6:10] = goal
    return _reversible(rows._replace(reward=np.zeros_like(rows.reward), discount=np.ones_like(rows.discount)))


def _reversible(rows):
    return rows._replace(extras={**rows.extras, 'label': np.zeros(len(rows.reward), np.float32)})


def _loaded(name, episodes):
    table = 'tabletop_manipulation_no_walls'
    file = {'maze': 'maze-config0_forward.npz', 'tabletop': f'{table}_forward.npz', 'back': f'{table}_reverse.npz'}[name]
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
    spec, more = make_task(place.id).spec, {} if place.imitate == 'all' else {'schedule': 'cosine', 'schedule_of': 'policy'}
    sizes = {'hidden': (place.width, place.width), 'gamma': GAMMA, 'learning_rate': place.rate, 'polyak': 0.02}
    if place.demonstrations:
        return iql(spec, IQLConfig(**sizes, **more, expectile=0.9, inverse_temperature=place.inverse_temperature))
    return sac(spec, SACConfig(**sizes, critic_layer_norm='before', init_temperature=0.1))


def detectors(place: Place, rows: Transition | None) -> dict:
    """By name; those without labels are given what they need of the demonstrations."""
    spec, start = make_task(place.id).spec, np.asarray(make_task(place.id).reset(jax.random.key(0))[1])
    radius = 0.1 if rows is None else usual_distance(rows.observation[:1000, list(place.columns)])
    widths = {'hidden': (64, 64), 'columns': place.columns}
    reset = tuple(float(x) for x in start[list(place.columns)])
    return {
        'classifier': signals.reversibility_classifier(spec, signals.ClassifierConfig(**widths)),
        'rae': signals.precedence(spec, signals.PrecedenceConfig(**widths, threshold=0.9)),
        # The same network asked about states: a floor weighs steps, a trigger sees none.
        'rae_of_states': signals.precedence(spec, signals.PrecedenceConfig(**widths, threshold=0.9, reset=reset)),
        'reach': signals.reset_reachability(spec, signals.ReachabilityConfig(**widths, reset=reset, radius=0.2)),
        'neighbour': signals.nearest_neighbour(
            spec, signals.NeighbourConfig(columns=place.columns, radius=radius, capacity=1024, remember='sampled')
        ),
    }


def method(name: str, place: Place, rows: Transition | None, planned: tuple | None) -> tuple[Agent, Rules, dict]:
    """(agent, rules, further settings of `endless`) of a method; `planned` holds the trigger of `plan@b`."""
    agent, known = learner(place), detectors(place, rows)
    kind, _, most = name.partition('@')
    rules = Rules(horizon=place.life, patience=place.patience, seed_steps=place.seed_steps, budget=int(most) if most else None)
    detected = interventions.when_detected(known['classifier'])
    shown = {'imitate': place.imitate}
    both = {
        'backward': learner(place), 'discriminator': known['classifier'],
        'backward_reward': interventions.matching(known['classifier']),
    }
    turns = replace(rules, switch_every=place.turn)
    paint = partial(intervening, agent, detector=known['classifier'], floor=place.floor, trigger=detected, **shown)
    plain = partial(intervening, agent, **shown)
    if place.backward:
        paint, rules = partial(paint, **both), turns
    at_once, start = replace(rules, patience=0), make_task(place.id).reset(jax.random.key(0))[1]
    if kind in known:
        seen, limit = known.get(f'{kind}_of_states', known[kind]), 0.5 if kind == 'neighbour' else 0.9
        return paint(detector=known[kind], trigger=interventions.when_detected(seen, limit)), rules, {}
    if kind == 'leave_no_trace':
        home = _at_start(place)
        made = plain(
            backward=both['backward'], backward_reward=interventions.returning(home),
            trigger=interventions.when_no_way_back(both['backward'], 0.1),
        )
        return made, replace(turns, wish='switch'), {'returned': home}

    def kept(forward):
        """Another forward agent, reset as paint's is, without a floor."""
        return intervening(forward, **{**paint.keywords, 'floor': None})

    return {
        'episodic': lambda: (plain(), Rules(horizon=place.episode, end_at_success=True), {}),
        'episodic_sac': lambda: (
            intervening(learner(replace(place, demonstrations=0)), **shown), Rules(horizon=place.episode, end_at_success=True), {}
        ),
        'naive': lambda: (plain(), replace(rules, switch_every=0), {}),
        'oracle': lambda: (paint(trigger=interventions.when_true(make_task(place.id).irreversible)), at_once, {}),
        'paint': lambda: (paint(), rules, {}),
        'fixed': lambda: (paint(), rules, {}),
        'plan': lambda: (paint(trigger=_planned(planned, agent, known['classifier'], rows, place, int(most))), at_once, {}),
        'paint_sac': lambda: (
            intervening(learner(replace(place, demonstrations=0)), **paint.keywords), rules, {}
        ),
        'paint_without_floor': lambda: (paint(floor=None), rules, {}),
        'value': lambda: (paint(trigger=interventions.when_worthless(agent, 0.02)), rules, {}),
        'drop': lambda: (paint(trigger=interventions.when_value_drops(agent, start, 0.3)), rules, {}),
        'medal': lambda: (plain(**both), turns, {}),
        'recovery': lambda: (kept(recovering(agent, _keeper(place), threshold=0.3)), rules, {}),
        'priced': lambda: (kept(priced(agent, limit=0.01)), rules, {}),
        'paint_medal': lambda: (paint(**both), turns, {}),
    }[kind]()


def _keeper(place):
    spec = make_task(place.id).spec
    return td3(spec, TD3Config(hidden=(place.width, place.width), gamma=GAMMA, learning_rate=1e-3, polyak=0.02))


def _at_start(place):
    if 'Tabletop' in place.id:
        return tabletop.is_at_start
    start = np.asarray(make_task(place.id).reset(jax.random.key(0))[1])
    return lambda seen: jnp.sum((seen - jnp.broadcast_to(start, seen.shape)) ** 2, axis=-1) <= 0.15**2


def _cell(agent, detector, reference, state, observation, key):
    """Bins of the risk and of the value, that of an observation being its rank among the demonstrations' at this moment: early
    agents value everything low, and a bin must mean the same to all of them."""
    flat = observation.reshape(-1, observation.shape[-1])
    value, usual = (value_of(agent, state.forward, seen, key, draws=4) for seen in (flat, jnp.asarray(reference)))
    rank = (value[:, None] > usual).mean(axis=-1)
    risk = detector.score(state.detector, visited(flat))
    return budget.cells(rank, risk, RANK_EDGES, RISK_EDGES).reshape(observation.shape[:-1])


def _reference(rows):
    """Some observations of the demonstrations."""
    return rows.observation[:: max(1, len(rows.reward) // 32)][:32]


def _planned(planned, agent, detector, rows, place, most):
    cell_of = partial(_cell, agent, detector, _reference(rows))
    total = place.steps + place.seed_steps
    made = budget.plan(planned, total // EVERY, most, learning=True)
    return budget.when_it_pays(made, cell_of, total_steps=total, decision_steps=EVERY)


def logged(place: Place, rows: Transition, kept: list, store) -> tuple:
    """What a run tells a plan: its decisions, one every `EVERY` steps, stage by stage, each in the cells of the agent that was
    there at the end of its stage (`kept`)."""
    agent, known = learner(place), detectors(place, rows)['classifier']
    columns, last = store.storage.observation, kept[-1]
    told = np.asarray(jax.vmap(interventions.labels)(last.told, store.storage))
    life = np.asarray(column(columns, 'life')) + 1e6 * np.arange(len(columns))[:, None]
    stage = np.asarray(column(columns, 'elapsed')) * len(kept) // (place.steps + place.seed_steps)
    due = np.asarray(column(columns, 'age') % EVERY == 0) & (told >= 0)
    cell_of = jax.jit(jax.vmap(lambda s, o: _cell(agent, known, _reference(rows), s, o, jax.random.key(0))))
    num, logs = (len(RANK_EDGES) + 1) * (len(RISK_EDGES) + 1), []
    for number, state in enumerate(kept):
        mine = due & (np.minimum(stage, len(kept) - 1) == number)
        cell = np.asarray(cell_of(state, columns[..., :-WIDTH]))
        logs.append(budget.count(cell[mine], life[mine], (told[mine] == 0).astype(float), num))
    return budget.staged(logs, 0.5)
