"""MuJoCo tasks in which something can be lost: a half-cheetah that flips over, and a peg that falls off a small table.

`TABLE` maps every id to how it is made, `IRREVERSIBLE` to its test of observations `[..., O]` and whether what it finds is never
left; `register()` tells gymnasium. The test is for scoring and for scripted experts. MuJoCo is imported when an environment is
made.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ooorl.envs.d4rl import Entry

FLIPPED = 2.0 * np.pi / 3.0  # rad of pitch, either way


class OneWay(NamedTuple):
    """`test`: `(observation[..., O]) -> [...]` bool; `absorbing`: whether what it finds is never left."""

    test: Callable[[np.ndarray], np.ndarray]
    absorbing: bool


def is_flipped(observation: np.ndarray) -> np.ndarray:
    """Whether the half-cheetah lies on its back: its pitch, column 1, wrapped to [-pi, pi), is beyond two thirds of pi."""
    pitch = observation[..., 1]
    return abs((pitch + np.pi) % (2.0 * np.pi) - np.pi) > FLIPPED


def is_lost(observation: np.ndarray) -> np.ndarray:
    """Whether the peg's head, columns 4 to 6, is below the table's top."""
    return observation[..., 6] < 0.0


_HERE = 'ooorl.envs.one_way_mujoco'
TABLE: dict[str, Entry] = {
    'ooorl/HalfCheetahFlip-v0': Entry(f'{_HERE}:HalfCheetahFlipEnv', {}, 2000),
    'ooorl/PegSmallTable-v0': Entry(f'{_HERE}:PegSmallTableEnv', {}, 200),
}
# A flipped half-cheetah sometimes rights itself (under bang-bang torques every other time): ask about its states one by one.
IRREVERSIBLE: dict[str, OneWay] = {
    'ooorl/HalfCheetahFlip-v0': OneWay(is_flipped, False),
    'ooorl/PegSmallTable-v0': OneWay(is_lost, True),
}


def register() -> None:
    """Registers every id of `TABLE` with gymnasium; calling it again changes nothing."""
    import gymnasium

    for name, entry in TABLE.items():
        if name not in gymnasium.registry:
            gymnasium.register(id=name, entry_point=entry.entry_point, max_episode_steps=entry.max_episode_steps)
