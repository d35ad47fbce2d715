"""Wrappers change what an agent's updates see and nothing else."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import random_batch, trees_equal

from ooorl.agents.bc import BCConfig, bc
from ooorl.agents.iql import IQLConfig, iql
from ooorl.errors import UsageError
from ooorl.interpreted import interpreted
from ooorl.nn.losses import backup
from ooorl.signals import RNDConfig, rnd, state_action_counts
from ooorl.training import replay
from ooorl.training.learn import make_learn
from ooorl.training.sampling import Sampling
from ooorl.types import Agent, Signal, Spec
from ooorl.wrap import (
    bonus,
    normalised_observation,
    relabelled,
    rescaled_reward,
    terminal_at_reward,
    value_bounds,
    with_extras,
)

SPEC = Spec(observation_dim=3, action_dim=2)
KEY = jax.random.key(0)
IQL = IQLConfig(hidden=(8,))


def watching(reads=()):
    """An agent whose state is the last batch it was given."""
    return Agent(
        init=lambda key: None,
        update=lambda state, batch, key: (batch, {}),
        sample_action=lambda state, observation, key: observation[..., :2],
        best_action=lambda state, observation, key: -observation[..., :2],
        reads=reads,
    )


def seen_by(wrapper, batch, **settings):
    """The batch that reaches the agent inside a wrapper."""
    agent = wrapper(watching(), **settings)
    return interpreted(agent.update)(interpreted(agent.init)(KEY), batch, KEY)[0]


def constant_signal(value=1.0):
    """A second signal: the same score for every row; its state counts what it was told of."""
    return Signal(
        init=lambda key: jnp.zeros(()),
        update=lambda state, batch, key: (state, jnp.full(batch.reward.shape, value), {}),
        score=lambda state, batch: jnp.full(batch.reward.shape, value),
        observe=lambda state, transitions: state + transitions.reward.shape[0],
    )


def test_a_bonus_of_scale_zero_is_the_plain_agent():
    plain = iql(SPEC, IQL)
    listening = bonus(plain, rnd(SPEC, RNDConfig(hidden=(8,), num_features=4)), scale=0.0)
    state = interpreted(listening.init)(KEY)
    expected = interpreted(plain.init)(jax.random.split(KEY)[0])
    assert trees_equal(state.agent, expected)
    update, plain_update = interpreted(listening.update), interpreted(plain.update)
    for step in range(3):
        key, batch = jax.random.key(step), random_batch(jax.random.key(10 + step), 16)
        state, metrics = update(state, batch, key)
        expected, plain_metrics = plain_update(expected, batch, jax.random.split(key)[0])
    # The program differs, so its fusions do: sums may round differently, by less than 1e-6.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state.agent, expected)
    assert set(metrics) - set(plain_metrics) and set(plain_metrics) <= set(metrics)


def test_a_bonus_of_scale_zero_is_bitwise_the_plain_agent_operation_by_operation():
    plain = iql(SPEC, IQL)
    listening = bonus(plain, constant_signal(), scale=0.0)
    batch = random_batch(jax.random.key(1), 16)
    state, _ = interpreted(listening.update)(interpreted(listening.init)(KEY), batch, KEY)
    expected, _ = interpreted(plain.update)(interpreted(plain.init)(jax.random.split(KEY)[0]), batch, jax.random.split(KEY)[0])
    assert trees_equal(state.agent, expected)


def test_a_bonus_enters_the_batch_and_never_the_store():
    batch = random_batch(KEY, 6)
    agent = bonus(watching(), constant_signal(3.0), scale=2.0)
    state, metrics = interpreted(agent.update)(interpreted(agent.init)(KEY), batch, KEY)
    np.testing.assert_array_equal(state.agent.extras['bonus'], [6.0] * 6)
    np.testing.assert_array_equal(state.agent.reward, batch.reward)
    assert metrics == {'bonus/mean': 3.0} and 'bonus' not in batch.extras
    store = replay.full(with_extras(batch, boundary=jnp.zeros(6)))
    before = jax.tree.map(np.asarray, store)
    inner = bonus(bc(SPEC, BCConfig(hidden=(4,))), constant_signal(), scale=2.0)
    learn = make_learn(inner, Sampling(batch_size=4), num_updates=2, streams={'dataset': 1})
    learn(interpreted(inner.init)(KEY), {'dataset': store}, KEY)
    assert trees_equal(before, store) and set(store.storage.extras) == {'boundary'}


def test_nested_bonuses_add_up():
    agent = bonus(bonus(watching(), constant_signal(3.0), scale=2.0), constant_signal(1.0), scale=0.5)
    state, _ = interpreted(agent.update)(interpreted(agent.init)(KEY), random_batch(KEY, 4), KEY)
    np.testing.assert_array_equal(state.agent.agent.extras['bonus'], [6.5] * 4)


def test_signals_are_told_of_stored_data_through_every_wrapper():
    agent = bonus(watching(), constant_signal(), scale=1.0)
    agent = normalised_observation(rescaled_reward(agent, shift=-1.0), np.zeros(3), np.ones(3))
    observe = interpreted(agent.observe)
    state = observe(observe(interpreted(agent.init)(KEY), random_batch(KEY, 5)), random_batch(KEY, 2))
    assert state.agent.signal == 7
    counts = state_action_counts([-2.0] * 3, [2.0] * 3, (3, 3, 3), (3, 3))
    listening = bonus(watching(), counts, scale=1.0)
    assert interpreted(listening.observe)(interpreted(listening.init)(KEY), random_batch(KEY, 5)).signal.visits.sum() == 5


def test_relabelling_may_edit_any_field():
    def relabel(batch, score):
        return batch._replace(reward=batch.reward + score, discount=jnp.zeros_like(batch.discount))

    agent = relabelled(watching(), constant_signal(4.0), relabel, name='caution')
    batch = random_batch(KEY, 4)
    state, metrics = interpreted(agent.update)(interpreted(agent.init)(KEY), batch, KEY)
    np.testing.assert_array_equal(state.agent.reward, batch.reward + 4.0)
    assert (state.agent.discount == 0).all() and set(metrics) == {'caution/mean'}


def test_rescaling_moves_everything_in_reward_units():
    columns = {'reward_low': -1.0, 'reward_high': 3.0, 'return_to_go': 5.0, 'discounted_horizon': 2.0, 'label': 9.0}
    batch = random_batch(KEY, 4, **{name: jnp.full(4, value) for name, value in columns.items()})
    got = seen_by(rescaled_reward, batch, scale=2.0, shift=-1.0)
    np.testing.assert_array_equal(got.reward, 2.0 * batch.reward - 1.0)
    expected = {'reward_low': -3.0, 'reward_high': 5.0, 'return_to_go': 2 * 5 - 1 * 2, 'discounted_horizon': 2.0, 'label': 9.0}
    assert {name: float(value[0]) for name, value in got.extras.items()} == expected
    assert rescaled_reward(watching()).reads == ()
    assert rescaled_reward(watching(('return_to_go',))).reads == ('return_to_go', 'discounted_horizon')
    with pytest.raises(UsageError, match='greater than 0; got -1'):
        rescaled_reward(watching(), scale=-1.0)


def test_terminals_are_where_the_reward_says():
    batch = random_batch(KEY, 4)._replace(reward=jnp.array([4.0, 3.0, 4.0, 0.0]), discount=jnp.array([0.0, 0.0, 1.0, 1.0]))
    np.testing.assert_array_equal(seen_by(terminal_at_reward, batch, reward=4.0).discount, [0, 1, 0, 1])


def test_value_bounds_come_from_the_rewards_of_the_data():
    batch = random_batch(KEY, 3, reward_low=jnp.full(3, -2.0), reward_high=jnp.full(3, 0.5))
    got = seen_by(value_bounds, batch, gamma=0.9).extras
    np.testing.assert_allclose(got['value_low'], [-20.0] * 3, rtol=1e-6)  # -2 / (1 - 0.9)
    np.testing.assert_allclose(got['value_high'], [5.0] * 3, rtol=1e-6)
    given = seen_by(value_bounds, batch, gamma=0.9, low=-7.0).extras
    np.testing.assert_allclose((given['value_low'][0], given['value_high'][0]), (-7.0, 5.0), rtol=1e-6)
    assert value_bounds(watching(), gamma=0.9).reads == ('reward_low', 'reward_high')
    assert value_bounds(watching(), gamma=0.9, low=0.0).reads == ('reward_high',)
    assert value_bounds(watching(), gamma=0.9, low=0.0, high=1.0).reads == ()
    assert value_bounds(watching(), gamma=1.0, low=0.0, high=1.0).reads == ()
    with pytest.raises(UsageError, match='need gamma below 1; got 1 with low None and high 0.0; give both'):
        value_bounds(watching(), gamma=1.0, high=0.0)


@pytest.mark.parametrize(('gamma', 'rewards', 'bounds'), [
    (0.99, (-1.0, 0.0), (-100.0, 0.0)),  # what OOO publishes for its mazes
    (0.5, (-1.0, 3.0), (-2.0, 6.0)),  # both signs: -1 for ever, 3 for ever
    (0.5, (1.0, 3.0), (1.0, 6.0)),  # 1 and the end, 3 for ever
    (0.5, (-3.0, -1.0), (-6.0, -1.0)),  # -3 for ever, -1 and the end
    (0.5, (0.0, 0.0), (0.0, 0.0)),
])  # fmt: skip
def test_value_bounds_hold_every_return_and_no_more(gamma, rewards, bounds):
    low, high = rewards
    extras = {'reward_low': jnp.full(3, low), 'reward_high': jnp.full(3, high)}
    got = seen_by(value_bounds, random_batch(KEY, 3, **extras), gamma=gamma).extras
    np.testing.assert_allclose((got['value_low'][0], got['value_high'][0]), bounds, rtol=1e-6)
    # Returns of a constant reward over 1, 2, ... and nearly endless steps come close to both bounds and to nothing beyond.
    lengths = np.concatenate([np.arange(1, 60), [4000]])
    returns = np.array([[r * (1 - gamma**n) / (1 - gamma) for n in lengths] for r in rewards])
    np.testing.assert_allclose((returns.min(), returns.max()), bounds, rtol=1e-6)


def test_bounds_see_the_rescaled_reward_and_the_target_takes_the_bonus_after_them():
    # Hand computation: r' = 2 * 1 - 1 = 1; bounds from r' in [-1, 1] over 1 - 0.5: [-2, 2]; the bonus comes after the clipping:
    # clip(1 + 0.5 * 10, -2, 2) + 3 * 1 = 5.
    agent = rescaled_reward(value_bounds(bonus(watching(), constant_signal(), scale=3.0), gamma=0.5), scale=2.0, shift=-1.0)
    batch = random_batch(KEY, 2, reward_low=jnp.zeros(2), reward_high=jnp.ones(2))
    batch = batch._replace(reward=jnp.ones(2), discount=jnp.ones(2))
    state, _ = interpreted(agent.update)(interpreted(agent.init)(KEY), batch, KEY)
    np.testing.assert_allclose(backup(state.agent, jnp.full(2, 10.0), 0.5), [5.0, 5.0])


def test_normalised_observations_for_learning_and_for_acting():
    mean, std = np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0])
    agent = normalised_observation(watching(), mean, std)
    batch = random_batch(KEY, 4)
    state, _ = interpreted(agent.update)(interpreted(agent.init)(KEY), batch, KEY)
    for name in ('observation', 'next_observation'):
        np.testing.assert_allclose(getattr(state.agent, name), (np.asarray(getattr(batch, name)) - mean) / std, rtol=1e-5)
    observation = jnp.array([[2.0, 4.0, 0.0]])
    np.testing.assert_array_equal(interpreted(agent.sample_action)(state, observation, KEY), [[1.0, 1.0]])
    np.testing.assert_array_equal(interpreted(agent.best_action)(state, observation[0], KEY), [-1.0, -1.0])
    # The statistics travel with the state, so another process that restores it acts alike.
    other = normalised_observation(watching(), np.zeros(3), np.ones(3))
    acting = (interpreted(each.best_action)(state, observation, KEY) for each in (other, agent))
    np.testing.assert_array_equal(*acting)
    # A donated state does not take the caller's arrays with it.
    centre = jnp.zeros(3)
    first = normalised_observation(watching(), centre, jnp.ones(3)).init(KEY)
    jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)(first)
    assert not centre.is_deleted()


def test_everything_inside_sees_normalised_observations():
    told = replace(
        watching(),
        q=lambda state, observation, action: (observation.sum(axis=-1) + action.sum(axis=-1))[None],
        observe=lambda state, transitions: transitions,
        sees=lambda state, batch: batch._replace(reward=batch.observation[:, 0]),
    )
    mean, std = np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0])
    agent, batch = normalised_observation(told, mean, std), random_batch(KEY, 4)
    state, expected = interpreted(agent.init)(KEY), (np.asarray(batch.observation) - mean) / std
    values = interpreted(agent.q)(state, batch.observation, batch.action)[0]
    np.testing.assert_allclose(values, expected.sum(axis=-1) + batch.action.sum(axis=-1), rtol=1e-5)
    stored = interpreted(agent.observe)(state, batch)
    np.testing.assert_allclose(stored.agent.observation, expected, rtol=1e-5)
    np.testing.assert_allclose(stored.agent.next_observation, (np.asarray(batch.next_observation) - mean) / std, rtol=1e-5)
    np.testing.assert_array_equal((stored.mean, stored.std), (mean, std))
    np.testing.assert_allclose(agent.sees(state, batch).reward, expected[:, 0], rtol=1e-5)


def test_sees_is_what_an_update_is_given_through_every_wrapper():
    agent = bonus(watching(), constant_signal(3.0), scale=2.0)
    agent = value_bounds(agent, gamma=0.9, low=-1.0, high=1.0)
    agent = terminal_at_reward(rescaled_reward(agent, scale=2.0, shift=1.0), reward=0.0)
    agent = normalised_observation(agent, np.ones(3), np.full(3, 2.0))
    batch, state = random_batch(KEY, 4), interpreted(agent.init)(KEY)
    given = interpreted(agent.update)(state, batch, KEY)[0].agent.agent
    jax.tree.map(np.testing.assert_array_equal, agent.sees(state, batch), given)


def test_signal_and_agent_draw_with_keys_of_their_own():
    def told(state, batch, key):
        return jax.random.key_data(key)

    signal = Signal(
        init=lambda key: jax.random.key_data(key), score=None,
        update=lambda state, batch, key: (told(state, batch, key), batch.reward, {}),
    )
    agent = replace(watching(), init=lambda key: jax.random.key_data(key), update=lambda *given: (told(*given), {}))
    listening = bonus(agent, signal, scale=1.0)
    started = interpreted(listening.init)(KEY)
    state, _ = interpreted(listening.update)(started, random_batch(KEY, 4), jax.random.key(1))
    keys = {bytes(np.asarray(key)) for key in (*started, *state, jax.random.key_data(KEY))}
    assert len(keys) == 5
