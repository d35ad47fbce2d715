"""What a window that does not count teaches: nothing, to any agent or policy that says so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import random_batch, trees_equal

from ooorl.agents.calql import CalQLConfig, CalQLCriticConfig, calql, calql_critic
from ooorl.agents.odice import ODICEConfig, odice
from ooorl.agents.parl import PARLConfig, parl
from ooorl.agents.sac import SACConfig, sac
from ooorl.agents.td3 import TD3Config, td3
from ooorl.interpreted import interpreted
from ooorl.nn import schedules
from ooorl.policies.autoregressive import AutoregressiveConfig, autoregressive_policy
from ooorl.policies.diffusion import DiffusionConfig, diffusion_policy
from ooorl.policies.flow import FlowConfig, flow_policy
from ooorl.policies.gaussian import deterministic_policy, gaussian_policy, tanh_gaussian_policy
from ooorl.types import Spec

SPEC, WIDE = Spec(observation_dim=3, action_dim=2), Spec(observation_dim=3, action_dim=4)


def small_parl(**settings):
    search = PARLConfig(num_candidates=3, num_kept=2, num_steps=1, **settings)
    critic = calql_critic(SPEC, CalQLCriticConfig(critic_hidden=(8,), num_actions=2))
    return parl(SPEC, search, critic=critic, policy=gaussian_policy(SPEC, (8,)))


# Agents whose policies climb Q read the observations of all rows; nobody reads the rest of a row of weight 0.
HEEDING = {
    'td3': lambda: td3(SPEC, TD3Config(hidden=(8,), cloning_weight=1.0, policy_delay=1)),
    'sac': lambda: sac(SPEC, SACConfig(hidden=(8,))),
    'calql': lambda: calql(SPEC, CalQLConfig(hidden=(8,), critic_hidden=(8,), num_actions=2, target_gap=0.8)),
    'odice': lambda: odice(SPEC, ODICEConfig(hidden=(8,), policy_hidden=(8,))),
    'parl': small_parl,
    'parl, cloning': lambda: small_parl(imitate='data'),
}


@pytest.mark.parametrize('name', HEEDING)
def test_what_was_done_in_rows_of_weight_zero_is_never_learnt(name):
    agent = HEEDING[name]()
    assert agent.weighs
    weight = jnp.where(jnp.arange(12) < 6, 1.0, 0.0)
    batch = random_batch(jax.random.key(0), 12, return_to_go=jnp.ones(12), weight=weight)
    noise = random_batch(jax.random.key(5), 12, **batch.extras | {'return_to_go': jnp.zeros(12)})
    other = jax.tree.map(lambda a, b: a.at[6:].set(b[6:]), batch, noise)._replace(observation=batch.observation)
    state = schedules.begin(interpreted(agent.init)(jax.random.key(1)), 1)
    found = [interpreted(agent.update)(state, rows, jax.random.key(2))[0] for rows in (batch, other)]
    assert trees_equal(found[0], found[1])
    weighed, plain = (
        interpreted(agent.update)(state, batch._replace(extras=extras), jax.random.key(2))[0]
        for extras in (batch.extras | {'weight': jnp.ones(12)}, {'return_to_go': jnp.ones(12)})
    )
    assert trees_equal(weighed, plain) and not trees_equal(plain, found[0])


POLICIES = {
    'gaussian': lambda spec: gaussian_policy(spec, (8,)),
    'tanh_gaussian': lambda spec: tanh_gaussian_policy(spec, (8,)),
    'deterministic': lambda spec: deterministic_policy(spec, (8,)),
    'flow': lambda spec: flow_policy(spec, FlowConfig(hidden=(8,), num_steps=2, ema_rate=0.1)),
    'diffusion': lambda spec: diffusion_policy(spec, DiffusionConfig(hidden=(8,), num_steps=2)),
    'tokens': lambda spec: autoregressive_policy(spec, AutoregressiveConfig(num_bins=3, num_layers=1, num_heads=1, width=8)),
}


@pytest.mark.parametrize('name', POLICIES)
def test_only_what_is_known_of_an_action_is_imitated(name):
    policy = POLICIES[name](WIDE)
    params, batch = interpreted(policy.init)(jax.random.key(0)), random_batch(jax.random.key(1), 5, action_dim=4)
    first = jnp.broadcast_to(jnp.array([1.0, 1.0, 0.0, 0.0]), (5, 4))
    every, known, rest, none = (
        interpreted(policy.loss)(params, batch.observation, batch.action, jax.random.key(2), mask)
        for mask in (jnp.ones((5, 4)), first, 1 - first, jnp.zeros((5, 4)))
    )
    assert policy.masks and (none == 0).all() and (known != 0).any()
    plain = interpreted(policy.loss)(params, batch.observation, batch.action, jax.random.key(2))
    np.testing.assert_allclose(plain, every, rtol=1e-6)
    np.testing.assert_allclose(known + rest, every, rtol=1e-5, atol=1e-5)
