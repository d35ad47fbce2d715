"""What recorded steps allow, on a line worked by hand."""

import numpy as np
import pytest

from ooorl.data.in_sample import bound, cells_of, grid_of
from ooorl.errors import UsageError
from ooorl.types import Transition


def rows(*steps):
    """Steps (from, to, reward, discount) on a line."""
    table = np.array(steps, np.float32)
    return Transition(table[:, :1], np.zeros((len(table), 1)), table[:, 2], table[:, 3], table[:, 1:2], {})


EDGES = np.arange(6.0)[None]  # cells 0 to 4, one wide


def test_the_shortest_recorded_way_joins_pieces_of_different_episodes():
    # One episode walks 0 1 2 3 and wins at 4; another jumps from 0 to 2 and strays to 1.
    walked = [(0.5, 1.5, 0, 1), (1.5, 2.5, 0, 1), (2.5, 3.5, 0, 1), (3.5, 4.5, 1, 0)]
    alone = bound(rows(*walked), np.array([[0.5]]), [0], EDGES, gamma=0.5, success=1.0)
    assert (alone.steps, alone.reached, alone.cells) == (4.0, 1.0, 4) and alone.value == pytest.approx(0.5**3)
    both = bound(rows(*walked, (0.5, 2.5, 0, 1), (2.5, 1.5, 0, 1)), np.array([[0.5]]), [0], EDGES, gamma=0.5, success=1.0)
    assert both.steps == 3.0 and both.value == pytest.approx(0.5**2)


def test_an_end_without_success_leads_nowhere_and_costs_are_added_up():
    ended = rows((0.5, 1.5, -1, 0), (1.5, 2.5, 5, 1))
    found = bound(ended, np.array([[0.5], [1.5]]), [0], EDGES, gamma=0.5, success=5.0)
    assert (found.steps, found.reached, found.rows, found.success_rows, found.largest_reward) == (1.0, 0.5, 2, 1, 5.0)
    assert found.value == pytest.approx((-1 + (5 + 0.5 * -2)) / 2)  # from 2 nothing is recorded: -1 for ever, -2


def test_leaving_the_record_is_no_escape_from_costs():
    rows_ = rows((0.5, 0.5, -1, 1), (0.5, 1.5, -1, 1))  # in 0 one may stay, and leave for 1, from where nothing was recorded
    assert bound(rows_, np.array([[0.5]]), [0], EDGES, gamma=0.5, success=0.0).value == pytest.approx(-2.0, abs=1e-5)


def test_a_loop_is_worth_its_geometric_sum():
    found = bound(rows((0.5, 0.5, 1, 1)), np.array([[0.5]]), [0], EDGES, gamma=0.5, success=2.0)
    assert found.value == pytest.approx(2.0, abs=1e-5) and found.reached == 0.0 and np.isinf(found.steps)


def test_cells_by_hand():
    seen = np.array([[0.0, 9.0, -1.0], [4.0, 9.0, 1.0]])
    edges = grid_of([seen], [0, 2], 4)
    np.testing.assert_allclose(edges, [[0, 1, 2, 3, 4], [-1, -0.5, 0, 0.5, 1]])
    assert cells_of(np.array([[0.0, 0, -1.0], [4.0, 0, 1.0], [1.5, 0, 0.1]]), [0, 2], edges).tolist() == [0, 15, 6]
    with pytest.raises(UsageError, match=r'0 to 2; got \[3\]'):
        grid_of([seen], [3], 4)
    with pytest.raises(UsageError, match=r'columns must differ; got \[0, 0\]'):
        grid_of([seen], [0, 0], 4)
