"""Soft actor-critic, and RLPD as settings of it: a policy that climbs Q and its own entropy.

    next value   v'  = aggregate_{e in J} target_q_e(s', a') - t * log pi(a' | s'),   a' ~ pi(. | s'),   t = exp(log_temperature)
    q            L_Q  = mean_e E[ head.loss(Q_e(s, a), backup(r, d, v')) ]
    policy       L_pi = E[ t * log pi(a | s) - Q(s, a) ],   a ~ pi(. | s), Q the `policy_value` over members
    temperature  L_t  = t * (E[ -log pi(a | s) ] - target_entropy)

J is a fresh random subset of `num_target_critics` members for each q step. The entropy term of v' is left out with
`entropy_backup=False`. One update cuts the batch into `utd` interleaved slices and takes one q step on each, moving target_q
by `polyak` after every step; then one policy step and one temperature step on the last slice. q steps read the old policy and
temperature; the policy step reads the new Q and the old temperature; the temperature step reads the entropy of the policy
step's draws. The batch therefore has `utd` times as many rows as one q step sees.

| | SAC | RLPD | OOO's RLPD: explore | retrain |
|---|---|---|---|---|
| num_critics, num_target_critics | 2, None | 10, 2 (sparse tasks 1) | 10, 2 | 2, None |
| critic_layer_norm | None | before | before | None |
| utd, rows of a batch | 1, 256 | 20, 5120 | 20, 5120 | 1, 256 |
| policy_value | min | mean | mean | mean |
| entropy_backup | True | per task | True | True |
| kernel_init | orthogonal | xavier_uniform | xavier_uniform | xavier_uniform |

Source: Haarnoja et al. 2018, arXiv:1812.05905; Ball et al. 2023, arXiv:2302.02948; order and constants of
ikostrikov/rlpd@c90fd4b. Deviations: target_entropy defaults to RLPD's -A/2, not SAC's -A. RLPD cuts its batch into
consecutive slices and interleaves the sources beforehand; here the slices are interleaved. RLPD computes log pi by inverting
tanh; here it comes from the draw itself, which keeps its digits where tanh saturates. Half of each batch from the data set is
a matter of sampling (`mix`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ooorl.agents.steps import (
    acting,
    check_members,
    descend,
    descend_policy,
    draw_members,
    init_q,
    interleaved_slices,
    kept,
    last_slice,
    learner,
    pick_members,
    require_density,
    temperature_step,
)
from ooorl.nn.heads import scalar_head
from ooorl.nn.losses import AGGREGATES, backup, ensemble_value, weighted
from ooorl.nn.networks import ensemble_q
from ooorl.nn.optimizers import slow_copy
from ooorl.nn.schedules import Scheduled, scheduled_adam
from ooorl.policies.gaussian import tanh_gaussian_policy
from ooorl.types import Agent, Array, Critic, DensityPolicy, Metrics, Params, Spec, Transition, ValueHead
from ooorl.validation import check_choice, check_positive, check_unit


@dataclass(frozen=True, kw_only=True)
class SACConfig(Scheduled):
    """Settings of `sac`; the defaults are SAC's."""

    gamma: float = 0.99  # discount factor
    polyak: float = 0.005  # share of q in target_q after each q step
    learning_rate: float = 3e-4  # Adam, policy, Q and temperature
    policy_learning_rate: float | None = None  # of policy and temperature, where it is another one; WSRL 1e-4
    utd: int = 1  # q steps per update; RLPD 20
    num_critics: int = 2  # ensemble members E; RLPD 10
    num_target_critics: int | None = None  # members drawn for each target; None means all; RLPD 2
    aggregate: str = 'min'  # of the drawn members, for the target: 'min', 'mean', or 'lower' = mean - rho std
    rho: float = 0.5  # of 'lower'
    entropy_backup: bool = True  # whether the next value counts the entropy
    policy_value: str = 'min'  # what the policy climbs: 'min' over members (SAC), 'mean' (RLPD) or 'lower'
    init_temperature: float = 1.0  # starting value of the entropy's weight
    learn_temperature: bool = True  # else it keeps its starting value
    target_entropy: float | None = None  # nats; None means -A/2 (RLPD); SAC -A
    hidden: tuple[int, ...] = (256, 256)  # widths of all networks
    critic_layer_norm: str | None = None  # None, or 'before' / 'after' the activation; RLPD 'before'
    kernel_init: str = 'orthogonal'  # of `networks.mlp`; RLPD 'xavier_uniform'

    def __post_init__(self):
        super().__post_init__()
        check_unit(gamma=self.gamma, polyak=self.polyak)
        check_positive(learning_rate=self.learning_rate, utd=self.utd, num_critics=self.num_critics)
        check_positive(policy_learning_rate=self.policy_learning_rate)
        check_positive(num_target_critics=self.num_target_critics, init_temperature=self.init_temperature)
        check_choice(AGGREGATES, policy_value=self.policy_value)
        check_choice((None, 'before', 'after'), critic_layer_norm=self.critic_layer_norm)
        check_members(self)


class SACState(NamedTuple):
    """Parameters and optimisers of policy, Q and temperature, and the slow copy of Q."""

    policy: Params
    policy_opt: optax.OptState
    log_temperature: Array
    temperature_opt: optax.OptState
    q: Params
    q_opt: optax.OptState
    target_q: Params


class SACCriticState(NamedTuple):
    """Parameters and optimiser of Q, and its slow copy."""

    q: Params
    q_opt: optax.OptState
    target_q: Params


class _CriticParts(NamedTuple):
    init: Callable  # (key) -> the fields q, q_opt, target_q
    q_values: Callable  # (params, observation, action) -> [E, ...]
    step: Callable  # (state, batch, members, next_action[B, A], entropy[B] or 0) -> (state, metrics)


def _critic_parts(spec: Spec, config: SACConfig, head: ValueHead, grad_transform) -> _CriticParts:
    network = ensemble_q(
        config.hidden, head.num_outputs, num_members=config.num_critics, layer_norm=config.critic_layer_norm,
        kernel_init=config.kernel_init,
    )
    optimizer = scheduled_adam(config, 'critic', config.learning_rate, grad_transform, steps_per_update=config.utd)

    def init(key):
        return learner('q', init_q(network, spec, key), optimizer, slow=True)

    def q_values(params, observation, action):
        return head.value(network.apply(params, observation, action))

    def step(state, batch, members, next_action, entropy):
        next_q = q_values(pick_members(state.target_q, members), batch.next_observation, next_action)
        target = backup(batch, ensemble_value(next_q, config.aggregate, config.rho) + entropy, config.gamma)

        def loss_fn(params):
            raw = network.apply(params, batch.observation, batch.action)
            return weighted(batch, head.loss(raw, target)).mean(), head.value(raw).mean()

        state, loss, mean = descend(state, 'q', loss_fn, optimizer)
        slow = slow_copy(state.q, state.target_q, config.polyak)
        return state._replace(target_q=slow), {'q/loss': loss, 'q/mean': mean, 'q/target': target.mean()}

    return _CriticParts(init, q_values, step)


class _Parts(NamedTuple):
    init: Callable
    q_values: Callable  # (params, observation, action) -> [E, ...]
    q_step: Callable  # (state, batch, members, key) -> (state, metrics)
    policy_step: Callable  # (state, batch, key) -> (state, metrics)


def _parts(spec: Spec, config: SACConfig, policy: DensityPolicy, head: ValueHead, grad_transform) -> _Parts:
    critic = _critic_parts(spec, config, head, grad_transform)
    rate = config.learning_rate if config.policy_learning_rate is None else config.policy_learning_rate
    optimizer = scheduled_adam(config, 'policy', rate, grad_transform)
    target_entropy = -spec.action_dim / 2 if config.target_entropy is None else config.target_entropy

    def init(key):
        policy_key, q_key = jax.random.split(key)
        log_temperature = jnp.log(jnp.asarray(config.init_temperature, jnp.float32))
        return SACState(
            **learner('policy', policy.init(policy_key), optimizer),
            log_temperature=log_temperature,
            temperature_opt=optimizer.init(log_temperature),
            **critic.init(q_key),
        )

    def q_step(state, batch, members, key):
        action, log_prob = _draw(policy, state.policy, batch.next_observation, key)
        entropy = -jnp.exp(state.log_temperature) * log_prob if config.entropy_backup else 0.0
        return critic.step(state, batch, members, action, entropy)

    def policy_step(state, batch, key):
        temperature = jnp.exp(state.log_temperature)

        def loss_fn(params):
            action, log_prob = _draw(policy, params, batch.observation, key)
            q = ensemble_value(critic.q_values(state.q, batch.observation, action), config.policy_value, config.rho)
            return (temperature * log_prob - q).mean(), -log_prob.mean()

        state, loss, entropy = descend_policy(state, policy, loss_fn, optimizer)
        moved, metrics = temperature_step(state, entropy - target_entropy, jnp.exp, optimizer)
        metrics = {'policy/loss': loss, 'policy/entropy': entropy} | metrics
        return moved if config.learn_temperature else state, metrics

    return _Parts(init, critic.q_values, q_step, policy_step)


def _draw(policy, params, observation, key):
    action, log_prob = policy.sample_and_log_prob(params, observation, key, 1)
    return action[0], log_prob[0]


def sac(
    spec: Spec,
    config: SACConfig = SACConfig(),
    *,
    policy: DensityPolicy | None = None,
    head: ValueHead | None = None,
    grad_transform: optax.GradientTransformation = optax.identity(),
) -> Agent:
    """Soft actor-critic with any policy that knows its density.

    Raises:
      UsageError: if the policy has no density.

    Example:
      >>> from ooorl.agents.sac import SACConfig, sac
      >>> from ooorl.types import Spec
      >>> rlpd = SACConfig(num_critics=10, num_target_critics=2, critic_layer_norm='before', utd=20, policy_value='mean')
      >>> agent = sac(Spec(observation_dim=4, action_dim=2), rlpd)
    """
    policy = require_density(policy or tanh_gaussian_policy(spec, config.hidden, kernel_init=config.kernel_init), 'sac')
    parts = _parts(spec, config, policy, head or scalar_head(), grad_transform)

    def update(state: SACState, batch: Transition, key) -> tuple[SACState, Metrics]:
        q_key, policy_key = jax.random.split(key)
        slices = interleaved_slices(batch, config.utd)

        def one_q_step(state, inputs):
            rows, step_key = inputs
            members_key, action_key = jax.random.split(step_key)
            members = draw_members(members_key, config.num_critics, config.num_target_critics)
            return parts.q_step(state, rows, members, action_key)

        state, q_metrics = jax.lax.scan(one_q_step, state, (slices, jax.random.split(q_key, config.utd)))
        state, policy_metrics = parts.policy_step(state, last_slice(slices), policy_key)
        return state, jax.tree.map(jnp.mean, q_metrics) | policy_metrics

    return Agent(
        init=parts.init,
        update=update,
        **acting(policy),
        q=lambda state, observation, action: parts.q_values(state.q, observation, action),
        weighs=True,
    )


def sac_critic(
    spec: Spec,
    config: SACConfig = SACConfig(),
    *,
    head: ValueHead | None = None,
    grad_transform: optax.GradientTransformation = optax.identity(),
) -> Critic:
    """The critic of `sac` and RLPD for any source of actions, which need not know its density: no entropy in the target (PA-RL).

    `utd` interleaved slices of a batch, a step on each; the sampler is called once for each, at s'.
    """
    parts = _critic_parts(spec, config, head or scalar_head(), grad_transform)

    def update(state, batch, key, sampler):
        def one_step(state, inputs):
            rows, step_key = inputs
            members_key, action_key = jax.random.split(step_key)
            members = draw_members(members_key, config.num_critics, config.num_target_critics)
            drawn = sampler(rows.next_observation, action_key, 1, *kept(rows, 'next_candidates'))
            action = jax.lax.stop_gradient(drawn[0])
            return parts.step(state, rows, members, action, 0.0)

        steps = (interleaved_slices(batch, config.utd), jax.random.split(key, config.utd))
        state, metrics = jax.lax.scan(one_step, state, steps)
        return state, jax.tree.map(jnp.mean, metrics)

    return Critic(
        init=lambda key: SACCriticState(**parts.init(key)),
        update=update,
        q=lambda state, observation, action: parts.q_values(state.q, observation, action),
        target_q=lambda state, observation, action: parts.q_values(state.target_q, observation, action),
        weighs=True,
    )
