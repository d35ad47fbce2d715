"""Networks that take the observation as a condition: exact limits and one attention worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ooorl.errors import UsageError
from ooorl.nn.networks import mlp, time_conditioned

X = jax.random.normal(jax.random.key(0), (5, 2))
OBSERVATION = jax.random.normal(jax.random.key(1), (5, 3))
TIME = jnp.linspace(0.0, 1.0, 5)
INPUTS = (X, OBSERVATION, TIME)
KEY = jax.random.key(2)


def _body(params):
    return params['params']['body']


def _out(network, params, *inputs):
    """Compiled: in single operations it would take several times as long."""
    return np.asarray(jax.jit(network.apply)(params, *(inputs or INPUTS)))


def _with(params, **changes):
    return {'params': {**params['params'], 'body': {**_body(params), **changes}}}


def _film(**settings):
    network = time_conditioned((8, 6), 2, body='film', **settings)
    return network, network.init(KEY, *INPUTS)


@pytest.mark.parametrize('layer_norm', [None, 'before'])
def test_film_begins_as_the_unconditioned_network(layer_norm):
    network, params = _film(layer_norm=layer_norm)
    plain = mlp((8, 6), 2, activation='gelu', layer_norm=layer_norm)
    own = {name: leaf for name, leaf in _body(params).items() if name.startswith(('Dense', 'LayerNorm'))}
    np.testing.assert_array_equal(_out(network, params), _out(plain, {'params': own}, X))
    moved = _with(params, film_0=jax.tree.map(lambda leaf: leaf + 0.1, _body(params)['film_0']))
    made = [_out(network, moved, X, observation, TIME) for observation in (OBSERVATION, OBSERVATION + 1.0)]
    assert (np.abs(made[0] - made[1]) > 1e-4).any()


def test_film_scales_and_shifts_by_hand():
    """One layer: act((1 + s) W x + t), with s and t its biases alone."""
    network = time_conditioned((2,), 1, body='film', activation='relu')
    zeros = jnp.zeros((4, 2))
    layers = {
        'condition': {'kernel': zeros, 'bias': jnp.zeros(2)},
        'Dense_0': {'kernel': jnp.eye(2), 'bias': jnp.zeros(2)},
        'film_0': {'kernel': jnp.zeros((2, 4)), 'bias': jnp.array([1.0, -2.0, 0.5, 3.0])},
        'Dense_1': {'kernel': jnp.ones((2, 1)), 'bias': jnp.zeros(1)},
    }
    made = _out(network, {'params': {'body': layers}}, jnp.array([[3.0, 1.0]]), jnp.ones((1, 3)), jnp.ones(1))
    np.testing.assert_allclose(made, [[2 * 3 + 0.5 + (-1 + 3)]])  # scales 2 and -1, shifts 0.5 and 3


def _attention(elements=(), num_heads=2):
    network = time_conditioned((8,), 2, body='attention', elements=elements, num_heads=num_heads)
    return network, network.init(KEY, *INPUTS)


def test_elements_are_a_set():
    network, params = _attention(((0,), (1, 2)))
    turned, _ = _attention(((1, 2), (0,)))
    swapped = _with(params, embedding=_body(params)['embedding'][::-1])
    expected, act = _out(network, params), jax.jit(turned.apply)
    np.testing.assert_allclose(act(swapped, *INPUTS), expected, rtol=1e-5, atol=1e-6)
    assert (np.abs(act(params, *INPUTS) - expected) > 1e-3).any()
    # Columns listed in another order, with their weights, are the same elements.
    order = np.array([2, 0, 1])
    moved, _ = _attention(((1,), (2, 0)))
    columns = _with(params, kernel=_body(params)['kernel'][order])
    made = _out(moved, columns, X, OBSERVATION[:, order], TIME)
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-6)
    one, _ = _attention(((0,), (1, 2)), num_heads=1)
    assert (np.abs(_out(one, params) - expected) > 1e-4).any()  # heads share out the width


def test_one_element_is_attended_to_whatever_is_asked():
    network, params = _attention(((0, 1, 2),))
    asked = _with(params, query_0=jax.tree.map(lambda leaf: leaf + 1.0, _body(params)['query_0']))
    act = jax.jit(network.apply)
    np.testing.assert_allclose(act(asked, *INPUTS), act(params, *INPUTS), rtol=1e-6)


def test_attention_by_hand():
    """Two tokens (o_0, 0) and (0, o_1) with keys ln 3 and 0 for the query 1: weights 3/4 and 1/4."""
    network = time_conditioned((2,), 2, body='attention', num_heads=1, activation='relu')
    def dense(*rows):
        return {'kernel': jnp.zeros(rows), 'bias': jnp.zeros(rows[1])}

    body = {
        'kernel': jnp.eye(2), 'embedding': jnp.array([[np.log(3.0) * 2**0.5, 0.0], [0.0, 0.0]]),
        'start': dense(3, 2), 'LayerNorm_0': {'scale': jnp.ones(2), 'bias': jnp.zeros(2)},
        'LayerNorm_1': {'scale': jnp.ones(2), 'bias': jnp.zeros(2)},
        'query_0': {'kernel': jnp.zeros((2, 2)), 'bias': jnp.array([1.0, 0.0])},
        'key_0': {'kernel': jnp.eye(2), 'bias': jnp.zeros(2)}, 'value_0': {'kernel': jnp.zeros((2, 2)), 'bias': jnp.zeros(2)},
        'out_0': {'kernel': jnp.eye(2), 'bias': jnp.zeros(2)}, 'widen_0': dense(2, 4), 'narrow_0': dense(4, 2),
        'end': {'kernel': jnp.eye(2), 'bias': jnp.zeros(2)},
    }  # fmt: skip
    body['value_0']['kernel'] = jnp.array([[4.0 / (np.log(3.0) * 2**0.5), 0.0], [0.0, 4.0]])
    made = _out(network, {'params': {'body': body}}, jnp.zeros((1, 2)), jnp.zeros((1, 2)), jnp.zeros(1))
    np.testing.assert_allclose(made, [[3.0, 0.0]], rtol=1e-6)  # 3/4 of the first value, (4, 0)


def test_blocks_that_cannot_be_made_are_refused():
    for settings, message in (
        ({'hidden': (8, 6), 'body': 'attention'}, 'attention needs one width'),
        ({'hidden': (6,), 'body': 'attention', 'num_heads': 4}, 'a multiple of num_heads, 4; got 6'),
        ({'hidden': (), 'body': 'film'}, 'FiLM needs a hidden layer'),
    ):
        with pytest.raises(UsageError, match=message):
            time_conditioned(settings.pop('hidden'), 2, **settings)
