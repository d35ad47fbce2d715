"""The MuJoCo tasks in which something can be lost, played by hand."""

import gymnasium
import jax
import numpy as np
import pytest

from ooorl.envs import make
from ooorl.envs.one_way import FLIPPED, IRREVERSIBLE, TABLE, is_flipped, is_lost

pytest.importorskip('mujoco')


class Hand:
    """The peg task with a hand that goes to places."""

    def __init__(self, seed):
        self.env = gymnasium.make('ooorl/PegSmallTable-v0', max_episode_steps=1000)
        self.seen, self.lost = self.env.reset(seed=seed)[0], []

    def go(self, place, grip, steps=60):
        """Moves to a place, or as far as so many steps bring it; returns the last reward."""
        for _ in range(steps):
            move = np.clip((place - self.seen[:3]) / 0.01, -1, 1)
            self.seen, reward, *_, info = self.env.step(np.append(move, grip))
            self.lost.append(info['irreversible'])
        return reward

    def lift(self):
        """Grasps the peg and lifts it; returns the hand's place as seen from the peg's head."""
        env = self.env.unwrapped
        grasp = env.data.site_xpos[env._grasp].copy()
        self.go(grasp + [0, 0, 0.1], -1)
        self.go(grasp + [0, 0, 0.03], -1, 10)
        self.go(self.seen[:3], 1, 2)
        beside = self.seen[:3] - self.seen[4:7]
        self.go(self.seen[:3] + [0, 0, 0.1], 1, 15)
        return beside


def test_the_peg_goes_into_the_hole():
    hand = Hand(0)
    assert hand.seen.shape == (14,) and hand.seen[7:].tolist() == [0, 0.6, 0.2, 1, -0.27, 0.6, 0.13]
    beside = hand.lift()
    assert hand.seen[3] == 0 and hand.seen[6] > 0.1  # closed, and the head went up with it
    hand.go(np.array([0.0, 0.6, 0.13]) + beside, 1, 30)
    assert hand.go(np.array([-0.27, 0.6, 0.13]) + beside, 1, 40) == 1.0 and not any(hand.lost)


def test_a_peg_let_go_beyond_the_table_is_lost_for_good():
    hand = Hand(1)
    hand.lift()
    hand.go(np.array([0.3, 0.95, 0.2]), 1, 40)
    assert not any(hand.lost)  # carried beyond the edge is not lost yet
    hand.go(hand.seen[:3], -1, 20)
    assert hand.lost[-1]
    hand.go(np.array([0.2, 0.95, 0.05]), 1, 20)
    lost = np.array(hand.lost)
    assert IRREVERSIBLE['ooorl/PegSmallTable-v0'].absorbing and not (lost[:-1] & ~lost[1:]).any()
    assert is_lost(np.array([[0, 0, 0, 0, 0, 0, -0.01], [0, 0, 0, 0, 0, 0, 0.0]])).tolist() == [True, False]


def test_the_half_cheetah_flips_and_sometimes_comes_back():
    env, rng = gymnasium.make('ooorl/HalfCheetahFlip-v0'), np.random.default_rng(0)
    first, _ = env.reset(seed=0)
    bad, targets = [], []
    for _ in range(2000):
        action = rng.choice([-1.0, 1.0], 6)
        seen, reward, *_, info = env.step(action)
        bad.append(info['irreversible'])
        targets.append(seen[18])
        # 0.95 (8 - |v - v*|) / 8 at full effort, where |a|^2 is 6; the target of the reward is the one seen before.
        before = first[18] if len(targets) == 1 else targets[-2]
        assert reward == pytest.approx(0.95 * (8 - abs(seen[17] - before)) / 8)
    bad = np.array(bad)
    assert first.shape == (19,) and set(targets) <= set(range(3, 9)) and len(set(targets[:499])) == 1
    assert not IRREVERSIBLE['ooorl/HalfCheetahFlip-v0'].absorbing and bad.any() and (bad[:-1] & ~bad[1:]).any()
    pitches = np.zeros((4, 19))
    pitches[:, 1] = [FLIPPED + 0.01, -FLIPPED - 0.01, 2 * np.pi, 3 * np.pi]
    assert is_flipped(pitches).tolist() == [True, True, False, True]


@pytest.mark.parametrize('name', TABLE)
def test_each_is_an_environment_like_any_other(name):
    environment = make(name, (1, 2), horizon=4)
    (state, observation), (again, _) = (environment.reset(jax.random.key(0)) for _ in range(2))
    action = np.zeros((1, 2, environment.spec.action_dim), np.float32)
    steps = [environment.step(s, action, jax.random.key(1))[1].next_observation for s in (state, again)]
    np.testing.assert_array_equal(*steps)
    assert observation.shape == (1, 2, environment.spec.observation_dim) and name in IRREVERSIBLE
