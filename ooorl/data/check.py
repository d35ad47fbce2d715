"""Looks for what goes wrong in data sets before anybody trains on them."""

import os

import numpy as np

from ooorl.data import Columns, action_box, assemble, load, read_columns, refusals, sha256
from ooorl.errors import UsageError

NOT_LOADED = "cannot be loaded: "


def info(path, *, clip_actions=True, **reading):
    """What a file holds, as a dict to print; `reading` as in `ooorl.data.load`.

    Raises:
      UsageError: where the file cannot be read.
    """
    dataset = load(path, clip_actions=clip_actions, **reading)
    transitions = dataset.transitions
    lengths, returns = _episodes(transitions.reward, transitions.extras["boundary"] > 0)
    return {
        "name": dataset.name,
        "sha256": dataset.sha256,
        "bytes": os.path.getsize(path) if os.path.isfile(path) else None,
        "rows": dataset.num_rows,
        "episodes": dataset.num_episodes,
        "observation_dim": dataset.spec.observation_dim,
        "action_dim": dataset.spec.action_dim,
        "terminal_rows": int((transitions.discount == 0).sum()),
        "episode_length": _summary(lengths),
        "episode_return": _summary(returns),
        "reward": _summary(transitions.reward),
        "notes": list(dataset.notes),
    }


def check(path, *, action_low=None, action_high=None, environment_box=None, observation_keys=None, labeller=None):
    """One sentence for each thing about a file that a user should know; nothing found gives an empty list.

    A file that cannot be loaded gives the reason as its one finding. The arguments are those of `ooorl.data.load`.
    """
    try:
        path, columns = read_columns(path, observation_keys=observation_keys, labeller=labeller)
        columns = refusals.columns(columns, path)
        boxes = {"stated_box": action_box.stated(action_low, action_high), "environment_box": environment_box}
        dataset = assemble(columns, source=path, name=os.path.basename(path), clip_actions=True, **boxes)
    except UsageError as error:
        return [f"{NOT_LOADED}{error}"]
    findings = list(dataset.notes)
    for look in (_episode_ends, _constant_entries, _rewards, _duplicates):
        findings += look(columns, dataset)
    return findings


def verify(path, expected):
    """Whether a file has the SHA-256 `expected`.

    Raises:
      UsageError: where it has not.
    """
    found = sha256(path)
    if found != expected:
        raise UsageError(f"A file with SHA-256 {expected} is needed; {path} has {found}; fetch it again.")


def _episode_ends(columns: Columns, dataset):
    findings = []
    boundary = dataset.transitions.extras["boundary"] > 0
    terminal = dataset.transitions.discount == 0
    lengths, _ = _episodes(dataset.transitions.reward, boundary)
    if len(lengths) > 1 and not terminal.any() and lengths.max() > 3 * np.median(lengths):
        findings.append(
            f"episode lengths vary from {lengths.min()} to {lengths.max()} without a terminal row: time-outs"
            " may be waypoints rather than time limits"
        )
    if boundary.any() and terminal[boundary].all():
        findings.append(
            "every episode ends in a terminal row: check that the last step of a demonstration really ends"
            " the MDP"
        )
    if columns.timeouts is None:
        findings.append("there is no 'timeouts' column: a time limit cannot be told from the end of the MDP")
    step = np.abs(np.diff(columns.observations, axis=0)).max(axis=1)
    inside = ~((columns.boundary if columns.boundary is not None else _flagged(columns))[:-1])
    if columns.next_observations is None and inside.sum() > 100:
        jumps = int((step[inside] > 20 * np.quantile(step[inside], 0.99)).sum())
        if jumps:
            findings.append(
                f"{jumps} steps inside episodes jump 20 times as far as 99 % of the others: missing ends?"
            )
    return findings


def _flagged(columns):
    flags = np.zeros(len(columns.rewards), bool)
    for column in (columns.terminals, columns.timeouts):
        flags = flags if column is None else flags | column
    return flags


def _constant_entries(columns, dataset):
    findings = []
    for name in ("observation", "action"):
        values = getattr(dataset.transitions, name)
        constant = np.flatnonzero(values.min(axis=0) == values.max(axis=0))
        if len(constant):
            first = ", ".join(map(str, constant[:8])) + (", ..." if len(constant) > 8 else "")
            findings.append(
                f"{len(constant)} {name} entries never change ({first}): beware of dividing by their spread"
            )
    at_limit = (np.abs(dataset.transitions.action) >= 1).mean()
    if at_limit > 0.2:
        findings.append(
            f"{100 * at_limit:.0f} % of action entries are exactly at -1 or 1: log-densities may blow up"
            " there"
        )
    return findings


def _rewards(columns, dataset):
    rewards, terminal = dataset.transitions.reward, dataset.transitions.discount == 0
    values = np.unique(rewards)
    if len(values) == 1:
        return [f"the reward is {values[0]:g} on every row: there is nothing to learn from it"]
    findings = []
    if len(values) == 2:
        findings.append(
            f"rewards are sparse: {values[0]:g} and {values[1]:g} ({100 * (rewards == values[1]).mean():.2g}"
            " %)"
        )
        if terminal.any() and (terminal == (rewards == values[1])).all():
            findings.append("terminal rows are exactly the rewarded ones: success ends the MDP")
    return findings


def _duplicates(columns, dataset):
    rows = np.concatenate(
        [dataset.transitions.observation, dataset.transitions.action, dataset.transitions.next_observation],
        axis=1,
    )
    rows = np.ascontiguousarray(rows).view(np.uint32)
    # A random projection modulo 2^64 makes equal rows equal numbers; sorting those is cheap.
    weights = np.random.default_rng(0).integers(1, 2**63, rows.shape[1], dtype=np.uint64) | np.uint64(1)
    marks = np.zeros(len(rows), np.uint64)
    for entry, weight in zip(rows.T, weights, strict=True):
        marks += entry * weight
    repeated = len(marks) - len(np.unique(marks))
    return [f"{repeated} rows repeat an earlier row in full"] if repeated else []


def _episodes(rewards, boundary):
    """`(lengths, returns)` of the finished episodes."""
    last = np.flatnonzero(boundary)
    total = np.cumsum(rewards, dtype=np.float64)[last]
    return np.diff(last, prepend=-1), np.diff(total, prepend=0.0)


def _summary(values):
    if not len(values):
        return None
    return {"min": float(values.min()), "mean": float(values.mean()), "max": float(values.max())}
