"""Value heads: how raw critic outputs become values, and what draws them to a target."""

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr

from ooorl.errors import UsageError
from ooorl.types import ValueHead


def scalar_head() -> ValueHead:
    """One output is the value; the loss is the squared error `(raw - target)^2`, without a factor of one half."""
    return ValueHead(
        num_outputs=1,
        value=lambda raw: raw[..., 0],
        loss=lambda raw, target: (raw[..., 0] - jnp.broadcast_to(target, raw.shape[:-1])) ** 2,
    )


def hl_gauss_head(low: float, high: float, num_bins: int, *, sigma_ratio: float = 0.75) -> ValueHead:
    """A classification critic: cross-entropy to a Gaussian around the target, cut into bins.

        p_k = [Phi((e_{k+1} - y) / s) - Phi((e_k - y) / s)] / [Phi((high - y) / s) - Phi((low - y) / s)]

    with edges e_k evenly spaced on [low, high] and s = sigma_ratio * bin width. The value is the expectation of the
    bin centres under softmax(raw). Targets outside the support are clipped to it.

    Args:
      low: smallest value that can be represented.
      high: largest.
      num_bins: K.
      sigma_ratio: width of the target Gaussian in bins; 0.75 is the paper's.

    Raises:
      UsageError: if the support is empty or has fewer than two bins.

    Source: Farebrother et al., "Stop Regressing", arXiv:2403.03950. A public implementation divides by sqrt(2) s inside a
    normal CDF, which makes the targets sqrt(2) too wide; the variance identity in the tests rules that out.
    """
    if not low < high or num_bins < 2:
        raise UsageError(f'hl_gauss_head needs low < high and at least 2 bins; got low={low}, high={high}, num_bins={num_bins}')
    width = (high - low) / num_bins
    sigma = sigma_ratio * width

    def support():
        grid = jnp.linspace(low, high, num_bins + 1)
        return grid, (grid[:-1] + grid[1:]) / 2

    def probabilities(target):
        grid, _ = support()
        target = jnp.clip(target, low, high)[..., None]
        scaled = (jnp.broadcast_to(grid, (*target.shape[:-1], num_bins + 1)) - target) / sigma
        # The mass of a bin is taken from the tail in which it is small, where float32 keeps its digits.
        flipped = jnp.where(scaled[..., :-1] > 0, ndtr(-scaled[..., :-1]) - ndtr(-scaled[..., 1:]), 0.0)
        direct = jnp.where(scaled[..., :-1] > 0, 0.0, ndtr(scaled[..., 1:]) - ndtr(scaled[..., :-1]))
        mass = flipped + direct
        return mass / mass.sum(axis=-1, keepdims=True)

    def value(raw):
        _, centres = support()
        # Not a matrix product: accelerators round those to fewer digits than a value needs.
        return (jax.nn.softmax(raw, axis=-1) * jnp.broadcast_to(centres, raw.shape)).sum(axis=-1)

    def loss(raw, target):
        return -(jnp.broadcast_to(probabilities(target), raw.shape) * jax.nn.log_softmax(raw, axis=-1)).sum(axis=-1)

    return ValueHead(num_outputs=num_bins, value=value, loss=loss)
