"""What the updates of several agents have in common."""

import jax
import jax.numpy as jnp
import optax

from ooorl.errors import UsageError
from ooorl.types import Array, Params, Transition


def apply_gradient(optimizer: optax.GradientTransformation, gradient: Params, opt_state, params: Params):
    """One optimiser step: `(params, opt_state)`."""
    updates, opt_state = optimizer.update(gradient, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def interleaved_slices(batch: Transition, num: int) -> Transition:
    """Cuts a batch `[num * B]` into `[num, B]`: slice k takes the rows k, k + num, k + 2 num, ...

    Not consecutive rows: a mixed batch lists its sources one after another, so such a slice would see only one.

    Raises:
      UsageError: at trace time, if the rows cannot be shared out evenly.
    """
    rows = batch.reward.shape[0]
    if rows % num:
        raise UsageError(f'{num} critic steps need a batch with a multiple of {num} rows; got {rows}; change batch_size')
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf.reshape(rows // num, num, *leaf.shape[1:]), 0, 1), batch)


def last_slice(slices: Transition) -> Transition:
    """The last of `[num, B]` slices."""
    return jax.tree.map(lambda leaf: leaf[-1], slices)


def bounded_normal(key, shape: tuple[int, ...], std: float, bound: float) -> Array:
    """Gaussian noise clipped to +-bound."""
    return jnp.clip(std * jax.random.normal(key, shape), -bound, bound)


def draw_members(key, num_members: int, num: int | None) -> Array | None:
    """Indices `[num]` of different ensemble members, or None for all of them."""
    if num is None or num == num_members:
        return None
    return jax.random.choice(key, num_members, (num,), replace=False)


def pick_members(params: tuple, members: Array | None) -> tuple:
    """The parameters of the drawn members; copying them is far cheaper than running members whose values are not used."""
    if members is None:
        return params
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    return tuple(jax.tree.map(lambda leaf, i=i: leaf[members[i]], stacked) for i in range(members.shape[0]))
