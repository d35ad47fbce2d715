"""Replays recorded steps in a simulator: whether a file is what its name claims."""

from dataclasses import dataclass

import numpy as np

from ooorl.data import hdf5, read_columns
from ooorl.errors import UsageError

_EXACT, _CLOSE = 1e-4, 1e-2


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What replaying single steps showed; errors are the largest over the entries of a step.

    Attributes:
      rows: steps replayed.
      median_error: of the whole observation.
      max_error: of the whole observation.
      median_position_error: of its entries that are positions.
      max_position_error: of its entries that are positions.
      verdict: one sentence.
    """

    rows: int
    median_error: float
    max_error: float
    median_position_error: float
    max_position_error: float
    verdict: str


def audit(path, make_env, *, max_rows=1000, set_state=None):
    """Sets each recorded state, applies the recorded action and compares the successor with the recorded one.

    States are the file's infos/qpos and infos/qvel, or the observation where it is all of them but the root's
    first coordinates. An environment whose state is more than these says what in `state_names` and takes it with
    `set_env_state`. Errors of about 1e-6 are the rounding of float32 files.

    Args:
      path: a D4RL HDF5 or npz file.
      make_env: makes the gymnasium environment the file claims to come from.
      max_rows: steps to replay, spread evenly.
      set_state: `(env, row) -> None` for an environment whose state is more than qpos and qvel.

    Returns:
      an `Audit`.

    Raises:
      UsageError: where the file does not hold the states, or not those of this environment.
    """
    env = make_env().unwrapped
    try:
        named = getattr(env, "state_names", ())
        path, columns = read_columns(path, infos=named or _infos_there(path))
        hidden, qpos, qvel = _states(columns, env, path)
        rows, successors = _inner_rows(columns, max_rows, path)
        errors = np.empty((len(rows), columns.observations.shape[1]))
        env.reset(seed=0)
        for i, row in enumerate(rows):
            if set_state is not None:
                set_state(env, row)
            elif named:
                env.set_env_state({name: columns.infos[name][row] for name in named})
            else:
                env.set_state(qpos[row], qvel[row])
            observation = env.step(np.asarray(columns.actions[row], np.float64))[0]
            if np.shape(observation) != errors[i].shape:
                raise UsageError(
                    f"Observations of size {np.size(observation)} are needed by this environment; {path} has"
                    f" {errors.shape[1]}; audit with the environment the file comes from."
                )
            errors[i] = np.abs(observation - successors[i])
    finally:
        env.close()
    return _judged(errors, max(env.model.nq - hidden, 0), path)


def _infos_there(path):
    if not hdf5.h5py.is_hdf5(path):
        return ()
    with hdf5.opened(path) as file:
        given = hdf5.names(file["infos"]) if "infos" in file and hasattr(file["infos"], "keys") else ()
    return tuple(key for key in ("qpos", "qvel") if key in given)


def _states(columns, env, path):
    """`(hidden, qpos, qvel)`: `hidden` first coordinates of qpos are not in the observation."""
    num_positions, num_velocities = env.model.nq, env.model.nv
    observations = np.asarray(columns.observations, np.float64)
    hidden = num_positions + num_velocities - observations.shape[1]
    if {"qpos", "qvel"} <= set(columns.infos):
        qpos, qvel = (np.asarray(columns.infos[key], np.float64) for key in ("qpos", "qvel"))
    elif hidden in (0, 1, 2):
        # The dynamics do not depend on where the root is, which is why the observation leaves it out.
        split = num_positions - hidden
        qpos = np.concatenate([np.zeros((len(observations), hidden)), observations[:, :split]], axis=1)
        qvel = observations[:, split:]
    else:
        raise UsageError(
            f"infos/qpos and infos/qvel are needed to set a state; {path} has neither and its observations"
            " do not give them; audit a file that has them."
        )
    if qpos.shape[1:] != (num_positions,) or qvel.shape[1:] != (num_velocities,):
        raise UsageError(
            f"States of sizes {num_positions} and {num_velocities} are needed by this environment; {path} has"
            f" {qpos.shape[1]} and {qvel.shape[1]}; audit with the environment the file comes from."
        )
    return hidden if hidden in (0, 1, 2) else 0, qpos, qvel


def _inner_rows(columns, max_rows, path):
    """Rows whose successor is recorded, and that successor."""
    num_rows = len(columns.rewards)
    if columns.next_observations is not None:
        rows, successors = np.arange(num_rows), columns.next_observations
    else:
        ended = np.zeros(num_rows, bool)
        for flags in (columns.terminals, columns.timeouts, columns.boundary):
            ended |= False if flags is None else np.reshape(flags, num_rows).astype(bool)
        rows = np.flatnonzero(~ended[:-1])
        successors = columns.observations[1:]
    if not len(rows):
        raise UsageError(
            f"Rows with a recorded successor are needed; {path} has none; record whole episodes."
        )
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(max_rows, len(rows))).astype(int))]
    return rows, np.asarray(successors[rows], np.float64)


def _judged(errors, num_positions, path):
    whole = errors.max(axis=1)
    positions = errors[:, :num_positions].max(axis=1) if 0 < num_positions <= errors.shape[1] else whole
    median, median_position = float(np.median(whole)), float(np.median(positions))
    if median_position <= _EXACT and median <= _CLOSE:
        verdict = f"{path} replays step by step: it is data of this environment."
    elif median_position <= _CLOSE:
        verdict = (
            f"{path} replays roughly: the same task, but another version of the simulator or rounded states."
        )
    else:
        verdict = f"{path} does not replay: it is no data of this environment, whatever its name says."
    return Audit(
        rows=len(errors),
        median_error=median,
        max_error=float(whole.max()),
        median_position_error=median_position,
        max_position_error=float(positions.max()),
        verdict=verdict,
    )
