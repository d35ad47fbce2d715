"""PA-RL: any policy is improved by imitating actions that a search around its own draws has found; any critic judges them.

    a*(s)    = the best action that `search` finds around policy(s) under the critic's Q
    critic   its own update, with a*(s') and a*(s) wherever it asks for the policy's actions
    policy   L_pi = E[ policy.loss(s, a') ],   a' drawn in proportion to exp(Q) from what the search finds around policy(s) and
             the data's action

One update takes the policy's step, with the critic from before, then the critic's. The policy may be anything that draws actions
and can be fitted to actions; no gradient of Q passes through it. Draws come from the parameters that act (`Policy.deployed`).
Collection and evaluation act with a*(s), or with `acting='softmax'` with a draw in proportion to exp(Q).

What is imitated is a setting: 'search' as above; 'data', the data's own actions, which is how a policy is pretrained (behaviour
cloning) beside its critic; 'nothing', for a policy that is given: re-ranking and climbing at test time alone. V-GPS is the last
of these with `num_steps=0`, `acting='softmax'`, its own `temperature`, `slow_critic=True` and `aggregate='min'` of two critics.

The published recipe: the policy cloned, then a million updates of the critic alone, then both online with the policy's rate at
5e-5; Cal-QL's critic without importance sampling, 10 members of which 2 are drawn for targets and for the gap, HL-Gauss with 128
bins, `conservative_weight=0.005` on cross-entropy. Targets are chosen by the online critics' mean and judged by slow ones.

Offline and online phases may differ in all of this (`[agent.online]`, `phases.finetune(online_agent=...)`): the policy is cloned
while the critic learns offline, and distilled from the search online.

Source: Mark et al., "Policy-Agnostic RL: Offline RL and Online RL Fine-Tuning of Any Class and Backbone", arXiv:2412.06685;
order and constants of MaxSobolMark/PolicyAgnosticRL@a26a192. There the data's action and the softmax are used for distillation,
neither for targets; one search serves all here too. Repeated actions in the gap are one action with its multiplicity.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ooorl.agents.cached import COLUMNS, beside_kept, refreshed
from ooorl.agents.calql import calql_critic
from ooorl.agents.search import CHOICES, SearchConfig, choose, members_value, search
from ooorl.agents.steps import descend_policy, imitation, learner, over_critic
from ooorl.errors import UsageError
from ooorl.nn.schedules import Scheduled, scheduled_adam
from ooorl.policies.diffusion import diffusion_policy
from ooorl.types import Agent, Array, Critic, Metrics, Params, Policy, Spec, State, Transition
from ooorl.validation import check_choice, check_positive

IMITATED = ('search', 'data', 'nothing')


@dataclass(frozen=True, kw_only=True)
class PARLConfig(Scheduled, SearchConfig):
    """Settings of `parl`, those of its search among them; the defaults are the released code's."""

    learning_rate: float = 5e-5  # Adam, of the policy; when cloning 3e-4
    imitate: str = 'search'  # what the policy is fitted to: 'search', 'data' (pretraining) or 'nothing' (a given policy)
    distil_choice: str = 'softmax'  # of what the search found: 'softmax' (antmaze, kitchen) or 'best' (CALVIN)
    acting: str = 'best'  # of what the search found: 'best' or 'softmax'
    cached: bool = False  # draws to learn from are kept for every row of the data (agents.cached): drawn once, or
    refresh_every: int | None = None  # drawn anew from the policy, each within so many updates; for policies that learn.
    # With cached = false, in [agent.online]: all draws are made anew, and the kept ones stay as they were.

    def __post_init__(self):
        Scheduled.__post_init__(self)
        SearchConfig.__post_init__(self)
        check_positive(learning_rate=self.learning_rate, refresh_every=self.refresh_every)
        check_choice(IMITATED, imitate=self.imitate)
        check_choice(CHOICES, distil_choice=self.distil_choice, acting=self.acting)


class PARLState(NamedTuple):
    """The critic's state beside the policy's."""

    critic: State
    policy: Params
    policy_opt: optax.OptState


def found(critic: Critic, policy: Policy, config: SearchConfig) -> Callable:
    """`(state, observation[..., O], key, data_action=None, cached=None) -> ([M, ..., A], [M, ...])`: what the search finds.

    With values; `cached` `[..., N, A]` are candidates that need not be drawn.
    """

    def find(state: PARLState, observation: Array, key, data_action: Array | None = None, cached: Array | None = None):
        if cached is None:
            candidates = policy.sample(policy.deployed(state.policy), observation, key, config.num_candidates)
        else:
            candidates = jnp.moveaxis(cached, -2, 0)
        judge = partial(critic.target_q if config.slow_critic else critic.q, state.critic)
        q, climbed = members_value(judge, observation, config.aggregate, config.rho), None
        if config.climb_aggregate is not None:
            climbed = members_value(judge, observation, config.climb_aggregate, config.rho)
        return search(q, candidates, config, data_action=data_action, climbed=climbed)

    return find


def _policy_step(config, policy, find, optimizer):
    """`(state, batch, key) -> (state, metrics)`: the policy moves towards the data's actions, or those that were found."""

    def imitated(state, batch, key):
        if config.imitate == 'data':
            return batch.action, {}
        search_key, choice_key = jax.random.split(key)
        cached = batch.extras['candidates'] if config.cached else None
        actions, values = find(state, batch.observation, search_key, batch.action, cached)
        action = choose(actions, values, choice_key, config.distil_choice, config.temperature)
        share = jax.nn.softmax(values / config.temperature, axis=0)
        return action, {'search/q': values.max(axis=0).mean(), 'search/data_share': share[-1].mean()}

    def policy_step(state, batch, key):
        search_key, loss_key = jax.random.split(key)
        action, metrics = imitated(state, batch, search_key)

        def loss_fn(params):
            return imitation(policy, params, batch, loss_key, action).mean(), None

        state, loss, _ = descend_policy(state, policy, loss_fn, optimizer)
        return state, {'policy/loss': loss} | metrics

    return policy_step


def parl(
    spec: Spec,
    config: PARLConfig = PARLConfig(),
    *,
    critic: Critic | None = None,
    policy: Policy | None = None,
    states: Array | None = None,
    grad_transform: optax.GradientTransformation = optax.identity(),
) -> Agent:
    """PA-RL over any critic (Cal-QL's where none is given) and any policy (diffusion where none is given).

    `states` `[U, O]` are the data's (`cached.states_of`), as the agent sees them, where kept draws are refreshed. An agent with
    the same `refresh_every` and `cached = false` goes on with such a state and draws anew, on whatever rows.

    Raises:
      UsageError: if draws are to be refreshed and no states are given.

    Example:
      >>> from ooorl.agents.iql import iql_critic
      >>> from ooorl.agents.parl import PARLConfig, parl
      >>> from ooorl.types import Spec
      >>> spec = Spec(observation_dim=4, action_dim=2)
      >>> agent = parl(spec, PARLConfig(num_candidates=8, num_kept=4), critic=iql_critic(spec))
    """
    critic = critic or calql_critic(spec, grad_transform=grad_transform)
    policy = policy or diffusion_policy(spec)
    optimizer = scheduled_adam(config, 'policy', config.learning_rate, grad_transform)
    find = found(critic, policy, config)
    policy_step = _policy_step(config, policy, find, optimizer)

    def init(key):
        critic_key, policy_key = jax.random.split(key)
        return PARLState(critic.init(critic_key), **learner('policy', policy.init(policy_key), optimizer))

    def update(state: PARLState, batch: Transition, key) -> tuple[PARLState, Metrics]:
        policy_key, critic_key = jax.random.split(key)
        metrics = {}
        if config.imitate != 'nothing':
            state, metrics = policy_step(state, batch, policy_key)

        def sampler(observation, key, num, candidates=None):
            candidates = candidates if config.cached else None
            action = choose(*find(state, observation, key, cached=candidates), key, 'best')
            return jnp.broadcast_to(action, (num, *action.shape))

        critic_state, critic_metrics = critic.update(state.critic, batch, critic_key, sampler)
        return state._replace(critic=critic_state), metrics | critic_metrics

    def act(state, observation, key):
        search_key, choice_key = jax.random.split(key)
        return choose(*find(state, observation, search_key), choice_key, config.acting, config.temperature)

    agent = Agent(
        init=init,
        update=update,
        sample_action=act,
        best_action=act,
        **over_critic(critic, policy, config.imitate, COLUMNS if config.cached else ()),
    )
    if config.refresh_every is None:
        return agent
    if states is None:
        raise UsageError('refresh_every draws anew for every state of the data; got none; name a data set')
    keeper = refreshed(agent, policy, states, every=config.refresh_every, num=config.num_candidates)
    return keeper if config.cached else beside_kept(agent, keeper)
