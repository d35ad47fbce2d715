"""DSRL: the noise that a policy makes its actions of is chosen by another, small policy; the policy itself is never moved by Q.

    action       a(s) = decode(s, w),   w = noise_bound * tanh(u),   u ~ N(mu(s), sigma(s))
    critic       its own update, with a(s') in the target; no entropy in it
    noise critic L_w  = mean_e E[ (Qw_e(s, w) - Q_e(s, decode(s, w)))^2 ],   w ~ N(0, I), member by member
    steering     L_pi = E[ t * log p(w | s) - Qw(s, w) ],   Qw the `policy_value` over members
    temperature  L_t  = t * (E[ -log p(w | s) ] - target_entropy),   t = exp(log_temperature)
    policy       L    = E[ policy.loss(s, a) ] / A,   a of the data

This is the noise-aliased form: Q learns from real actions, hence from data of any source, and Qw is distilled from it, so that no
gradient passes through `decode`. p is the density before the factor `noise_bound`. All losses are evaluated at the parameters
from before the update. `decode` has everywhere the parameters that act (`Policy.deployed`): by default those of a slow copy of
the policy. With several candidates a(s) is what the current critics' mean prefers. Collection and evaluation act with a(s).

`imitate = 'nothing'` is the original, a policy that was learnt before and stays as it is. Its other form, any online agent on an
environment whose actions are noise, is `envs.steered`, in a config the table `[steered]` with the run of the policy. The noise
critic is asked where N(0, I) lies, the steering where `noise_bound` lets it go: beyond 2 it answers from nothing.

| | original (ajwagen/dsrl) | OGBench (ColinQiyangLi/qam) |
|---|---|---|
| noise_bound | 1.5 (its noise-aliased code never applies it) | 0.4 to 1.4 |
| target_entropy | 0 | -A/2 |
| noise_steps | 10 | 1 |
| policy | given, DDIM of 5 to 8 steps | flow, imitating all along, its slow copy (.005) steered |

Source: Wagenmaker et al., "Steering Your Diffusion Policy with Latent Space Reinforcement Learning", arXiv:2506.15799; order and
constants of ColinQiyangLi/qam@f93efd2. In the original, losses follow one another.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ooorl.agents.fql import fql_critic
from ooorl.agents.search import best_of, members_value
from ooorl.agents.steps import cloning_step, descend, init_q, learner, over_critic, require_decode, temperature_step
from ooorl.nn.losses import AGGREGATES
from ooorl.nn.networks import ensemble_q
from ooorl.nn.schedules import Scheduled, scheduled_adam
from ooorl.policies.averaged import averaged
from ooorl.policies.flow import FlowConfig, flow_policy
from ooorl.policies.gaussian import tanh_gaussian_policy
from ooorl.types import Agent, Array, Critic, Metrics, Params, Policy, Spec, State, Transition
from ooorl.validation import check_choice, check_not_negative, check_positive, check_share

IMITATED = ('data', 'nothing')


@dataclass(frozen=True, kw_only=True)
class DSRLConfig(Scheduled):
    """Settings of `dsrl`."""

    noise_bound: float = 1.5  # largest noise in each dimension; OGBench .4 to 1.4 per task
    learning_rate: float = 3e-4  # Adam, of policy, steering, noise critic and temperature
    imitate: str = 'data'  # what the policy is fitted to: 'data', or 'nothing' (a given policy)
    noise_steps: int = 1  # of the noise critic in each update, with fresh noise; original 10
    num_candidates: int = 1  # draws of the steering, of which the best acts and stands in the target
    policy_value: str = 'mean'  # what the steering climbs: 'mean', 'min', or 'lower' = mean - rho std of the noise critics
    rho: float = 0.5  # of 'lower'
    init_temperature: float = 1.0  # starting value of the entropy's weight
    target_entropy: float | None = None  # nats, before the factor noise_bound; None means -(numbers of noise)/2; original 0
    hidden: tuple[int, ...] = (512, 512, 512, 512)  # widths of steering, noise critic and the default policy
    noise_layer_norm: str | None = 'after'  # in the noise critic: None, or 'before' / 'after' the activation
    policy_ema_rate: float = 0.005  # of the default policy's slow copy

    def __post_init__(self):
        super().__post_init__()
        check_positive(noise_bound=self.noise_bound, learning_rate=self.learning_rate, noise_steps=self.noise_steps)
        check_positive(num_candidates=self.num_candidates, init_temperature=self.init_temperature)
        check_not_negative(rho=self.rho)
        check_share(policy_ema_rate=self.policy_ema_rate)
        check_choice(IMITATED, imitate=self.imitate)
        check_choice(AGGREGATES, policy_value=self.policy_value)
        check_choice((None, 'before', 'after'), noise_layer_norm=self.noise_layer_norm)


class DSRLState(NamedTuple):
    """The critic's state beside parameters and optimisers of policy, steering, noise critic and temperature."""

    critic: State
    policy: Params
    policy_opt: optax.OptState
    steering: Params
    steering_opt: optax.OptState
    noise_q: Params
    noise_q_opt: optax.OptState
    log_temperature: Array
    temperature_opt: optax.OptState


class _Parts(NamedTuple):
    init: Callable  # (key) -> the fields of steering, noise critic and temperature
    noise_of: Callable  # (params of the steering, observation, key, num) -> ([num, ..., noise_dim], [num, ...])
    noise_step: Callable  # (state, before, batch, key) -> (state, metrics)
    steering_step: Callable  # (state, before, batch, key) -> (state, metrics)


def dsrl(
    spec: Spec,
    config: DSRLConfig = DSRLConfig(),
    *,
    critic: Critic | None = None,
    policy: Policy | None = None,
    grad_transform: optax.GradientTransformation = optax.identity(),
) -> Agent:
    """DSRL over any critic (FQL's where none is given) and any policy with `decode` (flow with a slow copy where none is given).

    Raises:
      UsageError: if the policy has no `decode`.

    Example:
      >>> from ooorl.agents.dsrl import DSRLConfig, dsrl
      >>> from ooorl.types import Spec
      >>> agent = dsrl(Spec(observation_dim=4, action_dim=2), DSRLConfig(noise_bound=1.0))
    """
    critic = critic or fql_critic(spec, grad_transform=grad_transform)
    policy = policy or averaged(flow_policy(spec, FlowConfig(hidden=config.hidden)), config.policy_ema_rate, lags=True)
    require_decode(policy, 'dsrl', 'steers the noise that the policy makes its actions of')
    optimizer = scheduled_adam(config, 'policy', config.learning_rate, grad_transform)
    policy_step = cloning_step(policy, optimizer, spec.action_dim)
    parts = _parts(spec, config, critic, policy, optimizer, grad_transform)

    def init(key):
        critic_key, policy_key, own_key = jax.random.split(key, 3)
        return DSRLState(
            critic.init(critic_key), **learner('policy', policy.init(policy_key), optimizer), **parts.init(own_key)
        )

    def act(state, observation, key):
        noise, _ = parts.noise_of(state.steering, observation, key, config.num_candidates)
        q = members_value(partial(critic.q, state.critic), observation, 'mean')
        return best_of(q, policy.decode(policy.deployed(state.policy), observation, noise))

    def update(state: DSRLState, batch: Transition, key) -> tuple[DSRLState, Metrics]:
        critic_key, noise_key, policy_key, steering_key = jax.random.split(key, 4)
        before = state

        def sampler(observation, key, num, candidates=None):
            del candidates
            action = act(before, observation, key)
            return jnp.broadcast_to(action, (num, *action.shape))

        critic_state, metrics = critic.update(before.critic, batch, critic_key, sampler)
        state, noise_metrics = parts.noise_step(state._replace(critic=critic_state), before, batch, noise_key)
        if config.imitate == 'data':
            state, policy_metrics = policy_step(state, batch, policy_key)
            metrics = metrics | policy_metrics
        state, steering_metrics = parts.steering_step(state, before, batch, steering_key)
        return state, metrics | noise_metrics | steering_metrics

    return Agent(
        init=init,
        update=update,
        sample_action=act,
        best_action=act,
        **over_critic(critic, policy, config.imitate),
    )


def _num_members(critic, spec):
    """E, found without computing anything."""
    def values():
        state = critic.init(jax.random.key(0))
        return critic.q(state, jnp.zeros((1, spec.observation_dim)), jnp.zeros((1, spec.action_dim)))

    return jax.eval_shape(values).shape[0]


def _parts(spec: Spec, config: DSRLConfig, critic: Critic, policy: Policy, optimizer, grad_transform) -> _Parts:
    noisy = Spec(observation_dim=spec.observation_dim, action_dim=policy.noise_dim)
    steering = tanh_gaussian_policy(noisy, config.hidden, activation='gelu', kernel_init='xavier_uniform')
    network = ensemble_q(
        config.hidden, 1, num_members=_num_members(critic, spec), layer_norm=config.noise_layer_norm, activation='gelu',
        kernel_init='xavier_uniform',
    )  # fmt: skip
    noise_optimizer = scheduled_adam(
        config, 'critic', config.learning_rate, grad_transform, steps_per_update=config.noise_steps
    )
    target_entropy = -policy.noise_dim / 2 if config.target_entropy is None else config.target_entropy

    def init(key):
        steering_key, noise_key = jax.random.split(key)
        log_temperature = jnp.log(jnp.asarray(config.init_temperature, jnp.float32))
        return {
            **learner('steering', steering.init(steering_key), optimizer),
            **learner('noise_q', init_q(network, noisy, noise_key), noise_optimizer),
            'log_temperature': log_temperature,
            'temperature_opt': optimizer.init(log_temperature),
        }

    def noise_of(params, observation, key, num):
        direction, log_prob = steering.sample_and_log_prob(params, observation, key, num)
        return config.noise_bound * direction, log_prob

    def values(params, observation, noise):
        return network.apply(params, observation, noise)[..., 0]

    def noise_step(state, before, batch, key):
        def one(state, key):
            noise = jax.random.normal(key, (*batch.reward.shape, policy.noise_dim))
            action = policy.decode(policy.deployed(before.policy), batch.observation, noise)
            target = jax.lax.stop_gradient(critic.q(before.critic, batch.observation, action))

            def loss_fn(params):
                return ((values(params, batch.observation, noise) - target) ** 2).mean(), None

            state, loss, _ = descend(state, 'noise_q', loss_fn, noise_optimizer)
            return state, {'noise_q/loss': loss}

        state, metrics = jax.lax.scan(one, state, jax.random.split(key, config.noise_steps))
        return state, jax.tree.map(jnp.mean, metrics)

    def steering_step(state, before, batch, key):
        temperature = jnp.exp(before.log_temperature)
        q = members_value(partial(values, before.noise_q), batch.observation, config.policy_value, config.rho)

        def loss_fn(params):
            noise, log_prob = noise_of(params, batch.observation, key, 1)
            climbed = q(noise[0])
            facts = {'steering/q': climbed.mean(), 'steering/size': jnp.abs(noise).mean()}
            return (temperature * log_prob[0] - climbed).mean(), (-log_prob.mean(), facts)

        state, loss, (entropy, metrics) = descend(state, 'steering', loss_fn, optimizer)
        state, temperature_metrics = temperature_step(state, entropy - target_entropy, jnp.exp, optimizer)
        return state, {'steering/loss': loss, 'steering/entropy': entropy} | metrics | temperature_metrics

    return _Parts(init, noise_of, noise_step, steering_step)
