"""What a fitted policy knows of episodes it has not seen: nothing lost where states decide, much where episodes do."""

import numpy as np
import pytest

from ooorl.errors import UsageError
from ooorl.runner.fitted_gap import fitted_gap, line
from ooorl.types import Transition


def episodes(action):
    """Ten episodes of 40 steps on their own part of the line each; `action` `[10, 40]`."""
    state = (np.arange(10)[:, None] + np.linspace(0, 0.9, 40)).reshape(-1, 1).astype(np.float32)
    boundary = (np.arange(400) % 40 == 39).astype(np.float32)
    return Transition(state, action.reshape(-1, 1).astype(np.float32), np.zeros(400), np.ones(400), state, {'boundary': boundary})


def test_a_policy_loses_what_only_its_own_episodes_told():
    rng = np.random.default_rng(0)
    same = fitted_gap(episodes(rng.normal(0, 0.3, (10, 40))), num_updates=600, hidden=(16,), splits=3)
    of_its_own = rng.permutation(np.tile([-0.8, 0.8], 5))[:, None] + rng.normal(0, 0.3, (10, 40))  # a whim of each episode
    own = fitted_gap(episodes(of_its_own), num_updates=600, hidden=(16,), splits=3)
    assert abs(same.gap) < 0.15 < own.gap and len(own.held_out) == 3
    assert own.gap == pytest.approx(np.mean(own.held_out) - np.mean(own.own))
    assert 'nats an action entry on its own episodes' in line(own)


def test_one_episode_cannot_be_held_out():
    one = episodes(np.zeros((10, 40)))
    one = one._replace(extras={'boundary': np.zeros(400)})
    with pytest.raises(UsageError, match='needs two at least; the data have 1'):
        fitted_gap(one)
