"""The stepping of a list of gymnasium environments, in this process or in a worker process.

Run as a script (`python host_worker.py CONNECTION MEMORY`, two inherited file descriptors) this file is a worker. It
imports neither jax nor ooorl, so that a worker starts quickly and holds little memory; whatever the environment
constructor needs is imported when it arrives. Requests and answers are small pickles on the connection; numbers of
every step go through a `Block` in memory that both map.
"""

import math
import mmap
import os
import pathlib
import pickle
import select
import signal
import sys
import time
import traceback
from typing import NamedTuple

import numpy as np

RESET, STEP = ('observation', 'info'), ('observation', 'reward', 'terminated', 'truncated', 'info')
SUCCESS_KEYS = ('success', 'is_success', 'goal_achieved')
_LARGEST = float(np.finfo(np.float32).max)


class Description(NamedTuple):
    """Plain facts of an environment."""

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
    action, seed = (np.float32, (num_envs, action_dim)), (np.int32, (num_envs,))
    return Block(action, seed, flag, observation=seen, next_observation=seen, reward=number, terminated=flag, truncated=flag,
                 success=flag)


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


class EnvironmentFailure(Exception):
    """An environment that raised, or gave an answer that cannot be stored.

    Attributes:
      needed, given: halves of a sentence, "... was needed" and what the environment did.
      row: which of the group's environments.
    """

    def __init__(self, needed: str, given: str, row: int | None = None):
        super().__init__(needed, given, row)
        self.needed, self.given, self.row = needed, given, row


def failure_of(error: BaseException, call: str, row: int | None) -> EnvironmentFailure:
    """What an exception out of the environment in `row` amounts to, with the line that raised it."""
    if isinstance(error, EnvironmentFailure):
        return EnvironmentFailure(error.needed, error.given, row)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    what = f'{type(error).__name__}: {" ".join(str(error).split())}'.removesuffix(': ')
    given = f'raised {what[:300]} ({pathlib.Path(frame.filename).name}, line {frame.lineno})'
    return EnvironmentFailure(f'an environment whose {call} runs', given, row)


def _parts(answer, names: tuple):
    if not isinstance(answer, tuple) or len(answer) != len(names):
        shown = f'{len(answer)} values' if isinstance(answer, tuple) else f'a {type(answer).__name__} alone'
        raise EnvironmentFailure(f'an answer of ({", ".join(names)})', f'gave {shown}')
    return answer


def _vector(value, shape: tuple) -> np.ndarray:
    """An observation of the promised shape; nothing is broadcast into a row."""
    array = value if isinstance(value, np.ndarray) else np.asarray(value)
    if array.shape != shape or array.dtype.kind not in 'fiub':
        raise EnvironmentFailure(f'an observation of numbers and shape {shape}', f'gave {array.dtype} of shape {array.shape}')
    return array


def _number(value) -> float:
    if not isinstance(value, float):
        array = np.asarray(value)
        if array.size != 1 or array.dtype.kind not in 'fiub':
            raise EnvironmentFailure('a reward that is one number', f'gave {value!r}')
        value = float(array.item())
    if not abs(value) <= _LARGEST:
        raise EnvironmentFailure('a finite reward', f'gave {value}')
    return value


def _flag(value, name: str) -> bool:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in 'fiub' or array.item() not in (0, 1):
        raise EnvironmentFailure(f'true or false as {name}', f'gave {value!r}')
    return bool(array.item())


def _success(info) -> bool:
    if not isinstance(info, dict):
        raise EnvironmentFailure('an info that is a dict', f'gave {info!r}')
    for name, value in ((name, info[name]) for name in SUCCESS_KEYS if name in info):
        if isinstance(value, str | bytes):
            raise EnvironmentFailure(f'true or false as {name!r} of its info', f'gave {value!r}')
        # np.all of one truth value takes as long as much of a step; what is not a number is no success.
        return bool(value) if isinstance(value, bool | np.bool_) else bool(np.all(np.equal(value, True)))
    return False


class EnvGroup:
    """Some environments of one kind, stepped one after another.

    Args:
      make_env: `() -> gymnasium.Env`, called once for each environment.
      num_envs: how many.

    Answers of wrong shapes and numbers that are not finite raise `EnvironmentFailure`; what an environment raises itself
    passes. `row` says then which one it was, and what the block holds means nothing. `description` is that of the first one.
    """

    def __init__(self, make_env, num_envs: int):
        self._envs, self._block, self.row = [], None, None
        try:
            for _ in range(num_envs):
                self._envs.append(make_env())
            self.description = describe(self._envs[0])
        except (Exception, SystemExit) as error:
            raise failure_of(error, 'constructor', len(self._envs)) from error

    def attach(self, block: Block) -> None:
        """Says where actions are found and answers go; comes before any reset or step."""
        self._block, self._shape = block, block.observation.shape[1:]
        self._zeros = np.zeros_like(block.observation)
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

    def _begin(self, row: int) -> np.ndarray:
        """The first observation of an episode with the block's seed, checked."""
        self.row = row
        observation, _ = _parts(self._envs[row].reset(seed=int(self._block.seed[row])), RESET)
        observation = _vector(observation, self._shape).astype(np.float32)
        return self._check_finite(observation[None])[0]

    def reset(self) -> None:
        """Begins an episode everywhere."""
        for row in range(len(self._envs)):
            self._block.observation[row] = self._begin(row)

    def replay(self, jobs: list[tuple[int, int, np.ndarray]]) -> None:
        """For each (index, seed, actions[t, A]): bring that environment to where the actions lead after the seed."""
        for row, seed, actions in jobs:
            env, self.row = self._envs[row], row
            env.reset(seed=int(seed))
            for action in self._to_box(actions):
                env.step(action)

    def step(self) -> None:
        """One step everywhere, and a reset with the block's seed where an episode ended or is at its limit."""
        block, shape, rewards, ends, cuts, successes, resets = self._block, self._shape, [], [], [], [], []
        for row, (env, action, last) in enumerate(
            zip(self._envs, self._to_box(block.action), block.at_limit.tolist(), strict=True)
        ):
            self.row = row
            observation, reward, terminated, truncated, info = _parts(env.step(action), STEP)
            # Copied at once, because an environment may hand out a buffer that its own reset overwrites.
            block.next_observation[row] = _vector(observation, shape)
            terminated = _flag(terminated, 'terminated')
            truncated = (_flag(truncated, 'truncated') or last) and not terminated
            rewards.append(_number(reward))
            ends.append(terminated)
            cuts.append(truncated)
            successes.append(_success(info))
            if terminated or truncated:
                resets.append((row, self._begin(row)))
        self._check_finite(block.next_observation)
        block.observation[:] = block.next_observation
        for row, observation in resets:
            block.observation[row] = observation
        block.reward[:], block.terminated[:], block.truncated[:], block.success[:] = rewards, ends, cuts, successes

    def _check_finite(self, observations: np.ndarray) -> np.ndarray:
        # A product with zeros is zero, or else NaN: a tenth of what isfinite and all take together.
        if not math.isfinite(np.vdot(observations, self._zeros[: len(observations)])):
            row, column = np.argwhere(~np.isfinite(observations))[0].tolist()
            self.row = row if len(observations) > 1 else self.row
            raise EnvironmentFailure('a finite observation', f'gave {observations[row, column]} in column {column}')
        return observations

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
        return tuple(self.group.description)

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
        except (Exception, SystemExit) as error:  # reported to the parent, which raises
            row = getattr(error, 'row', None) if worker.group is None else worker.group.row
            answer = number, False, failure_of(error, name, row).args
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
