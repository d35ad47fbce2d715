"""Every seam takes a second thing of its kind."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from small import random_batch
from test_wrap import IQL, KEY, SPEC, constant_signal

from ooorl.agents.bc import BCConfig, bc
from ooorl.agents.iql import iql
from ooorl.interpreted import interpreted
from ooorl.training import replay
from ooorl.training.learn import make_learn
from ooorl.training.sampling import Sampling
from ooorl.types import Agent, Critic, Policy, ValueHead
from ooorl.wrap import bonus, normalised_observation, reranked, rescaled_reward, terminal_at_reward, value_bounds


def uniform_policy() -> Policy:
    """A second policy: uniform draws, fitted to nothing."""

    def sample(params, observation, key, num):
        del params
        return jax.random.uniform(key, (num, *observation.shape[:-1], SPEC.action_dim), minval=-1.0, maxval=1.0)

    def loss(params, observation, action, key):
        del observation, key
        return (action**2).sum(axis=-1) * (1.0 + 0.0 * params['unused'])

    return Policy(
        init=lambda key: {'unused': jnp.zeros(())},
        sample=sample,
        mode=lambda params, observation, key: jnp.zeros((*observation.shape[:-1], SPEC.action_dim)),
        loss=loss,
    )


def tabular_critic() -> Critic:
    """A second critic: Q(s, a) is the sum of a, twice."""

    def q(state, observation, action):
        del state, observation
        return jnp.stack([action.sum(axis=-1)] * 2)

    return Critic(init=lambda key: (), update=lambda state, batch, key, sampler: (state, {}), q=q, target_q=q)


def cubic_head() -> ValueHead:
    """A second value head: the value is the cube of the raw output."""

    def value(raw):
        return raw[..., 0] ** 3

    def loss(raw, target):
        return (value(raw) - jnp.broadcast_to(target, raw.shape[:-1])) ** 2

    return ValueHead(num_outputs=1, value=value, loss=loss)


class ConstantState(NamedTuple):
    action: jax.Array


def constant_agent(spec) -> Agent:
    """A second agent: one action, drawn once and never changed."""

    def act(state, observation, key):
        del key
        return jnp.broadcast_to(state.action, (*observation.shape[:-1], spec.action_dim))

    return Agent(
        init=lambda key: ConstantState(jax.random.uniform(key, (1, spec.action_dim))),
        update=lambda state, batch, key: (state, {'reward': batch.reward.mean()}),
        sample_action=act,
        best_action=act,
    )


def test_reranking_takes_the_best_of_the_candidates():
    policy = uniform_policy()
    agent = bc(SPEC, BCConfig(), policy=policy)
    critic = tabular_critic()
    best = reranked(agent, lambda state, obs, action: critic.q(None, obs, action).min(axis=0), num_candidates=50)
    observation = jnp.ones((7, 3))
    state = interpreted(agent.init)(KEY)
    action = interpreted(best.best_action)(state, observation, KEY)
    keys = jax.random.split(KEY, 50)
    candidates = np.stack([interpreted(agent.sample_action)(state, observation, key) for key in keys])
    index = candidates.sum(axis=-1).argmax(axis=0)
    np.testing.assert_array_equal(action, candidates[index, np.arange(7)])
    assert interpreted(best.best_action)(state, observation[0], KEY).shape == (2,)
    one = reranked(agent, lambda state, obs, action: action[..., 0], num_candidates=1)
    key = jax.random.split(KEY, 1)[0]
    drawn = interpreted(agent.sample_action)(state, observation, key)
    np.testing.assert_array_equal(interpreted(one.best_action)(state, observation, KEY), drawn)
    assert best.update is agent.update and best.sample_action is agent.sample_action


def test_a_policy_and_a_value_head_of_ones_own_fit_an_agent_that_knows_neither():
    agent = iql(SPEC, IQL, policy=uniform_policy(), head=cubic_head())
    state, metrics = interpreted(agent.update)(interpreted(agent.init)(KEY), random_batch(KEY, 8), KEY)
    assert all(np.isfinite(value) for value in metrics.values())
    assert interpreted(agent.best_action)(state, jnp.ones((4, 3)), KEY).shape == (4, 2)


def test_an_agent_of_ones_own_passes_through_every_wrapper_and_the_training_loop():
    agent = constant_agent(SPEC)
    for wrap in (
        lambda a: bonus(a, constant_signal(), scale=1.0),
        lambda a: value_bounds(a, gamma=0.9),
        lambda a: rescaled_reward(a, scale=3.0),
        lambda a: terminal_at_reward(a, reward=1.0),
        lambda a: normalised_observation(a, np.zeros(3), np.ones(3)),
        lambda a: reranked(a, lambda state, obs, action: action[..., 0], num_candidates=3),
    ):
        agent = wrap(agent)
    data = replay.full(random_batch(KEY, 12, boundary=jnp.ones(12)))
    learn = interpreted(make_learn(agent, Sampling(batch_size=12), num_updates=2, streams={'dataset': 1}))
    state, metrics = learn(interpreted(agent.init)(KEY), {'dataset': data}, KEY)
    assert set(metrics) == {'reward', 'bonus/mean'}
    assert interpreted(agent.best_action)(state, jnp.ones((5, 3)), KEY).shape == (5, 2)
