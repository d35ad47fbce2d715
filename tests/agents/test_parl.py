"""PA-RL: limits that must coincide, and what reaches what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import random_batch, trees_equal

from ooorl.agents.bc import BCConfig, bc
from ooorl.agents.iql import IQLConfig, iql_critic
from ooorl.agents.parl import PARLConfig, parl
from ooorl.agents.sac import SACConfig, sac_critic
from ooorl.policies.gaussian import gaussian_policy
from ooorl.types import Policy, Spec

SPEC = Spec(observation_dim=3, action_dim=2)
KEYS = jax.random.split(jax.random.key(1), 3)
BATCH = random_batch(jax.random.key(0), 6)


def agent_of(**settings):
    small = {'num_candidates': 4, 'num_kept': 2, 'num_steps': 1, 'step_size': 0.1}
    critic = iql_critic(SPEC, IQLConfig(hidden=(8,)))
    return parl(SPEC, PARLConfig(**small | settings), critic=critic, policy=gaussian_policy(SPEC, (8,)))


def test_one_candidate_without_steps_is_the_policy():
    agent = agent_of(num_candidates=1, num_kept=1, num_steps=0)
    state, policy = agent.init(KEYS[0]), gaussian_policy(SPEC, (8,))
    search_key, _ = jax.random.split(KEYS[1])
    drawn = policy.sample(state.policy, BATCH.observation, search_key, 1)[0]
    np.testing.assert_array_equal(agent.best_action(state, BATCH.observation, KEYS[1]), drawn)


def test_imitating_data_is_cloning_beside_the_critic():
    agent, cloning = agent_of(imitate='data', learning_rate=1e-3), bc(SPEC, BCConfig(hidden=(8,), learning_rate=1e-3))
    state = agent.init(KEYS[0])
    cloned = cloning.init(KEYS[1])._replace(policy=state.policy)
    state, cloned = agent.update(state, BATCH, KEYS[2])[0], cloning.update(cloned, BATCH, KEYS[2])[0]
    assert trees_equal(state.policy, cloned.policy)


def test_the_critic_is_the_critic_alone():
    agent, critic = agent_of(imitate='nothing'), iql_critic(SPEC, IQLConfig(hidden=(8,)))
    state = agent.init(KEYS[0])
    alone, _ = critic.update(state.critic, BATCH, KEYS[1], None)
    after, metrics = agent.update(state, BATCH, KEYS[1])
    assert trees_equal(after.critic, alone) and trees_equal(after.policy, state.policy)
    assert not [name for name in metrics if name.startswith(('policy', 'search'))]


def fixed_policy(action):
    """Always the same action, which nothing can change."""
    return Policy(
        init=lambda key: {'unused': jnp.zeros(())},
        sample=lambda params, observation, key, num: jnp.broadcast_to(action, (num, *observation.shape[:-1], 2)),
        mode=lambda params, observation, key: jnp.broadcast_to(action, (*observation.shape[:-1], 2)),
        loss=lambda params, observation, action, key: params['unused'] * action.sum(axis=-1),
    )


def test_rlpds_critic_takes_its_next_actions_from_the_search():
    critic = sac_critic(SPEC, SACConfig(hidden=(8,), num_critics=2, utd=2, gamma=0.5))
    action = jnp.array([0.3, -0.2])
    config = PARLConfig(imitate='nothing', num_candidates=1, num_kept=1, num_steps=0)
    agent = parl(SPEC, config, critic=critic, policy=fixed_policy(action))
    state = agent.init(KEYS[0])
    _, metrics = agent.update(state, BATCH, KEYS[1])
    following = jnp.broadcast_to(action, (6, 2))
    value = critic.target_q(state.critic, BATCH.next_observation, following).min(axis=0)
    first = (BATCH.reward + 0.5 * BATCH.discount * value)[::2].mean()
    # The second slice sees the slow critic after one move of it: of .005, so nearly the same.
    whole = (BATCH.reward + 0.5 * BATCH.discount * value).mean()
    np.testing.assert_allclose(metrics['q/target'], whole, atol=2e-2)
    assert abs(first - whole) > 2e-2


@pytest.mark.parametrize('choice', ['softmax', 'best'])
def test_the_imitated_action_is_better_than_the_policys(choice):
    agent = agent_of(distil_choice=choice, num_candidates=8, num_kept=4, num_steps=5, step_size=1.0)
    state = agent.init(KEYS[0])
    _, metrics = agent.update(state, BATCH, KEYS[1])
    policy = gaussian_policy(SPEC, (8,))
    q = agent.q(state, BATCH.observation, policy.sample(state.policy, BATCH.observation, KEYS[2], 1)[0]).mean()
    assert metrics['search/q'] > q
    assert 0.0 < metrics['search/data_share'] < 1.0


def test_with_one_kept_candidate_the_data_are_imitated():
    settings = {'num_candidates': 1, 'num_kept': 1, 'num_steps': 0, 'learning_rate': 1e-3}
    searching, cloning = agent_of(**settings), agent_of(**settings, imitate='data')
    state = searching.init(KEYS[0])
    left, right = (agent.update(state, BATCH, KEYS[1])[0].policy for agent in (searching, cloning))
    assert trees_equal(left, right)


def test_the_current_critic_judges():
    agent = agent_of()
    state = agent.init(KEYS[0])
    flipped = jax.tree.map(lambda leaf: -leaf, state.critic.q)
    slow = state._replace(critic=state.critic._replace(target_q=flipped))
    current = state._replace(critic=state.critic._replace(q=flipped))
    actions = [agent.best_action(s, BATCH.observation, KEYS[1]) for s in (state, slow, current)]
    np.testing.assert_array_equal(actions[0], actions[1])
    assert (actions[0] != actions[2]).any()


def test_targets_take_the_best_of_what_the_search_found():
    candidates = jnp.array([[-0.9, 0.3], [0.1, 0.8], [0.9, -0.5]])
    given = fixed_policy(jnp.zeros(2))
    spread = Policy(
        init=given.init, mode=given.mode, loss=given.loss,
        sample=lambda params, observation, key, num: jnp.broadcast_to(
            jnp.expand_dims(candidates, range(1, observation.ndim)), (num, *observation.shape[:-1], 2)
        ),
    )  # fmt: skip
    critic = sac_critic(SPEC, SACConfig(hidden=(8,), gamma=0.5))
    agent = parl(SPEC, PARLConfig(imitate='nothing', num_candidates=3, num_kept=3, num_steps=0), critic=critic, policy=spread)
    state = agent.init(KEYS[0])
    _, metrics = agent.update(state, BATCH, KEYS[1])
    every = jnp.broadcast_to(candidates[:, None], (3, 6, 2))
    following = jnp.broadcast_to(BATCH.next_observation, (3, 6, 3))
    best = critic.q(state.critic, following, every).mean(axis=0).argmax(axis=0)
    value = critic.target_q(state.critic, following, every).min(axis=0)[best, jnp.arange(6)]
    np.testing.assert_allclose(metrics['q/target'], (BATCH.reward + 0.5 * BATCH.discount * value).mean(), rtol=1e-5)
