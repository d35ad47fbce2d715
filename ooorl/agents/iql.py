"""Implicit Q-learning: values from the data's actions only, a policy by weighted imitation.

    value   L_V  = E[ |expectile - 1(u < 0)| u^2 ],   u = aggregate_e clip(target_q_e(s, a), low, high) - V(s)
    policy  L_pi = E[ w * policy.loss(s, a) ],        w = min(exp(inverse_temperature * adv), max_weight),
                                                      adv = aggregate_e target_q_e(s, a) - V(s)
    q       L_Q  = sum_e E[ head.loss(Q_e(s, a), backup(r, d, V(s'))) ]

The aggregate over members is the minimum by default. With `extraction='ddpg_bc'` the policy climbs Q through its action as well,
near the data:

    policy  L_pi = cloning_weight * E[ w * policy.loss(s, a) ] - l * E[ aggregate_e q_e(s, pi(s)) ],     pi(s) = policy.mode(s)

l is `q_normalisation` over the advantage's deviation, or over the size of Q (`steps.climbing_scale`); `inverse_temperature=0`
gives every row the weight 1, which is DDPG+BC as published.

One update takes the three steps in that order, then moves target_q by `polyak` towards q. The policy step reads the new V and
the old target_q; the q step reads the new V (all of them what was there before with `at_once`, as IFQL's code has it). The
bounds low and high (the `value_bounds` wrapper) enter the value regression and the Bellman target and leave the advantage
alone; a bonus is added to the target after clipping.

Source: Kostrikov, Nair & Levine, "Offline Reinforcement Learning with Implicit Q-Learning", ICLR 2022, arXiv:2110.06169;
order and constants of ikostrikov/implicit_q_learning@09d7002. OOO's code takes the mean over critics instead of the sum
(`q_loss='mean'`): Adam all but cancels the difference. Extraction: Park et al., arXiv:2406.09329; the weighted form is that of
TD3-AWR, arXiv:2504.11453. The official offline script lets the policy's rate fall to 0 over its
million updates: `schedule='cosine', schedule_of='policy'`; OOO, and all fine-tuning, keeps it constant. Rewards are used as
given: wrap with `rescaled_reward`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ooorl.agents.steps import (
    Q_UNITS,
    acting,
    check_members,
    climbing_scale,
    descend,
    descend_policy,
    imitation,
    init_q,
    learner,
    require_decode,
    weight_facts,
)
from ooorl.nn.heads import scalar_head
from ooorl.nn.losses import awr_weight, backup, bounded, ensemble_value, expectile_loss, weighted
from ooorl.nn.networks import ACTIVATIONS, ensemble_q, mlp
from ooorl.nn.optimizers import slow_copy
from ooorl.nn.schedules import Scheduled, scheduled_adam
from ooorl.policies.gaussian import gaussian_policy
from ooorl.types import Agent, Critic, Metrics, Params, Policy, Spec, Transition, ValueHead
from ooorl.validation import check_choice, check_fraction, check_not_negative, check_positive, check_unit

LAYER_NORMS = {False: None, True: 'before'}


@dataclass(frozen=True, kw_only=True)
class IQLConfig(Scheduled):
    """Settings of `iql`; the defaults are the paper's for locomotion."""

    gamma: float = 0.99  # discount factor
    expectile: float = 0.7  # of the value regression, in (0, 1); antmaze 0.9
    inverse_temperature: float = 3.0  # of the policy weights; antmaze 10, kitchen and adroit 0.5
    max_weight: float = 100.0  # cap of the policy weights
    extraction: str = 'awr'  # of the policy: weighted imitation 'awr', or 'ddpg_bc', which also climbs Q through the action
    cloning_weight: float = 1.0  # of imitation with 'ddpg_bc'
    q_normalisation: float | None = 1.0  # with 'ddpg_bc': divide Q by its unit and multiply by this; None: as it is
    q_unit: str = 'advantage'  # of q_normalisation: the deviation of the 'advantage', or the mean 'size' of Q
    polyak: float = 0.005  # share of q in target_q after each update
    learning_rate: float = 3e-4  # Adam, all three networks
    hidden: tuple[int, ...] = (256, 256)  # widths of all networks
    dropout: float = 0.0  # rate in the policy; kitchen and adroit 0.1
    log_std_min: float = -5.0  # of the default policy
    num_critics: int = 2  # ensemble members E
    aggregate: str = 'min'  # of the slow members, where V and advantages read them: 'min', 'mean', or 'lower' = mean - rho std
    rho: float = 0.5  # of 'lower'
    activation: str = 'relu'  # of V and Q, as of `networks.mlp`; IFQL 'gelu'
    layer_norm: bool | str = False  # in V and Q: false, 'before' (or true) / 'after' the activation (IFQL); not in the paper
    kernel_init: str = 'orthogonal'  # of V and Q, likewise; IFQL 'xavier_uniform'
    at_once: bool = False  # all losses read the parameters from before the update, target_q follows the q from before: IFQL
    q_loss: str = 'sum'  # over members: 'sum' (official) or 'mean' (OOO)

    def __post_init__(self):
        super().__post_init__()
        check_fraction(expectile=self.expectile)
        check_unit(gamma=self.gamma, polyak=self.polyak)
        check_positive(max_weight=self.max_weight, learning_rate=self.learning_rate, num_critics=self.num_critics)
        check_not_negative(inverse_temperature=self.inverse_temperature, dropout=self.dropout)
        check_choice(('sum', 'mean'), q_loss=self.q_loss)
        check_choice((False, True, 'before', 'after'), layer_norm=self.layer_norm)
        check_choice(tuple(ACTIVATIONS), activation=self.activation)
        check_members(self)
        check_choice(('awr', 'ddpg_bc'), extraction=self.extraction)
        check_choice(Q_UNITS, q_unit=self.q_unit)
        check_positive(q_normalisation=self.q_normalisation)
        check_not_negative(cloning_weight=self.cloning_weight)


class IQLCriticState(NamedTuple):
    """Parameters and optimisers of V and Q, and the slow copy of Q."""

    value: Params
    value_opt: optax.OptState
    q: Params
    q_opt: optax.OptState
    target_q: Params


class IQLState(NamedTuple):
    """The critic's state beside the policy's."""

    critic: IQLCriticState
    policy: Params
    policy_opt: optax.OptState


class _CriticParts(NamedTuple):
    init: Callable
    value: Callable  # (params, observation) -> [...]
    q_values: Callable  # (params, observation, action) -> [E, ...]
    value_step: Callable  # (state, batch) -> (state, metrics)
    q_step: Callable  # (state, batch, parameters of V) -> (state, metrics)


def _critic_parts(spec: Spec, config: IQLConfig, head: ValueHead, grad_transform) -> _CriticParts:
    layer_norm = LAYER_NORMS.get(config.layer_norm, config.layer_norm)
    body = {'layer_norm': layer_norm, 'activation': config.activation, 'kernel_init': config.kernel_init}
    value_network = mlp(config.hidden, 1, **body)
    q_network = ensemble_q(config.hidden, head.num_outputs, num_members=config.num_critics, **body)
    optimizer = scheduled_adam(config, 'critic', config.learning_rate, grad_transform)

    def init(key):
        value_key, q_key = jax.random.split(key)
        value_params = value_network.init(value_key, jnp.zeros((1, spec.observation_dim)))
        return IQLCriticState(
            **learner('value', value_params, optimizer),
            **learner('q', init_q(q_network, spec, q_key), optimizer, slow=True),
        )

    def value(params, observation):
        return value_network.apply(params, observation)[..., 0]

    def q_values(params, observation, action):
        return head.value(q_network.apply(params, observation, action))

    def value_step(state, batch):
        q = bounded(batch, q_values(state.target_q, batch.observation, batch.action))
        target = ensemble_value(q, config.aggregate, config.rho)

        def loss_fn(params):
            prediction = value(params, batch.observation)
            return weighted(batch, expectile_loss(target - prediction, config.expectile)).mean(), prediction

        state, loss, prediction = descend(state, 'value', loss_fn, optimizer)
        return state, {'value/loss': loss, 'value/mean': prediction.mean()}

    def q_step(state, batch, value_params):
        target = backup(batch, value(value_params, batch.next_observation), config.gamma)

        def loss_fn(params):
            raw = q_network.apply(params, batch.observation, batch.action)
            members = weighted(batch, head.loss(raw, target)).mean(axis=-1)
            return getattr(members, config.q_loss)(), head.value(raw).mean()

        before = state.q
        state, loss, mean = descend(state, 'q', loss_fn, optimizer)
        slow = slow_copy(before if config.at_once else state.q, state.target_q, config.polyak)
        return state._replace(target_q=slow), {'q/loss': loss, 'q/mean': mean, 'q/target': target.mean()}

    return _CriticParts(init, value, q_values, value_step, q_step)


def iql(
    spec: Spec,
    config: IQLConfig = IQLConfig(),
    *,
    policy: Policy | None = None,
    head: ValueHead | None = None,
    grad_transform: optax.GradientTransformation = optax.identity(),
) -> Agent:
    """Implicit Q-learning with any policy and any value head for Q.

    Example:
      >>> from ooorl.agents.iql import IQLConfig, iql
      >>> from ooorl.types import Spec
      >>> agent = iql(Spec(observation_dim=4, action_dim=2), IQLConfig(expectile=0.9))
    """
    policy = policy or gaussian_policy(
        spec, config.hidden, dropout=config.dropout, log_std_bounds=(config.log_std_min, 2.0)
    )
    if config.extraction == 'ddpg_bc':
        require_decode(policy, 'iql with ddpg_bc', 'climbs Q through the action')
    parts = _critic_parts(spec, config, head or scalar_head(), grad_transform)
    policy_optimizer = scheduled_adam(config, 'policy', config.learning_rate, grad_transform)

    def init(key):
        critic_key, policy_key = jax.random.split(key)
        return IQLState(parts.init(critic_key), **learner('policy', policy.init(policy_key), policy_optimizer))

    def policy_step(state, batch, key):
        q = parts.q_values(state.critic.target_q, batch.observation, batch.action)
        value = parts.value(state.critic.value, batch.observation)
        advantage = ensemble_value(q, config.aggregate, config.rho) - value
        weight = awr_weight(advantage, config.inverse_temperature, config.max_weight)

        def loss_fn(params):
            imitated = (weight * imitation(policy, params, batch, key)).mean()
            if config.extraction == 'awr':
                return imitated, {}
            own = policy.mode(params, batch.observation, key)
            climbing = parts.q_values(state.critic.q, batch.observation, own)
            q = ensemble_value(climbing, config.aggregate, config.rho)
            scale = climbing_scale(q, advantage, config.q_normalisation, config.q_unit)
            climbed = {'policy/q': q.mean(), 'policy/cloning': imitated, 'policy/q_scale': scale}
            return config.cloning_weight * imitated - scale * weighted(batch, q).mean(), climbed

        state, loss, climbed = descend_policy(state, policy, loss_fn, policy_optimizer)
        own = {f'policy/{name}': value for name, value in policy.facts(state.policy).items()}
        return state, {'policy/loss': loss, **climbed, **own, **weight_facts(advantage, weight, config.max_weight)}

    def update(state: IQLState, batch: Transition, key) -> tuple[IQLState, Metrics]:
        before = state.critic
        critic, value_metrics = parts.value_step(before, batch)
        read = before if config.at_once else critic
        state, policy_metrics = policy_step(state._replace(critic=read), batch, key)
        critic, q_metrics = parts.q_step(critic, batch, read.value)
        return state._replace(critic=critic), value_metrics | policy_metrics | q_metrics

    return Agent(
        init=init,
        update=update,
        **acting(policy),
        q=lambda state, observation, action: parts.q_values(state.critic.q, observation, action),
        weighs=policy.masks,
    )


def iql_critic(
    spec: Spec,
    config: IQLConfig = IQLConfig(),
    *,
    head: ValueHead | None = None,
    grad_transform: optax.GradientTransformation = optax.identity(),
) -> Critic:
    """The value half of `iql` on its own: the V step, then the Q step. It draws no actions, so `sampler` is not called."""
    parts = _critic_parts(spec, config, head or scalar_head(), grad_transform)

    def update(state, batch, key, sampler):
        del key, sampler
        new, value_metrics = parts.value_step(state, batch)
        new, q_metrics = parts.q_step(new, batch, (state if config.at_once else new).value)
        return new, value_metrics | q_metrics

    return Critic(
        init=parts.init,
        update=update,
        q=lambda state, observation, action: parts.q_values(state.q, observation, action),
        target_q=lambda state, observation, action: parts.q_values(state.target_q, observation, action),
        weighs=True,
    )
