"""EXPO: a policy imitates, a small edit moves its draws towards higher Q, and the best of draws and edits acts.

    candidates  a_i ~ policy(s), i < N;   a_i + edit_scale * e_i, e_i ~ tanh N(s, a_i), i < N_e     (`policies.edited`)
    a*(s)       the candidate of the highest aggregate_e Q_e(s, .)
    critic      its own update, with a*(s') in the target; no entropy in it
    policy      L_pi   = E[ policy.loss(s, a) ] / A,   a of the data
    edit        L_edit = E[ t * log p(e | s, a) - Q(s, a + edit_scale * e) ],   a ~ policy(s), gradient through e alone
    temperature L_t    = t * (E[ -log p(e | s, a) ] - target_entropy),   t = exp(log_temperature)

p is the density of the edit before scaling; an entropy of the scaled edit would be asked for A log edit_scale less, which is the
same. Q in the edit's loss is the `policy_value` over current members. All losses are evaluated at the parameters from before the
update. Collection and evaluation act with a*(s), its draws from the parameters that act (`Policy.deployed`); targets and the
edit's loss draw from the fitted ones. With `num_edited = 0` the best of N draws acts (IDQL, with another critic); with N = 1
besides it is the policy by itself.

`imitate = 'nothing'` leaves the policy as it is: given, or learnt in an earlier phase.

| | EXPO (alexanderswerdlow/faster) | on OGBench (ColinQiyangLi/qam, `fedit`) |
|---|---|---|
| N, N_e; keep_plain | 8, 8; True | 1, 1; False |
| critic | sac: num_critics 10, num_target_critics 2, critic_layer_norm, utd 20 | fql: num_critics 10, aggregate lower |
| aggregate of the choice | 'min' of two slow members | 'mean' of the current ones |
| policy | DDPM with a slow copy (.001), rate to 0 by a cosine | flow |

Source: "EXPO: Stable Reinforcement Learning with Expressive Policies", arXiv:2507.07986; order and constants of
ColinQiyangLi/qam@f93efd2. Deviations from alexanderswerdlow/faster@446eed5: there the edit's loss edits the data's action,
losses follow one another, edited actions are not clipped, and the choice asks two slow members drawn anew: here
`slow_choice=True` asks all of them.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ooorl.agents.fql import fql_critic
from ooorl.agents.search import best_of, members_value
from ooorl.agents.steps import cloning_step, descend, learner, over_critic, temperature_step
from ooorl.nn.losses import AGGREGATES
from ooorl.nn.schedules import Scheduled, scheduled_adam
from ooorl.policies.edited import EditConfig, Edited, EditedPolicy, edited_policy
from ooorl.policies.flow import FlowConfig, flow_policy
from ooorl.types import Agent, Array, Critic, Metrics, Params, Policy, Spec, State, Transition
from ooorl.validation import check_choice, check_not_negative, check_positive

IMITATED = ('data', 'nothing')


@dataclass(frozen=True, kw_only=True)
class EXPOConfig(Scheduled, EditConfig):
    """Settings of `expo`, those of the edit among them."""

    learning_rate: float = 3e-4  # Adam, of policy, edit and temperature
    imitate: str = 'data'  # what the policy is fitted to: 'data', or 'nothing' (a given policy)
    aggregate: str = 'mean'  # over critics, where candidates are compared: 'mean', 'min', or 'lower' = mean - rho std
    policy_value: str = 'mean'  # what the edit climbs, the same
    rho: float = 0.5  # of 'lower'
    slow_choice: bool = False  # the slow critics compare candidates, as EXPO's do, instead of the current ones
    init_temperature: float = 1.0  # starting value of the entropy's weight
    target_entropy: float | None = None  # nats, of the edit before scaling; None means -A/2

    def __post_init__(self):
        Scheduled.__post_init__(self)
        EditConfig.__post_init__(self)
        check_positive(learning_rate=self.learning_rate, init_temperature=self.init_temperature)
        check_not_negative(rho=self.rho)
        check_choice(IMITATED, imitate=self.imitate)
        check_choice(AGGREGATES, aggregate=self.aggregate, policy_value=self.policy_value)


class EXPOState(NamedTuple):
    """The critic's state beside parameters and optimisers of policy, edit and temperature."""

    critic: State
    policy: Params
    policy_opt: optax.OptState
    edit: Params
    edit_opt: optax.OptState
    log_temperature: Array
    temperature_opt: optax.OptState


def expo(
    spec: Spec,
    config: EXPOConfig = EXPOConfig(),
    *,
    critic: Critic | None = None,
    policy: Policy | None = None,
    grad_transform: optax.GradientTransformation = optax.identity(),
) -> Agent:
    """EXPO over any critic (FQL's where none is given) and any policy (flow where none is given).

    Example:
      >>> from ooorl.agents.expo import EXPOConfig, expo
      >>> from ooorl.types import Spec
      >>> agent = expo(Spec(observation_dim=4, action_dim=2), EXPOConfig(edit_scale=0.3, num_candidates=4, keep_plain=False))
    """
    critic = critic or fql_critic(spec, grad_transform=grad_transform)
    policy = policy or flow_policy(spec, FlowConfig(hidden=config.hidden))
    optimizer = scheduled_adam(config, 'policy', config.learning_rate, grad_transform)
    policy_step, edited = cloning_step(policy, optimizer, spec.action_dim), edited_policy(spec, policy, config)
    edit_step = _edit_step(spec, config, critic, policy, edited, optimizer)

    def init(key):
        critic_key, policy_key, edit_key = jax.random.split(key, 3)
        log_temperature = jnp.log(jnp.asarray(config.init_temperature, jnp.float32))
        return EXPOState(
            critic.init(critic_key),
            **learner('policy', policy.init(policy_key), optimizer),
            **learner('edit', edited.init_edit(edit_key), optimizer),
            log_temperature=log_temperature,
            temperature_opt=optimizer.init(log_temperature),
        )

    def best(state, params, observation, key):
        judge = critic.target_q if config.slow_choice else critic.q
        q = members_value(partial(judge, state.critic), observation, config.aggregate, config.rho)
        return best_of(q, edited.candidates(params, observation, key))

    def update(state: EXPOState, batch: Transition, key) -> tuple[EXPOState, Metrics]:
        critic_key, policy_key, edit_key = jax.random.split(key, 3)
        before = state

        def sampler(observation, key, num, candidates=None):
            del candidates
            action = best(before, Edited(before.policy, before.edit), observation, key)
            return jnp.broadcast_to(action, (num, *action.shape))

        critic_state, critic_metrics = critic.update(before.critic, batch, critic_key, sampler)
        metrics = {}
        if config.imitate == 'data':
            state, metrics = policy_step(state, batch, policy_key)
        state, edit_metrics = edit_step(state, before, batch, edit_key)
        return state._replace(critic=critic_state), critic_metrics | metrics | edit_metrics

    def act(state, observation, key):
        return best(state, edited.deployed(Edited(state.policy, state.edit)), observation, key)

    return Agent(
        init=init,
        update=update,
        sample_action=act,
        best_action=act,
        **over_critic(critic, policy, config.imitate),
    )


def _edit_step(spec: Spec, config: EXPOConfig, critic: Critic, policy: Policy, edited: EditedPolicy, optimizer):
    """`(state, before, batch, key) -> (state, metrics)`: edit and temperature move, everything else is read from `before`."""
    target_entropy = -spec.action_dim / 2 if config.target_entropy is None else config.target_entropy

    def edit_step(state, before, batch, key):
        base_key, edit_key = jax.random.split(key)
        plain = policy.sample(before.policy, batch.observation, base_key, 1)[0]
        q = members_value(partial(critic.q, before.critic), batch.observation, config.policy_value, config.rho)
        temperature = jnp.exp(before.log_temperature)

        def loss_fn(params):
            action, log_prob = edited.edit(params, batch.observation, jax.lax.stop_gradient(plain), edit_key)
            values = q(action)
            loss = (temperature * log_prob - values).mean()
            moved = jnp.abs(action - plain).mean()
            return loss, (-log_prob.mean(), {'edit/q': values.mean(), 'edit/size': moved})

        state, loss, (entropy, metrics) = descend(state, 'edit', loss_fn, optimizer)
        state, temperature_metrics = temperature_step(state, entropy - target_entropy, jnp.exp, optimizer)
        return state, {'edit/loss': loss, 'edit/entropy': entropy} | metrics | temperature_metrics

    return edit_step
