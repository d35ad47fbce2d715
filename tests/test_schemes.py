"""Configs of schemes and agents that few other tests name, run to their end in memory."""

import numpy as np

from ooorl import run as running
from ooorl.prepare import prepare

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
