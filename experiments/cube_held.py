"""cube-single with the cube in the hand: an environment for `parl_claim.py` in which a little training scores something.

`cube_held:CubeHeld-v0` with `starts = "FILE"`, data of cube-single made by `ooorl data make`: every episode begins in a recorded
state, 5 to 20 steps before the cube arrived at the goal of task 1, and may last 40 steps. All else is
`cube-single-play-singletask-task1-v0`.
"""

from pathlib import Path

import gymnasium
import numpy as np

from ooorl.envs.ogbench.single_task import SingleTaskEnv
from ooorl.errors import UsageError

NAME, HORIZON = 'CubeHeld-v0', 40
LEAD = (5, 20)  # steps before the arrival


class CubeHeldEnv(SingleTaskEnv):
    """Task 1 of cube-single from the states before the arrivals that a data set holds."""

    def __init__(self, starts: str, render_mode: str | None = None):
        if not Path(starts).is_file():
            raise UsageError(f'{NAME} needs data of cube-single as settings.starts; got {starts!r}; name the file')
        super().__init__('cube-single', 1, render_mode=render_mode)
        with np.load(starts) as columns:
            self._states = {name: columns[name] for name in self.state_names}
            within = np.concatenate([np.arange(rows) for rows in np.diff([-1, *np.flatnonzero(columns['terminals'])])])
        super().reset(seed=0)
        rewards, _ = self.labelled(self._states)
        arrived = np.flatnonzero((rewards[1:] == 0) & (rewards[:-1] < 0)) + 1
        self._arrivals = arrived[within[arrived] >= LEAD[1]]
        if not len(self._arrivals):
            raise UsageError(f'{NAME} needs data in which the cube arrives at the goal; got none in {starts}; make more rows')

    def reset(self, *, seed=None, options=None):
        """Begins an episode with the cube on its way."""
        super().reset(seed=seed, options=options)
        row = int(self.np_random.choice(self._arrivals) - self.np_random.integers(LEAD[0], LEAD[1] + 1))
        self.set_env_state({name: column[row] for name, column in self._states.items()})
        return self._inner.compute_observation(), {'success': False}


gymnasium.register(NAME, entry_point=CubeHeldEnv, max_episode_steps=HORIZON)
