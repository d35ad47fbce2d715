"""What the MuJoCo environments of this package share: a model, its data, stepping and drawing."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import gymnasium
import mujoco
import numpy as np

from ooorl.envs.d4rl import assets

PICTURE_SIZE = 480


def from_above(centre, extent: float, azimuth: float) -> dict:
    """A view straight down on a square of side `extent` (m) around `centre` (x, y); `azimuth` is the direction of up."""
    # The free camera opens 45 degrees; a tenth is left free around.
    distance = 1.1 * extent / (2.0 * np.tan(np.pi / 8.0))
    return {'lookat': [*centre, 0.0], 'distance': distance, 'azimuth': azimuth, 'elevation': -90.0}


class SimulatedEnv(gymnasium.Env):
    """A gymnasium environment around one MuJoCo model.

    Subclasses adopt a model with `use_model` and write the spaces, `reset` and `step`; `view` is where it is seen from
    and `marks` what is drawn beside the model. Whatever an episode
    does follows from the seed of its reset and the actions since: nothing is left over from earlier episodes,
    not even the warm start of the constraint solver.
    """

    metadata = {'render_modes': ['rgb_array']}
    view: Mapping | str = {}  # the free camera's lookat, distance, azimuth and elevation; or a camera of the model by name

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
            self._renderer = mujoco.Renderer(self.model, PICTURE_SIZE, PICTURE_SIZE)
        self._renderer.update_scene(self.data, camera=self._camera())
        scene = self._renderer.scene
        # A software renderer takes eight times as long with them.
        scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        for position, radius in self.marks():
            size = np.array([radius, 0.0, 0.0])
            colour = np.array([0.1, 0.7, 0.2, 0.5], np.float32)
            sphere = mujoco.mjtGeom.mjGEOM_SPHERE
            mujoco.mjv_initGeom(scene.geoms[scene.ngeom], sphere, size, np.asarray(position), np.eye(3).ravel(), colour)
            scene.ngeom += 1
        return self._renderer.render()

    def _camera(self):
        if isinstance(self.view, str):
            return self.view
        camera = mujoco.MjvCamera()
        mujoco.mjv_defaultFreeCamera(self.model, camera)
        for name, value in self.view.items():
            if name == 'lookat':
                camera.lookat[:] = value
            else:
                setattr(camera, name, value)
        return camera

    def marks(self) -> Sequence[tuple[Sequence[float], float]]:
        """Transparent balls to draw, as (position, radius) in the simulated world; none here."""
        return ()

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
