"""How a policy is made of values: weights of rows, imitation beside climbing, a slow copy that acts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import blank, linear, one_row, random_batch, trees_equal

from ooorl.agents.bc import BCConfig, bc
from ooorl.agents.iql import IQLConfig, iql
from ooorl.agents.slow_policy import slow_policy
from ooorl.agents.steps import climbing_scale, weight_facts
from ooorl.agents.td3 import TD3Config, td3
from ooorl.errors import UsageError
from ooorl.interpreted import interpreted
from ooorl.nn.losses import awr_weight
from ooorl.policies.gaussian import deterministic_policy
from ooorl.types import Policy, Spec

LINE = Spec(observation_dim=1, action_dim=1)
STILL = {'learning_rate': 1e-12}  # steps too small to be seen: every loss of an update is that of the state given


def test_weights_of_rows_by_hand():
    weight = awr_weight(jnp.array([-1.0, 0.0, 0.5, 3.0]), 3.0, 100.0)
    np.testing.assert_allclose(0.001 * weight, [0.00004979, 0.001, 0.004482, 0.1], rtol=1e-4)
    facts = weight_facts(jnp.array([0.0, 2.0]), jnp.array([1.0, 3.0]), 3.0)
    # (1 + 3)^2 / (1 + 9) rows, one of the two at the cap.
    expected = {'advantage': 1.0, 'advantage_deviation': 1.0, 'weight': 2.0, 'effective_rows': 1.6, 'capped': 0.5}
    assert {name: pytest.approx(float(value)) for name, value in facts.items()} == {f'policy/{k}': v for k, v in expected.items()}


def test_a_shift_of_all_values_leaves_imitation_as_heavy_as_it_was():
    advantage = jnp.array([0.0, 0.6, 1.2])  # deviation .6 sqrt(2 / 3) = .489898
    for q in (jnp.array([1.0, 2.0, 3.0]), jnp.array([-66.0, -65.0, -67.0])):
        assert climbing_scale(q, advantage, 2.0, 'advantage') == pytest.approx(2.0 / 0.489898, rel=1e-5)
    assert climbing_scale(jnp.array([-66.0, -65.0, -67.0]), advantage, 2.0, 'size') == pytest.approx(2.0 / 66.0, rel=1e-5)
    assert climbing_scale(jnp.array([-3.0, 1.0]), None, 2.0, 'size') == pytest.approx(1.0, rel=1e-5)  # a mean of sizes
    # Where the data's actions are all worth the same, a thousandth of the size stands in.
    assert climbing_scale(jnp.full(3, 50.0), jnp.zeros(3), 1.0, 'advantage') == pytest.approx(20.0, rel=1e-5)
    assert climbing_scale(jnp.full(3, 50.0), None, None, 'size') == 1.0


def test_ddpg_bc_by_hand():
    config = IQLConfig(
        hidden=(), gamma=0.5, extraction='ddpg_bc', cloning_weight=0.5, q_unit='size', q_normalisation=3.0,
        inverse_temperature=1.0, **STILL,
    )  # fmt: skip
    agent = iql(LINE, config, policy=deterministic_policy(LINE, ()))
    state = blank(agent.init)
    q, target_q = (linear([[1.0], [2.0]], [b]) for b in (0.0, 1.0))
    critic = state.critic._replace(value=linear([[1.0]], [0.0]), q=(q, q), target_q=(target_q, target_q))
    state = state._replace(critic=critic, policy=linear([[0.0]], [np.arctanh(0.5)]))
    batch = one_row(observation=1.0, action=-0.5, reward=0.0, discount=1.0, next_observation=1.0)
    _, metrics = interpreted(agent.update)(state, batch, jax.random.key(0))
    # Advantage 1 - 1 + 1 - 1 = 0 of the slow Q, weight 1; |0.5 + 0.5|^2 = 1; the present Q(1, 0.5) = 2 is climbed with 3 / 2.
    known = {'policy/advantage': 0.0, 'policy/cloning': 1.0, 'policy/q': 2.0, 'policy/q_scale': 1.5, 'policy/loss': 0.5 - 3.0}
    for name, value in known.items():
        np.testing.assert_allclose(metrics[name], value, atol=1e-5, err_msg=name)


def test_td3_in_units_of_the_advantage_by_hand():
    config = TD3Config(
        hidden=(), gamma=0.5, policy_delay=1, cloning_weight=2.0, q_normalisation=1.0, q_unit='advantage', **STILL
    )
    agent = td3(LINE, config)
    q = (linear([[1.0], [2.0]], [0.0]),) * 2
    state = blank(agent.init)._replace(q=q, target_q=q)  # pi(s) = 0
    rows = [one_row(observation=50.0, action=a, reward=0.0, discount=1.0, next_observation=0.0) for a in (-0.2, 0.6)]
    _, metrics = interpreted(agent.update)(state, jax.tree.map(lambda *x: jnp.concatenate(x), *rows), jax.random.key(0))
    # Q(s, a) - Q(s, 0) = 2a: -0.4 and 1.2, deviation 0.8; Q(s, pi(s)) = 50, imitation (0.04 + 0.36) / 2.
    np.testing.assert_allclose(metrics['policy/q_scale'], 1.0 / 0.8, rtol=1e-4)
    np.testing.assert_allclose(metrics['policy/loss'], -50.0 / 0.8 + 2.0 * 0.2, rtol=1e-4)


def test_climbing_needs_a_policy_made_from_noise():
    plain = deterministic_policy(LINE, ())
    bare = Policy(init=plain.init, sample=plain.sample, mode=plain.mode, loss=plain.loss)
    with pytest.raises(UsageError, match='iql with ddpg_bc climbs Q'):
        iql(LINE, IQLConfig(extraction='ddpg_bc'), policy=bare)


def test_the_slow_copy_acts_and_the_policy_learns_as_ever():
    spec = Spec(observation_dim=3, action_dim=2)
    fast = bc(spec, BCConfig(hidden=(8,)))
    slow = slow_policy(fast, 0.25)
    batch, key = random_batch(jax.random.key(0), 8), jax.random.key(1)
    state = interpreted(slow.init)(key)
    alone, _ = interpreted(fast.update)(state.agent, batch, key)
    after, _ = interpreted(slow.update)(state, batch, key)
    assert trees_equal(after.agent, alone)
    mixed = jax.tree.map(lambda old, new: 0.75 * old + 0.25 * new, state.agent.policy, alone.policy)
    for found, wanted in zip(jax.tree.leaves(after.slow), jax.tree.leaves(mixed), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    acted = interpreted(slow.best_action)(after, batch.observation, key)
    np.testing.assert_array_equal(acted, interpreted(fast.best_action)(alone._replace(policy=after.slow), batch.observation, key))
    assert not np.array_equal(acted, interpreted(fast.best_action)(alone, batch.observation, key))


def test_a_gaussian_tells_how_wide_it_is():
    agent = iql(LINE, IQLConfig(hidden=(), log_std_min=-1.0))
    state = blank(agent.init)
    state = state._replace(policy={**state.policy, 'log_std': jnp.array([-3.0])})
    batch = one_row(observation=1.0, action=-0.5, reward=0.0, discount=1.0, next_observation=1.0)
    _, metrics = interpreted(agent.update)(state, batch, jax.random.key(0))
    assert metrics['policy/log_std'] == -1.0  # at its floor
