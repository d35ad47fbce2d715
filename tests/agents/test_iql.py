"""IQL on problems with closed-form answers, its limits, and the gradients that must be exactly zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import Replay
from golden import recorded_gradient
from small import blank, linear, one_row

from ooorl.agents.bc import BCConfig, bc
from ooorl.agents.iql import IQLConfig, iql, iql_critic
from ooorl.errors import UsageError
from ooorl.interpreted import interpreted
from ooorl.nn import schedules
from ooorl.nn.heads import hl_gauss_head
from ooorl.types import Spec, Transition

SPEC = Spec(observation_dim=2, action_dim=1)
FAST = IQLConfig(hidden=(32,), learning_rate=3e-3, polyak=0.1)


def _bandit(repeats=8):
    """One state, two actions, one step: -0.5 pays 0 and 0.5 pays 1, equally often."""
    rows = 2 * repeats
    action = jnp.tile(jnp.array([[-0.5], [0.5]]), (repeats, 1))
    observation = jnp.ones((rows, 2))
    return Transition(observation, action, jnp.tile(jnp.array([0.0, 1.0]), repeats), jnp.zeros(rows), observation)


def _trained(agent, batch, num_updates, seed=0):
    @jax.jit
    def run(state, key):
        def body(state, key):
            return interpreted(agent.update)(state, batch, key)

        return jax.lax.scan(body, state, jax.random.split(key, num_updates))

    init_key, run_key = jax.random.split(jax.random.key(seed))
    state, metrics = run(interpreted(agent.init)(init_key), run_key)
    return state, jax.tree.map(lambda x: x[-1], metrics)


@pytest.mark.parametrize('expectile', [0.5, 0.9])
def test_value_of_a_bandit_is_the_expectile_of_its_rewards(expectile):
    # Rewards 0 and 1: tau (1 - v) = (1 - tau) (v - 0), so v = tau.
    config = IQLConfig(hidden=(32,), learning_rate=3e-3, polyak=0.1, expectile=expectile)
    _, metrics = _trained(iql(SPEC, config), _bandit(), 1500)
    assert metrics['value/mean'] == pytest.approx(expectile, abs=0.01)
    assert metrics['q/mean'] == pytest.approx(0.5, abs=0.01)


def test_policy_of_a_bandit_is_the_softmax_of_the_advantages():
    # Weights exp(3 * (0 - v)) and exp(3 * (1 - v)): the fitted mean is 0.5 tanh(3 / 2) = 0.4526 whatever v is.
    agent = iql(SPEC, IQLConfig(hidden=(32,), learning_rate=3e-3, polyak=0.1, inverse_temperature=3.0, log_std_min=-1.0))
    state, _ = _trained(agent, _bandit(), 2000)
    assert interpreted(agent.best_action)(state, jnp.ones(2), None)[0] == pytest.approx(0.5 * np.tanh(1.5), abs=0.01)


def test_value_of_a_loop_is_the_geometric_sum():
    # One state that leads to itself with reward 1 for ever, gamma 0.5: v = 1 / (1 - 0.5) = 2.
    batch = _bandit()._replace(reward=jnp.ones(16), discount=jnp.ones(16))
    _, metrics = _trained(iql(SPEC, IQLConfig(hidden=(32,), learning_rate=3e-3, polyak=0.1, gamma=0.5)), batch, 1500)
    assert metrics['value/mean'] == pytest.approx(2.0, abs=0.02)


def test_value_of_a_bandit_with_a_classification_head():
    agent = iql(SPEC, FAST, head=hl_gauss_head(-1.0, 2.0, 31))
    _, metrics = _trained(agent, _bandit(), 2000)
    assert metrics['value/mean'] == pytest.approx(0.7, abs=0.03)


def test_value_bounds_hold_the_value():
    # Q learns the clipped target 0.25 instead of 1, and V is regressed on values inside [0, 0.25]: v = 0.7 * 0.25.
    batch = _bandit()._replace(extras={'value_low': jnp.zeros(16), 'value_high': jnp.full(16, 0.25)})
    _, metrics = _trained(iql(SPEC, FAST), batch, 1500)
    assert metrics['value/mean'] == pytest.approx(0.7 * 0.25, abs=0.01)


def test_a_bonus_raises_the_target_by_itself():
    batch = _bandit()
    agent = iql(SPEC, FAST)
    state, update = interpreted(agent.init)(jax.random.key(0)), interpreted(agent.update)
    plain = update(state, batch._replace(extras={'bonus': jnp.zeros(16)}), jax.random.key(1))[1]
    bonus = update(state, batch._replace(extras={'bonus': jnp.full(16, 0.75)}), jax.random.key(1))[1]
    assert bonus['q/target'] - plain['q/target'] == pytest.approx(0.75, abs=1e-6)


def test_inverse_temperature_zero_is_behaviour_cloning():
    agent = iql(SPEC, IQLConfig(hidden=(8,), inverse_temperature=0.0))
    cloner = bc(SPEC, BCConfig(hidden=(8,)))
    state, key, batch = interpreted(agent.init)(jax.random.key(0)), jax.random.key(1), _bandit()
    cloned = interpreted(cloner.init)(jax.random.key(5))._replace(policy=state.policy)
    for _ in range(3):
        state, metrics = interpreted(agent.update)(state, batch, key)
        cloned, cloned_metrics = interpreted(cloner.update)(cloned, batch, key)
        np.testing.assert_allclose(cloned_metrics['policy/loss'], metrics['policy/loss'], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.policy, cloned.policy)


LINE = Spec(observation_dim=1, action_dim=1)
ROW = {'observation': 1.0, 'action': 0.5, 'reward': 1.0, 'discount': 1.0, 'next_observation': 2.0}
CLONING = 0.125 + 0.5 * np.log(2 * np.pi)  # minus the log-density of 0.5 under N(0, 1)


def _by_hand(replay, value=2.0, **settings):
    """V = 2s, Q_0 = s + 2a, Q_1 = s + a + 3, the slow ones 1 higher; pi is N(0, 1). Steps are too small to be seen."""
    config = IQLConfig(**{'hidden': (), 'gamma': 0.5, 'learning_rate': 1e-12, 'expectile': 0.9} | settings)
    agent = iql(LINE, config, grad_transform=replay.grad_transform)
    q = (linear([[1.0], [2.0]], [0.0]), linear([[1.0], [1.0]], [3.0]))
    target_q = (linear([[1.0], [2.0]], [1.0]), linear([[1.0], [1.0]], [4.0]))
    state = blank(agent.init)
    return agent, state._replace(critic=state.critic._replace(value=linear([[value]], [0.0]), q=q, target_q=target_q))


def _slopes(gradients):
    value, policy, q = gradients
    return [tree['params']['Dense_0']['bias'][0] for tree in (value, policy['mean'], *q)]


@pytest.mark.parametrize('extras, u, target', [({}, 1.0, 3.0), ({'value_low': -1.0, 'value_high': 2.5}, 0.5, 2.5)])
def test_an_update_by_hand(extras, u, target):
    replay = Replay()
    agent, state = _by_hand(replay, inverse_temperature=2.0)
    _, metrics = replay.run(agent.update, [], state, one_row(**ROW, **extras), jax.random.key(0))
    # Slow Q(1, 0.5): 3 and 5.5; V(1) = 2, so u = 1, or 0.5 where values end at 2.5; the advantage is 1 in both cases.
    # y = 1 + 0.5 * V(2) = 3; Q(1, 0.5) = 2 and 4.5.
    expected = {
        'value/loss': 0.9 * u**2, 'value/mean': 2.0, 'policy/advantage': 1.0, 'policy/weight': np.exp(2.0),
        'policy/loss': np.exp(2.0) * CLONING, 'q/target': target, 'q/loss': (2.0 - target) ** 2 + (4.5 - target) ** 2,
        'q/mean': 3.25,
    }  # fmt: skip
    np.testing.assert_allclose([metrics[name] for name in expected], list(expected.values()), rtol=1e-5)
    slopes = [-2 * 0.9 * u, -0.5 * np.exp(2.0), 2 * (2.0 - target), 2 * (4.5 - target)]
    np.testing.assert_allclose(_slopes(replay.gradients), slopes, rtol=1e-5)


def test_an_overestimate_counts_one_less_the_expectile():
    replay = Replay()
    agent, state = _by_hand(replay, value=5.0, inverse_temperature=2.0, max_weight=0.01)
    _, metrics = replay.run(agent.update, [], state, one_row(**ROW), jax.random.key(0))
    np.testing.assert_allclose(metrics['value/loss'], 0.1 * 4.0, rtol=1e-5)  # u = 3 - 5
    np.testing.assert_allclose(metrics['policy/weight'], 0.01, rtol=1e-5)  # exp(-4) = 0.018 is above the cap


@pytest.mark.parametrize('at_once, advantage, target, slow', [(False, 0.5, 3.375, 0.625), (True, 1.0, 3.0, 0.5)])
def test_updates_at_once_all_read_what_was_there_before(at_once, advantage, target, slow):
    # The first step of Adam is the learning rate: V rises from 2s to 2.25s + 0.25, the bias of Q_0 from 0 to 0.25.
    agent, state = _by_hand(Replay(), learning_rate=0.25, polyak=0.5, at_once=at_once)
    state, metrics = interpreted(agent.update)(state, one_row(**ROW), jax.random.key(0))
    np.testing.assert_allclose(metrics['policy/advantage'], advantage, rtol=1e-5)  # 3 - V(1)
    np.testing.assert_allclose(metrics['q/target'], target, rtol=1e-5)  # 1 + 0.5 V(2)
    np.testing.assert_allclose(state.critic.target_q[0]['params']['Dense_0']['bias'], slow, rtol=1e-5)  # 1 and 0 or 0.25


def test_q_is_that_of_the_current_parameters():
    agent, state = _by_hand(Replay())
    where = jnp.array([[1.0]]), jnp.array([[0.5]])
    np.testing.assert_allclose(agent.q(state, *where), [[2.0], [4.5]])
    critic = iql_critic(LINE, IQLConfig(hidden=()))
    np.testing.assert_allclose(critic.q(state.critic, *where), [[2.0], [4.5]])
    np.testing.assert_allclose(critic.target_q(state.critic, *where), [[3.0], [5.5]])


@pytest.mark.parametrize('build', [
    lambda dropout: iql(SPEC, IQLConfig(hidden=(16,), dropout=dropout)),
    lambda dropout: bc(SPEC, BCConfig(hidden=(16,), dropout=dropout)),
], ids=['iql', 'bc'])  # fmt: skip
def test_dropout_follows_the_key(build):
    losses = {}
    for dropout in (0.0, 0.5):
        agent = build(dropout)
        state, update = interpreted(agent.init)(jax.random.key(0)), interpreted(agent.update)
        losses[dropout] = [float(update(state, _bandit(), jax.random.key(seed))[1]['policy/loss']) for seed in (1, 1, 2, 3)]
    assert len(set(losses[0.0])) == 1
    assert len(set(losses[0.5])) == 3 and losses[0.5][0] == losses[0.5][1]


def test_q_loss_mean_is_half_the_sum_of_two_members():
    states = []
    for q_loss in ('sum', 'mean'):
        agent = iql(SPEC, IQLConfig(hidden=(8,), q_loss=q_loss), grad_transform=recorded_gradient())
        state, _ = interpreted(agent.update)(interpreted(agent.init)(jax.random.key(0)), _bandit(), jax.random.key(1))
        states.append(state.critic.q_opt[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 2 * b, rtol=1e-5, atol=1e-7), *states)


def _jittered_state(agent):
    state = interpreted(agent.init)(jax.random.key(0))
    return state._replace(critic=state.critic._replace(target_q=jax.tree.map(lambda x: x + 0.1, state.critic.target_q)))


def test_which_parameters_a_loss_reads():
    agent = iql(SPEC, IQLConfig(hidden=(8,)))
    update, state = interpreted(agent.update), _jittered_state(agent)
    batch = _bandit()._replace(discount=jnp.ones(16))
    _, metrics = update(state, batch, jax.random.key(1))

    def moved(tree):
        return jax.tree.map(lambda x: 1.1 * x + 0.01, tree)

    def changed(**parts):
        _, other = update(state._replace(**parts), batch, jax.random.key(1))
        return {name for name in metrics if name.endswith('loss') and other[name] != metrics[name]}

    assert changed(policy=moved(state.policy)) == {'policy/loss'}
    assert changed(critic=state.critic._replace(q=moved(state.critic.q))) == {'q/loss'}
    value = state.critic._replace(value=moved(state.critic.value))
    assert changed(critic=value) == {'value/loss', 'policy/loss', 'q/loss'}
    # The q loss reads target_q through the new V alone, and by one Adam step that can be too little to see.
    target_q = state.critic._replace(target_q=moved(state.critic.target_q))
    assert changed(critic=target_q) - {'q/loss'} == {'value/loss', 'policy/loss'}


def test_target_moves_by_polyak_towards_the_new_q():
    agent = iql(SPEC, IQLConfig(hidden=(8,), polyak=0.25))
    state = _jittered_state(agent)
    new, _ = interpreted(agent.update)(state, _bandit(), jax.random.key(1))
    expected = jax.tree.map(lambda q, slow: 0.25 * q + 0.75 * slow, new.critic.q, state.critic.target_q)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), new.critic.target_q, expected)


def test_a_schedule_of_the_policy_alone_ends_at_zero_and_leaves_the_critic():
    agent = iql(SPEC, IQLConfig(hidden=(8,), schedule='cosine', schedule_of='policy'))
    state, update = schedules.begin(interpreted(agent.init)(jax.random.key(0)), 4), interpreted(agent.update)
    for _ in range(4):
        state, _ = update(state, _bandit(), jax.random.key(1))
    after, _ = update(state, _bandit(), jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, after.policy, state.policy)
    assert abs(after.critic.value['params']['Dense_0']['kernel'] - state.critic.value['params']['Dense_0']['kernel']).max() > 0


def test_critic_alone_takes_the_same_steps():
    config = IQLConfig(hidden=(8,))
    agent, critic = iql(SPEC, config), iql_critic(SPEC, config)
    state, batch, key = interpreted(agent.init)(jax.random.key(0)), _bandit(), jax.random.key(1)
    whole, _ = interpreted(agent.update)(state, batch, key)
    alone, _ = interpreted(lambda s: critic.update(s, batch, key, None))(state.critic)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), whole.critic, alone)
    assert critic.q(alone, batch.observation, batch.action).shape == (2, 16)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'expectile': 1.0}, 'expectile must lie strictly between 0 and 1; got 1.0'),
        ({'gamma': 1.5}, 'gamma must lie in'),
        ({'q_loss': 'max'}, "q_loss must be one of 'sum', 'mean'; got 'max'"),
        ({'learning_rate': 0.0}, 'learning_rate must be greater than 0'),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        IQLConfig(**settings)
