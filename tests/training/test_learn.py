"""The training loop: what a batch is made of, which columns it has, and that one program serves a growing store."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ooorl.errors import UsageError
from ooorl.training import episodes, learn, replay
from ooorl.training.learn import Sampling, keep_up, make_learn, make_learn_ahead, needs_passes
from ooorl.types import Agent, Transition
from ooorl.wrap import rescaled_reward, with_extras

GAMMA = 0.9

# Most of what these cost otherwise is compiling one operation after another.
extend = jax.jit(replay.extend)
annotated = jax.jit(learn.annotated, static_argnums=(1, 2, 3))
know = jax.jit(learn.know, static_argnums=(1, 2, 3))
successes = jax.jit(learn.successes, static_argnums=(1, 2))


def learner(*args, **settings):
    """`make_learn`, compiled."""
    return jax.jit(make_learn(*args, **settings))


def listening(reads=(), report=lambda batch: {}):
    """An agent that learns nothing and reports on its batches: its state counts updates."""

    def update(state, batch, key):
        del key
        return state + 1, {name: jnp.asarray(value, jnp.float32) for name, value in report(batch).items()}

    def act(state, observation, key):
        del state, key
        return observation

    return Agent(init=lambda key: jnp.zeros(()), update=update, sample_action=act, best_action=act, reads=reads)


def store(reward, boundary, discount=None, capacity=None):
    """A buffer whose observation is the row number."""
    reward = np.asarray(reward, np.float32)
    num = len(reward)
    rows = Transition(
        observation=np.arange(num, dtype=np.float32)[:, None],
        action=np.zeros((num, 1), np.float32),
        reward=reward,
        discount=np.ones(num, np.float32) if discount is None else np.asarray(discount, np.float32),
        next_observation=np.arange(1, num + 1, dtype=np.float32)[:, None],
        extras={'boundary': np.asarray(boundary, np.float32)},
    )
    if capacity is None:
        return replay.full(rows)
    return extend(replay.create(jax.tree.map(lambda leaf: leaf[0], rows), capacity), rows)


def rows_of(view):
    """Row numbers that a view may draw."""
    rows = np.flatnonzero(np.asarray(view.mask))
    assert len(rows) == int(view.size)
    return np.asarray(view.storage.observation)[rows, 0].astype(int).tolist()


# Two environments side by side, four steps: row = 2 t + e. Environment 0 wins in its second episode (rows 4 and 6), environment 1
# in its first (rows 1 and 3), whose second one is unfinished.
STREAMS = {'reward': [0, 0, 0, 1, 0, 0, 1, 0], 'boundary': [0, 0, 1, 1, 0, 0, 1, 0]}


def test_a_success_lends_its_whole_trajectory_also_in_interleaved_streams():
    sampling = Sampling(success_rows=1)
    assert rows_of(successes(store(**STREAMS), 2, sampling)) == [1, 3, 4, 6]
    assert rows_of(successes(store(**STREAMS, capacity=12), 2, sampling)) == [1, 3, 4, 6]
    assert rows_of(successes(store(**STREAMS), 2, Sampling(success_rows=1, success_unit='transition'))) == [3, 6]
    assert rows_of(successes(store(**STREAMS), 2, Sampling(success_rows=1, success_reward=2.0))) == []
    # Read as one stream, the same rows are other episodes.
    assert rows_of(successes(store(**STREAMS), 1, sampling)) == [3, 4, 5, 6]


def test_a_limit_hides_later_successes_returns_and_rewards():
    sampling, reads = Sampling(success_rows=1, gamma=GAMMA), ('return_to_go', 'discounted_horizon')
    whole = store(**STREAMS)
    limited = replay.take(whole, 6)  # environment 0 has not won yet: row 6 is hidden
    assert rows_of(successes(limited, 2, sampling)) == [1, 3]
    seen = annotated(limited, 2, reads, sampling).storage.extras
    # Rows 4 and 5 belong to episodes whose ends are hidden: nothing is known of their returns.
    np.testing.assert_allclose(seen['return_to_go'][:6], [0, GAMMA, 0, 1, np.nan, np.nan], rtol=1e-6)
    np.testing.assert_allclose(seen['discounted_horizon'][:6], [1 + GAMMA, 1 + GAMMA, 1, 1, np.nan, np.nan], rtol=1e-6)
    full = annotated(whole, 2, reads, sampling).storage.extras['return_to_go']
    np.testing.assert_allclose(full, [0, GAMMA, 0, 1, GAMMA, np.nan, 1, np.nan], rtol=1e-6)
    agent = listening(('reward_low', 'reward_high'), lambda b: {n: b.extras[n][0] for n in ('reward_low', 'reward_high')})
    learn = learner(agent, Sampling(batch_size=2), num_updates=1, streams={'online': 1})
    hidden = store([0.5, 0.25, 9.0, -9.0], [0, 0, 0, 1])
    _, bounds = learn(jnp.zeros(()), {'online': replay.take(hidden, 2)}, jax.random.key(0))
    assert (bounds['reward_low'], bounds['reward_high']) == (0.25, 0.5)


@pytest.mark.parametrize('failure_returns', [False, True])
def test_a_hidden_end_is_as_good_as_no_end(failure_returns):
    # What is told of the visible rows may not depend on anything that the hidden ones hold, terminal marks included.
    sampling, reads = Sampling(gamma=GAMMA, failure_returns=failure_returns), ('return_to_go',)
    columns = []
    for reward, boundary, discount in (([0, 0, 1, 0], [0, 0, 1, 1], [1, 1, 0, 0]), ([0, 0, 7, 0], [0, 0, 0, 0], [1, 1, 1, 1])):
        source = replay.take(store(reward, boundary, discount), 2)
        columns.append(np.asarray(annotated(source, 1, reads, sampling).storage.extras['return_to_go'])[:2])
        grown = store(reward[:2], boundary[:2], discount[:2], capacity=4)  # rows 2 and 3 never written
        columns.append(np.asarray(annotated(grown, 1, reads, sampling).storage.extras['return_to_go'])[:2])
    assert np.isnan(columns).all()


def acted(num, boundary, capacity=None, discount=None):
    """`store`, with the row number as action too."""
    replayed = store(np.zeros(num), boundary, discount, capacity)
    return replayed._replace(storage=replayed.storage._replace(action=replayed.storage.observation))


def next_actions(source, streams):
    """By row: the row whose action was found, -1 where none is known."""
    column = annotated(source, streams, ('next_action',), Sampling()).storage.extras['next_action']
    assert column.shape == source.storage.action.shape
    return np.nan_to_num(column[:, 0], nan=-1).astype(int).tolist()


def test_the_next_action_is_that_of_the_next_row_of_the_episode():
    # One stream: episodes of three and two rows, then an unfinished one.
    assert next_actions(acted(7, [0, 0, 1, 0, 1, 0, 0]), 1) == [1, 2, -1, 4, -1, 6, -1]
    # An episode that goes on behind a terminal row has a next action there.
    assert next_actions(acted(3, [0, 0, 1], discount=[1, 0, 1]), 1) == [1, 2, -1]
    # Two environments side by side (row = 2 t + e), the store not yet full; rows never written know nothing.
    grown = acted(8, STREAMS['boundary'], capacity=11)
    assert next_actions(grown, 2) == [2, 3, -1, -1, 6, 7, -1, -1, -1, -1, -1]
    # What a limit hides is not known either.
    assert next_actions(replay.take(grown, 6), 2)[:6] == [2, 3, -1, -1, -1, -1]


@pytest.mark.parametrize('capacity', [8, 9])
def test_in_a_full_ring_the_next_action_crosses_the_edge_and_stops_at_the_cursor(capacity):
    rows = acted(14, [0] * 14).storage
    ring = replay.create(jax.tree.map(lambda leaf: leaf[0], rows), capacity)
    for start in range(0, 14, 2):
        ring = extend(ring, jax.tree.map(lambda leaf: leaf[start : start + 2], rows))  # noqa: B023
    held = np.asarray(ring.storage.action[:, 0]).astype(int)
    assert sorted(held) == list(range(14 - capacity, 14))
    assert next_actions(ring, 2) == [row + 2 if row + 2 < 14 else -1 for row in held]


def test_next_actions_reach_the_agent_from_both_stores_and_columns_of_the_data_are_kept():
    agent = listening(('next_action',), lambda b: {'wrong': (b.extras['next_action'] != b.observation + 1).mean()})
    learn = learner(agent, Sampling(batch_size=32, mix={'dataset': 0.5, 'online': 0.5}), num_updates=2, streams=BOTH)
    sources = {'dataset': replay.take(acted(9, [0] * 9), 8), 'online': acted(9, [0] * 9, capacity=9)}
    _, metrics = learn(jnp.zeros(()), sources, jax.random.key(0))
    assert 0 < metrics['wrong'] < 0.25  # only the newest rows of the two stores do not know
    own = acted(3, [1, 1, 1])
    own = own._replace(storage=with_extras(own.storage, next_action=7.0 * jnp.ones((3, 1))))
    assert next_actions(own, 1) == [7, 7, 7]


def test_returns_through_a_rescaled_reward_equal_those_computed_from_rescaled_rewards():
    rng = np.random.default_rng(0)
    reward = rng.normal(size=24).astype(np.float32)
    boundary = (np.arange(24) % 7 == 6).astype(np.float32)  # the last three rows are unfinished
    discount = np.ones(24, np.float32)
    discount[13] = 0.0
    sampling = Sampling(gamma=GAMMA, batch_size=200)
    expected = np.asarray(jax.jit(episodes.returns_to_go)(2.0 * reward - 1.0, discount, boundary, GAMMA))
    assert np.isnan(expected[21:]).all() and np.isfinite(expected[:21]).all()

    def report(batch):
        right = jnp.asarray(expected)[batch.observation[:, 0].astype(int)]
        off = jnp.where(jnp.isnan(right), 0.0, jnp.abs(batch.extras['return_to_go'] - right))
        agree = jnp.isnan(right) == jnp.isnan(batch.extras['return_to_go'])
        return {'off': off.max(), 'agree': agree.all(), 'unknown': jnp.isnan(right).mean()}

    agent = rescaled_reward(listening(('return_to_go',), report), scale=2.0, shift=-1.0)
    assert agent.reads == ('return_to_go', 'discounted_horizon')
    learn = learner(agent, sampling, num_updates=3, streams={'dataset': 1})
    _, metrics = learn(jnp.zeros(()), {'dataset': store(reward, boundary, discount)}, jax.random.key(0))
    assert metrics['agree'] == 1.0 and 0 < metrics['unknown'] < 1
    assert metrics['off'] < 1e-5  # float32 over at most 7 terms


def test_columns_are_added_only_for_who_reads_them():
    def learn(agent):
        return learner(agent, Sampling(batch_size=4), num_updates=1, streams={'dataset': 1})

    seen = []
    for reads in ((), ('return_to_go',), ('reward_low',)):
        agent = listening(reads, lambda batch: seen.append(set(batch.extras)) or {})
        learn(agent)(jnp.zeros(()), {'dataset': store([0, 1], [0, 1])}, jax.random.key(0))
    assert seen[0] == {'boundary'}
    assert seen[1] == {'boundary', 'return_to_go', 'discounted_horizon'}
    assert seen[2] == {'boundary', 'reward_low', 'reward_high'}
    with pytest.raises(UsageError, match="reads batch.extras\\['label'\\], but dataset stores only"):
        learn(listening(('label',)))(jnp.zeros(()), {'dataset': store([0], [1])}, jax.random.key(0))


def test_reward_range_spans_all_stores():
    agent = listening(('reward_low', 'reward_high'), lambda b: {n: b.extras[n].mean() for n in ('reward_low', 'reward_high')})
    learn = learner(agent, Sampling(batch_size=2), num_updates=2, streams={'dataset': 1, 'online': 1})
    sources = {'dataset': store([1, 3], [0, 1]), 'online': store([2, -4], [0, 1], capacity=8)}  # not the zeros of unwritten rows
    _, metrics = learn(jnp.zeros(()), sources, jax.random.key(0))
    assert (metrics['reward_low'], metrics['reward_high']) == (-4.0, 3.0)
    positive = {'dataset': store([1, 3], [0, 1]), 'online': store([2, 2], [0, 1], capacity=8)}
    assert learn(jnp.zeros(()), positive, jax.random.key(0))[1]['reward_low'] == 1.0


def test_metrics_are_averaged_over_the_updates():
    agent = Agent(
        init=lambda key: jnp.zeros(()),
        update=lambda state, batch, key: (state + 1, {'count': state}),
        sample_action=None,
        best_action=None,
    )
    learn = learner(agent, Sampling(batch_size=2), num_updates=5, streams={'dataset': 1})
    state, metrics = learn(jnp.zeros(()), {'dataset': store([0, 1], [0, 1])}, jax.random.key(0))
    assert state == 5 and metrics['count'] == 2.0  # the mean of 0 to 4


def test_one_trace_serves_a_growing_store_and_every_limit():
    traces = []
    agent = listening((), lambda batch: traces.append(1) or {'row': batch.observation.max()})
    learn = learner(agent, Sampling(batch_size=64), num_updates=3, streams={'dataset': 1, 'online': 2})
    data, online = store([0, 0], [0, 1]), store([0] * 4, [0] * 4, capacity=40)
    for _ in range(3):
        learn(jnp.zeros(()), {'dataset': data, 'online': online}, jax.random.key(0))
        online = extend(online, jax.tree.map(lambda leaf: leaf[:4], online.storage))
    for limit in (0, 3, 11):
        learn(jnp.zeros(()), {'dataset': data, 'online': replay.take(online, limit)}, jax.random.key(0))
    assert len(traces) == 1 and learn._cache_size() == 1


def test_the_second_call_moves_nothing_between_host_and_device():
    learn = learner(listening(), Sampling(batch_size=8), num_updates=3, streams={'dataset': 1})
    state, sources, key = jnp.zeros(()), {'dataset': store([0, 1], [0, 1])}, jax.random.key(0)
    state, _ = learn(state, sources, key)
    with jax.transfer_guard('disallow'):
        learn(state, sources, key)


def composition(sampling, sources, streams):
    """Share of rows from the data set (its rewards are at least 10) and share of successes, over many updates."""
    agent = listening((), lambda b: {'dataset': (b.reward >= 10).mean(), 'wins': ((b.reward == 1) | (b.reward == 11)).mean()})
    learn = learner(agent, sampling, num_updates=200, streams=streams)
    _, metrics = learn(jnp.zeros(()), sources, jax.random.key(3))
    return {name: float(value) for name, value in metrics.items()}


DATA = {'reward': [10.0] * 9 + [11.0], 'boundary': [0, 1] * 5}  # wins at the rate of one row in ten, in one trajectory of two
ONLINE = {'reward': [0.0] * 29 + [1.0], 'boundary': [0, 1] * 15}
BOTH = {'dataset': 1, 'online': 1}


def test_batches_are_composed_as_the_mix_says():
    sources = {'dataset': store(**DATA), 'online': store(**ONLINE)}
    assert composition(Sampling(batch_size=8, mix={'dataset': 0.25, 'online': 0.75}), sources, BOTH)['dataset'] == 0.25
    assert composition(Sampling(batch_size=8, mix='growing'), sources, BOTH)['dataset'] == 0.25
    # 1,600 draws at 1/4: standard error 0.011.
    assert abs(composition(Sampling(batch_size=8), sources, BOTH)['dataset'] - 0.25) < 0.045


def test_success_rows_come_from_successes_in_proportion_to_their_number():
    sources = {'dataset': store(**DATA), 'online': store(**ONLINE)}
    every = composition(Sampling(batch_size=8, success_rows=8, success_unit='transition', success_reward=10.5), sources, BOTH)
    assert every == {'dataset': 1.0, 'wins': 1.0}
    mixed = Sampling(batch_size=8, success_rows=4, mix={'online': 1.0})
    # Half of the batch is drawn from 10 rows of the data, all of them at least 1, and 2 online; standard error 0.013.
    assert abs(composition(mixed, sources, BOTH)['dataset'] - 0.5 * 10 / 12) < 0.055


def test_without_a_success_the_rows_come_from_the_mix():
    sources = {'dataset': store(**DATA), 'online': store(**ONLINE)}
    for mix, expected, tolerance in (({'online': 1.0}, 0.0, 0.0), ({'dataset': 1.0}, 1.0, 0.0), ('union', 0.25, 0.045)):
        got = composition(Sampling(batch_size=8, mix=mix, success_rows=8, success_reward=100.0), sources, BOTH)['dataset']
        assert abs(got - expected) <= tolerance


@pytest.mark.parametrize(('settings', 'words'), [
    ({'batch_size': 0}, 'batch_size must be greater than 0; got 0'),
    ({'success_rows': 300}, 'success_rows must be at most batch_size, 256; got 300'),
    ({'mix': 'unoin'}, "mix must be one of 'union', 'growing'; got 'unoin'"),
    ({'mix': {'dataset': 0.5}}, 'sum to 1'),
    ({'mix': {'dataset': 1.5, 'online': -0.5}}, '0 or more'),
    ({'mix': {}}, 'sum to 1'),
    ({'mix': {'data': 1.0}}, 'got data'),
    ({'success_unit': 'row'}, "success_unit must be one of 'trajectory', 'transition'"),
])  # fmt: skip
def test_bad_sampling_is_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        Sampling(**settings)


def test_no_key_is_used_twice_by_drawing_and_updating(monkeypatch):
    used = []

    def keep(keys):
        used.extend(bytes(one) for one in np.asarray(keys).reshape(-1, 2))

    def watched(name):
        original = getattr(jax.random, name)

        def draw(key, *arguments, **settings):
            jax.debug.callback(keep, jax.random.key_data(key))
            return original(key, *arguments, **settings)

        return draw

    def update(state, batch, key):
        return state + jax.random.normal(key, ()), {}

    for name in ('split', 'normal', 'uniform', 'randint'):
        monkeypatch.setattr(jax.random, name, watched(name))
    agent = dataclasses.replace(listening(), update=update)
    settings = {'sampling': Sampling(batch_size=4, success_rows=1), 'num_updates': 2, 'streams': {'dataset': 1, 'online': 2}}
    sources = {'dataset': store(reward=[0, 1, 0, 0], boundary=[0, 1, 0, 1]), 'online': store(**STREAMS)}
    learner(agent, **settings)(jnp.zeros(()), sources, jax.random.key(0))
    jax.effects_barrier()
    assert len(used) > 10 and len(set(used)) == len(used)


def test_drawing_ahead_is_the_same_learning():
    def update(state, batch, key):
        noise = jax.random.normal(key, ())
        return 0.9 * state + batch.observation.sum() + noise, {'sum': batch.observation.sum(), 'state': state}

    agent = dataclasses.replace(listening(), update=update)
    settings = {'sampling': Sampling(batch_size=4, success_rows=1), 'num_updates': 5, 'streams': {'dataset': 1, 'online': 2}}
    sources = {'dataset': store(reward=[0, 1, 0, 0], boundary=[0, 1, 0, 1]), 'online': store(**STREAMS)}
    draw, learn = make_learn_ahead(agent, **settings)
    key = jax.random.key(7)
    expected = learner(agent, **settings)(jnp.zeros(()), sources, key)
    found = jax.jit(learn)(jnp.zeros(()), jax.jit(draw)(sources, key))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def episodes_side_by_side(num_steps, num_streams, horizon, seed):
    """Rows `[T * N]` of episodes of at most `horizon` steps, every fourth of which ends with a reward of 1."""
    random = np.random.default_rng(seed)
    reward, boundary, discount = (np.zeros((num_steps, num_streams), np.float32) + x for x in (-0.5, 0, 1))
    for stream in range(num_streams):
        at = 0
        while (at := at + int(random.integers(1, horizon + 1))) <= num_steps:
            boundary[at - 1, stream] = 1
            if random.random() < 0.25:
                reward[at - 1, stream], discount[at - 1, stream] = 1, random.integers(2)
    reward += random.normal(size=reward.shape).astype(np.float32) * 0.01 * (reward < 0)
    return {'reward': reward.reshape(-1), 'boundary': boundary.reshape(-1), 'discount': discount.reshape(-1)}


@pytest.mark.parametrize(('num_streams', 'cycle_steps', 'spare', 'failure_returns', 'unit'), [
    (1, 1, 0, False, 'trajectory'), (2, 3, 5, True, 'trajectory'), (3, 7, 2, False, 'transition'), (3, 30, 0, True, 'trajectory'),
])  # fmt: skip
def test_what_is_kept_up_with_new_rows_is_what_a_pass_over_all_rows_says(num_streams, cycle_steps, spare, failure_returns, unit):
    horizon, num_new = 11, num_streams * cycle_steps
    reads = ('return_to_go', 'next_action', 'reward_low')
    sampling = Sampling(success_rows=1, gamma=GAMMA, failure_returns=failure_returns, success_unit=unit)
    rows = store(**episodes_side_by_side(cycle_steps * (420 // num_new), num_streams, horizon, seed=num_streams)).storage
    rows = rows._replace(action=rows.observation)
    total = rows.reward.shape[0]
    growing = replay.create(jax.tree.map(lambda leaf: leaf[0], rows), total + spare)
    step = jax.jit(lambda known, grown: keep_up(known, grown, num_new, num_streams, horizon, reads, sampling))
    whole = jax.jit(lambda grown: know(grown, num_streams, reads, sampling))
    known, marked = whole(growing), 0
    for first in range(0, total, num_new):
        growing = extend(growing, jax.tree.map(lambda leaf, at=first: leaf[at : at + num_new], rows))
        known = step(known, growing)
        expected = whole(growing)
        np.testing.assert_array_equal(known.wins.mask, expected.wins.mask)
        np.testing.assert_array_equal(known.wins.counts, expected.wins.counts)
        assert known.rewards == expected.rewards
        for name, column in expected.columns.items():
            # The same sums over another number of rows: float32 rounding.
            np.testing.assert_allclose(known.columns[name], column, rtol=1e-5, atol=1e-5, err_msg=f'{name} at {first}')
        marked = int(expected.wins.counts.sum())
    assert 0 < marked < total


def test_a_batch_is_the_same_from_what_is_known_as_from_a_pass():
    agent = listening(('return_to_go',), lambda b: {'row': b.observation.mean(), 'sum': jnp.nansum(b.extras['return_to_go'])})
    sampling, streams = Sampling(batch_size=8, success_rows=4), {'dataset': 1, 'online': 2}
    sources = {'dataset': store([0, 1, 0], [0, 1, 1]), 'online': store(**STREAMS, capacity=12)}
    known = {name: know(source, streams[name], agent.reads, sampling) for name, source in sources.items()}
    learn = learner(agent, sampling, num_updates=3, streams=streams)
    plain, given = (learn(jnp.zeros(()), sources, jax.random.key(0), *more)[1] for more in ((), (known,)))
    assert plain == given


def test_there_is_nothing_to_know_where_nothing_is_read():
    assert not needs_passes(listening(('label',)), Sampling())
    assert needs_passes(listening(('reward_high',)), Sampling()) and needs_passes(listening(), Sampling(success_rows=1))
    assert not jax.tree.leaves(know(store([0], [1]), 1, (), Sampling()))
