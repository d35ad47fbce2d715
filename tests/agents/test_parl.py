"""PA-RL: limits that must coincide, and what reaches what."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import random_batch, trees_equal

from ooorl.agents.bc import BCConfig, bc
from ooorl.agents.cached import states_of, with_candidates, with_places
from ooorl.agents.calql import CalQLCriticConfig, calql_critic
from ooorl.agents.iql import IQLConfig, iql_critic
from ooorl.agents.parl import PARLConfig, parl
from ooorl.agents.sac import SACConfig, sac_critic
from ooorl.errors import UsageError
from ooorl.interpreted import interpreted
from ooorl.policies.gaussian import deterministic_policy, gaussian_policy
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
    state, policy = interpreted(agent.init)(KEYS[0]), gaussian_policy(SPEC, (8,))
    search_key, _ = jax.random.split(KEYS[1])
    drawn = interpreted(policy.sample, static_argnums=3)(state.policy, BATCH.observation, search_key, 1)[0]
    np.testing.assert_array_equal(interpreted(agent.best_action)(state, BATCH.observation, KEYS[1]), drawn)


def test_imitating_data_is_cloning_beside_the_critic():
    agent, cloning = agent_of(imitate='data', learning_rate=1e-3), bc(SPEC, BCConfig(hidden=(8,), learning_rate=1e-3))
    state = interpreted(agent.init)(KEYS[0])
    cloned = interpreted(cloning.init)(KEYS[1])._replace(policy=state.policy)
    state, cloned = interpreted(agent.update)(state, BATCH, KEYS[2])[0], interpreted(cloning.update)(cloned, BATCH, KEYS[2])[0]
    assert trees_equal(state.policy, cloned.policy)


def test_the_critic_is_the_critic_alone():
    agent, critic = agent_of(imitate='nothing'), iql_critic(SPEC, IQLConfig(hidden=(8,)))
    state = interpreted(agent.init)(KEYS[0])
    alone, _ = interpreted(critic.update)(state.critic, BATCH, KEYS[1], None)
    after, metrics = interpreted(agent.update)(state, BATCH, KEYS[1])
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
    state = interpreted(agent.init)(KEYS[0])
    _, metrics = interpreted(agent.update)(state, BATCH, KEYS[1])
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
    state = interpreted(agent.init)(KEYS[0])
    _, metrics = interpreted(agent.update)(state, BATCH, KEYS[1])
    policy = gaussian_policy(SPEC, (8,))
    drawn = interpreted(policy.sample, static_argnums=3)(state.policy, BATCH.observation, KEYS[2], 1)[0]
    q = interpreted(agent.q)(state, BATCH.observation, drawn).mean()
    assert metrics['search/q'] > q
    assert 0.0 < metrics['search/data_share'] < 1.0


def test_with_one_kept_candidate_the_data_are_imitated():
    settings = {'num_candidates': 1, 'num_kept': 1, 'num_steps': 0, 'learning_rate': 1e-3}
    searching, cloning = agent_of(**settings), agent_of(**settings, imitate='data')
    state = searching.init(KEYS[0])
    left, right = (interpreted(agent.update)(state, BATCH, KEYS[1])[0].policy for agent in (searching, cloning))
    assert trees_equal(left, right)


def test_the_current_critic_judges():
    agent = agent_of()
    state = interpreted(agent.init)(KEYS[0])
    flipped = jax.tree.map(lambda leaf: -leaf, state.critic.q)
    slow = state._replace(critic=state.critic._replace(target_q=flipped))
    current = state._replace(critic=state.critic._replace(q=flipped))
    actions = [interpreted(agent.best_action)(s, BATCH.observation, KEYS[1]) for s in (state, slow, current)]
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
    state = interpreted(agent.init)(KEYS[0])
    _, metrics = interpreted(agent.update)(state, BATCH, KEYS[1])
    every = jnp.broadcast_to(candidates[:, None], (3, 6, 2))
    following = jnp.broadcast_to(BATCH.next_observation, (3, 6, 3))
    best = critic.q(state.critic, following, every).mean(axis=0).argmax(axis=0)
    value = critic.target_q(state.critic, following, every).min(axis=0)[best, jnp.arange(6)]
    np.testing.assert_allclose(metrics['q/target'], (BATCH.reward + 0.5 * BATCH.discount * value).mean(), rtol=1e-5)


def row_data(num=7):
    """A walk of two episodes, the first of which ends with row 3: there the successor is not the next row."""
    walk = np.asarray(jax.random.normal(jax.random.key(4), (num + 2, 3)))
    now = np.concatenate([walk[:4], walk[5 : num + 1]])
    after = np.concatenate([walk[1:5], walk[6 : num + 2]])
    return BATCH._replace(observation=now, next_observation=after, action=np.zeros((num, 2), np.float32))


@pytest.mark.parametrize('rows_at_once', [3, 100])
def test_draws_are_kept_once_for_each_state(rows_at_once):
    asked = []

    def draw(params, observation, key, num):
        jax.debug.callback(lambda rows: asked.append(len(rows)), observation)
        return jnp.broadcast_to(observation[..., :2], (num, *observation.shape[:-1], 2)) + params

    policy = replace(fixed_policy(jnp.zeros(2)), sample=draw, deployed=lambda params: params + 1.0)
    data = row_data()
    found = with_candidates(data, policy, jnp.zeros(()), KEYS[0], 4, rows_at_once=rows_at_once)
    for column, states in (('candidates', data.observation), ('next_candidates', data.next_observation)):
        np.testing.assert_allclose(found.extras[column], np.broadcast_to(states[:, None, :2] + 1.0, (7, 4, 2)), rtol=1e-6)
    jax.effects_barrier()
    assert sum(asked) <= 7 + 2 + 2 * rows_at_once * (rows_at_once < 100)  # the row of the end and the last one, beside all states


@pytest.mark.parametrize('critic', ['calql', 'sac', 'iql'])
def test_kept_draws_take_the_place_of_the_policys(critic):
    made = {
        'calql': lambda: calql_critic(SPEC, CalQLCriticConfig(critic_hidden=(8,), num_actions=2)),
        'sac': lambda: sac_critic(SPEC, SACConfig(hidden=(8,), utd=2)), 'iql': lambda: iql_critic(SPEC, IQLConfig(hidden=(8,))),
    }[critic]()  # fmt: skip
    settings = {'num_candidates': 2, 'num_kept': 2, 'num_steps': 0, 'learning_rate': 1e-2}
    kept = jax.random.uniform(KEYS[2], (2, 6, 2, 2), minval=-0.5, maxval=0.5)
    columns = {'candidates': kept[0], 'next_candidates': kept[1], 'return_to_go': jnp.zeros(6)}
    agents = [
        parl(SPEC, PARLConfig(**settings, cached=cached), critic=made, policy=policy)
        for cached, policy in ((True, gaussian_policy(SPEC, (8,))), (False, gaussian_policy(SPEC, (8,))))
    ]
    assert {'candidates', 'next_candidates'} <= set(agents[0].reads) and 'candidates' not in agents[1].reads
    state, batch = interpreted(agents[0].init)(KEYS[0]), BATCH._replace(extras=columns)
    news = [interpreted(agent.update)(state, batch, KEYS[1])[0] for agent in agents]
    assert not trees_equal(news[0].policy, news[1].policy)
    assert trees_equal(news[0].critic, news[1].critic) == (critic == 'iql')  # which asks for no actions
    # Another policy to draw from changes nothing where draws are kept, though it is itself what is fitted.
    other = state._replace(policy=jax.tree.map(lambda leaf: leaf + 0.1, state.policy))
    assert trees_equal(interpreted(agents[0].update)(other, batch, KEYS[1])[0].critic, news[0].critic)


def test_states_of_data_and_their_places_by_hand():
    data = with_places(row_data())
    states, places = states_of(data), {name: data.extras[name].astype(int) for name in ('place', 'next_place')}
    assert len(states) == 9  # seven rows, the successor of the first episode's end and that of the newest row
    np.testing.assert_array_equal(states[places['place']], data.observation)
    np.testing.assert_array_equal(states[places['next_place']], data.next_observation)
    assert data.extras['next_place'].tolist() == [1, 2, 3, 7, 5, 6, 8]


def refreshing(every, critic, policy, data, **settings):
    """An agent that keeps its draws, refreshed within so many updates; None: one that keeps none."""
    settings = {'num_candidates': 2, 'num_kept': 2, 'num_steps': 0, 'learning_rate': 0.1, 'distil_choice': 'best'} | settings
    config = PARLConfig(**settings, cached=every is not None, refresh_every=every)
    return parl(SPEC, config, critic=critic, policy=policy, states=states_of(data))


def test_draws_refreshed_in_every_update_are_those_of_no_cache():
    policy, critic = deterministic_policy(SPEC, (8,), exploration_std=0.0), iql_critic(SPEC, IQLConfig(hidden=(8,)))
    data = with_places(row_data()._replace(**{name: jnp.ones(7) for name in ('reward', 'discount')}))
    agents = [refreshing(every, critic, policy, data) for every in (1, None)]
    state, plain = interpreted(agents[0].init)(KEYS[0]), interpreted(agents[1].init)(jax.random.split(KEYS[0])[0])
    steps = [interpreted(agent.update) for agent in agents]
    for number in range(3):
        key = jax.random.fold_in(KEYS[1], number)
        state, plain = steps[0](state, data, key)[0], steps[1](plain, data, jax.random.split(key)[1])[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.agent, plain)
    assert not trees_equal(plain.policy, interpreted(agents[1].init)(jax.random.split(KEYS[0])[0]).policy)
    assert {'place', 'next_place'} <= set(agents[0].reads) and 'candidates' not in agents[0].reads


def test_a_phase_that_draws_anew_goes_on_with_a_state_that_kept_draws_and_leaves_them():
    policy, critic = deterministic_policy(SPEC, (8,), exploration_std=0.0), iql_critic(SPEC, IQLConfig(hidden=(8,)))
    data = row_data()._replace(**{name: jnp.ones(7) for name in ('reward', 'discount')})  # no places: rows of another store
    keeping, plain = (refreshing(every, critic, policy, data) for every in (1, None))
    settings = {'num_candidates': 2, 'num_kept': 2, 'num_steps': 0, 'learning_rate': 0.1, 'distil_choice': 'best'}
    after = parl(SPEC, PARLConfig(**settings, refresh_every=1), critic=critic, policy=policy, states=states_of(data))
    state = interpreted(keeping.init)(KEYS[0])
    new, _ = interpreted(after.update)(state, data, KEYS[1])
    own, _ = interpreted(plain.update)(state.agent, data, KEYS[1])
    assert trees_equal(new.agent, own) and trees_equal(new.kept, state.kept) and not trees_equal(new.agent, state.agent)
    assert set(after.reads) == set(plain.reads)


def test_every_draw_is_made_anew_within_so_many_updates():
    """Nine states and `every = 4`: three in each update, so that the fourth begins the second round."""
    counting = replace(
        fixed_policy(jnp.zeros(2)), init=lambda key: jnp.zeros(()), deployed=lambda params: params + 1.0,
        loss=lambda params, observation, action, key: -params + 0.0 * action.sum(axis=-1),
        sample=lambda params, observation, key, num: jnp.full((num, *observation.shape[:-1], 2), 1.0) * params,
    )  # fmt: skip
    critic, data = iql_critic(SPEC, IQLConfig(hidden=(8,))), with_places(row_data())
    data = data._replace(reward=jnp.ones(7), discount=jnp.ones(7))
    agent = refreshing(4, critic, counting, data, learning_rate=1.0)
    state, found = interpreted(agent.init)(KEYS[0]), []
    step = interpreted(agent.update)
    for number in range(4):
        state, _ = step(state, data, jax.random.fold_in(KEYS[1], number))
        found.append(np.round(state.kept[:, 0, 0]).tolist())
    # Update t finds the parameter t, of which 1 + t acts.
    assert found[2] == [1, 1, 1, 2, 2, 2, 3, 3, 3] and found[3] == [4, 4, 4, 2, 2, 2, 3, 3, 3]
    assert state.kept.shape == (9, 2, 2)


def test_refreshing_needs_kept_draws_and_states():
    with pytest.raises(UsageError, match='refresh_every must be greater than 0'):
        PARLConfig(cached=True, refresh_every=0)
    with pytest.raises(UsageError, match='draws anew for every state of the data; got none; name a data set'):
        agent_of(cached=True, refresh_every=5)
