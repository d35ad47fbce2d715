"""Columns that the training loop adds to a batch: what is told of returns, next actions and rewards, and of nothing hidden."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stores import BOTH, GAMMA, STREAMS, annotated, extend, know, learner, listening, rows_of, store, successes

from ooorl.errors import UsageError
from ooorl.training import episodes, replay
from ooorl.training.known import keep_up, needs_passes
from ooorl.training.sampling import Sampling
from ooorl.wrap import rescaled_reward, with_extras


def test_a_limit_hides_later_successes_returns_and_rewards():
    sampling, reads = Sampling(success_rows=1, gamma=GAMMA), ('return_to_go', 'discounted_horizon')
    whole = store(**STREAMS)
    limited = replay.take(whole, 6)  # environment 0 has not won yet: row 6 is hidden
    assert rows_of(successes(limited, 2, sampling)) == [1, 3]
    # An episode that goes on behind its success is one of successes only as far as it is seen.
    assert rows_of(successes(replay.take(store([0, 1, 0, 0], [0, 0, 0, 1]), 3), 1, sampling)) == [0, 1, 2]
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
    rows = jax.device_get(rows._replace(action=rows.observation))  # each slice of a jax array would be a program
    total = rows.reward.shape[0]
    growing = replay.create(jax.tree.map(lambda leaf: leaf[0], rows), total + spare)
    step = jax.jit(lambda known, grown: keep_up(known, grown, num_new, num_streams, horizon, reads, sampling))
    whole = jax.jit(lambda grown: know(grown, num_streams, reads, sampling))
    known, marked = jax.device_get(whole(growing)), 0
    for first in range(0, total, num_new):
        growing = extend(growing, jax.tree.map(lambda leaf, at=first: leaf[at : at + num_new], rows))
        before, known = known, jax.device_get(step(known, growing))
        expected = jax.device_get(whole(growing))
        np.testing.assert_array_equal(known.wins.mask, expected.wins.mask)
        np.testing.assert_array_equal(known.wins.counts, expected.wins.counts)
        assert known.rewards == expected.rewards
        for name, column in expected.columns.items():
            # The same sums over another number of rows: float32 rounding.
            np.testing.assert_allclose(known.columns[name], column, rtol=1e-5, atol=1e-5, err_msg=f'{name} at {first}')
            stays = ~np.isnan(before.columns[name])  # to the last bit
            np.testing.assert_array_equal(known.columns[name][stays], before.columns[name][stays])
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
