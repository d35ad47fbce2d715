"""The stepping of a list of gymnasium environments, in this process or in a worker process.

Run as a script (`python host_worker.py CONNECTION MEMORY`, two inherited file descriptors) this file is a worker. It
imports neither jax nor ooorl, so that a worker starts quickly and holds little memory; whatever the environment
constructor needs is imported when it arrives. Requests and answers are small pickles on the connection; numbers of
every step go through a `Block` in memory that both map.
"""

import math
import mmap
import os
import pickle
import select
import signal
import sys
import time
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


class Block(NamedTuple):
    """Arrays through which a group and its caller exchange what changes in every step; leading axis: environments.

    Attributes:
      action: `[N, A]` float32 in [-1, 1], written by the caller.
      seed: `[N]` int32, of the reset to come, written by the caller.
      at_limit: `[N]` bool, whether the step to come is the last within the time limit, written by the caller.
      observation, next_observation, reward, terminated, truncated, success: the group's answer to a step, meanings as
        in `TimeStep`, float32 and bool; `observation` is also its answer to a reset.
    """

    action: np.ndarray
    seed: np.ndarray
    at_limit: np.ndarray
    observation: np.ndarray
    next_observation: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    success: np.ndarray

    def rows(self, start: int, stop: int) -> 'Block':
        """The part of the environments from `start` to `stop`, in the same memory."""
        return Block(*(array[start:stop] for array in self))


def _layout(num_envs: int, observation_dim: int, action_dim: int) -> Block:
    """(dtype, shape) of each array."""
    number, flag, seen = (np.float32, (num_envs,)), (np.bool_, (num_envs,)), (np.float32, (num_envs, observation_dim))
    return Block(
        action=(np.float32, (num_envs, action_dim)),
        seed=(np.int32, (num_envs,)),
        at_limit=flag,
        observation=seen,
        next_observation=seen,
        reward=number,
        terminated=flag,
        truncated=flag,
        success=flag,
    )


def _aligned(size: int) -> int:
    return -(-size // 64) * 64


def block_bytes(*sizes: int) -> int:
    """How much memory a block of `(num_envs, observation_dim, action_dim)` takes."""
    return sum(_aligned(np.dtype(dtype).itemsize * math.prod(shape)) for dtype, shape in _layout(*sizes))


def block_in(memory, *sizes: int) -> Block:
    """The block of `(num_envs, observation_dim, action_dim)` that lies in a buffer, the same for all who map it."""
    arrays, offset = [], 0
    for dtype, shape in _layout(*sizes):
        arrays.append(np.frombuffer(memory, dtype, math.prod(shape), offset).reshape(shape))
        offset += _aligned(arrays[-1].nbytes)
    return Block(*arrays)


def wait_awake(poller, seconds: float = 1e-4) -> None:
    """Waits for something to read, but not for long: a process that goes to sleep takes as long to wake as a step takes.

    Whoever else wants the core gets it. After `seconds` it is for the caller to wait asleep.
    """
    end = time.perf_counter() + seconds
    while not poller.poll(0) and time.perf_counter() < end:
        os.sched_yield()


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
    for name in SUCCESS_KEYS:
        if name in info:
            value = info[name]
            # np.all of one truth value takes as long as much of a step.
            return bool(value) if isinstance(value, bool | np.bool_) else bool(np.all(value))
    return False


class EnvGroup:
    """Some environments of one kind, stepped one after another.

    Args:
      make_env: `() -> gymnasium.Env`, called once for each environment.
      num_envs: how many.
    """

    def __init__(self, make_env, num_envs: int):
        self._envs = [make_env() for _ in range(num_envs)]
        self._block = None

    def describe(self) -> Description:
        """The facts of the first environment."""
        return describe(self._envs[0])

    def attach(self, block: Block) -> None:
        """Says where actions are found and answers go; comes before any reset or step."""
        self._block = block
        space = self._envs[0].action_space
        low, high = space.low.astype(np.float64).reshape(-1), space.high.astype(np.float64).reshape(-1)
        self._low, self._span, self._bounds = low, high - low, (space.low, space.high)

    def _to_box(self, actions: np.ndarray) -> np.ndarray:
        """From [-1, 1] onto the action bounds, in fresh memory, which an environment may keep."""
        scaled = np.add(actions, 1.0, dtype=np.float64)
        scaled /= 2.0
        scaled *= self._span
        scaled += self._low
        low, high = self._bounds
        boxed = scaled.astype(low.dtype, copy=False).reshape(len(actions), *low.shape)
        np.maximum(boxed, low, out=boxed)
        return np.minimum(boxed, high, out=boxed)

    def reset(self) -> None:
        """Begins an episode everywhere."""
        for row, env in enumerate(self._envs):
            self._block.observation[row] = env.reset(seed=int(self._block.seed[row]))[0]

    def replay(self, jobs: list[tuple[int, int, np.ndarray]]) -> None:
        """For each (index, seed, actions[t, A]): bring that environment to where the actions lead after the seed."""
        for index, seed, actions in jobs:
            env = self._envs[index]
            env.reset(seed=int(seed))
            for action in self._to_box(actions):
                env.step(action)

    def step(self) -> None:
        """One step everywhere, and a reset with the block's seed where an episode ended or is at its limit."""
        block, rewards, ends, cuts, successes = self._block, [], [], [], []
        resets = []
        for row, (env, action, last) in enumerate(
            zip(self._envs, self._to_box(block.action), block.at_limit.tolist(), strict=True)
        ):
            # Copied at once, because an environment may hand out a buffer that its own reset overwrites.
            block.next_observation[row], reward, terminated, truncated, info = env.step(action)
            terminated = bool(terminated)
            truncated = (bool(truncated) or last) and not terminated
            if terminated or truncated:
                resets.append((row, env.reset(seed=int(block.seed[row]))[0]))
            rewards.append(float(reward))
            ends.append(terminated)
            cuts.append(truncated)
            successes.append(_success(info))
        block.observation[:] = block.next_observation
        for row, observation in resets:
            block.observation[row] = observation
        block.reward[:], block.terminated[:], block.truncated[:], block.success[:] = rewards, ends, cuts, successes

    def close(self) -> None:
        """Closes the environments."""
        for env in self._envs:
            env.close()


class _Worker:
    """What a worker process can be asked to do, by name."""

    def __init__(self, memory_file: int):
        self._memory_file = memory_file
        self.group = None

    def begin(self, search_path, pickled, num_envs):
        import cloudpickle

        sys.path[:] = search_path
        self.group = EnvGroup(cloudpickle.loads(pickled), num_envs)
        # A plain tuple, because this file has another module name in the parent.
        return tuple(self.group.describe())

    def attach(self, sizes, start, stop):
        memory = mmap.mmap(self._memory_file, block_bytes(*sizes))
        self.group.attach(block_in(memory, *sizes).rows(start, stop))

    def __getattr__(self, name):
        return getattr(self.group, name)


def _serve(connection, worker) -> None:
    poller = select.poll()
    poller.register(connection.fileno(), select.POLLIN)
    while True:
        try:
            wait_awake(poller)
            number, name, arguments = pickle.loads(connection.recv_bytes())
        except (EOFError, OSError):  # the parent is gone or has closed its end
            break
        try:
            answer = number, True, getattr(worker, name)(*arguments)
        except Exception:  # noqa: BLE001 - reported to the parent, which raises
            answer = number, False, traceback.format_exc()
        try:
            connection.send_bytes(pickle.dumps(answer))
        except OSError:
            break
    if worker.group is not None:
        worker.group.close()


def main() -> None:
    """A worker's life: answer requests on the inherited connection until it closes."""
    from multiprocessing.connection import Connection

    # Ctrl-C reaches the whole process group; the parent decides what happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection, memory_file = map(int, sys.argv[1:])
    _serve(Connection(connection), _Worker(memory_file))
    # Skips finalisers of rendering libraries, which may hang.
    os._exit(0)


if __name__ == '__main__':
    main()
