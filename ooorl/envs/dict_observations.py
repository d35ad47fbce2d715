"""Dict observations as vectors: chosen entries, one behind the other, as data files put them together."""

from collections.abc import Callable, Sequence

import gymnasium
import numpy as np

from ooorl.errors import UsageError


class JoinedObservation(gymnasium.ObservationWrapper):
    """An environment that shows some entries of its dict observations as one vector.

    Args:
      env: its observation space is a `Dict`.
      keys: the entries, '/' between levels, in the order in which they are put together.

    Raises:
      UsageError: if an entry is missing, or is no vector.
    """

    def __init__(self, env: gymnasium.Env, keys: Sequence[str]):
        super().__init__(env)
        self._keys = tuple(keys)
        parts = [_entry(env.observation_space, key, env) for key in self._keys]
        low, high = (np.concatenate([getattr(part, side).ravel() for part in parts]) for side in ('low', 'high'))
        self.observation_space = gymnasium.spaces.Box(low, high, dtype=np.result_type(low, high))

    def observation(self, observation):
        """The vector of one dict observation."""
        parts = []
        for key in self._keys:
            part = observation
            for level in key.split('/'):
                part = part[level]
            parts.append(np.ravel(part))
        return np.concatenate(parts)


def joined(make_env: Callable[[], gymnasium.Env], keys: Sequence[str]) -> gymnasium.Env:
    """The environment with vector observations; as it is where it has no dict observations."""
    env = make_env()
    return JoinedObservation(env, keys) if isinstance(env.observation_space, gymnasium.spaces.Dict) else env


def _entry(space, key, env):
    for level in key.split('/'):
        if not isinstance(space, gymnasium.spaces.Dict) or level not in space.spaces:
            known = ', '.join(env.observation_space.spaces)
            raise UsageError(f'observation_keys must be entries of the observation, which has {known}; got {key!r}; mend it')
        space = space[level]
    if not isinstance(space, gymnasium.spaces.Box):
        raise UsageError(f'observation_keys must name arrays of numbers; {key!r} is {type(space).__name__}; leave it out')
    return space
