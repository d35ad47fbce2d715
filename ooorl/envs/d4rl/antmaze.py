"""D4RL's ant in D4RL's mazes: walk to a goal whose position is not observed.

    observation   29 = qpos 15 (x, y first) then qvel 14
    action        8 torques in [-1, 1], gear 30
    reward        1 within 0.5 of the goal, else 0; the episode ends there
    step          5 simulation steps of 0.02 s, Runge-Kutta 4

Cell (row, column) lies at x = 4 column - 4, y = 4 row - 4, so the start cell (1, 1) is the origin. A reset
draws the start from the ant's resting state (uniform +-0.1 on positions, 0.1 normal on velocities) and the
goal as the goal cell's position + U[0, 1] + U[0, 0.5] in each axis. (D4RL then clamps at 0, which no goal
cell of the three mazes makes active.)

The model is gymnasium's packaged ant with what differs changed: time step, gear, contact impedance, walls.

Source: D4RL antmaze-{umaze,medium,large}-*-v2 (arXiv:2004.07219).
"""

import mujoco
import numpy as np

from ooorl.envs.d4rl import assets, mazes
from ooorl.envs.d4rl.simulated import SimulatedEnv, from_above, unbounded, unit_box, with_largest_margins

CELL_SIZE = 4.0
GOAL_RADIUS = 0.5
FRAME_SKIP = 5
WALL_HEIGHT = 2.0


def cell_position(cell) -> np.ndarray:
    """`[..., 2]` the (x, y) of cells `[..., 2]` (row, column)."""
    return (np.asarray(cell)[..., ::-1] - 1.0) * CELL_SIZE


def sample_goal(cell, random: np.random.Generator) -> np.ndarray:
    """A goal near a cell (or near each of `[n, 2]` cells): position + U[0, 1] + U[0, 0.5], never below 0."""
    corner = cell_position(cell)
    noise = random.uniform(0.0, 1.0, corner.shape) + random.uniform(0.0, 0.5, corner.shape)
    return np.maximum(corner + noise, 0.0)


def build_model(maze: mazes.Maze, d4rl_margins: bool = False):
    """Compiles D4RL's ant, from the ant that gymnasium packages, in a maze."""
    spec = mujoco.MjSpec.from_file(assets.gymnasium_model('ant.xml'))
    spec.option.timestep = 0.02
    for actuator in spec.actuators:
        actuator.gear[0] = 30.0
    for geom in spec.geoms:
        geom.rgba = [0.1, 0.2, 0.8, 1.0]
    floor = next(geom for geom in spec.geoms if geom.name == 'floor')
    floor.material, floor.rgba = '', [0.9, 0.9, 0.9, 1.0]  # an ant is hard to see from above on a chequered floor
    half = [CELL_SIZE / 2, CELL_SIZE / 2, WALL_HEIGHT / 2]
    for row, column in mazes.cells(maze, '#'):
        x, y = cell_position((row, column))
        spec.worldbody.add_geom(
            name=f'wall_{row}_{column}',
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=[x, y, WALL_HEIGHT / 2],
            size=half,
            contype=1,
            conaffinity=1,
            condim=3,
            friction=floor.friction,
            margin=floor.margin,
            rgba=[0.7, 0.5, 0.3, 1.0],
        )
    for geom in spec.geoms:
        geom.solimp[:3] = 0.8, 0.8, 0.01
    model = spec.compile()
    return with_largest_margins(model) if d4rl_margins else model


class AntMazeEnv(SimulatedEnv):
    """One maze of the module's task.

    Args:
      maze: `umaze`, `medium` or `large`.
      terminate_at_goal: whether reaching the goal ends the episode; the generators of data switch it off.
      d4rl_margins: let contacts begin where they did on the MuJoCo that D4RL ran on (0.01), instead of at
        the sum of both shapes' margins as in MuJoCo 3.11.
      render_mode: `rgb_array` or None.

    `info` carries `success` (within 0.5 of the goal) and `goal`. `reset(options={"goal": (x, y)})` sets the
    goal.
    """

    def __init__(
        self, maze: str = 'umaze', *, terminate_at_goal: bool = True, d4rl_margins: bool = False, render_mode: str | None = None
    ):
        self.maze = mazes.find_maze(maze)
        self.terminate_at_goal = terminate_at_goal
        self.use_model(build_model(self.maze, d4rl_margins), FRAME_SKIP, render_mode)
        self.observation_space, self.action_space = unbounded(29), unit_box(8)
        self.goal = cell_position(self.maze.ant_goal)
        size = np.shape([list(row) for row in self.maze.rows])
        self.view = from_above(cell_position((np.array(size) - 1.0) / 2.0), CELL_SIZE * max(size), 90.0)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.goal = sample_goal(self.maze.ant_goal, self.np_random)
        if options and 'goal' in options:
            self.goal = np.array(options['goal'], np.float64)
        self.reset_simulation()
        qpos = self.init_qpos + self.np_random.uniform(-0.1, 0.1, self.model.nq)
        self.set_state(qpos, 0.1 * self.np_random.standard_normal(self.model.nv))
        return self._observation(), self._info()

    def step(self, action):
        self.simulate(np.clip(action, -1.0, 1.0))
        info = self._info()
        terminated = info['success'] and self.terminate_at_goal
        return self._observation(), float(info['success']), terminated, False, info

    def marks(self):
        return [((*self.goal, 0.0), GOAL_RADIUS)]

    def _observation(self):
        return np.concatenate([self.data.qpos, self.data.qvel])

    def _info(self):
        distance = np.linalg.norm(self.data.qpos[:2] - self.goal)
        return {'success': bool(distance <= GOAL_RADIUS), 'goal': self.goal.copy()}
