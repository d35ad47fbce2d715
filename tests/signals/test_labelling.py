"""Bisection of a life: the right labels from few questions, and what is said where answers contradict one another."""

import jax.numpy as jnp
import numpy as np
import pytest

from ooorl.errors import UsageError
from ooorl.interpreted import interpreted
from ooorl.signals.labelling import UNKNOWN, answered, begin, first_irreversible, label_life, query_bound


@pytest.mark.parametrize(('length', 'bound'), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (16, 5), (999, 11), (200_001, 19)])
def test_the_bound_is_one_and_the_logarithm_rounded_up(length, bound):
    assert query_bound(length) == bound
    assert length == 0 or bound == 1 + int(np.ceil(np.log2(length)))


def test_every_life_up_to_nine_states_is_labelled_exactly_within_the_bound():
    for length in range(10):
        for first in range(length + 1):
            found = label_life(lambda step, first=first: step >= first, length)
            np.testing.assert_array_equal(found.label, np.arange(length) >= first)
            assert found.queries <= query_bound(length) and found.contradictions == 0
            assert first < length or found.queries == min(length, 1)
    assert label_life(lambda step: True, 9).queries == 5  # 8, 4, 2, 1, 0: as many as 1 + ceil(log2 9)


def test_a_program_asks_what_the_host_asks():
    find = interpreted(lambda first, length: first_irreversible(lambda step: step >= first, length, 20))
    lives = [(first, length) for length in (0, 1, 7, 20) for first in range(length + 1)]
    for first, length in lives:
        found, host = find(first, length), label_life(lambda step, first=first: step >= first, length)
        assert (int(found.high), int(found.queries), int(found.probe)) == (first, host.queries, -1)


def test_a_bisection_waits_for_its_answer_and_ignores_one_too_many():
    state = begin(8)
    assert int(state.probe) == 7  # the last state first
    state = answered(answered(state, jnp.array(True)), jnp.array(True))
    assert (int(state.low), int(state.high), int(state.probe), int(state.queries)) == (0, 3, 1, 2)  # asked 7, 3
    done = answered(begin(8), jnp.array(False))
    assert (int(done.low), int(done.probe)) == (8, -1) and int(answered(done, jnp.array(True)).queries) == 1


def test_states_that_can_be_left_are_labelled_one_by_one():
    truth = [0, 1, 1, 0, 0, 1, 0]
    found = label_life(lambda step: bool(truth[step]), 7, mode='exhaustive')
    assert found.label.tolist() == truth and found.queries == 7 and found.contradictions == 2


def test_audits_find_a_life_that_came_back_and_stay_within_the_bound():
    truth = [0, 1, 1, 1, 1, 1, 1, 0]  # the last state is reversible again: bisection alone would call all of them so
    plain = label_life(lambda step: bool(truth[step]), 8)
    assert plain.label.tolist() == [0] * 8 and plain.queries == 1 and plain.contradictions == 0
    audited = label_life(lambda step: bool(truth[step]), 8, audits=9)
    assert audited.queries == query_bound(8) == 4 and audited.contradictions == 1
    # Asked: 7, then 1, 3 and 5, evenly spread over the rest. All others stay unknown.
    assert audited.label.tolist() == [UNKNOWN, 1, UNKNOWN, 1, UNKNOWN, 1, UNKNOWN, 0]


def test_a_known_state_contradicts_without_costing_a_query():
    found = label_life(lambda step: step >= 2, 6, known={4: False})
    assert found.contradictions == 1 and found.queries <= query_bound(6)
    assert found.label[4] == 0 and (found.label == UNKNOWN).any()
    agreed = label_life(lambda step: step >= 5, 6, known={4: False})
    assert agreed.contradictions == 0 and agreed.label.tolist() == [0, 0, 0, 0, 0, 1]


def test_bad_questions_are_refused():
    with pytest.raises(UsageError, match='mode must be one of'):
        label_life(lambda step: True, 3, mode='guess')
    with pytest.raises(UsageError, match='known states must lie between 0 and 2'):
        label_life(lambda step: True, 3, known={3: True})
