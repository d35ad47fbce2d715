"""Networks as `Network(init, apply)`; the only file that knows flax."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import linen as nn

from ooorl.errors import UsageError
from ooorl.mapping import map_members
from ooorl.types import Array, Key, Params

ACTIVATIONS = {'relu': nn.relu, 'gelu': nn.gelu, 'tanh': nn.tanh, 'swish': nn.swish}


def orthogonal(gain: float) -> Callable:
    """Initialiser of a kernel `[I, O]`: columns (or rows, if fewer) orthonormal and uniformly distributed, times `gain`.

    Gram-Schmidt, each vector projected twice, instead of a QR factorisation: several batched QR kernels of jax 0.10 at once can
    wait for each other for ever on a CPU with few cores, and this also compiles faster.
    """

    def init(key, shape, dtype=jnp.float32):
        tall = (max(shape), min(shape))
        basis = _orthonormal(jax.random.normal(key, tall, dtype))
        return gain * (basis if shape == tall else basis.T)

    return init


@jax.jit  # compiled once a shape, also where a network is initialised outside of jit
def _orthonormal(gaussian):
    def add_column(number, basis):
        vector = gaussian[:, number]
        for _ in range(2):
            vector = vector - basis @ (basis.T @ vector)
        return basis.at[:, number].set(vector / jnp.linalg.norm(vector))

    return jax.lax.fori_loop(0, gaussian.shape[1], add_column, jnp.zeros_like(gaussian))


INITIALISERS = {
    'orthogonal': orthogonal(2.0**0.5),
    'xavier_uniform': nn.initializers.xavier_uniform(),
    'small': orthogonal(0.01),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Network:
    """A function with parameters.

    Attributes:
      init: `(key, *example_inputs) -> params`.
      apply: `(params, *inputs, key=None) -> output`; the key drives dropout, without it there is none.
    """

    init: Callable[..., Params]
    apply: Callable[..., Array]


class _MLP(nn.Module):
    hidden: Sequence[int]
    num_outputs: int
    activation: str
    layer_norm: str | None
    dropout: float
    kernel_init: str
    last_init: str
    unit_features: bool

    @nn.compact
    def __call__(self, *inputs, train=False):
        x = jnp.concatenate(inputs, axis=-1)
        for width in self.hidden:
            x = nn.Dense(width, kernel_init=INITIALISERS[self.kernel_init])(x)
            x = nn.LayerNorm(epsilon=1e-6)(x) if self.layer_norm == 'before' else x
            x = ACTIVATIONS[self.activation](x)
            x = nn.LayerNorm(epsilon=1e-6)(x) if self.layer_norm == 'after' else x
            x = nn.Dropout(self.dropout, deterministic=not train)(x) if self.dropout else x
        x = unit_length(x) if self.unit_features else x
        return nn.Dense(self.num_outputs, kernel_init=INITIALISERS[self.last_init])(x)


def unit_length(features: Array) -> Array:
    """`x / max(|x|, 1e-8)` over the last axis; zeros stay zeros, with a gradient of zeros."""
    # The maximum is taken under the root, whose slope at zero would be infinite.
    return features / jnp.sqrt(jnp.maximum((features**2).sum(axis=-1, keepdims=True), 1e-16))


def mlp(
    hidden: Sequence[int],
    num_outputs: int,
    *,
    activation: str = 'relu',
    layer_norm: str | None = None,
    dropout: float = 0.0,
    kernel_init: str = 'orthogonal',
    last_init: str | None = None,
    unit_features: bool = False,
) -> Network:
    """Dense layers over the concatenated inputs: `[..., I] -> [..., num_outputs]`.

    Args:
      hidden: widths of the hidden layers.
      num_outputs: width of the last layer, which is linear.
      activation: 'relu', 'gelu' (tanh form), 'tanh' or 'swish'.
      layer_norm: None, or 'before' / 'after' the activation of every hidden layer.
      dropout: rate after every activation; active only where `apply` is given a key.
      kernel_init: 'orthogonal' (gain sqrt 2), 'xavier_uniform' or 'small' (orthogonal, gain 0.01); biases start at 0.
      last_init: the same for the last layer; None repeats `kernel_init`.
      unit_features: the last hidden layer reaches the output divided by its norm (`unit_length`).

    Raises:
      UsageError: if `unit_features` is asked for without a hidden layer.
    """
    if unit_features and not hidden:
        raise UsageError('unit_features needs a hidden layer to divide by its norm; got none; add one or leave the setting out')
    module = _MLP(
        hidden=tuple(hidden), num_outputs=num_outputs, activation=activation, layer_norm=layer_norm, dropout=dropout,
        kernel_init=kernel_init, last_init=last_init or kernel_init, unit_features=unit_features,
    )

    def apply(params, *inputs, key: Key | None = None):
        rngs = None if key is None else {'dropout': key}
        return module.apply(params, *inputs, train=key is not None, rngs=rngs)

    return Network(init=module.init, apply=apply)


def ensemble(network: Network, num_members: int) -> Network:
    """`num_members` independent copies: `apply(params, *inputs) -> [E, ...]`; params is a tuple of E trees."""

    def init(key, *inputs):
        return tuple(network.init(member_key, *inputs) for member_key in jax.random.split(key, num_members))

    def apply(params, *inputs):
        return map_members(network.apply, params, *inputs)

    return Network(init=init, apply=apply)


def ensemble_q(hidden: Sequence[int], num_outputs: int = 1, *, num_members: int = 2, **settings) -> Network:
    """State-action values: `apply(params, observation[..., O], action[..., A]) -> [E, ..., K]`.

    Keyword settings are those of `mlp`.
    """
    return ensemble(mlp(hidden, num_outputs, **settings), num_members)
