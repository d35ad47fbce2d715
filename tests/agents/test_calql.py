"""CQL and Cal-QL: sums worked by hand, where gradients stop, and the limits of the settings."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import blank, linear, one_row, random_batch, trees_equal

from ooorl.agents.calql import CalQLConfig, _critic_parts, _Draws, calql, calql_critic
from ooorl.errors import UsageError
from ooorl.nn.heads import hl_gauss_head, scalar_head
from ooorl.nn.losses import calibrated, conservative_gap
from ooorl.policies.gaussian import deterministic_policy
from ooorl.types import Spec

SPEC = Spec(observation_dim=3, action_dim=2)
LINE = Spec(observation_dim=1, action_dim=1)
SMALL = {'hidden': (8,), 'critic_hidden': (8,), 'num_actions': 3}


def test_gap_by_hand():
    q_data, q_sampled = jnp.array([[1.0]]), jnp.log(jnp.array([[[2.0], [3.0]]]))
    # Plain: log(2 + 3 + e) - 1. With densities 1/2 and 1/4: log(2 * 2 + 3 * 4) - 1 = log 16 - 1.
    np.testing.assert_allclose(conservative_gap(q_data, q_sampled, None), [[np.log(5.0 + np.e) - 1.0]], rtol=1e-6)
    density = jnp.log(jnp.array([[0.5], [0.25]]))
    np.testing.assert_allclose(conservative_gap(q_data, q_sampled, density), [[np.log(16.0) - 1.0]], rtol=1e-6)
    # At temperature 2 the plain entries are sqrt(2), sqrt(3) and sqrt(e); as it falls to 0 the maximum remains.
    expected = 2.0 * np.log(np.sqrt(2.0) + np.sqrt(3.0) + np.exp(0.5)) - 1.0
    np.testing.assert_allclose(conservative_gap(q_data, q_sampled, None, 2.0), [[expected]], rtol=1e-6)
    np.testing.assert_allclose(conservative_gap(q_data, q_sampled, None, 1e-3), [[np.log(3.0) - 1.0]], rtol=1e-3)


def test_unit_features_leave_q_the_direction_of_its_last_layer_alone():
    # Without biases, as Q begins, a ReLU network doubles with its input; divided by their norm the features do not.
    batch = random_batch(jax.random.key(0), 4)
    values = {}
    for unit in (False, True):
        agent = calql(SPEC, CalQLConfig(**SMALL, critic_unit_features=unit))
        state = jax.jit(agent.init)(jax.random.key(1))
        values[unit] = [agent.q(state, k * batch.observation, k * batch.action) for k in (1.0, 2.0)]
    np.testing.assert_allclose(values[False][1], 2.0 * values[False][0], rtol=1e-5)
    np.testing.assert_allclose(values[True][1], values[True][0], rtol=1e-5)
    with pytest.raises(UsageError, match='unit_features needs a hidden layer'):
        calql(SPEC, CalQLConfig(critic_hidden=(), critic_unit_features=True))


def test_gap_with_densities_estimates_the_integral():
    # Q(a) = 2a on [-1, 1]: log of the integral of exp(Q) is log sinh(2); uniform actions have density 1/2.
    action = jnp.linspace(-1.0, 1.0, 20001)[None, :, None]
    gap = conservative_gap(jnp.zeros((1, 1)), 2.0 * action, jnp.full((20001, 1), -jnp.log(2.0)))
    np.testing.assert_allclose(gap[0, 0] - np.log(20001), np.log(np.sinh(2.0)), rtol=1e-3)


def test_calibration_bounds_from_below_and_stops_the_gradient_there():
    q = jnp.array([[[1.0, 2.0, 3.0]], [[5.0, 6.0, 7.0]]])
    returns = jnp.array([4.0, -jnp.inf, jnp.nan])
    np.testing.assert_array_equal(calibrated(q, returns), [[[4.0, 2.0, 3.0]], [[5.0, 6.0, 7.0]]])
    gradient = jax.grad(lambda q: calibrated(q, returns).sum())(q)
    np.testing.assert_array_equal(gradient, [[[0.0, 1.0, 1.0]], [[1.0, 1.0, 1.0]]])


def _linear_step(returns=4.0, **settings):
    """Q_0 = s + 2a, Q_1 = s + a + 3, the slow ones 1 higher; the uniform action is -1, the policy's are 0.5 and 0."""
    config = CalQLConfig(
        critic_hidden=(), gamma=0.5, num_actions=1, importance_sampling=False, conservative_weight=2.0, **settings
    )
    parts = _critic_parts(LINE, config, scalar_head(), optax.identity())
    q = (linear([[1.0], [2.0]], [0.0]), linear([[1.0], [1.0]], [3.0]))
    target_q = (linear([[1.0], [2.0]], [1.0]), linear([[1.0], [1.0]], [4.0]))
    state = blank(parts.init)._replace(q=q, target_q=target_q, log_dual=jnp.ones(()))
    draws = _Draws(jnp.array([[[0.5]], [[0.0]]]), jnp.array([[[-1.0]], [[0.5]], [[0.0]]]), None)
    batch = one_row(observation=1.0, action=0.5, reward=1.0, discount=1.0, next_observation=2.0, return_to_go=returns)
    return state, *parts.step(state, batch, draws, jax.random.key(1))


@pytest.mark.parametrize('settings, entries', [
    ({'calibrate': False}, [[-1.0, 2.0, 1.0, 2.0], [3.0, 4.5, 4.0, 4.5]]),
    ({}, [[-1.0, 4.0, 4.0, 2.0], [3.0, 4.5, 4.0, 4.5]]),
    ({'calibrate_random': True}, [[4.0, 4.0, 4.0, 2.0], [4.0, 4.5, 4.0, 4.5]]),
])
def test_q_loss_by_hand(settings, entries):
    _, _, metrics = _linear_step(**settings)
    # target_q(2, .) of 0.5: 4 and 6.5; of 0: 3 and 6. v' = max(4, 3) = 4; y = 1 + 0.5 * 4 = 3. Q(1, 0.5) = 2 and 4.5.
    gaps = np.log(np.exp(entries).sum(axis=1)) - [2.0, 4.5]
    np.testing.assert_allclose(metrics['q/target'], 3.0, rtol=1e-6)
    np.testing.assert_allclose(metrics['q/bellman'], 1.0 + 2.25, rtol=1e-6)
    np.testing.assert_allclose(metrics['q/gap'], gaps.mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics['q/loss'], 3.25 + 2.0 * gaps.sum(), rtol=1e-6)


@pytest.mark.parametrize('target_gap, direction', [(0.0, 1.0), (50.0, -1.0)])
def test_dual_rises_while_the_gap_is_too_wide(target_gap, direction):
    before, after, metrics = _linear_step(calibrate=False, target_gap=target_gap)
    excess = metrics['q/gap'] - target_gap
    np.testing.assert_allclose(metrics['q/loss'], metrics['q/bellman'] + 2 * np.e * 2.0 * excess, rtol=1e-5)
    np.testing.assert_allclose(metrics['dual/loss'], -np.e * 2.0 * excess, rtol=1e-5)
    assert np.sign(after.log_dual - before.log_dual) == direction


def test_weight_zero_leaves_the_bellman_loss():
    seen = optax.GradientTransformation(lambda p: jax.tree.map(jnp.zeros_like, p), lambda g, s, p=None: (g, g))
    config = CalQLConfig(critic_hidden=(), conservative_weight=0.0, calibrate=False, importance_sampling=False)
    parts = _critic_parts(LINE, config, scalar_head(), seen)
    state = parts.init(jax.random.key(0))
    batch = one_row(observation=1.0, action=0.5, reward=1.0, discount=0.0, next_observation=2.0)
    draws = _Draws(jnp.ones((1, 1, 1)), jnp.ones((30, 1, 1)), None)
    new, metrics = parts.step(state, batch, draws, jax.random.key(1))
    error = parts.q_values(state.q, batch.observation, batch.action)[:, 0] - 1.0
    np.testing.assert_allclose(metrics['q/loss'], (error**2).sum(), rtol=1e-5)
    for e in range(2):
        np.testing.assert_allclose(new.q_opt[0][e]['params']['Dense_0']['bias'], [2.0 * error[e]], rtol=1e-5)


@pytest.mark.parametrize('unknown', [-jnp.inf, jnp.nan])
def test_without_known_returns_calql_is_cql(unknown):
    _, *cql = _linear_step(calibrate=False)
    assert trees_equal(cql, _linear_step(returns=unknown)[1:])
    assert not trees_equal(cql, _linear_step(returns=4.0)[1:])


def test_terminal_rows_ignore_the_successor_but_for_the_gap():
    agent = calql(SPEC, CalQLConfig(**SMALL, conservative_weight=0.0, calibrate=False))
    state, batch = jax.jit(agent.init)(jax.random.key(0)), random_batch(jax.random.key(1), 6)
    batch = batch._replace(discount=jnp.zeros(6))
    moved = batch._replace(next_observation=batch.next_observation + 5.0)
    update = jax.jit(agent.update)
    (one, _), (other, _) = (update(state, rows, jax.random.key(2)) for rows in (batch, moved))
    assert trees_equal(one, other)


def test_bonus_and_bounds_reach_the_target():
    parts = _critic_parts(LINE, CalQLConfig(critic_hidden=(), calibrate=False), scalar_head(), optax.identity())
    extras = {'bonus': 7.0, 'value_low': -1.0, 'value_high': 1.0}
    batch = one_row(observation=1.0, action=0.5, reward=3.0, discount=0.0, next_observation=2.0, **extras)
    draws = _Draws(jnp.ones((1, 1, 1)), jnp.ones((30, 1, 1)), None)
    _, metrics = parts.step(parts.init(jax.random.key(0)), batch, draws, jax.random.key(1))
    np.testing.assert_allclose(metrics['q/target'], 8.0)


def test_subsets_and_classification_head_take_an_update():
    config = CalQLConfig(
        **SMALL, num_critics=4, num_target_critics=2, num_gap_critics=2, critic_layer_norm='before',
        critic_activation='swish', target_gap=0.8,
    )
    agent = calql(SPEC, config, head=hl_gauss_head(-10.0, 10.0, 11))
    assert agent.reads == ('return_to_go',)
    batch = random_batch(jax.random.key(1), 6, return_to_go=jnp.zeros(6))
    state, metrics = jax.jit(agent.update)(jax.jit(agent.init)(jax.random.key(0)), batch, jax.random.key(2))
    assert all(np.isfinite(value) and value.shape == () for value in metrics.values())
    action = agent.sample_action(state, batch.observation, jax.random.key(3))
    assert action.shape == (6, 2) and bool((jnp.abs(action) <= 1.0).all())


def test_critic_takes_its_actions_from_the_sampler():
    config = CalQLConfig(**SMALL, importance_sampling=False, calibrate=False)
    critic, calls = calql_critic(SPEC, config), []

    def sampler(observation, key, num):
        calls.append(num)  # once, while tracing
        return jnp.zeros((num, *observation.shape[:-1], 2))

    state, batch = jax.jit(critic.init)(jax.random.key(0)), random_batch(jax.random.key(1), 6)
    update = jax.jit(lambda state, batch, key: critic.update(state, batch, key, sampler))
    new, metrics = update(state, batch, jax.random.key(2))
    assert calls == [6, 3]
    next_value = critic.target_q(state, batch.next_observation, jnp.zeros((6, 2))).min(axis=0)
    target = batch.reward + config.gamma * batch.discount * next_value
    np.testing.assert_allclose(metrics['q/target'], target.mean(), rtol=1e-5)
    assert critic.q(new, batch.observation, batch.action).shape == (2, 6)


def test_what_cannot_work_is_refused():
    with pytest.raises(UsageError, match='importance_sampling=True'):
        calql_critic(SPEC, CalQLConfig())
    with pytest.raises(UsageError, match='density'):
        calql(SPEC, policy=deterministic_policy(SPEC))
    agent = calql(SPEC, CalQLConfig(**SMALL))
    with pytest.raises(UsageError, match='return_to_go'):
        agent.update(None, random_batch(jax.random.key(0), 4), jax.random.key(1))


@pytest.mark.parametrize('wrong', [{'num_actions': 0}, {'conservative_weight': -1.0}, {'num_gap_critics': 3}, {'gamma': 2.0}])
def test_bad_settings_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        CalQLConfig(**wrong)
