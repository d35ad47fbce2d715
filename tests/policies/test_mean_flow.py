"""Average velocities: the limit that is flow matching, and Gaussian data, whose paths are known."""

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.interpreted import interpreted
from ooorl.nn.diffusion import average_velocity, flow_loss, mean_flow_loss
from ooorl.policies.mean_flow import MeanFlowConfig, mean_flow_policy
from ooorl.types import Spec

MEAN, STD = 0.4, 0.25
TIME, UNTIL = jnp.array([0.0, 0.0, 0.2, 0.7]), jnp.array([1.0, 0.3, 0.9, 0.7])
X = jnp.array([[-1.3], [0.2], [0.9], [0.1]])


def _spread(time):
    return jnp.sqrt((1.0 - time) ** 2 + (STD * time) ** 2)


def _path(x, time, until):
    """Where the flow of noise N(0, 1) to data N(MEAN, STD^2) takes x: deviations from the mean t MEAN grow as the spread does."""
    return until * MEAN + (x - time * MEAN) * _spread(until) / _spread(time)


def _velocity(x, time):
    """dx / dt of that path."""
    slope = ((STD**2) * time - (1.0 - time)) / _spread(time) ** 2
    return MEAN + (x - time * MEAN) * slope


def _average(x, time, until):
    time, until = time[..., None], until[..., None]
    apart = jnp.where(until > time, until - time, 1.0)
    return jnp.where(until > time, (_path(x, time, until) - x) / apart, _velocity(x, time))


def test_the_true_average_satisfies_the_identity():
    made, target = average_velocity(_average, X, _velocity(X, TIME[:, None]), TIME, UNTIL)
    np.testing.assert_allclose(target, made, rtol=1e-5, atol=1e-6)


def test_gaussian_data_are_made_in_one_step():
    """The whole way from noise n is MEAN + STD n."""
    np.testing.assert_allclose(X + _average(X, TIME * 0.0, TIME * 0.0 + 1.0), MEAN + STD * X, rtol=1e-5)


def test_where_both_times_are_one_it_is_flow_matching():
    def average(x, t, r):
        return jnp.sin(3.0 * x) + jnp.cos(t + 2.0 * r)[..., None]

    data, noise = 0.5 * X[::-1], X
    known = jnp.array([[1.0], [0.0], [1.0], [1.0]])
    for extra in ((), (known,)):
        ours = mean_flow_loss(average, data, noise, TIME, TIME, *extra)
        theirs = flow_loss(lambda x, t: average(x, t, t), data, noise, TIME, *extra)
        np.testing.assert_array_equal(ours, theirs)


def test_the_target_by_hand():
    """u = x t + r, x = 1, t = 0.25, r = 0.75, v = 2: u = 1, du/dt = v t + x = 1.5, target 2.75, which passes no gradient on."""
    t, r = jnp.array([0.25]), jnp.array([0.75])
    noise, data = jnp.array([[0.5]]), jnp.array([[2.5]])  # x = 0.75 * 0.5 + 0.25 * 2.5

    def loss(scale):
        return mean_flow_loss(lambda x, t, r: scale * (x * t[:, None] + r[:, None]), data, noise, t, r)[0]

    value, slope = jax.value_and_grad(loss)(1.0)
    np.testing.assert_allclose(value, (1.0 - 2.75) ** 2, rtol=1e-6)
    np.testing.assert_allclose(slope, 2.0 * (1.0 - 2.75), rtol=1e-6)


def test_steps_are_shares_of_the_way():
    spec = Spec(observation_dim=1, action_dim=1)
    one, two = (mean_flow_policy(spec, MeanFlowConfig(hidden=(), num_steps=steps)) for steps in (1, 2))
    # u = 0.5 x + 0.25 t - r: inputs are x, observation, t and r, in this order.
    params = {'params': {'body': {'Dense_0': {'kernel': jnp.array([[0.5], [0.0], [0.25], [-1.0]]), 'bias': jnp.zeros(1)}}}}
    noise, observation = jnp.array([[0.4]]), jnp.zeros((1, 1))
    np.testing.assert_allclose(interpreted(one.decode)(params, observation, noise), [[0.4 + 0.2 - 1.0]], rtol=1e-6)
    half = 0.4 + 0.5 * (0.2 - 0.5)
    np.testing.assert_allclose(two.decode(params, observation, noise), [[half + 0.5 * (0.5 * half + 0.125 - 1.0)]], rtol=1e-6)
    # Seen as a denoiser it is the flow of u at r = t: x + sigma v at x / (1 + sigma), t = 1 / (1 + sigma).
    guess = one.denoise(params, observation, noise, jnp.array(1.0))
    np.testing.assert_allclose(guess, [[0.2 + 0.5 * (0.1 + 0.125 - 0.5)]], rtol=1e-6)
