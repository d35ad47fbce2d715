"""Loops inside programs: metrics as rows, and loops that are done in parts of any length."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from ooorl.types import Array, Metrics


def loop_part(step: Callable, carry, inputs, first: Array, count: Array):
    """Steps `first` to `first + count - 1` of a loop `step(carry, input) -> (carry, row)` over `inputs`.

    Both numbers are traced: one program serves every part, and its body is the same whatever they are, so that how a loop is cut
    into parts changes no bit of any result.

    Returns:
      the carry, and rows `[len(inputs), ...]`, of which the first `count` count.
    """
    step = jax.jit(step)  # traced once for all the uses below
    example = jax.eval_shape(lambda carry, inputs: step(carry, jax.tree.map(lambda leaf: leaf[0], inputs)), carry, inputs)[1]
    length = jax.tree.leaves(inputs)[0].shape[0]
    rows = jax.tree.map(lambda leaf: jnp.zeros((length, *leaf.shape), leaf.dtype), example)

    def body(number, loop):
        carry, rows = loop
        carry, row = step(carry, jax.tree.map(lambda leaf: leaf[number], inputs))
        return carry, jax.tree.map(lambda every, one: every.at[number - first].set(one), rows, row)

    return jax.lax.fori_loop(first, first + count, body, (carry, rows))


def packed(metrics: Metrics) -> dict[tuple[str, ...], Array]:
    """Scalars by name as one vector under all of their names: a loop writes one row for them and not one number for each."""
    names = tuple(sorted(metrics))
    return {names: jnp.stack([jnp.asarray(metrics[name], jnp.float32) for name in names])} if names else {}


def unpacked(rows: Mapping[tuple[str, ...], Array]) -> Metrics:
    """What was `packed`, by name; the vectors may have got leading axes."""
    return {name: values[..., place] for names, values in rows.items() for place, name in enumerate(names)}
