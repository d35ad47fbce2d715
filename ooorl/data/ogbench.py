"""OGBench's npz layout: observations, actions, states of the simulator, and no rewards: those are a task's."""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from ooorl.data.dataset import Columns
from ooorl.errors import UsageError

STATES = ("qpos", "qvel", "button_states")
_SIGN = {"observations", "actions", "terminals", "qpos"}


class Labeller(Protocol):
    """What gives rewards to recorded states: an environment of the task.

    `labelled({name: [N, ...]})` gives rewards `[N]` and ends `[N]` bool for the columns `state_names`; `labels_from` says whose
    they are.
    """

    state_names: tuple[str, ...]
    labels_from: str

    def labelled(self, states: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Rewards and ends."""


def is_layout(names) -> bool:
    """Whether columns of these names are in OGBench's layout."""
    return _SIGN <= set(names) and not {"rewards", "reward"} & set(names)


def columns(given, read_column: Callable[[str], np.ndarray], source, labeller: Labeller | None, infos=()) -> Columns:
    """The columns of a file in this layout, without the last row of each episode, which has no successor.

    `terminals` mark the ends of episodes, all of which are time-outs; where the MDP ends, the labeller says, and episodes go on
    there.

    Args:
      given: names in the file.
      read_column: `name -> array`.
      source: what messages call the file.
      labeller: of the task; without one the columns have no rewards.
      infos: which of `STATES` to keep.

    Raises:
      UsageError: where a column is missing or of another length, or the states are not those of the labeller's environment.
    """
    ends = np.asarray(read_column("terminals")).reshape(-1) != 0
    rows = {name: read_column(name) for name in ("observations", "actions")}
    needed = {*infos, *(labeller.state_names if labeller else ())}
    missing = sorted(needed - set(given))
    if missing:
        raise UsageError(f"'{missing[0]}' is needed; {source} has {', '.join(sorted(given))}; record it, or do without.")
    states = {name: read_column(name) for name in needed}
    lengths = {name: len(column) for name, column in {"terminals": ends, **rows, **states}.items()}
    if len(set(lengths.values())) > 1:
        raise UsageError(f"Columns of one length are needed; {source} has {lengths}; record them alike.")
    kept = ~ends
    kept[-1:] = False
    rewards = ended = None
    if labeller is not None:
        rewards, ended = (column[kept] for column in labeller.labelled(states))
    following = np.flatnonzero(kept) + 1
    return Columns(
        observations=rows["observations"][kept],
        actions=rows["actions"][kept],
        rewards=rewards,
        terminals=ended,
        next_observations=rows["observations"][following],
        boundary=ends[following],
        infos={name: states[name][kept] for name in infos},
        labels_from=labeller.labels_from if labeller else "",
    )
