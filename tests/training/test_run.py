"""Runs: what the stores hold, who learns from what, which seeds and rounds matter."""

import dataclasses
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from line_world import HORIZON, LineEnv, line_task

from ooorl.envs import batched, host
from ooorl.errors import UsageError
from ooorl.nn.schedules import Scheduled, scheduled_adam
from ooorl.runner.build import uniform
from ooorl.training import rounds
from ooorl.training import run as running
from ooorl.training.phases import Phase, Setup, finetune, offline, online, ooo
from ooorl.training.sampling import Sampling
from ooorl.types import Agent, Spec, Transition, ignore_data
from ooorl.wrap import bonus, edited

LINE = Spec(observation_dim=1, action_dim=1)


def line_data(num=20):
    """Transitions that no episode of the task produces: their observations are at 100 and above."""
    n = np.arange(num, dtype=np.float32)
    return Transition(
        observation=100 + n[:, None],
        action=np.zeros((num, 1), np.float32),
        reward=50 + n,
        discount=np.ones(num, np.float32),
        next_observation=101 + n[:, None],
        extras={'boundary': (n % 5 == 4).astype(np.float32)},
    )


def recorder(observe=True):
    """An agent with random actions whose state remembers what it was shown: sums that tell rows apart."""

    def init(key):
        zero = jnp.zeros(())
        return {'identity': jax.random.uniform(key), 'updates': zero, 'largest': zero, 'low': zero + 9e9, 'told': zero}

    def update(state, batch, key):
        del key
        state = state | {
            'updates': state['updates'] + 1,
            'largest': jnp.maximum(state['largest'], batch.observation.max()),
            'low': jnp.minimum(state['low'], batch.observation.min()),
        }
        return state, {'reward': batch.reward.mean()}

    return Agent(
        init=init,
        update=update,
        sample_action=lambda state, obs, key: jax.random.uniform(key, obs.shape, minval=-1.0, maxval=1.0),
        best_action=lambda state, obs, key: jnp.full(obs.shape, 0.5),
        observe=(lambda state, rows: state | {'told': state['told'] + rows.reward.shape[0]}) if observe else ignore_data,
    )


SCHEME = {'pretrain_updates': 6, 'num_env_steps': 24, 'explore_updates': 12, 'retrain_updates': 8}


def line_setup(phases, *, kind='compiled', seeds=(0, 1), num_envs=2, **settings):
    if kind == 'compiled':
        environment, evaluation = batched(line_task(), num_envs), batched(line_task(), 3)
    else:
        environment = host(LineEnv, (len(seeds), num_envs), horizon=HORIZON)
        evaluation = host(LineEnv, (len(seeds), 3), horizon=HORIZON)
    settings = {'dataset': line_data(), 'updates_per_round': 4, 'environment': environment, 'evaluation': evaluation, **settings}
    return Setup(phases=phases, seeds=seeds, **settings)


def collect_events(setup, resume=None):
    events = []
    running.run(setup, resume=resume, report=events.append)
    return events


@pytest.fixture(scope='module', params=['compiled', 'host'])
def recorded(request):
    """One OOO run of recorders in a compiled or a host environment: its phases' final states, store and rows of metrics."""
    explorer, exploiter = recorder(), recorder()
    phases = ooo(explorer, exploiter, retrain_at=(0, 8, 24), **SCHEME)
    events = collect_events(line_setup(phases, kind=request.param))
    return jax.device_get(events[-1].state), [row for event in events for row in event.rows], events


def test_the_store_holds_exactly_the_experience_collected_in_its_order(recorded):
    state, rows, _ = recorded
    store = state.stores['online']
    np.testing.assert_array_equal(store.size, [24, 24])
    for seed in range(2):
        columns = jax.tree.map(lambda leaf: leaf[seed].reshape(12, 2, *leaf.shape[2:]), store.storage)  # noqa: B023
        position, successor = columns.observation[..., 0], columns.next_observation[..., 0]
        np.testing.assert_array_equal(successor, position + columns.action[..., 0])
        np.testing.assert_array_equal(columns.reward, successor)  # raw, whatever agents do with it
        ended = columns.extras['boundary'] == 1
        np.testing.assert_array_equal(position[0], [0, 0])
        np.testing.assert_array_equal(position[1:], np.where(ended[:-1], 0.0, successor[:-1]))
        finished = [row for row in rows if row['kind'] == 'episodes' and row['seed'] == seed]
        assert sum(row['num_episodes'] for row in finished) == ended.sum()
    assert not np.array_equal(store.storage.action[0], store.storage.action[1])


def test_the_explorer_continues_and_every_exploiter_is_brand_new(recorded):
    finished = recorded[0].finished
    np.testing.assert_array_equal(finished['pretrain']['updates'], [6, 6])
    np.testing.assert_array_equal(finished['explore']['updates'], [18, 18])
    np.testing.assert_array_equal(finished['explore']['identity'], finished['pretrain']['identity'])
    for budget in (0, 8, 24):
        np.testing.assert_array_equal(finished[f'retrain@{budget}']['updates'], [8, 8])
    identities = [finished[name]['identity'] for name in ('pretrain', 'retrain@0', 'retrain@8', 'retrain@24')]
    assert len(set(np.concatenate(identities).tolist())) == 8  # of every phase and every seed its own


def test_agents_are_told_of_every_stored_row_once(recorded):
    finished = recorded[0].finished
    told = {name: state['told'].tolist() for name, state in finished.items()}
    assert told == {
        'pretrain': [20, 20], 'explore': [44, 44], 'retrain@0': [20, 20], 'retrain@8': [28, 28], 'retrain@24': [44, 44],
    }  # fmt: skip


@pytest.mark.parametrize('seeds', [(0,), (0, 1)])
def test_a_cycle_on_the_host_copies_no_store(seeds):
    steps = 200_000
    phase = Phase(name='online', agent=recorder(), num_updates=steps // 2, num_env_steps=steps, store='online')
    setup = line_setup((phase,), kind='host', seeds=seeds)
    programs = rounds.Programs(setup)
    state = rounds.begin(programs, rounds.RunState(0, 0, None, {}, {}, {}), phase)
    store = state.stores['online'].storage.reward.nbytes
    state, _, _ = rounds.one_round(programs, state, phase, [(4, 4)])
    (after,) = (program for key, program in programs._compiled.items() if key[0] == 'after')
    assert after.memory_analysis().temp_size_in_bytes < store / 10
    np.testing.assert_array_equal(state.stores['online'].size, [8] * len(seeds))


def test_phases_read_what_they_may(recorded):
    finished = recorded[0].finished
    assert (finished['pretrain']['low'] >= 100).all() and (finished['retrain@0']['low'] >= 100).all()
    for name in ('explore', 'retrain@8', 'retrain@24'):
        assert (finished[name]['low'] < 100).all() and (finished[name]['largest'] >= 100).all()


@pytest.mark.parametrize('budget', [2, 10])
def test_a_budget_hides_later_rows_altogether(budget):
    # The exploiter's batches are all online; each row says when it was collected, because the explorer's actions do.
    def number(agent):
        return Agent(
            init=lambda key: jnp.zeros((1,)),
            update=lambda state, batch, key: (state, {'row': batch.action.max()}),
            sample_action=lambda state, obs, key: jnp.broadcast_to(state / 64, obs.shape),
            best_action=agent.best_action,
            observe=lambda state, rows: state + 1,
        )

    explorer, reader = number(recorder()), number(recorder())
    sampling = Sampling(batch_size=64, mix={'online': 1.0})
    phases = ooo(explorer, reader, retrain_at=(budget,), retrain_sampling=sampling, **SCHEME | {'pretrain_updates': 0})
    rows = [row for event in collect_events(line_setup(phases)) for row in event.rows]
    largest = max(row['row'] for row in rows if row['phase'] == f'retrain@{budget}' and row['kind'] == 'train')
    # In step t both copies act with (t + 1) / 64: the data set counts as 1, every step afterwards as 1 more.
    assert largest == pytest.approx(budget / 2 / 64)


def test_rows_of_metrics_name_their_place(recorded):
    _, rows, events = recorded
    evaluations = [row for row in rows if row['kind'] == 'eval']
    assert len(evaluations) == 2 * 5
    assert {row['return'] for row in evaluations} == {0.5 + 1.0 + 1.5 + 2.0}  # 0.5 a step: at the goal in step 4
    assert {row['length'] for row in evaluations} == {4.0} and {row['success'] for row in evaluations} == {1.0}
    last = {row['phase']: (row['updates'], row['env_steps']) for row in evaluations}
    assert last == {
        'pretrain': (6, 0), 'explore': (12, 24), 'retrain@0': (8, 0), 'retrain@8': (8, 8), 'retrain@24': (8, 24),
    }  # fmt: skip
    assert [event.phase.name for event in events if event.phase_done] == list(last)
    assert [event.updates for event in events if event.phase.name == 'explore'] == [4, 8, 12]


def test_one_compilation_per_kind_of_phase(monkeypatch):
    made = []

    class Counted(running.Programs):
        def __init__(self, setup, **settings):
            super().__init__(setup, **settings)
            made.append(self)

    monkeypatch.setattr(running, 'Programs', Counted)
    explorer, exploiter = recorder(observe=False), recorder(observe=False)
    phases = ooo(explorer, exploiter, retrain_at=(0, 8, 16, 24), **SCHEME | {'pretrain_updates': 8})
    collect_events(line_setup(phases))
    kinds = Counter(key if isinstance(key, str) else key[0] for key in made[0]._compiled)
    # Learning: the explorer offline, the exploiter beside the store, whatever the budget, 0 included.
    # Diagnostics: one for each agent, and one for the newest rows of the store.
    expected = {'start': 1, 'learn': 2, 'cycles': 1, 'evaluate': 2, 'measure': 2, 'window': 1}
    assert {kind: kinds[kind] for kind in expected} == expected


def test_two_stores_of_different_sizes_share_an_agent():
    agent = recorder(observe=False)
    phases = (
        Phase(name='a', agent=agent, num_updates=4, num_env_steps=8, store='one'),
        Phase(name='b', agent=agent, num_updates=8, num_env_steps=16, store='two', sampling=Sampling()),
        Phase(name='c', agent=agent, num_updates=4, store='one'),
        Phase(name='d', agent=agent, num_updates=4, store='two'),
    )
    shared = phases[0].sampling
    phases = tuple(Phase(**{**vars(p), 'sampling': shared}) for p in phases)
    state = collect_events(line_setup(phases))[-1].state
    assert {name: store.size.tolist() for name, store in state.stores.items()} == {'one': [8, 8], 'two': [16, 16]}


def test_a_learner_is_told_of_what_others_collected_into_its_store():
    phases = online(recorder(), num_env_steps=8, num_updates=4, random_agent=uniform(LINE), random_steps=8)
    state = collect_events(line_setup(phases, dataset=None))[-1].state
    np.testing.assert_array_equal(state.finished['online']['told'], [16, 16])
    assert (np.asarray(state.finished['online']['largest']) < 100).all()


@pytest.mark.parametrize(('data', 'told'), [(None, [32, 24, 8]), (20, [52, 44, 28])])
def test_exploration_begins_with_random_rows_that_everybody_is_told_of(data, told):
    explorer, exploiter = recorder(), recorder()
    phases = ooo(explorer, exploiter, random_agent=uniform(LINE), random_steps=8, retrain_at=(8, 24),
                 **SCHEME | {'pretrain_updates': 6 * bool(data)})  # fmt: skip
    setup = line_setup(phases, dataset=data and line_data(data), seeds=(0,))
    state = collect_events(setup)[-1].state
    assert state.stores['online'].size.tolist() == [32]
    # All 8 + 24 collected rows and the data; the exploiters those within their budgets.
    order = ('explore', 'retrain@24', 'retrain@8')
    assert [int(state.finished[name]['told'][0]) for name in order] == told
    assert ('pretrain' in state.finished) == bool(data)


def test_rewards_are_stored_raw_whatever_wrappers_do():
    agent = bonus(
        edited(recorder(observe=False), lambda batch: batch._replace(reward=batch.reward * 0.0)), _loud_signal(), scale=100.0
    )
    phases = finetune(agent, offline_updates=4, num_env_steps=8, num_updates=4)
    state = collect_events(line_setup(phases))[-1].state
    storage = state.stores['online'].storage
    np.testing.assert_array_equal(storage.reward, storage.next_observation[..., 0])
    assert set(storage.extras) == {'boundary'}


def _loud_signal():
    from ooorl.types import Signal

    def score(state, batch):
        return jnp.full(batch.reward.shape, 7.0)

    return Signal(init=lambda key: jnp.zeros(()), update=lambda s, b, k: (s, score(s, b), {}), score=score)


@pytest.mark.parametrize('fresh_optimizers', [False, True])
def test_every_phase_goes_through_its_own_schedule(fresh_optimizers):
    # With a constant gradient each step is the rate: a linear decay over n updates moves by (n + 1) / 2, whatever the rounds.
    optimizer = scheduled_adam(Scheduled(schedule='linear'), 'policy', 1.0, eps=0.0)

    def update(state, batch, key):
        del batch, key
        step, opt = optimizer.update(jnp.ones(()), state['opt'])
        return {'value': state['value'] + step, 'opt': opt}, {}

    agent = dataclasses.replace(
        recorder(observe=False), init=lambda key: {'value': 0.0 * jax.random.uniform(key), 'opt': optimizer.init(jnp.zeros(()))},
        update=update,
    )
    lengths = {'offline_updates': 6, 'num_env_steps': 24, 'num_updates': 12}
    setup = line_setup(finetune(agent, **lengths, fresh_optimizers=fresh_optimizers), evaluation=None)
    finished = running.run(setup).finished
    np.testing.assert_allclose(finished['offline']['value'], -3.5, rtol=1e-4)
    np.testing.assert_allclose(finished['finetune']['value'], -3.5 - 6.5, rtol=1e-4)


def test_numbers_that_are_not_finite_stop_the_run():
    sick = edited(recorder(observe=False), lambda batch: batch._replace(reward=batch.reward * jnp.inf))
    with pytest.raises(running.Diverged, match=r"phase 'offline' produced others by update 4 for seeds \[0, 1\]"):
        collect_events(line_setup(offline(sick, num_updates=8)))
    hidden = Agent(
        init=lambda key: {'weights': jnp.ones(())},
        update=lambda state, batch, key: ({'weights': state['weights'] * jnp.inf}, {'fine': jnp.ones(())}),
        sample_action=None, best_action=None,
    )  # fmt: skip
    with pytest.raises(running.Diverged, match='lower the learning rate'):
        collect_events(line_setup(offline(hidden, num_updates=4), evaluation=None))


def test_a_run_that_cannot_be_is_refused_before_it_begins():
    agent = recorder()
    for phases, words in (
        ((Phase(name='a', agent=agent, num_updates=1, start='nothing'),), "starts from 'nothing'"),
        ((Phase(name='a', agent=agent, num_updates=1, num_env_steps=3, store='s'),), 'multiple of num_envs x cycle_steps = 2'),
    ):
        with pytest.raises(UsageError, match=words):
            collect_events(line_setup(phases))
    reader = offline(dataclasses.replace(agent, reads=('next_action',)), num_updates=1)
    shuffled = line_data()._replace(extras={'boundary': np.ones(20, np.float32)})
    with pytest.raises(UsageError, match='in the order it was lived; 0 of 20 rows are followed by the next of their episode'):
        collect_events(line_setup(reader, dataset=shuffled))
