"""One small task twice: as a compiled `Task` and as a gymnasium environment, with equal numbers."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from ooorl.types import Spec, Task

HORIZON, GOAL = 5, 2.0


def line_task() -> Task:
    """A point on a line that starts at 0 and moves by its action; reward is the new position; from 2 on the episode ends."""

    def reset(key):
        del key
        start = jnp.zeros((1,), jnp.float32)
        return start, start

    def step(state, action, key):
        del key
        position = state + action
        reached = position[0] >= GOAL
        return position, position, position[0], reached, reached

    return Task(spec=Spec(observation_dim=1, action_dim=1), horizon=HORIZON, reset=reset, step=step)


class LineEnv(gymnasium.Env):
    """The same for gymnasium."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        """Back to 0."""
        super().reset(seed=seed)
        self.position = np.zeros(1, np.float32)
        return self.position.copy(), {}

    def step(self, action):
        """One move."""
        self.position = self.position + np.float32(action)
        reached = bool(self.position[0] >= GOAL)
        return self.position.copy(), float(self.position[0]), reached, False, {'success': reached}


class NoisyLineEnv(LineEnv):
    """The same with noise from the environment's own generator, which a resumed run must go on with."""

    def reset(self, *, seed=None, options=None):
        """Near 0."""
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-0.5, 0.5, 1).astype(np.float32)
        return self.position.copy(), {}

    def step(self, action):
        """One move and some noise."""
        return super().step(np.float32(action) + np.float32(0.1 * self.np_random.normal()))


def eighths(observation, key):
    """Random actions without rounding, whatever scales them."""
    return jnp.round(jax.random.uniform(key, observation.shape, minval=-0.5, maxval=1.0) * 8) / 8


for name, kind in (('Line-v0', LineEnv), ('NoisyLine-v0', NoisyLineEnv)):
    if name not in gymnasium.registry:
        gymnasium.register(name, entry_point=kind, max_episode_steps=HORIZON)
