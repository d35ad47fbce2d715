"""Variants of gymnasium's half-cheetah and ant: rewards far away, and D4RL's padded observation.

Sparse half-cheetah: observation 17 = qpos without x, then qvel, so that the distance that is paid for is
hidden; reward 1 while the torso's x > 20. Sparse ant: observation 112 = x, qpos without x and y, qvel, 84
contact forces; reward 1 while x > 10. Neither has other rewards or costs and neither ends; 1000 steps. Resets
are gymnasium's: +-0.1 uniform on positions, 0.1 normal on velocities.

The 84 contact forces are zero unless `contact_forces=True`: the binding that the sparse ant was written for
left them at zero on MuJoCo 2, which is also why D4RL's ant-v2 files hold 84 zero columns. `AntPaddedEnv` is
gymnasium's Ant-v4 (27) with those 84 zeros.

Sources: the sparse tasks of OOO, arXiv:2310.08558 (its code's `ant-sparse-v2` and `halfcheetah-sparse-v2`);
D4RL ant-*-v2, arXiv:2004.07219.
"""

import mujoco
import numpy as np
from gymnasium.envs.mujoco.ant_v4 import AntEnv

from ooorl.envs.d4rl.simulated import SimulatedEnv, load_gymnasium_model, unbounded, unit_box

FRAME_SKIP = 5
NUM_CONTACT_FORCES = 84


class SparseRunEnv(SimulatedEnv):
    """Run past a line. `info` carries `success` (past the line in this state) and `x_position`."""

    view = 'track'

    def __init__(self, file: str, line: float, observation_size: int, render_mode: str | None):
        self.line = line
        self.use_model(load_gymnasium_model(file), FRAME_SKIP, render_mode)
        self.observation_space, self.action_space = unbounded(observation_size), unit_box(self.model.nu)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.reset_simulation()
        qpos = self.init_qpos + self.np_random.uniform(-0.1, 0.1, self.model.nq)
        self.set_state(qpos, 0.1 * self.np_random.standard_normal(self.model.nv))
        return self.observe(), self._info()

    def step(self, action):
        self.simulate(np.clip(action, -1.0, 1.0))
        info = self._info()
        return self.observe(), float(info['success']), False, False, info

    def position(self) -> float:
        """The x that is compared with the line."""
        return float(self.data.qpos[0])

    def observe(self) -> np.ndarray:
        """The task's observation."""
        raise NotImplementedError

    def _info(self):
        x = self.position()
        return {'success': bool(x - self.init_qpos[0] > self.line), 'x_position': x}


class SparseHalfCheetahEnv(SparseRunEnv):
    """See the module; `line` is the distance to run."""

    def __init__(self, *, line: float = 20.0, render_mode: str | None = None):
        super().__init__('half_cheetah.xml', line, 17, render_mode)

    def observe(self):
        return np.concatenate([self.data.qpos[1:], self.data.qvel])


class SparseAntEnv(SparseRunEnv):
    """See the module; `line` is the distance to run, `contact_forces` fills the last 84 numbers."""

    def __init__(self, *, line: float = 10.0, contact_forces: bool = False, render_mode: str | None = None):
        self.contact_forces = contact_forces
        super().__init__('ant.xml', line, 112, render_mode)
        self._torso = self.model.body('torso').id

    def position(self):
        # Where the kinematics last found the torso, one simulation step back, as in the source.
        return float(self.data.xpos[self._torso, 0])

    def observe(self):
        forces = np.zeros(NUM_CONTACT_FORCES)
        if self.contact_forces:
            mujoco.mj_rnePostConstraint(self.model, self.data)
            forces = np.clip(self.data.cfrc_ext, -1.0, 1.0).ravel()
        return np.concatenate([self.data.qpos[:1], self.data.qpos[2:], self.data.qvel, forces])


class AntPaddedEnv(AntEnv):
    """Gymnasium's Ant-v4 with 84 zeros after its 27 observations, the layout of D4RL's ant-v2 files."""

    def __init__(self, *, render_mode: str | None = None):
        super().__init__(render_mode=render_mode)
        self.observation_space = unbounded(27 + NUM_CONTACT_FORCES)

    def _get_obs(self):
        return np.concatenate([super()._get_obs(), np.zeros(NUM_CONTACT_FORCES)])
