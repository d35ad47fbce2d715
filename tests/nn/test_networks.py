"""Networks: what their settings do, by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.nn.networks import ACTIVATIONS, mlp, unit_length


def test_unit_length_by_hand():
    np.testing.assert_allclose(unit_length(jnp.array([[3.0, 4.0], [0.0, -2.0]])), [[0.6, 0.8], [0.0, -1.0]], rtol=1e-6)
    # Below 1e-8 the divisor stays: 1e-9 / 1e-8.
    np.testing.assert_allclose(unit_length(jnp.array([1e-9, 0.0])), [0.1, 0.0], rtol=1e-5)
    # d(3/5)/dx = (1 - 9/25) / 5; where every feature is dead nothing is NaN.
    slope = jax.grad(lambda x: unit_length(x)[0])
    np.testing.assert_allclose(slope(jnp.array([3.0, 4.0])), [16.0 / 125.0, -12.0 / 125.0], rtol=1e-5)
    assert np.isfinite(slope(jnp.zeros(2))).all()


def test_a_network_divides_its_last_hidden_layer_by_its_norm():
    kernels = ([[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 2.0]], [[1.0], [2.0]])
    layers = {f'Dense_{n}': {'kernel': jnp.array(k), 'bias': jnp.zeros(len(k[0]))} for n, k in enumerate(kernels)}
    given = jnp.array([[3.0, 4.0], [-1.0, -1.0]])
    # Hidden layers (3, 4) and (6, 8), output 6 + 16; of unit length 0.6 + 1.6. The second row is cut to zero by the ReLU.
    for unit, expected in ((False, [[22.0], [0.0]]), (True, [[2.2], [0.0]])):
        output = mlp((2, 2), 1, unit_features=unit).apply({'params': layers}, given)
        np.testing.assert_allclose(output, expected, rtol=1e-6)


def test_equal_networks_are_traced_once_and_leave_only_their_operations(monkeypatch):
    given, traces = jnp.ones((1, 2)), []
    relu = ACTIVATIONS['relu']
    monkeypatch.setitem(ACTIVATIONS, 'relu', lambda x: (traces.append(None), relu(x))[1])
    params = {'params': {f'Dense_{n}': {'kernel': jnp.ones((2, 2)), 'bias': jnp.zeros(2)} for n in range(2)}}

    def loss(params):
        return mlp((2,), 2).apply(params, given).sum() + mlp((2,), 2).apply(params, 2.0 * given).sum()

    program = jax.make_jaxpr(jax.grad(loss))(params)
    assert len(traces) <= 1 and not any('_applied' in str(one.params.get('name', '')) for one in program.eqns)
