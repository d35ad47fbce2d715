"""D4RL's four tasks of the 24-joint Adroit hand: door, hammer, pen, relocate.

Models are the ones that gymnasium-robotics packages; observations, resets and rewards are D4RL's. In
particular the distance from the palm to the object or handle costs reward (-0.1 per metre); the environments
of gymnasium-robotics 1.2.1 to 1.4.2 pay for it.

    action     joint targets in [-1, 1], scaled to the actuators' ranges; 5 simulation steps of 0.002 s
    door       reward over the hinge angle; goal: hinge >= 1.35
    hammer     reward over the nail's depth; goal: nail within 0.01 of its end
    pen        reward over place and direction; goal: within 0.075, cosine above 0.95; a dropped pen (below
               0.075) ends the episode
    relocate   reward over the ball's place; goal: within 0.1 of the target

With `reward="binary"` the reward is goal_achieved - 1 and nothing ends an episode (the AWAC and Cal-QL
tasks). `info` carries `goal_achieved` for the step and `success`: in the binary variant the same, else D4RL's
rule, the goal reached in more than 25 steps of the episode (pen: 20).

Sources: Rajeswaran et al., arXiv:1709.10087; Fu et al., arXiv:2004.07219; Nair et al., arXiv:2006.09359.
"""

import mujoco
import numpy as np

from ooorl.envs.d4rl import assets
from ooorl.envs.d4rl.simulated import SimulatedEnv, unbounded, unit_box
from ooorl.errors import UsageError

FRAME_SKIP = 5


def _distance(a, b) -> float:
    return float(np.linalg.norm(a - b))


class AdroitEnv(SimulatedEnv):
    """What the four tasks share; use one of the subclasses.

    Args:
      reward: `dense` or `binary`.
      render_mode: `rgb_array` or None.
    """

    file: str
    observation_size: int
    steps_for_success = 25
    ends_when_failed = False
    view = {'distance': 1.5, 'azimuth': 90.0}  # noqa: RUF012

    def __init__(self, *, reward: str = 'dense', render_mode: str | None = None):
        if reward not in ('dense', 'binary'):
            raise UsageError(f"reward must be 'dense' or 'binary'; got {reward!r}")
        path = assets.robotics_asset('adroit_hand', self.file)
        self.binary = reward == 'binary'
        self.use_model(mujoco.MjModel.from_xml_path(path), FRAME_SKIP, render_mode)
        self._weaken_actuators()
        self.observation_space = unbounded(self.observation_size)
        self.action_space = unit_box(self.model.nu)
        low, high = self.model.actuator_ctrlrange.T
        self._control_middle, self._control_scale = (low + high) / 2, (high - low) / 2
        self._goal_steps = 0
        self.find_parts()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._goal_steps = 0
        self.reset_simulation()
        for name, part in self.placement():
            part[:] = self.sample_placement(name, part)
        self.set_state(self.init_qpos, self.init_qvel)
        return self.observe(), {'success': False, 'goal_achieved': False}

    def step(self, action):
        self.simulate(self._control_middle + np.clip(action, -1.0, 1.0) * self._control_scale)
        dense, achieved, failed = self.judge()
        self._goal_steps += achieved
        success = achieved if self.binary else self._goal_steps > self.steps_for_success
        reward = float(achieved) - 1.0 if self.binary else float(dense)
        terminated = bool(failed and not self.binary and self.ends_when_failed)
        return (
            self.observe(),
            reward,
            terminated,
            False,
            {'success': bool(success), 'goal_achieved': achieved},
        )

    def find_parts(self):
        """Looks up the bodies, sites and joints that the task reads."""
        raise NotImplementedError

    def placement(self) -> list:
        """`(name, view)` of what a reset places: D4RL's name and the model's own numbers."""
        raise NotImplementedError

    def sample_placement(self, name: str, current: np.ndarray) -> np.ndarray:
        """New numbers for one part of `placement`."""
        raise NotImplementedError

    def observe(self) -> np.ndarray:
        """D4RL's observation."""
        raise NotImplementedError

    def judge(self) -> tuple[float, bool, bool]:
        """`(dense reward, goal achieved, failed)` of the current state."""
        raise NotImplementedError

    @property
    def state_names(self) -> tuple[str, ...]:
        """What `set_env_state` needs."""
        return ('qpos', 'qvel', *(name for name, _ in self.placement()))

    def set_env_state(self, state):
        """Sets a state recorded by D4RL.

        Args:
          state: `qpos`, `qvel` and the task's placement under D4RL's names (`door_body_pos`; `board_pos`;
            `desired_orien`; `obj_pos` and `target_pos`).
        """
        for name, part in self.placement():
            part[:] = state[name]
        self.set_state(state['qpos'], state['qvel'])

    def _weaken_actuators(self):
        # D4RL overrides the gains of the wrist (10) and the fingers (1) after loading the model.
        for first, last, gain in (('A_WRJ1', 'A_WRJ0', 10.0), ('A_FFJ3', 'A_THJ0', 1.0)):
            part = slice(self.model.actuator(first).id, self.model.actuator(last).id + 1)
            self.model.actuator_gainprm[part, :3] = gain, 0.0, 0.0
            self.model.actuator_biasprm[part, :3] = 0.0, -gain, 0.0


class DoorEnv(AdroitEnv):
    """Undo the latch and open the door: observation 39, action 28."""

    file, observation_size = 'adroit_door.xml', 39

    def find_parts(self):
        self._hinge = int(self.model.joint('door_hinge').qposadr[0])
        self._palm, self._handle = self.model.site('S_grasp').id, self.model.site('S_handle').id
        self._frame = self.model.body('frame').id

    def placement(self):
        return [('door_body_pos', self.model.body_pos[self._frame])]

    def sample_placement(self, name, current):
        return self.np_random.uniform([-0.3, 0.25, 0.252], [-0.2, 0.35, 0.35])

    def observe(self):
        qpos = self.data.qpos
        palm, handle = self.data.site_xpos[self._palm], self.data.site_xpos[self._handle]
        hinge = qpos[self._hinge]
        opened = 1.0 if hinge > 1.0 else -1.0
        return np.concatenate([qpos[1:-2], [qpos[-1], hinge], palm, handle, palm - handle, [opened]])

    def judge(self):
        hinge = float(self.data.qpos[self._hinge])
        reach = _distance(self.data.site_xpos[self._palm], self.data.site_xpos[self._handle])
        reward = -0.1 * reach - 0.1 * (hinge - 1.57) ** 2 - 1e-5 * float(np.sum(self.data.qvel**2))
        reward += 2.0 * (hinge > 0.2) + 8.0 * (hinge > 1.0) + 10.0 * (hinge > 1.35)
        return reward, hinge >= 1.35, False


class HammerEnv(AdroitEnv):
    """Lift the hammer and drive the nail in: observation 46, action 26."""

    file, observation_size = 'adroit_hammer.xml', 46

    def find_parts(self):
        site = {name: self.model.site(name).id for name in ('S_grasp', 'S_target', 'tool', 'nail_goal')}
        self._palm, self._nail, self._head, self._end = site.values()
        self._hammer, self._board = self.model.body('Object').id, self.model.body('nail_board').id

    def placement(self):
        return [('board_pos', self.model.body_pos[self._board])]

    def sample_placement(self, name, current):
        return [current[0], current[1], self.np_random.uniform(0.1, 0.25)]

    def observe(self):
        data = self.data
        speed = np.clip(data.qvel[-6:], -1.0, 1.0)
        impact = np.clip(data.sensor('S_nail').data, -1.0, 1.0)
        angles = _euler_angles(data.xmat[self._hammer])
        palm, nail, hammer = data.site_xpos[self._palm], data.site_xpos[self._nail], data.xpos[self._hammer]
        return np.concatenate([data.qpos[:-6], speed, palm, hammer, angles, nail, impact])

    def judge(self):
        sites, hammer = self.data.site_xpos, self.data.xpos[self._hammer]
        palm, nail, head = sites[self._palm], sites[self._nail], sites[self._head]
        depth = _distance(nail, sites[self._end])
        reward = -0.1 * _distance(palm, hammer) - _distance(head, nail) - 10.0 * depth
        reward -= 1e-2 * float(np.linalg.norm(self.data.qvel))
        reward += 2.0 * (hammer[2] > 0.04 and head[2] > 0.04) + 25.0 * (depth < 0.02) + 75.0 * (depth < 0.01)
        return reward, depth < 0.01, False


class PenEnv(AdroitEnv):
    """Turn the pen to a direction: observation 45, action 24."""

    file, observation_size = 'adroit_pen.xml', 45
    steps_for_success = 20
    ends_when_failed = True

    def find_parts(self):
        names = ('object_top', 'object_bottom', 'target_top', 'target_bottom', 'eps_ball')
        self._top, self._bottom, self._aim_top, self._aim_bottom, self._place = (self.model.site(name).id for name in names)
        self._pen, self._target = self.model.body('Object').id, self.model.body('target').id

    def placement(self):
        return [('desired_orien', self.model.body_quat[self._target])]

    def sample_placement(self, name, current):
        quaternion = np.zeros(4)
        mujoco.mju_euler2Quat(quaternion, np.array([*self.np_random.uniform(-1.0, 1.0, 2), 0.0]), 'xyz')
        return quaternion

    def observe(self):
        offset, direction, aim = self._geometry()
        data = self.data
        pen = data.xpos[self._pen]
        return np.concatenate([data.qpos[:-6], pen, data.qvel[-6:], direction, aim, offset, direction - aim])

    def judge(self):
        offset, direction, aim = self._geometry()
        distance, cosine = float(np.linalg.norm(offset)), float(direction @ aim)
        near, dropped = distance < 0.075, bool(self.data.xpos[self._pen][2] < 0.075)
        reward = -distance + cosine + 10.0 * (near and cosine > 0.9) + 50.0 * (near and cosine > 0.95)
        return reward - 5.0 * dropped, bool(near and cosine > 0.95), dropped

    def _geometry(self):
        sites = self.data.site_xpos
        direction, aim = (
            sites[self._top] - sites[self._bottom],
            sites[self._aim_top] - sites[self._aim_bottom],
        )
        offset = self.data.xpos[self._pen] - sites[self._place]
        return offset, direction / np.linalg.norm(direction), aim / np.linalg.norm(aim)


class RelocateEnv(AdroitEnv):
    """Carry the ball to a place: observation 39, action 30."""

    file, observation_size = 'adroit_relocate.xml', 39

    def find_parts(self):
        self._palm, self._target = self.model.site('S_grasp').id, self.model.site('target').id
        self._ball = self.model.body('Object').id

    def placement(self):
        return [
            ('obj_pos', self.model.body_pos[self._ball]),
            ('target_pos', self.model.site_pos[self._target]),
        ]

    def sample_placement(self, name, current):
        if name == 'obj_pos':
            return [*self.np_random.uniform([-0.15, -0.15], [0.15, 0.3]), current[2]]
        return self.np_random.uniform([-0.2, -0.2, 0.15], [0.2, 0.2, 0.35])

    def observe(self):
        palm, ball, target = self._geometry()
        return np.concatenate([self.data.qpos[:-6], palm - ball, palm - target, ball - target])

    def judge(self):
        palm, ball, target = self._geometry()
        distance = _distance(ball, target)
        reward = -0.1 * _distance(palm, ball) + 10.0 * (distance < 0.1) + 20.0 * (distance < 0.05)
        if ball[2] > 0.04:
            reward += 1.0 - 0.5 * _distance(palm, target) - 0.5 * distance
        return reward, distance < 0.1, False

    def _geometry(self):
        sites = self.data.site_xpos
        return sites[self._palm], self.data.xpos[self._ball], sites[self._target]


def _euler_angles(matrix) -> np.ndarray:
    """`[3]` angles about the moving x, y, z axes (in that order) of a rotation matrix given as `[9]`."""
    m = np.asarray(matrix).reshape(3, 3)
    # Where y is turned by a right angle x and z cannot be told apart; D4RL then puts all into z.
    cosine = np.hypot(m[2, 2], m[1, 2])
    if cosine > 4.0 * np.finfo(np.float64).eps:
        return np.array([np.arctan2(-m[1, 2], m[2, 2]), np.arctan2(m[0, 2], cosine), np.arctan2(-m[0, 1], m[0, 0])])
    return np.array([0.0, np.arctan2(m[0, 2], cosine), np.arctan2(m[1, 0], m[1, 1])])
