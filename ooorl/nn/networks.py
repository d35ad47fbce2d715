"""Networks as `Network(init, apply)`; this file, `conditional` and `transformer` are the only ones that know flax."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import linen as nn

from ooorl.errors import UsageError
from ooorl.mapping import Stacked, map_members, stacks_members
from ooorl.nn.conditional import ElementAttention, FiLM
from ooorl.types import Array, Key, Params
from ooorl.validation import check_choice, check_rate, check_widths

ACTIVATIONS = {'relu': nn.relu, 'gelu': nn.gelu, 'tanh': nn.tanh, 'swish': nn.swish, 'mish': jax.nn.mish, 'elu': nn.elu}
BLOCK = 16  # columns made orthonormal one after another; the rest is matrix products
TIME_BODIES = ('mlp', 'ln_resnet', 'film', 'attention')
TIME_FEATURES = ('plain', 'fourier', 'sinusoidal')


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
    """Columns in blocks: a block is freed of the columns before it by matrix products, then its own columns of each other."""
    rows, num = gaussian.shape
    if num <= BLOCK:
        return _gram_schmidt(_gram_schmidt(gaussian))  # of one block, the same
    width = BLOCK
    padded = jnp.pad(gaussian, ((0, 0), (0, -num % width)))

    def add_block(number, basis):
        block = jax.lax.dynamic_slice(padded, (0, number * width), (rows, width))
        for _ in range(2):  # twice is enough
            block = _gram_schmidt(block - basis @ (basis.T @ block))
        return jax.lax.dynamic_update_slice(basis, block, (0, number * width))

    return jax.lax.fori_loop(0, padded.shape[1] // width, add_block, jnp.zeros_like(padded))[:, :num]


def _gram_schmidt(vectors):
    def add_column(number, basis):
        vector = vectors[:, number] - basis @ (basis.T @ vectors[:, number])
        return basis.at[:, number].set(vector / jnp.maximum(jnp.linalg.norm(vector), 1e-30))

    return jax.lax.fori_loop(0, vectors.shape[1], add_column, jnp.zeros_like(vectors))


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
      activation: 'relu', 'gelu' (tanh form), 'tanh', 'swish', 'mish' or 'elu'.
      layer_norm: None, or 'before' / 'after' the activation of every hidden layer.
      dropout: rate after every activation; active only where `apply` is given a key.
      kernel_init: 'orthogonal' (gain sqrt 2), 'xavier_uniform' or 'small' (orthogonal, gain 0.01); biases start at 0.
      last_init: the same for the last layer; None repeats `kernel_init`.
      unit_features: the last hidden layer reaches the output divided by its norm (`unit_length`).

    Raises:
      UsageError: for a name that is none of these, a width of 0, a dropout of 1, or `unit_features` without a hidden layer.
    """
    check_widths(hidden=tuple(hidden))
    check_rate(dropout=dropout)
    check_choice(tuple(ACTIVATIONS), activation=activation)
    check_choice((None, 'before', 'after'), layer_norm=layer_norm)
    check_choice(tuple(INITIALISERS), kernel_init=kernel_init, last_init=last_init or kernel_init)
    if unit_features and not hidden:
        raise UsageError('unit_features needs a hidden layer to divide by its norm; got none; add one or leave the setting out')
    module = _MLP(
        hidden=tuple(hidden), num_outputs=num_outputs, activation=activation, layer_norm=layer_norm, dropout=dropout,
        kernel_init=kernel_init, last_init=last_init or kernel_init, unit_features=unit_features,
    )

    return as_network(module)


def as_network(module: nn.Module) -> Network:
    """A module whose call takes `train`, which is on where `apply` is given a key for dropout."""

    def apply(params, *inputs, key: Key | None = None):
        return _applied(module, params, inputs, key)

    return Network(init=functools.partial(_initial, module), apply=apply)


# Traced once for all members of an ensemble, targets, agents and losses; inlined, it leaves nothing of its own in a program.
@functools.partial(jax.jit, static_argnums=0, inline=True)
def _applied(module, params, inputs, key):
    rngs = None if key is None else {'dropout': key}
    return module.apply(params, *inputs, train=key is not None, rngs=rngs)


@functools.partial(jax.jit, static_argnums=0)  # traced once for all members of an ensemble and all agents with such a network
def _initial(module, key, *inputs):
    return module.init(key, *inputs)


class _LNResNet(nn.Module):
    width: int
    num_blocks: int
    num_outputs: int
    activation: str
    dropout: float
    kernel_init: str

    @nn.compact
    def __call__(self, *inputs, train=False):
        activation, kernel_init = ACTIVATIONS[self.activation], INITIALISERS[self.kernel_init]
        x = nn.Dense(self.width, kernel_init=kernel_init)(jnp.concatenate(inputs, axis=-1))
        for _ in range(self.num_blocks):
            y = nn.Dropout(self.dropout, deterministic=not train)(x) if self.dropout else x
            y = nn.Dense(4 * self.width, kernel_init=kernel_init)(nn.LayerNorm(epsilon=1e-6)(y))
            x = x + nn.Dense(self.width, kernel_init=kernel_init)(activation(y))
        # Without an activation before the head antmaze suffers.
        return nn.Dense(self.num_outputs, kernel_init=kernel_init)(activation(x))


class _TimeConditioned(nn.Module):
    body: nn.Module
    features: str
    num_features: int
    hidden: Sequence[int]
    activation: str
    kernel_init: str

    @nn.compact
    def __call__(self, x, observation, *times, train=False):
        # Once for all rows where they share one time, as in sampling. Several times share one encoder.
        if len(times) == 1:
            condition = self._condition(jnp.asarray(times[0])[..., None])
        else:
            condition = self._condition(jnp.stack(jnp.broadcast_arrays(*times), axis=-1)[..., None])
            condition = condition.reshape(*condition.shape[:-2], -1)
        inputs = (jnp.broadcast_to(part, (*x.shape[:-1], part.shape[-1])) for part in (x, observation, condition))
        return self.body(*inputs, train=train)

    def _condition(self, time):
        if self.features == 'plain':
            return time
        half = self.num_features // 2
        if self.features == 'fourier':
            frequencies = 2.0 * jnp.pi * self.param('frequencies', nn.initializers.normal(0.2), (half,))
        else:
            frequencies = jnp.exp(-jnp.log(10_000.0) * jnp.arange(half) / max(half - 1, 1))
        angle = time * frequencies.reshape((1,) * (time.ndim - 1) + (half,))
        x = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
        for number, width in enumerate(self.hidden):
            x = ACTIVATIONS[self.activation](x) if number else x
            x = nn.Dense(width, kernel_init=INITIALISERS[self.kernel_init])(x)
        return x


def ln_resnet(
    width: int, num_blocks: int, num_outputs: int, *, activation: str = 'mish', dropout: float = 0.0,
    kernel_init: str = 'xavier_uniform',
) -> Network:  # fmt: skip
    """Residual blocks over the concatenated inputs: `[..., I] -> [..., num_outputs]`.

        x = W i;   x <- x + W2 act(W1 LayerNorm(dropout(x))),   W1 four times as wide;   output W' act(x)

    Source: Hansen-Estruch et al., "IDQL", arXiv:2304.10573.
    """
    return as_network(_LNResNet(width, num_blocks, num_outputs, activation, dropout, kernel_init))


def time_conditioned(
    hidden: Sequence[int], num_outputs: int, *, body: str = 'mlp', activation: str = 'gelu', layer_norm: str | None = None,
    dropout: float = 0.0, time_features: str = 'plain', num_time_features: int = 64, time_hidden: Sequence[int] = (128, 128),
    kernel_init: str = 'xavier_uniform', num_heads: int = 4, elements: Sequence[Sequence[int]] = (),
) -> Network:  # fmt: skip
    """Noise or velocity at (x, observation, time): `apply(params, x[..., A], observation[..., O], time[...]) -> [..., outputs]`.

    Observation and time may lack leading axes of x. The body sees x, the observation and the features of time, in that order.
    With more times than one, `apply(params, x, observation, t, s)`, it sees the features of each, made by the same weights.

    Args:
      hidden: widths of an MLP's layers, or one width for each block of an LN-ResNet or of attention.
      num_outputs: width of the output.
      body: 'mlp' or 'ln_resnet', which see everything side by side, or `nn.conditional`'s 'film' and 'attention'.
      activation: of `mlp`, in body and time features.
      layer_norm: of `mlp` and 'film'; the others have their own.
      dropout: rate in the body; active only where `apply` is given a key.
      time_features: 'plain' (the number itself), 'sinusoidal' (fixed frequencies from 1 down to 1 / 10,000) or 'fourier' (learnt
        ones, begun as N(0, 0.2^2) turns per unit); the last two pass through a small MLP.
      num_time_features: cosines and sines together.
      time_hidden: widths of that MLP; its last layer is linear.
      kernel_init: of `mlp`.
      num_heads: of attention.
      elements: of attention, groups of the observation's columns; none: each column is one.

    Raises:
      UsageError: if blocks are asked for that differ in width, or heads that do not share it out.
    """
    check_blocks(body, hidden, num_heads)
    own = (ACTIVATIONS[activation], dropout, INITIALISERS[kernel_init])
    if body == 'ln_resnet':
        trunk = _LNResNet(hidden[0], len(hidden), num_outputs, activation, dropout, kernel_init)
    elif body == 'film':
        trunk = FiLM(tuple(hidden), num_outputs, own[0], layer_norm, *own[1:])
    elif body == 'attention':
        trunk = ElementAttention(hidden[0], len(hidden), num_outputs, num_heads, tuple(map(tuple, elements)), *own)
    else:
        trunk = _MLP(
            hidden=tuple(hidden), num_outputs=num_outputs, activation=activation, layer_norm=layer_norm, dropout=dropout,
            kernel_init=kernel_init, last_init=kernel_init, unit_features=False,
        )
    return as_network(_TimeConditioned(trunk, time_features, num_time_features, tuple(time_hidden), activation, kernel_init))


def check_blocks(body: str, hidden: Sequence[int], num_heads: int = 1) -> None:
    """Refuses blocks of different widths, a network without a layer to act on, and heads that do not share out a width."""
    if body in ('ln_resnet', 'attention') and len(set(hidden)) != 1:
        name = 'an LN-ResNet' if body == 'ln_resnet' else 'attention'
        raise UsageError(f'{name} needs one width, given once for each of its blocks; got hidden = {list(hidden)}')
    if body == 'film' and not hidden:
        raise UsageError('FiLM needs a hidden layer to scale and shift; got none; add one')
    if body == 'attention' and hidden[0] % num_heads:
        raise UsageError(f'the width of attention must be a multiple of num_heads, {num_heads}; got {hidden[0]}')


def ensemble(network: Network, num_members: int) -> Network:
    """`num_members` independent copies: `apply(params, *inputs) -> [E, ...]`.

    `params` is a tuple of E trees, or where `mapping.stacks_members` says so (asked once, here) one `mapping.Stacked` tree.
    """
    stacked = num_members > 1 and stacks_members()

    def init(key, *inputs):
        keys = jax.random.split(key, num_members)
        if stacked:
            return Stacked(jax.vmap(lambda member_key: network.init(member_key, *inputs))(keys), num_members)
        return tuple(network.init(member_key, *inputs) for member_key in keys)

    def apply(params, *inputs):
        return map_members(network.apply, params, *inputs)

    return Network(init=init, apply=apply)


def ensemble_q(hidden: Sequence[int], num_outputs: int = 1, *, num_members: int = 2, **settings) -> Network:
    """State-action values: `apply(params, observation[..., O], action[..., A]) -> [E, ..., K]`.

    Keyword settings are those of `mlp`.
    """
    return ensemble(mlp(hidden, num_outputs, **settings), num_members)
