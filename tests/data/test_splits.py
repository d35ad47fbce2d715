"""Which combinations of factors are learnt from: worked out by hand on tiny factors and on episodes of a few rows."""

import itertools

import numpy as np
import pytest

from ooorl.data import splits
from ooorl.data.dataset import Dataset
from ooorl.data.splits import Combinations, Factor, split
from ooorl.errors import UsageError
from ooorl.types import Transition

START = {'name': 'start', 'columns': (0,), 'levels': ((0.0,), (10.0,)), 'at': 'start', 'radius': 2.0}
GOAL = {'name': 'goal', 'columns': (1,)}
TABLE = {'factors': (START, GOAL)}


def _rows(episodes):
    """Episodes of (start, goal, number of rows), which walk from the start by 0.5 a row."""
    parts = []
    for start, goal, num in episodes:
        x = start + 0.5 * np.arange(num + 1, dtype=np.float32)
        both = np.stack([x, np.full(num + 1, goal, np.float32)], axis=-1)
        parts.append((both[:-1], both[1:], np.arange(num) == num - 1))
    observation, after, last = (np.concatenate(column) for column in zip(*parts, strict=True))
    zeros = np.zeros(len(last), np.float32)
    extras = {'boundary': last.astype(np.float32)}
    return Dataset(transitions=Transition(observation, zeros[:, None], zeros, zeros + 1, after, extras), name='walks')


WALKS = _rows([(0, 0, 4), (0, 1, 3), (10, 0, 5), (10, 1, 2), (0, 0, 2), (5, 1, 6), (10, 1, 3)])


def test_two_factors_leave_out_the_last_diagonals():
    assert split((3, 3)).held_out.tolist() == [[0, 2], [1, 1], [2, 0]]
    assert split((3, 3), held_out_classes=2).train.tolist() == [[0, 0], [1, 2], [2, 1]]  # each start with one goal
    assert split((4, 2)).held_out.tolist() == [[2, 1], [3, 0]]  # sizes may differ: (l_1 + l_2) mod 4 = 3
    assert split((2, 2), held_out=[[1, 0]]).train.tolist() == [[0, 0], [0, 1], [1, 1]]


def test_three_factors_train_on_a_latin_square():
    made = split((3, 3, 3), held_out_classes=2)
    assert len(made.train) == 9 and len(made.held_out) == 18
    for one, other in itertools.combinations(range(3), 2):
        assert len({tuple(pair) for pair in made.train[:, [one, other]].tolist()}) == 9  # every pair of levels exactly once
    together = {tuple(c) for part in (made.train, made.held_out) for c in part.tolist()}
    assert together == set(itertools.product(range(3), repeat=3)) == {tuple(c) for c in made.of('all').tolist()}


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'held_out_classes': 0}, 'needs combinations that are held out'),
        ({'held_out_classes': 3}, 'level 0 of factor 0 does not'),
        ({'held_out': [[0, 0], [0, 1], [0, 2]]}, 'level 0 of factor 0 does not; hold out fewer'),
        ({'held_out': [[0, 3]]}, r'levels of the 2 factors, each below \[3, 3\]'),
    ],
)
def test_a_split_that_asks_something_else_is_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        split((3, 3), **changes)


def test_rows_have_the_combination_of_their_episode():
    factors = splits.read_factors(Combinations(**TABLE), WALKS)
    assert factors[1].levels == ((0.0,), (1.0,))  # found in the data
    found = splits.combinations_of(factors, WALKS)
    assert found[:7].tolist() == [[0, 0]] * 4 + [[0, 1]] * 3
    assert found[16:22].tolist() == [[-1, 1]] * 6  # begins 5 from both starts: of neither, though it passes the second


def test_a_goal_that_changes_is_seen_in_no_successor():
    moving = _rows([(0, 0, 6)])
    rows = moving.transitions
    rows.observation[3:, 1] = rows.next_observation[2:, 1] = 1.0  # another goal from the fourth row on
    found = splits.combinations_of((Factor(**START), Factor(**GOAL, levels=((0.0,), (1.0,)))), moving)
    assert found[:, 1].tolist() == [0, 0, -1, 1, 1, 1]


def test_an_end_is_read_from_the_last_successor():
    end = Factor(name='end', columns=(0,), levels=((2.0,), (12.0,)), at='end')
    found = splits.combinations_of((end,), WALKS)
    assert found[:, 0].tolist() == [0] * 7 + [1] * 7 + [0] * 2 + [1] * 6 + [1] * 3  # ends 2, 1.5, 12.5, 11, 1, 8, 11.5


def test_parts_have_equally_many_rows_and_training_none_that_is_held_out():
    """Rows of (start, goal): (0, 0) 6, (0, 1) 3, (1, 0) 5, (1, 1) 5; class 1, (0, 1) and (1, 0), is held out."""
    train, whole = (splits.part(WALKS, Combinations(**TABLE, part=name)) for name in ('train', 'all'))
    assert train.num_rows == whole.num_rows == 11
    seen = {(x >= 10, goal) for x, goal in train.transitions.observation.tolist()}
    assert seen == {(False, 0.0), (True, 1.0)}
    assert {tuple(row) for row in train.transitions.next_observation[:, 1:].tolist()} == {(0.0,), (1.0,)}
    x, goal = whole.transitions.observation.T
    counts = [int(((x >= 9) == far)[goal == own].sum()) for far in (False, True) for own in (0, 1)]
    assert counts == [3, 2, 3, 3]  # 11 / 19 of each: 3.47, 1.74, 2.89, 2.89, the last three rounded up
    assert train.transitions.extras['boundary'][-1] == 1.0
    assert "part 'train'; 2 of 4 combinations of start, goal are for training" in train.notes[-1]


def test_whole_episodes_are_kept_and_the_last_of_a_combination_is_cut():
    few = splits.part(WALKS, Combinations(**TABLE, rows=7))
    x, boundary = few.transitions.observation[:, 0], few.transitions.extras['boundary']
    assert few.num_rows == 7 and boundary[-1] == 1.0
    starts = x[np.append(True, boundary[:-1] > 0)]
    assert set(starts.tolist()) <= {0.0, 10.0}  # every stretch is the beginning of an episode
    assert int((x < 9).sum()) == 4  # 7 x 6 / 11 = 3.82


def test_seeds_draw_other_episodes():
    kept = {splits.part(WALKS, Combinations(**TABLE, rows=4, seed=seed)).transitions.observation.tobytes() for seed in range(8)}
    again = splits.part(WALKS, Combinations(**TABLE, rows=4)).transitions.observation.tobytes()
    assert len(kept) > 1 and again in kept


def test_what_the_data_do_not_hold_is_refused():
    with pytest.raises(UsageError, match="must be at most 11, those of part 'train', .* got 12"):
        splits.part(WALKS, Combinations(**TABLE, rows=12))
    with pytest.raises(UsageError, match='enough for one of each of its 2 combinations; got 1'):
        splits.part(WALKS, Combinations(**TABLE, rows=1))
    alone = _rows([(0, 0, 4), (10, 1, 2)])
    assert splits.part(alone, Combinations(**TABLE)).num_rows == 6
    with pytest.raises(UsageError, match="part 'all' needs rows of each combination; walks has none of start 0, goal 1"):
        splits.part(alone, Combinations(**TABLE, part='all'))
    with pytest.raises(UsageError, match='columns of factor .goal. must be below 2'):
        splits.read_factors(Combinations(factors=(START, GOAL | {'columns': (2,)})), WALKS)
    with pytest.raises(UsageError, match="need names of their own; got two 'start'; rename one"):
        Combinations(factors=(START, GOAL | {'name': 'start'}))
    with pytest.raises(UsageError, match='two factors or more'):
        Combinations(factors=(START,))


def test_the_first_observation_says_whether_an_episode_is_out_of_combination():
    test = splits.held_out_test(Combinations(**TABLE), WALKS)
    first = np.array([[[0.3, 0.0], [0.0, 1.0]], [[9.0, 0.0], [11.0, 1.0]]], np.float32)
    assert test(first).tolist() == [[False, True], [True, False]]
    ends = {'name': 'end', 'columns': (0,), 'levels': ((0.0,), (10.0,)), 'at': 'end'}
    assert splits.held_out_test(Combinations(factors=(ends, GOAL)), WALKS) is None
