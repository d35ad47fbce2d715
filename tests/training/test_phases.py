"""What a run consists of: the usual schemes, and mistakes that are told before anything runs."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from ooorl.errors import UsageError
from ooorl.training.phases import Phase, Setup, env_steps, finetune, offline, online, ooo, round_sizes, rows_known
from ooorl.training.preflight import check
from ooorl.training.sampling import Sampling
from ooorl.types import Agent, Transition

AGENT, OTHER = (Agent(init=None, update=None, sample_action=None, best_action=None) for _ in range(2))
DATA = Transition(np.zeros((4, 1)), np.zeros((4, 1)), np.zeros(4), np.ones(4), np.zeros((4, 1)), {'boundary': np.zeros(4)})


def environment(num_envs):
    return SimpleNamespace(batch_shape=(num_envs,))


def setup(*phases, num_envs=2, dataset=DATA, **settings):
    return Setup(phases=phases, seeds=(0,), dataset=dataset, environment=environment(num_envs), **settings)


def ooo_phases(**changes):
    settings = {'pretrain_updates': 10, 'num_env_steps': 40, 'explore_updates': 20, 'retrain_updates': 30}
    return ooo(AGENT, OTHER, **settings | changes)


def test_ooo_continues_the_explorer_and_begins_each_exploiter_anew():
    pretrain, explore, first, last = ooo_phases(retrain_at=(0, 40))
    assert [p.name for p in (pretrain, explore, first, last)] == ['pretrain', 'explore', 'retrain@0', 'retrain@40']
    assert pretrain.agent is explore.agent is AGENT and first.agent is last.agent is OTHER
    assert (pretrain.start, explore.start, first.start, last.start) == (None, 'pretrain', None, None)
    assert (pretrain.store, explore.store, first.store) == (None, 'online', 'online')
    assert (first.online_limit, last.online_limit, explore.online_limit) == (0, 40, None)
    assert [p.num_env_steps for p in (pretrain, explore, first, last)] == [0, 40, 0, 0]
    assert [p.name for p in ooo_phases()][2:] == ['retrain@40']
    assert len(ooo_phases(retrain_at=())) == 2
    for budget in (-1, 41):
        with pytest.raises(UsageError, match=f'between 0 and random_steps . num_env_steps, 40; got {budget}'):
            ooo_phases(retrain_at=(budget,))


def test_ooo_without_a_data_set_begins_with_random_steps():
    phases = ooo_phases(pretrain_updates=0, random_steps=8, random_agent=OTHER, retrain_at=(4, 8, 48))
    random, explore, *retrain = phases
    assert (random.name, random.agent, random.num_updates, random.num_env_steps) == ('random', OTHER, 0, 8)
    assert (explore.name, explore.start, explore.num_env_steps) == ('explore', None, 40)
    assert random.store == explore.store == retrain[0].store
    given = setup(*phases, dataset=None)
    check(given)
    # Budgets count the random rows, which come first: 4 is half of them, 48 is everything.
    assert [env_steps(given, number, 0) for number in (1, 2, 3, 4)] == [8, 4, 8, 48]
    assert [p.name for p in ooo_phases(random_steps=8, random_agent=OTHER)] == ['pretrain', 'random', 'explore', 'retrain@48']
    for changes, name in (({}, 'pretrain'), ({'pretrain_updates': 0, 'retrain_at': (0,)}, 'retrain@0')):
        with pytest.raises(UsageError, match=f"'{name}' trains offline and needs a data set; none was given; give one"):
            check(setup(*ooo_phases(**changes), dataset=None))


def test_an_agent_is_told_only_of_rows_it_does_not_know():
    phases = (
        *ooo_phases(random_steps=8, random_agent=OTHER),
        Phase(name='on', agent=AGENT, num_updates=1, start='explore', store='online'),
        Phase(name='few', agent=OTHER, num_updates=1, store='online', online_limit=4),
        Phase(name='more', agent=OTHER, num_updates=1, start='few', store='online'),
        Phase(name='aside', agent=OTHER, num_updates=1, start='few'),
        Phase(name='back', agent=OTHER, num_updates=1, start='aside', store='online'),
    )
    known = {phase.name: rows_known(setup(*phases), phase) for phase in phases}
    assert known == {
        'pretrain': 0, 'random': 0, 'explore': 0, 'retrain@48': 0, 'on': 48, 'few': 0, 'more': 4, 'aside': 0, 'back': 4,
    }  # fmt: skip


def test_the_other_schemes():
    (only,) = offline(AGENT, num_updates=3)
    assert (only.name, only.num_updates, only.store) == ('offline', 3, None)
    before, after = finetune(AGENT, offline_updates=3, num_env_steps=4, num_updates=4)
    assert after.start == before.name and after.agent is before.agent
    own = Sampling(batch_size=3)
    assert finetune(AGENT, offline_updates=3, num_env_steps=4, num_updates=4, online_sampling=own)[1].sampling is own
    random, learning = online(AGENT, num_env_steps=4, num_updates=4, random_agent=OTHER, random_steps=2)
    assert random.agent is OTHER and random.num_updates == 0 and random.store == learning.store
    assert len(online(AGENT, num_env_steps=4, num_updates=4)) == 1


def test_rounds_cover_every_update_and_every_step():
    phase = Phase(name='a', agent=AGENT, num_updates=25)
    assert list(round_sizes(phase, setup(phase, updates_per_round=10))) == [(10, 0), (10, 0), (5, 0)]
    assert list(round_sizes(phase, setup(phase, updates_per_round=100))) == [(25, 0)]
    phase = Phase(name='a', agent=AGENT, num_updates=60, num_env_steps=40, cycle_steps=2, store='online')
    # 40 steps are 10 cycles of 2 copies x 2 steps with 6 updates each; 20 updates a round are 3 cycles.
    assert list(round_sizes(phase, setup(phase, updates_per_round=20))) == [(18, 3)] * 3 + [(6, 1)]
    assert list(round_sizes(phase, setup(phase, updates_per_round=1))) == [(6, 1)] * 10
    phase = Phase(name='a', agent=AGENT, num_updates=0, num_env_steps=40, store='online')
    assert sum(c for _, c in round_sizes(phase, setup(phase, updates_per_round=7))) == 20
    phase = Phase(name='a', agent=AGENT, num_updates=0)
    assert list(round_sizes(phase, setup(phase))) == [(0, 0)]


@pytest.mark.parametrize(('updates', 'most', 'every', 'sizes'), [
    (10_000, 1_000, 2_500, {625}),  # equal rounds, one program
    (10_000, 1_000, 5_000, {1_000}),  # as without evaluations
    (10_000, 1_000, 500, {500}),
    (5_006, 1_000, 2_503, {1_000, 503}),  # a prime has no equal parts
    (6_000, 1_000, 2_500, {625, 375}),
    (900, 1_000, 2_500, {900}),
])  # fmt: skip
def test_rounds_end_where_an_evaluation_is_due(updates, most, every, sizes):
    phase = Phase(name='a', agent=AGENT, num_updates=updates)
    rounds = round_sizes(phase, setup(phase, updates_per_round=most, evaluate_every=every))
    assert {size for size, _ in rounds} == sizes and sum(size for size, _ in rounds) == updates
    ends = [rounds.done(number)[0] for number in range(1, len(rounds) + 1)]
    assert ends == np.cumsum([size for size, _ in rounds]).tolist()
    due = [end for number, end in enumerate(ends, 1) if rounds.ends_period(number)]
    assert due == [*range(every, updates + 1, every)] or updates < every
    assert rounds[-1] == list(rounds)[-1]


def test_evaluations_between_cycles_and_never_within_one():
    phase = Phase(name='a', agent=AGENT, num_updates=60, num_env_steps=40, cycle_steps=2, store='online')
    # 10 cycles of 6 updates: every 12 updates are every 2 cycles.
    rounds = round_sizes(phase, setup(phase, updates_per_round=1_000, evaluate_every=12))
    assert list(rounds) == [(12, 2)] * 5 and all(map(rounds.ends_period, range(1, 6)))
    with pytest.raises(UsageError, match="evaluate_every must be a multiple of the 6 updates of one cycle of phase 'a'; got 20"):
        check(setup(phase, evaluate_every=20))
    assert len(round_sizes(phase, setup(phase, evaluate_every=61))) == 1  # beyond the phase: at its end alone
    still = Phase(name='a', agent=AGENT, num_updates=0, num_env_steps=40, store='online')
    assert len(round_sizes(still, setup(still, updates_per_round=100, evaluate_every=3))) == 1


def test_rounds_take_no_memory():
    phase = Phase(name='a', agent=AGENT, num_updates=10**15)
    rounds = round_sizes(phase, setup(phase, updates_per_round=1_000))
    assert rounds.done(len(rounds)) == (10**15, 0) and rounds[10**12 - 1] == (1_000, 0)


def test_experience_counts_what_a_phase_may_read():
    given = setup(*ooo_phases(retrain_at=(0, 10, 40)))
    assert [env_steps(given, number, cycles) for number, cycles in ((0, 0), (1, 5), (1, 20))] == [0, 10, 40]
    assert [env_steps(given, number, 0) for number in (2, 3, 4)] == [0, 10, 40]


LABELLED = dataclasses.replace(AGENT, reads=('source',))


def collecting(**settings):
    return Phase(**{'name': 'a', 'agent': AGENT, 'num_updates': 4, 'num_env_steps': 8, 'store': 'online', **settings})


@pytest.mark.parametrize(('phases', 'settings', 'words'), [
    ([Phase(name='a', agent=AGENT, num_updates=1)] * 2, {}, r"names of their own; got \['a', 'a'\]"),
    ([Phase(name='a', agent=AGENT, num_updates=1, start='b')], {}, "starts from 'b', which is not an earlier phase"),
    ([Phase(name='a', agent=AGENT, num_updates=1, start='a')], {}, "starts from 'a', which is not an earlier phase"),
    ([Phase(name='a', agent=AGENT, num_updates=1, store='s')], {}, "reads the store 's', to which no phase before it adds"),
    ([Phase(name='a', agent=AGENT, num_updates=1)], {'dataset': None}, 'needs a data set'),
    ([Phase(name='a', agent=LABELLED, num_updates=1)], {}, "'a' labels the rows of a data set by .* it has no store"),
    ([collecting(agent=LABELLED)], {'dataset': None}, 'it has no data set; take scheme online with a data set'),
    ([collecting(), Phase(name='b', agent=AGENT, num_updates=1, store='online', online_limit=0)], {'dataset': None},
     "'b' trains offline and needs a data set"),
])  # fmt: skip
def test_impossible_runs_are_refused(phases, settings, words):
    with pytest.raises(UsageError, match=words):
        check(setup(*phases, **settings))


def test_collection_needs_an_environment_and_whole_cycles():
    with pytest.raises(UsageError, match="'a' collects data and needs an environment"):
        check(Setup(phases=(collecting(),), seeds=(0,), dataset=DATA))
    with pytest.raises(UsageError, match='num_envs x cycle_steps = 3; got 8'):
        round_sizes(collecting(), setup(collecting(), num_envs=3))
    with pytest.raises(UsageError, match='multiple of its 4 cycles of collection; got 5'):
        round_sizes(collecting(num_updates=5), setup(num_envs=2))


@pytest.mark.parametrize(('settings', 'words'), [
    ({'store': None}, "'a' collects 8 steps and needs a store"),
    ({'num_updates': -1}, 'num_updates must be 0 or more; got -1'),
    ({'num_env_steps': -1}, 'num_env_steps must be 0 or more; got -1'),
    ({'cycle_steps': 0}, 'cycle_steps must be greater than 0; got 0'),
])  # fmt: skip
def test_impossible_phases_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        collecting(**settings)
