"""Adjoint matching, in numbers worked out by hand and where there is nothing to tilt."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import FROZEN, random_batch, trees_equal

from ooorl.agents.qam import QAMConfig, chain_noise, lean_adjoint, qam
from ooorl.errors import UsageError
from ooorl.interpreted import interpreted
from ooorl.policies.flow import FlowConfig, flow_policy
from ooorl.types import Spec

SPEC, KEY = Spec(observation_dim=3, action_dim=2), jax.random.key(2)
BATCH = random_batch(jax.random.key(1), 6)


def made(**settings):
    return qam(SPEC, QAMConfig(**{'hidden': (8,), 'num_critics': 2, 'num_steps': 3} | settings))


def test_noise_and_adjoint_by_hand():
    time, sigma = chain_noise(10)
    np.testing.assert_allclose(sigma[[0, 5, 9]], [4.690416, 1.414214, 0.632456], rtol=1e-6)
    np.testing.assert_allclose(time[[0, 5, 9]], [0.0, 0.5, 0.9], atol=1e-12)
    # The slow field c - x, wherever the chain is; three times a slope of .5 in Q.
    found = lean_adjoint(lambda x, time: 0.4 - x, jnp.linspace(-1.0, 1.0, 10)[:, None, None], jnp.full((1, 1), -1.5))
    by_hand = [0.001878, -0.009388, -0.031294, -0.067058, -0.121923, -0.203205, -0.32085, -0.48825, -0.723333, -1.05]
    np.testing.assert_allclose(found[:, 0, 0], by_hand, atol=1e-6)


def test_without_a_tilt_the_slow_field_is_the_minimum():
    agent = made(inverse_temperature=0.0)
    state = interpreted(agent.init)(KEY)
    same = state._replace(fast=state.policy.slow)
    new, metrics = interpreted(agent.update)(same, BATCH, KEY)
    np.testing.assert_allclose(metrics['fast/loss'], 0.0, atol=1e-10)
    assert trees_equal(new.fast, same.fast)
    _, apart = interpreted(agent.update)(state, BATCH, KEY)
    _, tilted = interpreted(made(inverse_temperature=5.0).update)(same, BATCH, KEY)
    assert apart['fast/loss'] > 1e-3 and tilted['fast/loss'] > 1e-3


def test_the_tilt_goes_up_in_q_and_moves_fast_alone():
    agent = made(inverse_temperature=100.0, learning_rate=1e-2, num_steps=4, polyak=FROZEN)
    state = interpreted(agent.init)(KEY)
    state = state._replace(fast=state.policy.slow, target_q=state.q)
    update, new = interpreted(agent.update), state
    for number in range(20):
        new, _ = update(new._replace(q=state.q, policy=state.policy), BATCH, jax.random.key(number))
    assert trees_equal(new.target_q, state.target_q)
    before, after = (interpreted(agent.best_action)(each, BATCH.observation, KEY) for each in (state, new))
    assert (agent.q(state, BATCH.observation, after) - interpreted(agent.q)(state, BATCH.observation, before)).mean() > 0


def test_one_clip_for_all_gradients():
    agent, state = made(), interpreted(made().init)(KEY)
    scaled = BATCH._replace(reward=1e6 * BATCH.reward)
    # Where Q's error takes all of the norm, the other networks hardly step; Adam's moments show it.
    moments = [jax.tree.leaves(interpreted(agent.update)(state, batch, KEY)[0].opt)[1:] for batch in (BATCH, scaled)]
    norms = [np.sqrt(sum(float((leaf**2).sum()) for leaf in leaves if leaf.dtype == jnp.float32)) for leaves in moments]
    assert all(norm < 0.2 for norm in norms)  # a tenth of at most 1, and squares


def test_the_best_of_several_draws_is_taken():
    agent, state = made(num_candidates=5), interpreted(made().init)(KEY)
    flow = flow_policy(SPEC, FlowConfig(hidden=(8,), num_steps=3))
    noise = interpreted(jax.random.normal, static_argnums=1)(KEY, (5, 6, 2))
    draws = interpreted(flow.decode)(state.fast, BATCH.observation, noise)
    values = jnp.stack([interpreted(agent.q)(state, BATCH.observation, action).mean(axis=0) for action in draws])
    best = interpreted(agent.best_action)(state, BATCH.observation, KEY)
    np.testing.assert_array_equal(best, draws[values.argmax(axis=0), jnp.arange(6)])


@pytest.mark.parametrize(('settings', 'sentence'), [
    ({'inverse_temperature': -1.0}, 'inverse_temperature must be 0 or more'),
    ({'max_norm': 0.0}, 'max_norm must be greater than 0'),
    ({'schedule_of': 'critic'}, 'one optimiser for all networks'),
    ({'num_steps': 1}, 'at least two steps'),
    ({'num_candidates': 0}, 'num_candidates'),
])  # fmt: skip
def test_settings_that_make_no_sense_are_refused(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        QAMConfig(**settings)
