"""Configs of schemes and agents that few other tests name, run to their end in memory."""

import jax
import numpy as np
import pytest
from reused import reused_data  # noqa: F401
from small import random_batch

from ooorl import wrap
from ooorl.agents.prdc import PRDCConfig, prdc
from ooorl.errors import UsageError
from ooorl.interpreted import interpreted
from ooorl.runner import build, config
from ooorl.runner.prepare import prepare
from ooorl.training import run as running
from ooorl.types import Spec

RLPD = {'agent': 'sac', 'hidden': [8], 'sampling': {'batch_size': 8, 'mix': {'online': 1.0}}}
COUNTS = {'signal': 'counts', 'low': [-1.0, -1.0], 'high': [4.0, 4.0], 'observation_bins': [4, 4], 'action_bins': [2, 2]}
FROM_NOTHING = {
    'run': {'scheme': 'ooo', 'seeds': '0:1', 'updates_per_round': 6},
    'environment': {'id': 'ooorl/UMaze-v0', 'num_envs': 2, 'settings': {'horizon': 7}},
    'evaluation': {'num_episodes': 0},
    'ooo': {
        'pretrain_updates': 0, 'random_steps': 8, 'num_env_steps': 12, 'explore_updates': 6, 'retrain_updates': 4,
        'retrain_at': [8, 20], 'retrain_without_bonus': True,
    },
    'explore': {**RLPD, 'bonus': {**COUNTS, 'scale': 1.0}},
    'exploit': RLPD,
}  # fmt: skip


def test_ooo_from_nothing_but_random_steps():
    setup = prepare(FROM_NOTHING).setup
    names = ['random', 'explore', 'retrain@8', 'retrain@20', 'plain-random', 'plain-explore', 'plain-retrain@20']
    assert [phase.name for phase in setup.phases] == names
    state = running.run(setup)
    rows = {name: store.storage for name, store in state.stores.items()}
    assert {name: store.size.tolist() for name, store in state.stores.items()} == {'online': [20], 'plain': [20]}
    assert not np.array_equal(rows['online'].action[:, :8], rows['plain'].action[:, :8])
    # The explorer has counted the random rows and its own.
    assert float(state.finished['explore'].signal.visits.sum()) == 20.0


SMALL = {'hidden': [8], 'sampling': {'batch_size': 8}, 'normalise_observation': True}


@pytest.mark.parametrize('agent', [
    {'agent': 'odice', 'policy_hidden': [8], 'bounds': {}},
    {'agent': 'prdc', 'max_rows': 50},
    {'agent': 'td3', 'cloning_weight': 0.1, 'critic_cloning_weight': 0.1, 'schedule': 'cosine'},
])  # fmt: skip
def test_agents_that_hold_to_the_data_are_named_and_fine_tuned(agent):
    setup = prepare({
        'run': {'scheme': 'finetune', 'updates_per_round': 4},
        'environment': {'id': 'ooorl/UMaze-v0', 'num_envs': 2, 'settings': {'horizon': 7}},
        'evaluation': {'num_episodes': 2},
        'dataset': {'scripted': 'u_maze', 'settings': {'num_episodes': 4}},
        'finetune': {'offline_updates': 4, 'num_env_steps': 8, 'num_updates': 4},
        'agent': {**SMALL, **agent},
    }).setup  # fmt: skip
    rows = []
    running.run(setup, report=lambda event: rows.extend(event.rows))
    assert [row['phase'] for row in rows if row['kind'] == 'eval'] == ['offline', 'finetune']
    assert all(np.isfinite(row['policy/loss']) for row in rows if row['kind'] == 'train')


def test_prdc_searches_observations_as_the_agent_sees_them():
    spec, data = Spec(observation_dim=3, action_dim=2), random_batch(jax.random.key(0), 12)
    table = config.resolve({'run': {'scheme': 'offline'}, 'agent': {'agent': 'prdc', **SMALL}})['agent']
    seen = np.asarray(data.observation)
    mean, std = seen.mean(axis=0), seen.std(axis=0) + 1e-3
    by_hand = prdc(spec, PRDCConfig(hidden=(8,)), observation=(seen - mean) / std, action=data.action)
    raw = prdc(spec, PRDCConfig(hidden=(8,)), observation=data.observation, action=data.action)
    agents = (build.build_agent(table, spec, data), *(wrap.normalised_observation(a, mean, std) for a in (by_hand, raw)))
    queries = random_batch(jax.random.key(1), 12)
    cloning = [
        float(interpreted(a.update)(interpreted(a.init)(jax.random.key(2)), queries, jax.random.key(3))[1]['policy/cloning'])
        for a in agents
    ]
    np.testing.assert_allclose(cloning[0], cloning[1], rtol=1e-5)
    assert abs(cloning[0] - cloning[2]) > 1e-3


@pytest.mark.parametrize('normalise', [False, True])
def test_prdc_needs_a_data_set(normalise):
    agent = {'agent': 'prdc', 'normalise_observation': normalise}
    with pytest.raises(UsageError, match='prdc searches a data set for its nearest actions; none was given; name one in'):
        prepare({'run': {'scheme': 'online'}, 'environment': {'id': 'ooorl/UMaze-v0'}, 'agent': agent})
