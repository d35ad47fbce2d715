import time

import jax
import jax.numpy as jnp
import numpy as np
from examples import for_all

from ooorl.training import episodes

GAMMA = 0.5

jitted_returns = jax.jit(episodes.returns_to_go)
jitted_horizon = jax.jit(episodes.discounted_horizon)
jitted_max = jax.jit(episodes.episode_max)
jitted_sparse = jax.jit(episodes.sparse_returns_to_go)


def slow_returns(reward, discount, boundary, gamma):
    """The definition, one row at a time, in float64."""
    result, following = np.full(len(reward), np.nan), np.nan
    for t in reversed(range(len(reward))):
        ends = boundary[t] or discount[t] == 0
        following = reward[t] if ends else reward[t] + gamma * following
        result[t] = following
    return result


def slow_episodes(boundary):
    index, result = 0, []
    for b in boundary:
        result.append(index)
        index += bool(b)
    return np.array(result)


def test_returns_by_hand():
    # Episode 1: 1 + .5 * (2 + .5 * 4) = 3, 2 + .5 * 4 = 4, 4. Episode 2 is one row. The last row is
    # unfinished.
    reward, boundary = [1.0, 2.0, 4.0, 8.0, 16.0], [0, 0, 1, 1, 0]
    got = jitted_returns(reward, [1, 1, 1, 0, 1], boundary, GAMMA)
    np.testing.assert_array_equal(got, [3.0, 4.0, 4.0, 8.0, np.nan])


def test_discount_zero_stops_the_sum_where_the_recording_goes_on():
    got = jitted_returns([1.0, 1.0, 1.0], [1, 0, 1], [0, 0, 1], GAMMA)
    np.testing.assert_array_equal(got, [1.5, 1.0, 1.0])


def test_discount_zero_is_an_end_where_no_boundary_follows():
    got = jitted_returns([1.0, 1.0, 1.0], [1, 0, 1], [0, 0, 0], GAMMA)
    np.testing.assert_array_equal(got, [1.5, 1.0, np.nan])


def test_horizon_by_hand():
    got = jitted_horizon([1, 1, 1, 1], [0, 0, 1, 0], GAMMA)
    np.testing.assert_array_equal(got, [1.75, 1.5, 1.0, np.nan])


def test_shifted_reward_moves_the_return_by_shift_times_horizon():
    rng = np.random.default_rng(0)
    reward, boundary = rng.normal(size=50), rng.random(50) < 0.2
    boundary[-1] = True
    discount = np.where(boundary & (rng.random(50) < 0.5), 0.0, 1.0)
    plain = jitted_returns(reward, discount, boundary, 0.9)
    horizon = jitted_horizon(discount, boundary, 0.9)
    shifted = jitted_returns(10 * reward - 5, discount, boundary, 0.9)
    np.testing.assert_allclose(shifted, 10 * plain - 5 * horizon, rtol=1e-4, atol=1e-4)


def test_episode_max_by_hand():
    got = jitted_max([1.0, 3.0, 2.0, -4.0, -5.0], [0, 0, 1, 0, 0])
    np.testing.assert_array_equal(got, [3.0, 3.0, 3.0, -4.0, -4.0])


def test_sparse_rule_by_hand():
    # Episode 1 fails: -1 / (1 - .5) = -2 on all rows. Episode 2 succeeds on its last row: -1 + .5 * 0 = -1.
    # The tail has no end and no success.
    reward, boundary = [-1.0, -1.0, -1.0, 0.0, -1.0], [0, 1, 0, 1, 0]
    got, horizon = jitted_sparse(reward, [1, 1, 1, 0, 1], boundary, GAMMA, 0.0)
    np.testing.assert_array_equal(got, [-2.0, -2.0, -1.0, 0.0, np.nan])
    np.testing.assert_array_equal(horizon, [2.0, 2.0, 1.5, 1.0, np.nan])


def test_a_failure_goes_on_with_its_last_reward():
    got, _ = jitted_sparse([-1.0, -3.0, -2.0, -1.0], [1, 1, 1, 1], [0, 1, 0, 1], GAMMA, 0.0)
    np.testing.assert_array_equal(got, [-6.0, -6.0, -2.0, -2.0])


def test_returns_equal_the_definition():
    for_all(returns_are_by_definition, 60, lambda st: {
        'rows': st.lists(st.tuples(st.floats(-3, 3, width=32), st.booleans(), st.booleans()), min_size=1, max_size=60),
        'gamma': st.sampled_from([0.0, 0.9, 0.99, 1.0]),
    })


def returns_are_by_definition(rows, gamma):
    reward, boundary = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    discount = np.array([0.0 if r[1] and r[2] else 1.0 for r in rows])
    # Padding to one length keeps one compiled program; rows before the first do not reach into later ones.
    pad = 60 - len(rows)
    padded = [
        np.concatenate([np.full(pad, fill), x])
        for fill, x in ((0.0, reward), (1.0, discount), (1.0, boundary))
    ]
    got = np.asarray(jitted_returns(*padded, gamma))[pad:]
    np.testing.assert_allclose(got, slow_returns(reward, discount, boundary, gamma), rtol=1e-5, atol=1e-4)


def test_max_and_sparse_rule_equal_the_definition():
    for_all(max_and_sparse_are_by_definition, 40, lambda st: {'seed': st.integers(0, 2**31), 'share': st.floats(0, 0.5)})


def max_and_sparse_are_by_definition(seed, share):
    rng = np.random.default_rng(seed)
    reward, boundary = -(rng.random(40) < 0.9).astype(float), rng.random(40) < share
    discount = np.where(boundary & (reward == 0), 0.0, 1.0)
    episode = slow_episodes(boundary)
    best = np.array([reward[episode == e].max() for e in episode])
    np.testing.assert_array_equal(jitted_max(reward, boundary), best)
    expected = slow_returns(reward, discount, boundary, 0.9)
    finished = np.array([boundary[t:].any() for t in range(40)])
    last = np.array([reward[episode == e][-1] for e in episode])
    expected = np.where(best < 0, np.where(finished, last / (1 - 0.9), np.nan), expected)
    got, _ = jitted_sparse(reward, discount, boundary, 0.9, 0.0)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_streams_side_by_side_equal_each_alone():
    rng = np.random.default_rng(3)
    reward, boundary = rng.normal(size=(30, 4)), rng.random((30, 4)) < 0.2
    discount = np.ones((30, 4))
    for function, arguments in (
        (jitted_returns, (reward, discount, boundary, 0.9)),
        (jitted_max, (reward, boundary)),
        (lambda *a: jitted_sparse(*a)[0], (reward, discount, boundary, 0.9, 1.0)),
    ):
        together = function(*arguments)
        for n in range(4):
            alone = function(*(a[:, n] if isinstance(a, np.ndarray) else a for a in arguments))
            np.testing.assert_allclose(together[:, n], alone, rtol=1e-6)


def test_a_million_rows_are_accurate_and_take_about_a_second():
    rng = np.random.default_rng(4)
    rows = 1_000_000
    reward = jnp.asarray(rng.normal(size=rows), jnp.float32)
    boundary = jnp.zeros(rows).at[999::1000].set(1.0)
    discount = jnp.ones(rows)
    jax.block_until_ready(jitted_sparse(reward, discount, boundary, 0.99, -1e9))
    start = time.process_time()  # whatever else the machine does meanwhile
    returns, _ = jax.block_until_ready(jitted_sparse(reward, discount, boundary, 0.99, -1e9))
    assert time.process_time() - start < 5.0  # a loop over rows would take a minute
    expected = slow_returns(
        np.asarray(reward[:1000], np.float64), np.ones(1000), np.asarray(boundary[:1000]), 0.99
    )
    np.testing.assert_allclose(returns[:1000], expected, rtol=1e-4, atol=1e-4)
