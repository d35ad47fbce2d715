"""Offline data of the tasks whose episodes differ in several factors, made on the spot by scripted, noisy controllers.

Each maker returns a `Transition` of numpy arrays as those of `envs.scripted` do: whole episodes of all combinations, up to
success or the horizon. `[dataset.combinations]` says which of them are learnt from.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.envs.goal_maze import FOUR_ROOMS, goal_maze
from ooorl.envs.maze import cell_centre, cell_size
from ooorl.envs.point_mass_physics import DT, point_mass_physics
from ooorl.envs.scripted import Controller, kept, next_cells, rollouts, until_end
from ooorl.envs.tabletop import START_SIDES, tabletop
from ooorl.types import Key, Transition
from ooorl.validation import check_choice, check_not_negative, check_positive


def _made(task, controller, key, num_episodes, noise):
    check_positive(num_episodes=num_episodes)
    check_not_negative(noise=noise)
    rows = rollouts(task, controller, key, num_episodes, noise)
    return kept(rows, until_end(rows))


def room_controller(layout: tuple[str, ...], step_size: float, ways: int = 1) -> Controller:
    """Walks a `goal_maze` to its goal from cell to cell; of 2 equally short `ways` an episode keeps to one that it draws."""
    height, width = len(layout), len(layout[0])
    centres = np.array([cell_centre(layout, divmod(cell, width)) for cell in range(height * width)], np.float32)
    tables = np.stack([next_cells(layout), next_cells(layout, turned=True)])

    def cell_at(position):
        cell = jnp.floor((position + 2.0) / cell_size(layout)).astype(jnp.int32)
        column, row = jnp.clip(cell, 0, np.array([width, height]) - 1)
        return row * width + column

    def act(way, observation, key):
        del key
        position, goal = observation[:2], observation[2:]
        waypoint = jnp.asarray(centres)[jnp.asarray(tables)[way, cell_at(goal), cell_at(position)]]
        return jnp.clip((waypoint - position) / step_size, -1.0, 1.0), way

    return lambda key: jax.random.randint(key, (), 0, ways), act


def goal_maze_offline(
    key: Key, num_episodes: int = 320, *, noise: float = 0.2, ways: int = 1, layout: tuple[str, ...] = FOUR_ROOMS, **settings
) -> Transition:
    """Trajectories of `room_controller` in `goal_maze`, from starts and to goals drawn at random.

    Args:
      key: of the whole set.
      num_episodes: how many; those that miss the goal for the whole horizon are kept as time-outs.
      noise: standard deviation of the Gaussian noise on the actions.
      ways: 1, or 2 to draw for each episode which of two equally short ways it goes.
      layout: as in `goal_maze`.
      **settings: further settings of `goal_maze`.
    """
    check_choice((1, 2), ways=ways)
    task = goal_maze(layout=layout, **settings)
    return _made(task, room_controller(layout, settings.get('step_size', 0.25), ways), key, num_episodes, noise)


def carrying_controller() -> Controller:
    """Fetches the mug of `tabletop`, puts it on its goal and takes the gripper home."""

    def act(memory, observation, key):
        del key
        gripper, mug, target = observation[:2], observation[2:4], observation[8:10]
        held, placed = observation[4] > -0.5, jnp.sum((mug - target) ** 2) < 0.1**2
        near = jnp.sum((gripper - mug) ** 2) < 0.3**2
        way = jnp.where(placed, -gripper, jnp.where(held, target - mug, mug - gripper))
        magnet = jnp.where(~placed & (held | near), 1.0, -1.0)
        return jnp.append(jnp.clip(way / 0.2, -1.0, 1.0), magnet), memory

    return lambda key: jnp.zeros((), jnp.int32), act


def tabletop_offline(key: Key, num_episodes: int = 160, *, noise: float = 0.2, **settings) -> Transition:
    """Trajectories of `carrying_controller` in `tabletop`, by default with the mug on any of four sides, between walls.

    Args:
      key: of the whole set.
      num_episodes: how many; those that do not succeed within the horizon are kept as time-outs.
      noise: standard deviation of the Gaussian noise on the actions.
      **settings: of `tabletop`.
    """
    task = tabletop(**{'walls': True, 'start_sides': tuple(START_SIDES), **settings})
    return _made(task, carrying_controller(), key, num_episodes, noise)


def resting_controller() -> Controller:
    """Brings the point of `point_mass_physics` to rest at the origin with the force that its physics ask for."""

    def act(memory, observation, key):
        del key
        position, velocity, (mass, drag, gear) = observation[:2], observation[2:4], observation[4:]
        wanted = jnp.clip(-1.5 * position, -0.6, 0.6)
        force = mass * (wanted - velocity) / (2.0 * DT) + drag * velocity
        return jnp.clip(force / gear, -1.0, 1.0), memory

    return lambda key: jnp.zeros((), jnp.int32), act


def point_mass_physics_offline(key: Key, num_episodes: int = 270, *, noise: float = 0.1, **settings) -> Transition:
    """Trajectories of `resting_controller` in `point_mass_physics`, of physics drawn at random.

    Args:
      key: of the whole set.
      num_episodes: how many; those that do not come to rest within the horizon are kept as time-outs.
      noise: standard deviation of the Gaussian noise on the actions.
      **settings: of `point_mass_physics`.
    """
    return _made(point_mass_physics(**settings), resting_controller(), key, num_episodes, noise)
