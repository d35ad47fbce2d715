"""Plans of when to ask for help, on logs small enough to be enumerated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ooorl.errors import UsageError
from ooorl.training import budget
from ooorl.training.budget import Log, cells, count, judged, plan, staged, when_it_pays
from ooorl.training.lives import COLUMNS, WIDTH

# Cell 0 is worth 1 a decision and falls into cell 1 with a chance of one half; cell 1 is worth nothing and is never left.
TRAP = Log(np.array([[1.0, 1.0], [0.0, 4.0]]), np.array([3.0, 0.0]), np.array([1.0, 0.0]))


def test_a_log_counts_within_lives():
    log = count([0, 0, 1, 0, 1, 1], [5, 5, 5, 6, 6, 6], [1, 1, 0, 1, 0, 0.5], 3)
    assert log.steps.tolist() == [[1, 2, 0], [0, 1, 0], [0, 0, 0]] and log.fresh.tolist() == [2, 0, 0]
    np.testing.assert_allclose(log.worth, [1, 0.5 / 3, 0])
    with pytest.raises(UsageError, match='a log needs decisions in cells 0 to 2'):
        count([], [], [], 3)


def test_values_of_one_and_two_decisions_by_hand():
    found = plan(TRAP, 2, 1)
    assert found.worth[1].tolist() == [[1, 0], [1, 0]]
    # Two left, none granted: 1 + 1/2 and 0. One granted: asked for in cell 1, and in cell 0, where it makes sure of cell 0.
    assert found.worth[2].tolist() == [[1.5, 0], [2, 1]]
    assert found.ask[2].tolist() == [[False, False], [True, True]] and not found.ask[1].any()  # with the last one nothing follows


def test_requests_are_kept_for_where_they_pay_most():
    far = plan(TRAP, 12, 2)
    # Two requests and many decisions left: not wasted where nothing has happened, asked for at once where all is lost.
    assert not far.ask[12, 1:, 0].any() and far.ask[2:, 1:, 1].all() and not far.ask[:, 0].any()
    worth = far.worth[12]
    assert (np.diff(worth[:, 0]) > 0).all() and (np.diff(worth[:, 0], n=2) < 1e-9).all()  # each further one is worth less
    harmless = Log(np.eye(2), np.ones(2), np.ones(2))
    assert not plan(harmless, 9, 3).ask.any()  # a life without anything irreversible never asks
    assert plan(TRAP, 3, 0).ask.shape == (4, 1, 2)
    unseen = Log(np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([3.0, 0.0]), np.array([1.0, 0.0]))
    assert not plan(unseen, 9, 2).ask.any()  # of a cell that nobody has been in nothing is known


def test_stages_have_their_own_lives_and_learners_ask_early():
    calm = Log(np.array([[4.0, 0.0], [0.0, 1.0]]), np.array([1.0, 0.0]), np.array([1.0, 0.0]))
    found = plan((TRAP, calm), 4, 1)  # decisions 4 and 3 fall as often as not, 2 and 1 never
    np.testing.assert_allclose(found.worth[2, 0], [2, 0])
    np.testing.assert_allclose(found.worth[3, 0], [1 + 0.5 * 2, 0])
    # Two left count 2/4 and 1/4: of what is left to learn from.
    np.testing.assert_allclose(plan((TRAP, calm), 4, 1, learning=True).worth[2, 0], [0.75, 0])
    pooled = staged((TRAP, calm), 0.5)
    assert pooled[0].steps.tolist() == [[3.5, 1.5], [0, 6.5]] and pooled[1].fresh.tolist() == [3, 0]
    empty = Log(np.zeros((2, 2)), np.zeros(2), np.zeros(2))
    np.testing.assert_allclose(staged((TRAP, empty), 1.0)[1].worth, [1, 0], atol=1e-6)  # what was never seen is as in all


def test_dynamic_programming_is_the_best_of_all_policies():
    """Every deterministic policy of three decisions and one request, by enumeration."""

    def value(policy, left, requests, cell):
        if left == 0:
            return 0.0
        asked = requests > 0 and policy[left, cell]
        move = TRAP.fresh / 3 if asked else (TRAP.steps / TRAP.steps.sum(axis=1, keepdims=True))[cell]
        return TRAP.worth[cell] + sum(p * value(policy, left - 1, requests - asked, z) for z, p in enumerate(move))

    policies = [np.array([int(c) for c in f'{n:06b}']).reshape(3, 2) for n in range(64)]
    best = max(value(np.concatenate([np.zeros((1, 2), int), p]), 3, 1, 0) for p in policies)
    assert plan(TRAP, 3, 1).worth[3, 1, 0] == pytest.approx(best)


def test_rules_are_judged_by_the_log_of_the_plan():
    # Two decisions left, one request: who asks in cell 0 makes sure of it, who asks in cell 1 only leaves it there.
    assert judged(TRAP, [True, False], 2, 1).worth[2].tolist() == [[1.5, 0], [2, 0]]
    assert judged(TRAP, [False, True], 2, 1).worth[2].tolist() == [[1.5, 0], [1.5, 1]]
    best = plan(TRAP, 9, 2).worth
    for rule in ([False, False], [False, True], [True, False], [True, True]):
        assert (judged(TRAP, rule, 9, 2).worth <= best + 1e-9).all()
    assert (judged(TRAP, [False, True], 9, 0).worth == best[:, :1]).all()  # nothing to spend


def test_the_trigger_reads_the_plan_at_decisions_only():
    planned = plan(TRAP, 4, 1)

    def cell_of(state, observation, key):
        return cells(observation[..., 0], 0 * observation[..., 0], [0.5], [])

    trigger = when_it_pays(planned, cell_of, total_steps=40, decision_steps=10)
    columns = np.zeros((5, WIDTH))
    columns[:, COLUMNS.index('age')] = [10, 10, 11, 0, 10]
    columns[:, COLUMNS.index('elapsed')] = [10, 10, 11, 10, 35]
    columns[:, COLUMNS.index('left')] = [1, 0, 1, 1, 1]
    asked = trigger(None, jnp.ones((5, 1)), jnp.asarray(columns), jax.random.key(0))
    assert asked.tolist() == [True, False, False, False, False]  # asked; no request left; between; new life; nothing follows
    assert budget.cells(jnp.array([0.1, 0.9]), jnp.array([0.9, 0.5]), [0.5], [0.5]).tolist() == [1, 3]
