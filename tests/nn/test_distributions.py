"""Densities against numerical integration and exact values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ooorl.nn.distributions import (
    gaussian_log_prob,
    tanh_correction,
    tanh_gaussian_from_noise,
    tanh_gaussian_log_prob,
    tanh_gaussian_sample,
)


def test_gaussian_log_prob_by_hand():
    # One dimension at z = 1, std 2: -1/2 - log 2 - log(2 pi) / 2 = -0.5 - 0.6931472 - 0.9189385 = -2.1120857.
    # The other at its mean, std 1: -0.9189385. Together -3.0310242.
    log_prob = gaussian_log_prob(jnp.array([3.0, 0.5]), jnp.array([1.0, 0.5]), jnp.log(jnp.array([2.0, 1.0])))
    assert log_prob == pytest.approx(-3.0310242, abs=1e-6)


def test_gaussian_density_integrates_to_one():
    grid = jnp.linspace(-12.0, 14.0, 4001)
    density = jnp.exp(gaussian_log_prob(grid[:, None], jnp.array([1.0]), jnp.log(jnp.array([1.5]))))
    assert jnp.trapezoid(density, grid) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize(('mean', 'std'), [(0.0, 1.0), (0.7, 0.4), (-1.2, 0.8)])
def test_tanh_gaussian_density_integrates_to_one_and_has_the_mean_of_its_draws(mean, std):
    grid = jnp.tanh(jnp.linspace(mean - 9 * std, mean + 9 * std, 20001))  # uneven points, dense at the walls
    moments = jnp.array([mean]), jnp.log(jnp.array([std]))
    density = jnp.exp(jax.jit(tanh_gaussian_log_prob)(grid[:, None], *moments, margin=1e-15))
    assert jnp.trapezoid(density, grid) == pytest.approx(1.0, abs=1e-4)
    # E[tanh u] by Gauss-Hermite quadrature over u instead of over the action.
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    expected = (np.tanh(mean + std * nodes) * weights).sum() / weights.sum()
    assert jnp.trapezoid(grid * density, grid) == pytest.approx(expected, abs=1e-4)


def test_draws_come_with_the_log_density_of_the_action():
    mean, log_std = jnp.array([[0.3, -0.5], [0.0, 0.2]]), jnp.log(jnp.array([[0.5, 0.3], [0.2, 0.4]]))
    action, log_prob = tanh_gaussian_sample(jax.random.key(0), mean, log_std, 5)
    assert action.shape == (5, 2, 2) and log_prob.shape == (5, 2)
    np.testing.assert_allclose(log_prob, tanh_gaussian_log_prob(action, mean, log_std), rtol=1e-4, atol=1e-4)


def test_draws_have_the_right_moments():
    # atanh(a) is N(0.3, 0.5^2): with 40 000 draws the mean is known to 0.5 / 200 = 0.0025, the deviation to 0.0018.
    action, _ = tanh_gaussian_sample(jax.random.key(1), jnp.array([0.3]), jnp.log(jnp.array([0.5])), 40_000)
    u = jnp.arctanh(action)
    assert u.mean() == pytest.approx(0.3, abs=4 * 0.0025)
    assert u.std() == pytest.approx(0.5, abs=4 * 0.0018)


def test_tanh_correction_keeps_its_digits_where_tanh_saturates():
    # log(1 - tanh(u)^2) = log 4 - 2|u| - 2 log(1 + exp(-2|u|)); at u = 20, tanh(u) rounds to 1 in float32.
    u = np.array([0.0, 0.5, -3.0, 20.0, -20.0])
    exact = np.log(4.0) - 2 * np.abs(u) - 2 * np.log1p(np.exp(-2 * np.abs(u)))
    np.testing.assert_allclose(tanh_correction(jnp.asarray(u, jnp.float32)[:, None]), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures('float64')
def test_gradients_through_a_draw_are_finite_differences():
    noise = jnp.array([[0.3, -1.1], [0.8, 0.1]])

    def weighted(mean, log_std):
        action, log_prob = tanh_gaussian_from_noise(noise, mean, log_std)
        return (action * jnp.array([[0.7, -0.2]])).sum() + 0.3 * log_prob.sum()

    check_grads(jax.jit(weighted), (jnp.array([0.2, -0.4]), jnp.array([-0.5, 0.1])), order=1, modes=['rev'], rtol=1e-5)


def test_actions_on_the_wall_have_a_finite_density():
    log_prob = tanh_gaussian_log_prob(jnp.array([[1.0], [-1.0]]), jnp.zeros((2, 1)), jnp.zeros((2, 1)))
    assert np.isfinite(log_prob).all()
    np.testing.assert_allclose(log_prob[0], log_prob[1], rtol=1e-3)  # 1 - 1e-5 and its negative round alike to 1e-7
