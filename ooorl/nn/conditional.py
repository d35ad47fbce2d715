"""Bodies of a noise or velocity network that take the observation as a condition: FiLM, and attention on its elements.

Both see x `[..., A]`, the observation `[..., O]` and the features of time `[..., T]` (`networks.time_conditioned`).

FiLM: the layers read x alone, and the rest scales and shifts what they make,

    c = act(W_c [observation, time]),   h <- act((1 + s_i(c)) * (W_i h + b_i) + t_i(c)),   s_i and t_i linear in c and begun as 0,

so that at its beginning it is the unconditioned network of x, and a factor of the observation acts by products.

Attention: each element e of the observation (a group of its columns: a position, a goal, a mass) is a token with weights and an
embedding of its own; x and time ask, the tokens answer, in pre-norm residual blocks with `num_heads` heads:

    token_e = sum_{c in e} o_c K_c + b_e,   h = W [x, time],   h <- h + W_o sum_e softmax_e(q(h) . k_e / sqrt(d)) v_e,
    h <- h + W_2 act(W_1 LayerNorm(h)),     q of LayerNorm(h), k and v of the tokens

Elements are a set: listed in another order, with their embeddings, they make the same network.

Source: Perez et al., "FiLM", arXiv:1709.07871, and its use in diffusion policies, Chi et al., arXiv:2303.04137; attention on the
elements of a state: "State Combinatorial Generalization In Decision Making With Conditional Diffusion Models", arXiv:2501.13241,
whose code is not public. Deviations: there a U-Net makes trajectories whose steps ask one by one; here an MLP makes an action, or
a chunk, that asks as one.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn


class FiLM(nn.Module):
    """An MLP of x whose layers the observation and the features of time scale and shift; see the top of this file."""

    hidden: Sequence[int]
    num_outputs: int
    activation: Callable
    layer_norm: str | None
    dropout: float
    kernel_init: Callable

    @nn.compact
    def __call__(self, x, observation, condition, train=False):
        """`[..., num_outputs]`."""
        given = jnp.concatenate([observation, condition], axis=-1)
        given = self.activation(nn.Dense(self.hidden[0], kernel_init=self.kernel_init, name='condition')(given))
        for number, width in enumerate(self.hidden):
            x = nn.Dense(width, kernel_init=self.kernel_init, name=f'Dense_{number}')(x)
            x = nn.LayerNorm(epsilon=1e-6)(x) if self.layer_norm == 'before' else x
            made = nn.Dense(2 * width, kernel_init=nn.initializers.zeros, name=f'film_{number}')(given)
            scale, shift = jnp.split(made, 2, axis=-1)
            x = self.activation((1.0 + scale) * x + shift)
            x = nn.LayerNorm(epsilon=1e-6)(x) if self.layer_norm == 'after' else x
            x = nn.Dropout(self.dropout, deterministic=not train)(x) if self.dropout else x
        return nn.Dense(self.num_outputs, kernel_init=self.kernel_init, name=f'Dense_{len(self.hidden)}')(x)


class ElementAttention(nn.Module):
    """Residual blocks of x and time that attend to the elements of the observation; see the top of this file.

    `elements` are groups of the observation's columns; none: each column is one.
    """

    width: int
    num_blocks: int
    num_outputs: int
    num_heads: int
    elements: tuple[tuple[int, ...], ...]
    activation: Callable
    dropout: float
    kernel_init: Callable

    @nn.compact
    def __call__(self, x, observation, condition, train=False):
        """`[..., num_outputs]`."""
        tokens = self._tokens(observation)
        x = self._dense(self.width, 'start')(jnp.concatenate([x, condition], axis=-1))
        for number in range(self.num_blocks):
            x = x + self._dense(self.width, f'out_{number}')(self._attended(x, tokens, number))
            y = nn.Dropout(self.dropout, deterministic=not train)(x) if self.dropout else x
            y = self.activation(self._dense(2 * self.width, f'widen_{number}')(nn.LayerNorm(epsilon=1e-6)(y)))
            x = x + self._dense(self.width, f'narrow_{number}')(y)
        return self._dense(self.num_outputs, 'end')(self.activation(x))

    def _dense(self, width, name):
        return nn.Dense(width, kernel_init=self.kernel_init, name=name)

    def _tokens(self, observation):
        """`[..., elements, width]`."""
        size = observation.shape[-1]
        elements = self.elements or tuple((column,) for column in range(size))
        belongs = np.array([[float(column in element) for column in range(size)] for element in elements], np.float32)
        kernel = self.param('kernel', self.kernel_init, (size, self.width))
        embedding = self.param('embedding', nn.initializers.normal(1.0), (len(elements), self.width))
        tokens = jnp.einsum('...c,ec,cw->...ew', observation, belongs, kernel)
        return tokens + jnp.broadcast_to(embedding, tokens.shape)

    def _attended(self, x, tokens, number):
        def heads(rows):
            return rows.reshape(*rows.shape[:-1], self.num_heads, -1)

        query = heads(self._dense(self.width, f'query_{number}')(nn.LayerNorm(epsilon=1e-6)(x)))
        keys, values = (heads(self._dense(self.width, f'{name}_{number}')(tokens)) for name in ('key', 'value'))
        scores = jnp.einsum('...hd,...ehd->...he', query, keys) / query.shape[-1] ** 0.5
        return jnp.einsum('...he,...ehd->...hd', jax.nn.softmax(scores, axis=-1), values).reshape(x.shape)
