"""A causal transformer over the tokens of one action, with a cache of keys and values for drawing them one after another.

The sequence is one token made from the observation, then one for each action dimension; the output at a place is the logits of
the next token. Blocks are GPT-2's: x + attention(LayerNorm(x)), x + MLP(LayerNorm(x)), and a LayerNorm at the end.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from ooorl.errors import UsageError
from ooorl.nn.networks import as_network
from ooorl.types import Array, Params

# GPT-2's, and its projections onto the residual stream divided by the root of their number.
_SMALL = nn.initializers.normal(0.02)


class Cache(NamedTuple):
    """Keys and values of the tokens so far, each `[layers, ..., T, heads, width / heads]`; later places are zeros."""

    keys: Array
    values: Array


@dataclass(frozen=True, eq=False, kw_only=True)
class TokenNetwork:
    """A model of T tokens given an observation.

    Attributes:
      init: `(key, observation[..., O], tokens[..., T]) -> params`.
      apply: `(params, observation[..., O], tokens[..., T], key=None) -> logits[..., T, bins]`, place t reading tokens before t
        only; the key drives dropout, without it there is none.
      first: `(params, observation[..., O]) -> (logits[..., bins], cache)` of token 0.
      following: `(params, cache, token[...], place) -> (logits[..., bins], cache)` of token `place` given the one before it.
    """

    init: Callable[..., Params]
    apply: Callable[..., Array]
    first: Callable[[Params, Array], tuple[Array, Cache]]
    following: Callable[[Params, Cache, Array, Array], tuple[Array, Cache]]


class _Block(nn.Module):
    num_heads: int
    width: int
    dropout: float
    out_init: Callable

    def setup(self):
        self.norms = [nn.LayerNorm(epsilon=1e-6) for _ in range(2)]
        self.into = nn.Dense(3 * self.width, kernel_init=_SMALL)
        self.out_of = nn.Dense(self.width, kernel_init=self.out_init)
        self.widen = nn.Dense(4 * self.width, kernel_init=_SMALL)
        self.narrow = nn.Dense(self.width, kernel_init=self.out_init)
        self.drop = nn.Dropout(self.dropout)

    def heads(self, x):
        """Queries, keys and values `[..., T, heads, width / heads]`."""
        parts = jnp.split(self.into(self.norms[0](x)), 3, axis=-1)
        return [part.reshape(*part.shape[:-1], self.num_heads, -1) for part in parts]

    def mixed(self, x, attended, train):
        """The rest of the block, given what attention found `[..., T, heads, width / heads]`."""
        x = x + self.drop(self.out_of(attended.reshape(x.shape)), deterministic=not train)
        return x + self.drop(self.narrow(nn.gelu(self.widen(self.norms[1](x)))), deterministic=not train)


def _attention(query, keys, values, visible):
    """`[..., S, H, D]` queries over `[..., T, H, D]`; visible `[S, T]`."""
    scores = jnp.einsum('...shd,...thd->...hst', query, keys) / query.shape[-1] ** 0.5
    scores = jnp.where(jnp.broadcast_to(visible, scores.shape), scores, -jnp.inf)
    return jnp.einsum('...hst,...thd->...shd', jax.nn.softmax(scores, axis=-1), values)


class _TokenModel(nn.Module):
    num_tokens: int
    num_bins: int
    num_layers: int
    num_heads: int
    width: int
    dropout: float

    def setup(self):
        self.prefix = [nn.Dense(self.width // 2), nn.Dense(self.width)]
        # A table of its own for each place, so that places need no embedding beside.
        # Parameters out of a checkpoint are numpy's, which a traced place cannot index.
        self.tables = jnp.asarray(self.param('tables', _SMALL, (self.num_tokens, self.num_bins, self.width)))
        out_init = nn.initializers.normal(0.02 / (2 * self.num_layers) ** 0.5)
        self.blocks = [_Block(self.num_heads, self.width, self.dropout, out_init) for _ in range(self.num_layers)]
        self.norm = nn.LayerNorm(epsilon=1e-6)
        self.head = [nn.Dense(self.width), nn.Dense(self.num_bins, kernel_init=_SMALL)]

    def start(self, observation):
        """The first token, from the observation: `[..., 1, width]`."""
        return self.prefix[1](nn.elu(self.prefix[0](observation)))[..., None, :]

    def logits(self, x):
        """Logits of the next token at every place of `[..., T, width]`."""
        return self.head[1](nn.elu(self.head[0](self.norm(x))))

    def __call__(self, observation, tokens, train=False):
        known = tokens[..., :-1]
        embedded = self.tables[jnp.broadcast_to(jnp.arange(self.num_tokens - 1), known.shape), known]
        x = jnp.concatenate([self.start(observation), embedded], axis=-2)
        visible = jnp.tril(jnp.ones((self.num_tokens, self.num_tokens), bool))
        for block in self.blocks:
            x = block.mixed(x, _attention(*block.heads(x), visible), train)
        return self.logits(x)

    def advance(self, x, cache, place):
        """One place `[..., 1, width]` through all blocks: logits `[..., bins]` and the cache with this place in it."""
        visible = jnp.arange(self.num_tokens)[None] <= place
        caches = []
        for number, block in enumerate(self.blocks):
            query, *new = block.heads(x)
            axis = x.ndim - 2
            stored = [jax.lax.dynamic_update_slice_in_dim(c[number], n, place, axis) for c, n in zip(cache, new, strict=True)]
            x = block.mixed(x, _attention(query, *stored, visible), False)
            caches.append(stored)
        return self.logits(x)[..., 0, :], Cache(*(jnp.stack(parts) for parts in zip(*caches, strict=True)))

    def first(self, observation):
        """Logits of token 0 and a cache that holds the observation."""
        shape = (self.num_layers, *observation.shape[:-1], self.num_tokens, self.num_heads, self.width // self.num_heads)
        empty = jnp.zeros(shape, observation.dtype)
        return self.advance(self.start(observation), Cache(empty, empty), 0)

    def following(self, cache, token, place):
        """Logits of token `place`, given the token before it."""
        return self.advance(self.tables[place - 1][token][..., None, :], cache, place)


def causal_transformer(
    num_tokens: int, num_bins: int, *, num_layers: int = 4, num_heads: int = 8, width: int = 256, dropout: float = 0.0
) -> TokenNetwork:
    """GPT-2-like decoder of `num_tokens` tokens of `num_bins` values each.

    The observation passes through a two-layer ELU network, logits come from another one; each place has its own table of
    embeddings. Dropout acts on what each half block adds.

    Raises:
      UsageError: if the width cannot be shared out over the heads.
    """
    if width % num_heads:
        raise UsageError(f'width must be a multiple of num_heads, {num_heads}; got {width}')
    module = _TokenModel(num_tokens, num_bins, num_layers, num_heads, width, dropout)
    whole = as_network(module)
    return TokenNetwork(
        init=whole.init,
        apply=whole.apply,
        first=lambda params, observation: module.apply(params, observation, method='first'),
        following=lambda params, *args: module.apply(params, *args, method='following'),
    )
