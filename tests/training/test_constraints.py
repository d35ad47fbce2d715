"""A price on what cannot be taken back, and a policy that takes over: what they do to a batch and to an action, by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import random_batch
from test_wrap import KEY, watching

from ooorl.errors import UsageError
from ooorl.training.constraints import PricedState, RecoveringState, costs, priced, recovering

LABELS = jnp.array([1.0, 0.0, -1.0, 1.0])


def test_costs_are_labels_and_what_is_unknown():
    batch = random_batch(KEY, 4, label=LABELS)
    assert costs(batch).tolist() == [1, 0, 0, 1] and costs(batch, 0.25).tolist() == [1, 0, 0.25, 1]
    with pytest.raises(UsageError, match='a constraint needs the column label'):
        costs(random_batch(KEY, 4))


def test_the_price_rises_with_the_excess_and_is_paid():
    batch = random_batch(KEY, 4, label=LABELS)
    agent = priced(watching(), limit=0.1, rate=0.5, start=2.0)
    state, metrics = agent.update(agent.init(KEY), batch, KEY)
    np.testing.assert_allclose(state.agent.reward, batch.reward - 2.0 * np.array([1, 0, 0, 1]), rtol=1e-6)
    np.testing.assert_array_equal(state.agent.discount, batch.discount * np.array([0, 1, 1, 0]))
    assert metrics['price'] == 2.0 and metrics['cost'] == 0.5
    assert float(jnp.exp(state.log_price)) == pytest.approx(2.0 * np.exp(0.5 * 0.4))
    calm, _ = agent.update(PricedState(None, jnp.log(2.0)), batch._replace(extras={'label': jnp.zeros(4)}), KEY)
    assert float(jnp.exp(calm.log_price)) == pytest.approx(2.0 * np.exp(-0.05))


def test_the_second_policy_takes_over_above_the_threshold():
    # The task's action is (0.9, 0), recovery's (-0.5, 0); q = -(first column of s) for the task's action: risk is s.
    acts = {'task': jnp.array([0.9, 0.0]), 'recovery': jnp.array([-0.5, 0.0])}

    def fixed(name):
        def act(state, observation, key):
            return jnp.broadcast_to(acts[name], (*observation.shape[:-1], 2))

        return dataclasses.replace(watching(), sample_action=act, best_action=act)

    def q(state, observation, action):
        return jnp.stack([-observation[..., 0] - 0.1, 0.1 - observation[..., 0]])

    away = dataclasses.replace(fixed('recovery'), q=q)
    agent = recovering(fixed('task'), away, threshold=0.3)
    state = RecoveringState(None, None)
    observation = jnp.array([[0.2, 0, 0], [0.4, 0, 0]])
    for act in (agent.sample_action, agent.best_action):
        assert act(state, observation, KEY)[:, 0].tolist() == pytest.approx([0.9, -0.5])
    batch = random_batch(KEY, 4, label=LABELS)
    after, metrics = agent.update(state, batch, KEY)
    assert after.recovery.reward.tolist() == [-1, 0, 0, -1]
    np.testing.assert_array_equal(after.recovery.discount, batch.discount * np.array([0, 1, 1, 0]))
    np.testing.assert_array_equal(after.task.reward, batch.reward)
    assert metrics['recovery/risk'] == pytest.approx(float(batch.observation[:, 0].mean()), abs=1e-6)
    assert jax.tree.structure(agent.init(KEY)) == jax.tree.structure(RecoveringState(None, None))
    with pytest.raises(UsageError, match='recovering needs a recovery agent with a Q'):
        recovering(watching(), watching(), threshold=0.1)
