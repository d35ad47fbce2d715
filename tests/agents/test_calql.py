"""CQL and Cal-QL: sums worked by hand, where gradients stop, and the limits of the settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import Replay
from scipy.special import logsumexp
from small import blank, linear, one_row, random_batch, trees_equal

from ooorl.agents.calql import CalQLConfig, calql, calql_critic
from ooorl.errors import UsageError
from ooorl.interpreted import interpreted
from ooorl.nn.heads import hl_gauss_head
from ooorl.nn.losses import calibrated, conservative_gap
from ooorl.policies.gaussian import deterministic_policy
from ooorl.types import DensityPolicy, Spec

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
        state = interpreted(agent.init)(jax.random.key(1))
        values[unit] = [interpreted(agent.q)(state, k * batch.observation, k * batch.action) for k in (1.0, 2.0)]
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


STILL = {'learning_rate': 1e-12, 'policy_learning_rate': 1e-12}  # steps too small to be seen
ROW = {'observation': 1.0, 'action': 0.5, 'reward': 1.0, 'discount': 1.0, 'next_observation': 2.0}
UNIFORM = [-0.75, 0.75]
# What the policy answers: at s' = 2 two actions for the target and two for the gap, at s = 1 one for its own loss and two.
ANSWERS = {4: (2.0, [0.5, 0.0, 0.5, 0.25], [-1.0, -2.0, -0.5, -0.7]), 3: (1.0, [0.3, 0.0, -0.5], [-0.3, -0.4, -0.6])}
# Q_0 = s + 2a and Q_1 = s + a + 3 at s = 1: of the uniform actions, of the two at s' and the two at s.
VALUES = np.array([[-0.5, 2.5, 2.0, 1.5, 1.0, 0.0], [3.25, 4.75, 4.5, 4.25, 4.0, 3.5]])
DATA = np.array([2.0, 4.5])


def _answer(observation, num):
    """Actions `[num, B, 1]` and their log-densities, wrong by the distance to where they should have been asked for."""
    place, actions, log_density = (jnp.array(x) for x in ANSWERS[num])
    off = observation[:, 0] - place
    return actions[:, None, None] + off[None, :, None], log_density[:, None] + off[None]


def _answering_policy():
    def missing(*_):
        raise NotImplementedError

    return DensityPolicy(
        init=lambda key: jnp.zeros(()), sample=missing, mode=missing, loss=missing,
        sample_and_log_prob=lambda params, observation, key, num: _answer(observation, num),
    )


def _config(**settings):
    defaults = {'critic_hidden': (), 'gamma': 0.5, 'num_actions': 2, 'importance_sampling': False, 'conservative_weight': 2.0}
    return CalQLConfig(**defaults | STILL | settings)


def _linear(critic):
    q = (linear([[1.0], [2.0]], [0.0]), linear([[1.0], [1.0]], [3.0]))
    target_q = (linear([[1.0], [2.0]], [1.0]), linear([[1.0], [1.0]], [4.0]))
    return critic._replace(q=q, target_q=target_q, log_dual=jnp.ones(()))


def _by_hand(replay, **settings):
    """Q_0 = s + 2a, Q_1 = s + a + 3, the slow ones 1 higher, and a policy that answers."""
    agent = calql(LINE, _config(**settings), policy=_answering_policy(), grad_transform=replay.grad_transform)
    state = blank(agent.init)
    return agent, state._replace(critic=_linear(state.critic))


def _updated(returns=4.0, members=(), **settings):
    """State, metrics and gradients (policy, temperature, Q, dual) of an update by hand; `members` are what is drawn."""
    replay = Replay('uniform', *('choice',) * len(members), traced=False)
    agent, state = _by_hand(replay, **settings)
    draws = [np.reshape(UNIFORM, (2, 1, 1)), *(np.array([member]) for member in members)]
    batch = one_row(**ROW, return_to_go=returns)
    return *replay.run(agent.update, draws, state, batch, jax.random.key(1)), replay.gradients


def _gap(entries):
    """Soft maximum of `entries` and the data's action over the data's action, one number a member."""
    return logsumexp(np.concatenate([entries, DATA[:, None]], axis=1), axis=1) - DATA


@pytest.mark.parametrize('settings, free', [({'calibrate': False}, 6), ({}, 2), ({'calibrate_random': True}, 0)])
def test_q_loss_by_hand(settings, free):
    _, metrics, _ = _updated(**settings)
    # target_q(2, .) of 0.5: 4 and 6.5; of 0: 3 and 6. v' = max(4, 3) = 4; y = 1 + 0.5 * 4 = 3. Q(1, 0.5) = 2 and 4.5.
    entries = np.concatenate([VALUES[:, :free], np.maximum(VALUES[:, free:], 4.0)], axis=1)
    gaps = _gap(entries)
    np.testing.assert_allclose(metrics['q/target'], 3.0, rtol=1e-6)
    np.testing.assert_allclose(metrics['q/bellman'], 1.0 + 2.25, rtol=1e-6)
    np.testing.assert_allclose(metrics['q/gap'], gaps.mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics['q/sampled'], entries.mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics['q/loss'], 3.25 + 2.0 * gaps.sum(), rtol=1e-6)


def test_densities_correct_the_sampled_values_by_hand():
    _, metrics, _ = _updated(calibrate=False, importance_sampling=True)
    density = [-np.log(2.0)] * 2 + ANSWERS[4][2][2:] + ANSWERS[3][2][1:]
    gaps = logsumexp(VALUES - density, axis=1) - DATA
    np.testing.assert_allclose(metrics['q/gap'], gaps.mean(), rtol=1e-6)


def test_subsets_of_the_critics_by_hand():
    # The target takes the member drawn first, the gap the member drawn second, which stands for both.
    _, metrics, _ = _updated(members=[1], num_target_critics=1)
    np.testing.assert_allclose(metrics['q/target'], 1.0 + 0.5 * 6.5, rtol=1e-6)
    for member in (0, 1):
        _, metrics, _ = _updated(members=[member], num_gap_critics=1, calibrate=False)
        gap = _gap(VALUES)[member]
        np.testing.assert_allclose([metrics['q/target'], metrics['q/gap']], [3.0, gap], rtol=1e-6)
        np.testing.assert_allclose(metrics['q/loss'], 3.25 + 2.0 * 2 * gap, rtol=1e-6)


def test_policy_and_temperature_by_hand():
    _, metrics, (_, temperature, *_) = _updated(init_temperature=1.0)
    # log-density -0.3 minus the lower of Q(1, 0.3) = 1.6 and 4.3; log t is 0, so the loss of the temperature is 0.
    np.testing.assert_allclose(metrics['policy/loss'], -0.3 - 1.6, rtol=1e-6)
    np.testing.assert_allclose([metrics['policy/entropy'], metrics['temperature/loss']], [0.3, 0.0], rtol=1e-6)
    # Its slope in log t is the entropy less its target, which is -A.
    np.testing.assert_allclose(temperature, 0.3 + 1.0, rtol=1e-6)


def test_q_is_that_of_the_current_parameters():
    agent, state = _by_hand(Replay())
    np.testing.assert_allclose(agent.q(state, jnp.array([[1.0]]), jnp.array([[0.5]])), [[2.0], [4.5]])
    critic = calql_critic(LINE, _config())
    for q, expected in ((critic.q, [[2.0], [4.5]]), (critic.target_q, [[3.0], [5.5]])):
        np.testing.assert_allclose(q(state.critic, jnp.array([[1.0]]), jnp.array([[0.5]])), expected)


@pytest.mark.parametrize('target_gap, direction', [(0.0, 1.0), (50.0, -1.0)])
def test_dual_rises_while_the_gap_is_too_wide(target_gap, direction):
    state, metrics, (*_, slope) = _updated(calibrate=False, target_gap=target_gap, learning_rate=1e-3)
    excess = metrics['q/gap'] - target_gap
    np.testing.assert_allclose(metrics['q/loss'], metrics['q/bellman'] + 2 * np.e * 2.0 * excess, rtol=1e-5)
    np.testing.assert_allclose([metrics['dual/loss'], slope], [-np.e * 2.0 * excess] * 2, rtol=1e-5)
    np.testing.assert_allclose(metrics['dual/value'], np.e, rtol=1e-5)
    assert np.sign(state.critic.log_dual - 1.0) == direction


def test_weight_zero_leaves_the_bellman_loss():
    _, metrics, (_, _, q) = _updated(calibrate=False, conservative_weight=0.0)
    np.testing.assert_allclose(metrics['q/loss'], 3.25, rtol=1e-6)
    biases = [member['params']['Dense_0']['bias'][0] for member in q]
    np.testing.assert_allclose(biases, [2 * (2.0 - 3.0), 2 * (4.5 - 3.0)], rtol=1e-5)


@pytest.mark.parametrize('unknown', [-np.inf, np.nan])
def test_without_known_returns_calql_is_cql(unknown):
    cql = _updated(calibrate=False)
    assert trees_equal(cql, _updated(returns=unknown))
    assert not trees_equal(cql, _updated(returns=4.0))


def test_terminal_rows_ignore_the_successor_but_for_the_gap():
    agent = calql(SPEC, CalQLConfig(**SMALL, conservative_weight=0.0, calibrate=False))
    state, batch = interpreted(agent.init)(jax.random.key(0)), random_batch(jax.random.key(1), 6)
    batch = batch._replace(discount=jnp.zeros(6))
    moved = batch._replace(next_observation=batch.next_observation + 5.0)
    update = interpreted(agent.update)
    (one, _), (other, _) = (update(state, rows, jax.random.key(2)) for rows in (batch, moved))
    assert trees_equal(one, other)


def test_bonus_and_bounds_reach_the_target():
    replay = Replay('uniform')
    agent, state = _by_hand(replay, calibrate=False)
    batch = one_row(**ROW, bonus=7.0, value_low=-1.0, value_high=1.0)
    _, metrics = replay.run(agent.update, [np.reshape(UNIFORM, (2, 1, 1))], state, batch, jax.random.key(1))
    np.testing.assert_allclose(metrics['q/target'], 8.0)


def test_subsets_and_classification_head_take_an_update():
    config = CalQLConfig(
        **SMALL, num_critics=4, num_target_critics=2, num_gap_critics=2, critic_layer_norm='before',
        critic_activation='swish', target_gap=0.8,
    )
    agent = calql(SPEC, config, head=hl_gauss_head(-10.0, 10.0, 11))
    assert agent.reads == ('return_to_go',)
    batch = random_batch(jax.random.key(1), 6, return_to_go=jnp.zeros(6))
    state, metrics = interpreted(agent.update)(interpreted(agent.init)(jax.random.key(0)), batch, jax.random.key(2))
    assert all(np.isfinite(value) and value.shape == () for value in metrics.values())
    action = interpreted(agent.sample_action)(state, batch.observation, jax.random.key(3))
    assert action.shape == (6, 2) and bool((jnp.abs(action) <= 1.0).all())


@pytest.mark.parametrize('settings, members, target, judged', [
    ({}, [], 3.0, [0, 1]), ({'num_target_critics': 1}, [1], 4.25, [0, 1]), ({'num_gap_critics': 1}, [1], 3.0, [1]),
])  # fmt: skip
def test_critic_takes_its_actions_from_the_sampler(settings, members, target, judged):
    keys, replay = [], Replay('uniform', *('choice',) * len(members), traced=False)

    def sampler(observation, key, num):
        keys.append(bytes(jax.random.key_data(key)))
        # Without a policy's own loss, two actions are asked for at s.
        place, actions, _ = ANSWERS[4] if num == 4 else (1.0, ANSWERS[3][1][1:], None)
        return jnp.array(actions)[:, None, None] + (observation - place)[None]

    critic = calql_critic(LINE, _config(calibrate=False, **settings), grad_transform=replay.grad_transform)
    draws = [np.reshape(UNIFORM, (2, 1, 1)), *(np.array([member]) for member in members)]
    state, metrics = replay.run(
        critic.update, draws, _linear(blank(critic.init)), one_row(**ROW), jax.random.key(2), sampler
    )
    assert len(set(keys)) == 2
    gap = _gap(VALUES)[judged].mean()
    np.testing.assert_allclose([metrics['q/target'], metrics['q/gap']], [target, gap], rtol=1e-6)
    np.testing.assert_allclose(metrics['q/loss'] - metrics['q/bellman'], 2.0 * 2 * gap, rtol=1e-6)
    assert critic.q(state, jnp.ones((6, 1)), jnp.ones((6, 1))).shape == (2, 6)


def test_no_gradient_passes_through_the_samplers_actions():
    critic = calql_critic(LINE, _config(calibrate=False))
    state = _linear(blank(critic.init))

    def loss(action):
        sampler = lambda observation, key, num: jnp.full((num, 1, 1), action)  # noqa: E731
        return critic.update(state, one_row(**ROW), jax.random.key(0), sampler)[1]['q/loss']

    assert jax.grad(loss)(0.25) == 0.0


def test_what_cannot_work_is_refused():
    with pytest.raises(UsageError, match='importance_sampling=True'):
        calql_critic(SPEC, CalQLConfig())
    with pytest.raises(UsageError, match='density'):
        calql(SPEC, policy=deterministic_policy(SPEC))
    agent = calql(SPEC, CalQLConfig(**SMALL))
    with pytest.raises(UsageError, match='return_to_go'):
        interpreted(agent.update)(None, random_batch(jax.random.key(0), 4), jax.random.key(1))


@pytest.mark.parametrize('wrong', [{'num_actions': 0}, {'conservative_weight': -1.0}, {'num_gap_critics': 3}, {'gamma': 2.0}])
def test_bad_settings_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        CalQLConfig(**wrong)
