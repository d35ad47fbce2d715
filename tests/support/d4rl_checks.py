"""What the tests of D4RL's environments and data share: recorded material, replays, scores."""

import importlib.util
import os
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import ooorl.envs.d4rl as d4rl

_HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get('OOORL_SHARED_DATA', _HERE.parent.parent.parent / 'shared' / 'data'))

needs_robotics = pytest.mark.skipif(
    importlib.util.find_spec('gymnasium_robotics') is None,
    reason="gymnasium-robotics is not installed: pip install 'ooorl[robotics]'",
)
needs_ogbench = pytest.mark.skipif(importlib.util.find_spec('ogbench') is None, reason='ogbench is not installed')


def recorded(name):
    """The path of recorded material; skips where it is absent."""
    if not (DATA / name).is_file():
        pytest.skip(f'no {DATA / name}; set OOORL_SHARED_DATA to the folder of the recorded material')
    return DATA / name


def read(name, keys, rows=None):
    """Columns of a recorded HDF5 file."""
    h5py = pytest.importorskip('h5py')
    with h5py.File(recorded(name)) as file:
        return [file[key][:rows] for key in keys]


def policy(name):
    """A trained policy."""
    from ooorl.data.policies_npz import load_policy

    return load_policy(recorded(f'policies/{name}.npz'))


def make(name):
    """An environment by its id, with its time limit."""
    d4rl.register()
    return gymnasium.make(name)


def registered(name):
    """What an environment is registered as."""
    d4rl.register()
    return gymnasium.spec(name)


def mean_return(env, act, num_episodes, first_seed=0):
    """`(mean return, share of episodes that ended in success)` over seeds in a row."""
    returns, successes = [], []
    for episode in range(num_episodes):
        observation, _ = env.reset(seed=first_seed + episode)
        total, done = 0.0, False
        while not done:
            action = np.asarray(act(observation), np.float32)
            observation, reward, terminated, truncated, info = env.step(action)
            total, done = total + float(reward), terminated or truncated
        returns.append(total)
        successes.append(info.get('success', False))
    return float(np.mean(returns)), float(np.mean(successes))


def replay_errors(env, observations, actions, ends, num_positions):
    """`[n, O]` one-step errors: set each recorded state, act, compare with the next row."""
    errors = []
    for row in np.flatnonzero(~ends[:-1]):
        state = observations[row].astype(np.float64)
        env.set_state(state[:num_positions], state[num_positions:])
        errors.append(np.abs(env.step(actions[row])[0] - observations[row + 1]))
    return np.array(errors)
