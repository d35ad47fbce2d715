"""What numpy answers in the place of a compiled operation is what that would have answered, bit for bit."""

import jax
import jax.numpy as jnp
import lowering
import numpy as np
import pytest

X = np.array([[-2.5, np.nan, 0.1], [3.0, -0.0, np.inf]], np.float32)
N = np.array([[7, -3, 0], [2, 2**31 - 1, -(2**31)]], np.int32)


def operations(x, n, key):
    """Each of them, one at a time."""
    word = jax.lax.bitcast_convert_type(n, jnp.uint32)
    return [
        x + 0.1, x - x[:1], x * 1.1, jnp.sqrt(x), jnp.square(x), x**2, n + n, n * 3, -x, abs(x), jnp.sign(x),
        jnp.maximum(x, 0.1), jnp.minimum(x, x[:1]), jnp.clip(x, -1.0, 1.0), x.max(), n.min(),
        (x < 0.1).all(), (n == 2).any(axis=0),
        x < x[1:], x <= 0.1, x > 0.1, x >= 0.1, x == x, n != 2, (x > 0) & (n > 0), (x > 0) | (n > 0), ~(x > 0), n ^ 5,
        jnp.isfinite(x), jnp.floor(x), jnp.ceil(x), jnp.where(n > 0, x, 2.0), n.astype(jnp.float32), (x > 0).astype(jnp.float32),
        n.astype(bool), x[1], x[:, 1:], x[::-1], x.T, x.reshape(3, 2), x[None], x[0][:, None] + jnp.zeros((3, 2)),
        jnp.concatenate([x, x]), jnp.stack([x, x]), jnp.split(x, 3, axis=1), jnp.tile(x, (2, 1)), jnp.ones((2, 2)), jnp.arange(5),
        jax.lax.dynamic_slice(x, (n[1, 0], 0), (1, 2)), jax.lax.dynamic_update_slice(x, x[:1, :1], (1, n[1, 0])),
        word, jnp.left_shift(word, jnp.uint32(3)), jax.lax.shift_right_logical(word, jnp.uint32(5)),
        jax.random.split(key, 3), jax.random.fold_in(key, 4), jax.random.bits(key, (3,)),
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_asked_yet():
    """Whatever was asked before."""
    lowering._USES.clear()


def numbers(leaf):
    return np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)


def test_every_answer_is_that_of_the_compiled_program(monkeypatch):
    given = *map(jnp.asarray, (X, N)), jax.random.key(3)
    compiled = jax.jit(operations).lower(*given).compile()(*given)
    monkeypatch.setattr(lowering, 'CALL', None)  # whoever still asks jax fails
    answered = operations(*given)
    assert jax.tree.structure(answered) == jax.tree.structure(compiled)
    for number, (mine, other) in enumerate(zip(jax.tree.leaves(answered), jax.tree.leaves(compiled), strict=True)):
        assert mine.aval == other.aval, number
        np.testing.assert_array_equal(numbers(mine), numbers(other), err_msg=str(number))


@pytest.mark.parametrize('ask', [
    lambda x: jax.device_put(x, jax.devices()[0]) + 1.0,  # it says where it lies
    lambda x: jax.jit(lambda x: x + 1.0, donate_argnums=0)(jnp.array(x)),
    jax.jit(lambda x: x * 3.0 + 1.0),  # rounded once or twice
    lambda x: x / 3.0,  # a third of it, rounded before
    jnp.tanh,
    lambda x: x.sum(),
    lambda x: x.astype(jnp.int32),  # of what does not fit
])  # fmt: skip
def test_everything_else_is_compiled(ask, monkeypatch):
    asked, call = [], lowering.CALL
    monkeypatch.setattr(lowering, 'CALL', lambda *arguments, **settings: asked.append(1) or call(*arguments, **settings))
    ask(jnp.asarray(X[:, ::2]))
    assert asked


def test_what_is_asked_often_is_compiled(monkeypatch):
    asked, call = [], lowering.CALL
    monkeypatch.setattr(lowering, 'CALL', lambda *arguments, **settings: asked.append(1) or call(*arguments, **settings))
    x = jnp.ones((3, 5, 7))
    before = len(asked)
    for _ in range(lowering.USES + 1):
        np.testing.assert_array_equal(x + 0.5, 1.5)
    assert len(asked) == before + 1
