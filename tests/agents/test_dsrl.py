"""Noise chosen for a policy, in numbers worked out by hand and in limits; and environments whose actions are noise."""

import draws
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from line_world import HORIZON, LineEnv, line_task
from small import FROZEN, linear, one_row, random_batch, trees_equal

from ooorl.agents.bc import BCConfig, bc
from ooorl.agents.dsrl import DSRLConfig, dsrl
from ooorl.agents.fql import FQLConfig, fql_critic
from ooorl.agents.slow_policy import slow_policy
from ooorl.envs import batched, host
from ooorl.envs.steered import steered
from ooorl.errors import UsageError
from ooorl.interpreted import interpreted
from ooorl.policies.autoregressive import autoregressive_policy
from ooorl.policies.averaged import averaged
from ooorl.policies.gaussian import gaussian_policy
from ooorl.policies.noise import beside, drawing
from ooorl.signals.novelty import RNDConfig, rnd
from ooorl.training import collect as collection
from ooorl.types import Policy, Spec
from ooorl.wrap import bonus, normalised_observation

SPEC, LINE, KEY = Spec(observation_dim=3, action_dim=2), Spec(observation_dim=1, action_dim=1), jax.random.key(2)
BATCH = random_batch(jax.random.key(1), 6)
# Its action is its noise, moved by its only parameter.
MOVED = Policy(
    init=lambda key: jnp.zeros((1,)),
    **drawing(lambda params, observation, noise: jnp.clip(noise + beside(noise, params), -1.0, 1.0), 1),
    loss=lambda params, observation, action, key, known=None: ((beside(action, params) - action) ** 2).sum(axis=-1),
    masks=True,
)


def made(policy=None, **settings):
    critic = fql_critic(SPEC, FQLConfig(hidden=(8,), num_critics=3))
    config = DSRLConfig(**{'hidden': (8,)} | settings)
    return dsrl(SPEC, config, critic=critic, policy=policy or gaussian_policy(SPEC, (8,)))


def test_an_update_by_hand():
    # Q = 2 a and Q = a + 1; all of the steering and of the noise critic is 0, so that noise is bound * tanh of what is drawn.
    critic = fql_critic(LINE, FQLConfig(hidden=(), critic_layer_norm=None, gamma=0.5, aggregate='min'))
    config = DSRLConfig(hidden=(), noise_layer_norm=None, noise_bound=0.5, learning_rate=0.1, init_temperature=2.0)
    agent = dsrl(LINE, config, critic=critic, policy=MOVED)
    state = jax.tree.map(jnp.zeros_like, interpreted(agent.init)(KEY))
    q = (linear([[0.0], [2.0]], [0.0]), linear([[0.0], [1.0]], [1.0]))
    critic_state = state.critic._replace(q=q, target_q=q)
    state = state._replace(critic=critic_state, policy=jnp.array([0.1]), log_temperature=jnp.log(2.0))
    row = one_row(observation=0.0, action=0.3, reward=1.0, discount=1.0, next_observation=0.0)
    noise = [jnp.full((1, 1, 1), 0.6), jnp.full((1, 1), 0.4), jnp.full((1, 1, 1), -0.2)]
    replay = draws.Replay('normal', 'normal', 'normal')
    new, metrics = replay.run(agent.update, noise, state, row, jax.random.key(0))
    # The successor's action is 0.1 + tanh(0.6) / 2 = 0.368525, its least Q 0.737050; the data's action has 0.6 and 1.3.
    target = 1.0 + 0.5 * 2.0 * (0.1 + 0.5 * np.tanh(0.6))
    np.testing.assert_allclose(metrics['q/target'], target, rtol=1e-6)
    np.testing.assert_allclose(metrics['q/loss'], ((0.6 - target) ** 2 + (1.3 - target) ** 2) / 2, rtol=1e-5)
    # Noise 0.4 is the action 0.5, of which the members say 1 and 1.5 and the noise critic 0.
    np.testing.assert_allclose(metrics['noise_q/loss'], (1.0**2 + 1.5**2) / 2, rtol=1e-6)
    log_prob = -0.5 * 0.04 - 0.9189385 - np.log(1 - np.tanh(0.2) ** 2)
    np.testing.assert_allclose(metrics['steering/entropy'], -log_prob, rtol=1e-5)
    np.testing.assert_allclose(metrics['steering/loss'], 2.0 * log_prob, rtol=1e-5)
    np.testing.assert_allclose(metrics['temperature/loss'], 2.0 * (-log_prob + 0.5), rtol=1e-5)
    np.testing.assert_allclose(metrics['policy/loss'], 0.2**2, rtol=1e-5)
    np.testing.assert_allclose(new.policy, [0.2], rtol=1e-4)  # Adam's first step


@pytest.mark.parametrize('mean', [0.0, 3.0])
def test_steering_that_does_not_vary_is_the_policys_answer_to_that_noise(mean):
    agent = made(noise_bound=1.25)
    state = interpreted(agent.init)(KEY)
    last = {'kernel': jnp.zeros((8, 4)), 'bias': jnp.array([mean, mean, -20.0, -20.0])}
    params = {'network': {'params': state.steering['network']['params'] | {'Dense_1': last}}}
    state = state._replace(steering=params)
    noise = jnp.full((6, 2), 1.25 * np.tanh(mean))
    expected = gaussian_policy(SPEC, (8,)).decode(state.policy, BATCH.observation, noise)
    np.testing.assert_allclose(interpreted(agent.best_action)(state, BATCH.observation, KEY), expected, atol=1e-6)


def test_q_moves_no_policy_and_a_given_one_stays():
    agent, given = made(), made(imitate='nothing')
    state = interpreted(agent.init)(KEY)
    new, _ = interpreted(agent.update)(state, BATCH, KEY)
    worse = state._replace(critic=jax.tree.map(lambda leaf: 2.0 * leaf, state.critic))
    other, _ = interpreted(agent.update)(worse._replace(noise_q=jax.tree.map(jnp.negative, state.noise_q)), BATCH, KEY)
    assert trees_equal(new.policy, other.policy) and not trees_equal(new.policy, state.policy)
    assert not trees_equal(new.steering, other.steering)
    same, metrics = interpreted(given.update)(state, BATCH, KEY)
    assert trees_equal(same.policy, state.policy) and 'policy/loss' not in metrics
    assert trees_equal((same.steering, same.noise_q, same.critic), (new.steering, new.noise_q, new.critic))
    lower = interpreted(made(policy_value='min').update)(state, BATCH, KEY)[0]
    assert not trees_equal(lower.steering, new.steering)


def test_more_steps_of_the_noise_critic_bring_it_nearer():
    agents = [made(noise_steps=num, learning_rate=1e-2) for num in (1, 10)]
    state = interpreted(agents[0].init)(KEY)
    updates = [interpreted(agent.update) for agent in agents]
    losses = [update(update(state, BATCH, KEY)[0], BATCH, jax.random.key(9))[1]['noise_q/loss'] for update in updates]
    assert losses[1] < losses[0]


def test_what_is_steered_is_the_policy_that_acts():
    agent = made(averaged(gaussian_policy(SPEC, (8,)), FROZEN), num_candidates=2)
    state = interpreted(agent.init)(KEY)
    new, _ = interpreted(agent.update)(state, BATCH, KEY)
    frozen = new._replace(policy=new.policy._replace(fitted=jax.tree.map(jnp.zeros_like, new.policy.fitted)))
    np.testing.assert_array_equal(*(interpreted(agent.best_action)(each, BATCH.observation, KEY) for each in (new, frozen)))


def test_a_lagging_copy_follows_the_parameters_from_before():
    base = gaussian_policy(SPEC, (8,))
    for lags, towards in ((True, 0.0), (False, 1.0)):
        policy = averaged(base, 0.5, lags=lags)
        before = jax.tree.map(jnp.zeros_like, interpreted(policy.init)(KEY))
        after = policy.after_update(before, before._replace(fitted=jax.tree.map(jnp.ones_like, before.fitted)))
        np.testing.assert_array_equal(after.slow['log_std'], 0.5 * towards)


@pytest.mark.parametrize(('make', 'sentence'), [
    (lambda: made(autoregressive_policy(SPEC)), 'dsrl steers the noise.*needs a policy with decode and noise_dim'),
    (lambda: made(noise_bound=0.0), 'noise_bound must be greater than 0'),
    (lambda: made(noise_steps=0), 'noise_steps must be greater than 0'),
    (lambda: made(num_candidates=0), 'num_candidates must be greater than 0'),
    (lambda: made(imitate='search'), 'imitate must be one of'),
    (lambda: made(policy_value='first'), 'policy_value must be one of'),
    (lambda: steered(batched(line_task(), 2), lambda o, w: w, noise_dim=2), r'gives actions \(2, 1\); got \(2, 2\)'),
    (lambda: steered(batched(line_task(), 2), lambda o, w: w, noise_dim=1, bound=0.0), 'bound must be greater than 0'),
])  # fmt: skip
def test_what_cannot_be_is_refused_when_built(make, sentence):
    with pytest.raises(UsageError, match=sentence):
        make()


@pytest.mark.parametrize('make', [lambda: batched(line_task(), 2), lambda: host(LineEnv, 2, horizon=HORIZON)])
def test_a_steered_environment_carries_out_what_is_decoded_where_it_stands(make):
    def decode(observation, noise):
        return noise.sum(axis=-1, keepdims=True) / 4 + observation / 8

    environment = steered(make(), decode, noise_dim=2, bound=2.0)
    assert environment.spec == Spec(observation_dim=1, action_dim=2)
    state = collection.start(environment, jax.random.key(0))

    def act(observation, key):
        return jnp.broadcast_to(jnp.array([0.5, 0.25]), (2, 2))

    # The fifth step ends at 2 or behind it: the sixth is decoded at 0 and seen from the seventh.
    _, rows, _ = collection.collect(environment, act, state, jax.random.key(1), 7)
    position, found = 0.0, []
    for _ in range(7):
        found.append(position)
        position += 0.375 + position / 8
        position = 0.0 if position >= 2.0 or len(found) == HORIZON else position
    np.testing.assert_allclose(rows.observation[:, 0, 0], found, rtol=1e-6)
    np.testing.assert_array_equal(rows.action[:, 0], np.broadcast_to([0.5, 0.25], (7, 2)))  # what is stored is the noise


def test_an_agents_draws_can_be_steered_through_its_wrappers():
    policy, noise = gaussian_policy(SPEC, (8,)), jnp.full((6, 2), 0.4)
    plain = bc(SPEC, BCConfig(hidden=(8,)))
    seen = (BATCH.observation - 0.5) / 2.0
    signal = rnd(SPEC, RNDConfig(hidden=(8,), num_features=4))
    agent = normalised_observation(bonus(slow_policy(plain, 0.1), signal, scale=1.0), jnp.full(3, 0.5), jnp.full(3, 2.0))
    state = agent.init(KEY)
    slow = jax.tree.map(lambda leaf: leaf + 0.1, state.agent.agent.slow)
    state = state._replace(agent=state.agent._replace(agent=state.agent.agent._replace(slow=slow)))
    found = agent.decode(state, BATCH.observation, noise)
    np.testing.assert_array_equal(found, policy.decode(slow, seen, noise))
    assert agent.noise_dim == 2 and bc(SPEC, BCConfig(hidden=(8,)), policy=autoregressive_policy(SPEC)).decode is None
