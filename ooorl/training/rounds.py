"""One round of a run: compiled collection and learning for all seeds, and the state that goes from round to round.

A round is what metrics are averaged over. It is done in parts, which are as long as takes a second or two: between them a run
can be stopped and stored. One program makes parts of any length, and sums are taken one step after another, so that the numbers
do not depend on where a round was cut.
"""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.nn import schedules
from ooorl.nn.optimizers import restarted
from ooorl.training import collect as collection
from ooorl.training import replay
from ooorl.training.cycles import FINITE, compiled_cycles, finite, host_cycles, known_of
from ooorl.training.learn import make_learn_part
from ooorl.training.loops import unpacked
from ooorl.training.phases import Setup, rows_known
from ooorl.training.programs import Job, Programs
from ooorl.types import State, Transition, ignore_data


class RunState(NamedTuple):
    """Everything needed to go on: where the run stands, all agents, all collected data, environments in mid-episode.

    `agent` is the state of the phase under way (None between phases), `finished` the final states by phase name, `stores` the
    online data by store name, `collectors` where collection into each store stands. Leaves carry the seed axis. `diverged` names
    the seeds that have diverged in each phase (see `finite`).

    `done` counts the updates (or cycles of collection) of the round under way that are done; where it collects, `known` is what
    is known of its store. `sums` holds what is known of these steps: float64 sums `[S]` of metrics under 'train' and of finished
    episodes under 'episodes', and what was `measured` when the phase began.
    """

    phase: int
    round: int
    agent: State
    finished: dict[str, State]
    stores: dict[str, replay.ReplayState]
    collectors: dict[str, collection.CollectState]
    diverged: Mapping[str, tuple[int, ...]] = {}
    done: int = 0
    known: State = None
    sums: Mapping[str, Mapping[str, np.ndarray]] = {}


def begin(programs: Programs, state: RunState, phase) -> RunState:
    """The state at the start of a phase: its agent made or taken over, its store and its episodes opened."""
    setup = programs.setup
    stores, collectors = dict(state.stores), dict(state.collectors)
    if phase.num_env_steps and phase.store not in stores:
        stores[phase.store] = _new_store(setup, phase)
        collectors[phase.store] = _start_collection(programs, programs.keys(state.phase, 0, 0))
    if phase.num_env_steps:
        collectors[phase.store] = collection.undecided(setup.environment, collectors[phase.store], phase.agent.chunk)
    if phase.start is not None:
        agent = schedules.begin(_copied(state.finished[phase.start]), phase.num_updates)
        if phase.fresh_optimizers:
            agent = restarted(agent, _fresh(programs, state, phase))
    else:
        agent = _fresh(programs, state, phase)
    if phase.sources:
        # Copies, because what is given stays while the agent's own state is donated.
        held = {**setup.given, **state.finished}
        given = _copied(tuple(held[name] for name in phase.sources))
        agent = _distinct(programs.call(('inherit', phase.agent), jax.vmap(phase.agent.inherit), agent, given, rare=True))
    state = state._replace(stores=stores, collectors=collectors)
    return state._replace(agent=_observe_stored(programs, state, phase, agent))


def store_of(setup: Setup, state: RunState, phase) -> replay.ReplayState | None:
    """The store `[S]` that a phase fills or reads: of this run or of an earlier one; None where it has none."""
    given = setup.stores.get(phase.store)
    return state.stores.get(phase.store) if given is None else given.rows


def _fresh(programs, state, phase):
    keys = programs.keys(state.phase, 0, 1)
    fresh = _distinct(programs.run(init_job(phase.agent, keys)))
    return schedules.begin(fresh, phase.num_updates)


def init_job(agent, keys) -> Job:
    """A new agent for every seed."""
    return Job(('init', agent), jax.vmap(agent.init), (keys,), rare=True)


_copied = jax.jit(partial(jax.tree.map, jnp.copy))


def _distinct(tree):
    """The tree with a copy in the place of every array that it holds twice, so that it can be donated."""
    seen = set()

    def own(leaf):
        new = id(leaf) not in seen
        seen.add(id(leaf))
        return leaf if new else jnp.copy(leaf)

    return jax.tree.map(own, tree)


def _initial(phase):
    """`(key) -> state`: a new agent at the start of the phase."""
    return lambda key: schedules.begin(phase.agent.init(key), phase.num_updates)


def _new_store(setup, phase):
    spec, num_seeds = setup.environment.spec, len(setup.seeds)
    capacity = sum(p.num_env_steps for p in setup.phases if p.store == phase.store)
    example = Transition(
        np.zeros(spec.observation_dim), np.zeros(spec.action_dim), 0.0, 0.0, np.zeros(spec.observation_dim), {'boundary': 0.0}
    )
    one = jax.eval_shape(lambda: replay.create(example, capacity))
    # One program for all arrays: outside of programs, an operation on a new shape takes longer to make than arrays to fill.
    return jax.jit(lambda: jax.tree.map(lambda leaf: jnp.zeros((num_seeds, *leaf.shape), leaf.dtype), one))()


def _start_collection(programs, keys):
    environment = programs.setup.environment
    if environment.compiled:
        return programs.run(start_job(programs, keys))
    return collection.start(environment, keys[0])


def start_job(programs, keys) -> Job:
    """Where collection in the compiled environment begins."""
    environment = programs.setup.environment
    return Job('start', programs.over_seeds(lambda key: collection.start(environment, key), (0,)), (keys,), rare=True)


def _observe_stored(programs, state, phase, agent):
    """Tells an agent of the rows that it may read and has not been told of yet."""
    if phase.agent.observe is ignore_data:
        return agent
    sources = [] if programs.dataset is None or phase.start is not None else [(programs.dataset.storage, None)]
    store = store_of(programs.setup, state, phase)
    if store is not None:
        stored = int(store.size.max())
        limit = stored if phase.online_limit is None else min(stored, phase.online_limit)
        known = rows_known(programs.setup, phase)
        sources.append((jax.tree.map(lambda leaf: leaf[:, known:limit], store.storage), 0))
    for transitions, axis in sources:
        if transitions.reward.shape[-1]:
            mapped = programs.over_seeds(phase.agent.observe, (0, axis))
            name = ('observe', phase.agent, transitions.reward.shape)
            agent = programs.call(name, mapped, agent, transitions, rare=True)
    return agent


def one_round(programs: Programs, state: RunState, phase, sizes):
    """Runs round `state.round` of a phase: the new state, mean metrics `[S]`, and sums over finished episodes `[S]` or None."""
    length = round_length(sizes[state.round])
    if state.done < length:
        state = part(programs, state, phase, sizes, length - state.done)
    return closed(state, sizes)


def round_length(size: tuple[int, int]) -> int:
    """How many steps a round of so many updates and cycles has: cycles where it collects, else updates."""
    return size[1] or size[0]


def part(programs: Programs, state: RunState, phase, sizes, count: int) -> RunState:
    """The next `count` steps of the round under way."""
    num_updates, num_cycles = sizes[state.round]
    keys = programs.keys(state.phase, state.round, 2)
    if num_cycles:
        body = compiled_cycles if programs.setup.environment.compiled else host_cycles
        state, rows, sound = body(programs, state, phase, keys, num_updates // num_cycles, sizes[0][1], count)
    else:
        state, rows, sound = _offline(programs, state, phase, keys, sizes[0][0], count)
    rows = {kind: unpacked(columns) for kind, columns in jax.device_get(rows).items()}
    sums = {
        kind: {name: _sum(state.sums.get(kind, {}).get(name), column, count) for name, column in columns.items()}
        for kind, columns in rows.items()
    }
    checked = {FINITE: {FINITE: np.asarray(sound)}} if sound is not None else {}
    return state._replace(done=state.done + count, sums={**state.sums, **sums, **checked})


def _sum(before, rows, count):
    """Sums `[S]` after the first `count` of rows `[S, n]`, added one after another whatever the parts are."""
    column = rows.T[:count].astype(np.float64)
    return np.cumsum(column if before is None else np.concatenate([before[None], column]), axis=0)[-1]


def closed(state: RunState, sizes) -> tuple:
    """The state after a round all of whose steps are done, its mean metrics `[S]`, and sums over finished episodes or None."""
    steps, num_cycles = round_length(sizes[state.round]), sizes[state.round][1]
    mean = {name: (value / steps).astype(np.float32) for name, value in state.sums.get('train', {}).items()}
    mean |= state.sums.get(FINITE, {})
    episodes = {name: value.astype(np.float32) for name, value in state.sums.get('episodes', {}).items()}
    return state._replace(round=state.round + 1, done=0, known=None, sums={}), mean, episodes if num_cycles else None


def _sources(programs, phase, store):
    sources = {} if programs.dataset is None else {'dataset': programs.dataset}
    axes = dict.fromkeys(sources)
    if _reads_store(programs.setup, phase):
        limited = store if phase.online_limit is None else replay.take(store, phase.online_limit)
        sources, axes = {**sources, 'online': limited}, {**axes, 'online': 0}
    return sources, axes


def _reads_store(setup, phase):
    """Whether the program gets the store: also to read none of it, where it then is the program of another budget."""
    if phase.store is None or phase.online_limit != 0:
        return phase.store is not None
    others = [p for p in setup.phases if p.online_limit != 0 and not p.num_env_steps and p.store == phase.store]
    return setup.dataset is not None and any(p.agent is phase.agent and p.sampling == phase.sampling for p in others)


def _offline(programs, state, phase, keys, num_updates, count):
    agent, metrics, sound = programs.run(learn_job(programs, state, phase, keys, num_updates, count))
    return state._replace(agent=agent), {'train': metrics}, sound


def learn_job(programs, state, phase, keys, num_updates, count) -> Job:
    """`count` updates of a round of `num_updates` or fewer without collection."""
    learn = make_learn_part(phase.agent, phase.sampling, num_updates=num_updates, streams=programs.setup.streams(phase.store))
    sources, axes = _sources(programs, phase, store_of(programs.setup, state, phase))

    def seeded(agent, shared, own, keys, first, count):
        def one(agent, own, key, shared, first, count):
            agent, rows = learn(agent, {**shared, **own}, key, first, count)
            return agent, rows, finite(agent)

        return programs.over_seeds(one, (0, 0, 0, None, None, None))(agent, own, keys, shared, first, count)

    shared = {name: source for name, source in sources.items() if axes[name] is None}
    own = {name: source for name, source in sources.items() if axes[name] == 0}
    rows = {name: source.storage.reward.shape for name, source in sources.items()}
    key = ('learn', phase.agent, repr(phase.sampling), num_updates, tuple(sorted(rows.items())))
    arguments = (state.agent, shared, own, keys, np.int32(state.done), np.int32(count))
    return Job(key, seeded, arguments, donate=(0,))


def shapes_of(sums: Mapping) -> dict:
    """`[shape, type]` of each of a state's `sums`, as plain data for `template`."""
    return {kind: {name: [list(value.shape), value.dtype.name] for name, value in own.items()} for kind, own in sums.items()}


def template(setup: Setup, phase_number: int, under_way: bool, done: int, sums: Mapping) -> tuple:
    """Shapes of the arrays of a `RunState` at a given place, to restore into: all but its numbers.

    Args:
      setup: the run.
      phase_number: the phase under way, or the next one.
      under_way: whether that phase has begun.
      done: steps of the round under way that are done.
      sums: `shapes_of` the state's sums.

    Returns:
      `(agent, finished, stores, collectors, known, sums)`.
    """
    keys = jax.eval_shape(lambda: jax.vmap(jax.random.key)(jnp.zeros(len(setup.seeds), jnp.uint32)))

    def agent_of(phase):
        return jax.eval_shape(jax.vmap(_initial(phase)), keys)

    earlier = setup.phases[:phase_number]
    begun = setup.phases[: phase_number + under_way]
    collecting = {phase.store: phase for phase in begun if phase.num_env_steps}
    stores = {name: jax.eval_shape(lambda p=phase: _new_store(setup, p)) for name, phase in collecting.items()}
    collectors = {name: _collector_template(setup, keys, phase.agent.chunk) for name, phase in collecting.items()}
    agent = agent_of(setup.phases[phase_number]) if under_way else None
    held = {kind: {name: np.zeros(*of) for name, of in own.items()} for kind, own in sums.items()}
    known = _known_template(setup, setup.phases[phase_number], stores) if done else None
    return agent, {phase.name: agent_of(phase) for phase in earlier}, stores, collectors, known, held


def _known_template(setup, phase, stores):
    if not phase.num_env_steps:
        return None
    return jax.eval_shape(lambda store: known_of(setup, phase, store), stores[phase.store])


def _collector_template(setup, keys, chunk):
    def fresh(key):
        return collection.undecided(setup.environment, collection.start(setup.environment, key), chunk)

    if setup.environment.compiled:
        return jax.eval_shape(jax.vmap(fresh), keys)
    with jax.ensure_compile_time_eval():  # the host's own numbers, also where the rest is only traced (`memory_plan`)
        return jax.tree.map(np.asarray, fresh(jax.random.key(0)))
