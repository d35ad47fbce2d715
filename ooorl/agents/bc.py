"""Behaviour cloning: fit a policy to the data's actions.

    L_pi = E[ policy.loss(s, a) ]

For a Gaussian policy that is maximum likelihood. One Adam step a batch; rewards are not read.
"""

from dataclasses import dataclass
from typing import NamedTuple

import optax

from ooorl.agents.steps import acting, descend_policy, imitation, learner
from ooorl.nn.schedules import Scheduled, scheduled_adam
from ooorl.policies.gaussian import gaussian_policy
from ooorl.types import Agent, Params, Policy, Spec
from ooorl.validation import check_positive


@dataclass(frozen=True, kw_only=True)
class BCConfig(Scheduled):
    """Settings of `bc`."""

    hidden: tuple[int, ...] = (256, 256)  # widths of the default policy
    learning_rate: float = 3e-4  # Adam
    dropout: float = 0.0  # rate in the default policy, while fitting

    def __post_init__(self):
        super().__post_init__()
        check_positive(learning_rate=self.learning_rate)


class BCState(NamedTuple):
    """Parameters of the policy and its optimiser."""

    policy: Params
    policy_opt: optax.OptState


def bc(spec: Spec, config: BCConfig = BCConfig(), *, policy: Policy | None = None) -> Agent:
    """Behaviour cloning of any `Policy`; the default is IQL's Gaussian."""
    policy = policy or gaussian_policy(spec, config.hidden, dropout=config.dropout)
    optimizer = scheduled_adam(config, 'policy', config.learning_rate)

    def init(key):
        return BCState(**learner('policy', policy.init(key), optimizer))

    def update(state, batch, key):
        def loss_fn(params):
            return imitation(policy, params, batch, key).mean(), None

        state, loss, _ = descend_policy(state, policy, loss_fn, optimizer)
        return state, {'policy/loss': loss}

    return Agent(init=init, update=update, **acting(policy), weighs=policy.masks)
