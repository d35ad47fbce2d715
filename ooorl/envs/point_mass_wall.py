"""A point that must pass a thin wall: a short way under it and a long way over it.

The state is the position, `[2]` float32, and so is the observation. Start (0, 0.5) with uniform noise of 0.02
a side; goal (1, 0.15). An action in [-1, 1]^2 moves by `step_size` times the action. The wall is the segment
x = 0.5, 0.1 < y < 1.2; a step that crosses it does nothing (`wall='sticky'`, the paper's) or keeps its part along
the wall (`wall='slide'`). Then the position is clipped to [-0.25, 1.25] x [-0.25, 1.45].

With the defaults the short way takes 29 steps and the long way 50.

Source: the didactic example of arXiv:2310.08558, rebuilt from MaxSobolMark/OOO@b1424a2. A step that ends exactly on
the wall's line counts as having crossed when it comes from the left, so that no two steps pass the wall.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.envs import pictures
from ooorl.envs.pictures import Canvas
from ooorl.types import Array, Spec, Task
from ooorl.validation import check_choice, check_positive

START = (0.0, 0.5)
START_NOISE = 0.02
GOAL = (1.0, 0.15)
WALL_X = 0.5
WALL_Y = (0.1, 1.2)
LOW = (-0.25, -0.25)
HIGH = (1.25, 1.45)


class PointState(NamedTuple):
    """`position`: `[2]` float32."""

    position: Array


def crosses_wall(position: Array, target: Array) -> Array:
    """Whether the segment from `position[..., 2]` to `target[..., 2]` passes the wall."""
    x, y = position[..., 0], position[..., 1]
    dx, dy = target[..., 0] - x, target[..., 1] - y
    sides_differ = (x < WALL_X) != (x + dx < WALL_X)
    crossing_y = y + dy * (WALL_X - x) / jnp.where(sides_differ, dx, 1.0)
    return sides_differ & (crossing_y > WALL_Y[0]) & (crossing_y < WALL_Y[1])


def _picture(observation: np.ndarray) -> np.ndarray:
    """The room from above; the goal is drawn no smaller than can be seen."""
    canvas = Canvas(LOW, HIGH)
    canvas.line((WALL_X, WALL_Y[0]), (WALL_X, WALL_Y[1]), 0.015, pictures.WALL)
    canvas.disc(START, 0.035, pictures.START)
    canvas.disc(GOAL, 0.03, pictures.GOAL)
    canvas.disc(observation, 0.02, pictures.BODY)
    return canvas.picture()


def point_mass_wall(
    *,
    horizon: int = 150,
    goal_radius: float = 0.01,
    step_size: float = 0.05 * math.sqrt(0.5),
    wall: str = 'sticky',
    reward: str = 'sparse',
) -> Task:
    """The point-mass task; the episode terminates at the goal.

    Args:
      horizon: steps of an episode.
      goal_radius: the goal is reached strictly within this distance.
      step_size: displacement per axis of a full action.
      wall: 'sticky' (a crossing step does nothing) or 'slide' (it keeps its part along the wall).
      reward: 'sparse' (1 at the goal, else 0; the training reward) or 'steps' (0 at the goal, else -1).
    """
    check_positive(horizon=horizon, goal_radius=goal_radius, step_size=step_size)
    check_choice(('sticky', 'slide'), wall=wall)
    check_choice(('sparse', 'steps'), reward=reward)
    start, goal, low, high = (np.array(point, np.float32) for point in (START, GOAL, LOW, HIGH))

    def reset(key):
        noise = jax.random.uniform(key, (2,), jnp.float32, -START_NOISE, START_NOISE)
        position = start + noise
        return PointState(position), position

    def step(state, action, key):
        del key
        position = state.position
        target = position + step_size * jnp.clip(action, -1.0, 1.0).astype(jnp.float32)
        blocked = position if wall == 'sticky' else jnp.stack([position[0], target[1]])
        moved = jnp.where(crosses_wall(position, target), blocked, target)
        moved = jnp.clip(moved, low, high)
        reached = jnp.sum((moved - goal) ** 2) < goal_radius**2
        gained = reached.astype(jnp.float32)
        return PointState(moved), moved, gained if reward == 'sparse' else gained - 1.0, reached, reached

    return Task(
        spec=Spec(observation_dim=2, action_dim=2), horizon=horizon, reset=reset, step=step, state_at=PointState, render=_picture
    )
