"""TD3 with TD3+BC and ReBRAC as settings: a policy that climbs Q, with or without imitation.

    next action  a' = clip(target_pi(s') + clip(target_noise * n, -noise_clip, noise_clip), -1, 1),   n ~ N(0, I)
    next value   v' = aggregate_e target_q_e(s', a') - critic_cloning_weight * |a' - next_action|^2
    q       L_Q  = sum_e E[ head.loss(Q_e(s, a), backup(r, d, v')) ]
    policy  L_pi = -l * E[ Q(s, pi(s)) ] + cloning_weight * E[ policy.loss(s, a) ],   l = q_normalisation / E|Q(s, pi(s))|

One update takes `policy_delay` q steps, then one policy step, then moves both targets by `polyak`. All q steps read the same,
unmoved targets with fresh noise; the policy step reads the new Q. The q steps share the batch, or with `split_batch` take
interleaved slices of it (the policy step then sees the last slice). l carries no gradient; without `q_normalisation` it is 1.
With `q_unit='advantage'` the deviation of Q(s, a) - Q(s, pi(s)) stands for E|Q|: then a shift of the rewards, which makes |Q| a
hundred times as large as what it tells of actions, leaves the weight of imitation as it is.

| | TD3 | TD3+BC | ReBRAC |
|---|---|---|---|
| q_normalisation | None | 2.5 | 1.0 |
| policy_value | first | first | min |
| cloning_weight, cloning_reduce | 0 | 1, mean | per task 0.001 to 1, sum |
| critic_cloning_weight | 0 | 0 | per task 0 to 0.5 (reads extras['next_action']) |
| hidden, critic_layer_norm | (256, 256), None | (256, 256), None | (256, 256, 256), after |
| learning_rate, batch | 3e-4, 256 | 3e-4, 256 | 1e-3, 1024 |
| observations | raw | wrap with `normalised_observation` | raw |

`next_action` is what the data did at s', the action of the next row, which `learn` finds; where there is none (the last row of an
episode, the newest row collected: NaN) the next value goes without the distance. At terminal rows the discount makes it
irrelevant. ReBRAC's released code drops time-out rows, so every row that it backs up has one.

An explorer in the manner of OOO's ablation is `policy_action='sample', target_policy=False, target_noise=0, policy_delay=1,
policy_value='mean'` with `tanh_gaussian_policy`: the policy's own draws replace smoothing, slow policy and delay.

Source: Fujimoto et al. 2018, arXiv:1802.09477; Fujimoto & Gu 2021, arXiv:2106.06860; Tarasov et al. 2023, arXiv:2305.09836.
Order and constants of EmptyJackson/unifloral@f2dc127. Deviations: there the q loss of TD3+BC is the mean over members
(`q_loss='mean'`, here the default is the sum as in the papers' code) and Adam's epsilon is 1e-5 (`adam_eps`). The original
TD3 draws a new batch for each q step: `split_batch`. OOO's ablation keeps log-std independent of the state and steps the
policy against the Q from before the q step.
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
    bounded_normal,
    check_members,
    climbing_scale,
    descend,
    descend_policy,
    imitation,
    init_q,
    interleaved_slices,
    last_slice,
    learner,
    require_decode,
)
from ooorl.nn.heads import scalar_head
from ooorl.nn.losses import AGGREGATES, backup, ensemble_value, weighted
from ooorl.nn.networks import ACTIVATIONS, ensemble_q
from ooorl.nn.optimizers import slow_copy
from ooorl.nn.schedules import Scheduled, scheduled_adam
from ooorl.policies.gaussian import deterministic_policy
from ooorl.types import Agent, Array, Metrics, Params, Policy, Spec, Transition, ValueHead
from ooorl.validation import check_choice, check_not_negative, check_positive, check_unit


@dataclass(frozen=True, kw_only=True)
class TD3Config(Scheduled):
    """Settings of `td3`; the defaults are TD3's."""

    gamma: float = 0.99  # discount factor
    polyak: float = 0.005  # share of the new parameters in both targets after each update
    learning_rate: float = 3e-4  # Adam, policy and Q; ReBRAC 1e-3
    critic_learning_rate: float | None = None  # Adam, Q alone; None: learning_rate; ReBRAC on antmaze 5e-5
    adam_eps: float = 1e-8  # Adam's epsilon; unifloral 1e-5
    policy_delay: int = 2  # q steps before each policy step, all within one update
    split_batch: bool = False  # q steps take slices of the batch instead of sharing it
    target_noise: float = 0.2  # std of the noise on the next action, of a box of half-width 1
    noise_clip: float = 0.5  # bound on that noise
    target_policy: bool = True  # the next action comes from the slow policy, else from the current one
    policy_action: str = 'mode'  # which action the losses take from the policy: 'mode', or 'sample' (stochastic policies)
    aggregate: str = 'min'  # of the target: 'min', 'mean', or 'lower' = mean - rho std
    rho: float = 0.5  # of 'lower'
    policy_value: str = 'first'  # what the policy climbs: 'first' member (TD3), 'min' (ReBRAC), 'mean' or 'lower'
    q_normalisation: float | None = None  # divide Q by its unit and multiply by this; TD3+BC 2.5, ReBRAC 1
    q_unit: str = 'size'  # of q_normalisation: the mean 'size' of Q, or the deviation of the 'advantage' of the data's actions
    cloning_weight: float = 0.0  # of imitation in the policy loss; TD3+BC 1
    cloning_reduce: str = 'sum'  # imitation loss over action dimensions: 'sum', or 'mean' (TD3+BC)
    critic_cloning_weight: float = 0.0  # of the squared distance to the data's next action in the next value
    exploration_noise: float = 0.1  # std of the default policy's draws
    hidden: tuple[int, ...] = (256, 256)  # widths of all networks
    activation: str = 'relu'  # of Q and the default policy, as of `networks.mlp`; OGBench 'gelu'
    num_critics: int = 2  # ensemble members E
    critic_layer_norm: str | None = None  # None, or 'before' / 'after' the activation; ReBRAC 'after'
    policy_layer_norm: str | None = None  # the same for the default policy
    q_loss: str = 'sum'  # over members: 'sum' or 'mean'

    def __post_init__(self):
        super().__post_init__()
        check_unit(gamma=self.gamma, polyak=self.polyak)
        check_positive(learning_rate=self.learning_rate, critic_learning_rate=self.critic_learning_rate)
        check_positive(adam_eps=self.adam_eps, policy_delay=self.policy_delay)
        check_positive(num_critics=self.num_critics, q_normalisation=self.q_normalisation)
        check_not_negative(target_noise=self.target_noise, noise_clip=self.noise_clip, cloning_weight=self.cloning_weight)
        check_not_negative(critic_cloning_weight=self.critic_cloning_weight, exploration_noise=self.exploration_noise)
        check_choice(tuple(ACTIVATIONS), activation=self.activation)
        check_choice(('mode', 'sample'), policy_action=self.policy_action)
        check_choice(('first', *AGGREGATES), policy_value=self.policy_value)
        check_members(self)
        check_choice(Q_UNITS, q_unit=self.q_unit)
        check_choice(('sum', 'mean'), cloning_reduce=self.cloning_reduce, q_loss=self.q_loss)
        layer_norms = {'critic_layer_norm': self.critic_layer_norm, 'policy_layer_norm': self.policy_layer_norm}
        check_choice((None, 'before', 'after'), **layer_norms)


class TD3State(NamedTuple):
    """Parameters and optimisers of policy and Q, and the slow copies of both."""

    policy: Params
    policy_opt: optax.OptState
    target_policy: Params
    q: Params
    q_opt: optax.OptState
    target_q: Params


class _Parts(NamedTuple):
    init: Callable
    q_values: Callable  # (params, observation, action) -> [E, ...]
    next_action: Callable  # (state, batch, noise[B, A], key) -> [B, A]
    q_step: Callable  # (state, batch, next_action) -> (state, metrics)
    policy_step: Callable  # (state, batch, key) -> (state, metrics)
    move_targets: Callable  # (state) -> state


def imitate_data(observation: Array, data_action: Array, policy_action: Array) -> Array:
    """The default `cloning_target`: the data's own action."""
    del observation, policy_action
    return data_action


def _parts(
    spec: Spec, config: TD3Config, policy: Policy, head: ValueHead, grad_transform, cloning_target=imitate_data
) -> _Parts:
    network = ensemble_q(
        config.hidden, head.num_outputs, num_members=config.num_critics, activation=config.activation,
        layer_norm=config.critic_layer_norm,
    )
    policy_optimizer = scheduled_adam(config, 'policy', config.learning_rate, grad_transform, eps=config.adam_eps)
    q_optimizer = scheduled_adam(
        config, 'critic', config.critic_learning_rate or config.learning_rate, grad_transform,
        steps_per_update=config.policy_delay, eps=config.adam_eps,
    )

    def init(key):
        policy_key, q_key = jax.random.split(key)
        return TD3State(
            **learner('policy', policy.init(policy_key), policy_optimizer, slow=True),
            **learner('q', init_q(network, spec, q_key), q_optimizer, slow=True),
        )

    def q_values(params, observation, action):
        return head.value(network.apply(params, observation, action))

    def act(params, observation, key):
        if config.policy_action == 'mode':
            return policy.mode(params, observation, key)
        return policy.sample(params, observation, key, 1)[0]

    def next_action(state, batch, noise, key):
        params = state.target_policy if config.target_policy else state.policy
        return jnp.clip(act(params, batch.next_observation, key) + noise, -1.0, 1.0)

    def q_step(state, batch, action):
        next_value = ensemble_value(q_values(state.target_q, batch.next_observation, action), config.aggregate, config.rho)
        if _in_use(config.critic_cloning_weight):
            next_value = next_value - config.critic_cloning_weight * _distance(action, batch.extras['next_action'])
        target = backup(batch, next_value, config.gamma)

        def loss_fn(params):
            raw = network.apply(params, batch.observation, batch.action)
            members = weighted(batch, head.loss(raw, target)).mean(axis=-1)
            return getattr(members, config.q_loss)(), head.value(raw).mean()

        state, loss, mean = descend(state, 'q', loss_fn, q_optimizer)
        return state, {'q/loss': loss, 'q/mean': mean, 'q/target': target.mean()}

    policy_step = _policy_step(spec, config, policy, q_values, act, policy_optimizer, cloning_target)

    def move_targets(state):
        return state._replace(
            target_policy=slow_copy(state.policy, state.target_policy, config.polyak),
            target_q=slow_copy(state.q, state.target_q, config.polyak),
        )

    return _Parts(init, q_values, next_action, q_step, policy_step, move_targets)


def _distance(action, data_action):
    """Squared distance `[B]`; 0 where the data's action is unknown."""
    return (jnp.where(jnp.isnan(data_action), 0.0, action - data_action) ** 2).sum(axis=-1)


def _policy_step(spec, config, policy, q_values, act, optimizer, cloning_target):
    """`(state, batch, key) -> (state, metrics)`: the policy moves."""

    def policy_step(state, batch, key):
        action_key, loss_key = jax.random.split(key)
        critics = state.q[:1] if config.policy_value == 'first' else state.q
        aggregate = 'min' if config.policy_value == 'first' else config.policy_value
        share = 1.0 / spec.action_dim if config.cloning_reduce == 'mean' else 1.0
        in_advantages = config.q_unit == 'advantage' and config.q_normalisation is not None
        taken = q_values(critics, batch.observation, batch.action) if in_advantages else None

        def loss_fn(params):
            action = act(params, batch.observation, action_key)
            q = ensemble_value(q_values(critics, batch.observation, action), aggregate, config.rho)
            advantage = ensemble_value(taken, aggregate, config.rho) - q if in_advantages else None
            scale = climbing_scale(q, advantage, config.q_normalisation, config.q_unit)
            imitated = jax.lax.stop_gradient(cloning_target(batch.observation, batch.action, action))
            cloning = share * imitation(policy, params, batch, loss_key, imitated).mean()
            loss = -scale * q.mean() + config.cloning_weight * cloning
            return loss, {'policy/q': q.mean(), 'policy/cloning': cloning, 'policy/q_scale': scale}

        state, loss, metrics = descend_policy(state, policy, loss_fn, optimizer)
        return state, {'policy/loss': loss} | metrics

    return policy_step


def _in_use(weight) -> bool:
    return not (isinstance(weight, int | float) and weight == 0)


def td3(
    spec: Spec,
    config: TD3Config = TD3Config(),
    *,
    policy: Policy | None = None,
    head: ValueHead | None = None,
    cloning_target: Callable[[Array, Array, Array], Array] = imitate_data,
    grad_transform: optax.GradientTransformation = optax.identity(),
) -> Agent:
    """TD3, TD3+BC or ReBRAC, with any policy whose action is a differentiable function of its parameters.

    Args:
      spec: sizes.
      config: settings.
      policy: what acts; the default is `deterministic_policy`.
      head: of Q.
      cloning_target: `(observation[B, O], data_action[B, A], policy_action[B, A]) -> [B, A]`, what imitation imitates.
      grad_transform: applied to every gradient before Adam.

    Example:
      >>> from ooorl.agents.td3 import TD3Config, td3
      >>> from ooorl.types import Spec
      >>> agent = td3(Spec(observation_dim=4, action_dim=2), TD3Config(q_normalisation=2.5, cloning_weight=1.0))
    """
    policy = policy or deterministic_policy(
        spec, config.hidden, exploration_std=config.exploration_noise, activation=config.activation,
        layer_norm=config.policy_layer_norm,
    )
    require_decode(policy, 'td3', 'climbs Q through the action')
    parts = _parts(spec, config, policy, head or scalar_head(), grad_transform, cloning_target)

    def update(state: TD3State, batch: Transition, key) -> tuple[TD3State, Metrics]:
        q_key, policy_key = jax.random.split(key)
        slices = interleaved_slices(batch, config.policy_delay) if config.split_batch else None

        def one_q_step(state, inputs):
            rows, step_key = inputs
            rows = batch if rows is None else rows
            noise_key, action_key = jax.random.split(step_key)
            noise = bounded_normal(noise_key, rows.action.shape, config.target_noise, config.noise_clip)
            return parts.q_step(state, rows, parts.next_action(state, rows, noise, action_key))

        steps = (slices, jax.random.split(q_key, config.policy_delay))
        state, q_metrics = jax.lax.scan(one_q_step, state, steps)
        state, policy_metrics = parts.policy_step(state, batch if slices is None else last_slice(slices), policy_key)
        return parts.move_targets(state), jax.tree.map(jnp.mean, q_metrics) | policy_metrics

    return Agent(
        init=parts.init,
        update=update,
        **acting(policy),
        q=lambda state, observation, action: parts.q_values(state.q, observation, action),
        reads=('next_action',) if _in_use(config.critic_cloning_weight) else (),
        weighs=policy.masks,
    )
