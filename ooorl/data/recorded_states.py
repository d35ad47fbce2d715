"""Recorded states put back into a simulator, one recorded step at a time; `ooorl.data.audit` judges what comes of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ooorl.errors import UsageError
from ooorl.types import Task

_TRIAL_STEPS = 12
_TOGETHER = 128


class Steps(NamedTuple):
    """What a simulator answers: `observation` `[n, O]`, `reward` `[n]`, `terminal` `[n]` bool."""

    observation: np.ndarray
    reward: np.ndarray
    terminal: np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True)
class Simulator:
    """A simulator that recorded rows can be put into.

    Attributes:
      step: `(rows[n], variant) -> Steps` of these rows of the data set. Variant 0 is the recorded state; others differ from it
        in what is not recorded (what a reset draws, such as a goal; coordinates that the observation leaves out), so that
        rewards and ends that depend on it can be told.
      lost: `[N]` bool, rows whose state is not recorded, because the observation clips it.
      num_positions: how many entries of an observation, from the first, are positions.
    """

    step: Callable[[np.ndarray, int], Steps]
    lost: np.ndarray
    num_positions: int


def simulator(place, dataset, source, set_state=None) -> Simulator:
    """The simulator of a data set's rows.

    Args:
      place: a gymnasium environment, or a `Task` with `state_at`.
      dataset: a `Dataset`; its infos hold the states where the observation does not.
      source: what messages call the data.
      set_state: `(env, row) -> None` where the caller knows how to set states.

    Raises:
      UsageError: where states cannot be set, are not recorded, or are those of another environment.
    """
    return _of_task(place, dataset) if isinstance(place, Task) else _of_host(place.unwrapped, dataset, source, set_state)


def state_columns(place, given) -> tuple[str, ...]:
    """Which `infos` to read for a simulator, out of those `given` in a file; all that the environment itself names."""
    if isinstance(place, Task):
        return ()
    return tuple(getattr(place.unwrapped, 'state_names', ())) or tuple(key for key in ('qpos', 'qvel') if key in given)


def _of_task(task, dataset):
    import jax

    for what in ('observation', 'action'):
        needed, given = getattr(task.spec, f'{what}_dim'), getattr(dataset.spec, f'{what}_dim')
        if needed != given:
            raise UsageError(
                f'{what.capitalize()}s of size {needed} are needed by this task; the data have {given}; name the task they come'
                ' from.'
            )
    if task.state_at is None:
        raise UsageError('A task that shows all of its state is needed; this one hides a part; only sizes can be compared.')

    def one(observation, action, key):
        _, following, reward, terminal, _ = task.step(task.state_at(observation), action, key)
        return Steps(following, reward, terminal)

    stepped = jax.jit(jax.vmap(one, in_axes=(0, 0, None)))
    seen, actions = dataset.transitions.observation, dataset.transitions.action

    def step(rows, variant):
        padded = np.resize(rows, -(-len(rows) // _TOGETHER) * _TOGETHER)  # one program for all numbers of rows
        parts = [
            stepped(np.asarray(seen[part]), np.asarray(actions[part]), jax.random.key(variant))
            for part in np.split(padded, len(padded) // _TOGETHER)
        ]
        observation, reward, terminal = (np.concatenate(column)[: len(rows)] for column in zip(*parts, strict=True))
        return Steps(observation.astype(np.float64), reward.astype(np.float64), terminal.astype(bool))

    return Simulator(step=step, lost=np.zeros(len(seen), bool), num_positions=task.spec.observation_dim)


def _of_host(env, dataset, source, set_state):
    width = dataset.spec.observation_dim
    if env.observation_space.shape not in (None, (width,)):
        raise UsageError(
            f'Observations of shape {env.observation_space.shape} are needed by this environment; {source} has size {width};'
            ' audit with the environment the file comes from.'
        )
    named = getattr(env, 'state_names', ())
    lost, hidden = np.zeros(dataset.num_rows, bool), 0
    if set_state is not None:

        def put(row, variant):
            set_state(env, row)
    elif named:
        missing = [name for name in named if name not in dataset.infos]
        if missing:
            raise UsageError(f"'infos/{missing[0]}' is needed to set a state; {source} lacks it; record it.")

        def put(row, variant):
            env.set_env_state({name: dataset.infos[name][row] for name in named})
    else:
        if not (hasattr(env, 'model') and hasattr(env, 'set_state')):
            raise UsageError('A simulator whose state can be set is needed; this one cannot; only sizes can be compared.')
        hidden, qpos, qvel, lost = _states(dataset, env, source)
        _try_out(env, hidden, from_observation='qpos' not in dataset.infos)

        def put(row, variant):
            position = qpos[row].copy()
            # Where the root is not recorded, a variant puts it elsewhere, 25 m apart.
            position[:hidden] += 0.0 if 'qpos' in dataset.infos else 25.0 * ((variant + 1) // 2) * (-1) ** variant
            env.set_state(position, qvel[row])

    actions = _own_actions(env, dataset)

    def step(rows, variant):
        env.reset(seed=variant)
        answers = []
        for row in rows:
            put(row, variant)
            observation, reward, terminal = env.step(actions(row))[:3]
            answers.append((np.asarray(observation, np.float64), float(reward), bool(terminal)))
        return Steps(*(np.array(column) for column in zip(*answers, strict=True)))

    num_positions = max(env.model.nq - hidden, 0) if hasattr(env, 'model') else 0
    return Simulator(step=step, lost=lost, num_positions=num_positions)


def _own_actions(env, dataset):
    """`(row) -> action` in the environment's own units; as recorded where these are [-1, 1], before any clipping."""
    low, high = (np.asarray(bound, np.float64).reshape(-1) for bound in (env.action_space.low, env.action_space.high))
    if 'actions' in dataset.infos and (low == -1.0).all() and (high == 1.0).all():
        return lambda row: np.asarray(dataset.infos['actions'][row], np.float64)
    return lambda row: low + (np.asarray(dataset.transitions.action[row], np.float64) + 1.0) / 2.0 * (high - low)


def _states(dataset, env, source):
    """`(hidden, qpos, qvel, lost)`: `hidden` first coordinates of qpos are not in the observation."""
    num_positions, num_velocities = env.model.nq, env.model.nv
    seen = np.asarray(dataset.infos.get('observations', dataset.transitions.observation))
    hidden, lost = num_positions + num_velocities - seen.shape[1], np.zeros(len(seen), bool)
    if {'qpos', 'qvel'} <= set(dataset.infos):
        qpos, qvel = (np.asarray(dataset.infos[key], np.float64) for key in ('qpos', 'qvel'))
    elif hidden in (0, 1, 2):
        # The dynamics do not depend on where the root is, which is why the observation leaves it out.
        split = num_positions - hidden
        qpos = np.concatenate([np.zeros((len(seen), hidden)), np.asarray(seen[:, :split], np.float64)], axis=1)
        qvel = np.asarray(seen[:, split:], np.float64)
        lost = _at_a_limit(qvel)
    else:
        raise UsageError(
            f'infos/qpos and infos/qvel are needed to set a state; {source} has neither and its observations'
            ' do not give them; audit a file that has them.'
        )
    if qpos.shape[1:] != (num_positions,) or qvel.shape[1:] != (num_velocities,):
        raise UsageError(
            f'States of sizes {num_positions} and {num_velocities} are needed by this environment; {source} has'
            f' {qpos.shape[1]} and {qvel.shape[1]}; audit with the environment the file comes from.'
        )
    return hidden if hidden in (0, 1, 2) else 0, qpos, qvel, lost


def _at_a_limit(velocities):
    """Rows with a velocity at the file's largest size, where several have the very same one: observations clip it there."""
    size = np.abs(velocities).max(axis=1)
    at_limit = size == size.max(initial=0.0)
    return at_limit & (at_limit.sum() > 1) & (size > 0.0)


def _try_out(env, hidden, from_observation):
    """Refuses an environment that does not go on from its own states as it did, so that no recording is blamed for it."""
    env.action_space.seed(0)
    recorded, (observation, _) = [], env.reset(seed=0)
    for _ in range(_TRIAL_STEPS):
        state = np.concatenate([env.data.qpos, env.data.qvel])
        shown = not from_observation or np.allclose(observation, state[hidden:])  # an observation may clip velocities
        action = env.action_space.sample()
        observation, _, terminal, *_ = env.step(action)
        if shown:
            recorded.append((state, action, np.array(observation)))
        if terminal:
            observation, _ = env.reset()
    same = 0
    for state, action, expected in recorded:
        env.set_state(state[: env.model.nq], state[env.model.nq :])
        found = env.step(action)[0]
        same += bool((np.abs(found - expected) <= 1e-2 * (1.0 + np.abs(expected))).all())
    if not recorded or same < 0.75 * len(recorded):
        raise UsageError(
            'A simulator whose steps follow from positions and velocities is needed; this one does not repeat its own steps'
            ' from them; only sizes can be compared.'
        )
