"""From the columns of a file to transitions: where episodes end, and which successor each row has.

`assemble` is the one place that decides this for every format; `docs/data.md` states its rules in prose.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ooorl.data import refusals
from ooorl.data.action_box import Box, normalised
from ooorl.errors import UsageError
from ooorl.types import Spec, Transition

# Two records of one observation may differ by the rounding of a float32.
TOLERANCE = 1e-6
_BLOCK = 1 << 16


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """Recorded experience in memory, raw, in the order it was lived.

    Attributes:
      transitions: `Transition` of numpy float32 arrays, extras `{'boundary'}`.
      name: the file's name, or the task's.
      sha256: of the file the rows came from; '' for arrays.
      notes: one sentence for every decision taken on the way; print them.
      infos: further columns that were asked for, such as qpos and qvel, one row for each transition.
      action_box: the `Box` that actions were recorded in, where it was stated or the file names it; theirs is [-1, 1] now.
    """

    transitions: Transition
    name: str
    sha256: str = ""
    notes: tuple[str, ...] = ()
    infos: dict[str, np.ndarray] = field(default_factory=dict)
    action_box: Box | None = None

    @property
    def num_rows(self) -> int:
        """How many transitions there are."""
        return self.transitions.reward.shape[0]

    @property
    def num_episodes(self) -> int:
        """Episodes that came to an end in the file; an unfinished one behind them is not counted."""
        return int(self.transitions.extras["boundary"].sum())

    @property
    def spec(self) -> Spec:
        """Sizes of observations and actions."""
        return Spec(
            observation_dim=self.transitions.observation.shape[-1],
            action_dim=self.transitions.action.shape[-1],
        )


class Columns(NamedTuple):
    """What a file says, row by row, before anything is decided.

    Attributes:
      observations: `[N, O]`.
      actions: `[N, A]`.
      rewards: `[N]`; None where the file holds none because they are a task's.
      terminals: `[N]` bool, or None where the file has none.
      timeouts: `[N]` bool, or None.
      next_observations: `[N, O]`, or None.
      boundary: `[N]` bool where the file gives the last rows of its episodes itself, with true successors; or
        None.
      infos: further columns `[N, ...]`.
      unread: names of columns that look like ends of episodes and do not say which kind.
      action_box: the box that the file says actions were recorded in, or None.
      labels_from: whose the rewards are, where they are not the file's.
      notes: what else was decided while reading.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray | None
    terminals: np.ndarray | None = None
    timeouts: np.ndarray | None = None
    next_observations: np.ndarray | None = None
    boundary: np.ndarray | None = None
    infos: dict[str, np.ndarray] = {}
    unread: tuple[str, ...] = ()
    action_box: Box | None = None
    labels_from: str = ""
    notes: tuple[str, ...] = ()


# Columns that end episodes without saying how: the MDP may have ended, or time run out.
UNCLEAR_ENDS = ("dones", "done", "ends", "episode_ends")


def assemble(
    columns,
    *,
    source,
    name,
    sha256="",
    clip_actions=False,
    terminal_ends_episode=None,
    stated_box=None,
    environment_box=None,
) -> Dataset:
    """Checks columns and makes a data set of them.

    Args:
      columns: `Columns`.
      source: what error messages call the data.
      name: the data set's name.
      sha256: of the file.
      clip_actions: clip actions that leave their box instead of refusing them.
      terminal_ends_episode: False where a terminal row is followed by more of its episode; None to find out.
      stated_box: the `Box` that the user says actions were recorded in; None for what the file says.
      environment_box: the `Box` of the environment the data are for, for files that say nothing.

    Raises:
      UsageError: where the columns cannot be used.
    """
    notes = list(columns.notes)
    columns = refusals.columns(columns, source)
    notes += refusals.rounded(columns.observations, "observation entries")
    actions = normalised(
        columns.actions,
        source,
        notes,
        stated=stated_box,
        recorded=columns.action_box,
        environment=environment_box,
        clip=clip_actions,
    )
    if columns.labels_from:
        notes.append(columns.labels_from)
    if columns.unread:
        notes.append(f"column {columns.unread[0]!r} is not read: it does not say which kind of end it marks")
    ends = _episode_ends(columns, terminal_ends_episode, notes)
    boundary, keep, next_observation = _successors(columns, ends, source, notes)
    if keep.sum() < 2:
        raise UsageError(
            f"At least 2 rows whose successor is known are needed; {source} has {int(keep.sum())}; record"
            " 'next_observations'."
        )
    all_kept = bool(keep.all())

    def kept(column):
        return column if all_kept else column[keep]

    terminals = _zeros_if_none(columns.terminals, len(keep))
    transitions = Transition(
        observation=kept(_float32(columns.observations)),
        action=kept(actions),
        reward=kept(_float32(columns.rewards)),
        discount=kept(np.float32(1) - terminals.astype(np.float32)),
        next_observation=next_observation,
        extras={"boundary": kept(boundary.astype(np.float32))},
    )
    infos = {key: kept(value) for key, value in columns.infos.items()}
    box = stated_box or columns.action_box
    return Dataset(transitions=transitions, name=name, sha256=sha256, notes=tuple(notes), infos=infos, action_box=box)


def _float32(column):
    return np.ascontiguousarray(column, np.float32)


def _zeros_if_none(flags, num_rows):
    return np.zeros(num_rows, bool) if flags is None else flags


def _episode_ends(columns, terminal_ends_episode, notes):
    """The rows that the file's flags say are the last of their episode."""
    num_rows = len(columns.rewards)
    if columns.boundary is not None:
        return columns.boundary.copy()
    terminals = _zeros_if_none(columns.terminals, num_rows)
    timeouts = _zeros_if_none(columns.timeouts, num_rows)
    if terminal_ends_episode is None:
        terminal_ends_episode = not _time_outs_ignore_terminals(terminals, timeouts)
        if not terminal_ends_episode:
            notes.append(
                f"time-outs come at equal distances whatever the {int(terminals.sum())} terminal rows say:"
                " episodes go on after a terminal row, which keeps discount 0"
            )
    return terminals | timeouts if terminal_ends_episode else timeouts.copy()


def _time_outs_ignore_terminals(terminals, timeouts):
    """Whether time-outs come at equal distances although terminal rows lie between them."""
    rows = np.flatnonzero(timeouts)
    if len(rows) < 2:
        return False
    lengths = np.diff(rows, prepend=-1)
    between = terminals[: rows[-1]] & ~timeouts[: rows[-1]]
    return bool((lengths == lengths[0]).all() and between.any())


def _successors(columns, ends, source, notes):
    """`(boundary[N], keep[N], next_observation[kept])`."""
    own = columns.next_observations
    differs = None if own is None else ~_same_rows(own[:-1], columns.observations[1:])
    if own is not None and columns.boundary is None:
        own, differs = _usable(columns, own, differs, ends, notes)
    if own is None:
        return _successors_from_next_row(columns, ends, source, notes)
    if columns.boundary is None:
        hidden = np.append(differs, False) & ~ends
        if hidden.any():
            notes.append(
                f"{int(hidden.sum())} rows carry no flag but their next observation is not the next row's:"
                " each ends its episode, with discount as recorded"
            )
        ends |= hidden
    _refuse_no_ends(ends, source, columns.unread)
    keep = np.ones(len(ends), bool)
    if columns.boundary is None and columns.timeouts is not None:
        terminals = _zeros_if_none(columns.terminals, len(ends))
        keep[:-1] = differs | ~columns.timeouts[:-1] | terminals[:-1]
    boundary = _after_dropping(ends, keep, "their next observation is the next episode's first", notes)
    own = _float32(own)
    return boundary, keep, own if keep.all() else own[keep]


def _usable(columns, own, differs, ends, notes):
    """The file's own successors and where they differ from the next row; None where they are stale."""
    inside = ~ends[:-1]
    share = 1.0 - differs[inside].mean() if inside.any() else 1.0
    if share >= 0.5:
        notes.append("successors are the file's own next_observations")
        return own, differs
    if _same_rows(own, columns.observations).mean() >= 0.5 and ends.any():
        notes.append(
            "next_observations repeat the observations and are ignored: successors are the next rows"
        )
        return None, None
    notes.append(
        f"rows are in no order (only {100 * share:.0f} % are followed by their next observation): successors"
        " are the file's own next_observations"
    )
    return own, differs


def _successors_from_next_row(columns, ends, source, notes):
    """Row i + 1 inside an episode; where there is none, only terminal rows can stay."""
    _refuse_no_ends(ends, source, columns.unread)
    terminals = _zeros_if_none(columns.terminals, len(ends))
    keep = ~ends | terminals
    keep[-1] = terminals[-1]
    unfinished = not ends[-1] and not keep[-1]
    boundary = _after_dropping(ends, keep, "the file has no next_observations", notes, unfinished)
    index = np.minimum(np.arange(len(ends)) + 1, len(ends) - 1)
    last = ends.copy()
    last[-1] = True
    # A last terminal row has no successor in the file; its own observation stands in, and discount 0 keeps
    # every backup from reading it.
    placeholder = terminals & last
    index[placeholder] = np.flatnonzero(placeholder)
    if placeholder.any():
        notes.append(
            f"{int(placeholder.sum())} terminal rows have no recorded successor: their own observation"
            " stands in"
        )
    observations = _float32(columns.observations)
    return boundary, keep, observations[index[keep]]


def _after_dropping(ends, keep, reason, notes, unfinished=False):
    """The boundary marks once rows are dropped: the row before a dropped last row becomes the last."""
    boundary = ends.copy()
    dropped_ends = ends & ~keep
    boundary[:-1] |= dropped_ends[1:]
    if dropped_ends.any():
        notes.append(f"{int(dropped_ends.sum())} time-out rows dropped: successor unknown, {reason}")
    if unfinished:
        notes.append("the last row dropped: successor unknown, its episode is not finished")
    elif keep[-1] and not ends[-1]:
        notes.append("the last episode is not finished: its returns are unknown")
    return boundary


def _refuse_no_ends(ends, source, unread):
    if ends.any():
        return
    advice = "set 'timeouts' to 1 on the last row of each episode"
    if unread:
        advice = (
            f"its column '{unread[0]}' was not read, because it does not say which kind of end it marks: name it"
            " 'terminals' where the MDP ended, 'timeouts' where time ran out"
        )
    raise UsageError(
        f"The ends of episodes are needed; no row of {source} is terminal, timed out or followed by a"
        f" jump; {advice}."
    )


def _same_rows(left, right):
    """Per row, whether two `[N, O]` arrays agree within `TOLERANCE`, relative above 1."""
    same = np.empty(len(left), bool)
    for start in range(0, len(left), _BLOCK):
        a, b = left[start : start + _BLOCK], right[start : start + _BLOCK]
        same[start : start + _BLOCK] = (np.abs(a - b) <= TOLERANCE * np.maximum(1.0, np.abs(b))).all(axis=1)
    return same
