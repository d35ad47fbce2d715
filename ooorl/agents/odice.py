"""O-DICE: a state value whose gradient through the successor is made orthogonal to the one through the state.

    forward   e_f = backup(r, d, V_bar(s')) - V_e(s),     L_f = trust * E[ f*(e_f) ]
    backward  e_b = backup(r, d, V_e(s')) - V_bar(s),     L_b = trust * eta * E[ f*(e_b) ]
    f*(y) = y w - (w - 1)^2,   w = max(y / 2 + 1, 0)      (Pearson chi^2), V_bar the slow members' aggregate (minimum)
    value     gradient = g_f + g_b - (<g_f, g_b> / <g_f, g_f>) g_f + (1 - trust) grad E[ V_e(s) ]
    policy    L_pi = E[ weight * policy.loss(s, a) ],     weight = mean_e min(max(e_f, 0), max_weight)

g_f and g_b are the gradients of L_f and L_b over the parameters of all members together; expectations are means over
members and batch. The last term of the value's gradient is not projected. One update takes the value step, moves V_bar by
`polyak`, then takes the policy step with the weights from before the value step. `eta=0` is the semi-gradient update,
`orthogonal=False` the plain sum of both gradients.

For locomotion the code multiplies rewards by 1000 / (best - worst return of the data). For antmaze it uses -3 a step and 0 at
the goal, no LayerNorm, and on the large and umaze-diverse mazes a single V.

Source: Mao et al., "ODICE", ICLR 2024, arXiv:2402.00348, and its released code; `trust` is lambda there. Deviations: the
official lambda and eta of each task are not in the code, the defaults are the code's. A value head other than the scalar one
is used for its values alone, because f* is no regression loss. Not compared with recorded numbers.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ooorl.agents.steps import acting, apply_gradient, check_members, descend_policy, imitation, learner
from ooorl.nn.heads import scalar_head
from ooorl.nn.losses import backup, ensemble_value, weighted
from ooorl.nn.networks import ensemble, mlp
from ooorl.nn.optimizers import slow_copy
from ooorl.nn.schedules import Scheduled, scheduled_adam
from ooorl.policies.gaussian import gaussian_policy
from ooorl.types import Agent, Array, Metrics, Params, Policy, Spec, Transition, ValueHead
from ooorl.validation import check_not_negative, check_positive, check_unit


@dataclass(frozen=True, kw_only=True)
class ODICEConfig(Scheduled):
    """Settings of `odice`; the defaults are the released code's for locomotion."""

    gamma: float = 0.99  # discount factor
    trust: float = 0.6  # lambda: weight of the Bellman terms against the mean of V, in [0, 1]
    eta: float = 1.0  # weight of the backward gradient
    orthogonal: bool = True  # project the backward gradient; False adds it as it is
    max_weight: float = 100.0  # cap of the policy weights
    polyak: float = 0.005  # share of V in V_bar after each update
    learning_rate: float = 2e-4  # Adam, V and policy
    policy_weight_decay: float = 1e-4  # L2 pull on the policy's parameters, added to its gradient
    hidden: tuple[int, ...] = (256, 256)  # widths of V
    policy_hidden: tuple[int, ...] = (1024, 1024)  # widths of the default policy
    num_members: int = 2  # of V
    aggregate: str = 'min'  # V_bar over the slow members: 'min', 'mean', or 'lower' = mean - rho std
    rho: float = 0.5  # of 'lower'
    layer_norm: bool = True  # in V, before the activation

    def __post_init__(self):
        super().__post_init__()
        check_unit(gamma=self.gamma, polyak=self.polyak, trust=self.trust)
        check_positive(max_weight=self.max_weight, learning_rate=self.learning_rate, num_members=self.num_members)
        check_not_negative(eta=self.eta, policy_weight_decay=self.policy_weight_decay)
        check_members(self)


class ODICEState(NamedTuple):
    """Parameters and optimisers of V and the policy, and the slow copy of V."""

    value: Params
    value_opt: optax.OptState
    target_value: Params
    policy: Params
    policy_opt: optax.OptState


def conjugate(y: Array) -> Array:
    """`f*(y) = y w - (w - 1)^2`, w = max(y / 2 + 1, 0): quadratic above -2, the constant -1 below."""
    w = jnp.maximum(y / 2.0 + 1.0, 0.0)
    return y * w - (w - 1.0) ** 2


def orthogonal_sum(forward: Params, backward: Params) -> Params:
    """forward + backward - (<forward, backward> / <forward, forward>) forward, over whole parameter trees."""
    share = optax.tree.vdot(forward, backward) / jnp.maximum(optax.tree.vdot(forward, forward), 1e-10)
    return jax.tree.map(lambda f, b: (1.0 - share) * f + b, forward, backward)


def _value_gradient(config, values, state, batch):
    """Gradient of V's step, e_f `[members, B]` and metrics, given `values(params, observation) -> [members, B]`."""
    slow, slow_next = (
        ensemble_value(values(state.target_value, o), config.aggregate, config.rho)[None]
        for o in (batch.observation, batch.next_observation)
    )

    def forward_loss(params):
        residual = backup(batch, slow_next, config.gamma) - values(params, batch.observation)
        return config.trust * weighted(batch, conjugate(residual)).mean(), residual

    def backward_loss(params):
        residual = backup(batch, values(params, batch.next_observation), config.gamma) - slow
        return config.trust * config.eta * weighted(batch, conjugate(residual)).mean()

    def mean_value(params):
        return (1.0 - config.trust) * weighted(batch, values(params, batch.observation)).mean()

    (loss, residual), forward = jax.value_and_grad(forward_loss, has_aux=True)(state.value)
    backward_value, backward = jax.value_and_grad(backward_loss)(state.value)
    both = orthogonal_sum(forward, backward) if config.orthogonal else jax.tree.map(jnp.add, forward, backward)
    gradient = jax.tree.map(jnp.add, both, jax.grad(mean_value)(state.value))
    metrics = {'value/forward_loss': loss, 'value/backward_loss': backward_value, 'value/residual': residual.mean()}
    return gradient, residual, metrics


def odice(
    spec: Spec,
    config: ODICEConfig = ODICEConfig(),
    *,
    policy: Policy | None = None,
    head: ValueHead | None = None,
    grad_transform: optax.GradientTransformation = optax.identity(),
) -> Agent:
    """O-DICE with any policy that can be fitted to weighted actions.

    Example:
      >>> from ooorl.agents.odice import ODICEConfig, odice
      >>> from ooorl.types import Spec
      >>> agent = odice(Spec(observation_dim=4, action_dim=2), ODICEConfig(trust=0.8))
    """
    policy, head = policy or gaussian_policy(spec, config.policy_hidden), head or scalar_head()
    layer_norm = 'before' if config.layer_norm else None
    network = ensemble(mlp(config.hidden, head.num_outputs, layer_norm=layer_norm), config.num_members)
    value_optimizer = scheduled_adam(config, 'critic', config.learning_rate, grad_transform)
    decay = optax.add_decayed_weights(config.policy_weight_decay)
    policy_optimizer = scheduled_adam(config, 'policy', config.learning_rate, grad_transform, decay)

    def init(key):
        value_key, policy_key = jax.random.split(key)
        value_params = network.init(value_key, jnp.zeros((1, spec.observation_dim)))
        return ODICEState(
            **learner('value', value_params, value_optimizer, slow=True),
            **learner('policy', policy.init(policy_key), policy_optimizer),
        )

    def values(params, observation):
        return head.value(network.apply(params, observation))  # [members, B]

    def value_step(state, batch):
        gradient, residual, metrics = _value_gradient(config, values, state, batch)
        params, opt = apply_gradient(value_optimizer, gradient, state.value_opt, state.value)
        slow = slow_copy(params, state.target_value, config.polyak)
        return state._replace(value=params, value_opt=opt, target_value=slow), residual, metrics

    def policy_step(state, batch, residual, key):
        weight = jnp.clip(residual, 0.0, config.max_weight).mean(axis=0)

        def loss_fn(params):
            return (weight * imitation(policy, params, batch, key)).mean(), None

        state, loss, _ = descend_policy(state, policy, loss_fn, policy_optimizer)
        return state, {'policy/loss': loss, 'policy/weight': weight.mean()}

    def update(state: ODICEState, batch: Transition, key) -> tuple[ODICEState, Metrics]:
        state, residual, value_metrics = value_step(state, batch)
        state, policy_metrics = policy_step(state, batch, residual, key)
        return state, value_metrics | policy_metrics

    return Agent(init=init, update=update, **acting(policy), weighs=policy.masks)
