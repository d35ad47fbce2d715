"""One function over many copies: whatever the order of work, the numbers are those of a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ooorl.mapping import index_seed, map_members, map_seeds

KEYS = jax.random.split(jax.random.key(0), 6)


def network(params, x):
    return {'y': jnp.tanh(x @ params['w'] + params['b'][None]), 'size': params['b'].sum()}


def params(key):
    return {'w': jax.random.normal(key, (3, 2)), 'b': jax.random.normal(key, (2,))}


@pytest.mark.parametrize('num', [1, 2, 5])
def test_members_are_stacked_in_their_order(num):
    members = tuple(params(key) for key in KEYS[:num])
    x = jnp.ones((4, 3))
    got = map_members(network, members, x)
    assert got['y'].shape == (num, 4, 2) and got['size'].shape == (num,)
    for number, member in enumerate(members):
        np.testing.assert_allclose(got['y'][number], network(member, x)['y'], rtol=1e-6)


@pytest.mark.parametrize('group', [None, 1, 2, 4, 8])
def test_seeds_in_groups_are_seeds_in_a_loop(group):
    stacked = jax.vmap(params)(KEYS)
    shared, scale = jnp.arange(12.0).reshape(4, 3), jnp.arange(6.0)

    def function(member, x, factor):
        return jax.tree.map(lambda leaf: leaf * factor, network(member, x))

    mapped = jax.jit(map_seeds(function, (0, None, 0), group=group))
    got = mapped(stacked, shared, scale)
    assert got['y'].shape == (6, 4, 2)
    for number, key in enumerate(KEYS):
        expected = function(params(key), shared, scale[number])
        # Products of matrices are summed in another order in a group: float32 rounding.
        np.testing.assert_allclose(got['y'][number], expected['y'], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(got['size'][number], expected['size'], rtol=1e-5)


def test_an_argument_may_be_empty_or_absent():
    got = map_seeds(lambda a, nothing, none: a + 1, (0, 0, None))(jnp.arange(3.0), {}, None)
    np.testing.assert_array_equal(got, [1, 2, 3])


def test_a_seed_can_be_taken_out():
    tree = {'a': np.arange(6).reshape(3, 2), 'b': (np.arange(3),)}
    one = index_seed(tree, 1)
    np.testing.assert_array_equal(one['a'], [2, 3])
    assert one['b'][0] == 1
