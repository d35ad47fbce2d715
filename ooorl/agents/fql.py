"""FQL: a flow policy imitates, a one-step policy distils it and climbs Q; no gradient passes through the flow's steps.

    next value  v'     = aggregate_e target_q_e(s', a')
    q           L_Q    = mean_e E[ head.loss(Q_e(s, a), backup(r, d, v')) ]
    flow        L_flow = E[ policy.loss(s, a) ] / A
    one step    L_one  = distil_weight * E[ mean_dims (raw(s, z) - decode(s, z))^2 ] - l * E[ mean_e Q_e(s, one_step(s, z)) ]

a' = one_step(s', z'), or of several such candidates the one that the current members' mean prefers; acting, for collection and
evaluation alike, is the same at s. z, z' ~ N(0, I) of size A; one_step(s, z) = clip(raw(s, z), -1, 1) with raw a network of
(s, z); decode is the policy's own, ten Euler steps by default. l = 1, or 1 / E|Q| without gradient where `normalise_q`. All
losses are evaluated at the parameters from before the update, then each network takes its Adam step. target_q moves by `polyak`
towards q from *before* this update, as in the released code.

Any policy with `decode` may stand in for the flow: then this distils a diffusion policy, say.

Source: Park, Li & Levine, "Flow Q-Learning", ICML 2025, arXiv:2502.02538; order and constants of seohongpark/fql@719d044.
`distil_weight` is alpha there: OGBench 10 to 1000; D4RL antmaze 10 (large 3), adroit 1,000 to 30,000. There one Adam serves all
networks, which is the same step. `critic_layer_norm='after'` is theirs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ooorl.agents.search import best_of, members_value
from ooorl.agents.steps import check_members, cloning_step, descend, init_q, kept, learner, require_decode
from ooorl.nn.heads import scalar_head
from ooorl.nn.losses import backup, ensemble_value, weighted
from ooorl.nn.networks import ensemble_q, mlp
from ooorl.nn.optimizers import slow_copy
from ooorl.nn.schedules import Scheduled, scheduled_adam
from ooorl.policies.flow import FlowConfig, flow_policy
from ooorl.policies.noise import beside
from ooorl.types import Agent, Critic, Metrics, Params, Policy, Spec, Transition, ValueHead
from ooorl.validation import check_choice, check_not_negative, check_positive, check_unit


@dataclass(frozen=True, kw_only=True)
class FQLConfig(Scheduled):
    """Settings of `fql`; the defaults are the released code's."""

    gamma: float = 0.99  # discount factor; OGBench's giant mazes and humanoids 0.995
    polyak: float = 0.005  # share of q in target_q after each update
    learning_rate: float = 3e-4  # Adam, all networks
    num_candidates: int = 1  # draws of the one-step policy, of which the best acts and stands in the target
    distil_weight: float = 10.0  # alpha: of staying near the flow against climbing Q
    normalise_q: bool = False  # divide Q by its mean size, so that alpha does not depend on the rewards' scale
    aggregate: str = 'mean'  # of the target: 'mean', 'min' (D4RL antmaze, adroit), or 'lower' = mean - rho std
    rho: float = 0.5  # of 'lower'
    hidden: tuple[int, ...] = (512, 512, 512, 512)  # widths of all networks
    num_critics: int = 2  # ensemble members E
    critic_layer_norm: str | None = 'after'  # None, or 'before' / 'after' the activation
    kernel_init: str = 'xavier_uniform'  # of Q and the one-step policy, as of `networks.mlp`
    num_steps: int = 10  # Euler steps of the default policy

    def __post_init__(self):
        super().__post_init__()
        check_unit(gamma=self.gamma, polyak=self.polyak)
        check_positive(learning_rate=self.learning_rate, num_critics=self.num_critics, num_steps=self.num_steps)
        check_positive(num_candidates=self.num_candidates)
        check_not_negative(distil_weight=self.distil_weight)
        check_members(self)
        check_choice((None, 'before', 'after'), critic_layer_norm=self.critic_layer_norm)


class FQLState(NamedTuple):
    """Parameters and optimisers of the flow, the one-step policy and Q, and the slow copy of Q."""

    policy: Params
    policy_opt: optax.OptState
    one_step: Params
    one_step_opt: optax.OptState
    q: Params
    q_opt: optax.OptState
    target_q: Params


@dataclass(frozen=True, kw_only=True)
class FQLCriticConfig(FQLConfig):
    """Settings of `fql_critic`: those of `fql`, those of its policies unread; defaults of the comparison of ColinQiyangLi/qam."""

    aggregate: str = 'lower'
    num_critics: int = 10


class FQLCriticState(NamedTuple):
    """Parameters and optimiser of Q, and its slow copy."""

    q: Params
    q_opt: optax.OptState
    target_q: Params


class CriticParts(NamedTuple):
    """What a critic consists of."""

    init: Callable  # (key) -> the fields q, q_opt, target_q
    q_values: Callable  # (params, observation, action) -> [E, ...]
    loss_of: Callable  # (target_q, batch, next_action[B, A]) -> (params -> (loss, mean of Q), target[B])
    step: Callable  # (state, batch, next_action[B, A]) -> (state, metrics)


def critic_parts(spec: Spec, config: FQLConfig, head: ValueHead, grad_transform) -> CriticParts:
    """The critic of `fql` in pieces, for agents that put its loss beside others (QAM)."""
    network = ensemble_q(
        config.hidden, head.num_outputs, num_members=config.num_critics, layer_norm=config.critic_layer_norm, activation='gelu',
        kernel_init=config.kernel_init,
    )  # fmt: skip
    optimizer = scheduled_adam(config, 'critic', config.learning_rate, grad_transform)

    def init(key):
        return learner('q', init_q(network, spec, key), optimizer, slow=True)

    def q_values(params, observation, action):
        return head.value(network.apply(params, observation, action))

    def loss_of(target_q, batch, next_action):
        next_value = ensemble_value(q_values(target_q, batch.next_observation, next_action), config.aggregate, config.rho)
        target = backup(batch, next_value, config.gamma)

        def loss_fn(params):
            made = network.apply(params, batch.observation, batch.action)
            return weighted(batch, head.loss(made, target)).mean(), head.value(made).mean()

        return loss_fn, target

    def step(state, batch, next_action):
        loss_fn, target = loss_of(state.target_q, batch, next_action)
        state = state._replace(target_q=slow_copy(state.q, state.target_q, config.polyak))
        state, loss, mean = descend(state, 'q', loss_fn, optimizer)
        return state, {'q/loss': loss, 'q/mean': mean, 'q/target': target.mean()}

    return CriticParts(init, q_values, loss_of, step)


def fql(
    spec: Spec,
    config: FQLConfig = FQLConfig(),
    *,
    policy: Policy | None = None,
    head: ValueHead | None = None,
    grad_transform: optax.GradientTransformation = optax.identity(),
) -> Agent:
    """Flow Q-learning over any policy that makes its actions from noise.

    Raises:
      UsageError: if the policy has no `decode`.

    Example:
      >>> from ooorl.agents.fql import FQLConfig, fql
      >>> from ooorl.types import Spec
      >>> agent = fql(Spec(observation_dim=4, action_dim=2), FQLConfig(distil_weight=100.0))
    """
    policy = policy or flow_policy(spec, FlowConfig(hidden=config.hidden, num_steps=config.num_steps))
    require_decode(policy, 'fql', 'distils what the policy makes of its noise')
    critic = critic_parts(spec, config, head or scalar_head(), grad_transform)
    network = mlp(config.hidden, spec.action_dim, activation='gelu', kernel_init=config.kernel_init)
    optimizer = scheduled_adam(config, 'policy', config.learning_rate, grad_transform)
    policy_step = cloning_step(policy, optimizer, spec.action_dim)

    def raw(params, observation, noise):
        return network.apply(params, beside(noise, observation), noise)

    one_step_step = _one_step_step(config, policy, critic, raw, optimizer)

    def init(key):
        policy_key, one_step_key, q_key = jax.random.split(key, 3)
        example = jnp.zeros((1, spec.observation_dim)), jnp.zeros((1, policy.noise_dim))
        return FQLState(
            **learner('policy', policy.init(policy_key), optimizer),
            **learner('one_step', network.init(one_step_key, *example), optimizer),
            **critic.init(q_key),
        )

    def decode(state, observation, noise):
        return jnp.clip(raw(state.one_step, observation, noise), -1.0, 1.0)

    def draw(state, observation, key):
        several = (config.num_candidates,) if config.num_candidates > 1 else ()
        noise = jax.random.normal(key, (*several, *observation.shape[:-1], policy.noise_dim))
        made = decode(state, observation, noise)
        return best_of(members_value(partial(critic.q_values, state.q), observation, 'mean'), made) if several else made

    def update(state: FQLState, batch: Transition, key) -> tuple[FQLState, Metrics]:
        q_key, policy_key, one_step_key = jax.random.split(key, 3)
        flow, q = state.policy, state.q
        state, q_metrics = critic.step(state, batch, draw(state, batch.next_observation, q_key))
        state, policy_metrics = policy_step(state, batch, policy_key)
        state, one_step_metrics = one_step_step(state, batch, flow, q, one_step_key)
        return state, q_metrics | policy_metrics | one_step_metrics

    return Agent(
        init=init,
        update=update,
        sample_action=draw,
        best_action=draw,
        q=lambda state, observation, action: critic.q_values(state.q, observation, action),
        weighs=policy.masks,
        **({} if config.num_candidates > 1 else {'decode': decode, 'noise_dim': policy.noise_dim}),
    )


def _one_step_step(config, policy, critic, raw, optimizer):
    """`(state, batch, flow, q, key) -> (state, metrics)`: the one-step policy moves; flow and q are from before the update."""

    def step(state, batch, flow, q, key):
        noise = jax.random.normal(key, (*batch.reward.shape, policy.noise_dim))
        distilled = jax.lax.stop_gradient(policy.decode(flow, batch.observation, noise))

        def loss_fn(params):
            made = raw(params, batch.observation, noise)
            values = critic.q_values(q, batch.observation, jnp.clip(made, -1.0, 1.0)).mean(axis=0)
            distance = ((made - distilled) ** 2).mean()
            size = jax.lax.stop_gradient(jnp.abs(values).mean()) if config.normalise_q else 1.0
            loss = config.distil_weight * distance - values.mean() / size
            return loss, {'one_step/q': values.mean(), 'one_step/distance': distance}

        state, loss, metrics = descend(state, 'one_step', loss_fn, optimizer)
        return state, {'one_step/loss': loss} | metrics

    return step


def fql_critic(
    spec: Spec,
    config: FQLConfig = FQLCriticConfig(),
    *,
    head: ValueHead | None = None,
    grad_transform: optax.GradientTransformation = optax.identity(),
) -> Critic:
    """The critic of `fql` for any source of actions, which is asked for one action at s' (PA-RL, EXPO, DSRL)."""
    parts = critic_parts(spec, config, head or scalar_head(), grad_transform)

    def update(state, batch, key, sampler):
        drawn = sampler(batch.next_observation, key, 1, *kept(batch, 'next_candidates'))
        return parts.step(state, batch, jax.lax.stop_gradient(drawn[0]))

    return Critic(
        init=lambda key: FQLCriticState(**parts.init(key)),
        update=update,
        q=lambda state, observation, action: parts.q_values(state.q, observation, action),
        target_q=lambda state, observation, action: parts.q_values(state.target_q, observation, action),
        weighs=True,
    )
