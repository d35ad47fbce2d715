"""Agents and policies in all pairs: those that fit learn and act, those that do not are refused when built."""

import functools
from dataclasses import fields

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import FROZEN, random_batch

from ooorl.agents import ALGORITHMS
from ooorl.agents.iql import IQLConfig, iql, iql_critic
from ooorl.errors import UsageError
from ooorl.interpreted import interpreted
from ooorl.policies import POLICIES
from ooorl.policies.averaged import Averaged, averaged
from ooorl.types import Spec
from ooorl.wrap import reranked

SPEC = Spec(observation_dim=3, action_dim=2)
ROWS = 6
SMALL_AGENTS = {
    'td3': {'cloning_weight': 0.1, 'policy_delay': 1, 'policy_action': 'sample'},
    'prdc': {'policy_delay': 1, 'policy_action': 'sample'},
    'odice': {'policy_hidden': (8,)},
    'expo': {'num_candidates': 2},
    'parl': {'num_candidates': 3, 'num_kept': 2, 'num_steps': 1},
    'calql': {'critic_hidden': (8,), 'num_actions': 2},
    'wsrl': {'critic_hidden': (8,), 'num_actions': 2, 'utd': 2},
}
SMALL_POLICIES = {
    'flow': {'hidden': (8,), 'num_steps': 2},
    'diffusion': {'hidden': (8,), 'num_levels': 2, 'time_features': 'plain', 'dropout': 0.0},
    'autoregressive': {'num_bins': 4, 'num_layers': 1, 'num_heads': 1, 'width': 8, 'dropout': 0.0},
}
# What an agent needs of a policy; agents that are not named take any.
NEEDS = dict.fromkeys(('sac', 'calql', 'wsrl'), 'density') | dict.fromkeys(('td3', 'prdc', 'fql', 'dsrl'), 'decode')
HAVE = {
    'gaussian': {'decode'}, 'tanh_gaussian': {'decode', 'density'}, 'deterministic': {'decode'}, 'flow': {'decode'},
    'diffusion': {'decode'}, 'autoregressive': set(),
}  # fmt: skip
# A given function learns nothing; it is looked at in tests/policies. To an agent consistency and mean flow are what a flow is.
assert set(POLICIES) - set(HAVE) <= {'opaque', 'consistency', 'mean_flow'}
# A student's policy is its teacher's matter, a model of returns has none, adjoint matching brings its own.
PAIRS = [(agent, policy) for agent in ALGORITHMS if agent not in ('distil', 'returns', 'qam') for policy in HAVE]
FITTING = [(a, p) for a, p in PAIRS if a not in NEEDS or NEEDS[a] in HAVE[p]]
# These draw and imitate through the functions that parl uses, which meets all policies.
ALIKE = {'expo': ('flow', 'autoregressive'), 'dsrl': ('diffusion',)}
TRIED = [(a, p) for a, p in FITTING if p in ALIKE.get(a, POLICIES)]


def made_policy(name):
    kind = POLICIES[name]
    return kind.builder(SPEC, kind.config(**SMALL_POLICIES.get(name, {'hidden': (8,)})))


def made(agent, policy):
    entry = ALGORITHMS[agent]
    data = random_batch(jax.random.key(5), ROWS)
    seams = {'prdc': {'observation': data.observation, 'action': data.action}}.get(agent, {})
    if entry.critic:
        seams = {'critic': iql_critic(SPEC, IQLConfig(hidden=(8,)))}
    small = {'hidden': (8,)} if any(field.name == 'hidden' for field in fields(entry.config)) else {}
    config = entry.config(**small | SMALL_AGENTS.get(agent, {}))
    return entry.builder(SPEC, config, policy=made_policy(policy) if isinstance(policy, str) else policy, **seams)


@functools.cache
def learnt(agent_name, policy_name):
    """The state of an agent before and after an update, the metrics of that, and actions.

    Run with numpy: each is another program, which runs once.
    """
    agent, key = made(agent_name, policy_name), jax.random.key(2)
    batch = random_batch(jax.random.key(1), ROWS, return_to_go=jnp.ones(ROWS), next_action=jnp.zeros((ROWS, 2)))
    state = interpreted(agent.init)(jax.random.key(0))
    new, metrics = interpreted(agent.update)(state, batch, key)
    actions = [interpreted(act)(new, batch.observation, key) for act in (agent.sample_action, agent.best_action)]
    return jax.device_get((state, new, metrics, actions))


@pytest.mark.parametrize(('agent', 'policy'), TRIED)
def test_pairs_that_fit_learn_and_act(agent, policy):
    state, new, metrics, actions = learnt(agent, policy)
    assert all(np.isfinite(value) for value in metrics.values())
    for action in actions:
        assert action.shape == (ROWS, 2) and abs(action).max() <= 1.0
    before, after = (getattr(s.policy, 'fitted', s.policy) for s in (state, new))
    moved = [(a != b).any() for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)]
    # An update reaches the whole network, but for what these few rows leave idle: deviations of a policy asked for its mode.
    assert np.mean(moved) > 0.6
    if isinstance(new.policy, Averaged):
        expected = jax.tree.map(lambda old, fitted: 0.999 * old + 0.001 * fitted, state.policy.slow, new.policy.fitted)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), new.policy.slow, expected)


@pytest.mark.parametrize(('agent', 'policy'), sorted(set(PAIRS) - set(FITTING)))
def test_pairs_that_do_not_fit_are_refused_by_a_sentence(agent, policy):
    needed = 'knows the density of its draws' if NEEDS[agent] == 'density' else 'with decode and noise_dim'
    with pytest.raises(UsageError, match=f'needs a policy.*{needed}; got one without; use'):
        made(agent, policy)


def test_a_slow_copy_changes_what_acts_and_not_what_is_learnt():
    plain = made_policy('flow')
    agents = [iql(SPEC, IQLConfig(hidden=(8,)), policy=policy) for policy in (plain, averaged(plain, FROZEN))]
    batch, key = random_batch(jax.random.key(1), ROWS), jax.random.key(2)
    states = [interpreted(agent.init)(key) for agent in agents]
    news = [interpreted(agent.update)(state, batch, key)[0] for agent, state in zip(agents, states, strict=True)]
    jax.tree.map(np.testing.assert_array_equal, news[0].policy, news[1].policy.fitted)
    jax.tree.map(np.testing.assert_array_equal, states[0].policy, news[1].policy.slow)
    # The optimiser keeps no moments of the slow copy.
    assert jax.tree.structure(news[0].policy_opt) == jax.tree.structure(news[1].policy_opt)
    samples = [interpreted(agent.sample_action) for agent in agents]
    acting = [sample(state, batch.observation, key) for sample, state in zip(samples, news, strict=True)]
    frozen = samples[0](states[0], batch.observation, key)
    np.testing.assert_allclose(acting[1], frozen, rtol=1e-5, atol=1e-6)
    assert (acting[0] != acting[1]).any()


def test_idql_is_iql_without_weights_reranked():
    policy = made_policy('diffusion')
    agent = iql(SPEC, IQLConfig(hidden=(8,), inverse_temperature=0.0), policy=policy)
    batch, key = random_batch(jax.random.key(1), ROWS), jax.random.key(2)
    state, metrics = interpreted(agent.update)(interpreted(agent.init)(key), batch, key)
    assert metrics['policy/weight'] == 1.0
    best = reranked(agent, lambda s, o, a: agent.q(s, o, a).min(axis=0), num_candidates=5, collecting=True)
    action = interpreted(best.best_action)(state, batch.observation, key)
    assert best.sample_action is best.best_action
    sample = interpreted(agent.sample_action)
    draws = np.stack([sample(state, batch.observation, k) for k in jax.random.split(key, 5)])
    values = np.stack([interpreted(agent.q)(state, batch.observation, draw).min(axis=0) for draw in draws])
    np.testing.assert_allclose(action, draws[values.argmax(axis=0), np.arange(ROWS)], rtol=1e-5, atol=1e-6)
    with pytest.raises(UsageError, match='at least one candidate'):
        reranked(agent, lambda s, o, a: agent.q(s, o, a).min(axis=0), num_candidates=0)
