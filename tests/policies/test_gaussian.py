"""Gaussian policies: shapes, moments of draws, densities and what is deterministic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ooorl.interpreted import interpreted
from ooorl.nn.distributions import gaussian_log_prob
from ooorl.policies.gaussian import deterministic_policy, gaussian_policy, tanh_gaussian_policy
from ooorl.types import Spec

SPEC = Spec(observation_dim=4, action_dim=2)
OBSERVATION = jax.random.normal(jax.random.key(7), (3, 4))
ACTION = jnp.array([[0.2, -0.4], [0.9, 0.0], [-0.7, 0.3]])
POLICIES = {
    'gaussian': gaussian_policy(SPEC, (8,), init_log_std=-1.0),
    'tanh_gaussian': tanh_gaussian_policy(SPEC, (8,)),
    'tanh_gaussian_affine': tanh_gaussian_policy(SPEC, (8,), log_std_affine=(1.0, -1.0)),
    'deterministic': deterministic_policy(SPEC, (8,)),
}


def _params(policy):
    return interpreted(policy.init)(jax.random.key(0))


@pytest.mark.parametrize('name', POLICIES)
def test_shapes_and_the_box(name):
    policy = POLICIES[name]
    params = _params(policy)
    draws = interpreted(policy.sample, static_argnums=3)(params, OBSERVATION, jax.random.key(1), 5)
    mode = interpreted(policy.mode)(params, OBSERVATION, jax.random.key(1))
    loss = interpreted(policy.loss)(params, OBSERVATION, ACTION, jax.random.key(1))
    assert (draws.shape, mode.shape, loss.shape) == ((5, 3, 2), (3, 2), (3,))
    assert {draws.dtype, mode.dtype, loss.dtype} == {jnp.dtype('float32')}
    assert abs(draws).max() <= 1.0 and abs(mode).max() <= 1.0
    assert len(np.unique(draws.reshape(-1))) > 1


@pytest.mark.parametrize('name', POLICIES)
def test_one_observation_needs_no_batch_axis(name):
    policy = POLICIES[name]
    params = _params(policy)
    assert interpreted(policy.sample, static_argnums=3)(params, OBSERVATION[0], jax.random.key(1), 5).shape == (5, 2)
    mode = interpreted(policy.mode)(params, OBSERVATION[0], jax.random.key(1))
    np.testing.assert_allclose(mode, interpreted(policy.mode)(params, OBSERVATION, jax.random.key(1))[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name', POLICIES)
def test_the_mode_does_not_read_its_key(name):
    policy = POLICIES[name]
    params = _params(policy)
    modes = [interpreted(policy.mode)(params, OBSERVATION, jax.random.key(k)) for k in (1, 2)]
    np.testing.assert_array_equal(*modes)


def test_gaussian_loss_is_the_negative_log_density_of_an_unsquashed_gaussian():
    policy = POLICIES['gaussian']
    params = _params(policy)
    mean = interpreted(policy.mode)(params, OBSERVATION, None)
    expected = -gaussian_log_prob(ACTION, mean, jnp.full((3, 2), -1.0))
    np.testing.assert_allclose(interpreted(policy.loss)(params, OBSERVATION, ACTION, None), expected, rtol=1e-6)


def test_gaussian_draws_have_the_stated_moments():
    # std exp(-3) = 0.0498, so clipping at the box does not touch these draws; 20 000 of them know the mean to
    # 0.0498 / 141 = 3.5e-4 and the deviation to 2.5e-4.
    policy = gaussian_policy(SPEC, (8,), init_log_std=-3.0, last_init='small')
    params = _params(policy)
    draws = interpreted(policy.sample, static_argnums=3)(params, OBSERVATION, jax.random.key(1), 20_000)
    np.testing.assert_allclose(draws.mean(axis=0), interpreted(policy.mode)(params, OBSERVATION, None), atol=5 * 3.5e-4)
    np.testing.assert_allclose(draws.std(axis=0), np.exp(-3.0), atol=5 * 2.5e-4)


def test_log_std_outside_its_bounds_gets_no_gradient():
    policy = gaussian_policy(SPEC, (8,), log_std_bounds=(-5.0, 2.0), init_log_std=2.5)
    params = _params(policy)
    gradient = interpreted(jax.grad(lambda p: policy.loss(p, OBSERVATION, ACTION, None).sum()))(params)
    np.testing.assert_array_equal(gradient['log_std'], 0.0)
    assert jnp.abs(gradient['mean']['params']['Dense_0']['kernel']).max() > 0


def test_dropout_acts_in_the_loss_only():
    policy = gaussian_policy(SPEC, (32,), dropout=0.5)
    params = _params(policy)
    losses = [interpreted(policy.loss)(params, OBSERVATION, ACTION, jax.random.key(k)) for k in (1, 1, 2)]
    np.testing.assert_array_equal(losses[0], losses[1])
    assert (losses[0] != losses[2]).any()
    without = gaussian_policy(SPEC, (32,))
    for key in (jax.random.key(1), jax.random.key(2)):
        np.testing.assert_array_equal(*(interpreted(each.mode)(params, OBSERVATION, key) for each in (policy, without)))


@pytest.mark.parametrize('name', ['tanh_gaussian', 'tanh_gaussian_affine'])
def test_draws_and_their_density_belong_together(name):
    policy = POLICIES[name]
    params = _params(policy)
    draws, log_prob = interpreted(policy.sample_and_log_prob, static_argnums=3)(params, OBSERVATION, jax.random.key(1), 4)
    np.testing.assert_array_equal(draws, interpreted(policy.sample, static_argnums=3)(params, OBSERVATION, jax.random.key(1), 4))
    for action, density in zip(draws, log_prob, strict=True):
        np.testing.assert_allclose(-interpreted(policy.loss)(params, OBSERVATION, action, None), density, rtol=2e-3, atol=2e-3)


def test_affine_log_std_starts_at_its_constants_and_learns():
    policy = POLICIES['tanh_gaussian_affine']
    params = _params(policy)
    np.testing.assert_array_equal(params['log_std_affine'], [1.0, -1.0])
    gradient = interpreted(jax.grad(lambda p: policy.loss(p, OBSERVATION, ACTION, None).sum()))(params)
    assert (gradient['log_std_affine'] != 0).all()


def test_deterministic_loss_is_the_summed_squared_error():
    policy = POLICIES['deterministic']
    params = _params(policy)
    error = interpreted(policy.mode)(params, OBSERVATION, None) - ACTION
    np.testing.assert_allclose(interpreted(policy.loss)(params, OBSERVATION, ACTION, None), (error**2).sum(axis=-1), rtol=1e-6)
