"""The stepping of a list of gymnasium environments, in this process or in a worker process.

Run as a script (`python host_worker.py FD`) this file is a worker. It imports neither jax nor ooorl, so that a
worker starts quickly and holds little memory; whatever the environment constructor needs is imported when it arrives.
"""

import os
import signal
import sys
import traceback
from typing import NamedTuple

import numpy as np

SUCCESS_KEYS = ('success', 'is_success', 'goal_achieved')


class Description(NamedTuple):
    """Plain facts of an environment, for the adapter to judge."""

    observation_space: str
    observation_shape: tuple[int, ...] | None
    action_space: str
    action_low: np.ndarray | None
    action_high: np.ndarray | None
    max_episode_steps: int | None


class Stepped(NamedTuple):
    """What a group answers to a step, leading axis: its environments. Field meanings as in `TimeStep`."""

    observation: np.ndarray
    next_observation: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    success: np.ndarray


def _time_limit(env) -> int | None:
    if env.spec is not None and env.spec.max_episode_steps is not None:
        return int(env.spec.max_episode_steps)
    while env is not None:
        limit = getattr(env, '__dict__', {}).get('_max_episode_steps')
        if limit is not None:
            return int(limit)
        env = getattr(env, 'env', None)
    return None


def describe(env) -> Description:
    """The facts of one environment."""
    observation, action = env.observation_space, env.action_space
    is_box = type(action).__name__ == 'Box'
    return Description(
        observation_space=type(observation).__name__,
        observation_shape=observation.shape,
        action_space=type(action).__name__,
        action_low=action.low if is_box else None,
        action_high=action.high if is_box else None,
        max_episode_steps=_time_limit(env),
    )


def _success(info: dict) -> bool:
    return next((bool(np.all(info[name])) for name in SUCCESS_KEYS if name in info), False)


class EnvGroup:
    """Some environments of one kind, stepped one after another.

    Args:
      make_env: `() -> gymnasium.Env`, called once for each environment.
      num_envs: how many.
    """

    def __init__(self, make_env, num_envs: int):
        self._envs = [make_env() for _ in range(num_envs)]
        self._low = self._high = None

    def describe(self) -> Description:
        """The facts of the first environment."""
        return describe(self._envs[0])

    def _to_box(self, actions: np.ndarray) -> np.ndarray:
        space = self._envs[0].action_space
        if self._low is None:
            self._low, self._high = space.low.astype(np.float64), space.high.astype(np.float64)
        share = (np.clip(actions.astype(np.float64), -1.0, 1.0) + 1.0) / 2.0
        scaled = self._low + share.reshape(len(actions), *space.shape) * (self._high - self._low)
        return np.clip(scaled.astype(space.dtype), space.low, space.high)

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        """Begins an episode everywhere; `[num_envs, O]` float32."""
        observations = [env.reset(seed=int(seed))[0] for env, seed in zip(self._envs, seeds, strict=True)]
        return np.stack(observations).astype(np.float32)

    def replay(self, jobs: list[tuple[int, int, np.ndarray]]) -> None:
        """For each (index, seed, actions[t, A]): bring that environment to where the actions lead after the seed."""
        for index, seed, actions in jobs:
            env = self._envs[index]
            env.reset(seed=int(seed))
            for action in self._to_box(actions):
                env.step(action)

    def step(self, actions: np.ndarray, next_seeds: np.ndarray, at_limit: np.ndarray) -> Stepped:
        """One step everywhere, and a reset with `next_seeds` where an episode ended or is `at_limit`."""
        rows = [
            self._step_one(env, action, int(seed), bool(last))
            for env, action, seed, last in zip(self._envs, self._to_box(actions), next_seeds, at_limit, strict=True)
        ]
        observation, successor, reward, terminated, truncated, success = zip(*rows, strict=True)
        return Stepped(
            np.stack(observation).astype(np.float32),
            np.stack(successor).astype(np.float32),
            np.array(reward, np.float32),
            np.array(terminated, bool),
            np.array(truncated, bool),
            np.array(success, bool),
        )

    def _step_one(self, env, action, next_seed, last):
        successor, reward, terminated, truncated, info = env.step(action)
        # Copied, because an environment may hand out a buffer that its own reset overwrites.
        successor = np.array(successor, np.float32)
        terminated = bool(terminated)
        truncated = (bool(truncated) or last) and not terminated
        observation = env.reset(seed=next_seed)[0] if terminated or truncated else successor
        return observation, successor, float(reward), terminated, truncated, _success(info)

    def close(self) -> None:
        """Closes the environments."""
        for env in self._envs:
            env.close()


def _serve(connection) -> None:
    import cloudpickle

    group = None
    while True:
        try:
            name, arguments = connection.recv()
        except (EOFError, OSError):  # the parent is gone or has closed its end
            break
        try:
            if name == 'begin':
                search_path, pickled, num_envs = arguments
                sys.path[:] = search_path
                group = EnvGroup(cloudpickle.loads(pickled), num_envs)
                answer = group.describe()
            else:
                answer = getattr(group, name)(*arguments)
            # A plain tuple, because this file has another module name in the parent.
            connection.send((True, tuple(answer) if isinstance(answer, tuple) else answer))
        except Exception:  # noqa: BLE001 - reported to the parent, which raises
            connection.send((False, traceback.format_exc()))
    if group is not None:
        group.close()


def main() -> None:
    """A worker's life: answer requests on the inherited connection until it closes."""
    from multiprocessing.connection import Connection

    # Ctrl-C reaches the whole process group; the parent decides what happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _serve(Connection(int(sys.argv[1])))
    # Skips finalisers of rendering libraries, which may hang.
    os._exit(0)


if __name__ == '__main__':
    main()
