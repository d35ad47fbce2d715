"""The compiled tasks as ordinary gymnasium environments, for comparison with other libraries.

`import ooorl.envs` registers the ids; `gymnasium.make('ooorl.envs:ooorl/UMaze-v0')` imports and makes in one go.
"""

from typing import ClassVar

import gymnasium
import jax
import numpy as np

from ooorl.envs.registry import TASKS, make_task


class TaskEnv(gymnasium.Env):
    """One copy of a compiled task as a gymnasium environment; `info` holds `success`.

    The time limit is gymnasium's own `TimeLimit`, which `gymnasium.make` adds.

    Args:
      task: id of the task, as for `ooorl.envs.make_task`.
      render_mode: None, or 'rgb_array' for pictures, where the task has any.
      **settings: of the task.
    """

    metadata: ClassVar[dict] = {'render_modes': ['rgb_array'], 'render_fps': 15}

    def __init__(self, task: str, render_mode: str | None = None, **settings):
        self.render_mode = render_mode
        self._task = make_task(task, **settings)
        spec = self._task.spec
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (spec.observation_dim,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (spec.action_dim,), np.float32)
        self._reset, self._step = jax.jit(self._task.reset), jax.jit(self._task.step)
        self._state = self._key = self._seen = None

    def _draw_key(self):
        self._key, key = jax.random.split(self._key)
        return key

    def reset(self, *, seed=None, options=None):
        """Begins an episode; see `gymnasium.Env.reset`."""
        super().reset(seed=seed)
        self._key = jax.random.key(int(self.np_random.integers(2**31)))
        self._state, observation = self._reset(self._draw_key())
        self._seen = np.asarray(observation)
        return self._seen, {'success': False}

    def render(self):
        """The picture of the present observation, `[H, W, 3]` uint8; None where the task has none."""
        if self.render_mode is None or self._task.render is None or self._seen is None:
            return None
        return self._task.render(self._seen)

    def step(self, action):
        """Takes a step; see `gymnasium.Env.step`. It never truncates."""
        action = np.asarray(action, np.float32)
        self._state, observation, reward, terminated, success = self._step(self._state, action, self._draw_key())
        self._seen = np.asarray(observation)
        return self._seen, float(reward), bool(terminated), False, {'success': bool(success)}


def register() -> None:
    """Registers every compiled task with gymnasium under its id; harmless when repeated."""
    for name in TASKS:
        if name not in gymnasium.registry:
            gymnasium.register(
                id=name,
                entry_point='ooorl.envs.gymnasium_tasks:TaskEnv',
                max_episode_steps=make_task(name).horizon,
                kwargs={'task': name},
            )
