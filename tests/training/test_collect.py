"""Collection: every step is kept as it happened, whichever kind of environment it happened in."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from line_world import GOAL, HORIZON, LineEnv, eighths, line_task

from ooorl.envs import batched, host
from ooorl.training import collect as collection
from ooorl.types import Environment, Spec, TimeStep

COPIES, STEPS = 3, 17


def collected(environment, num_steps=STEPS, calls=1, act=eighths):
    state = collection.start(environment, jax.random.key(0))
    parts = []
    for number in range(calls):
        state, transitions, sums = collection.collect(environment, act, state, jax.random.key(number), num_steps)
        parts.append((jax.tree.map(np.asarray, transitions), {k: float(v) for k, v in sums.items()}))
    return state, parts


@pytest.fixture(scope='module')
def both():
    environments = (batched(line_task(), COPIES), host(LineEnv, COPIES, horizon=HORIZON))
    return [collected(environment)[1][0] for environment in environments]


def test_compiled_and_host_environments_give_identical_transitions(both):
    (compiled, compiled_sums), (hosted, hosted_sums) = both
    for name, column in compiled._asdict().items():
        if name != 'extras':
            np.testing.assert_array_equal(column, getattr(hosted, name), err_msg=name)
    np.testing.assert_array_equal(compiled.extras['boundary'], hosted.extras['boundary'])
    assert compiled_sums == hosted_sums


def test_successors_boundaries_and_discounts_follow_the_task(both):
    rows, _ = both[0]
    position, successor = rows.observation[..., 0], rows.next_observation[..., 0]
    np.testing.assert_array_equal(successor, position + rows.action[..., 0])
    np.testing.assert_array_equal(rows.reward, successor)
    np.testing.assert_array_equal(rows.discount, np.where(successor >= GOAL, 0.0, 1.0))
    boundary = rows.extras['boundary'] == 1
    # The next row starts where this one led, or at 0 behind a boundary.
    np.testing.assert_array_equal(position[1:], np.where(boundary[:-1], 0.0, successor[:-1]))
    for copy in range(COPIES):
        lengths = np.diff(np.flatnonzero(np.concatenate([[True], boundary[:, copy]])))
        assert lengths.max() <= HORIZON
    timed_out = boundary & (rows.discount == 1)
    assert timed_out.any() and (boundary & ~timed_out).any()  # the seed shows both kinds of end
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(rows)} == {'float32'}


def test_sums_are_those_of_the_episodes_that_ended(both):
    rows, sums = both[0]
    totals, lengths, wins = [], [], 0
    for copy in range(COPIES):
        start = 0
        for end in np.flatnonzero(rows.extras['boundary'][:, copy]):
            totals.append(rows.reward[start : end + 1, copy].sum())
            lengths.append(end + 1 - start)
            wins += rows.discount[end, copy] == 0
            start = end + 1
    assert sums['num_episodes'] == len(totals) and sums['num_successes'] == wins
    assert sums['length_sum'] == sum(lengths)
    np.testing.assert_allclose(sums['return_sum'], sum(totals), rtol=1e-6)


def test_episodes_go_on_from_call_to_call():
    environment = batched(line_task(), 1)
    state, parts = collected(environment, 2, calls=4, act=lambda observation, key: jnp.full(observation.shape, 0.25))
    # Never at the goal: time-outs after 5 steps whatever the calls; 8 steps hold one.
    boundary = np.concatenate([rows.extras['boundary'][:, 0] for rows, _ in parts])
    np.testing.assert_array_equal(boundary, [0, 0, 0, 0, 1, 0, 0, 0])
    assert [sums['num_episodes'] for _, sums in parts] == [0, 0, 1, 0]
    assert parts[2][1]['return_sum'] == 0.25 + 0.5 + 0.75 + 1.0 + 1.25
    assert state.episode_length == 3 and state.episode_return == 0.25 + 0.5 + 0.75


def recorded(**columns):
    """An environment whose steps are given, whatever it is told: one copy, columns of one number a step."""
    columns = {name: jnp.asarray(values) for name, values in columns.items()}

    def step(state, action, key):
        del action, key
        now = {name: values[state][None] for name, values in columns.items()}
        seen = jnp.full((1, 1), state + 1.0)
        return state + 1, TimeStep(observation=seen, next_observation=seen, **now)

    return Environment(
        spec=Spec(observation_dim=1, action_dim=1), horizon=9, batch_shape=(1,), compiled=True,
        reset=lambda key: (jnp.zeros((), jnp.int32), jnp.zeros((1, 1))), step=step, scan=jax.lax.scan,
    )


def test_a_success_counts_for_its_own_episode_and_for_no_later_one():
    # Three episodes of two, three and two steps: a success in the middle, none, a success on the last step of a time-out.
    environment = recorded(
        reward=[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0], success=np.array([1, 0, 0, 0, 0, 0, 1], bool),
        terminated=np.array([0, 1, 0, 0, 1, 0, 0], bool), truncated=np.array([0, 0, 0, 0, 0, 0, 1], bool),
    )
    per_step = []
    state = collection.start(environment, jax.random.key(0))
    for number in range(7):
        state, rows, sums = collection.collect(environment, eighths, state, jax.random.key(number), 1)
        per_step.append([float(sums[name]) for name in ('num_episodes', 'return_sum', 'length_sum', 'num_successes')])
    ended = {1: [1, 3, 2, 1], 4: [1, 28, 3, 0], 6: [1, 96, 2, 1]}
    assert per_step == [ended.get(number, [0, 0, 0, 0]) for number in range(7)]
    assert not state.episode_success and float(rows.discount[0, 0]) == 1.0


def test_no_two_draws_of_a_collection_share_a_key():
    keys = []
    environment = recorded(**{name: np.zeros(4, bool) for name in ('success', 'terminated', 'truncated')}, reward=np.zeros(4))

    def scan(body, carry, xs):
        keys.extend(bytes(np.asarray(jax.random.key_data(key))) for column in xs for key in column)
        return jax.lax.scan(body, carry, xs)

    environment = dataclasses.replace(environment, scan=scan)
    collection.collect(environment, eighths, collection.start(environment, jax.random.key(0)), jax.random.key(1), 4)
    assert len(set(keys)) == len(keys) == 8


def test_stored_actions_are_clipped_to_the_box():
    _, [(rows, _)] = collected(batched(line_task(), 2), 3, act=lambda observation, key: jnp.full(observation.shape, 5.0))
    assert (rows.action == 1.0).all()
    np.testing.assert_array_equal(rows.next_observation - rows.observation, rows.action)


def test_rows_are_time_major():
    _, [(transitions, _)] = collected(batched(line_task(), COPIES))
    rows = collection.rows(transitions)
    assert rows.observation.shape == (STEPS * COPIES, 1) and rows.reward.shape == (STEPS * COPIES,)
    for time, copy in ((0, 0), (1, 2), (7, 1)):
        assert rows.reward[time * COPIES + copy] == transitions.reward[time, copy]


def test_several_seeds_on_the_host_are_summed_apart():
    environment = host(LineEnv, (2, COPIES), horizon=HORIZON)

    def act(observation, key):
        del key
        return jnp.stack([jnp.full(observation.shape[1:], 1.0), jnp.full(observation.shape[1:], 0.25)])

    state = collection.start(environment, jax.random.key(0))
    _, transitions, sums = collection.collect(environment, act, state, jax.random.key(0), 10)
    assert transitions.reward.shape == (10, 2, COPIES)
    np.testing.assert_array_equal(sums['num_episodes'], [5 * COPIES, 2 * COPIES])
    np.testing.assert_array_equal(sums['num_successes'], [5 * COPIES, 0])
