"""Whether the values that the data themselves show fit between the ends of a classification head."""

from collections.abc import Mapping

import numpy as np

from ooorl.errors import UsageError
from ooorl.runner.config import gamma_of
from ooorl.runner.settings import AGENT_TABLES
from ooorl.training.episodes import returns_to_go
from ooorl.types import Transition


def check_heads(config: Mapping, data: Transition):
    """Raises where a head could never say what the data's episodes returned, in the units of the agent's rewards.

    A head clips its targets to its support without a word, so that values beyond it are learnt as its end.

    Raises:
      UsageError: naming the agent's table, its support and the returns.
    """
    for name in AGENT_TABLES:
        table = config.get(name, {})
        if 'head' not in table:
            continue
        low, high = _returns(table, data)
        head, slack = table['head'], 1e-3 * max(abs(low), abs(high), 1e-6)
        if low < head['low'] - slack or high > head['high'] + slack:
            raise UsageError(
                f'[{name}.head] must hold the discounted returns of the data, from {low:.6g} to {high:.6g} in the rewards of '
                f'[{name}]; got a support from {head["low"]:g} to {head["high"]:g}; widen it, or scale the rewards'
            )


def _returns(table, data):
    """The least and the largest discounted return to go, as `wrap`'s edits of rewards, ends and bounds leave them."""
    reward, discount = np.asarray(data.reward, np.float32), np.asarray(data.discount, np.float32)
    if table.get('terminal_reward') is not None:
        discount = (reward != table['terminal_reward']).astype(np.float32)
    units = table.get('reward', {})
    reward = units.get('scale', 1.0) * reward + units.get('shift', 0.0)
    returns = np.asarray(returns_to_go(reward, discount, np.asarray(data.extras['boundary']), gamma_of(table) or 0.99))
    returns = returns[np.isfinite(returns)] if np.isfinite(returns).any() else np.zeros(1)
    bounds = table.get('bounds', {})
    returns = np.clip(returns, bounds.get('low', -np.inf), bounds.get('high', np.inf))
    return float(returns.min()), float(returns.max())
