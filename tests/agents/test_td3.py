"""TD3: sums worked by hand, what each step may read, and the limits of its settings."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import blank, linear, one_row, random_batch, trees_equal

from ooorl.agents.td3 import TD3Config, _parts, td3
from ooorl.errors import UsageError
from ooorl.nn.heads import hl_gauss_head, scalar_head
from ooorl.policies.gaussian import deterministic_policy, tanh_gaussian_policy
from ooorl.types import Spec, Transition

SPEC = Spec(observation_dim=3, action_dim=2)
LINE = Spec(observation_dim=1, action_dim=1)
SMALL = {'hidden': (8,)}


def _linear_parts(config):
    """Q_0 = s + 2a, Q_1 = s + a + 3, the slow ones 1 higher; pi(s) = tanh(s), the slow one tanh(0) = 0."""
    parts = _parts(LINE, config, deterministic_policy(LINE, ()), scalar_head(), optax.identity())
    q = (linear([[1.0], [2.0]], [0.0]), linear([[1.0], [1.0]], [3.0]))
    target_q = (linear([[1.0], [2.0]], [1.0]), linear([[1.0], [1.0]], [4.0]))
    state = blank(parts.init)
    return parts, state._replace(policy=linear([[1.0]], [0.0]), target_policy=linear([[0.0]], [0.0]), q=q, target_q=target_q)


def test_q_loss_by_hand():
    parts, state = _linear_parts(TD3Config(hidden=(), gamma=0.5, critic_cloning_weight=2.0))
    batch = one_row(observation=1.0, action=0.5, reward=1.0, discount=1.0, next_observation=2.0, next_action=[0.5])
    action = parts.next_action(state, batch, jnp.array([[0.3]]), None)
    np.testing.assert_allclose(action, [[0.3]], rtol=1e-6)  # slow policy 0 plus the noise
    _, metrics = parts.q_step(state, batch, action)
    # target_q: 2 + 0.6 + 1 = 3.6 and 2 + 0.3 + 4 = 6.3; v' = 3.6 - 2 * 0.2^2 = 3.52; y = 1 + 0.5 * 3.52 = 2.76.
    # Q(1, 0.5) = 2 and 4.5: loss 0.76^2 + 1.74^2 = 3.6052.
    np.testing.assert_allclose(metrics['q/target'], 2.76, rtol=1e-6)
    np.testing.assert_allclose(metrics['q/loss'], 3.6052, rtol=1e-6)


@pytest.mark.parametrize('policy_value, q', [('first', 2.0), ('min', 2.0), ('mean', 3.0)])
def test_policy_loss_by_hand(policy_value, q):
    config = TD3Config(hidden=(), policy_value=policy_value, q_normalisation=2.5, cloning_weight=3.0)
    parts, state = _linear_parts(config)
    state = state._replace(policy=linear([[0.0]], [np.arctanh(0.5)]))  # pi = 0.5
    batch = one_row(observation=1.0, action=-0.5, reward=0.0, discount=0.0, next_observation=0.0)
    _, metrics = parts.policy_step(state, batch, jax.random.key(0))
    # Q(1, 0.5) = 2 and 4.5, their mean 3.25; Q over its own size is 1: loss = -2.5 + 3 * (0.5 + 0.5)^2 = 0.5.
    np.testing.assert_allclose(metrics['policy/q'], 3.25 if policy_value == 'mean' else q, rtol=1e-6)
    np.testing.assert_allclose(metrics['policy/loss'], 0.5, rtol=1e-5)


def test_targets_move_by_polyak_once_an_update():
    agent = td3(SPEC, TD3Config(**SMALL, polyak=0.25))
    state = jax.jit(agent.init)(jax.random.key(0))
    new, _ = jax.jit(agent.update)(state, random_batch(jax.random.key(1), 6), jax.random.key(2))
    for fast, slow, before in ((new.q, new.target_q, state.q), (new.policy, new.target_policy, state.policy)):
        expected = jax.tree.map(lambda f, b: 0.25 * f + 0.75 * b, fast, before)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), slow, expected)


def test_terminal_rows_ignore_the_successor():
    agent = td3(SPEC, TD3Config(**SMALL))
    state, batch = agent.init(jax.random.key(0)), random_batch(jax.random.key(1), 6)
    batch = batch._replace(discount=jnp.zeros(6))
    update = jax.jit(agent.update)
    other, _ = update(state, batch._replace(next_observation=batch.next_observation + 5.0), jax.random.key(2))
    assert trees_equal(update(state, batch, jax.random.key(2))[0], other)


def _policy_gradient(config, batch):
    seen = optax.GradientTransformation(lambda p: jax.tree.map(jnp.zeros_like, p), lambda g, s, p=None: (g, g))
    parts = _parts(SPEC, config, deterministic_policy(SPEC, config.hidden), scalar_head(), seen)
    state, metrics = parts.policy_step(parts.init(jax.random.key(0)), batch, jax.random.key(1))
    return state, state.policy_opt[0], metrics


def test_cloning_weight_zero_is_td3():
    batch = random_batch(jax.random.key(1), 6)
    _, plain, _ = _policy_gradient(TD3Config(**SMALL), batch)
    _, cloning, metrics = _policy_gradient(TD3Config(**SMALL, q_normalisation=2.5, cloning_weight=0.0), batch)
    scaled = jax.tree.map(lambda g: metrics['policy/q_scale'] * g, plain)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), cloning, scaled)
    _, other_actions, _ = _policy_gradient(TD3Config(**SMALL), batch._replace(action=-batch.action))
    assert trees_equal(plain, other_actions)


def test_policy_step_changes_the_policy_only():
    state, _, _ = _policy_gradient(TD3Config(**SMALL), random_batch(jax.random.key(1), 6))
    start, _, _ = _policy_gradient(TD3Config(**SMALL), random_batch(jax.random.key(2), 6))
    assert trees_equal((state.q, state.target_q, state.target_policy), (start.q, start.target_q, start.target_policy))
    assert not trees_equal(state.policy, start.policy)


def test_first_member_alone_receives_no_gradient_from_the_others():
    parts, state = _linear_parts(TD3Config(hidden=(), policy_value='first'))
    batch = one_row(observation=1.0, action=0.0, reward=0.0, discount=0.0, next_observation=0.0)
    changed = state._replace(q=(state.q[0], linear([[9.0], [-9.0]], [9.0])))
    key = jax.random.key(0)
    assert trees_equal(parts.policy_step(state, batch, key)[0].policy, parts.policy_step(changed, batch, key)[0].policy)


def test_split_batch_gives_each_q_step_every_second_row():
    config = TD3Config(**SMALL, split_batch=True, target_noise=0.0)
    agent, batch = td3(SPEC, config), random_batch(jax.random.key(1), 8)
    parts = _parts(SPEC, config, deterministic_policy(SPEC, config.hidden), scalar_head(), optax.identity())
    state = jax.jit(agent.init)(jax.random.key(0))
    updated, _ = jax.jit(agent.update)(state, batch, jax.random.key(2))
    for start in (0, 1):
        rows = jax.tree.map(lambda leaf, start=start: leaf[start::2], batch)
        state, _ = parts.q_step(state, rows, parts.next_action(state, rows, 0.0, None))
    state, _ = parts.policy_step(state, rows, jax.random.key(3))
    expected = parts.move_targets(state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), updated, expected)
    with pytest.raises(UsageError, match='multiple of 2 rows; got 7'):
        agent.update(state, random_batch(jax.random.key(1), 7), jax.random.key(2))


def test_bonus_raises_the_target():
    parts, state = _linear_parts(TD3Config(hidden=(), gamma=0.5))
    batch = one_row(observation=1.0, action=0.5, reward=1.0, discount=0.0, next_observation=2.0, bonus=7.0)
    np.testing.assert_allclose(parts.q_step(state, batch, batch.action)[1]['q/target'], 8.0)


@pytest.mark.parametrize('setting', ['hl_gauss', 'stochastic', 'rebrac'])
def test_settings_take_an_update(setting):
    stochastic = TD3Config(
        **SMALL, policy_action='sample', target_policy=False, target_noise=0.0, policy_delay=1, policy_value='mean'
    )
    rebrac = TD3Config(**SMALL, critic_layer_norm='after', critic_cloning_weight=0.1, cloning_weight=0.1)
    agent = {
        'hl_gauss': lambda: td3(SPEC, TD3Config(**SMALL), head=hl_gauss_head(-5.0, 5.0, 11)),
        'stochastic': lambda: td3(SPEC, stochastic, policy=tanh_gaussian_policy(SPEC, (8,))),
        'rebrac': lambda: td3(SPEC, rebrac),
    }[setting]()
    batch = random_batch(jax.random.key(1), 6)
    batch = batch._replace(extras=dict.fromkeys(agent.reads, batch.action))
    state, metrics = jax.jit(agent.update)(agent.init(jax.random.key(0)), batch, jax.random.key(2))
    assert all(np.isfinite(value) and value.shape == () for value in metrics.values())
    action = agent.sample_action(state, batch.observation, jax.random.key(3))
    assert action.shape == (6, 2) and bool((jnp.abs(action) <= 1.0).all())


def test_exploration_noise_spreads_the_collected_actions():
    agent = td3(SPEC, TD3Config(**SMALL, exploration_noise=0.05))
    state, observation = agent.init(jax.random.key(0)), jnp.zeros((4000, 3))
    spread = agent.sample_action(state, observation, jax.random.key(1)).std(axis=0)
    np.testing.assert_allclose(spread, 0.05, rtol=0.05)  # the standard error of a spread of 4000 draws is 1.1 %


def test_finds_the_best_action_of_a_bandit():
    # Reward -(a - 0.5)^2, every step terminal: the best action is 0.5 everywhere, its value 0.
    agent = td3(LINE, TD3Config(hidden=(32,), learning_rate=3e-3))

    def step(state, key):
        action = jax.random.uniform(key, (64, 1), minval=-1.0, maxval=1.0)
        zeros = jnp.zeros((64, 1))
        batch = Transition(zeros, action, -((action[:, 0] - 0.5) ** 2), jnp.zeros(64), zeros)
        return agent.update(state, batch, key)

    @jax.jit
    def learn(state, key):
        return jax.lax.scan(step, state, jax.random.split(key, 600))

    state, _ = learn(agent.init(jax.random.key(0)), jax.random.key(1))
    np.testing.assert_allclose(agent.best_action(state, jnp.zeros((1,)), jax.random.key(2)), [0.5], atol=0.1)


@pytest.mark.parametrize('wrong', [{'gamma': 1.5}, {'policy_delay': 0}, {'policy_value': 'max'}, {'q_normalisation': -1.0}])
def test_bad_settings_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        TD3Config(**wrong)
