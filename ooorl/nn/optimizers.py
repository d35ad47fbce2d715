"""Optimiser states wherever they lie inside an agent's state: started anew, or looked at."""

import jax
import numpy as np

from ooorl.types import State


def _is_optimizer(node) -> bool:
    return type(node).__module__.partition('.')[0] == 'optax'


def restarted(state: State, fresh: State) -> State:
    """`state` with every optimiser state in it taken from `fresh`, a state of the same agent."""
    return jax.tree.map(lambda old, new: new if _is_optimizer(old) else old, state, fresh, is_leaf=_is_optimizer)


def optimizer_states(state: State) -> list:
    """Every optimiser state in `state`, whose leaves may be arrays or shapes."""
    return [node for node in jax.tree.leaves(state, is_leaf=_is_optimizer) if _is_optimizer(node)]


def adams(state: State) -> list:
    """The state of every Adam in `state`, without the first moments."""
    nodes = jax.tree.leaves(state, is_leaf=lambda node: hasattr(node, 'nu'))
    return [node._replace(mu=()) for node in nodes if hasattr(node, 'nu')]


def moments(state: State) -> tuple[np.ndarray, np.ndarray]:
    """Steps taken and mean second moment of every Adam of more than one parameter, each `[optimisers]`, possibly none."""
    found = [adam for adam in jax.device_get(adams(state)) if _size(adam.nu) > 1]
    counts, means = [adam.count for adam in found], [_mean(adam.nu) for adam in found]
    return np.asarray(counts, np.float32), np.asarray(means, np.float32)


def _size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _mean(tree):
    return sum(leaf.sum() for leaf in jax.tree.leaves(tree)) / _size(tree)
