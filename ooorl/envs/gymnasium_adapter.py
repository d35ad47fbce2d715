"""Gymnasium environments as host environments: stepped outside JAX, resumable bit for bit.

Every reset has its own seed, a function of the key, the environment's index and how many episodes it has begun. So
an environment that is deterministic given its seed is at any moment a function of that seed and of the actions since
the reset. These make up the state; where the live environments hold another state than the one they are given (after
a resume in a new process, or when an old state is stepped again), they are rebuilt by a reset and a replay.
"""

import functools
import importlib
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ooorl.envs.host_worker import Description, Stepped
from ooorl.envs.worker_pool import LocalGroup, WorkerGroup
from ooorl.errors import UsageError
from ooorl.types import Environment, Spec, TimeStep


class HostState(NamedTuple):
    """Numpy arrays with the leading axes `batch_shape`; enough to rebuild every environment.

    Attributes:
      entropy: `[..., K]` uint32, words of the key given to `reset`.
      episode_count: `[...]` int32, episodes begun before the present one.
      episode_seed: `[...]` int32, seed of the present episode's reset.
      elapsed: `[...]` int32, steps since that reset.
      actions: `[..., horizon, A]` float32, the actions since that reset, then zeros.
    """

    entropy: np.ndarray
    episode_count: np.ndarray
    episode_seed: np.ndarray
    elapsed: np.ndarray
    actions: np.ndarray


@functools.lru_cache(maxsize=65536)
def _seed(entropy: bytes, index: int, episode: int) -> int:
    words = [*np.frombuffer(entropy, np.uint32).tolist(), index, episode]
    # Fits int32 and is not negative, because checkpoints may pass through jax arrays.
    return int(np.random.SeedSequence(words).generate_state(1)[0] >> 1)


def _seeds(entropy: np.ndarray, episode: np.ndarray, row: int) -> np.ndarray:
    """`[B]` seeds; an environment's index counts within its row, so that rows do not depend on each other."""
    numbers = [
        _seed(words.tobytes(), i % row, int(count))
        for i, (words, count) in enumerate(zip(entropy, episode, strict=True))
    ]
    return np.array(numbers, np.int32)


def _check(description: Description, horizon: int | None, name: str) -> tuple[Spec, int]:
    if description.observation_space != 'Box' or len(description.observation_shape) != 1:
        raise UsageError(
            f'{name}: observations must be a Box vector; these are {description.observation_space} of shape '
            f'{description.observation_shape}; wrap the environment with gymnasium.wrappers.FlattenObservation'
        )
    if description.action_space != 'Box':
        raise UsageError(
            f'{name}: actions must be a Box; these are {description.action_space}; use another environment'
        )
    if not (np.all(np.isfinite(description.action_low)) and np.all(np.isfinite(description.action_high))):
        raise UsageError(f'{name}: actions must have finite bounds, onto which [-1, 1] is mapped; these are unbounded')
    limits = [limit for limit in (horizon, description.max_episode_steps) if limit is not None]
    if not limits:
        raise UsageError(f'{name}: a time limit is needed and the environment has none; pass horizon=...')
    if min(limits) < 1:
        raise UsageError(f'{name}: horizon must be 1 or more; got {min(limits)}')
    spec = Spec(observation_dim=description.observation_shape[0], action_dim=math.prod(description.action_low.shape))
    return spec, min(limits)


class _Live:
    """The live environments and the flat state (one leading axis) that they hold; None if unknown."""

    def __init__(self, make_env: Callable, num_envs: int, workers: int):
        num_groups = max(1, min(workers, num_envs))
        sizes = [len(share) for share in np.array_split(np.arange(num_envs), num_groups)]
        kind = WorkerGroup if workers else LocalGroup
        self._groups = [kind(make_env, size) for size in sizes]
        self._bounds = np.cumsum([0, *sizes])
        self.description = Description(*self._receive()[0])
        self.held: HostState | None = None

    def _shares(self, *arrays):
        return [tuple(array[a:b] for array in arrays) for a, b in itertools.pairwise(self._bounds)]

    def _ask(self, name: str, requests: list[tuple]) -> list:
        # Forgotten first: after a failure it is unknown what the environments hold.
        held, self.held = self.held, None
        for group, arguments in zip(self._groups, requests, strict=True):
            group.send(name, arguments)
        answers = self._receive()
        self.held = held
        return answers

    def _receive(self) -> list:
        outcomes = []
        for group in self._groups:
            # Every answer is read, also after a failure, so that no stale one waits in a pipe.
            try:
                outcomes.append(group.receive())
            except RuntimeError as error:
                outcomes.append(error)
        for outcome in outcomes:
            if isinstance(outcome, RuntimeError):
                raise outcome
        return outcomes

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        return np.concatenate(self._ask('reset', self._shares(seeds)))

    def hold(self, state: HostState) -> None:
        """Notes what the environments hold; read-only from here on, because it is shared with the caller."""
        for leaf in state:
            leaf.flags.writeable = False
        self.held = state

    def bring_to(self, state: HostState) -> None:
        """Rebuilds those environments that do not hold `state`."""
        held = self.held
        stale = np.ones(len(state.elapsed), bool)
        if held is not None:
            same_actions = np.all(held.actions == state.actions, axis=(1, 2))
            stale = ~((held.episode_seed == state.episode_seed) & (held.elapsed == state.elapsed) & same_actions)
        jobs = [(i, int(state.episode_seed[i]), state.actions[i, : state.elapsed[i]]) for i in np.flatnonzero(stale)]
        if jobs:
            spans = itertools.pairwise(self._bounds)
            self._ask('replay', [([(i - a, *job) for i, *job in jobs if a <= i < b],) for a, b in spans])

    def step(self, actions: np.ndarray, next_seeds: np.ndarray, at_limit: np.ndarray) -> Stepped:
        answers = self._ask('step', self._shares(actions, next_seeds, at_limit))
        return Stepped(*(np.concatenate(parts) for parts in zip(*answers, strict=True)))


def _next_state(state: HostState, actions: np.ndarray, next_seeds: np.ndarray, ended: np.ndarray) -> HostState:
    recorded = state.actions.copy()
    recorded[np.arange(len(actions)), state.elapsed] = actions
    recorded[ended] = 0.0
    return HostState(
        entropy=state.entropy,
        episode_count=state.episode_count + ended.astype(np.int32),
        episode_seed=np.where(ended, next_seeds, state.episode_seed),
        elapsed=np.where(ended, np.int32(0), state.elapsed + np.int32(1)),
        actions=recorded,
    )


def host_scan(f: Callable, init: Any, xs: Any, length: int | None = None) -> tuple[Any, Any]:
    """`jax.lax.scan` as a Python loop: `f` may step host environments. Results are stacked into numpy arrays."""
    leaves, structure = jax.tree.flatten(xs)
    length = len(leaves[0]) if leaves else length
    if length is None:
        raise UsageError('scan needs xs or length; got neither; pass length=...')
    carry, results = init, []
    # Iterating over a jax array takes it apart in one go; an index for each step would be a program each.
    for items in zip(*leaves, strict=True) if leaves else itertools.repeat((), length):
        carry, result = f(carry, jax.tree.unflatten(structure, items))
        results.append(result)
    if not results:
        return carry, None
    return carry, jax.tree.map(lambda *parts: np.stack([np.asarray(part) for part in parts]), *results)


def _entropy(key, batch_shape: tuple[int, ...]) -> np.ndarray:
    """`[B, K]` key words: a key for all rows is split over them, keys `[S]` are the rows' own."""
    rows = batch_shape[:-1]
    if rows and not key.shape:
        key = jax.random.split(key, rows)
    if key.shape != rows:
        raise UsageError(f'reset needs one key or keys of shape {rows}; got shape {key.shape}')
    words = np.asarray(jax.random.key_data(key), np.uint32)
    return np.repeat(words.reshape(-1, words.shape[-1]), batch_shape[-1], axis=0)


def gymnasium_spec(name: str):
    """Gymnasium's specification of an id; of `module:Id` the module is imported first, which registers it.

    Raises:
      UsageError: if there is no such module.
      gymnasium.error.Error: if the id is unknown.
    """
    import gymnasium

    module, _, env_id = name.rpartition(':')
    if module:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UsageError(
                f'a module was needed before the colon of {name!r}; it cannot be imported ({error}); install it, or put its '
                'folder on PYTHONPATH'
            ) from error
    return gymnasium.spec(env_id)


def _constructor(make_env, horizon: int | None, settings: dict) -> tuple[Callable, str]:
    if not isinstance(make_env, str):
        return functools.partial(make_env, **settings), getattr(make_env, '__name__', 'the environment')
    import gymnasium

    try:
        env_spec = gymnasium_spec(make_env)
    except (gymnasium.error.Error, ImportError) as error:
        raise UsageError(f'an environment known to gymnasium was needed; got {make_env!r} ({error})') from error
    if horizon is not None:
        settings = {**settings, 'max_episode_steps': horizon}
    # The specification rather than the id: a worker's registry knows only gymnasium's own environments.
    return functools.partial(gymnasium.make, env_spec, disable_env_checker=True, **settings), make_env


def host(
    make_env: Callable | str,
    batch_shape: int | tuple[int, ...] = (1,),
    *,
    workers: int = 0,
    horizon: int | None = None,
    **settings,
) -> Environment:
    """Gymnasium environments, stepped together, as one host environment.

    Actions in [-1, 1] are clipped and mapped onto the action bounds; observations become float32. An episode that
    reaches the time limit without terminating is truncated, and one that does both is terminated. `success` is
    `info['success']`, `info['is_success']` or `info['goal_achieved']`, else False. There are no extra steps at
    resets.

    Args:
      make_env: `() -> gymnasium.Env`, or a gymnasium id, also as `module:Id`.
      batch_shape: `(N,)` environments, or `(S, N)` for S seeds; then `reset` takes one key or keys `[S]`, and
        a seed's episodes depend on its own key alone.
      workers: processes that share the environments; 0 steps them in this one. The results are the same.
      horizon: time limit; by default the environment's own `TimeLimit`.
      **settings: passed to `make_env` or `gymnasium.make`.

    Returns:
      An environment with `compiled=False`, whose state is a `HostState`; `step` ignores its key.

    Raises:
      UsageError: if the id is unknown, a space is not a bounded vector, or there is no time limit.
    """
    shape = (batch_shape,) if isinstance(batch_shape, int) else tuple(batch_shape)
    if not shape or min(shape) < 1 or workers < 0:
        raise UsageError(f'batch_shape must be positive and workers 0 or more; got {batch_shape} and {workers}')
    constructor, name = _constructor(make_env, horizon, settings)
    live = _Live(constructor, math.prod(shape), workers)
    spec, horizon = _check(live.description, horizon, name)

    def flat(tree):
        return jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, *np.shape(leaf)[len(shape) :]), tree)

    def shaped(tree):
        return type(tree)(*(leaf.reshape(*shape, *leaf.shape[1:]) for leaf in tree))

    def reset(key):
        entropy = _entropy(key, shape)
        zeros = np.zeros(len(entropy), np.int32)
        actions = np.zeros((len(entropy), horizon, spec.action_dim), np.float32)
        state = HostState(entropy, zeros, _seeds(entropy, zeros, shape[-1]), zeros, actions)
        observation = live.reset(state.episode_seed)
        live.hold(state)
        return shaped(state), observation.reshape(*shape, -1)

    def step(state, action, key):
        del key
        state = flat(state)
        live.bring_to(state)
        action = np.clip(np.asarray(action, np.float32).reshape(len(state.elapsed), -1), -1.0, 1.0)
        next_seeds = _seeds(state.entropy, state.episode_count + 1, shape[-1])
        stepped = live.step(action, next_seeds, state.elapsed + 1 >= horizon)
        state = _next_state(state, action, next_seeds, stepped.terminated | stepped.truncated)
        live.hold(state)
        return shaped(state), TimeStep(**shaped(stepped)._asdict())

    return Environment(
        spec=spec, horizon=horizon, batch_shape=shape, compiled=False, reset=reset, step=step, scan=host_scan
    )
