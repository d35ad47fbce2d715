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
      reward_slack: how far rewards may be off because this simulator does not repeat its own any better.
      unsteady: entries of an observation that do not follow from the state that is recorded, or jump where it does not; they are
        not compared.
    """

    step: Callable[[np.ndarray, int], Steps]
    lost: np.ndarray
    num_positions: int
    reward_slack: float = 0.0
    unsteady: tuple[int, ...] = ()


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
    lost, hidden, reward_slack = np.zeros(dataset.num_rows, bool), 0, 0.0
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
        hidden, state_of, lost = _states(dataset, env, source)
        reward_slack = _try_out(env, hidden, from_observation='qpos' not in dataset.infos)

        def put(row, variant):
            position, velocity = state_of(row)
            # Where the root is not recorded, a variant puts it elsewhere, 25 m apart.
            position[:hidden] += 0.0 if 'qpos' in dataset.infos else 25.0 * ((variant + 1) // 2) * (-1) ** variant
            env.set_state(position, velocity)

    actions = _own_actions(env, dataset)

    def step(rows, variant):
        answers = []
        try:
            env.reset(seed=variant)
            for row in rows:
                put(row, variant)
                observation, reward, terminal = env.step(actions(row))[:3]
                answers.append((np.asarray(observation, np.float64), float(reward), bool(terminal)))
            return Steps(*(np.array(column) for column in zip(*answers, strict=True)))
        except Exception as error:  # somebody's environment, or states of another one
            said = f'{type(error).__name__}: {error}'.partition('\n')[0]
            raise UsageError(
                f'A simulator that goes on from recorded states is needed; row {rows[len(answers)]} of {source} makes it fail'
                f' ({said}); only sizes can be compared.'
            ) from None

    num_positions = max(env.model.nq - hidden, 0) if hasattr(env, 'model') else 0
    unsteady = tuple(getattr(env, 'unsteady_entries', ()))
    return Simulator(step=step, lost=lost, num_positions=num_positions, reward_slack=reward_slack, unsteady=unsteady)


def _own_actions(env, dataset):
    """`(row) -> action` in the environment's own units; as recorded where these are [-1, 1], before any clipping."""
    low, high = (np.asarray(bound, np.float64).reshape(-1) for bound in (env.action_space.low, env.action_space.high))
    if 'actions' in dataset.infos and (low == -1.0).all() and (high == 1.0).all():
        return lambda row: np.asarray(dataset.infos['actions'][row], np.float64)
    return lambda row: low + (np.asarray(dataset.transitions.action[row], np.float64) + 1.0) / 2.0 * (high - low)


def _states(dataset, env, source):
    """`(hidden, state_of, lost)`: `state_of(row)` is positions, of which the first `hidden` are not observed, and velocities."""
    num_positions, num_velocities = env.model.nq, env.model.nv
    seen = np.asarray(dataset.infos.get('observations', dataset.transitions.observation))
    hidden, lost = num_positions + num_velocities - seen.shape[1], np.zeros(len(seen), bool)
    if {'qpos', 'qvel'} <= set(dataset.infos):
        qpos, qvel, before = dataset.infos['qpos'], dataset.infos['qvel'], 0
    elif hidden in (0, 1, 2):
        # The dynamics do not depend on where the root is, which is why the observation leaves it out.
        qpos, qvel, before = seen[:, : num_positions - hidden], seen[:, num_positions - hidden :], hidden
        lost = _at_a_limit(qvel)
    else:
        raise UsageError(
            f'infos/qpos and infos/qvel are needed to set a state; {source} has neither and its observations'
            ' do not give them; audit a file that has them.'
        )
    given = [before + qpos[0].size, qvel[0].size]
    if given != [num_positions, num_velocities] or qpos.ndim + qvel.ndim != 4:
        raise UsageError(
            f'States of sizes {num_positions} and {num_velocities} are needed by this environment; {source} has'
            f' {given[0]} and {given[1]}; audit with the environment the file comes from.'
        )

    def state_of(row):
        return np.concatenate([np.zeros(before), np.asarray(qpos[row], np.float64)]), np.asarray(qvel[row], np.float64)

    return hidden if hidden in (0, 1, 2) else 0, state_of, lost


def _at_a_limit(velocities):
    """Rows with a velocity at the file's largest size, where several have the very same one: observations clip it there."""
    size = np.maximum(velocities.max(axis=1), -velocities.min(axis=1))
    at_limit = size == size.max(initial=0.0)
    return at_limit & (at_limit.sum() > 1) & (size > 0.0)


def _try_out(env, hidden, from_observation):
    """How far rewards are off where the environment repeats its own steps; an error where these do not repeat.

    So no recording is blamed for an environment that keeps more than positions and velocities. Gymnasium's ant pays for the way
    between positions that lie one simulation step back, which are not those of a state that was set.
    """
    env.action_space.seed(0)
    recorded, (observation, _) = [], env.reset(seed=0)
    for _ in range(_TRIAL_STEPS):
        state = np.concatenate([env.data.qpos, env.data.qvel])
        shown = not from_observation or np.allclose(observation, state[hidden:])  # an observation may clip velocities
        action = env.action_space.sample()
        observation, reward, terminal, *_ = env.step(action)
        if shown:
            recorded.append((state, action, np.array(observation), reward))
        if terminal:
            observation, _ = env.reset()
    same, worst = 0, 0.0
    for state, action, expected, reward in recorded:
        env.set_state(state[: env.model.nq], state[env.model.nq :])
        found, again, *_ = env.step(action)
        same += bool((np.abs(found - expected) <= 1e-2 * (1.0 + np.abs(expected))).all())
        worst = max(worst, abs(float(again) - float(reward)))
    if not recorded or same < 0.75 * len(recorded):
        raise UsageError(
            'A simulator whose steps follow from positions and velocities is needed; this one does not repeat its own steps'
            ' from them; only sizes can be compared.'
        )
    return 3.0 * worst
