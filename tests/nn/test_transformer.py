"""The causal transformer: its cache gives the numbers of the whole, and nothing looks ahead."""

import jax
import numpy as np
import pytest

from ooorl.nn.transformer import causal_transformer

NETWORK = causal_transformer(4, 6, num_layers=2, num_heads=2, width=8, dropout=0.5)
OBSERVATION = jax.random.normal(jax.random.key(0), (3, 2, 5))
TOKENS = jax.random.randint(jax.random.key(1), (3, 2, 4), 0, 6)


@pytest.fixture(scope='module')
def params():
    start = NETWORK.init(jax.random.key(2), OBSERVATION, TOKENS)
    return jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(3), leaf.shape), start)


def test_one_token_at_a_time_gives_the_logits_of_the_whole(params):
    whole = jax.jit(NETWORK.apply)(params, OBSERVATION, TOKENS)
    assert whole.shape == (3, 2, 4, 6)
    following = jax.jit(NETWORK.following)
    logits, cache = jax.jit(NETWORK.first)(params, OBSERVATION)
    for place in range(4):
        np.testing.assert_allclose(logits, whole[..., place, :], rtol=1e-5, atol=1e-5)
        if place < 3:
            logits, cache = following(params, cache, TOKENS[..., place], place + 1)
    assert following._cache_size() == 1


def test_a_place_reads_the_observation_and_tokens_before_it_only(params):
    whole = NETWORK.apply(params, OBSERVATION, TOKENS)
    for place in range(4):
        moved = NETWORK.apply(params, OBSERVATION, TOKENS.at[..., place].set((TOKENS[..., place] + 1) % 6))
        changed = abs(moved - whole).max(axis=(0, 1, 3)) > 1e-4
        np.testing.assert_array_equal(changed, np.arange(4) > place)
    assert (abs(NETWORK.apply(params, OBSERVATION + 1.0, TOKENS) - whole).max(axis=(0, 1, 3)) > 1e-4).all()


def test_dropout_acts_where_a_key_is_given(params):
    plain = NETWORK.apply(params, OBSERVATION, TOKENS)
    dropped = [NETWORK.apply(params, OBSERVATION, TOKENS, key=jax.random.key(k)) for k in (0, 0, 1)]
    np.testing.assert_array_equal(dropped[0], dropped[1])
    assert (dropped[0] != dropped[2]).any() and (dropped[0] != plain).any()
