"""O-DICE: its conjugate, its projection, an update worked by hand and the limits of its settings."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import blank, linear, one_row, random_batch, trees_equal

from ooorl.agents.odice import ODICEConfig, conjugate, odice, orthogonal_sum
from ooorl.errors import UsageError
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
    new, metrics = agent.update(state, batch, jax.random.key(1))
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


def test_policy_weight_is_the_positive_residual():
    agent = odice(LINE, ODICEConfig(hidden=(), policy_hidden=(), num_members=1, max_weight=3.0))
    state = blank(agent.init)._replace(value=(linear([[0.0]], [0.0]),), target_value=(linear([[0.0]], [0.0]),))
    for reward, weight in ((-1.0, 0.0), (2.0, 2.0), (5.0, 3.0)):
        batch = one_row(observation=1.0, action=0.2, reward=reward, discount=0.0, next_observation=2.0)
        np.testing.assert_allclose(agent.update(state, batch, jax.random.key(1))[1]['policy/weight'], weight)


@pytest.mark.parametrize('head', [None, hl_gauss_head(-5.0, 5.0, 11)])
def test_an_update_is_finite_and_ignores_successors_of_terminal_rows(head):
    agent = odice(SPEC, ODICEConfig(**SMALL), head=head)
    state, batch = jax.jit(agent.init)(jax.random.key(0)), random_batch(jax.random.key(1), 6)
    batch, update = batch._replace(discount=jnp.zeros(6)), jax.jit(agent.update)
    new, metrics = update(state, batch, jax.random.key(2))
    other, _ = update(state, batch._replace(next_observation=batch.next_observation + 5.0), jax.random.key(2))
    assert trees_equal(new, other)
    assert all(np.isfinite(value) and value.shape == () for value in metrics.values())


@pytest.mark.parametrize('wrong', [{'trust': 1.5}, {'eta': -1.0}, {'num_members': 0}])
def test_bad_settings_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        ODICEConfig(**wrong)
