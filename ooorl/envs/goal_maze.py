"""Four rooms for a point, with several starts and several goals: which of them an episode has is drawn anew for each.

Observation (x, y, goal x, goal y). A start and a goal are the two factors of `data.splits`; the way through the doors depends on
both.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.envs.maze import cell_centre, cell_size, cells_of, check_layout, check_sizes, sliding
from ooorl.envs.pictures import BODY, GOAL, START, WALL, Canvas
from ooorl.types import Array, Spec, Task

FOUR_ROOMS = (
    'S...#...S',
    '.G..#..G.',
    '.........',
    '....#....',
    '##.###.##',
    '....#....',
    '.........',
    '.G..#..G.',
    'S...#...S',
)


class GoalMazeState(NamedTuple):
    """`position` and `goal`, `[2]` float32 each, in the coordinates of `u_maze`."""

    position: Array
    goal: Array


def centres_of(layout: tuple[str, ...], letter: str) -> np.ndarray:
    """`[n, 2]` centres of the cells that show `letter`, row by row: levels of a factor."""
    return np.array([cell_centre(layout, cell) for cell in cells_of(layout, letter)], np.float32)


def _observed(state):
    return jnp.concatenate([state.position, state.goal])


def goal_maze(
    *,
    layout: tuple[str, ...] = FOUR_ROOMS,
    horizon: int = 60,
    step_size: float = 0.25,
    goal_radius: float = 0.3,
    start_noise: float = 0.1,
) -> Task:
    """A maze with walls one slides along, each episode from one of its starts to one of its goals, drawn independently.

    Reward 1 at the goal, where the episode terminates, else 0. Lengths are as in `u_maze`: the longer side spans [-2, 2].

    Args:
      layout: rows of cells with one 'S' or more and one 'G' or more.
      horizon: steps of an episode.
      step_size: displacement per axis of a full action; less than a cell.
      goal_radius: the goal is reached strictly within this distance of its cell's centre.
      start_noise: half-width of the uniform noise around the start cell's centre.

    Raises:
      UsageError: if the layout cannot be used or a step could jump a wall.
    """
    layout = check_layout(layout, several=True)
    check_sizes(layout, horizon, step_size, goal_radius, start_noise)
    move, starts, goals = sliding(layout, step_size), centres_of(layout, 'S'), centres_of(layout, 'G')

    def reset(key):
        start_key, goal_key, noise_key = jax.random.split(key, 3)
        start = jnp.asarray(starts)[jax.random.randint(start_key, (), 0, len(starts))]
        goal = jnp.asarray(goals)[jax.random.randint(goal_key, (), 0, len(goals))]
        state = GoalMazeState(start + jax.random.uniform(noise_key, (2,), jnp.float32, -start_noise, start_noise), goal)
        return state, _observed(state)

    def step(state, action, key):
        del key
        state = state._replace(position=move(state.position, action))
        reached = jnp.sum((state.position - state.goal) ** 2) < goal_radius**2
        return state, _observed(state), reached.astype(jnp.float32), reached, reached

    return Task(
        spec=Spec(observation_dim=4, action_dim=2), horizon=horizon, reset=reset, step=step,
        state_at=lambda observation: GoalMazeState(observation[:2], observation[2:]),
        render=lambda observation: _picture(layout, goal_radius, observation),
    )


def _picture(layout, goal_radius, observation):
    size = cell_size(layout)
    high = (len(layout[0]) * size - 2.0, len(layout) * size - 2.0)
    canvas = Canvas((-2.0, -2.0), high)
    for cell in cells_of(layout, '#'):
        low = (cell[1] * size - 2.0, cell[0] * size - 2.0)
        canvas.box(low, (low[0] + size, low[1] + size), WALL)
    for start in centres_of(layout, 'S'):
        canvas.disc(start, size / 5, START)
    canvas.disc(observation[2:4], goal_radius, GOAL)
    canvas.disc(observation[:2], size / 8, BODY)
    return canvas.picture()
