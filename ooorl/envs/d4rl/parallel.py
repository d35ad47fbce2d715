"""Many copies of one MuJoCo model stepped by several threads."""

import mujoco
import numpy as np
from mujoco import rollout

from ooorl.mapping import num_cores


class ParallelSimulation:
    """Copies of a model as rows of an array.

    Args:
      model: the compiled model.
      frame_skip: simulation steps of one `step`.
      num_threads: threads; None for one per core that this process may use.
    """

    def __init__(self, model, frame_skip: int, num_threads: int | None = None):
        self._model, self._frame_skip = model, frame_skip
        num_threads = num_threads or num_cores()
        self._data = [mujoco.MjData(model) for _ in range(num_threads)]
        self._rollout = rollout.Rollout(nthread=num_threads)
        self._size = mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS)

    def step(self, state: np.ndarray, control: np.ndarray) -> np.ndarray:
        """`[N, nq + nv]` positions and velocities one step after `state` `[N, nq + nv]` under `[N, nu]`."""
        num, width = state.shape
        # MuJoCo's full state is the time, the positions, the velocities, and what these models do not have.
        full = np.zeros((num, self._size))
        full[:, 1 : 1 + width] = state
        controls = np.repeat(control[:, None], self._frame_skip, axis=1)
        states, _ = self._rollout.rollout(self._model, self._data, full, controls)
        return states[:, -1, 1 : 1 + width]

    def close(self):
        """Ends the threads."""
        self._rollout.close()
