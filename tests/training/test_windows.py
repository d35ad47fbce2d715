"""Windows of rows: in order, inside one episode, one stream and what the ring remembers, against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from examples import for_all

from ooorl.training import replay
from ooorl.types import Transition
from ooorl.wrap import one_decision

CAPACITY, STREAMS, LENGTH, DRAWS = 12, 2, 3, 200


def rows_of(numbers, boundary):
    """Rows `[n]` whose every field says which row it is."""
    n = jnp.asarray(numbers, jnp.float32)
    extras = {'boundary': jnp.asarray(boundary)}
    return Transition(n[:, None], n[:, None] + 0.1, n + 0.2, jnp.ones_like(n), n[:, None] + 0.3, extras)


def window_from(kept, ends, first):
    """What a window that begins with the row `first` must hold, by the numbers of its rows, and how many of them count."""
    rows = [first]
    while len(rows) < LENGTH and rows[-1] not in ends and rows[-1] + STREAMS in kept:
        rows.append(rows[-1] + STREAMS)
    return rows + [rows[-1]] * (LENGTH - len(rows)), len(rows)


EXTEND = jax.jit(replay.extend)
DRAW = jax.jit(lambda buffer, key: replay.sample_windows(buffer, key, DRAWS, LENGTH, num_streams=STREAMS))


def test_windows_are_those_of_plain_loops():
    for_all(holds_for_plain_loops, 25, lambda st: {
        'ends': st.sets(st.integers(0, 2 * CAPACITY)),
        'steps': st.integers(1, CAPACITY),
        'capacity': st.sampled_from([CAPACITY, CAPACITY - 1]),  # streams fit into it evenly, and do not
    })


def holds_for_plain_loops(ends, steps, capacity):
    buffer = replay.create(jax.tree.map(lambda leaf: leaf[0], rows_of([0.0], [0.0])), capacity)
    for step in range(steps):
        numbers = [STREAMS * step, STREAMS * step + 1]
        buffer = EXTEND(buffer, rows_of(numbers, [float(number in ends) for number in numbers]))
    kept = set(range(max(0, STREAMS * steps - capacity), STREAMS * steps))
    windows = jax.tree.map(np.asarray, DRAW(buffer, jax.random.key(steps)))
    numbers = np.round(windows.observation[..., 0]).astype(int)
    assert set(numbers[:, 0]) == kept  # by chance alone one of 12 would be missed once in 10^7 times
    for name, offset in (('action', 0.1), ('reward', 0.2), ('next_observation', 0.3)):
        np.testing.assert_allclose(getattr(windows, name).reshape(numbers.shape), numbers + offset, atol=1e-5)
    for found, valid in zip(numbers, windows.extras['valid'], strict=True):
        expected, count = window_from(kept, ends, found[0])
        assert found.tolist() == expected and valid.tolist() == [1.0] * count + [0.0] * (LENGTH - count)


def test_windows_of_several_stores_and_of_marked_rows_begin_with_the_rows_drawn():
    data, online = (replay.full(rows_of(jnp.arange(first, first + 8.0), jnp.zeros(8))) for first in (0, 100))
    wins = replay.where(data, replay.marked(jnp.arange(8) == 3))
    both = replay.sample_views((wins, replay.view(online)), jax.random.key(0), 64, length=2, streams=(1, 4))
    numbers = np.asarray(both.observation[..., 0]).astype(int)
    assert {tuple(row) for row in numbers if row[0] < 100} == {(3, 4)}
    assert {tuple(row) for row in numbers if row[0] >= 100} == {(k, k + 4 if k < 104 else k) for k in range(100, 108)}
    single, plain = (replay.sample_views((replay.view(data),), jax.random.key(1), 9, **how) for how in (
        {'length': 1, 'streams': (1,)}, {},
    ))  # fmt: skip
    np.testing.assert_array_equal(single.observation[:, 0], plain.observation)


def windows_of(reward, discount, valid):
    """One window with actions 1, 2, ..."""
    length = len(reward)
    steps = jnp.arange(1.0, length + 1)[None, :, None]
    columns = [jnp.asarray([column], jnp.float32) for column in (reward, discount, valid)]
    return Transition(steps, steps, columns[0], columns[1], steps + 1, {'valid': columns[2], 'return_to_go': 10 * columns[0]})


# Totals of ends kept and dropped.
@pytest.mark.parametrize(('reward', 'discount', 'valid', 'totals', 'mask', 'kept', 'dropped', 'done'), [
    ([-1, -1, -1, 0], [1, 1, 1, 1], [1, 1, 1, 1], (-2.71, -2.71), 1, 1, 1, 4),  # no end: y = -2.71 + .9^4 * 7 = 1.8827
    ([-1, -1, 0, 5], [1, 1, 0, 1], [1, 1, 1, 0], (-1.9, -1.9), 0, 1, 0, 3),  # the MDP ended in the third step
    # Likewise, in data that go on behind it: what was done then is part of the chunk, and in the released code earns: .729 * 5.
    ([-1, -1, 0, 5], [1, 1, 0, 1], [1, 1, 1, 1], (-1.9, 1.745), 0, 1, 1, 4),
    ([0, -1, -1, 5], [0, 1, 1, 1], [1, 1, 1, 1], (0, 1.935), 0, 1, 1, 4),  # likewise, at the goal already
    ([-1, -1, -1, 5], [1, 1, 1, 0], [1, 1, 1, 1], (0.935, 0.935), 0, 1, 1, 4),  # ended with the chunk: -2.71 + .729 * 5
    ([-1, -1, -1, 5], [1, 1, 1, 1], [1, 1, 0, 0], (-1.9, -1.9), 1, 0, 0, 2),  # a time-out: the successor is not of 4 steps
])  # fmt: skip
def test_what_a_window_comes_to_by_hand(reward, discount, valid, totals, mask, kept, dropped, done):
    windows = windows_of(reward, discount, valid)
    for ends, weight, total in (('keep', kept, totals[0]), ('drop', dropped, totals[1])):
        row = one_decision(windows, 0.9, ends)
        np.testing.assert_allclose(row.reward, [total], rtol=1e-6)
        np.testing.assert_allclose(row.discount, [0.9**3 * mask], rtol=1e-6)
        np.testing.assert_array_equal(row.extras['weight'], [weight])
        np.testing.assert_array_equal(row.action, [[n if n <= done else 0 for n in (1, 2, 3, 4)]])
        assert float(row.extras['return_to_go'][0]) == 10 * reward[0]
        assert (float(row.observation[0, 0]), float(row.next_observation[0, 0])) == (1, 5)
    np.testing.assert_array_equal(one_decision(windows, 0.9, 'keep').extras['known'], [[n <= done for n in (1, 2, 3, 4)]])
    assert 'known' not in one_decision(windows, 0.9, 'drop').extras
    np.testing.assert_allclose(-2.71 + 0.9 * 0.9**3 * 7, 1.8827, rtol=1e-9)
