"""Cycles of collection and learning: one program where the environment compiles, one program a cycle where it steps on the host.

`programs` is the `programs.Programs` of the run, `state` its `rounds.RunState`.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.training import collect as collection
from ooorl.training import known as knowledge
from ooorl.training import replay
from ooorl.training.acting import acting
from ooorl.training.learn import make_learn, make_learn_ahead
from ooorl.training.loops import loop_part, packed
from ooorl.training.programs import Job

FINITE = 'finite'  # metric: 1 if every number of the agent's state is finite


def compiled_cycles(programs, state, phase, keys, updates_per_cycle, num_cycles, count):
    """The next `count` cycles of a round of `num_cycles` or fewer in a compiled environment.

    Returns:
      the new state; packed rows `[S, n]` of metrics ('train') and of finished episodes ('episodes'), of which the first `count`
      count; whether the agents are finite `[S]`, None where nothing is learnt.
    """
    known = _known_before(programs, phase, state)
    job = cycles_job(programs, state, phase, keys, updates_per_cycle, num_cycles, count, *known)
    agent, store, collector, online, rows, sound = programs.run(job)
    return _collected(state, phase, agent, store, collector, online), rows, sound


def cycles_job(programs, state, phase, keys, updates_per_cycle, num_cycles, count, online, known) -> Job:
    """The program of `compiled_cycles`; `online` and `known` are what is known of store and data set."""
    environment = programs.setup.environment
    learn = make_learn(phase.agent, phase.sampling, num_updates=updates_per_cycle, streams=programs.setup.streams(phase.store))
    _, keep_up = _knowing(programs.setup, phase)

    def one(agent, store, collector, online, key, dataset, known, first, count):
        def cycle(carry, key):
            agent, store, collector, online = carry
            collect_key, learn_key = jax.random.split(key)
            collector, transitions, finished = collection.collect(
                environment,
                lambda observation, key: phase.agent.sample_action(agent, observation, key),
                collector,
                collect_key,
                phase.cycle_steps,
            )
            rows = collection.rows(transitions)
            store = replay.extend(store, rows)
            online = keep_up(online, store, rows)
            agent = phase.agent.observe(agent, rows)
            metrics = {}
            if updates_per_cycle:
                agent, metrics = learn(agent, _both(dataset, store), learn_key, known | {'online': online})
            return (agent, store, collector, online), {'train': packed(metrics), 'episodes': packed(finished)}

        carry = agent, store, collector, online
        carry, rows = loop_part(cycle, carry, jax.random.split(key, num_cycles), first, count)
        # Once a part: a number that is not finite stays, and the check costs a third of a small update.
        return *carry, rows, finite(carry[0]) if updates_per_cycle else None

    store, collector = state.stores[phase.store], state.collectors[phase.store]
    sizes = (updates_per_cycle, num_cycles, phase.cycle_steps, store.storage.reward.shape)
    return Job(
        ('cycles', phase.agent, repr(phase.sampling), *sizes),
        programs.over_seeds(one, (0, 0, 0, 0, 0, None, None, None, None)),
        (state.agent, store, collector, online, keys, programs.dataset, known, np.int32(state.done), np.int32(count)),
        donate=(0, 1, 2, 3),
    )


def _knowing(setup, phase):
    """`know` and `keep_up` for the sources of a phase: a pass over all rows once a round, then the new rows only."""
    counts, reads, sampling = setup.streams(phase.store), phase.agent.reads, phase.sampling

    def keep_up(known, store, rows):
        num = rows.reward.shape[0]
        return knowledge.keep_up(known, store, num, counts['online'], setup.environment.horizon, reads, sampling)

    return lambda name, source: knowledge.know(source, counts[name], reads, sampling), keep_up


def _both(dataset, store):
    return {'online': store} if dataset is None else {'dataset': dataset, 'online': store}


def _after_host_collection(programs, phase, num_updates):
    """`(agent, store, online, transitions[S, T, N], key words[S], dataset, known) -> (agent, store, online, packed metrics)`.

    Once a cycle; `online` and `known` are what is known of store and data set.

    The stores stay out of what is mapped in groups of seeds: that would copy all of them in every cycle.
    """
    counts = programs.setup.streams(phase.store)
    draw, learn = make_learn_ahead(phase.agent, phase.sampling, num_updates=num_updates, streams=counts)
    _, keep_up = _knowing(programs.setup, phase)

    def stored(store, online, transitions, key, dataset, known):
        rows = collection.rows(transitions)
        store = replay.extend(store, rows)
        online = keep_up(online, store, rows)
        return store, online, rows, draw(_both(dataset, store), key, known | {'online': online}) if num_updates else ()

    def learnt(agent, rows, drawn):
        agent = phase.agent.observe(agent, rows)
        if not num_updates:
            return agent, {}
        agent, metrics = learn(agent, drawn)
        return agent, packed(metrics)

    together = programs.over_seeds(stored, (0, 0, 0, 0, None, None), together=True)
    in_groups = programs.over_seeds(learnt, (0, 0, 0))

    def after(agent, store, online, transitions, words, dataset, known):
        store, online, rows, drawn = together(store, online, transitions, jax.random.wrap_key_data(words), dataset, known)
        agent, metrics = in_groups(agent, rows, drawn)
        return agent, store, online, metrics

    return after


def host_job(programs, phase, updates_per_cycle, store) -> Job:
    """What follows a cycle of collection on the host; the arguments are still to be given."""
    name = ('after', phase.agent, repr(phase.sampling), updates_per_cycle, phase.cycle_steps, store.storage.reward.shape)
    return Job(name, _after_host_collection(programs, phase, updates_per_cycle), (), donate=(0, 1, 2))


def host_cycles(programs, state, phase, keys, updates_per_cycle, num_cycles, count):
    """The same in an environment on the host, which comes back to Python in every cycle."""
    environment, watch = programs.setup.environment, programs.watch
    agent, store, collector = state.agent, state.stores[phase.store], state.collectors[phase.store]
    online, known = _known_before(programs, phase, state)
    after, all_metrics, all_finished = host_job(programs, phase, updates_per_cycle, store), [], []
    # Whatever small work there is lies inside a program or in numpy: outside, each jax operation costs as much as a step.
    all_words = jax.device_get(_cycle_words(keys, num_cycles, phase.cycle_steps))
    for words, learn_words in zip(*(some[state.done : state.done + count] for some in all_words), strict=True):
        sample = acting(programs, ('act', phase.agent), phase.agent.sample_action, agent)
        jax.block_until_ready(agent)  # acting waits for it anyway
        with watch.on('collect'):
            collector, transitions, finished = collection.collect_keyed(environment, sample, collector, (words, words))
        seed_first = jax.tree.map(lambda leaf: np.moveaxis(leaf, 0, 1), transitions)
        arrays = agent, store, online, seed_first, learn_words, programs.dataset, known
        agent, store, online, metrics = programs.run(after._replace(args=arrays))
        all_metrics.append(metrics)
        all_finished.append(finished)
    sound = _finite_seeds(agent) if updates_per_cycle else None  # no program that could be given up: the stores have changed
    episodes = {(name,): column[..., None] for name, column in _seed_first(all_finished).items()}
    rows = {'train': _seed_first(jax.device_get(all_metrics)), 'episodes': episodes}
    return _collected(state, phase, agent, store, collector, online), rows, sound


def _seed_first(rows):
    """A list of rows `[S, ...]` as arrays `[S, len(rows), ...]`."""
    return jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *rows)


def _known_before(programs, phase, state):
    """What is known of the store and, by name, of the data set before a part of a round.

    Of the store a pass is made once a round: what a part leaves is kept for the next, since its last digits depend on its past.
    """
    if knowledge.needs_passes(phase.agent, phase.sampling):
        online, known = programs.run(known_job(programs, phase, state.stores[phase.store]))
    else:
        online, known = nothing_known(programs)
    return state.known if state.done else online, known


def nothing_known(programs):
    """What is known where nothing needs to be."""
    nothing = knowledge.Known({}, None, {})
    return nothing, {} if programs.dataset is None else {'dataset': nothing}


def known_job(programs, phase, store) -> Job:
    """A pass over the stores `[S]` of a phase and over the data set."""
    know, _ = _knowing(programs.setup, phase)

    def all_known(store, dataset):
        return known_of(programs.setup, phase, store), {} if dataset is None else {'dataset': know('dataset', dataset)}

    key = ('known', phase.agent, repr(phase.sampling), store.storage.reward.shape)
    return Job(key, all_known, (store, programs.dataset))


def known_of(setup, phase, store):
    """What a pass over a phase's stores `[S]` tells."""
    return jax.vmap(partial(_knowing(setup, phase)[0], 'online'))(store)


@partial(jax.jit, static_argnums=(1, 2))
def _cycle_words(keys, num_cycles, num_steps):
    """Words of the keys `[C, T]` to act with, which the first seed's key stands for, and of keys `[C, S]` to learn with."""
    learn = jnp.swapaxes(jax.vmap(lambda key: jax.random.split(key, num_cycles))(keys), 0, 1)
    collect = jax.vmap(lambda key: jax.random.fold_in(key, 0))(learn[:, 0])
    act, _ = jax.vmap(lambda key: collection.step_keys(key, num_steps))(collect)
    return jax.random.key_data(act), jax.random.key_data(learn)


def _collected(state, phase, agent, store, collector, known):
    return state._replace(
        agent=agent,
        known=known,
        stores={**state.stores, phase.store: store},
        collectors={**state.collectors, phase.store: collector},
    )


@jax.jit
def _finite_seeds(agents):
    return jax.vmap(finite)(agents)


def finite(tree):
    """1 if every number of the tree is finite, else 0."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all().astype(jnp.float32)
