"""Programs run with numpy give what they give compiled, draws bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ooorl.interpreted import interpreted

KEY = jax.random.key(3)
X = np.linspace(-2.0, 2.0, 12, dtype=np.float32).reshape(3, 4)


def draws(key):
    first, second = jax.random.split(key)
    keys = jax.random.split(jax.random.fold_in(second, 7), (2,))
    return {
        'bits': jax.random.bits(first, (3,)), 'uniform': jax.random.uniform(second, (2, 3), minval=-1.0),
        'choice': jax.random.choice(first, 9, (4,), replace=False), 'whole': jax.random.randint(keys[1], (5,), -3, 90),
        'mapped': jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys), 'key': jax.random.key_data(keys[0]),
    }  # fmt: skip


def loops(x):
    def step(carry, row):
        return jnp.where(row.sum() > 0, carry + row, 2.0 * carry), carry.max()

    carry, highest = jax.lax.scan(step, x[0], x, reverse=True)
    doubled = jax.lax.while_loop(lambda y: (y < 9.0).all(), lambda y: 2.0 * y + 1.0, jnp.abs(carry))
    return highest, doubled, jax.lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x)


def places(x):
    order = jnp.argsort(x[:, ::-1].ravel())
    moved = x.at[jnp.array([2, 0, 2]), 1].add(5.0).at[:, 2].set(0.5)
    padded = jnp.pad(x, ((1, 2), (0, 1)), constant_values=3.0)
    batched = jax.vmap(lambda row, n: jax.lax.dynamic_slice(row, (n,), (2,)))(x, jnp.array([0, 9, 1]))
    return order, moved, padded, batched, jax.lax.top_k(x, 2), jnp.cumsum(x[::-1], axis=1), x[jnp.array([1, 1, 0])]


def outside(x):
    far = jnp.array([1, 3, -9])
    read = x.at[far].get(mode='fill', fill_value=-1.0), x.at[far].get(mode='clip')
    return x.at[far].set(7.0, mode='drop'), x.at[far].add(1.0), read


def slopes(x):
    weights = jnp.ones((4, 2)) / 3.0
    return jax.value_and_grad(lambda w: (jax.nn.gelu(x @ w) ** 3 + jax.nn.softmax(x @ w)).sum())(weights)


def unknown(x):
    return jnp.linalg.cholesky(x @ x.T + 5.0 * jnp.eye(3))


@pytest.mark.parametrize(
    ('function', 'argument'), [(draws, KEY), (loops, X), (places, X), (outside, X), (slopes, X), (unknown, X)]
)
def test_the_numbers_are_those_of_the_compiled_program(function, argument):
    ours, theirs = interpreted(function)(argument), jax.jit(function)(argument)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert mine.dtype == other.dtype
        check = np.testing.assert_array_equal if function is draws else np.testing.assert_allclose
        check(mine, other, **({} if function is draws else {'rtol': 2e-6, 'atol': 1e-6}))


def test_functions_are_traced_once_a_kind_of_arguments_and_settings_stay_settings():
    traced = []

    def repeated(x, num):
        traced.append(num)
        return jnp.tile(x, num)

    run = interpreted(repeated, static_argnums=1)
    assert [run(X[0], num).shape for num in (2, 3, 2)] == [(8,), (12,), (8,)] and traced == [2, 3]
    assert run(X, 2).shape == (3, 8) and traced == [2, 3, 2]


def test_keys_come_back_as_keys_and_other_programs_may_hold_it():
    assert (jax.random.key_data(interpreted(jax.random.split)(KEY)) == jax.random.key_data(jax.random.split(KEY))).all()
    np.testing.assert_allclose(jax.grad(interpreted(lambda x: x**3))(2.0), 12.0)
