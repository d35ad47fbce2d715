"""Noise levels, preconditioning and samplers, against closed forms for Gaussian data and recorded schedules."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ooorl.errors import UsageError
from ooorl.nn import diffusion

MEAN, STD = 0.3, 0.2  # of the data in the closed forms


def _best_guess(x, level):
    """E[x0 | x] for x0 ~ N(MEAN, STD^2)."""
    gain = level.alpha * STD**2 / (level.alpha**2 * STD**2 + level.sigma**2)
    return MEAN + gain * (x - level.alpha * MEAN)


def _at(levels, place):
    return jax.tree.map(lambda leaf: leaf[place], levels)


def test_schedules_as_recorded(golden_dir):
    arrays = golden.load(golden_dir, 'beta_schedules')
    for name, recorded in arrays.items():
        schedule, num_levels = name.split('/T')
        # The recorded cosine was made in float32.
        np.testing.assert_allclose(diffusion.betas(schedule, int(num_levels)), recorded, rtol=1e-5, atol=3e-6, err_msg=name)


def test_a_vp_schedule_leaves_the_same_noise_for_any_number_of_levels():
    for num_levels in (3, 5, 40):
        levels = diffusion.ddpm_levels(diffusion.betas('vp', num_levels))
        # exp(-0.1 - (10 - 0.1) / 2)
        np.testing.assert_allclose(levels.alpha[-1] ** 2, np.exp(-5.05), rtol=1e-12)
    np.testing.assert_allclose(diffusion.ddpm_levels(diffusion.betas('cosine', 5)).alpha[-1] ** 2, 9.4e-5, rtol=1e-2)
    with pytest.raises(UsageError, match='quadratic'):
        diffusion.betas('quadratic', 5)


def test_levels_of_karras():
    # rho 7, 80 levels from 80 to 0.02, noisiest first.
    sigma = diffusion.karras_sigmas(80, low=0.02, high=80.0, rho=7.0)[::-1]
    expected = {0: 80.0, 1: 75.20, 2: 70.66, 10: 42.02, 27: 12.01, 40: 3.859, 54: 0.885, 70: 0.1001, 78: 0.02439, 79: 0.02}
    for number, value in expected.items():
        np.testing.assert_allclose(sigma[number], value, rtol=6e-4)


def test_preconditioning_keeps_inputs_and_targets_at_unit_variance(float64):
    sigma = np.array([0.02, 0.5, 1.0, 80.0])
    levels = diffusion.edm_levels(sigma, sigma_data=0.5)
    np.testing.assert_allclose(_at(levels, 2)[3:6], [0.2, 0.4472136, 0.8944272], rtol=1e-6)
    np.testing.assert_allclose(levels.scale**2 * (sigma**2 + 0.25), 1.0, rtol=1e-12)
    np.testing.assert_allclose(0.25 * levels.from_data**2 + levels.from_noise**2, 1.0, rtol=1e-12)
    ddpm = diffusion.ddpm_levels(diffusion.betas('vp', 4))
    data, noise = np.array([0.7]), np.array([-1.3])
    for table in (levels, ddpm):
        for place in range(4):
            level = _at(table, place)
            # A network that hits its target guesses the data.
            target = level.from_data * data + level.from_noise * noise
            guess = diffusion.denoised(lambda x, time, t=target: t, level, diffusion.noised(level, data, noise))
            np.testing.assert_allclose(guess, data, rtol=1e-9)


def test_the_loss_is_edms_weighted_one(float64):
    level = _at(diffusion.edm_levels(np.array([0.7])), 0)
    data, noise = np.array([0.4, -0.2]), np.array([0.3, 1.1])

    def network(x, time):
        return jnp.tanh(x) + time

    guess = diffusion.denoised(network, level, data + 0.7 * noise)
    weight = (0.7**2 + 0.25) / (0.7 * 0.5) ** 2
    loss = diffusion.denoising_loss(network, level, data, noise)
    np.testing.assert_allclose(loss, weight * ((guess - data) ** 2).sum(), rtol=1e-12)


# Halving the steps divides the error by 2, 4, 4.
@pytest.mark.parametrize('sampler, ratio', [('ddim', 2.0), ('dpm_solver', 4.0), ('heun', 4.0)])
def test_deterministic_samplers_converge_at_their_order(float64, sampler, ratio):
    start = 80.0 * jnp.array([[-1.5], [0.2], [1.0]])

    def error(num):
        levels = diffusion.edm_levels(diffusion.karras_sigmas(num, low=0.02, high=80.0))
        # Along the flow of the ODE (x - mean) / (deviation of x) stays what it is.
        least = 0.02 * (start - MEAN) / np.hypot(STD, 80.0) * np.hypot(STD, 0.02) / 0.02 + MEAN
        exact = _best_guess(least, _at(levels, 0))
        if sampler == 'heun':
            found = diffusion.heun(_best_guess, levels, start)
        else:
            steps = diffusion.deterministic_steps(levels, order=2 if sampler == 'dpm_solver' else 1)
            found = diffusion.run_steps(_best_guess, steps, start)
        return float(abs(found - exact).max())

    errors = [error(num) for num in (80, 160, 320)]
    assert errors[-1] < 4e-3
    for coarse, fine in zip(errors, errors[1:], strict=False):
        assert ratio * 0.85 < coarse / fine < ratio * 1.2


def test_one_step_of_each_sampler_by_hand(float64):
    # From (alpha, sigma) = (0.6, 0.8) to (0.8, 0.6), then clean; the guess is always 0.5.
    levels = diffusion.ddpm_levels(np.array([0.36, 1.0 - 0.36 / 0.64]))
    np.testing.assert_allclose([levels.alpha, levels.sigma], [[0.8, 0.6], [0.6, 0.8]], rtol=1e-12)
    x = jnp.array([1.0])
    seen = []

    def denoise(x, level):
        jax.debug.callback(lambda x: seen.append(float(x[0])), x, ordered=True)
        return jnp.full_like(x, 0.5)

    # n = (1 - 0.3) / 0.8 = 0.875 and x' = 0.8 * 0.5 + 0.6 * 0.875.
    ended = diffusion.run_steps(denoise, diffusion.deterministic_steps(levels), x)
    np.testing.assert_allclose(ended, 0.5, rtol=1e-12)
    # beta = 1 - 0.36 / 0.64 = 0.4375; the mean is (0.8 * beta * 0.5 + sqrt(1 - beta) * 0.36 * 1) / 0.64.
    steps = diffusion.ancestral_steps(levels, variance='posterior')
    diffusion.run_steps(denoise, steps, x, jnp.array([[2.0]]))
    mean, std = (0.8 * 0.4375 * 0.5 + 0.75 * 0.36) / 0.64, (0.4375 * 0.36 / 0.64) ** 0.5
    diffusion.run_steps(denoise, diffusion.ancestral_steps(levels, variance='beta'), x, jnp.array([[2.0]]), clip=True)
    jax.effects_barrier()
    np.testing.assert_allclose(seen, [1.0, 0.925, 1.0, mean + 2.0 * std, 1.0, 1.0], rtol=1e-12)
    np.testing.assert_allclose(steps.noise, [std, 0.0], rtol=1e-12)
    np.testing.assert_allclose(diffusion.ancestral_steps(levels, variance='beta').noise, [0.4375**0.5, 0.0], rtol=1e-12)


def test_the_reverse_chain_keeps_the_marginals_of_the_noising_process():
    levels = diffusion.ddpm_levels(diffusion.betas('cosine', 6))
    alpha, sigma = (np.append(leaf[::-1], end) for leaf, end in ((levels.alpha, 1.0), (levels.sigma, 0.0)))
    # Data at one point m: with variance 'posterior' N(alpha m, sigma^2) becomes N(alpha' m, sigma'^2), to the end.
    steps = diffusion.ancestral_steps(levels, variance='posterior')
    np.testing.assert_allclose(steps.keep * alpha[:-1] + steps.toward, alpha[1:], rtol=1e-10)
    np.testing.assert_allclose((steps.keep * sigma[:-1]) ** 2 + steps.noise**2, sigma[1:] ** 2, rtol=1e-10, atol=1e-15)
    # Data N(0, 1), whose best guess is alpha x: with variance 'beta' N(0, 1) stays N(0, 1) until the last step, the guess itself.
    steps = diffusion.ancestral_steps(levels, variance='beta')
    variance = (steps.keep + steps.toward * alpha[:-1]) ** 2 + steps.noise**2
    np.testing.assert_allclose(variance, [*np.ones(5), alpha[-2] ** 2], rtol=1e-10)
    # The same where levels are left out: of 5 .. 0 those at 5, 2, 0 remain.
    steps = diffusion.ancestral_steps(diffusion.spaced(levels, 3), variance='beta')
    variance = (steps.keep + steps.toward * alpha[[0, 3, 5]]) ** 2 + steps.noise**2
    np.testing.assert_allclose(variance[:2], 1.0, rtol=1e-10)


def test_fewer_levels_are_a_selection_with_both_ends():
    levels = diffusion.ddpm_levels(diffusion.betas('vp', 9))
    np.testing.assert_array_equal(diffusion.spaced(levels, 3).time, [0.0, 4.0, 8.0])
    np.testing.assert_array_equal(diffusion.spaced(levels, 9).time, levels.time)
    np.testing.assert_array_equal(diffusion.spaced(levels, 1).time, [8.0])


def test_eulers_method_by_hand():
    def velocity(x, time):
        return 0.4 - x + 0.0 * time

    for steps, expected in ((1, 0.4), (2, 0.675), (10, 0.7835463)):
        np.testing.assert_allclose(diffusion.euler(velocity, jnp.array([1.5]), steps), [expected], rtol=1e-6)


def test_the_flow_between_gaussians_ends_at_the_data():
    # x_t = (1 - t) n + t x0 has deviation r(t); the velocity E[x0 - n | x_t] carries n to MEAN + STD n.
    def velocity(x, t):
        variance = (1.0 - t) ** 2 + t**2 * STD**2
        return MEAN + (t * STD**2 - (1.0 - t)) / variance * (x - t * MEAN)

    noise = jnp.array([[-1.5], [0.0], [2.0]])
    errors = [float(abs(diffusion.euler(velocity, noise, n) - (MEAN + STD * noise)).max()) for n in (40, 80, 160)]
    assert errors[-1] < 0.02
    assert all(1.7 < coarse / fine < 2.3 for coarse, fine in zip(errors, errors[1:], strict=False))


def test_the_flow_loss_by_hand():
    data, noise, time = jnp.array([[0.5, -0.5]]), jnp.array([[1.0, 2.0]]), jnp.array([0.25])
    # x_t = 0.75 n + 0.25 a = (0.875, 1.375); target a - n = (-0.5, -2.5).
    loss = diffusion.flow_loss(lambda x, t: x + t[..., None], data, noise, time)
    np.testing.assert_allclose(loss, [(0.875 + 0.25 + 0.5) ** 2 + (1.375 + 0.25 + 2.5) ** 2], rtol=1e-6)
