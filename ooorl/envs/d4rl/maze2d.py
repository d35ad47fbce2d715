"""D4RL's point mass in D4RL's mazes: reach a fixed goal and stay there.

    observation   4 = position 2 then velocity 2
    action        2 forces in [-1, 1], gear 100
    reward        sparse: 1 within 0.5 of the goal, else 0; dense: exp(-distance); never ends
    step          velocities are clipped to +-5, then 1 simulation step of 0.01 s

Positions are in cells: cell (row, column) lies at (row, column), x along the rows. A reset draws one of the
free cells (the goal's too) +-0.1 and velocities 0.1 normal.

The rendered world is shifted by (1.2, 1.2) for the ball and (1, 1) for the walls, so a wall reaches from 0.7
cells below its cell to 0.3 above it; the 0.1 ball touches 0.4 above a wall's cell and 0.8 below.

Source: D4RL maze2d-{umaze,medium,large}[-dense]-v1 (arXiv:2004.07219).
"""

import mujoco
import numpy as np

from ooorl.envs.d4rl import mazes
from ooorl.envs.d4rl.simulated import SimulatedEnv, from_above, unbounded, unit_box, with_largest_margins
from ooorl.errors import UsageError

GOAL_RADIUS = 0.5
MAX_SPEED = 5.0
BALL_OFFSET = (1.2, 1.2)  # of the ball's world from the coordinates of its observation
_CONTACT = {'condim': 1, 'friction': [0.5, 0.1, 0.1], 'margin': 0.002}


def build_model(maze: mazes.Maze, d4rl_margins: bool = False):
    """Compiles the point mass and the walls."""
    spec = mujoco.MjSpec()
    spec.option.timestep, spec.option.iterations = 0.01, 20
    spec.option.gravity = [0.0, 0.0, 0.0]
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_EULER
    world = spec.worldbody
    plane = {'type': mujoco.mjtGeom.mjGEOM_PLANE, 'size': [40, 40, 0.25], 'pos': [0, 0, -0.1]}
    world.add_geom(name='ground', contype=1, conaffinity=0, rgba=[0.9, 0.9, 0.9, 1], **plane, **_CONTACT)
    ball = world.add_body(name='ball', pos=[*BALL_OFFSET, 0.0])
    sphere = {'type': mujoco.mjtGeom.mjGEOM_SPHERE, 'size': [0.1, 0, 0], 'density': 1000.0}
    ball.add_geom(name='ball', contype=1, conaffinity=1, rgba=[0, 0, 1, 1], **sphere, **_CONTACT)
    for name, axis in (('x', [1, 0, 0]), ('y', [0, 1, 0])):
        joint = ball.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis)
        # A scalar in MuJoCo 3, the coefficients of a polynomial in later versions.
        joint.damping = 1.0 if np.ndim(joint.damping) == 0 else [1.0, *joint.damping[1:]]
        motor = spec.add_actuator(name=name, trntype=mujoco.mjtTrn.mjTRN_JOINT, target=name)
        motor.ctrllimited, motor.ctrlrange = True, [-1.0, 1.0]
        motor.gear[0] = 100.0
    for row, column in mazes.cells(maze, '#'):
        box = {
            'type': mujoco.mjtGeom.mjGEOM_BOX,
            'size': [0.5, 0.5, 0.2],
            'pos': [row + 1.0, column + 1.0, 0.0],
        }
        world.add_geom(name=f'wall_{row}_{column}', contype=2, conaffinity=1, rgba=[0.7, 0.5, 0.3, 1], **box, **_CONTACT)
    model = spec.compile()
    return with_largest_margins(model) if d4rl_margins else model


def reward_at(position, goal, dense: bool) -> np.ndarray:
    """`[...]` the reward at positions `[..., 2]`."""
    distance = np.linalg.norm(position - goal, axis=-1)
    return np.exp(-distance) if dense else (distance <= GOAL_RADIUS).astype(np.float64)


class Maze2dEnv(SimulatedEnv):
    """One maze of the module's task.

    Args:
      maze: `umaze`, `medium` or `large`.
      reward: `sparse` or `dense`.
      d4rl_margins: let contacts begin where they did on the MuJoCo that D4RL ran on (0.002), instead of at
        the sum of both shapes' margins as in MuJoCo 3.11.
      render_mode: `rgb_array` or None.

    `info` carries `success` (within 0.5 of the goal) and `goal`.
    """

    def __init__(
        self, maze: str = 'umaze', *, reward: str = 'sparse', d4rl_margins: bool = False, render_mode: str | None = None
    ):
        if reward not in ('sparse', 'dense'):
            raise UsageError(f"reward must be 'sparse' or 'dense'; got {reward!r}")
        self.maze, self.dense = mazes.find_maze(maze), reward == 'dense'
        self.use_model(build_model(self.maze, d4rl_margins), 1, render_mode)
        self.observation_space, self.action_space = unbounded(4), unit_box(2)
        self.goal = np.array(self.maze.point_goal, np.float64)
        size = np.shape([list(row) for row in self.maze.rows])
        self.view = from_above((np.array(size) + 1.0) / 2.0, max(size), 180.0)  # rows run down, as the layout is printed
        self._free_cells = mazes.cells(self.maze, '.')

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.reset_simulation()
        cell = self._free_cells[self.np_random.integers(len(self._free_cells))]
        position = cell + self.np_random.uniform(-0.1, 0.1, 2)
        self.set_state(position, 0.1 * self.np_random.standard_normal(2))
        return self._observation(), self._info()

    def step(self, action):
        self.data.qvel[:] = np.clip(self.data.qvel, -MAX_SPEED, MAX_SPEED)
        self.simulate(np.clip(action, -1.0, 1.0))
        reward = float(reward_at(self.data.qpos, self.goal, self.dense))
        return self._observation(), reward, False, False, self._info()

    def marks(self):
        return [((*(self.goal + BALL_OFFSET), 0.0), GOAL_RADIUS)]

    def _observation(self):
        return np.concatenate([self.data.qpos, self.data.qvel])

    def _info(self):
        success = reward_at(self.data.qpos, self.goal, dense=False) > 0
        return {'success': bool(success), 'goal': self.goal.copy()}
