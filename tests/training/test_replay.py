"""Replay: every field keeps its own row through wrapping and drawing, and every row is drawn as often as it should be."""

import jax
import numpy as np
import pytest
from small import trees_equal

from ooorl.training import replay
from ooorl.types import Transition

# Most of what these cost otherwise is compiling one operation after another.
extend = jax.jit(replay.extend)
sample = jax.jit(replay.sample, static_argnames='num')
sample_views = jax.jit(replay.sample_views, static_argnames=('num', 'exact'))
marked, mark_more = jax.jit(replay.marked), jax.jit(replay.mark_more)


def numbered(first, num, **extras):
    """Rows whose every field says which row it is."""
    n = np.arange(first, first + num, dtype=np.float64)
    rows = Transition(
        observation=n[:, None] + np.array([[0.1, 0.2]]),
        action=n[:, None] + 0.3,
        reward=n + 0.4,
        discount=n + 0.5,
        next_observation=n[:, None] + np.array([[0.6, 0.7]]),
        extras={'boundary': n + 0.8, **extras},
    )
    return jax.tree.map(np.float32, rows)


def assert_aligned(rows):
    """Every field of every row belongs to the same index; returns the indices."""
    n = np.round(np.asarray(rows.reward) - 0.4)
    columns = {'action': 0.3, 'discount': 0.5}
    for name, offset in columns.items():
        np.testing.assert_allclose(np.asarray(getattr(rows, name)).reshape(len(n)), n + offset, atol=1e-3)
    np.testing.assert_allclose(rows.observation, n[:, None] + [0.1, 0.2], atol=1e-3)
    np.testing.assert_allclose(rows.next_observation, n[:, None] + [0.6, 0.7], atol=1e-3)
    np.testing.assert_allclose(rows.extras['boundary'], n + 0.8, atol=1e-3)
    return n.astype(int)


def empty(capacity):
    """A buffer for rows as `numbered` makes them."""
    return replay.create(jax.tree.map(lambda leaf: leaf[0], numbered(0, 1)), capacity)


def test_extend_keeps_fields_aligned_and_overwrites_the_oldest():
    buffer, extend = empty(10), jax.jit(lambda *args: replay.extend(*args))
    for first, held in ((0, range(4)), (4, range(8)), (8, range(2, 12)), (12, range(6, 16))):
        buffer = extend(buffer, numbered(first, 4))
        stored = jax.tree.map(lambda leaf: leaf[: int(buffer.size)], buffer.storage)  # noqa: B023
        assert sorted(assert_aligned(stored)) == list(held)
    assert int(buffer.size) == 10 and int(buffer.cursor) == 16 % 10
    assert extend._cache_size() == 1


def test_capacity_is_exact():
    buffer = extend(empty(7), numbered(0, 7))
    assert replay.capacity(buffer) == 7 and int(buffer.size) == 7 and int(buffer.cursor) == 0
    assert assert_aligned(buffer.storage).tolist() == list(range(7))
    with pytest.raises(ValueError, match='capacity, 7; got 8'):
        extend(buffer, numbered(0, 8))


def test_a_data_set_becomes_a_full_buffer_in_float32():
    buffer = replay.full(jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), numbered(0, 5)))
    assert replay.capacity(buffer) == int(buffer.size) == 5
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(buffer.storage)} == {'float32'}


def test_only_written_rows_are_drawn_and_fields_stay_aligned():
    buffer = extend(empty(50), numbered(0, 9))
    drawn = assert_aligned(sample(buffer, jax.random.key(0), 500))
    assert set(drawn) == set(range(9))


def chi_square(counts, expected):
    from scipy import stats  # half a second that most processes need not spend

    return stats.chisquare(counts, np.asarray(expected) / np.sum(expected) * np.sum(counts)).pvalue


def test_rows_are_drawn_uniformly_also_after_wrapping():
    buffer = extend(extend(empty(13), numbered(0, 8)), numbered(8, 8))
    drawn = assert_aligned(sample(buffer, jax.random.key(1), 13_000))
    counts = np.bincount(drawn, minlength=16)
    assert (counts[:3] == 0).all()
    assert chi_square(counts[3:], np.ones(13)) > 1e-3


def two_stores(small=10, large=30):
    return (replay.view(replay.full(numbered(0, small))), replay.view(replay.full(numbered(100, large))))


def test_union_draws_uniformly_over_all_rows_of_all_stores():
    weights, exact = replay.shares('union', ('dataset', 'online'))
    rows = sample_views(two_stores(), jax.random.key(2), 12_000, weights=weights, exact=exact)
    drawn = assert_aligned(rows)
    counts = np.bincount(np.where(drawn < 100, drawn, drawn - 90), minlength=40)
    assert chi_square(counts, np.ones(40)) > 1e-3
    # In expectation only: an exact share would be hit in every batch.
    small = [
        int((sample_views(two_stores(), jax.random.key(k), 40).reward < 50).sum()) for k in range(12)
    ]
    assert len(set(small)) > 1


def test_growing_gives_each_store_its_share_of_all_rows_exactly():
    weights, exact = replay.shares('growing', ('dataset', 'online'))
    for large, expected in ((30, 16), (10, 32), (54, 10)):
        for seed in range(3):
            views = two_stores(10, large)
            rows = sample_views(views, jax.random.key(seed), 64, weights=weights, exact=exact)
            assert int((rows.reward < 50).sum()) == expected


@pytest.mark.parametrize(('mix', 'expected'), [
    ({'dataset': 0.5, 'online': 0.5}, 32), ({'dataset': 0.25, 'online': 0.75}, 16), ({'online': 1.0}, 0), ({'dataset': 1.0}, 64),
])  # fmt: skip
def test_fixed_shares_are_exact(mix, expected):
    weights, exact = replay.shares(mix, ('dataset', 'online'))
    rows = sample_views(two_stores(), jax.random.key(0), 64, weights=weights, exact=exact)
    assert_aligned(rows)
    assert int((rows.reward < 50).sum()) == expected


@pytest.mark.parametrize('mix', ['union', 'growing', {'dataset': 0.5, 'online': 0.5}, {'dataset': 1.0}, {'online': 1.0}])
@pytest.mark.parametrize('empty_first', [True, False])
def test_an_empty_view_gets_no_rows(mix, empty_first):
    nothing = replay.view(empty(6))
    views = (nothing, two_stores()[1]) if empty_first else (two_stores()[1], nothing)
    weights, exact = replay.shares(mix, ('dataset', 'online'))
    rows = sample_views(views, jax.random.key(0), 200, weights=weights, exact=exact)
    assert (assert_aligned(rows) >= 100).all()


def test_only_columns_that_all_stores_have_are_drawn():
    views = (replay.view(replay.full(numbered(0, 5, own=np.ones(5)))), two_stores()[1])
    assert set(sample_views(views, jax.random.key(0), 4).extras) == {'boundary'}
    assert set(sample_views(views[::-1], jax.random.key(0), 4).extras) == {'boundary'}
    assert set(sample_views(views[:1], jax.random.key(0), 4).extras) == {'boundary', 'own'}


def test_take_shows_the_first_rows_only():
    buffer = extend(empty(20), numbered(0, 15))
    first = replay.take(buffer, 6)
    assert set(assert_aligned(sample(first, jax.random.key(0), 300))) == set(range(6))
    assert int(replay.take(buffer, 18).size) == 15
    assert trees_equal(first.storage, buffer.storage)


def test_where_is_a_view_of_the_valid_rows_that_satisfy_a_mask():
    buffer = extend(empty(20), numbered(0, 15))
    view = replay.where(buffer, marked((np.arange(20) % 3 == 0) & (np.arange(20) < 15)))
    assert int(view.size) == 5
    drawn = assert_aligned(sample_views((view,), jax.random.key(0), 3_000))
    assert chi_square(np.bincount(drawn, minlength=15)[::3], np.ones(5)) > 1e-3
    assert set(drawn) == {0, 3, 6, 9, 12}


@pytest.mark.parametrize('capacity', [20, 128, 700])
def test_marked_rows_are_found_by_their_rank_in_every_block(capacity):
    mask = np.random.default_rng(capacity).random(capacity) < 0.1
    mask[128:256] = False  # a block without any
    marks = marked(np.asarray(mask[: capacity // 2]))
    assert int(marks.counts.sum()) == mask[: capacity // 2].sum()
    marks = marked(np.asarray(np.where(np.arange(capacity) < capacity // 2, mask, False)))
    marks = mark_more(marks, capacity // 3, mask[capacity // 3 :])  # some of them again
    rows = numbered(0, capacity)
    view = replay.where(replay.full(rows), marks)
    assert int(view.size) == mask.sum()
    drawn = assert_aligned(sample_views((view,), jax.random.key(0), 5_000))
    assert set(drawn) == set(np.flatnonzero(mask))


def test_more_marks_leave_the_old_ones():
    old, new = np.arange(300) % 7 == 0, np.arange(300) % 2 == 0
    new[:120] = new[140:] = False
    more = mark_more(marked(np.asarray(old)), 120, new[120:140])
    expected = marked(np.asarray(old | new))
    np.testing.assert_array_equal(more.mask, expected.mask)
    np.testing.assert_array_equal(more.counts, expected.counts)
