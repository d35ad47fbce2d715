"""Prior data as targets of exploration: what becomes of each source's rows, and the limits that leave the agent as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import random_batch

from ooorl.agents.prior_data import PriorDataConfig, prior_data
from ooorl.agents.sac import SACConfig, sac
from ooorl.interpreted import interpreted
from ooorl.runner.prepare import prepare
from ooorl.training import run as running
from ooorl.types import Spec

SPEC = Spec(observation_dim=3, action_dim=2)
SMALL = {'hidden': (16,), 'num_features': 4, 'learning_rate': 1e-2}
SOURCE = jnp.array([0.0, 1.0] * 4)
SAC = sac(SPEC, SACConfig(hidden=(8,)))


def batch(seed=0):
    return random_batch(jax.random.key(seed), 8, source=SOURCE)


def test_stored_labels_and_no_bonus_leave_the_agent_alone():
    agent = prior_data(SAC, SPEC, PriorDataConfig(**SMALL, label='gt', scale=0.0))
    state, key = interpreted(agent.init)(jax.random.key(0)), jax.random.key(1)
    own, _ = interpreted(agent.update)(state, batch(), key)
    alone, _ = interpreted(SAC.update)(state.agent, batch(), key)
    for one, other in zip(jax.tree.leaves(own.agent), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert agent.reads == ('source',)


def test_online_rows_keep_what_they_earned_and_others_get_what_those_teach():
    agent = prior_data(SAC, SPEC, PriorDataConfig(**SMALL))
    state, rows = interpreted(agent.init)(jax.random.key(0)), batch()
    # Each row of the data is one that was lived online, too.
    rows = rows._replace(observation=jnp.repeat(rows.observation[::2], 2, axis=0), action=jnp.repeat(rows.action[::2], 2, axis=0))
    taught = rows._replace(reward=jnp.where(SOURCE > 0, 2.0, -50.0), discount=SOURCE)

    @jax.jit
    def train(state):
        keys = jax.random.split(jax.random.key(2), 300)
        return jax.lax.scan(lambda s, key: (agent.update(s, taught, key)[0], None), state, keys)[0]

    seen, fresh = agent.sees(train(state), taught), agent.sees(state, taught)
    online, old = np.asarray(SOURCE) > 0, np.asarray(SOURCE) == 0
    np.testing.assert_array_equal(seen.reward[online], 2.0)
    np.testing.assert_allclose(seen.reward[old], 2.0, atol=0.2)  # and not -50, which only the data say
    assert (seen.discount[old] > 0.7).all() and (seen.discount[online] == 1.0).all()
    assert (seen.extras['bonus'][online] == 0.0).all() and (seen.extras['bonus'][old] > 0.0).all()
    assert seen.extras['bonus'][old].mean() != fresh.extras['bonus'][old].mean()


def test_the_smallest_reward_seen_online():
    agent = prior_data(SAC, SPEC, PriorDataConfig(**SMALL, label='min'))
    rows = batch()._replace(reward=jnp.arange(8.0) - 3.0)
    state, _ = interpreted(agent.update)(interpreted(agent.init)(jax.random.key(0)), rows, jax.random.key(1))
    assert state.lowest == -2.0  # of rows 1, 3, 5 and 7
    np.testing.assert_array_equal(agent.sees(state, rows).reward[::2], -2.0)


def test_as_a_table_of_an_online_run_with_a_data_set():
    setup = prepare({
        'run': {'scheme': 'online', 'updates_per_round': 4},
        'environment': {'id': 'ooorl/UMaze-v0', 'num_envs': 2, 'settings': {'horizon': 7}},
        'evaluation': {'num_episodes': 0},
        'dataset': {'scripted': 'u_maze', 'settings': {'num_episodes': 4}},
        'online': {'random_steps': 8, 'num_env_steps': 8, 'num_updates': 4},
        'agent': {
            'agent': 'sac', 'hidden': [8], 'sampling': {'batch_size': 4, 'mix': {'dataset': 0.5, 'online': 0.5}},
            'prior': {'hidden': [8], 'num_features': 4},
        },
    }).setup  # fmt: skip
    rows = []
    running.run(setup, report=lambda event: rows.extend(event.rows))
    (row,) = (row for row in rows if row['kind'] == 'train')
    assert row['finite'] == 1.0 and row['prior/mask'] > 0.0
    assert pytest.approx(0.5) == next(row['mix/online'] for row in rows if row['kind'] == 'diagnostics')
