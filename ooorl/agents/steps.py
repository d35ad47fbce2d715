"""What several agents have in common.

States name what belongs together: parameters `x`, the state of their optimiser `x_opt`, their slow copy `target_x`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ooorl.errors import UsageError
from ooorl.mapping import Stacked
from ooorl.nn.losses import AGGREGATES, weighted
from ooorl.nn.networks import Network
from ooorl.nn.optimizers import moved
from ooorl.policies.averaged import fitted_of, with_fitted
from ooorl.types import Array, Critic, DensityPolicy, Key, Metrics, Params, Policy, Spec, State, Transition
from ooorl.validation import check_choice, check_not_negative

Q_UNITS = ('size', 'advantage')  # what a value that a policy climbs may be divided by


def learner(name: str, params: Params, optimizer: optax.GradientTransformation, *, slow: bool = False) -> dict[str, Any]:
    """The fields `<name>`, `<name>_opt` and, if `slow`, `target_<name>` of a fresh state."""
    fields = {name: params, f'{name}_opt': optimizer.init(fitted_of(params))}
    # A copy, so that the state can be donated.
    return fields | ({f'target_{name}': jax.tree.map(jnp.copy, params)} if slow else {})


def init_q(network: Network, spec: Spec, key: Key) -> Params:
    """Parameters of a network of (observation, action)."""
    return network.init(key, jnp.zeros((1, spec.observation_dim)), jnp.zeros((1, spec.action_dim)))


def acting(policy: Policy) -> dict[str, Any]:
    """What an `Agent` whose state has the policy's parameters as `policy` acts with."""
    def decode(state, observation, noise):
        return policy.decode(policy.deployed(state.policy), observation, noise)

    return {
        'decode': policy.decode and decode,
        'noise_dim': policy.noise_dim,
        'sample_action': lambda state, obs, key: policy.sample(policy.deployed(state.policy), obs, key, 1)[0],
        'best_action': lambda state, obs, key: policy.mode(policy.deployed(state.policy), obs, key),
    }


def require_decode(policy: Policy, who: str, why: str) -> Policy:
    """The policy, if it makes its actions from noise.

    Raises:
      UsageError: if it does not.
    """
    if policy.decode is None or policy.noise_dim is None:
        raise UsageError(
            f'{who} {why}, which needs a policy with decode and noise_dim; got one without; use a Gaussian, flow or diffusion '
            'policy, or an agent that only imitates: bc, or iql with extraction awr'
        )
    return policy


def require_density(policy: Policy, who: str) -> Policy:
    """The policy, if it knows the density of its own draws.

    Raises:
      UsageError: if it does not.
    """
    if not isinstance(policy, DensityPolicy):
        raise UsageError(
            f'{who} needs a policy that knows the density of its draws; got one without; use tanh_gaussian_policy, or iql with '
            'this policy'
        )
    return policy


def imitation(policy: Policy, params: Params, batch: Transition, key: Key, action: Array | None = None) -> Array:
    """The policy's loss `[B]` of the batch's actions, or of others, as far as these are known and as much as each row weighs.

    A column `imitated` `[B]` says how much of it each row is worth: 0 where what was done is for critics only.
    """
    known = (batch.extras['known'],) if 'known' in batch.extras and policy.masks else ()
    loss = weighted(batch, policy.loss(params, batch.observation, batch.action if action is None else action, key, *known))
    return loss * batch.extras['imitated'] if 'imitated' in batch.extras else loss


def kept(batch: Transition, column: str) -> tuple[Array, ...]:
    """What a critic tells its sampler last: the draws kept in that column, or nothing where there is none."""
    return (batch.extras[column],) if column in batch.extras else ()


def check_members(config) -> None:
    """Raises unless a config's `aggregate`, `rho` and the critics that it draws of its `num_critics` make sense."""
    check_choice(AGGREGATES, aggregate=config.aggregate)
    check_not_negative(rho=config.rho)
    for name in ('num_target_critics', 'num_gap_critics'):
        drawn = getattr(config, name, None)
        if drawn is not None and not 0 < drawn <= config.num_critics:
            raise UsageError(f'{name} must lie between 1 and num_critics, {config.num_critics}; got {drawn}')


def descend(
    state: State, name: str, loss_fn: Callable[[Params], tuple[Array, Any]], optimizer: optax.GradientTransformation
) -> tuple[State, Array, Any]:
    """One optimiser step of `state.<name>` down `loss_fn(params) -> (loss, more)`: `(state, loss, more)`."""
    params = getattr(state, name)
    (loss, more), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
    params, opt = apply_gradient(optimizer, gradient, getattr(state, f'{name}_opt'), params)
    return state._replace(**{name: params, f'{name}_opt': opt}), loss, more


def descend_policy(
    state: State, policy: Policy, loss_fn: Callable[[Params], tuple[Array, Any]], optimizer: optax.GradientTransformation
) -> tuple[State, Array, Any]:
    """`descend` for `state.policy`, with what the policy does to its parameters after a step (`Policy.after_update`)."""
    before = state.policy
    state, loss, more = descend(state, 'policy', loss_fn, optimizer)
    return state._replace(policy=policy.after_update(before, state.policy)), loss, more


def cloning_step(policy: Policy, optimizer: optax.GradientTransformation, action_dim: int) -> Callable:
    """`(state, batch, key) -> (state, metrics)`: `state.policy` one step down its imitation loss, the mean over rows and A."""

    def step(state, batch, key):
        def loss_fn(params):
            return imitation(policy, params, batch, key).mean() / action_dim, None

        state, loss, _ = descend_policy(state, policy, loss_fn, optimizer)
        return state, {'policy/loss': loss}

    return step


def over_critic(critic: Critic, policy: Policy, imitate: str, reads: tuple[str, ...] = ()) -> dict[str, Any]:
    """`q`, `reads` and `weighs` of an agent whose state has the critic's as `critic`, and that reads further columns."""
    return {
        'q': lambda state, observation, action: critic.q(state.critic, observation, action),
        'reads': (*critic.reads, *reads),
        'weighs': critic.weighs and (policy.masks or imitate == 'nothing'),
    }


def weight_facts(advantage: Array, weight: Array, cap: float) -> Metrics:
    """What weighted imitation makes of a batch `[B]`: means, the advantage's deviation, and how few rows it comes down to.

    `effective_rows` is Kish's (sum w)^2 / sum w^2, between 1 and B; `capped` is the share of rows whose weight is at the cap.
    """
    effective = weight.sum() ** 2 / jnp.maximum((weight**2).sum(), 1e-30)
    return {
        'policy/advantage': advantage.mean(),
        'policy/advantage_deviation': advantage.std(),
        'policy/weight': weight.mean(),
        'policy/effective_rows': effective,
        'policy/capped': (weight >= cap * (1.0 - 1e-6)).mean(),
    }


def climbing_scale(q: Array, advantage: Array | None, normalisation: float | None, unit: str) -> Array:
    """What values `q` `[B]` of a policy's own actions are multiplied by in its loss, beside imitation; it carries no gradient.

        size:      normalisation / mean |q|
        advantage: normalisation / max(deviation of the advantage, mean |q| / 1000)

    Adding a constant to all rewards changes the size and not the deviation: where rewards are -1 a step, values are a hundred
    times as large as what they tell of actions. Without `normalisation` it is 1, and imitation weighs in units of reward.
    """
    if normalisation is None:
        return jnp.ones(())
    size = jnp.abs(q).mean()
    spread = size if unit == 'size' else jnp.maximum(advantage.std(), 1e-3 * size)
    return jax.lax.stop_gradient(normalisation / (spread + 1e-7))


def temperature_step(
    state: State, surplus: Array, weight: Callable[[Array], Array], optimizer: optax.GradientTransformation
) -> tuple[State, Metrics]:
    """One step of `state.log_temperature` down `weight(log_temperature) * surplus`, surplus = entropy - target entropy."""
    log = state.log_temperature
    loss, gradient = jax.value_and_grad(lambda log: weight(log) * surplus)(log)
    metrics = {'temperature/loss': loss, 'temperature/value': jnp.exp(log)}
    log, opt = apply_gradient(optimizer, gradient, state.temperature_opt, log)
    return state._replace(log_temperature=log, temperature_opt=opt), metrics


def apply_gradient(optimizer: optax.GradientTransformation, gradient: Params, opt_state, params: Params):
    """One optimiser step: `(params, opt_state)`; slow copies that a policy keeps among its parameters stay as they are."""
    fitted = fitted_of(params)
    updates, opt_state = optimizer.update(fitted_of(gradient), opt_state, fitted)
    return with_fitted(params, moved(fitted, updates)), opt_state


def interleaved_slices(batch: Transition, num: int) -> Transition:
    """Cuts a batch `[num * B]` into `[num, B]`: slice k takes the rows k, k + num, k + 2 num, ...

    Not consecutive rows: a mixed batch lists its sources one after another, so such a slice would see only one.

    Raises:
      UsageError: at trace time, if the rows cannot be shared out evenly.
    """
    rows = batch.reward.shape[0]
    if rows % num:
        raise UsageError(f'{num} critic steps need a batch with a multiple of {num} rows; got {rows}; change batch_size')
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf.reshape(rows // num, num, *leaf.shape[1:]), 0, 1), batch)


def last_slice(slices: Transition) -> Transition:
    """The last of `[num, B]` slices."""
    return jax.tree.map(lambda leaf: leaf[-1], slices)


def bounded_normal(key, shape: tuple[int, ...], std: float, bound: float) -> Array:
    """Gaussian noise clipped to +-bound."""
    return jnp.clip(std * jax.random.normal(key, shape), -bound, bound)


def draw_members(key, num_members: int, num: int | None) -> Array | None:
    """Indices `[num]` of different ensemble members, or None for all of them."""
    if num is None or num == num_members:
        return None
    return jax.random.choice(key, num_members, (num,), replace=False)


def pick_members(params: Params, members: Array | None) -> Params:
    """The parameters of the drawn members; copying them is far cheaper than running members whose values are not used."""
    if members is None:
        return params
    if isinstance(params, Stacked):
        return params[members]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    return tuple(jax.tree.map(lambda leaf, i=i: leaf[members[i]], stacked) for i in range(members.shape[0]))
