"""TD3: sums worked by hand, what each step may read, and the limits of its settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import Replay
from small import blank, linear, one_row, random_batch, trees_equal

from ooorl.agents.td3 import TD3Config, imitate_data, td3
from ooorl.errors import UsageError
from ooorl.interpreted import interpreted
from ooorl.nn.heads import hl_gauss_head
from ooorl.policies.gaussian import tanh_gaussian_policy
from ooorl.types import Spec, Transition

SPEC = Spec(observation_dim=3, action_dim=2)
LINE = Spec(observation_dim=1, action_dim=1)
SMALL = {'hidden': (8,)}


STILL = {'learning_rate': 1e-12}  # steps too small to be seen: every loss of an update is that of the state given


def _by_hand(replay, cloning_target=imitate_data, **settings):
    """Q_0 = s + 2a, Q_1 = s + a + 3, the slow ones 1 higher; pi(s) = tanh(s), the slow one tanh(0) = 0."""
    config = TD3Config(**{'hidden': (), 'gamma': 0.5, 'policy_delay': 1} | STILL | settings)
    agent = td3(LINE, config, cloning_target=cloning_target, grad_transform=replay.grad_transform)
    q = (linear([[1.0], [2.0]], [0.0]), linear([[1.0], [1.0]], [3.0]))
    target_q = (linear([[1.0], [2.0]], [1.0]), linear([[1.0], [1.0]], [4.0]))
    policies = {'policy': linear([[1.0]], [0.0]), 'target_policy': linear([[0.0]], [0.0])}
    return agent, blank(agent.init)._replace(**policies, q=q, target_q=target_q)


# The noise is 0.2 n, cut at 0.5: slow policy 0 plus 0.3, 0.5 and -0.5.
@pytest.mark.parametrize('noise, action', [(1.5, 0.3), (9.0, 0.5), (-9.0, -0.5)])
def test_q_loss_by_hand(noise, action):
    replay = Replay('normal')
    agent, state = _by_hand(replay, critic_cloning_weight=2.0)
    batch = one_row(observation=1.0, action=0.5, reward=1.0, discount=1.0, next_observation=2.0, next_action=[0.5])
    _, metrics = replay.run(agent.update, [[[noise]]], state, batch, jax.random.key(0))
    # target_q(2, 0.3): 2 + 0.6 + 1 = 3.6 and 2 + 0.3 + 4 = 6.3; v' = 3.6 - 2 * 0.2^2 = 3.52; y = 1 + 0.5 * 3.52 = 2.76.
    target = 1.0 + 0.5 * (3.0 + 2 * action - 2 * (action - 0.5) ** 2)
    np.testing.assert_allclose(metrics['q/target'], target, rtol=1e-6)
    # Q(1, 0.5) = 2 and 4.5; at 0.3 the loss is 0.76^2 + 1.74^2 = 3.6052.
    np.testing.assert_allclose(metrics['q/loss'], (2.0 - target) ** 2 + (4.5 - target) ** 2, rtol=1e-6)
    np.testing.assert_allclose(metrics['q/mean'], 3.25, rtol=1e-6)
    np.testing.assert_allclose(agent.q(state, batch.observation, batch.action), [[2.0], [4.5]])


def test_an_unknown_next_action_takes_nothing_off_the_target():
    replay = Replay('normal')
    agent, state = _by_hand(replay, critic_cloning_weight=2.0)
    batch = one_row(observation=1.0, action=0.5, reward=1.0, discount=1.0, next_observation=2.0, next_action=[np.nan])
    _, metrics = replay.run(agent.update, [[[1.5]]], state, batch, jax.random.key(0))
    np.testing.assert_allclose(metrics['q/target'], 1.0 + 0.5 * 3.6, rtol=1e-6)


def test_critic_cloning_counts_every_dimension():
    # Q is constant: its target falls by w gamma times the squared distance, 0.3^2 + 0.4^2.
    config = TD3Config(hidden=(), gamma=0.5, critic_cloning_weight=2.0, target_noise=0.0, learning_rate=1e-12, policy_delay=1)
    agent = td3(Spec(observation_dim=1, action_dim=2), config)
    batch = random_batch(jax.random.key(0), 3, observation_dim=1, next_action=jnp.tile(jnp.array([[0.3, -0.4]]), (3, 1)))
    _, metrics = interpreted(agent.update)(blank(agent.init), batch._replace(discount=jnp.ones(3)), jax.random.key(1))
    np.testing.assert_allclose(metrics['q/target'], batch.reward.mean() - 2.0 * 0.5 * 0.25, rtol=1e-5)


def test_next_actions_stay_in_the_box():
    replay = Replay('normal')
    agent, state = _by_hand(replay)
    state = state._replace(target_policy=linear([[0.0]], [np.arctanh(0.8)]))
    batch = one_row(observation=1.0, action=0.5, reward=1.0, discount=1.0, next_observation=2.0)
    _, metrics = replay.run(agent.update, [[[9.0]]], state, batch, jax.random.key(0))
    np.testing.assert_allclose(metrics['q/target'], 1.0 + 0.5 * 5.0, rtol=1e-6)  # 0.8 + 0.5 is cut to 1


def test_every_q_step_draws_noise_of_its_own():
    replay = Replay('normal', 'normal')
    agent, state = _by_hand(replay, policy_delay=2)
    batch = one_row(observation=1.0, action=0.5, reward=1.0, discount=1.0, next_observation=2.0)
    _, metrics = replay.run(agent.update, [[[1.5]], [[-0.5]]], state, batch, jax.random.key(0))
    # Next actions 0.3 and -0.1: targets 1 + 0.5 * 3.6 and 1 + 0.5 * 2.8.
    np.testing.assert_allclose(metrics['q/target'], (2.8 + 2.4) / 2, rtol=1e-6)
    first, second, _ = replay.gradients
    slopes = [gradient[0]['params']['Dense_0']['bias'][0] for gradient in (first, second)]
    np.testing.assert_allclose(slopes, [2 * (2.0 - 2.8), 2 * (2.0 - 2.4)], rtol=1e-5)


def test_smoothing_and_a_stochastic_policy_draw_with_keys_of_their_own():
    # Replay refuses two draws of one key.
    replay, config = Replay('normal', 'normal', 'normal'), TD3Config(hidden=(), policy_delay=1, policy_action='sample')
    agent, batch = td3(SPEC, config, policy=tanh_gaussian_policy(SPEC, ())), random_batch(jax.random.key(0), 4)
    noise = jax.random.normal(jax.random.key(1), (3, 4, 2))
    replay.run(agent.update, [noise[0], noise[1:2], noise[2:]], blank(agent.init), batch, jax.random.key(2))


@pytest.mark.parametrize('policy_value, q, slope', [('first', 2.0, 2.0), ('min', 2.0, 2.0), ('mean', 3.25, 1.5)])
def test_policy_loss_by_hand(policy_value, q, slope):
    replay = Replay('normal')
    agent, state = _by_hand(replay, policy_value=policy_value, q_normalisation=2.5, cloning_weight=3.0, target_noise=0.0)
    state = state._replace(policy=linear([[0.0]], [np.arctanh(0.5)]))  # pi = 0.5
    batch = one_row(observation=1.0, action=-0.5, reward=0.0, discount=0.0, next_observation=0.0)
    _, metrics = replay.run(agent.update, [[[0.0]]], state, batch, jax.random.key(0))
    # Q(1, 0.5) = 2 and 4.5, their mean 3.25; Q over its own size is 1: loss = -2.5 + 3 * (0.5 + 0.5)^2 = 0.5.
    np.testing.assert_allclose(metrics['policy/q'], q, rtol=1e-6)
    np.testing.assert_allclose(metrics['policy/loss'], 0.5, rtol=1e-5)
    # No gradient through 2.5 / |Q|. Slope in the action: -2.5 / |Q| dQ/da + 3 * 2 * 1; da/db = 1 - 0.5^2.
    gradient = replay.gradients[1]['params']['Dense_0']['bias'][0]
    np.testing.assert_allclose(gradient, 0.75 * (6.0 - 2.5 / q * slope), rtol=1e-5)


def test_no_gradient_passes_through_what_is_imitated():
    replay = Replay('normal')
    agent, state = _by_hand(replay, cloning_target=lambda s, data_action, action: 2.0 * action, cloning_weight=3.0)
    state = state._replace(policy=linear([[0.0]], [np.arctanh(0.5)]))
    batch = one_row(observation=1.0, action=-0.5, reward=0.0, discount=0.0, next_observation=0.0)
    replay.run(agent.update, [[[0.0]]], state, batch, jax.random.key(0))
    # -dQ/da + 3 * 2 * (0.5 - 1), times da/db = 0.75.
    np.testing.assert_allclose(replay.gradients[1]['params']['Dense_0']['bias'][0], 0.75 * (-2.0 - 3.0), rtol=1e-5)


def test_the_policy_climbs_the_current_q_and_not_its_slow_copy():
    replay = Replay('normal')
    agent, state = _by_hand(replay, target_noise=0.0)
    state = state._replace(target_q=(linear([[5.0], [-7.0]], [9.0]),) * 2)
    batch = one_row(observation=1.0, action=-0.5, reward=0.0, discount=0.0, next_observation=0.0)
    _, metrics = replay.run(agent.update, [[[0.0]]], state, batch, jax.random.key(0))
    np.testing.assert_allclose(metrics['policy/q'], 1.0 + 2 * np.tanh(1.0), rtol=1e-6)


def test_imitation_over_dimensions_is_summed_or_averaged():
    batch, results = random_batch(jax.random.key(1), 6), []
    for reduce in ('sum', 'mean'):
        agent = td3(SPEC, TD3Config(**SMALL, cloning_weight=1.0, cloning_reduce=reduce))
        results.append(interpreted(agent.update)(interpreted(agent.init)(jax.random.key(0)), batch, jax.random.key(2))[1])
    np.testing.assert_allclose(results[0]['policy/cloning'], 2 * results[1]['policy/cloning'], rtol=1e-6)


def test_targets_move_by_polyak_once_an_update():
    agent = td3(SPEC, TD3Config(**SMALL, polyak=0.25))
    state = interpreted(agent.init)(jax.random.key(0))
    new, _ = interpreted(agent.update)(state, random_batch(jax.random.key(1), 6), jax.random.key(2))
    for fast, slow, before in ((new.q, new.target_q, state.q), (new.policy, new.target_policy, state.policy)):
        expected = jax.tree.map(lambda f, b: 0.25 * f + 0.75 * b, fast, before)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), slow, expected)


def test_terminal_rows_ignore_the_successor():
    agent = td3(SPEC, TD3Config(**SMALL))
    state, batch = interpreted(agent.init)(jax.random.key(0)), random_batch(jax.random.key(1), 6)
    batch = batch._replace(discount=jnp.zeros(6))
    update = interpreted(agent.update)
    other, _ = update(state, batch._replace(next_observation=batch.next_observation + 5.0), jax.random.key(2))
    assert trees_equal(update(state, batch, jax.random.key(2))[0], other)


def test_where_the_next_action_is_unknown_the_target_goes_without_its_distance():
    known = random_batch(jax.random.key(1), 6, next_action=jnp.ones((6, 2)))
    known = known._replace(discount=jnp.ones(6))
    none = known._replace(extras={'next_action': jnp.full((6, 2), jnp.nan)})
    half = known._replace(extras={'next_action': known.extras['next_action'].at[:3].set(jnp.nan)})
    targets = {}
    for weight in (0.0, 1.0):
        agent = td3(SPEC, TD3Config(**SMALL, critic_cloning_weight=weight, target_noise=0.0, policy_delay=1))
        state, update = interpreted(agent.init)(jax.random.key(0)), interpreted(agent.update)
        for name, batch in (('known', known), ('half', half), ('none', none)):
            targets[weight, name] = float(update(state, batch, jax.random.key(2))[1]['q/target'])
    np.testing.assert_allclose(targets[1.0, 'none'], targets[0.0, 'known'], rtol=1e-5)
    assert targets[1.0, 'known'] < targets[1.0, 'half'] < targets[1.0, 'none']


def _gradients(config, batch, num_draws=2, changed=lambda state: state):
    """All gradients of one update, of the q steps and then of the policy; new state and metrics."""
    replay = Replay(*('normal',) * num_draws)
    agent = td3(SPEC, config, grad_transform=replay.grad_transform)
    state = changed(interpreted(agent.init)(jax.random.key(0)))
    noise = jnp.zeros((num_draws, batch.reward.shape[0] // (num_draws if config.split_batch else 1), 2))
    state, metrics = replay.run(agent.update, noise, state, batch, jax.random.key(1))
    return replay.gradients, state, metrics


def _close(left, right):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), left, right)


def test_cloning_weight_zero_is_td3():
    batch, still = random_batch(jax.random.key(1), 6), SMALL | STILL
    (*_, plain), _, _ = _gradients(TD3Config(**still), batch)
    (*_, cloning), _, metrics = _gradients(TD3Config(**still, q_normalisation=2.5, cloning_weight=0.0), batch)
    _close(cloning, jax.tree.map(lambda g: metrics['policy/q_scale'] * g, plain))
    (*_, other_actions), _, _ = _gradients(TD3Config(**still), batch._replace(action=-batch.action))
    _close(plain, other_actions)


def test_what_the_policy_climbs_moves_the_policy_only():
    batch = random_batch(jax.random.key(1), 6)
    _, one, _ = _gradients(TD3Config(**SMALL), batch)
    _, other, _ = _gradients(TD3Config(**SMALL, cloning_weight=5.0), batch)
    assert trees_equal((one.q, one.target_q), (other.q, other.target_q))
    assert not trees_equal(one.policy, other.policy)


def test_first_member_alone_receives_no_gradient_from_the_others():
    def swapped(state):
        return state._replace(q=(state.q[0], jax.tree.map(lambda leaf: 9.0 - leaf, state.q[1])))

    batch = random_batch(jax.random.key(1), 6)
    (*_, one), _, _ = _gradients(TD3Config(**SMALL | STILL), batch)
    (*_, other), _, _ = _gradients(TD3Config(**SMALL | STILL), batch, changed=swapped)
    _close(one, other)


def test_split_batch_gives_each_q_step_every_second_row_and_the_policy_the_last_ones():
    batch = random_batch(jax.random.key(1), 8)
    (first, second, policy), _, _ = _gradients(TD3Config(**SMALL | STILL, split_batch=True), batch)
    halves = [jax.tree.map(lambda leaf, start=start: leaf[start::2], batch) for start in (0, 1)]
    plain = [_gradients(TD3Config(**SMALL | STILL, policy_delay=1), half, num_draws=1)[0] for half in halves]
    _close((first, second, policy), (plain[0][0], *plain[1]))
    agent = td3(SPEC, TD3Config(**SMALL, split_batch=True))
    with pytest.raises(UsageError, match='multiple of 2 rows; got 7'):
        agent.update(interpreted(agent.init)(jax.random.key(0)), random_batch(jax.random.key(1), 7), jax.random.key(2))


def test_bonus_raises_the_target():
    replay = Replay('normal')
    agent, state = _by_hand(replay)
    batch = one_row(observation=1.0, action=0.5, reward=1.0, discount=0.0, next_observation=2.0, bonus=7.0)
    _, metrics = replay.run(agent.update, [[[0.0]]], state, batch, jax.random.key(0))
    np.testing.assert_allclose(metrics['q/target'], 8.0)


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
    state, metrics = interpreted(agent.update)(interpreted(agent.init)(jax.random.key(0)), batch, jax.random.key(2))
    assert all(np.isfinite(value) and value.shape == () for value in metrics.values())
    action = interpreted(agent.sample_action)(state, batch.observation, jax.random.key(3))
    assert action.shape == (6, 2) and bool((jnp.abs(action) <= 1.0).all())


def test_exploration_noise_spreads_the_collected_actions():
    agent = td3(SPEC, TD3Config(**SMALL, exploration_noise=0.05))
    state, observation = interpreted(agent.init)(jax.random.key(0)), jnp.zeros((4000, 3))
    spread = interpreted(agent.sample_action)(state, observation, jax.random.key(1)).std(axis=0)
    np.testing.assert_allclose(spread, 0.05, rtol=0.05)  # the standard error of a spread of 4000 draws is 1.1 %


def test_finds_the_best_action_of_a_bandit():
    # Reward -(a - 0.5)^2, every step terminal: the best action is 0.5 everywhere, its value 0.
    agent = td3(LINE, TD3Config(hidden=(32,), learning_rate=3e-3))

    def step(state, key):
        action = jax.random.uniform(key, (64, 1), minval=-1.0, maxval=1.0)
        zeros = jnp.zeros((64, 1))
        batch = Transition(zeros, action, -((action[:, 0] - 0.5) ** 2), jnp.zeros(64), zeros)
        return interpreted(agent.update)(state, batch, key)

    @jax.jit
    def learn(state, key):
        return jax.lax.scan(step, state, jax.random.split(key, 600))

    state, _ = learn(interpreted(agent.init)(jax.random.key(0)), jax.random.key(1))
    np.testing.assert_allclose(interpreted(agent.best_action)(state, jnp.zeros((1,)), jax.random.key(2)), [0.5], atol=0.1)


@pytest.mark.parametrize('wrong', [{'gamma': 1.5}, {'policy_delay': 0}, {'policy_value': 'max'}, {'q_normalisation': -1.0}])
def test_bad_settings_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        TD3Config(**wrong)
