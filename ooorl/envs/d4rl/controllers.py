"""The behaviours that D4RL's maze data come from, for many copies at once.

Point mass: waypoints along a shortest path, each pulled by a proportional-derivative force
`clip(10 (waypoint - position) - velocity, -1, 1)`, passed within 0.1; waypoints before the last are moved by
-U[0, 0.2] per axis (walls lie off centre). Ant: a trained goal-reaching policy sees the robot without x and y
(27 numbers) and the direction of the next cell's waypoint, scaled to length 10.
"""

import numpy as np

from ooorl.envs.d4rl import antmaze, mazes

REACHED = 0.1
_GAIN, _DAMPING = 10.0, 1.0
_DIRECTION_LENGTH = 10.0


class PointController:
    """Drives `[N]` point masses to targets.

    Args:
      maze: the maze.
      random: moves the waypoints.
    """

    def __init__(self, maze: mazes.Maze, random: np.random.Generator):
        self._next, self._random = mazes.next_cells(maze), random
        self.target = self._target_cell = self._cell = self._waypoint = np.zeros((0, 2))

    def aim(self, position, target):
        """Starts all copies towards new targets `[N, 2]`."""
        num = len(position)
        self.target, self._waypoint = np.zeros((num, 2)), np.zeros((num, 2))
        self._target_cell, self._cell = np.zeros((num, 2), int), np.zeros((num, 2), int)
        self.retarget(np.ones(num, bool), position, target)

    def retarget(self, which, position, target):
        """Gives the copies in the mask `which` the targets `target[which]`."""
        self.target[which] = target[which]
        self._target_cell[which] = np.rint(target[which]).astype(int)
        self._cell[which] = np.rint(position[which]).astype(int)
        self._advance(which)

    def act(self, observation):
        """`(action[N, 2], reached[N])`: forces, and which copies are at their targets already."""
        position, velocity = observation[:, :2], observation[:, 2:]
        reached = np.linalg.norm(position - self.target, axis=1) < REACHED
        action = np.clip(_GAIN * (self._waypoint - position) - _DAMPING * velocity, -1.0, 1.0)
        passed = np.linalg.norm(position - self._waypoint, axis=1) < REACHED
        self._advance(passed & ~self._last())
        return action, reached

    def _last(self):
        return (self._cell == self._target_cell).all(axis=1)

    def _advance(self, which):
        """Moves on to the next cell of the path; the last waypoint is the target itself."""
        where = np.concatenate([self._cell[which], self._target_cell[which]], axis=1)
        self._cell[which] = self._next[tuple(where.T)]
        moved = self._cell[which] - self._random.uniform(0.0, 0.2, where[:, :2].shape)
        last = self._last()[which]
        self._waypoint[which] = np.where(last[:, None], self.target[which], moved)


class AntNavigator:
    """Walks `[N]` ants to goals.

    Args:
      maze: the maze.
      policy: reads `[N, 29]` (robot, direction) and draws torques.
      noise: standard deviation of normal noise on the torques.
      random: for torques and waypoints.
    """

    def __init__(self, maze: mazes.Maze, policy, noise: float, random: np.random.Generator):
        self._next, self._policy, self._noise, self._random = mazes.next_cells(maze), policy, noise, random

    def act(self, observation, goal):
        """`[N, 8]` torques in [-1, 1] towards goals `[N, 2]`."""
        direction = self.waypoint(observation[:, :2], goal) - observation[:, :2]
        length = np.linalg.norm(direction, axis=1, keepdims=True)
        direction = direction / np.maximum(length, 1e-9) * _DIRECTION_LENGTH
        torque = self._policy.sample(np.concatenate([observation[:, 2:], direction], axis=1), self._random)
        return np.clip(torque + self._noise * self._random.standard_normal(torque.shape), -1.0, 1.0)

    def waypoint(self, position, goal):
        """`[N, 2]` where to walk now: the goal if its cell is next, else the next cell + U[0, 1] per axis."""
        here, there = _corner_cell(position), _corner_cell(goal)
        following = self._next[tuple(np.concatenate([here, there], axis=1).T)]
        moved = antmaze.cell_position(following) + self._random.uniform(0.0, 1.0, position.shape)
        return np.where((following == there).all(axis=1, keepdims=True), goal, moved)


def _corner_cell(position):
    """D4RL's cell of a position: the one whose centre is nearest among those not beyond it."""
    scaled = 1.0 + np.maximum(position, 1e-4) / antmaze.CELL_SIZE
    return scaled.astype(int)[:, ::-1]
