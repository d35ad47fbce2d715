"""SAC and RLPD: sums worked by hand, what each step may read, and the limits of the settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import Replay
from small import blank, linear, one_row, random_batch, trees_equal

from ooorl.agents.sac import SACConfig, sac, sac_critic
from ooorl.agents.steps import draw_members
from ooorl.errors import UsageError
from ooorl.interpreted import interpreted
from ooorl.nn.heads import hl_gauss_head
from ooorl.policies.gaussian import deterministic_policy
from ooorl.types import DensityPolicy, Spec, Transition

SPEC = Spec(observation_dim=3, action_dim=2)
LINE = Spec(observation_dim=1, action_dim=1)


def _fixed_policy(action, log_prob):
    """Always `action`, offset by the parameter, with a log-density that is the parameter plus `log_prob`."""

    def draw(params, observation, key, num):
        shape = (num, *observation.shape[:-1])
        return jnp.full((*shape, 1), action) + params, jnp.full(shape, log_prob) + params

    def missing(*_):
        raise NotImplementedError

    return DensityPolicy(
        init=lambda key: jnp.zeros(()), sample=missing, mode=missing, loss=missing, sample_and_log_prob=draw
    )


STILL = {'learning_rate': 1e-12}  # steps too small to be seen: every loss of an update is that of the state given
ROW = {'observation': 1.0, 'action': 0.5, 'reward': 1.0, 'discount': 1.0, 'next_observation': 2.0}


def _by_hand(replay, **settings):
    """Q_0 = s + 2a, Q_1 = s + a + 3, the slow ones 1 higher; pi is 0.5 with log-density -1; the temperature is 2."""
    config = SACConfig(**{'hidden': (), 'gamma': 0.5} | STILL | settings)
    agent = sac(LINE, config, policy=_fixed_policy(0.5, -1.0), grad_transform=replay.grad_transform)
    q = (linear([[1.0], [2.0]], [0.0]), linear([[1.0], [1.0]], [3.0]))
    target_q = (linear([[1.0], [2.0]], [1.0]), linear([[1.0], [1.0]], [4.0]))
    return agent, blank(agent.init)._replace(q=q, target_q=target_q, log_temperature=jnp.log(2.0))


def _updated(batch, draws=(), names=(), **settings):
    """State and metrics after one update by hand, and its gradients: of the q steps, the policy and the temperature."""
    replay = Replay(*names)
    agent, state = _by_hand(replay, **settings)
    return *replay.run(agent.update, draws, state, batch, jax.random.key(0)), replay.gradients


@pytest.mark.parametrize('entropy_backup, target', [(True, 4.0), (False, 3.0)])
def test_q_loss_by_hand(entropy_backup, target):
    _, metrics, _ = _updated(one_row(**ROW), entropy_backup=entropy_backup)
    # target_q(2, 0.5): 4 and 6.5; v' = 4, with entropy 4 + 2 * 1 = 6; y = 1 + 0.5 * v' = 3 or 4. Q(1, 0.5) = 2 and 4.5.
    np.testing.assert_allclose(metrics['q/target'], target, rtol=1e-6)
    np.testing.assert_allclose(metrics['q/loss'], ((target - 2.0) ** 2 + (target - 4.5) ** 2) / 2, rtol=1e-6)
    np.testing.assert_allclose(metrics['q/mean'], 3.25, rtol=1e-6)


def test_q_is_that_of_the_current_parameters():
    agent, state = _by_hand(Replay())
    np.testing.assert_allclose(agent.q(state, jnp.array([[1.0]]), jnp.array([[0.5]])), [[2.0], [4.5]])


def test_subset_minimum_reads_its_members_only():
    for member, value in ((0, 4.0), (1, 6.5)):
        settings = {'entropy_backup': False, 'num_target_critics': 1}
        _, metrics, _ = _updated(one_row(**ROW), [np.array([member])], ['choice'], **settings)
        np.testing.assert_allclose(metrics['q/target'], 1.0 + 0.5 * value, rtol=1e-6)


@pytest.mark.parametrize('utd, members, value', [(1, [], 4.0), (1, [1], 6.5), (2, [1, 0], (4.0 + 6.5) / 2)])
def test_the_critic_alone_takes_its_actions_from_the_sampler(utd, members, value):
    keys, replay = [], Replay(*('choice',) * len(members), traced=False)

    def sampler(observation, key, num):
        keys.append(bytes(jax.random.key_data(key)))
        return jnp.full((num, 1, 1), 0.5) + (observation - 2.0)[None]  # asked for at s' = 2

    config = SACConfig(hidden=(), gamma=0.5, utd=utd, num_target_critics=1 if members else None, **STILL)
    critic = sac_critic(LINE, config, grad_transform=replay.grad_transform)
    q = (linear([[1.0], [2.0]], [0.0]), linear([[1.0], [1.0]], [3.0]))
    target_q = (linear([[1.0], [2.0]], [1.0]), linear([[1.0], [1.0]], [4.0]))
    state = blank(critic.init)._replace(q=q, target_q=target_q)
    where = jnp.array([[1.0]]), jnp.array([[0.5]])
    np.testing.assert_allclose(critic.q(state, *where), [[2.0], [4.5]])
    np.testing.assert_allclose(critic.target_q(state, *where), [[3.0], [5.5]])
    batch = jax.tree.map(lambda *rows: jnp.concatenate(rows), *[one_row(**ROW)] * utd)
    draws = [np.array([member]) for member in members]
    _, metrics = replay.run(critic.update, draws, state, batch, jax.random.key(1), sampler)
    # The slow critics move by 0.005 of their distance, 1, after the first of two steps.
    np.testing.assert_allclose(metrics['q/target'], 1.0 + 0.5 * value, atol=2e-3 if utd > 1 else 1e-6)
    assert len(set(keys)) == utd


def test_no_gradient_passes_through_the_samplers_actions():
    critic = sac_critic(LINE, SACConfig(hidden=()))
    q = (linear([[1.0], [2.0]], [0.0]),) * 2
    state = blank(critic.init)._replace(q=q, target_q=q)  # dQ/da = 2

    def loss(action):
        return critic.update(state, one_row(**ROW), jax.random.key(0), lambda *given: jnp.full((1, 1, 1), action))[1]['q/loss']

    assert jax.grad(loss)(0.25) == 0.0


def test_drawn_members_differ_from_each_other_and_over_steps():
    pairs = jax.vmap(lambda key: draw_members(key, 5, 2))(jax.random.split(jax.random.key(0), 500))
    assert bool((pairs[:, 0] != pairs[:, 1]).all())
    share = jnp.bincount(pairs.reshape(-1), length=5) / 500  # 0.4 each, standard error 0.022
    np.testing.assert_allclose(share, 0.4, atol=0.09)


@pytest.mark.parametrize('policy_value, loss, slope', [('min', -4.0, 0.0), ('mean', -5.25, 0.5)])
@pytest.mark.parametrize('entropy, surplus', [(None, 1.5), (-0.25, 1.25), (0.0, 1.0)])
def test_policy_and_temperature_by_hand(policy_value, loss, slope, entropy, surplus):
    _, metrics, (_, policy, temperature) = _updated(one_row(**ROW), policy_value=policy_value, target_entropy=entropy)
    # 2 * (-1) - Q with Q(1, 0.5) = 2 and 4.5; slope of the loss: 2 * 1 - dQ/da with dQ/da = 2, or on average 1.5.
    np.testing.assert_allclose(metrics['policy/loss'], loss, rtol=1e-6)
    np.testing.assert_allclose(metrics['policy/entropy'], 1.0, rtol=1e-6)
    np.testing.assert_allclose(policy, slope, rtol=1e-6)
    # Temperature: 2 * (1 - target entropy), by default -A / 2, which is also its gradient with respect to the logarithm.
    np.testing.assert_allclose(metrics['temperature/loss'], 2.0 * surplus, rtol=1e-6)
    np.testing.assert_allclose(metrics['temperature/value'], 2.0, rtol=1e-6)
    np.testing.assert_allclose(temperature, 2.0 * surplus, rtol=1e-6)


def test_too_much_entropy_lowers_the_temperature_and_too_little_raises_it():
    for target_entropy, sign in ((-0.5, -1.0), (3.0, 1.0)):
        state, _, _ = _updated(one_row(**ROW), learning_rate=1e-2, target_entropy=target_entropy)
        assert np.sign(state.log_temperature - np.log(2.0)) == sign


def test_the_slow_critic_follows_after_every_q_step():
    batch = jax.tree.map(lambda *rows: jnp.concatenate(rows), *[one_row(**ROW)] * 3)
    state, _, _ = _updated(batch, utd=3, polyak=0.5)
    # 1 above the current one; three halvings leave 1/8.
    slow = [member['params']['Dense_0']['bias'][0] for member in state.target_q]
    np.testing.assert_allclose(slow, [0.125, 3.125], rtol=1e-6)


def test_rlpd_with_two_critics_and_one_step_is_sac():
    batch, key = random_batch(jax.random.key(1), 6), jax.random.key(2)
    results = []
    for settings in ({}, {'num_target_critics': 2, 'utd': 1, 'critic_layer_norm': None}):
        agent = sac(SPEC, SACConfig(hidden=(8,), **settings))
        results.append(interpreted(agent.update)(interpreted(agent.init)(jax.random.key(0)), batch, key))
    assert trees_equal(*results)


def test_utd_two_is_two_q_steps_on_every_second_row_and_a_policy_step_on_the_last():
    config = {'hidden': (8,), 'num_critics': 3, 'num_target_critics': 2, 'critic_layer_norm': 'before', 'polyak': 0.0} | STILL
    batch, noise = random_batch(jax.random.key(1), 8), jax.random.normal(jax.random.key(5), (3, 1, 4, 2))
    draws = [jnp.array([0, 2]), noise[0], jnp.array([1, 0]), noise[1], noise[2]]

    def gradients(utd, rows, draws):
        replay = Replay(*('choice', 'normal') * utd, 'normal')
        agent = sac(SPEC, SACConfig(**config, utd=utd), grad_transform=replay.grad_transform)
        replay.run(agent.update, draws, interpreted(agent.init)(jax.random.key(0)), rows, jax.random.key(2))
        return replay.gradients

    both = gradients(2, batch, draws)
    halves = [jax.tree.map(lambda leaf, start=start: leaf[start::2], batch) for start in (0, 1)]
    first, last = (gradients(1, half, [*chosen, noise[2]]) for half, chosen in zip(halves, (draws[:2], draws[2:4]), strict=True))
    expected = [first[0], *last]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), both, expected)
    agent = sac(SPEC, SACConfig(hidden=(8,), utd=2))
    with pytest.raises(UsageError, match='multiple of 2 rows; got 7'):
        agent.update(interpreted(agent.init)(jax.random.key(0)), random_batch(jax.random.key(1), 7), jax.random.key(2))


def test_fixed_temperature_stays_and_terminal_rows_ignore_the_successor():
    config = SACConfig(hidden=(8,), learn_temperature=False, init_temperature=0.25)
    agent = sac(SPEC, config, head=hl_gauss_head(-5.0, 5.0, 11))
    state, batch = interpreted(agent.init)(jax.random.key(0)), random_batch(jax.random.key(1), 6)
    batch, update = batch._replace(discount=jnp.zeros(6)), interpreted(agent.update)
    new, metrics = update(state, batch, jax.random.key(2))
    other, _ = update(state, batch._replace(next_observation=batch.next_observation + 5.0), jax.random.key(2))
    assert trees_equal(new, other)
    np.testing.assert_allclose(jnp.exp(new.log_temperature), 0.25, rtol=1e-6)
    assert all(np.isfinite(value) and value.shape == () for value in metrics.values())


def test_bonus_and_bounds_reach_the_target():
    batch = one_row(**ROW | {'reward': 3.0}, value_low=-1.0, value_high=1.0, bonus=7.0)
    _, metrics, _ = _updated(batch, entropy_backup=False)
    np.testing.assert_allclose(metrics['q/target'], 8.0)


def test_finds_the_soft_optimum_of_a_bandit():
    # Reward -4 (a - 0.5)^2, temperature t = 0.2: the soft optimum is a Gaussian around 0.5 of variance t / 8, which the box
    # hardly cuts; its entropy is log(2 pi e t / 8) / 2 = -0.43 nats.
    agent = sac(LINE, SACConfig(hidden=(32, 32), learning_rate=3e-3, learn_temperature=False, init_temperature=0.2))

    def step(state, key):
        action_key, update_key = jax.random.split(key)
        action, zeros = jax.random.uniform(action_key, (64, 1), minval=-1.0, maxval=1.0), jnp.zeros((64, 1))
        batch = Transition(zeros, action, -4.0 * (action[:, 0] - 0.5) ** 2, jnp.zeros(64), zeros)
        return interpreted(agent.update)(state, batch, update_key)

    @jax.jit
    def learn(state, key):
        return jax.lax.scan(step, state, jax.random.split(key, 1200))

    state, metrics = learn(interpreted(agent.init)(jax.random.key(0)), jax.random.key(1))
    np.testing.assert_allclose(interpreted(agent.best_action)(state, jnp.zeros((1,)), jax.random.key(2)), [0.5], atol=0.05)
    np.testing.assert_allclose(metrics['policy/entropy'][-300:].mean(), -0.43, atol=0.1)


def test_a_policy_without_density_is_refused():
    with pytest.raises(UsageError, match='density'):
        sac(SPEC, policy=deterministic_policy(SPEC))


@pytest.mark.parametrize('wrong', [{'polyak': -0.1}, {'utd': 0}, {'num_target_critics': 3}, {'init_temperature': 0.0}])
def test_bad_settings_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        SACConfig(**wrong)
