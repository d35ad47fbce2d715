"""Batches and linear networks small enough to be worked out by hand."""

import functools

import chex
import jax
import jax.numpy as jnp

from ooorl.types import Transition

# A rate with which nothing moves: no setting may be 0, and in single precision this one is.
FROZEN = 1e-50


def random_batch(key, rows, *, observation_dim=3, action_dim=2, **extras):
    """A batch of noise in which every third row is terminal."""
    return _noise(key, rows, observation_dim, action_dim)._replace(extras=extras)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _noise(key, rows, observation_dim, action_dim):
    keys = jax.random.split(key, 4)
    return Transition(
        observation=jax.random.normal(keys[0], (rows, observation_dim)),
        action=jax.random.uniform(keys[1], (rows, action_dim), minval=-0.9, maxval=0.9),
        reward=jax.random.normal(keys[2], (rows,)),
        discount=jnp.where(jnp.arange(rows) % 3 == 0, 0.0, 1.0),
        next_observation=jax.random.normal(keys[3], (rows, observation_dim)),
    )


def one_row(*, observation, action, reward, discount, next_observation, **extras):
    """A batch of a single transition with one-dimensional observation and action."""
    return Transition(
        observation=jnp.array([[observation]]),
        action=jnp.array([[action]]),
        reward=jnp.array([reward]),
        discount=jnp.array([discount]),
        next_observation=jnp.array([[next_observation]]),
        extras={name: jnp.array([value]) for name, value in extras.items()},
    )


def linear(kernel, bias):
    """Parameters of an `mlp` without hidden layers: `kernel` [inputs][outputs] as nested lists, `bias` [outputs]."""
    return {'params': {'Dense_0': {'kernel': jnp.array(kernel, jnp.float32), 'bias': jnp.array(bias, jnp.float32)}}}


def trees_equal(left, right) -> bool:
    """Whether two pytrees have one structure and hold the same numbers bit for bit."""
    try:
        chex.assert_trees_all_equal(left, right)
    except AssertionError:
        return False
    return True


def blank(init):
    """The state `init(key)` would make, all zeros as fresh optimisers are; parameters are filled in by the caller."""
    shapes = jax.eval_shape(init, jax.random.key(0))
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
