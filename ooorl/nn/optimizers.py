"""Optimiser states wherever they lie inside an agent's state: started anew, or looked at."""

import jax
import jax.numpy as jnp

from ooorl.types import Array, State


def _is_optimizer(node) -> bool:
    return type(node).__module__.partition('.')[0] == 'optax'


def restarted(state: State, fresh: State) -> State:
    """`state` with every optimiser state in it taken from `fresh`, a state of the same agent."""
    return jax.tree.map(lambda old, new: new if _is_optimizer(old) else old, state, fresh, is_leaf=_is_optimizer)


def moments(state: State) -> tuple[Array, Array]:
    """Steps taken and mean second moment of every Adam of more than one parameter, each `[optimisers]`, possibly none."""
    nodes = jax.tree.leaves(state, is_leaf=lambda node: hasattr(node, 'nu'))
    adams = [node for node in nodes if hasattr(node, 'nu') and _size(node.nu) > 1]
    if not adams:
        return jnp.zeros(0), jnp.zeros(0)
    return jnp.stack([jnp.asarray(adam.count, jnp.float32) for adam in adams]), jnp.stack([_mean(adam.nu) for adam in adams])


def _size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _mean(tree):
    return sum(leaf.sum() for leaf in jax.tree.leaves(tree)) / _size(tree)
