"""The scale of rewards that comes from the returns of the data, resolved to a number."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from ooorl.errors import UsageError
from ooorl.runner.settings import AGENT_TABLES, RETURN_RANGE


def with_return_ranges(config: Mapping, dataset) -> tuple[dict, object]:
    """The config with `reward.scale = "return_range"` as a number, and the data set with a note on it.

    The scale is that of IQL's official code for locomotion: rewards are divided by the range of the returns of trajectories,
    an unfinished last one included, and multiplied by 1000.

    Raises:
      UsageError: where there are no data, or all their returns are equal.
    """
    tables = [n for n in AGENT_TABLES if config.get(n, {}).get('reward', {}).get('scale') == RETURN_RANGE]
    if not tables:
        return config, dataset
    if dataset is None:
        raise UsageError(f'reward.scale = "{RETURN_RANGE}" needs a data set to take returns from; none was given; give a number')
    returns = _returns(dataset.transitions)
    low, high = float(returns.min()), float(returns.max())
    if not low < high:
        raise UsageError(
            f'reward.scale = "{RETURN_RANGE}" needs trajectories of different returns; {dataset.name} has {len(returns)} of '
            f'return {low:g}; give a number'
        )
    scale = 1000.0 / (high - low)
    changed = {name: {**config[name], 'reward': {**config[name]['reward'], 'scale': scale}} for name in tables}
    note = f'reward scale {scale:.6g} = 1000 / ({high:.6g} - {low:.6g}), the range of {len(returns)} returns'
    return {**config, **changed}, dataclasses.replace(dataset, notes=(*dataset.notes, note))


def _returns(transitions) -> np.ndarray:
    """Undiscounted returns of all trajectories, an unfinished last one included."""
    last = np.flatnonzero(transitions.extras['boundary'])
    last = last if last.size and last[-1] == len(transitions.reward) - 1 else np.append(last, len(transitions.reward) - 1)
    return np.diff(np.cumsum(transitions.reward, dtype=np.float64)[last], prepend=0.0)
