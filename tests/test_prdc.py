"""PRDC: its search against a plain one, and what its policy imitates."""

import jax
import numpy as np
import pytest
from small import random_batch

from ooorl.agents.prdc import nearest_action, prdc
from ooorl.agents.td3 import TD3Config, td3
from ooorl.errors import UsageError
from ooorl.types import Spec

SPEC = Spec(observation_dim=3, action_dim=2)


@pytest.mark.parametrize('chunk', [7, 20, 50])
def test_the_search_finds_the_nearest_pair(chunk):
    data, queries = random_batch(jax.random.key(0), 50), random_batch(jax.random.key(1), 9)
    found = nearest_action(data.observation, data.action, beta=2.0, chunk=chunk)(queries.observation, None, queries.action)
    far_state = ((queries.observation[:, None] - data.observation[None]) ** 2).sum(axis=-1)
    far_action = ((queries.action[:, None] - data.action[None]) ** 2).sum(axis=-1)
    expected = data.action[(4.0 * far_state + far_action).argmin(axis=-1)]
    np.testing.assert_array_equal(found, expected)


def test_with_the_batch_state_alone_decisive_prdc_is_td3_bc():
    # A large beta makes the state decide, and the batch is the data: the nearest row is the row itself.
    batch, config = random_batch(jax.random.key(0), 6), TD3Config(hidden=(8,), q_normalisation=2.5, cloning_weight=1.0)
    agents = (td3(SPEC, config), prdc(SPEC, config, observation=batch.observation, action=batch.action, beta=100.0))
    (plain, plain_metrics), (near, metrics) = (
        jax.jit(a.update)(jax.jit(a.init)(jax.random.key(1)), batch, jax.random.key(2)) for a in agents
    )
    np.testing.assert_allclose(metrics['policy/cloning'], plain_metrics['policy/cloning'], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), near, plain)


def test_thinning_and_bad_data():
    batch = random_batch(jax.random.key(0), 6)
    prdc(SPEC, observation=batch.observation, action=batch.action, max_rows=4)
    with pytest.raises(UsageError, match='needs observations'):
        prdc(SPEC, observation=batch.observation[:, :2], action=batch.action)
    with pytest.raises(UsageError, match='beta'):
        prdc(SPEC, observation=batch.observation, action=batch.action, beta=0.0)
