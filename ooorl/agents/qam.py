"""QAM: a flow policy tilted towards exp(Q) by adjoint matching, without a gradient through the learnt field's own steps.

Wanted is pi(a | s) proportional to pi_slow(a | s) exp(inverse_temperature * Q(s, a)), pi_slow being what imitation makes of the
data. Two velocity fields of one form: slow, which imitates, and fast, which is learnt. With h = 1 / K, t_k = k h and
sigma_k^2 = 2 (1 - t_k + h) / (t_k + h):

    chain     x_0 ~ N(0, I);   x_{k+1} = x_k + h (2 fast(x_k, t_k) - x_k / (t_k + h)) + sqrt(h) sigma_k n_k,   n_k ~ N(0, I)
              the last step:   x_K = x_{K-1} + h slow(x_{K-1}, t_{K-1})
    adjoint   g_K = -inverse_temperature * grad_a mean_e target_Q_e(s, clip(x_K));   g_k = g_{k+1} + h J_k^T g_{k+1},
              J_k the Jacobian in x, at x_k, of 2 slow(x, t_k + h) - x / (t_k + h)
    fast      L_fast = E[ sum_k |2 (fast(x_k, t_k) - slow(x_k, t_k)) / sigma_k + sigma_k g_k|^2 ],   chain and adjoint constant
    slow      L_slow = E[ policy.loss(s, a) ] / A
    q         L_Q    = that of `fql`, with a' from fast

slow stands everywhere but in its own loss for its slow copy. Acting, and a', are Euler's method on fast from normal noise; of
several candidates the one that the current critics' mean prefers. All losses are evaluated at the parameters from before the
update; one Adam takes one step on their sum, its gradient clipped to a global norm of `max_norm`; target_q and the slow copy
then move by `polyak` towards the parameters from before. With `inverse_temperature = 0` the adjoint is 0 and fast = slow the
minimum.

Source: "Q-learning with Adjoint Matching", arXiv:2601.14234; order, constants and the times at which the fields are asked of
ColinQiyangLi/qam@f93efd2 (the adjoint asks slow at t_k + h; the last step of the chain is slow's, so that fast never learns
its own). Without its edits (`expo` has them) and its one-step policy (`fql`).
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ooorl.agents.fql import FQLConfig, critic_parts
from ooorl.agents.search import best_of, members_value
from ooorl.agents.steps import apply_gradient, imitation
from ooorl.errors import UsageError
from ooorl.nn.heads import scalar_head
from ooorl.nn.optimizers import slow_copy
from ooorl.nn.schedules import scheduled_adam
from ooorl.policies.averaged import Averaged, averaged
from ooorl.policies.flow import FlowConfig, flow_policy, time_network
from ooorl.types import Agent, Array, Metrics, Params, Spec, Transition, ValueHead
from ooorl.validation import check_not_negative, check_positive


@dataclass(frozen=True, kw_only=True)
class QAMConfig(FQLConfig):
    """Settings of `qam`: those of the critic and the networks of `fql`, and its own; `distil_weight` and `normalise_q` unread."""

    aggregate: str = 'lower'
    num_critics: int = 10
    inverse_temperature: float = 1.0  # of the tilt; OGBench .3 to 30 per task, mostly 1 to 10
    max_norm: float = 1.0  # of the gradient of all losses together

    def __post_init__(self):
        super().__post_init__()
        check_not_negative(inverse_temperature=self.inverse_temperature)
        check_positive(max_norm=self.max_norm)
        if self.schedule_of != 'all':
            raise UsageError(f'qam has one optimiser for all networks; got schedule_of = {self.schedule_of!r}; set it to "all"')
        if self.num_steps < 2:
            raise UsageError(f'qam needs at least two steps, of which the last is not its own; got num_steps = {self.num_steps}')


class QAMState(NamedTuple):
    """Parameters of Q, of both fields and of the slow copies; one optimiser for all."""

    q: Params
    target_q: Params
    policy: Params
    fast: Params
    opt: optax.OptState


def chain_noise(num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """`t_k` and `sigma_k`, each `[K]`."""
    step = 1.0 / num_steps
    time = np.arange(num_steps) * step
    return time, np.sqrt(2.0 * (1.0 - time + step) / (time + step))


def lean_adjoint(field, states: Array, last: Array) -> Array:
    """`g_k` `[K, ..., A]` from `g_K` = last `[..., A]`.

    Args:
      field: `(x[..., A], time) -> [..., A]`, the slow velocity.
      states: `[K, ..., A]`, x_0 to x_{K-1}.
      last: g_K.
    """
    num = states.shape[0]
    step = 1.0 / num

    def back(adjoint, inputs):
        x, after = inputs
        _, pull = jax.vjp(lambda x: 2.0 * field(x, after) - x / after, x)
        adjoint = adjoint + step * pull(adjoint)[0]
        return adjoint, adjoint

    times = jnp.asarray((np.arange(num) + 1) * step, jnp.float32)
    _, reverse = jax.lax.scan(back, last, (states[::-1], times[::-1]))
    return reverse[::-1]


def qam(
    spec: Spec,
    config: QAMConfig = QAMConfig(),
    *,
    head: ValueHead | None = None,
    grad_transform: optax.GradientTransformation = optax.identity(),
) -> Agent:
    """Q-learning with adjoint matching; the policy is a pair of flows of its own.

    Example:
      >>> from ooorl.agents.qam import QAMConfig, qam
      >>> from ooorl.types import Spec
      >>> agent = qam(Spec(observation_dim=4, action_dim=2), QAMConfig(inverse_temperature=3.0))
    """
    flow = FlowConfig(hidden=config.hidden, num_steps=config.num_steps)
    fast, network = flow_policy(spec, flow), time_network(spec, flow)
    slow = averaged(fast, config.polyak, lags=True)
    critic = critic_parts(spec, config, head or scalar_head(), grad_transform)
    clip = optax.clip_by_global_norm(config.max_norm)
    optimizer = scheduled_adam(config, 'policy', config.learning_rate, grad_transform, clip)
    matching = _matching(config, spec.action_dim, critic, network)

    def init(key):
        q_key, slow_key, fast_key = jax.random.split(key, 3)
        made = critic.init(q_key)
        policy, own = slow.init(slow_key), fast.init(fast_key)
        opt = optimizer.init({'q': made['q'], 'policy': policy.fitted, 'fast': own})
        return QAMState(made['q'], made['target_q'], policy, own, opt)

    def draw(state, observation, key):
        noise = jax.random.normal(key, (config.num_candidates, *observation.shape[:-1], spec.action_dim))
        q = members_value(partial(critic.q_values, state.q), observation, 'mean')
        return best_of(q, fast.decode(state.fast, observation, noise))

    def update(state: QAMState, batch: Transition, key) -> tuple[QAMState, Metrics]:
        q_key, chain_key, policy_key = jax.random.split(key, 3)
        q_loss, target = critic.loss_of(state.target_q, batch, draw(state, batch.next_observation, q_key))
        fast_loss = matching(state, batch.observation, chain_key)

        def loss_fn(params):
            (q, mean), tilt = q_loss(params['q']), fast_loss(params['fast'])
            cloning = imitation(slow, Averaged(params['policy'], state.policy.slow), batch, policy_key).mean() / spec.action_dim
            return q + cloning + tilt, {'q/loss': q, 'q/mean': mean, 'policy/loss': cloning, 'fast/loss': tilt}

        params = {'q': state.q, 'policy': state.policy.fitted, 'fast': state.fast}
        gradient, metrics = jax.grad(loss_fn, has_aux=True)(params)
        params, opt = apply_gradient(optimizer, gradient, state.opt, params)
        policy = slow.after_update(state.policy, Averaged(params['policy'], state.policy.slow))
        target_q = slow_copy(state.q, state.target_q, config.polyak)
        return QAMState(params['q'], target_q, policy, params['fast'], opt), metrics | {'q/target': target.mean()}

    return Agent(
        init=init,
        update=update,
        sample_action=draw,
        best_action=draw,
        q=lambda state, observation, action: critic.q_values(state.q, observation, action),
        weighs=True,
    )


def _matching(config, action_dim, critic, network):
    """`(state, observation, key) -> (parameters of fast -> loss)`: a chain is run, and its adjoint back."""
    num, step = config.num_steps, 1.0 / config.num_steps
    times, sigmas = (jnp.asarray(values, jnp.float32) for values in chain_noise(num))

    def run(state, observation, start, noise):
        def forward(x, inputs):
            time, sigma, n = inputs
            drift = 2.0 * network.apply(state.fast, x, observation, time) - x / (time + step)
            return x + step * drift + step**0.5 * sigma * n, x

        x, states = jax.lax.scan(forward, start, (times[:-1], sigmas[:-1], noise))
        end = x + step * network.apply(state.policy.slow, x, observation, times[-1])
        return jnp.concatenate([states, x[None]]), end

    def climbed(state, observation, end):
        def value(action):
            return critic.q_values(state.target_q, observation, jnp.clip(action, -1.0, 1.0)).mean(axis=0).sum()

        return -config.inverse_temperature * jax.grad(value)(end)

    def matching(state, observation, key):
        start_key, noise_key = jax.random.split(key)
        shape = (*observation.shape[:-1], action_dim)
        noise = jax.random.normal(start_key, shape), jax.random.normal(noise_key, (num - 1, *shape))
        states, end = run(state, observation, *noise)

        def base(x, time):
            return network.apply(state.policy.slow, x, observation, time)

        def everywhere(params):
            return jax.vmap(lambda x, time: network.apply(params, x, observation, time))(states, times)

        adjoint = lean_adjoint(base, states, climbed(state, observation, end))
        slow = everywhere(state.policy.slow)
        sigma = jnp.broadcast_to(sigmas[:, None, None], slow.shape)
        states, adjoint, slow = jax.lax.stop_gradient((states, adjoint, slow))

        def loss(params):
            apart = 2.0 * (everywhere(params) - slow) / sigma + sigma * adjoint
            return (apart**2).sum(axis=(0, -1)).mean()

        return loss

    return matching
