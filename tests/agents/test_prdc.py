"""PRDC: its search against a plain one, and what its policy imitates."""

import jax
import numpy as np
import pytest
from small import random_batch

from ooorl.agents.prdc import PRDCConfig, nearest_action, prdc
from ooorl.agents.td3 import TD3Config, td3
from ooorl.errors import UsageError
from ooorl.interpreted import interpreted
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
    batch = random_batch(jax.random.key(0), 6)
    config = {'hidden': (8,), 'q_normalisation': 2.5, 'cloning_weight': 1.0, 'cloning_reduce': 'sum'}
    near_config = PRDCConfig(**config, beta=100.0)
    agents = (td3(SPEC, TD3Config(**config)), prdc(SPEC, near_config, observation=batch.observation, action=batch.action))
    (plain, plain_metrics), (near, metrics) = (
        a.update(a.init(jax.random.key(1)), batch, jax.random.key(2)) for a in agents
    )
    np.testing.assert_allclose(metrics['policy/cloning'], plain_metrics['policy/cloning'], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), near, plain)


def test_the_weight_of_states_and_thinning_change_what_is_imitated():
    data, batch = (random_batch(jax.random.key(seed), 40) for seed in range(2))

    def cloning(stride=1, **settings):
        given = {'observation': data.observation[::stride], 'action': data.action[::stride]}
        agent = prdc(SPEC, PRDCConfig(hidden=(8,), **settings), **given)
        state = interpreted(agent.init)(jax.random.key(1))
        return float(interpreted(agent.update)(state, batch, jax.random.key(2))[1]['policy/cloning'])

    # Where the action alone decides, the nearest is nearer; of fewer rows it is farther.
    assert cloning(beta=1e-3) < cloning() < cloning(beta=1e-3, max_rows=2)
    assert cloning(max_rows=4) == cloning(stride=10)  # rows keep their actions


def test_thinning_and_bad_data():
    batch = random_batch(jax.random.key(0), 6)
    prdc(SPEC, PRDCConfig(max_rows=4), observation=batch.observation, action=batch.action)
    with pytest.raises(UsageError, match='needs observations'):
        prdc(SPEC, observation=batch.observation[:, :2], action=batch.action)
    with pytest.raises(UsageError, match='needs observations'):
        prdc(SPEC, observation=batch.observation[:0], action=batch.action[:0])
    for wrong in ({'beta': 0.0}, {'max_rows': 0}, {'gamma': 2.0}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            PRDCConfig(**wrong)
