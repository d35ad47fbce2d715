"""The environments of `one_way`.

Half-cheetah flip: gymnasium's half-cheetah runs at a target speed, redrawn from {3, .., 8} m/s at resets and every 500 steps.

    observation   19 = qpos without x, qvel, speed of the last step, target speed reward        0.95 (8 - |speed - target|) / 8 +
    0.05 (6 - |a|^2) / 6, a clipped to [-1, 1]^6; success: within 0.1 of the target

Peg on a small table: a hand carries a peg from a table without rim into the hole of a box.

    observation   14 = hand 3, grip (1 open, 0 closed), head of the peg 3, then the same seven as they should be
    action        4 = velocity of the hand 3 (1 is 0.01 m a step), grip (> 0 closes)
    reward        1 within 0.05 m of the head's goal, else 0; success likewise; never ends

Sources: `half_cheetah_flip` and `sawyer_peg_small_table` of proactive_interventions@68e1196 (arXiv:2210.10765), whose peg task is
Meta-World's arm; here the hand is a point that a closed grip welds to the peg within 0.05 m, so distances and places are theirs
and the forces are not.
"""

import mujoco
import numpy as np

from ooorl.envs.d4rl.simulated import SimulatedEnv, load_gymnasium_model, unbounded, unit_box
from ooorl.envs.one_way import is_flipped, is_lost

FRAME_SKIP = 5
TARGETS = np.arange(3.0, 9.0)
TARGET_STEPS = 500

HAND_LOW, HAND_HIGH = np.array([-0.5, 0.4, 0.05]), np.array([0.5, 1.0, 0.5])
HAND_START = np.array([0.0, 0.6, 0.2])
HAND_STEP = 0.01
BOX_PLACE = np.array([-0.3, 0.6])
GOAL = np.array([0.0, 0.6, 0.2, 1.0, -0.27, 0.6, 0.13])
SUCCESS_DISTANCE = GRASP_DISTANCE = 0.05


class HalfCheetahFlipEnv(SimulatedEnv):
    """See the module. `info` carries `success` and `irreversible` (see `one_way.is_flipped`)."""

    view = 'track'

    def __init__(self, *, render_mode: str | None = None):
        self.use_model(load_gymnasium_model('half_cheetah.xml'), FRAME_SKIP, render_mode)
        self.observation_space, self.action_space = unbounded(19), unit_box(self.model.nu)
        self._speed, self._target, self._steps = 0.0, 0.0, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.reset_simulation()
        qpos = self.init_qpos + self.np_random.uniform(-0.1, 0.1, self.model.nq)
        self.set_state(qpos, 0.1 * self.np_random.standard_normal(self.model.nv))
        self._speed, self._target, self._steps = 0.0, float(self.np_random.choice(TARGETS)), 0
        return self._observation(), self._info()

    def step(self, action):
        action, before = np.clip(action, -1.0, 1.0), float(self.data.qpos[0])
        self.simulate(action)
        self._speed = (float(self.data.qpos[0]) - before) / self.dt
        reward = 0.95 * (8.0 - abs(self._speed - self._target)) / 8.0 + 0.05 * (6.0 - float(action @ action)) / 6.0
        info = self._info()
        self._steps += 1
        if self._steps % TARGET_STEPS == 0:
            self._target = float(self.np_random.choice(TARGETS))
        return self._observation(), reward, False, False, info

    def _observation(self):
        return np.concatenate([self.data.qpos[1:], self.data.qvel, [self._speed, self._target]])

    def _info(self):
        near = abs(self._speed - self._target) < 0.1
        return {'success': bool(near), 'irreversible': bool(is_flipped(self._observation()))}


def _box(body, name, half, place, **more):
    body.add_geom(name=name, type=mujoco.mjtGeom.mjGEOM_BOX, size=half, pos=place, **more)


def build_peg_model():
    """Compiles hand, peg, table and the box with its hole, which opens towards +x at a height of 0.13 m."""
    spec = mujoco.MjSpec()
    spec.option.timestep = 0.0025
    world, wood = spec.worldbody, {'rgba': [0.7, 0.5, 0.3, 1.0]}
    world.add_light(pos=[0, 0, 3])
    floor = {'type': mujoco.mjtGeom.mjGEOM_PLANE, 'size': [3, 3, 0.1], 'pos': [0, 0.6, -0.9]}
    world.add_geom(name='floor', rgba=[0.9, 0.9, 0.9, 1], **floor)
    _box(world, 'table', [0.42, 0.16, 0.02], [0, 0.6, -0.02], rgba=[0.8, 0.8, 0.75, 1])
    for name, half, offset in (
        ('below', [0.06, 0.08, 0.05], [0, 0, 0.05]), ('above', [0.06, 0.08, 0.03], [0, 0, 0.19]),
        ('left', [0.06, 0.025, 0.03], [0, -0.055, 0.13]), ('right', [0.06, 0.025, 0.03], [0, 0.055, 0.13]),
    ):  # fmt: skip
        _box(world, name, half, np.append(BOX_PLACE, 0.0) + offset, **wood)
    hand = world.add_body(name='hand', pos=HAND_START, mocap=True)
    ball = {'type': mujoco.mjtGeom.mjGEOM_SPHERE, 'size': [0.02, 0, 0]}
    hand.add_geom(name='hand', contype=0, conaffinity=0, rgba=[0.1, 0.3, 0.8, 0.8], **ball)
    peg = world.add_body(name='peg', pos=[0.1, 0.6, 0.02])
    peg.add_freejoint()
    _box(peg, 'peg', [0.12, 0.015, 0.015], [0, 0, 0], mass=0.1, rgba=[0.2, 0.6, 0.3, 1])
    peg.add_site(name='head', pos=[-0.1, 0, 0], size=[0.01, 0.01, 0.01])
    peg.add_site(name='grasp', pos=[0.03, 0, 0], size=[0.01, 0.01, 0.01])
    weld = spec.add_equality(name='grip', type=mujoco.mjtEq.mjEQ_WELD, objtype=mujoco.mjtObj.mjOBJ_BODY)
    weld.name1, weld.name2, weld.active = 'hand', 'peg', False
    weld.data[:3] = 0.0  # the anchor is the peg's middle
    return spec.compile()


class PegSmallTableEnv(SimulatedEnv):
    """See the module. `info` carries `success` and `irreversible` (see `one_way.is_lost`)."""

    view = {'lookat': [0.0, 0.6, 0.1], 'distance': 1.4, 'azimuth': 90.0, 'elevation': -35.0}  # noqa: RUF012

    def __init__(self, *, render_mode: str | None = None):
        self.use_model(build_peg_model(), 20, render_mode)
        self.observation_space, self.action_space = unbounded(14), unit_box(4)
        self._head, self._grasp = (self.model.site(name).id for name in ('head', 'grasp'))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.reset_simulation()
        place = BOX_PLACE
        while np.linalg.norm(place - BOX_PLACE) < 0.1:
            place = self.np_random.uniform([0.0, 0.5], [0.2, 0.7])
        self.data.mocap_pos[0] = HAND_START
        self.set_state(np.array([*place, 0.02, 1.0, 0.0, 0.0, 0.0]), np.zeros(6))
        return self._observation(), self._info()

    def step(self, action):
        action = np.clip(np.asarray(action, np.float64), -1.0, 1.0)
        self.data.mocap_pos[0] = np.clip(self.data.mocap_pos[0] + HAND_STEP * action[:3], HAND_LOW, HAND_HIGH)
        self._grip(bool(action[3] > 0))
        mujoco.mj_step(self.model, self.data, nstep=self.frame_skip)
        info = self._info()
        return self._observation(), float(info['success']), False, False, info

    def _grip(self, closed: bool):
        """A grip that closes near the peg's grasp holds it as it is; one that opens lets go."""
        apart = self.data.site_xpos[self._grasp] - self.data.mocap_pos[0]
        if closed and not self.data.eq_active[0] and np.linalg.norm(apart) < GRASP_DISTANCE:
            # Where the peg's body is seen from the hand, which never turns.
            self.model.eq_data[0, 3:6] = self.data.body('peg').xpos - self.data.mocap_pos[0]
            self.model.eq_data[0, 6:10] = self.data.body('peg').xquat
            self.data.eq_active[0] = 1
        elif not closed:
            self.data.eq_active[0] = 0

    def _observation(self):
        open_ = 1.0 - float(self.data.eq_active[0])
        return np.concatenate([self.data.mocap_pos[0], [open_], self.data.site_xpos[self._head], GOAL])

    def _info(self):
        near = np.linalg.norm(self.data.site_xpos[self._head] - GOAL[4:]) <= SUCCESS_DISTANCE
        return {'success': bool(near), 'irreversible': bool(is_lost(self._observation()))}
