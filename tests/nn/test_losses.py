"""Losses and targets against arithmetic done by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ooorl.nn.losses import awr_weight, backup, bounded, ensemble_value, expectile_loss
from ooorl.types import Transition


def _batch(reward, discount, **extras):
    reward = jnp.asarray(reward, jnp.float32)
    extras = {name: jnp.broadcast_to(jnp.asarray(value, jnp.float32), reward.shape) for name, value in extras.items()}
    return Transition(
        observation=jnp.zeros((*reward.shape, 1)), action=jnp.zeros((*reward.shape, 1)), reward=reward,
        discount=jnp.asarray(discount, jnp.float32), next_observation=jnp.zeros((*reward.shape, 1)), extras=extras,
    )


def test_expectile_loss_by_hand():
    # u = target - prediction. At 0.9: u = 2 is under-estimation, 0.9 * 4 = 3.6; u = -2 over-estimation, 0.1 * 4 = 0.4.
    np.testing.assert_allclose(expectile_loss(jnp.array([2.0, -2.0, 0.0]), 0.9), [3.6, 0.4, 0.0], rtol=1e-6)


def test_expectile_half_is_mean_regression():
    u = jnp.linspace(-3.0, 3.0, 13)
    np.testing.assert_allclose(2 * expectile_loss(u, 0.5), u**2, rtol=1e-6)


def test_expectile_is_the_fixed_point_of_two_points():
    # Values a = 1 and b = -1 equally often: tau (a - v) = (1 - tau)(v - b), so v = tau a + (1 - tau) b = 0.8 at 0.9.
    def gradient(v):
        return jax.grad(lambda v: expectile_loss(jnp.array([1.0, -1.0]) - v, 0.9).mean())(v)

    assert gradient(0.8) == pytest.approx(0.0, abs=1e-6)
    assert gradient(0.7) < 0 < gradient(0.9)


def test_expectile_loss_at_zero_has_no_gradient():
    assert jax.grad(expectile_loss)(0.0, 0.7) == 0.0


@pytest.mark.usefixtures('float64')
def test_expectile_gradient_is_the_finite_difference():
    u = jnp.array([-2.0, -0.5, 0.3, 1.7])  # away from the kink in the second derivative at 0
    check_grads(jax.jit(lambda u: expectile_loss(u, 0.7)), (u,), order=2, modes=['rev'], rtol=1e-5)


def test_awr_weight_by_hand():
    # exp(3 * 0.5) = 4.4816890703; exp(3 * -1) = 0.0497870684; exp(30) is capped at 100; exp(300) does not overflow.
    weight = awr_weight(jnp.array([0.5, -1.0, 10.0, 100.0]), 3.0, 100.0)
    np.testing.assert_allclose(weight, [4.48168907, 0.04978707, 100.0, 100.0], rtol=1e-6)


def test_awr_weight_has_no_slope_at_the_cap():
    gradient = jax.grad(lambda a: awr_weight(a, 3.0, 100.0))
    assert gradient(10.0) == 0.0
    assert gradient(0.5) == pytest.approx(3 * 4.48168907, rel=1e-6)


def test_backup_is_one_step_of_bellman():
    # 1 + 0.9 * 1 * 10 = 10; a terminal row keeps its reward: 2; a time-out (discount 1) bootstraps: -1 + 9 = 8.
    target = backup(_batch([1.0, 2.0, -1.0], [1.0, 0.0, 1.0]), jnp.full(3, 10.0), 0.9)
    np.testing.assert_allclose(target, [10.0, 2.0, 8.0], rtol=1e-6)


def test_backup_adds_the_bonus_after_clipping_also_on_terminal_rows():
    # Unclipped 10, 2, 8; clipped to [0, 5] they are 5, 2, 5; the bonus 0.5 then leaves the bounds: 5.5, 2.5, 5.5.
    batch = _batch([1.0, 2.0, -1.0], [1.0, 0.0, 1.0], bonus=0.5, value_low=0.0, value_high=5.0)
    np.testing.assert_allclose(backup(batch, jnp.full(3, 10.0), 0.9), [5.5, 2.5, 5.5], rtol=1e-6)


def test_backup_lowers_irreversible_rows_to_the_floor():
    # (1 - w) (clip(1 + 0.9 * 10) + 0.5) + w * (-3): at w = 0, 1, 0.5 that is 5.5, -3, 1.25.
    batch = _batch(
        [1.0, 1.0, 1.0], [1.0, 1.0, 1.0], bonus=0.5, value_low=0.0, value_high=5.0, irreversible=[0.0, 1.0, 0.5], floor=-3.0
    )
    np.testing.assert_allclose(backup(batch, jnp.full(3, 10.0), 0.9), [5.5, -3.0, 1.25], rtol=1e-6)


def test_backup_without_bounds_takes_irreversible_and_bonus():
    # 1 + 0.9 * 10 + 0.5 = 10.5; a quarter of the way to -2: 0.75 * 10.5 - 0.25 * 2 = 7.375.
    batch = _batch([1.0], [1.0], bonus=0.5, irreversible=0.25, floor=-2.0)
    np.testing.assert_allclose(backup(batch, jnp.array([10.0]), 0.9), [7.375], rtol=1e-6)


def test_backup_keeps_an_ensemble_axis():
    batch = _batch([1.0, 2.0], [1.0, 0.0], bonus=[0.0, 1.0], value_low=-1.0, value_high=5.0)
    # Members 2 and 10: rows 1 + 0.9 * 2 = 2.8 and min(10, 5) = 5; the terminal row is 2 + 1 for both.
    target = backup(batch, jnp.array([[2.0, 2.0], [10.0, 10.0]]), 0.9)
    np.testing.assert_allclose(target, [[2.8, 3.0], [5.0, 3.0]], rtol=1e-6)


def test_backup_gradient_is_gamma_times_discount():
    gradient = jax.grad(lambda v: backup(_batch([1.0, 2.0], [1.0, 0.0]), v, 0.9).sum())(jnp.ones(2))
    np.testing.assert_allclose(gradient, [0.9, 0.0], rtol=1e-6)


def test_bounded_does_nothing_without_bounds():
    values = jnp.array([-1e6, 1e6])
    assert bounded(_batch([0.0, 0.0], [1.0, 1.0]), values) is values
    batch = _batch([0.0, 0.0], [1.0, 1.0], value_low=-2.0, value_high=3.0)
    np.testing.assert_array_equal(bounded(batch, values), [-2.0, 3.0])


def test_the_value_of_an_ensemble_by_hand():
    q = jnp.array([[1.0, 5.0], [3.0, 2.0]])
    np.testing.assert_allclose(ensemble_value(q, 'min'), [1.0, 2.0])
    np.testing.assert_allclose(ensemble_value(q, 'mean'), [2.0, 3.5])
    np.testing.assert_allclose(ensemble_value(q, 'lower', 0.5), [2.0 - 0.5 * 1.0, 3.5 - 0.5 * 1.5])
    one = jax.grad(lambda q: ensemble_value(q, 'lower', 0.5).sum())(jnp.array([[2.0], [2.0]]))
    np.testing.assert_array_equal(one, [[0.5], [0.5]])  # finite where all members agree
    slope = jax.jit(jax.grad(lambda q: ensemble_value(q, 'min').sum()))(q)
    np.testing.assert_array_equal(slope, [[1.0, 0.0], [0.0, 1.0]])
