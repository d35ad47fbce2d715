"""One episode as a film, where the environment can be drawn."""

import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path

import gymnasium
import jax

from ooorl import envs
from ooorl.envs.dict_observations import joined
from ooorl.errors import UsageError
from ooorl.mapping import index_seed
from ooorl.training.evaluate import evaluate

# Viewers show pictures of a GIF that are closer together than this in slow motion.
MAX_PICTURES_PER_SECOND = 30


class _Filmed(gymnasium.Wrapper):
    """Keeps a picture of the first episode's reset, of every `stride`-th step and of the last."""

    def __init__(self, env, frames: list, stride: int):
        super().__init__(env)
        self._frames, self._stride, self._steps, self._rolling = frames, stride, 0, True

    def reset(self, **kwargs):
        answer = super().reset(**kwargs)
        if not self._frames:
            self._frames.append(self.env.render())
        return answer

    def step(self, action):
        answer = super().step(action)
        if self._rolling:
            self._steps += 1
            self._rolling = not (answer[2] or answer[3])
            if self._steps % self._stride == 0 or not self._rolling:
                self._frames.append(self.env.render())
        return answer


class Camera:
    """An environment ready to be filmed; making one finds out whether it can be, before anything is played.

    Args:
      path: the film to write, .gif or .mp4.
      table: the resolved `[environment]` table, with the settings of the evaluation merged in.

    Raises:
      UsageError: one sentence on why there will be no film.
    """

    def __init__(self, path: Path, table: Mapping):
        self._path, self._frames = Path(path), []
        self._check_file()
        name, settings = table['id'], dict(table['settings'])
        if name in envs.HOSTS and name not in gymnasium.registry:
            raise UsageError(f'--video needs an environment that can be drawn; {name} has no pictures; leave --video out')
        horizon, keys = settings.pop('horizon', None), settings.pop('observation_keys', ())
        limit = {} if horizon is None else {'max_episode_steps': horizon}
        try:
            settings |= {'disable_env_checker': True, 'render_mode': 'rgb_array', **limit}
            env = joined(lambda: gymnasium.make(name, **settings), keys)
            env.reset(seed=0)
            drawn = env.render() is not None
        except Exception as error:  # noqa: BLE001 - drivers fail in many ways, none of which is the user's reading
            first = f'{type(error).__name__}: {error}'.partition('\n')[0]
            raise UsageError(
                f'--video needs graphics, or a software renderer; drawing {name} failed here ({first}); set '
                'MUJOCO_GL=egl or MUJOCO_GL=osmesa and have its library, or leave --video out'
            ) from None
        if not drawn:
            raise UsageError(f'--video needs an environment that can be drawn; {name} draws nothing; leave --video out')
        step_seconds = getattr(env.unwrapped, 'dt', None)
        steps_per_second = env.metadata.get('render_fps') or (1.0 / step_seconds if step_seconds else 30)
        stride = math.ceil(steps_per_second / MAX_PICTURES_PER_SECOND)
        self._rate, self._env = steps_per_second / stride, env
        self._environment = envs.host(lambda: _Filmed(env, self._frames, stride), (1,), horizon=horizon)

    def _check_file(self):
        if self._path.suffix not in ('.gif', '.mp4'):
            raise UsageError(f'--video takes a name that ends in .gif or .mp4; got {self._path}')
        if not self._path.parent.is_dir():
            raise UsageError(f'--video needs a folder to write to; {self._path.parent} does not exist; create it first')
        if self._path.suffix == '.mp4' and not any(map(importlib.util.find_spec, ('imageio_ffmpeg', 'av'))):
            raise UsageError('--video needs the package imageio-ffmpeg for .mp4; install it or name a .gif')

    def film(self, agent, agent_state, key) -> str:
        """Plays an episode with the deployed actions of the first seed; one sentence to print."""
        import imageio.v3 as imageio

        state = index_seed(agent_state, 0)
        act = jax.jit(lambda observation, key: agent.best_action(state, observation, key))
        evaluate(self._environment, act, key, agent.chunk)
        self._env.close()
        timing = {'duration': 1000 / self._rate, 'loop': 0} if self._path.suffix == '.gif' else {'fps': self._rate}
        imageio.imwrite(self._path, self._frames, **timing)
        return f'video: {self._path}, {len(self._frames)} pictures'
