"""Gymnasium environments as host environments: stepped outside JAX, resumable bit for bit.

Every reset has its own seed, a function of the key, the environment's index and how many episodes it has begun. So
an environment that is deterministic given its seed is at any moment a function of that seed and of the actions since
the reset. These make up the state; where the live environments hold another state than the one they are given (after
a resume in a new process, or when an old state is stepped again), they are rebuilt by a reset and a replay.
"""

import dataclasses
import functools
import importlib
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from ooorl.envs.dict_observations import joined
from ooorl.envs.host_worker import Description, EnvironmentFailure
from ooorl.envs.ogbench import own_name
from ooorl.envs.worker_pool import Pool
from ooorl.errors import UsageError
from ooorl.mapping import host_scan, num_cores
from ooorl.types import Environment, Spec, TimeStep


class HostState(NamedTuple):
    """Numpy arrays with the leading axes `batch_shape`; enough to rebuild every environment.

    Attributes:
      entropy: `[..., K]` uint32, words of the key given to `reset`.
      episode_count: `[...]` int32, episodes begun before the present one.
      episode_seed: `[...]` int32, seed of the present episode's reset.
      elapsed: `[...]` int32, steps since that reset.
      actions: `[..., horizon, A]` float32. The first `elapsed` are the actions since that reset; what follows them means
        nothing, because later states append to the same memory.
    """

    entropy: np.ndarray
    episode_count: np.ndarray
    episode_seed: np.ndarray
    elapsed: np.ndarray
    actions: np.ndarray


def _seed(words: np.ndarray, index: int, episode: int) -> int:
    # Fits int32 and is not negative, because checkpoints may pass through jax arrays.
    return int(np.random.SeedSequence([*words.tolist(), index, episode]).generate_state(1)[0] >> 1)


def _seeds(entropy: np.ndarray, episode: np.ndarray, row: int, wanted: np.ndarray, first: int) -> list[int]:
    """Seeds of the environments `wanted`; an index counts from `first` within its row: rows do not depend on each other."""
    return [_seed(entropy[i], first + i % row, int(episode[i])) for i in wanted.tolist()]


def _check(description: Description, horizon: int | None, name: str) -> tuple[Spec, int]:
    if description.observation_space != 'Box' or len(description.observation_shape) != 1:
        raise UsageError(
            f'{name}: observations must be a Box vector; these are {description.observation_space} of shape '
            f'{description.observation_shape}; name entries of a dict with dataset.observation_keys, or wrap the environment '
            'with gymnasium.wrappers.FlattenObservation'
        )
    if description.action_space != 'Box':
        raise UsageError(
            f'{name}: actions must be a Box; these are {description.action_space}; use another environment'
        )
    if not (description.observation_shape[0] and description.action_low.size):
        raise UsageError(
            f'{name}: observations and actions must have entries; they have {description.observation_shape[0]} and '
            f'{description.action_low.size}; use another environment'
        )
    if not (np.all(np.isfinite(description.action_low)) and np.all(np.isfinite(description.action_high))):
        raise UsageError(f'{name}: actions must have finite bounds, onto which [-1, 1] is mapped; these are not; bound them')
    limits = [limit for limit in (horizon, description.max_episode_steps) if limit is not None]
    if not limits:
        raise UsageError(
            f'{name}: a time limit is needed and the environment has none; give one as max_episode_steps where it is registered, '
            'or as its setting `horizon` (environment.settings of a config)'
        )
    if min(limits) < 1:
        raise UsageError(f'{name}: horizon must be 1 or more; got {min(limits)}')
    spec = Spec(observation_dim=description.observation_shape[0], action_dim=math.prod(description.action_low.shape))
    return spec, min(limits)


def _refusal(failure: EnvironmentFailure, name: str, elapsed: np.ndarray | None = None) -> UsageError:
    """The failure as a sentence; `elapsed`, the steps before it in the episode of each environment, where it was in a step."""
    which = when = ''
    if failure.row is not None and elapsed is not None:
        which = f', copy {failure.row} of {len(elapsed)},' if len(elapsed) > 1 else ''
        when = f' in step {int(elapsed[failure.row]) + 1} of an episode'
    return UsageError(f'{failure.needed} was needed; {name}{which} {failure.given}{when}; mend the environment or use another')


class _Live:
    """The live environments, and the state that they are in.

    Attributes:
      held: that state as it was handed out, so that `is` tells whether a state can be stepped on at once; None if unknown.
      flat: the same with one leading axis, and its actions in memory that can be written.
    """

    def __init__(self, name: str, pool: Pool, shape: tuple[int, ...], horizon: int, spec: Spec):
        self._name, self._pool, self._shape, self._horizon = name, pool, shape, horizon
        self._block = pool.attach(spec.observation_dim, spec.action_dim)
        self._record_shape = (math.prod(shape), horizon, spec.action_dim)
        self._every = np.arange(math.prod(shape))
        self._first = 0
        self._answer = TimeStep(*(self._shaped(getattr(self._block, name)) for name in TimeStep._fields))
        self.held = self.flat = None

    def _shaped(self, array: np.ndarray) -> np.ndarray:
        return array.reshape(*self._shape, *array.shape[1:])

    def _view(self, array: np.ndarray) -> np.ndarray:
        """For the caller, with whom memory is shared: shaped and read-only."""
        view = self._shaped(array)
        view.flags.writeable = False
        return view

    def _hold(self, flat: HostState) -> HostState:
        """Notes what the environments hold."""
        self.held, self.flat = HostState(*map(self._view, flat)), flat
        return self.held

    def _seed_resets(self, flat: HostState, wanted: np.ndarray) -> None:
        """Puts into the block what seeds the next reset of the environments `wanted`."""
        self._block.seed[wanted] = _seeds(flat.entropy, flat.episode_count + 1, self._shape[-1], wanted, self._first)

    def reset(self, entropy: np.ndarray, first: int) -> tuple[HostState, np.ndarray]:
        """Begins episodes everywhere, those of the places `first` and following."""
        self.held, self.flat, self._first = None, None, first
        zeros = np.zeros(len(entropy), np.int32)
        seeds = np.array(_seeds(entropy, zeros, self._shape[-1], self._every, first), np.int32)
        self._block.seed[:] = seeds
        try:
            self._pool.ask('reset')
        except EnvironmentFailure as failure:
            raise _refusal(failure, self._name) from failure
        flat = HostState(entropy, zeros, seeds, zeros, np.zeros(self._record_shape, np.float32))
        self._seed_resets(flat, self._every)
        return self._hold(flat), self._answer.observation.copy()

    def bring_to(self, state: HostState, first: int) -> None:
        """Rebuilds those environments that do not hold `state`, of the places `first` and following."""
        if state is self.held and first == self._first:
            return
        self._first = first
        leaves = [np.array(leaf).reshape(-1, *np.shape(leaf)[len(self._shape) :]) for leaf in state]
        flat = HostState(*leaves)
        flat.actions[np.arange(self._horizon) >= flat.elapsed[:, None]] = 0.0
        stale = np.ones(len(self._every), bool)
        # Forgotten first: after a failure it is unknown what the environments hold.
        known, self.held, self.flat = self.flat, None, None
        if known is not None:
            same_actions = np.all(known.actions == flat.actions, axis=(1, 2))
            stale = ~((known.episode_seed == flat.episode_seed) & (known.elapsed == flat.elapsed) & same_actions)
        jobs = [(i, int(flat.episode_seed[i]), flat.actions[i, : flat.elapsed[i]]) for i in np.flatnonzero(stale).tolist()]
        try:
            if jobs:
                self._pool.replay(jobs)
        except EnvironmentFailure as failure:
            raise _refusal(failure, self._name) from failure
        self._seed_resets(flat, self._every)
        self._hold(flat)

    def step(self, action: np.ndarray) -> tuple[HostState, TimeStep]:
        """Steps from the state that `bring_to` was given; actions `[*shape, A]`, or one number more, see `host`."""
        block, held, flat = self._block, self.held, self.flat
        self.held = self.flat = None
        action = action.reshape(len(self._every), -1)
        action, ends = action[:, : block.action.shape[1]], action[:, block.action.shape[1] :]
        # What is no number becomes -1: an agent that has diverged must not harm an environment.
        np.fmax(action, -1.0, out=block.action)
        np.minimum(block.action, 1.0, out=block.action)
        elapsed = flat.elapsed + np.int32(1)
        np.logical_or(elapsed >= self._horizon, (ends > 0).any(axis=1), out=block.at_limit)
        try:
            self._pool.ask('step')
        except EnvironmentFailure as failure:
            raise _refusal(failure, self._name, flat.elapsed) from failure
        flat.actions[self._every, flat.elapsed] = block.action
        flat = flat._replace(elapsed=elapsed)
        if (ended := block.terminated | block.truncated).any():
            self._hold(self._begin_episodes(flat, ended))
        else:
            self.held, self.flat = held._replace(elapsed=self._view(elapsed)), flat
        return self.held, TimeStep(*[array.copy() for array in self._answer])

    def _begin_episodes(self, flat: HostState, ended: np.ndarray) -> HostState:
        # Earlier states go on to read the old memory: it is only ever appended to.
        longest = flat.elapsed.max(where=~ended, initial=0)
        actions = np.zeros_like(flat.actions)
        actions[~ended, :longest] = flat.actions[~ended, :longest]
        flat = flat._replace(
            episode_count=flat.episode_count + ended.astype(np.int32),
            episode_seed=np.where(ended, self._block.seed, flat.episode_seed),
            elapsed=np.where(ended, np.int32(0), flat.elapsed),
            actions=actions,
        )
        self._seed_resets(flat, np.flatnonzero(ended))
        return flat


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

    module, _, env_id = own_name(name).rpartition(':')
    if module:
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:  # somebody's module may do anything
            said = f'{type(error).__name__}: {error}'.partition('\n')[0]
            raise UsageError(
                f'a module was needed before the colon of {name!r}; it cannot be imported ({said}); install or mend it, or put '
                'its folder on PYTHONPATH'
            ) from error
    return gymnasium.spec(env_id)


def _constructor(make_env, horizon: int | None, settings: dict) -> tuple[Callable, str]:
    if not isinstance(make_env, str):
        named = getattr(make_env, 'func', make_env)  # of a partial
        return functools.partial(make_env, **settings), getattr(named, '__name__', 'the environment')
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
    copies: int | None = None,
    horizon: int | None = None,
    observation_keys: Sequence[str] = (),
    **settings,
) -> Environment:
    """Gymnasium environments, stepped together, as one host environment.

    Actions in [-1, 1] are clipped and mapped onto the action bounds; observations become float32. An episode that
    reaches the time limit without terminating is truncated, and one that does both is terminated. `success` is
    `info['success']`, `info['is_success']` or `info['goal_achieved']`, else False. There are no extra steps at
    resets. Actions may have one number more than the environment's: where it is above 0 the step is the episode's last.

    Args:
      make_env: `() -> gymnasium.Env`, or a gymnasium id, also as `module:Id`.
      batch_shape: `(N,)` environments, or `(S, N)` for S seeds; then `reset` takes one key or keys `[S]`, and
        a seed's episodes depend on its own key alone.
      workers: processes that share the environments with this one; 0 for none, -1 for as many as use all cores. The
        results are the same.
      copies: of the environment for each seed; where fewer than N they play the N first episodes in `turns`, which is for
        evaluation alone. An episode follows from its seed, whichever copy plays it. None for N.
      horizon: time limit; by default the environment's own `TimeLimit`.
      observation_keys: of dict observations the entries to put one behind the other, '/' between levels.
      **settings: passed to `make_env` or `gymnasium.make`.

    Returns:
      An environment with `compiled=False`, whose state is a `HostState`; `step` ignores its key.

    Raises:
      UsageError: if the id is unknown, a space is not a bounded vector, there is no time limit, or the environment cannot be
        made. Its `reset` and `step` raise one, naming environment, step and value, for whatever the environment raises and for
        answers of a wrong shape or with numbers that are not finite; nothing of such a step is handed on.
    """
    shape = (batch_shape,) if isinstance(batch_shape, int) else tuple(batch_shape)
    if not shape or min(shape) < 1 or workers < -1:
        raise UsageError(f'batch_shape must be positive and workers -1, 0 or more; got {batch_shape} and {workers}')
    if copies is not None and copies < 1:
        raise UsageError(f'copies must be 1 or more; got {copies}')
    whole, shape = shape, (*shape[:-1], min(shape[-1], copies or shape[-1]))
    constructor, name = _constructor(make_env, horizon, settings)
    if observation_keys:
        constructor = functools.partial(joined, constructor, tuple(observation_keys))
    try:
        pool = Pool(constructor, math.prod(shape), num_cores() - 1 if workers < 0 else workers)
    except EnvironmentFailure as failure:
        if isinstance(failure.__cause__, UsageError):  # of settings, said by ours
            raise failure.__cause__ from None
        raise _refusal(failure, name) from failure
    spec, horizon = _check(pool.description, horizon, name)
    live = _Live(name, pool, shape, horizon, spec)

    def turn(first):
        def reset(key):
            return live.reset(_entropy(key, shape), first)

        def step(state, action, key):
            del key
            live.bring_to(state, first)
            return live.step(np.asarray(action, np.float32))

        return Environment(
            name=name, spec=spec, horizon=horizon, batch_shape=shape, compiled=False, reset=reset, step=step, scan=host_scan
        )

    return turn(0) if shape == whole else _in_turns(turn, whole)


def _in_turns(turn: Callable[[int], Environment], shape: tuple[int, ...]) -> Environment:
    """One environment of `shape` made of turns of fewer copies; the last turn plays some of the one before once more."""
    num, copies = shape[-1], turn(0).batch_shape[-1]
    turns = tuple((first, turn(first)) for first in sorted({min(first, num - copies) for first in range(0, num, copies)}))
    return dataclasses.replace(turns[0][1], batch_shape=shape, reset=_refused, step=_refused, turns=turns)


def _refused(*_):
    raise UsageError('copies that take turns can only be evaluated in; got a reset or a step of all of them; leave copies away')
