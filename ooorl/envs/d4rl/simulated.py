"""What the MuJoCo environments of this package share: a model, its data, stepping and drawing."""

from functools import lru_cache

import gymnasium
import mujoco
import numpy as np

from ooorl.envs.d4rl import assets


class SimulatedEnv(gymnasium.Env):
    """A gymnasium environment around one MuJoCo model.

    Subclasses adopt a model with `use_model` and write the spaces, `reset` and `step`. Whatever an episode
    does follows from the seed of its reset and the actions since: nothing is left over from earlier episodes,
    not even the warm start of the constraint solver.
    """

    metadata = {'render_modes': ['rgb_array']}

    def use_model(self, model, frame_skip: int, render_mode: str | None = None):
        """Adopts a compiled model; one environment step is `frame_skip` simulation steps."""
        self.model, self.data, self.frame_skip = model, mujoco.MjData(model), frame_skip
        self.init_qpos, self.init_qvel = self.data.qpos.copy(), self.data.qvel.copy()
        self.render_mode, self._renderer = render_mode, None

    @property
    def dt(self) -> float:
        """Seconds of simulated time in one environment step."""
        return self.model.opt.timestep * self.frame_skip

    def simulate(self, control):
        """Advances one environment step under a constant control."""
        self.data.ctrl[:] = control
        mujoco.mj_step(self.model, self.data, nstep=self.frame_skip)

    def set_state(self, qpos, qvel):
        """Sets positions and velocities and everything that follows from them."""
        self.data.qpos[:], self.data.qvel[:] = qpos, qvel
        mujoco.mj_forward(self.model, self.data)

    def reset_simulation(self):
        """Puts time, controls and the solver's warm start back to what they are in a new simulation."""
        mujoco.mj_resetData(self.model, self.data)

    def render(self):
        """The current view, `[480, 480, 3]` uint8; None unless made with `render_mode="rgb_array"`."""
        if self.render_mode != 'rgb_array':
            return None
        if self._renderer is None:
            self._renderer = mujoco.Renderer(self.model, 480, 480)
        self._renderer.update_scene(self.data)
        return self._renderer.render()

    def close(self):
        """Frees the renderer."""
        if getattr(self, '_renderer', None) is not None:
            self._renderer.close()
            self._renderer = None


def load_gymnasium_model(name: str):
    """Compiles a model that gymnasium packages."""
    return mujoco.MjModel.from_xml_path(assets.gymnasium_model(name))


@lru_cache
def margins_add() -> bool:
    """Whether the margins of two touching shapes add up (MuJoCo 3.11) or the larger one counts (MuJoCo 2 to 3.3)."""
    spec = mujoco.MjSpec()
    for height in (0.0, 0.35):
        body = spec.worldbody.add_body(pos=[0.0, 0.0, height])
        body.add_freejoint()
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.1, 0.0, 0.0], margin=0.1)
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    # The gap is 0.15: more than either margin, less than both.
    return data.ncon > 0


def with_largest_margins(model):
    """Makes the larger margin of two shapes count, as in the MuJoCo of D4RL, in a model of one margin throughout."""
    if margins_add():
        model.geom_margin[:] /= 2.0
    return model


def unbounded(size: int) -> gymnasium.spaces.Box:
    """The observation space of `size` unbounded numbers."""
    return gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float64)


def unit_box(size: int) -> gymnasium.spaces.Box:
    """The action space [-1, 1]^size."""
    return gymnasium.spaces.Box(-1.0, 1.0, (size,), np.float32)
