"""Baselines that keep away from what cannot be taken back by other means than a floor: a price, or a second policy that takes
over.

Both wrap an agent, learn from the column `label` (1 irreversible, 0 reversible, -1 unknown, which counts as `unknown`), and fit
where any agent fits: inside of `interventions.intervening`, as its forward agent, or in an ordinary run behind `wrap.labelled`.
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ooorl.errors import UsageError
from ooorl.types import Agent, Array, State, Transition
from ooorl.validation import check_not_negative, check_positive, check_unit
from ooorl.wrap import nested


def costs(batch: Transition, unknown: float = 0.0) -> Array:
    """`[B]`: 1 where the successor is known to be irreversible, 0 where it is known not to be, else `unknown`.

    Raises:
      UsageError: if the batch has no labels.
    """
    if 'label' not in batch.extras:
        raise UsageError('a constraint needs the column label; the batch has none; wrap the agent in intervening or in labelled')
    label = batch.extras['label']
    return jnp.where(label >= 0, label, unknown)


class PricedState(NamedTuple):
    """An agent's state beside the logarithm of the price."""

    agent: State
    log_price: Array


def priced(agent: Agent, *, limit: float, rate: float = 3e-3, start: float = 1.0, unknown: float = 0.0) -> Agent:
    """A price on irreversible steps, raised while they are more frequent than allowed and lowered while they are less.

        r' = r - price c,   d' = d (1 - c),   log price <- log price + rate (mean c - limit)

    c is `costs`. Since the critics of r - price c are those of r less the price times those of c, this is the Lagrangian of a
    safety critic without a network of its own; its multiplier follows the frequency in the batches instead of the critic's value.

    Source: Tessler, Mankowitz & Mannor, "Reward Constrained Policy Optimization", ICLR 2019, arXiv:1805.11074; the end at a
    failure is that of "Learning to be Safe", Srinivasan et al., arXiv:2010.14603.

    Args:
      agent: pays.
      limit: share of rows that may be irreversible, in [0, 1].
      rate: of the price.
      start: first price, in units of the reward.
      unknown: cost of rows that nobody has judged.
    """
    check_unit(limit=limit, unknown=unknown)
    check_positive(rate=rate, start=start)

    def paying(state, batch):
        cost, price = costs(batch, unknown), jnp.exp(state.log_price)
        return batch._replace(reward=batch.reward - price * cost, discount=batch.discount * (1.0 - cost))

    def update(state, batch, key):
        inner, metrics = agent.update(state.agent, paying(state, batch), key)
        mean = costs(batch, unknown).mean()
        after = PricedState(inner, state.log_price + rate * (mean - limit))
        return after, {**metrics, 'price': jnp.exp(state.log_price), 'cost': mean}

    return nested(
        agent,
        init=lambda key: PricedState(agent.init(key), jnp.log(jnp.asarray(start, jnp.float32))),
        update=update,
        sees=lambda state, batch: agent.sees(state.agent, paying(state, batch)),
    )


class RecoveringState(NamedTuple):
    """The states of the agent for the task and of the one that only keeps away."""

    task: State
    recovery: State


def recovering(task: Agent, recovery: Agent, *, threshold: float, unknown: float = 0.0) -> Agent:
    """A second policy acts wherever the first one's action risks too much.

        recovery learns r = -c, d' = d (1 - c);   risk(s, a) = -mean_e q_e(s, a) of the recovery agent
        a = a_task where risk(s, a_task) <= threshold, else a_recovery

    c is `costs`; with c in {0, 1} and gamma the recovery agent's discount, the risk is the discounted chance of ever doing
    something irreversible, of its own policy from then on. The task agent learns from all rows, the recovery agent's too, as they
    are.

    Source: Thananjeyan et al., "Recovery RL", RA-L 2021, arXiv:2010.15920, which stores the action that the task policy wanted
    for the task critic; here every critic learns what was done, as both are off-policy.

    Raises:
      UsageError: if the recovery agent has no Q to tell the risk by.
    """
    check_not_negative(threshold=threshold)
    if recovery.q is None:
        raise UsageError('recovering needs a recovery agent with a Q, to tell the risk by; this one has none; use td3 or sac')

    def keeping_away(batch):
        cost = costs(batch, unknown)
        return batch._replace(reward=-cost, discount=batch.discount * (1.0 - cost))

    def update(state, batch, key):
        task_key, recovery_key = jax.random.split(key)
        own, metrics = task.update(state.task, batch, task_key)
        other, more = recovery.update(state.recovery, keeping_away(batch), recovery_key)
        risk = -recovery.q(other, batch.observation, batch.action).mean()
        return RecoveringState(own, other), {**metrics, **{f'recovery/{k}': v for k, v in more.items()}, 'recovery/risk': risk}

    def acting(of_task, of_recovery):
        def act(state, observation, key):
            task_key, recovery_key = jax.random.split(key)
            wanted = of_task(state.task, observation, task_key)
            risk = -recovery.q(state.recovery, observation, wanted).mean(axis=0)
            safer = of_recovery(state.recovery, observation, recovery_key)
            return jnp.where((risk > threshold)[..., None], safer, wanted)

        return act

    return replace(
        task,
        init=lambda key: RecoveringState(*(one.init(k) for one, k in zip((task, recovery), jax.random.split(key), strict=True))),
        update=update,
        sample_action=acting(task.sample_action, recovery.sample_action),
        best_action=acting(task.best_action, recovery.best_action),
        observe=lambda s, rows: RecoveringState(task.observe(s.task, rows), recovery.observe(s.recovery, rows)),
        reads=tuple(dict.fromkeys((*task.reads, *recovery.reads))),
        sees=lambda state, batch: task.sees(state.task, batch),
        q=task.q and (lambda state, observation, action: task.q(state.task, observation, action)),
    )
