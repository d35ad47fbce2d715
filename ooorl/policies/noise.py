"""Actions made from noise: what policies with `decode` share."""

import jax
import jax.numpy as jnp

from ooorl.types import Array, Params


def drawing(decode, noise_dim: int):
    """`sample` and `mode` of a policy that makes its actions from noise: both draw standard-normal noise and decode it.

    Returns:
      the fields `sample`, `mode`, `decode` and `noise_dim` of a `Policy`; one with a better mode replaces it.
    """

    def sample(params: Params, observation: Array, key, num: int) -> Array:
        noise = jax.random.normal(key, (num, *observation.shape[:-1], noise_dim))
        return decode(params, observation, noise)

    def mode(params: Params, observation: Array, key) -> Array:
        return sample(params, observation, key, 1)[0]

    return {'sample': sample, 'mode': mode, 'decode': decode, 'noise_dim': noise_dim}


def beside(noise: Array, features: Array) -> Array:
    """`[..., F]` features repeated over the leading axes that noise `[*more, ..., D]` has more than they."""
    return jnp.broadcast_to(features, (*noise.shape[:-1], features.shape[-1]))


def over(numbers: Array, x: Array) -> Array:
    """`[...]` numbers, one for each `[..., A]` or for all of them, in the shape of `x`."""
    return jnp.broadcast_to(jnp.asarray(numbers)[..., None], x.shape)
