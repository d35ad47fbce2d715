"""Value heads: identities that any correct head satisfies, and arithmetic done by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ooorl.errors import UsageError
from ooorl.interpreted import interpreted
from ooorl.nn.heads import hl_gauss_head, scalar_head


def _probabilities(head, target):
    # At logits 0 the gradient of sum_k -p_k log softmax_k in the logits is 1/K - p.
    raw = jnp.zeros((*target.shape, head.num_outputs))
    return 1.0 / head.num_outputs - interpreted(jax.grad(lambda raw: head.loss(raw, target).sum()))(raw)


def test_scalar_head_is_the_squared_error():
    raw, target = jnp.array([[1.0], [4.0]]), jnp.array([3.0, 3.5])
    # (1 - 3)^2 = 4 and (4 - 3.5)^2 = 0.25, no half.
    np.testing.assert_allclose(scalar_head().loss(raw, target), [4.0, 0.25], rtol=1e-6)
    np.testing.assert_array_equal(scalar_head().value(raw), [1.0, 4.0])


def test_hl_gauss_masses_by_hand():
    # Two bins on [-1, 1], sigma = 0.5 * 1. Target 0: each bin has half. Target 0.5: edges at z = -3, -1, 1, so the
    # masses are Phi(-1) - Phi(-3) = 0.1573053559 and Phi(1) - Phi(-1) = 0.6826894921; normalised 0.1872694 and 0.8127306.
    head = hl_gauss_head(-1.0, 1.0, 2, sigma_ratio=0.5)
    masses = _probabilities(head, jnp.array([0.0, 0.5]))
    np.testing.assert_allclose(masses, [[0.5, 0.5], [0.1872694, 0.8127306]], atol=1e-6)


def test_hl_gauss_masses_sum_to_one():
    head = hl_gauss_head(-10.0, 10.0, 51)
    masses = _probabilities(head, jnp.linspace(-12.0, 12.0, 37))
    np.testing.assert_allclose(masses.sum(axis=-1), 1.0, atol=1e-5)
    assert masses.min() > -1e-6


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('sigma_ratio', [0.75, 1.5])
def test_hl_gauss_mean_and_variance(sigma_ratio):
    # Rounding a Gaussian to bin centres keeps its mean and adds the variance w^2 / 12 of a uniform bin: sigma^2 + w^2 / 12.
    # For sigma >= 0.75 w the correction is 2 exp(-2 pi^2 sigma^2 / w^2) ~ 3e-5 of a bin.
    head, width = hl_gauss_head(-10.0, 10.0, 40, sigma_ratio=sigma_ratio), 0.5
    target = jnp.linspace(-1.0, 1.0, 21)
    masses, centres = _probabilities(head, target), jnp.linspace(-10 + width / 2, 10 - width / 2, 40)
    mean = (masses * centres[None]).sum(axis=-1)
    variance = (masses * (centres[None] - mean[:, None]) ** 2).sum(axis=-1)
    np.testing.assert_allclose(mean, target, atol=1e-4)
    np.testing.assert_allclose(variance, (sigma_ratio * width) ** 2 + width**2 / 12, rtol=2e-3)


def test_hl_gauss_value_of_its_own_target_is_the_target():
    head = hl_gauss_head(-10.0, 10.0, 51)
    target = jnp.linspace(-8.0, 8.0, 17)
    raw = jnp.log(jnp.maximum(_probabilities(head, target), 1e-12))
    np.testing.assert_allclose(head.value(raw), target, atol=1e-3)


def test_hl_gauss_clips_targets_to_the_support():
    head = hl_gauss_head(-1.0, 1.0, 11)
    raw = jax.random.normal(jax.random.key(0), (2, 11))
    loss = interpreted(head.loss)
    np.testing.assert_array_equal(loss(raw, jnp.array([-7.0, 7.0])), loss(raw, jnp.array([-1.0, 1.0])))


def test_hl_gauss_far_tails_are_finite_and_not_negative():
    head = hl_gauss_head(-100.0, 0.0, 128)
    target = jnp.array([-100.0, -99.9, -50.0, -0.1, 0.0])
    loss = interpreted(head.loss)(30.0 * jax.random.normal(jax.random.key(1), (5, 128)), target)
    assert np.isfinite(loss).all() and (loss >= 0).all()


def test_hl_gauss_loss_is_least_at_its_own_target():
    head = hl_gauss_head(-1.0, 1.0, 11)
    target = jnp.array([0.2, -0.4])
    raw = jnp.log(jnp.maximum(_probabilities(head, target), 1e-12))
    gradient = interpreted(jax.grad(lambda raw: head.loss(raw, target).sum()))(raw)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('head', [scalar_head(), hl_gauss_head(-2.0, 2.0, 7)], ids=['scalar', 'hl_gauss'])
def test_gradients_are_finite_differences(head):
    raw = jax.random.normal(jax.random.key(2), (3, head.num_outputs), jnp.float64)
    loss = interpreted(lambda raw: head.loss(raw, jnp.array([0.3, -0.5, 1.1])).sum())
    check_grads(loss, (raw,), order=2, modes=['rev'], rtol=1e-4)


@pytest.mark.parametrize('head', [scalar_head(), hl_gauss_head(-2.0, 2.0, 7)], ids=['scalar', 'hl_gauss'])
def test_an_ensemble_shares_its_target(head):
    raw = jax.random.normal(jax.random.key(3), (2, 3, head.num_outputs))
    target = jnp.array([0.3, -0.5, 1.1])
    loss = interpreted(head.loss)
    assert loss(raw, target).shape == interpreted(head.value)(raw).shape == (2, 3)
    np.testing.assert_allclose(loss(raw, target)[1], loss(raw[1], target), rtol=1e-6)


@pytest.mark.parametrize('arguments', [(1.0, 1.0, 11), (2.0, 1.0, 11), (0.0, 1.0, 1)])
def test_an_empty_support_is_refused(arguments):
    with pytest.raises(UsageError, match='low < high'):
        hl_gauss_head(*arguments)
