"""O-DICE: its conjugate, its projection, an update worked by hand and the limits of its settings."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import Replay
from small import blank, linear, one_row, random_batch, trees_equal

from ooorl.agents.odice import ODICEConfig, conjugate, odice, orthogonal_sum
from ooorl.errors import UsageError
from ooorl.interpreted import interpreted
from ooorl.nn.heads import hl_gauss_head
from ooorl.types import Spec

SPEC = Spec(observation_dim=3, action_dim=2)
LINE = Spec(observation_dim=1, action_dim=1)
SMALL = {'hidden': (8,), 'policy_hidden': (8,)}


def test_conjugate_by_hand():
    # y = 2: w = 2, 4 - 1 = 3; y = 0: w = 1, 0; y = -2: w = 0, -1; below that it stays -1.
    np.testing.assert_allclose(conjugate(jnp.array([2.0, 0.0, -2.0, -9.0])), [3.0, 0.0, -1.0, -1.0])
    # Its slope is w, the density ratio.
    np.testing.assert_allclose(jax.vmap(jax.grad(conjugate))(jnp.array([2.0, 0.0, -9.0])), [2.0, 1.0, 0.0])


def test_the_projected_part_is_orthogonal():
    forward = {'a': jnp.array([3.0, 0.0]), 'b': jnp.array([4.0])}
    backward = {'a': jnp.array([1.0, 2.0]), 'b': jnp.array([1.0])}
    added = jax.tree.map(jnp.subtract, orthogonal_sum(forward, backward), forward)
    np.testing.assert_allclose(optax.tree.vdot(added, forward), 0.0, atol=1e-6)
    # <f, b> / <f, f> = 7 / 25.
    np.testing.assert_allclose(added['a'], [1.0 - 21.0 / 25.0, 2.0], rtol=1e-6)


def _gradient(**settings):
    """V = 2s, its slow copy s; one transition from 1 to 2 with reward 1."""
    seen = optax.GradientTransformation(lambda p: jax.tree.map(jnp.zeros_like, p), lambda g, s, p=None: (g, g))
    config = ODICEConfig(
        hidden=(), policy_hidden=(), num_members=1, gamma=0.5, trust=0.5, policy_weight_decay=0.0, **settings
    )
    agent = odice(LINE, config, grad_transform=seen)
    state = blank(agent.init)
    state = state._replace(value=(linear([[2.0]], [0.0]),), target_value=(linear([[1.0]], [0.0]),))
    batch = one_row(observation=1.0, action=0.2, reward=1.0, discount=1.0, next_observation=2.0)
    new, metrics = interpreted(agent.update)(state, batch, jax.random.key(1))
    layer = new.value_opt[0][0]['params']['Dense_0']
    return np.array([layer['kernel'][0, 0], layer['bias'][0]]), metrics


def test_value_gradient_by_hand():
    # e_f = 1 + 0.5 * 2 - 2 = 0, w = 1: g_f = -0.5 * 1 * (s, 1) = (-0.5, -0.5).
    # e_b = 1 + 0.5 * 4 - 1 = 2, w = 2: g_b = 0.5 * 2 * 0.5 * (s', 1) = (1, 0.5). Mean of V: 0.5 * (1, 1).
    forward, backward, mean = np.array([-0.5, -0.5]), np.array([1.0, 0.5]), np.array([0.5, 0.5])
    gradient, metrics = _gradient(orthogonal=False)
    np.testing.assert_allclose(gradient, forward + backward + mean, rtol=1e-6)
    np.testing.assert_allclose([metrics['value/forward_loss'], metrics['value/backward_loss']], [0.0, 1.5], atol=1e-6)
    # <g_f, g_b> / <g_f, g_f> = -0.75 / 0.5 = -1.5.
    np.testing.assert_allclose(_gradient()[0], forward + backward + 1.5 * forward + mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(_gradient(eta=0.0)[0], forward + mean, atol=1e-6)


ROW = {'observation': 1.0, 'action': 0.5, 'reward': 1.0, 'discount': 1.0, 'next_observation': 2.0}
CLONING = 0.125 + 0.5 * np.log(2 * np.pi)  # minus the log-density of 0.5 under N(0, 1)


def _two_members(replay, **settings):
    """V_0 = 2s and V_1 = 2s - 1, their slow copies s and 3 - s, so that one is lower at s = 1 and the other at s' = 2."""
    config = {'hidden': (), 'policy_hidden': (), 'gamma': 0.5, 'trust': 0.5, 'eta': 0.5, 'policy_weight_decay': 0.0}
    agent = odice(LINE, ODICEConfig(**config | settings), grad_transform=replay.grad_transform)
    value = (linear([[2.0]], [0.0]), linear([[2.0]], [-1.0]))
    slow = (linear([[1.0]], [0.0]), linear([[-1.0]], [3.0]))
    return agent, blank(agent.init)._replace(value=value, target_value=slow)


@pytest.mark.parametrize('copies', [1, 2])
def test_an_update_of_two_members_by_hand(copies):
    replay = Replay()
    agent, state = _two_members(replay)
    batch = jax.tree.map(lambda *rows: jnp.concatenate(rows), *[one_row(**ROW)] * copies)  # means do not count copies
    _, metrics = replay.run(agent.update, [], state, batch, jax.random.key(0))
    # Slow minima 1 and 1. e_f = 1 + 0.5 * 1 - V(1) = -0.5 and 0.5: w = 0.75 and 1.25, f* = -0.4375 and 0.5625.
    # e_b = 1 + 0.5 * V(2) - 1 = 2 and 1.5: w = 2 and 1.75, f* = 3 and 2.0625.
    expected = {
        'value/forward_loss': 0.5 * (0.5625 - 0.4375) / 2, 'value/backward_loss': 0.25 * (3.0 + 2.0625) / 2,
        'value/residual': 0.0, 'policy/weight': 0.25, 'policy/loss': 0.25 * CLONING,
    }  # fmt: skip
    np.testing.assert_allclose([metrics[name] for name in expected], list(expected.values()), rtol=1e-5, atol=1e-7)
    # Gradients in (kernel, bias) of both: -trust w (s, 1) / 2, trust eta w gamma (s', 1) / 2 and (1 - trust) (s, 1) / 2.
    forward = -0.25 * np.array([0.75, 0.75, 1.25, 1.25])
    backward = 0.125 * 0.5 * np.array([2.0 * 2, 2.0, 1.75 * 2, 1.75])
    share = forward @ backward / (forward @ forward)
    value, policy = replay.gradients
    layers = [member['params']['Dense_0'] for member in value]
    found = [layer[name].item() for layer in layers for name in ('kernel', 'bias')]
    np.testing.assert_allclose(found, forward + backward - share * forward + 0.25, rtol=1e-5)
    np.testing.assert_allclose(policy['mean']['params']['Dense_0']['bias'], -0.25 * 0.5, rtol=1e-5)


def test_a_bonus_enters_both_residuals():
    replay = Replay()
    agent, state = _two_members(replay)
    _, metrics = replay.run(agent.update, [], state, one_row(**ROW, bonus=1.0), jax.random.key(0))
    # f*(y) = y + y^2 / 4 at e_f = 0.5 and 1.5, at e_b = 3 and 2.5.
    np.testing.assert_allclose(metrics['value/forward_loss'], 0.5 * (0.5625 + 2.0625) / 2, rtol=1e-5)
    np.testing.assert_allclose(metrics['value/backward_loss'], 0.25 * (5.25 + 4.0625) / 2, rtol=1e-5)


def test_weights_are_cut_for_each_member_and_come_from_before_the_value_step():
    replay = Replay()
    agent, state = _two_members(replay, max_weight=5.0, learning_rate=0.5, polyak=0.25)
    new, metrics = replay.run(agent.update, [], state, one_row(**ROW | {'reward': 6.0}), jax.random.key(0))
    np.testing.assert_allclose(metrics['policy/weight'], (4.5 + 5.0) / 2, rtol=1e-6)  # e_f = 6.5 - 2 and 6.5 - 1
    assert abs(new.value[0]['params']['Dense_0']['kernel'] - 2.0) > 0.4
    expected = jax.tree.map(lambda fast, slow: 0.25 * fast + 0.75 * slow, new.value, state.target_value)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), new.target_value, expected)


def test_weight_decay_pulls_at_the_policy_alone():
    replay = Replay()
    agent, state = _two_members(replay, trust=1.0, eta=0.0, policy_weight_decay=0.1, learning_rate=0.01)
    state = state._replace(policy={'mean': linear([[2.0]], [-2.0]), 'log_std': jnp.zeros(1)})
    # e_f = -1.5 - V(1) is below -2 for both: w = 0, and so is every gradient but that of the decay, which Adam makes 0.01.
    new, _ = replay.run(agent.update, [], state, one_row(**ROW | {'reward': -2.0}), jax.random.key(0))
    layer = new.policy['mean']['params']['Dense_0']
    np.testing.assert_allclose([layer['kernel'].item(), layer['bias'].item()], [1.99, -1.99], rtol=1e-5)
    assert trees_equal(new.value, state.value)


def test_policy_weight_is_the_positive_residual():
    agent = odice(LINE, ODICEConfig(hidden=(), policy_hidden=(), num_members=1, max_weight=3.0))
    state = blank(agent.init)._replace(value=(linear([[0.0]], [0.0]),), target_value=(linear([[0.0]], [0.0]),))
    for reward, weight in ((-1.0, 0.0), (2.0, 2.0), (5.0, 3.0)):
        batch = one_row(observation=1.0, action=0.2, reward=reward, discount=0.0, next_observation=2.0)
        np.testing.assert_allclose(interpreted(agent.update)(state, batch, jax.random.key(1))[1]['policy/weight'], weight)


@pytest.mark.parametrize('head', [None, hl_gauss_head(-5.0, 5.0, 11)])
def test_an_update_is_finite_and_ignores_successors_of_terminal_rows(head):
    agent = odice(SPEC, ODICEConfig(**SMALL), head=head)
    state, batch = interpreted(agent.init)(jax.random.key(0)), random_batch(jax.random.key(1), 6)
    batch, update = batch._replace(discount=jnp.zeros(6)), interpreted(agent.update)
    new, metrics = update(state, batch, jax.random.key(2))
    other, _ = update(state, batch._replace(next_observation=batch.next_observation + 5.0), jax.random.key(2))
    assert trees_equal(new, other)
    assert all(np.isfinite(value) and value.shape == () for value in metrics.values())


@pytest.mark.parametrize('wrong', [{'trust': 1.5}, {'eta': -1.0}, {'num_members': 0}])
def test_bad_settings_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        ODICEConfig(**wrong)
