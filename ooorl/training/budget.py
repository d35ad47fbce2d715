"""Help on a budget: when a reset pays, planned by dynamic programming over logged lives.

A life is cut into decisions of some steps each. What is known at a decision is a cell z (a bin of the value times a bin of the
risk), the number of decisions left and the number of requests left. With P the logged frequencies of the next cell and u(z) what
a decision in cell z is worth,

    U_0 = 0,   U_h(z, b) = u(z) + max( sum_z' P(z' | z) U_{h-1}(z', b),   sum_z' R(z') U_{h-1}(z', b - 1) where b > 0 )

R being the cells of fresh lives. Help is asked for where the second is larger: at once where a reset pays, never where it does
not, and the last requests are kept for where they are worth most. One log serves all budgets.

Source of the idea: "Self-Regulation and Requesting Interventions", arXiv:2502.04576, who distil the
plan into a classifier; here its table is small enough to be the policy itself.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ooorl.errors import UsageError
from ooorl.training.lives import COLUMNS
from ooorl.types import Array, Key, State
from ooorl.validation import check_not_negative, check_positive


class Log(NamedTuple):
    """Counted decisions: `steps` `[Z, Z]` from cell to next cell of the same life, `fresh` `[Z]` first cells of lives, `worth`
    `[Z]` the mean worth of a decision in each cell, 0 where none was seen."""

    steps: np.ndarray
    fresh: np.ndarray
    worth: np.ndarray


class Plan(NamedTuple):
    """When to ask: `ask` `[H + 1, C + 1, Z]` bool and the expected worth of what is left `[H + 1, C + 1, Z]`, by decisions left,
    requests left and cell."""

    ask: np.ndarray
    worth: np.ndarray


def cells(value: Array, risk: Array, value_edges: Array, risk_edges: Array) -> Array:
    """`[...]` int32: the number of the cell; a bin's upper edge belongs to the next bin."""
    value_bin = jnp.searchsorted(jnp.asarray(value_edges, jnp.float32), value, side='right')
    risk_bin = jnp.searchsorted(jnp.asarray(risk_edges, jnp.float32), risk, side='right')
    return (value_bin * (len(risk_edges) + 1) + risk_bin).astype(jnp.int32)


def count(cell: np.ndarray, life: np.ndarray, worth: np.ndarray, num_cells: int) -> Log:
    """Counts logged decisions `[n]` in the order they were made: their cells, numbers of their lives and what each was worth.

    Raises:
      UsageError: if there is no decision, or a cell lies outside.
    """
    cell, life, worth = np.asarray(cell), np.asarray(life), np.asarray(worth, np.float64)
    if not cell.size or cell.min() < 0 or cell.max() >= num_cells:
        raise UsageError(f'a log needs decisions in cells 0 to {num_cells - 1}; got {cell.size}; log some lives first')
    going = life[1:] == life[:-1]
    steps = np.zeros((num_cells, num_cells))
    np.add.at(steps, (cell[:-1][going], cell[1:][going]), 1.0)
    fresh = np.bincount(cell[np.append(True, ~going)], minlength=num_cells).astype(float)
    visits = np.bincount(cell, minlength=num_cells)
    return Log(steps, fresh, np.bincount(cell, weights=worth, minlength=num_cells) / np.maximum(visits, 1))


def _steps_of(log):
    """(move `[Z, Z]`, fresh `[Z]`): chances of the next cell and of a life's first; a cell that was never left stays as it is."""
    totals = log.steps.sum(axis=1, keepdims=True)
    move = np.where(totals > 0, log.steps / np.maximum(totals, 1.0), np.eye(len(log.fresh)))
    return move, log.fresh / log.fresh.sum()


def staged(logs: Sequence[Log], pooled: float) -> tuple[Log, ...]:
    """Logs of consecutive stages of a run, each helped out by `pooled` times the counts of all together.

    A policy that learns has other lives early than late; a stage alone has few. A cell that a stage never left has the worth that
    it has in all.
    """
    check_not_negative(pooled=pooled)
    steps, fresh = (pooled * np.sum([getattr(log, name) for log in logs], axis=0) for name in ('steps', 'fresh'))
    visits = np.stack([log.steps.sum(axis=1) + 1e-9 for log in logs])
    worth = (visits * [log.worth for log in logs]).sum(axis=0) / visits.sum(axis=0)
    return tuple(
        Log(log.steps + steps, log.fresh + fresh, np.where(log.steps.any(axis=1), log.worth, worth)) for log in logs
    )


def _backwards(log, horizon, budget, asking, learning=False):
    """Tables of `Plan` for `asking(stay, reset) -> [C + 1, Z]` bool, both of them the worth of what would follow."""
    check_positive(horizon=horizon)
    check_not_negative(budget=budget)
    logs = (log,) if isinstance(log, Log) else tuple(log)
    seen = np.any([one.steps.any(axis=0) | one.steps.any(axis=1) | (one.fresh > 0) for one in logs], axis=0)
    moves, worth = [_steps_of(one) for one in logs], np.zeros((horizon + 1, budget + 1, len(logs[0].fresh)))
    ask = np.zeros_like(worth, bool)
    for left in range(1, horizon + 1):
        stage = (horizon - left) * len(logs) // horizon
        move, fresh = moves[stage]
        stay = worth[left - 1] @ move.T
        reset = np.full_like(stay, -np.inf)
        reset[1:] = (worth[left - 1, :-1] @ fresh)[:, None]
        ask[left] = asking(stay, reset) & seen
        weight = left / horizon if learning else 1.0
        worth[left] = weight * logs[stage].worth + np.where(ask[left], reset, stay)
    return Plan(ask, worth)


def plan(log: Log | Sequence[Log], horizon: int, budget: int, *, learning: bool = False) -> Plan:
    """The best use of `budget` requests over `horizon` decisions; a cell that was never left is taken to stay as it is, and
    in one that was never seen nobody asks.

    Several logs are those of equal consecutive parts of the horizon (`staged`). Ties do not ask. `learning` weighs a decision by
    the share of the run that is left, in which it is learnt from: of two requests of equal worth the earlier one brings more.
    """
    return _backwards(log, horizon, budget, lambda stay, reset: reset > stay + 1e-9, learning)


def judged(log: Log | Sequence[Log], asks: np.ndarray, horizon: int, budget: int) -> Plan:
    """What a fixed rule is worth by the same log, for comparison with `plan`: in cells `asks` `[Z]` bool it asks as long as there
    are requests."""
    asks = np.asarray(asks, bool)
    return _backwards(log, horizon, budget, lambda stay, reset: asks & np.isfinite(reset))


def when_it_pays(
    planned: Plan, cell_of: Callable[[State, Array, Key], Array], *, total_steps: int, decision_steps: int
) -> Callable[[State, Array, Array, Key], Array]:
    """The trigger of `training.interventions` that follows a plan; give it `Rules(patience=0)` and the plan's budget.

    Args:
      planned: from `plan`.
      cell_of: `(state of the intervening agent, observation[..., O], key) -> cell [...]`.
      total_steps: steps of the whole run, of each copy.
      decision_steps: steps of a decision; in between nothing is asked.
    """
    table = jnp.asarray(planned.ask)
    horizon, budget = planned.ask.shape[0] - 1, planned.ask.shape[1] - 1

    def trigger(state, observation, columns, key):
        elapsed, age, requests = (columns[..., COLUMNS.index(name)] for name in ('elapsed', 'age', 'left'))
        left = jnp.clip((total_steps - elapsed) // decision_steps, 0, horizon).astype(jnp.int32)
        requests = jnp.clip(requests, 0, budget).astype(jnp.int32)
        due = (age % decision_steps == 0) & (age > 0)
        return table[left, requests, cell_of(state, observation, key)] & due

    return trigger
