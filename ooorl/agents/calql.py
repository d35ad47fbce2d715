"""CQL and Cal-QL: actor-critic whose critic is pressed down on the policy's actions, but not below the data's own return.

    next value   v'  = max_j aggregate_e target_q_e(s', a'_j),   a'_1..N ~ pi(. | s')   (one a' without `max_target_backup`)
    gap          D_e = conservative_gap(Q_e(s, a), x_e)   over N uniform actions, N ~ pi(. | s') and N ~ pi(. | s), all at s;
                 x = Q(s, .); for the policy's actions max(Q(s, .), return_to_go) where `calibrate`
    q            L_Q = sum_e E[ head.loss(Q_e(s, a), backup(r, d, v')) ] + w * sum_e E[ D_e ]
    policy       L_pi = E[ t * log pi(a | s) - Q(s, a) ],   a ~ pi(. | s), Q the `policy_value` over members
    temperature  L_t = log t * (E[ -log pi(a | s) ] - target_entropy)
    dual         with a `target_gap`, w becomes p * w and D_e becomes D_e - target_gap, p = clip(exp(log_dual), 0, 1e6), and
                 log_dual ascends p * w * mean_e (E[ D_e ] - target_gap)

Cal-QL is the default, CQL is `calibrate=False`. With `importance_sampling` every x is corrected by the log-density with which its
action was drawn; without, the plain values and the data's action enter the soft maximum. All actions live in [-1, 1]^A, so the
log-density of a uniform action is -A log 2; boxes of other shapes are the environment adapter's business.

All losses of one update read the parameters from before it, then all optimisers step, then target_q moves by `polyak`. Each loss
moves its own parameters only. The policy is run once at s (1 + N draws: the first for its own loss, the others without gradient)
and once at s' (N or 1 draws for the target, N for the gap).

| | antmaze | adroit binary | kitchen (OOO, WSRL) |
|---|---|---|---|
| conservative_weight, target_gap | 5, 0.8 | 1, None | 5, None |
| importance_sampling | True | True | False |
| hidden; critic_hidden | 256 x 2; 256 x 4 | 512 x 2; 512 x 3 | 512 x 3; 512 x 3 |
| reward | 10 r - 5 | 10 r + 5 | r - 4 |
| share of the data set online | 0.5 | 0.5 | 0.25 |

Source: Kumar et al., arXiv:2006.04779; Nakamoto et al., arXiv:2303.05479; numbers of nakamotoo/Cal-QL@ac6eafe. Deviations: there
each loss draws its own actions and so each critic has its own target, here the draws are shared; no clipping of the gap and no
entropy in the target (both off there by default). OOO bounds v' alone; a `value_bounds` wrapper bounds the whole target. With
more critics than two, subsets for target and gap are drawn anew each update, without replacement (PA-RL: with), and the gap of a
subset stands for all. OOO asks for `critic_unit_features`, features over max(|features|, 1e-8), wherever it retrains, though its
released script (MaxSobolMark/OOO@b1424a2) drops the flag on the way to the network. A bonus enters the target and leaves the
calibration alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ooorl.agents.steps import (
    acting,
    apply_gradient,
    check_members,
    descend,
    descend_policy,
    draw_members,
    init_q,
    kept,
    learner,
    pick_members,
    require_density,
    temperature_step,
)
from ooorl.errors import UsageError
from ooorl.nn.heads import scalar_head
from ooorl.nn.losses import AGGREGATES, backup, calibrated, conservative_gap, ensemble_value, weighted
from ooorl.nn.networks import ensemble_q
from ooorl.nn.optimizers import slow_copy
from ooorl.nn.schedules import Scheduled, scheduled_adam
from ooorl.policies.gaussian import tanh_gaussian_policy
from ooorl.types import Agent, Array, Critic, DensityPolicy, Metrics, Params, Spec, Transition, ValueHead
from ooorl.validation import check_choice, check_not_negative, check_positive, check_unit


@dataclass(frozen=True, kw_only=True)
class CalQLConfig(Scheduled):
    """Settings of `calql`; the defaults are Cal-QL's with a fixed weight."""

    gamma: float = 0.99  # discount factor
    polyak: float = 0.005  # share of q in target_q after each update
    learning_rate: float = 3e-4  # Adam, Q and dual
    policy_learning_rate: float = 1e-4  # Adam, policy and temperature
    conservative_weight: float = 5.0  # w, of the gap beside the Bellman loss; adroit 1
    target_gap: float | None = None  # allowed gap, enforced by a dual variable; None: fixed weight; antmaze 0.8
    init_log_dual: float = 1.0  # starting value of the dual's logarithm
    num_actions: int = 10  # N, actions of each kind in the soft maximum, and in the target's maximum
    importance_sampling: bool = True  # correct sampled values by their log-density; kitchen False
    gap_temperature: float = 1.0  # of the soft maximum
    max_target_backup: bool = True  # the best of N next actions instead of a single draw
    calibrate: bool = True  # Cal-QL; False is CQL
    calibrate_random: bool = False  # bound the uniform actions too (OOO's copy); upstream does not
    init_temperature: float = 1.0  # starting value of the entropy's weight
    target_entropy: float | None = None  # nats; None means -A
    hidden: tuple[int, ...] = (256, 256)  # widths of the default policy; adroit (512, 512)
    critic_hidden: tuple[int, ...] = (256, 256)  # widths of Q; antmaze (256,) * 4, adroit (512,) * 3
    critic_layer_norm: str | None = None  # None, or 'before' / 'after' the activation; PA-RL 'before'
    critic_activation: str = 'relu'  # of `networks.mlp`; PA-RL 'swish'
    critic_unit_features: bool = False  # the last hidden layer of Q is divided by its norm; OOO's retraining True
    num_critics: int = 2  # ensemble members E; PA-RL 10
    num_target_critics: int | None = None  # members drawn for each target; None means all; PA-RL 2
    num_gap_critics: int | None = None  # members drawn for the gap; None means all; PA-RL 2
    aggregate: str = 'min'  # of the target's members: 'min', 'mean', or 'lower' = mean - rho std
    rho: float = 0.5  # of 'lower'
    policy_value: str = 'min'  # what the policy climbs, the same over all members

    def __post_init__(self):
        super().__post_init__()
        check_unit(gamma=self.gamma, polyak=self.polyak)
        check_positive(learning_rate=self.learning_rate, policy_learning_rate=self.policy_learning_rate)
        check_positive(num_actions=self.num_actions, gap_temperature=self.gap_temperature, num_critics=self.num_critics)
        check_positive(init_temperature=self.init_temperature)
        check_not_negative(conservative_weight=self.conservative_weight)
        check_choice((None, 'before', 'after'), critic_layer_norm=self.critic_layer_norm)
        check_choice(AGGREGATES, policy_value=self.policy_value)
        check_members(self)


@dataclass(frozen=True, kw_only=True)
class CalQLCriticConfig(CalQLConfig):
    """Settings of `calql_critic`: those of `calql`, those of its policy unread, without importance sampling."""

    importance_sampling: bool = False  # would need the density of actions


class CalQLCriticState(NamedTuple):
    """Parameters and optimisers of Q and of the dual, and the slow copy of Q."""

    q: Params
    q_opt: optax.OptState
    target_q: Params
    log_dual: Array
    dual_opt: optax.OptState


class CalQLState(NamedTuple):
    """The critic's state beside the policy's."""

    critic: CalQLCriticState
    policy: Params
    policy_opt: optax.OptState
    log_temperature: Array
    temperature_opt: optax.OptState


class _Draws(NamedTuple):
    """The actions one critic step is shown; the first N of `sampled` are the uniform ones."""

    backup: Array  # [M, B, A] at s'
    sampled: Array  # [3N, B, A], judged at s
    log_density: Array | None  # [3N, B]


class _CriticParts(NamedTuple):
    init: Callable
    q_values: Callable  # (params, observation, action) -> [E, ...]
    step: Callable  # (state, batch, draws, key) -> (state, metrics)


def _critic_parts(spec: Spec, config: CalQLConfig, head: ValueHead, grad_transform) -> _CriticParts:
    network = ensemble_q(
        config.critic_hidden, head.num_outputs, num_members=config.num_critics, layer_norm=config.critic_layer_norm,
        activation=config.critic_activation, last_init='small', unit_features=config.critic_unit_features,
    )
    optimizer = scheduled_adam(config, 'critic', config.learning_rate, grad_transform)

    def init(key):
        q, log_dual = init_q(network, spec, key), jnp.asarray(config.init_log_dual, jnp.float32)
        return CalQLCriticState(
            **learner('q', q, optimizer, slow=True), log_dual=log_dual, dual_opt=optimizer.init(log_dual)
        )

    def q_values(params, observation, action):
        """Values of `[..., B, A]` actions at `[B, O]` observations."""
        observation = jnp.broadcast_to(observation, (*action.shape[:-1], observation.shape[-1]))
        return head.value(network.apply(params, observation, action))

    def sampled_values(params, batch, draws):
        q = q_values(params, batch.observation, draws.sampled)  # [E, 3N, B]
        if not config.calibrate:
            return q
        bounded = calibrated(q, batch.extras['return_to_go'])
        free = 0 if config.calibrate_random else config.num_actions
        return jnp.concatenate([q[:, :free], bounded[:, free:]], axis=1)

    def step(state, batch, draws, key):
        target_key, gap_key = jax.random.split(key)
        slow = pick_members(state.target_q, draw_members(target_key, config.num_critics, config.num_target_critics))
        next_value = ensemble_value(q_values(slow, batch.next_observation, draws.backup), config.aggregate, config.rho)
        target = backup(batch, next_value.max(axis=0), config.gamma)
        members = draw_members(gap_key, config.num_critics, config.num_gap_critics)
        dual = jnp.clip(jnp.exp(state.log_dual), 0.0, 1e6) if config.target_gap is not None else 1.0
        weight = dual * config.conservative_weight * config.num_critics
        allowed = (config.target_gap or 0.0) * batch.extras.get('weight', jnp.ones(())).mean()

        def loss_fn(params):
            raw = network.apply(params, batch.observation, batch.action)
            bellman = weighted(batch, head.loss(raw, target)).mean(axis=-1).sum()
            q_data = head.value(raw)
            q_sampled = sampled_values(pick_members(params, members), batch, draws)
            judged = q_data if members is None else q_data[members]
            gap = weighted(batch, conservative_gap(judged, q_sampled, draws.log_density, config.gap_temperature)).mean()
            loss = bellman + weight * (gap - allowed)
            return loss, {'q/bellman': bellman, 'q/mean': q_data.mean(), 'q/sampled': q_sampled.mean(), 'q/gap': gap}

        state, loss, metrics = descend(state, 'q', loss_fn, optimizer)
        slow = slow_copy(state.q, state.target_q, config.polyak)
        state, dual_metrics = dual_step(state._replace(target_q=slow), metrics['q/gap'] - allowed)
        return state, metrics | {'q/loss': loss, 'q/target': target.mean()} | dual_metrics

    def dual_step(state, surplus):
        if config.target_gap is None:
            return state, {}

        def loss_fn(log_dual):
            dual = jnp.clip(jnp.exp(log_dual), 0.0, 1e6)
            return -dual * config.conservative_weight * surplus, dual

        (loss, dual), gradient = jax.value_and_grad(loss_fn, has_aux=True)(state.log_dual)
        log_dual, opt = apply_gradient(optimizer, gradient, state.dual_opt, state.log_dual)
        return state._replace(log_dual=log_dual, dual_opt=opt), {'dual/loss': loss, 'dual/value': dual}

    return _CriticParts(init, q_values, step)


def _check_columns(config, batch):
    if config.calibrate and 'return_to_go' not in batch.extras:
        columns = f"calql reads batch.extras['return_to_go']; this batch has {sorted(batch.extras)}"
        raise UsageError(f'{columns}; train with `learn`, which computes it, or set calibrate=False')


def _num_backup(config):
    return config.num_actions if config.max_target_backup else 1


def _gather(spec, config, uniform, at_next, at_now, log_density_next=None, log_density_now=None):
    """Arranges draws at s' (first those for the target) and at s for a critic step."""
    split = _num_backup(config)
    sampled = jnp.concatenate([uniform, at_next[split:], at_now])
    if not config.importance_sampling:
        return _Draws(at_next[:split], sampled, None)
    flat = jnp.full(uniform.shape[:-1], -spec.action_dim * jnp.log(2.0))
    return _Draws(at_next[:split], sampled, jnp.concatenate([flat, log_density_next[split:], log_density_now]))


def _uniform(key, config, batch):
    return jax.random.uniform(key, (config.num_actions, *batch.action.shape), minval=-1.0, maxval=1.0)


def _actor_parts(spec: Spec, config: CalQLConfig, policy: DensityPolicy, critic: _CriticParts, grad_transform):
    """`optimizer` and `update_with(state, batch, uniform, now_key, next_key, members_key)`."""
    optimizer = scheduled_adam(config, 'policy', config.policy_learning_rate, grad_transform)
    target_entropy = -float(spec.action_dim) if config.target_entropy is None else config.target_entropy

    def policy_step(state, batch, key):
        temperature = jnp.exp(state.log_temperature)

        def loss_fn(params):
            action, log_prob = policy.sample_and_log_prob(params, batch.observation, key, 1 + config.num_actions)
            q = ensemble_value(critic.q_values(state.critic.q, batch.observation, action[0]), config.policy_value, config.rho)
            return (temperature * log_prob[0] - q).mean(), (-log_prob[0].mean(), action[1:], log_prob[1:])

        state, loss, (entropy, *spare) = descend_policy(state, policy, loss_fn, optimizer)
        state, metrics = temperature_step(state, entropy - target_entropy, lambda log: log, optimizer)
        return state, {'policy/loss': loss, 'policy/entropy': entropy} | metrics, spare

    def update_with(state, batch, uniform, now_key, next_key, members_key):
        num_next = _num_backup(config) + config.num_actions
        at_next, log_next = policy.sample_and_log_prob(state.policy, batch.next_observation, next_key, num_next)
        new, policy_metrics, (at_now, log_now) = policy_step(state, batch, now_key)
        draws = _gather(spec, config, uniform, at_next, at_now, log_next, log_now)
        critic_state, q_metrics = critic.step(state.critic, batch, draws, members_key)
        return new._replace(critic=critic_state), policy_metrics | q_metrics

    return optimizer, update_with


def calql(
    spec: Spec,
    config: CalQLConfig = CalQLConfig(),
    *,
    policy: DensityPolicy | None = None,
    head: ValueHead | None = None,
    grad_transform: optax.GradientTransformation = optax.identity(),
) -> Agent:
    """CQL or Cal-QL with any policy that knows its density.

    Raises:
      UsageError: if the policy has no density.

    Example:
      >>> from ooorl.agents.calql import CalQLConfig, calql
      >>> from ooorl.types import Spec
      >>> agent = calql(Spec(observation_dim=4, action_dim=2), CalQLConfig(target_gap=0.8))
    """
    policy = policy or tanh_gaussian_policy(spec, config.hidden, log_std_affine=(1.0, -1.0), last_init='small')
    require_density(policy, 'calql')
    critic = _critic_parts(spec, config, head or scalar_head(), grad_transform)
    optimizer, update_with = _actor_parts(spec, config, policy, critic, grad_transform)

    def init(key):
        critic_key, policy_key = jax.random.split(key)
        log_temperature = jnp.log(jnp.asarray(config.init_temperature, jnp.float32))
        return CalQLState(
            critic.init(critic_key), **learner('policy', policy.init(policy_key), optimizer),
            log_temperature=log_temperature, temperature_opt=optimizer.init(log_temperature),
        )

    def update(state: CalQLState, batch: Transition, key) -> tuple[CalQLState, Metrics]:
        _check_columns(config, batch)
        uniform_key, *keys = jax.random.split(key, 4)
        return update_with(state, batch, _uniform(uniform_key, config, batch), *keys)

    return Agent(
        init=init,
        update=update,
        **acting(policy),
        q=lambda state, observation, action: critic.q_values(state.critic.q, observation, action),
        weighs=True,
        reads=('return_to_go',) if config.calibrate else (),
    )


def calql_critic(
    spec: Spec,
    config: CalQLConfig = CalQLCriticConfig(),
    *,
    head: ValueHead | None = None,
    grad_transform: optax.GradientTransformation = optax.identity(),
) -> Critic:
    """The critic of `calql` for any source of actions, which need not know its density (PA-RL): called at s and at s'.

    Raises:
      UsageError: if the config asks for importance sampling, which needs densities.
    """
    if config.importance_sampling:
        raise UsageError('calql_critic draws actions without densities; got importance_sampling=True; set it to False')
    parts = _critic_parts(spec, config, head or scalar_head(), grad_transform)

    def update(state, batch, key, sampler):
        _check_columns(config, batch)
        uniform_key, now_key, next_key, members_key = jax.random.split(key, 4)
        num_next = _num_backup(config) + config.num_actions
        then = sampler(batch.next_observation, next_key, num_next, *kept(batch, 'next_candidates'))
        now = sampler(batch.observation, now_key, config.num_actions, *kept(batch, 'candidates'))
        draws = _gather(spec, config, _uniform(uniform_key, config, batch), then, now)
        return parts.step(state, batch, jax.lax.stop_gradient(draws), members_key)

    return Critic(
        init=parts.init,
        update=update,
        q=lambda state, observation, action: parts.q_values(state.q, observation, action),
        target_q=lambda state, observation, action: parts.q_values(state.target_q, observation, action),
        weighs=True,
        reads=('return_to_go',) if config.calibrate else (),
    )
