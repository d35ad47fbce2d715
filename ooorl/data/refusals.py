"""What must hold of data before anything is made of them; each refusal is one `UsageError`."""

import numpy as np

from ooorl.errors import UsageError


def columns(given, source):
    """Checks the columns of a file against each other and makes flags bool and per-row columns flat.

    Raises:
      UsageError: on wrong shapes, types, lengths, on NaN or infinity, and on fewer than 2 rows.
    """
    if given.rewards is None:
        raise UsageError(
            f"Rewards are needed; {source} is in OGBench's layout and holds none, because they are a task's; name a single task"
            " of OGBench, NAME-singletask-task1-v0, with --env (of data check, info and convert: --environment)."
        )
    observations = _matrix(given.observations, "observations", source)
    actions = _matrix(given.actions, "actions", source)
    rewards = _flat(given.rewards, "rewards", source)
    following = given.next_observations
    if following is not None:
        following = _matrix(following, "next_observations", source)
    flags = {
        name: None if getattr(given, name) is None else _flags(getattr(given, name), name, source)
        for name in ("terminals", "timeouts", "boundary")
    }
    present = {
        "observations": observations,
        "actions": actions,
        "rewards": rewards,
        "next_observations": following,
    }
    present |= flags | {f"infos/{key}": value for key, value in given.infos.items()}
    present = {name: column for name, column in present.items() if column is not None}
    _same_length(present, source)
    if following is not None and following.shape != observations.shape:
        raise UsageError(
            f"'next_observations' of the shape of 'observations' are needed; {source} has {following.shape}"
            f" beside {observations.shape}; write both with the same entries."
        )
    if len(rewards) < 2:
        raise UsageError(f"At least 2 rows are needed; {source} has {len(rewards)}; record more steps.")
    for name in ("observations", "actions", "rewards", "next_observations"):
        if name in present:
            _finite(present[name], name, source)
    return given._replace(
        observations=observations, actions=actions, rewards=rewards, next_observations=following, **flags
    )


def check_spec(dataset, spec, environment="the environment"):
    """Checks that a data set fits what an agent or an environment expects.

    Args:
      dataset: a `Dataset`.
      spec: the `Spec` it must have.
      environment: what the message calls the other side.

    Raises:
      UsageError: where a size differs.
    """
    for what in ("observation", "action"):
        given, needed = getattr(dataset.spec, f"{what}_dim"), getattr(spec, f"{what}_dim")
        if given != needed:
            raise UsageError(
                f"{what.capitalize()}s of size {needed} are needed by {environment}; {dataset.name} has size"
                f" {given}; choose the data set or the environment that belongs to the other."
            )


def _numeric(column, name, source, kinds):
    column = np.asarray(column)
    if column.dtype.kind not in kinds:
        raise UsageError(
            f"Real numbers are needed in '{name}'; {source} has type {column.dtype}; write it as float32."
        )
    return column


def _matrix(column, name, source):
    column = _numeric(column, name, source, "fiu")
    if column.ndim != 2 or column.shape[1] == 0:
        raise UsageError(
            f"'{name}' of shape (rows, entries) are needed; {source} has shape {column.shape}; write one"
            " flat vector a row."
        )
    # What float32 may not hold stays exact until `rounded` has looked at it.
    return column.astype(np.float32 if np.can_cast(column.dtype, np.float32) else np.float64, copy=False)


def rounded(column, name):
    """One note where float32, in which data are kept, rounds an entry by more than a hundredth of its deviation; else none."""
    if column.dtype != np.float64:
        return ()
    lost = {}
    for entry, values in enumerate(column.T):
        error, deviation = np.abs(values - values.astype(np.float32)).max(), values.std()
        if values.min() < values.max() and error > 0.01 * deviation:
            lost[entry] = error / deviation
    if not lost:
        return ()
    return (
        f"{name} {', '.join(map(str, lost))}: float32 rounds by up to {max(lost.values()):.2g} deviations;"
        " subtract a constant first, such as the first time stamp",
    )


def _flat(column, name, source):
    column = _numeric(column, name, source, "fiub")
    if column.ndim == 2 and column.shape[1] == 1:
        column = column[:, 0]
    if column.ndim != 1:
        raise UsageError(
            f"'{name}' of shape (rows,) are needed; {source} has shape {column.shape}; write one number a"
            " row."
        )
    return column


def _flags(column, name, source):
    column = _flat(column, name, source)
    if column.dtype == bool:
        # A damaged file can hold other bytes in a bool column, which numpy would count as neither 0 nor 1.
        column = np.ascontiguousarray(column).view(np.uint8)
    bad = ~((column == 0) | (column == 1))
    if bad.any():
        raise UsageError(
            f"Flags 0 or 1 are needed in '{name}'; {source} has {column[bad][0]} in row"
            f" {int(np.argmax(bad))}; write 1 where it holds and 0 elsewhere (gamma is the agent's, not the"
            " data's)."
        )
    return column.astype(bool)


def _same_length(present, source):
    lengths = {name: len(column) for name, column in present.items()}
    if len(set(lengths.values())) > 1:
        given = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise UsageError(
            f"Columns of one length are needed; {source} has {given} rows; cut or record them alike."
        )


def _finite(column, name, source):
    # The sum is finite only if every entry is, and costs no temporary array; it may overflow, so it only says
    # no.
    with np.errstate(all="ignore"):
        if np.isfinite(column.sum(dtype=np.float64)) and column.dtype == np.float32:
            return
        wrong = ~np.isfinite(column.astype(np.float32))
    wrong = wrong.reshape(len(column), -1).any(axis=1)
    if wrong.any():
        first = ", ".join(str(row) for row in np.flatnonzero(wrong)[:5])
        raise UsageError(
            f"Finite numbers that fit in float32 are needed; {int(wrong.sum())} rows of '{name}' in {source}"
            f" are not (first rows: {first}); remove those rows or repair the file."
        )
