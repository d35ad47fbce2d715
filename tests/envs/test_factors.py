"""Tasks whose episodes differ in several factors: by hand, and what their scripted data say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ooorl.envs import make_task
from ooorl.envs.goal_maze import FOUR_ROOMS, centres_of
from ooorl.envs.point_mass_physics import PhysicsState
from ooorl.envs.scripted import next_cells
from ooorl.envs.scripted_combinations import goal_maze_offline, point_mass_physics_offline, tabletop_offline
from ooorl.envs.tabletop import START_SIDES
from ooorl.errors import UsageError

KEYS = jax.random.split(jax.random.key(0), 200)


def test_a_point_with_physics_steps_by_hand():
    """Force 4 * 0.5 - 0.5 * 1 = 1.5 on mass 2 for 0.1: velocity 1.075, position 0.1075; the other axis has drag alone."""
    task = make_task('ooorl/PointMassPhysics-v0')
    state = PhysicsState(jnp.zeros(2), jnp.array([1.0, -1.0]), jnp.array([2.0, 0.5, 4.0]))
    _, observation, reward, terminated, _ = task.step(state, jnp.array([0.5, 0.0]), None)
    np.testing.assert_allclose(observation, [0.1075, -0.0975, 1.075, -0.975, 2.0, 0.5, 4.0], rtol=1e-6)
    assert (reward, terminated) == (0.0, False)
    slow = state._replace(velocity=jnp.array([0.1, 0.0]))
    assert task.step(slow, jnp.zeros(2), None)[2:] == (1.0, True, True)  # at rest: 0.01 from the origin at a speed of 0.0975
    with pytest.raises(UsageError, match='gears other than 0'):
        make_task('ooorl/PointMassPhysics-v0', gears=(0.0, 1.0))


def test_every_combination_is_drawn():
    first = np.asarray(jax.vmap(make_task('ooorl/GoalMaze-v0').reset)(KEYS)[1])
    starts, goals = (centres_of(FOUR_ROOMS, letter) for letter in 'SG')
    pairs = {(int(np.abs(starts - row[:2]).sum(1).argmin()), int(np.abs(goals - row[2:]).sum(1).argmin())) for row in first}
    assert len(pairs) == 16 and np.abs(np.abs(first[:, :2]) - 16 / 9).max() <= 0.1 + 1e-6  # corners are 16/9 from the middle
    physics = np.asarray(jax.vmap(make_task('ooorl/PointMassPhysics-v0').reset)(KEYS)[1])[:, 4:]
    assert len(np.unique(physics, axis=0)) == 27


def test_the_mug_begins_on_the_sides_that_are_named():
    plain, all_sides = make_task('ooorl/Tabletop-v0'), make_task('ooorl/Tabletop-v0', start_sides=tuple(START_SIDES))
    first, drawn = (np.asarray(jax.vmap(task.reset)(KEYS)[1]) for task in (plain, all_sides))
    assert {tuple(row) for row in drawn[:, 2:4].tolist()} == set(START_SIDES.values())
    np.testing.assert_array_equal(first[:, 4:], drawn[:, 4:])  # sides take no draw from the goals
    with pytest.raises(UsageError, match="start_sides must be one of 'right', 'top', 'left', 'bottom'; got 'up'"):
        make_task('ooorl/Tabletop-v0', start_sides=('up',))


def test_scripted_episodes_succeed():
    for maker, radius in ((goal_maze_offline, 0.3), (tabletop_offline, None), (point_mass_physics_offline, None)):
        rows = maker(jax.random.key(1), 8)
        assert rows.extras['boundary'].sum() == 8 == (rows.reward > 0).sum() == (rows.discount == 0).sum()
        if radius:
            at = rows.next_observation[rows.reward > 0]
            assert np.linalg.norm(at[:, :2] - at[:, 2:], axis=1).max() < radius


def test_two_ways_are_equally_short():
    width, tables = len(FOUR_ROOMS[0]), (next_cells(FOUR_ROOMS), next_cells(FOUR_ROOMS, turned=True))

    def way(table, start, goal):
        cells = [start]
        while cells[-1] != goal:
            cells.append(int(table[goal, cells[-1]]))
        return cells

    one, other = (way(table, 0, 7 * width + 7) for table in tables)  # from the first corner to the goal of the opposite room
    assert len(one) == len(other) == 15 and one != other
    assert (2 * width + 4 in one) != (2 * width + 4 in other)  # through other doors
