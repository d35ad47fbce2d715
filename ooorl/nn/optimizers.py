"""Steps of optimisers and slow copies, traced once for all that look alike; optimiser states wherever they lie in an agent's.

What is traced once here is inlined: it leaves nothing of its own in a program. Adam's operations on each leaf, and a slow copy's,
take a third of the time in which an update is traced.
"""

import functools

import jax
import numpy as np
import optax

from ooorl.types import Array, Params, State


def adam(learning_rate: float | Array, **settings) -> optax.GradientTransformation:
    """`optax.adam`; equal settings give one and the same, whose steps are traced once for all parameters of the same shapes."""
    try:
        return _adam(learning_rate, **settings)
    except TypeError:  # what is traced has no name to be remembered by
        return optax.adam(learning_rate, **settings)


@functools.lru_cache(typed=True)
def _adam(learning_rate, **settings):
    made = optax.adam(learning_rate, **settings)
    return made._replace(update=jax.jit(made.update, inline=True))


moved = jax.jit(optax.apply_updates, inline=True)


def slow_copy(new: Params, old: Params, rate: float | Array) -> Params:
    """`rate * new + (1 - rate) * old`, leaf by leaf."""
    # The difference is formed here: of a rate that is a Python number it is not rounded twice.
    return _mixed(new, old, rate, 1.0 - rate)


@functools.partial(jax.jit, inline=True)
def _mixed(new, old, rate, kept):
    return jax.tree.map(lambda new, old: rate * new + kept * old, new, old)


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
