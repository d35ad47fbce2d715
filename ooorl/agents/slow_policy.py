"""An agent that acts with a moving average of its policy.

    slow <- (1 - rate) * slow + rate * policy        after every update

Whatever the agent is, learning reads its own policy and acting reads the slow one: the last of many noisy steps decides less
about what is deployed. The policies' own slow copies (`ooorl.policies.averaged`) do the same for one kind of policy.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ooorl.errors import UsageError
from ooorl.types import Agent, Params, State
from ooorl.validation import check_share
from ooorl.wrap import nested


class SlowPolicyState(NamedTuple):
    """An agent's state beside the slow copy of its policy."""

    agent: State
    slow: Params


def slow_policy(agent: Agent, rate: float) -> Agent:
    """The agent acting with a slow copy of its state's `policy`; wrappers that edit batches stand outside of it.

    Raises:
      UsageError: if the rate is not in (0, 1], or the agent's state has no `policy`.
    """
    check_share(ema_rate=rate)
    if not hasattr(jax.eval_shape(agent.init, jax.random.key(0)), 'policy'):
        raise UsageError('ema_rate needs an agent whose state has a policy to average; got another; remove the key')

    def init(key):
        state = agent.init(key)
        # A copy, so that the state can be donated.
        return SlowPolicyState(state, jax.tree.map(jnp.copy, state.policy))

    def update(state, batch, key):
        own, metrics = agent.update(state.agent, batch, key)
        slow = jax.tree.map(lambda old, new: (1.0 - rate) * old + rate * new, state.slow, own.policy)
        return SlowPolicyState(own, slow), metrics

    def acting(act):
        return lambda state, observation, key: act(state.agent._replace(policy=state.slow), observation, key)

    def inherit(state, sources):
        own = agent.inherit(state.agent, sources)
        return SlowPolicyState(own, own.policy)

    return nested(
        agent,
        init=init,
        update=update,
        sample_action=acting(agent.sample_action),
        best_action=acting(agent.best_action),
        decode=agent.decode and acting(agent.decode),
        inherit=agent.inherit and inherit,
    )
