"""Densities as pure functions; log-probabilities are summed over the action axis."""

import jax
import jax.numpy as jnp

from ooorl.nn.losses import summed
from ooorl.types import Array

LOG_2PI = 1.8378770664093453


def gaussian_log_prob(action: Array, mean: Array, log_std: Array, known: Array | None = None) -> Array:
    """Log-density of a diagonal Gaussian: `[..., A] -> [...]`, `-log(2 pi) / 2` a dimension included.

    Of the dimensions that `known` marks, where it is given.
    """
    mean, log_std = jnp.broadcast_to(mean, action.shape), jnp.broadcast_to(log_std, action.shape)
    scaled = (action - mean) * jnp.exp(-log_std)
    return summed(-0.5 * scaled**2 - log_std - 0.5 * LOG_2PI, known)


def tanh_gaussian_sample(key, mean: Array, log_std: Array, num: int) -> tuple[Array, Array]:
    """Draws `a = tanh(u)`, u Gaussian, with the log-density of a: `([num, ..., A], [num, ...])`.

        log p(a) = log N(u; mean, std) - sum_i log(1 - tanh(u_i)^2)

    The correction is computed from u as `2 (log 2 - u - softplus(-2u))`, which keeps its digits where tanh saturates.
    """
    noise = jax.random.normal(key, (num, *mean.shape))
    return tanh_gaussian_from_noise(noise, mean, log_std)


def tanh_gaussian_from_noise(noise: Array, mean: Array, log_std: Array) -> tuple[Array, Array]:
    """The same from given standard-normal noise `[..., A]`; gradients pass through mean and log_std."""
    mean, log_std = jnp.broadcast_to(mean, noise.shape), jnp.broadcast_to(log_std, noise.shape)
    u = mean + jnp.exp(log_std) * noise
    log_normal = (-0.5 * noise**2 - log_std - 0.5 * LOG_2PI).sum(axis=-1)
    return jnp.tanh(u), log_normal - tanh_correction(u)


def tanh_correction(u: Array, known: Array | None = None) -> Array:
    """`sum_i log(1 - tanh(u_i)^2)` over the last axis, or over what `known` marks of it; stable for large |u|."""
    return summed(2.0 * (jnp.log(2.0) - u - jax.nn.softplus(-2.0 * u)), known)


def tanh_gaussian_log_prob(
    action: Array, mean: Array, log_std: Array, known: Array | None = None, *, margin: float = 1e-5
) -> Array:
    """Log-density of given actions in (-1, 1); they are first moved inside by `margin` (float32 cannot invert closer).

    Of the dimensions that `known` marks, where it is given.
    """
    u = jnp.arctanh(jnp.clip(action, -1.0 + margin, 1.0 - margin))
    return gaussian_log_prob(u, mean, log_std, known) - tanh_correction(u, known)
