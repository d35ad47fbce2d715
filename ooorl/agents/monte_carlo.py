"""A Monte-Carlo start: for the first updates of a phase an agent's targets are the returns that were seen.

    y = G,   the batch's `return_to_go`, where it is known and the phase is younger than `share` of its updates; else as ever

The slow target is the clock of bootstrapping: a value moves one step in about 1 / polyak updates. Supervision by returns brings
values to the whole length of an episode at once; what it knows nothing of (better ways than those taken) the usual rule adds
afterwards. The return of an episode that a time limit cut lacks what would have followed; where that counts, see
`Sampling.failure_returns`. G stands in the place of the reward of a row that ends, so that bounds and bonuses apply to it.

Source: the idea is that of Jelley et al., arXiv:2406.13376, who pretrain the critic; here it is a part of each phase.
"""

from typing import NamedTuple

import jax.numpy as jnp

from ooorl.nn.schedules import Progress
from ooorl.types import Agent, State
from ooorl.validation import check_unit
from ooorl.wrap import nested


class MonteCarloState(NamedTuple):
    """An agent's state, and where it stands in its phase."""

    agent: State
    progress: Progress


def monte_carlo_start(agent: Agent, share: float) -> Agent:
    """The agent with returns as targets for the first `share` of every phase's updates."""
    check_unit(monte_carlo_share=share)

    def edit(state, batch):
        if state.progress.updates is None:
            return batch
        returns = batch.extras['return_to_go']
        young = (state.progress.count < share * state.progress.updates) & jnp.isfinite(returns)
        reward, discount = jnp.where(young, returns, batch.reward), jnp.where(young, 0.0, batch.discount)
        return batch._replace(reward=reward, discount=discount)

    def update(state, batch, key):
        own, metrics = agent.update(state.agent, edit(state, batch), key)
        return MonteCarloState(own, state.progress._replace(count=state.progress.count + 1)), metrics

    return nested(
        agent,
        init=lambda key: MonteCarloState(agent.init(key), Progress(jnp.zeros((), jnp.int32), None)),
        update=update,
        reads=tuple(dict.fromkeys((*agent.reads, 'return_to_go'))),
        sees=lambda state, batch: agent.sees(state.agent, edit(state, batch)),
    )
