"""A given function as a policy, and what it is refused for."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ooorl.agents.iql import IQLConfig, iql_critic
from ooorl.agents.parl import PARLConfig, parl
from ooorl.agents.td3 import td3
from ooorl.errors import UsageError, told_by_callback
from ooorl.policies.opaque import OpaqueConfig, named_policy, opaque_policy
from ooorl.types import Spec

SPEC = Spec(observation_dim=3, action_dim=2)


def spread(observation, num, seed):
    """Candidates from -1 to 1 along the first action, the observation's first number along the second."""
    first = np.broadcast_to(np.linspace(-1.0, 1.0, num)[:, None], (num, len(observation)))
    return np.stack([first, np.broadcast_to(observation[:, 0], first.shape)], axis=-1)


@pytest.mark.parametrize('shape', [(), (4,), (2, 4)])
def test_actions_are_the_functions(shape):
    policy = opaque_policy(SPEC, spread)
    observation = jax.random.uniform(jax.random.key(0), (*shape, 3))
    action = jax.jit(policy.sample, static_argnums=3)(policy.init(None), observation, jax.random.key(1), 5)
    assert action.shape == (5, *shape, 2)
    np.testing.assert_allclose(action[..., 1], np.broadcast_to(observation[..., 0], (5, *shape)), rtol=1e-6)
    mapped = jax.vmap(lambda key: policy.mode(None, observation, key))(jax.random.split(jax.random.key(2), 3))
    assert mapped.shape == (3, *shape, 2)


def test_policy_and_critic_each_see_the_units_they_were_made_for():
    seen = []

    def policy_of_its_own(observation, num, seed):
        seen.append(observation)
        return np.broadcast_to(np.array([5.0, -0.25], np.float32), (num, len(observation), 2))

    raw = np.array([[1.0, 20.0, -3.0]], np.float32)
    mean, std = np.array([1.0, 10.0, 0.0], np.float32), np.array([2.0, 5.0, 3.0], np.float32)
    units = {'observation_mean': mean, 'observation_std': std, 'action_low': (0.0, -0.5), 'action_high': (10.0, 0.5)}
    policy = opaque_policy(SPEC, policy_of_its_own, **units)
    action = policy.sample(policy.init(None), jnp.asarray((raw - mean) / std), jax.random.key(0), 2)
    np.testing.assert_allclose(seen[-1], raw, rtol=1e-6)
    np.testing.assert_allclose(action, np.broadcast_to([0.0, -0.5], (2, 1, 2)), atol=1e-6)
    for box in ({'action_low': (1.0,)}, {'action_high': (1.0, 1.0, 1.0)}):
        with pytest.raises(UsageError, match='needs action_low below action_high, one number or 2 each'):
            opaque_policy(SPEC, policy_of_its_own, **box)


def test_ranked_by_a_critic_it_acts_better():
    critic = iql_critic(SPEC, IQLConfig(hidden=(8,)))
    config = PARLConfig(imitate='nothing', num_candidates=9, num_kept=9, num_steps=0)
    agent = parl(SPEC, config, critic=critic, policy=opaque_policy(SPEC, spread))
    state, observation = agent.init(jax.random.key(0)), jnp.ones((4, 3)) * jnp.arange(4.0)[:, None] / 4
    best = agent.best_action(state, observation, jax.random.key(1))
    value = agent.q(state, observation, best).mean(axis=0)
    for candidate in spread(np.asarray(observation), 9, 0):
        assert (value >= agent.q(state, observation, jnp.asarray(candidate, jnp.float32)).mean(axis=0) - 1e-6).all()


def raises(observation, num, seed):
    raise ValueError('no camera')


@pytest.mark.parametrize(
    ('function', 'message'),
    [
        (raises, 'no camera'),
        (lambda observation, num, seed: np.zeros((len(observation), 2)), r'gave the shape \(2, 2\)'),
        (lambda observation, num, seed: np.full((num, len(observation), 2), np.nan), 'gave nan'),
        (lambda observation, num, seed: 'left', 'could not convert'),
        (lambda observation, num, seed: sys.exit('asleep'), r"raised SystemExit\('asleep'\)"),
        (lambda observation, num, seed: np.zeros((num, len(observation), 2), complex), 'of type complex128'),
    ],
)
def test_wrong_answers_are_refused_when_built(function, message):
    with pytest.raises(UsageError, match=message):
        opaque_policy(SPEC, function)


def test_wrong_answers_later_say_the_same():
    def fickle(observation, num, seed):
        return spread(observation, num, seed) if not observation.any() else np.full((num, len(observation), 2), np.inf)

    policy = opaque_policy(SPEC, fickle)
    with pytest.raises(jax.errors.JaxRuntimeError, match='finite numbers; it gave inf') as caught:
        policy.mode(None, jnp.ones((1, 3)), jax.random.key(0)).block_until_ready()
    sentence = told_by_callback(caught.value)
    assert sentence.startswith('a given policy must answer') and sentence.endswith('it gave inf; mend it')
    assert told_by_callback(ValueError('of another kind')) is None


def test_names_and_agents_that_do_not_fit():
    with pytest.raises(UsageError, match='module:function'):
        named_policy(SPEC, OpaqueConfig(function='nowhere:at_all'))
    with pytest.raises(UsageError, match='decode'):
        td3(SPEC, policy=opaque_policy(SPEC, spread))
