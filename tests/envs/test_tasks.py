"""The compiled tasks: geometry, irreversibility, scripted behaviour and scripted data."""

import operator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ooorl.envs import TASKS, make_task
from ooorl.envs import maze as maze_module
from ooorl.envs import tabletop as tabletop_module
from ooorl.envs.maze import irreversible_maze, u_maze
from ooorl.envs.point_mass_wall import GOAL, PointState, point_mass_wall
from ooorl.envs.scripted import long_way_controller, point_mass_wall_offline, u_maze_offline
from ooorl.envs.tabletop import TabletopState, observe, tabletop
from ooorl.errors import UsageError


def _play(task, state, act, memory, num_steps):
    """Observations, rewards and terminations of `act(memory, observation) -> (action, memory)`."""

    def one_step(carry, _):
        state, observation, memory = carry
        action, memory = act(memory, observation)
        state, observation, reward, terminated, _ = task.step(state, action, jax.random.key(0))
        return (state, observation, memory), (observation, reward, terminated)

    state, observation = state
    return jax.tree.map(np.asarray, jax.lax.scan(one_step, (state, observation, memory), None, length=num_steps)[1])


def _steps_to_goal(terminated):
    return int(np.argmax(terminated)) + 1 if terminated.any() else None


def _towards(waypoints, step_size, radius):
    waypoints = jnp.asarray(waypoints)

    def act(stage, observation):
        stage = jnp.minimum(stage + (jnp.max(jnp.abs(observation - waypoints[stage])) < radius), len(waypoints) - 1)
        return jnp.clip((waypoints[stage] - observation) / step_size, -1, 1), stage

    return act


def _random_walks(task, num_walks, num_steps, act=None):
    def walk(key):
        reset_key, scan_key = jax.random.split(key)
        carry = task.reset(reset_key)

        def one_step(carry, key):
            state, observation = carry
            action = jax.random.uniform(key, (task.spec.action_dim,), minval=-1, maxval=1)
            action = action if act is None else act(observation, action)
            state, observation, *_ = task.step(state, action, key)
            return (state, observation), (state, observation)

        return jax.lax.scan(one_step, carry, jax.random.split(scan_key, num_steps))[1]

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(walk))(jax.random.split(jax.random.key(0), num_walks)))


@pytest.mark.parametrize('name', TASKS)
def test_tasks_keep_their_shapes_and_agree_between_one_copy_and_many(name):
    task = make_task(name)
    keys = jax.random.split(jax.random.key(1), 16)
    actions = jax.random.uniform(jax.random.key(2), (16, task.spec.action_dim), minval=-1.5, maxval=1.5)
    states, observations = jax.jit(jax.vmap(task.reset))(keys)
    many = jax.jit(jax.vmap(task.step))(states, actions, keys)
    one_copy = jax.jit(task.step)
    assert observations.shape == (16, task.spec.observation_dim) and observations.dtype == jnp.float32
    assert many[1].shape == observations.shape and many[1].dtype == jnp.float32
    assert many[2].dtype == jnp.float32 and many[3].dtype == bool and many[4].dtype == bool
    for i in (0, 7):
        one = one_copy(jax.tree.map(operator.itemgetter(i), states), actions[i], keys[i])
        # Mapped and single programs may round differently: one unit in the last place.
        same = partial(np.testing.assert_allclose, rtol=3e-7, atol=1e-7)
        jax.tree.map(same, one, jax.tree.map(operator.itemgetter(i), many))


def test_point_mass_short_way_takes_29_steps():
    task = point_mass_wall()
    start = jnp.array([0.0, 0.5])
    act = _towards([(0.5, 0.075), GOAL], 0.05 * 0.5**0.5, 0.01)
    _, rewards, terminated = _play(task, (PointState(start), start), act, 0, 60)
    assert _steps_to_goal(terminated) == 29
    assert rewards.sum() >= 1 and rewards[:28].sum() == 0


def test_point_mass_long_way_takes_at_least_50_steps():
    task = point_mass_wall()
    start = jnp.array([0.0, 0.5])
    _, act = long_way_controller(0.05 * 0.5**0.5)
    _, _, terminated = _play(task, (PointState(start), start), lambda s, o: act(s, o, None)[:2], 0, 100)
    assert 50 <= _steps_to_goal(terminated) <= 62


@pytest.mark.parametrize('wall', ['sticky', 'slide'])
def test_point_mass_straight_line_is_blocked(wall):
    task = point_mass_wall(wall=wall)
    start = jnp.array([0.0, 0.5])
    straight = (jnp.array(GOAL) - start) / 0.65
    observations, _, terminated = _play(task, (PointState(start), start), lambda m, o: (straight, m), 0, 18)
    assert not terminated.any()
    assert observations[:, 0].max() < 0.5
    stuck = np.all(observations[-1] == observations[-2])
    assert stuck == (wall == 'sticky')


def test_point_mass_never_passes_the_wall_in_random_walks():
    _, positions = _random_walks(point_mass_wall(step_size=0.1), 100, 300)
    x, y = positions[..., 0], positions[..., 1]
    passed = (x[:, :-1] < 0.5) != (x[:, 1:] < 0.5)
    assert passed.any()
    share = (0.5 - x[:, :-1]) / np.where(passed, x[:, 1:] - x[:, :-1], 1)
    crossing = (y[:, :-1] + share * (y[:, 1:] - y[:, :-1]))[passed]
    assert not np.any((crossing > 0.1 + 1e-5) & (crossing < 1.2 - 1e-5))


def test_point_mass_step_reward_is_minus_one_until_the_goal():
    task = point_mass_wall(reward='steps', goal_radius=0.1)
    near = PointState(jnp.array([0.9, 0.15]))
    _, _, reward, terminated, success = task.step(near, jnp.array([1.0, 0.0]), jax.random.key(0))
    assert reward == 0 and terminated and success
    _, _, reward, terminated, _ = task.step(near, jnp.array([-1.0, 0.0]), jax.random.key(0))
    assert reward == -1 and not terminated


def _clumsy_carrier(observation, action):
    """Chases the mug with the magnet on, drifts at random while holding it, lets go now and then."""
    held = observation[4] > -0.5
    chase = jnp.clip((observation[2:4] - observation[0:2]) / 0.2, -1, 1)
    drift = jnp.array([0.8, 0.0]) + 0.5 * action[:2]
    magnet = jnp.where(action[2] > 0.9, -1.0, 1.0)
    return jnp.concatenate([jnp.where(held, drift, chase), magnet[None]])


def test_tabletop_drop_is_final_and_visible_in_the_observation():
    states, observations = _random_walks(tabletop(walls=False), 100, 300, _clumsy_carrier)
    assert 0.2 < states.dropped[:, -1].mean()
    assert np.all(states.dropped[:, 1:] >= states.dropped[:, :-1])
    np.testing.assert_array_equal(np.asarray(tabletop_module.is_irreversible(observations)), states.dropped)
    assert not np.any(states.held & states.dropped)


def test_tabletop_with_walls_keeps_everything_within_reach():
    states, observations = _random_walks(tabletop(walls=True), 50, 300, _clumsy_carrier)
    assert np.abs(observations[..., :4]).max() <= np.float32(2.8)
    assert not states.dropped.any()
    assert not np.asarray(tabletop_module.is_irreversible(observations)).any()


def _expert(stage, observation):
    gripper, mug, goal = observation[0:2], observation[2:4], observation[8:10]
    held = observation[4] > -0.5
    placed = jnp.linalg.norm(mug - goal) < 0.1
    target = jnp.where(placed, -gripper, jnp.where(held, goal - mug, mug - gripper))
    return jnp.concatenate([jnp.clip(target / 0.2, -1, 1), jnp.where(placed, -1.0, 1.0)[None]]), stage


@pytest.mark.parametrize('walls', [True, False])
def test_tabletop_expert_reaches_every_goal(walls):
    task = tabletop(walls=walls)
    for goal in tabletop_module.GOALS:
        start = TabletopState(jnp.zeros(2), jnp.array([2.5, 0.0]), jnp.array(False), jnp.array(False), jnp.array(goal))
        _, rewards, terminated = _play(task, (start, observe(start)), _expert, 0, 100)
        assert 30 <= _steps_to_goal(terminated) <= 60
        assert rewards[_steps_to_goal(terminated) - 1] == 1


def test_tabletop_draws_all_four_goals_and_can_go_on_after_success():
    states, _ = jax.jit(jax.vmap(tabletop(walls=True).reset))(jax.random.split(jax.random.key(0), 400))
    goals, counts = np.unique(np.asarray(states.goal), axis=0, return_counts=True)
    assert len(goals) == 4 and counts.min() > 60
    goal = jnp.array([0.0, 0.0, 0.0, 2.0])
    home = TabletopState(goal[:2], goal[2:], jnp.array(False), jnp.array(False), goal)
    endless = tabletop(walls=True, terminate_on_success=False)
    _, _, reward, terminated, success = endless.step(home, jnp.zeros(3), jax.random.key(0))
    assert reward == 1 and success and not terminated


def test_sticky_walls_are_never_left():
    _, positions = _random_walks(irreversible_maze(), 200, 300)
    stuck = np.asarray(maze_module.is_irreversible(positions))
    assert stuck[:, -1].mean() > 0.9
    assert np.all(stuck[:, 1:] >= stuck[:, :-1])
    assert np.abs(positions).max() <= 1


def test_sticky_maze_has_96_free_cells():
    assert sum(cell != '#' for row in maze_module.STICKY_LAYOUT for cell in row) == 96


def test_u_maze_shortest_way_is_17_steps_and_walls_hold():
    task = u_maze(start_noise=0.0)
    _, positions = _random_walks(task, 200, 100)
    cells = np.floor((positions + 2) / (4 / 3)).astype(int)
    assert cells.min() >= 0 and cells.max() <= 2
    assert not np.any((cells[..., 1] == 1) & (cells[..., 0] < 2))
    act = _towards([(0.68, -0.68), (0.68, 0.68), (-4 / 3, 4 / 3)], 0.3, 0.05)
    _, _, terminated = _play(task, task.reset(jax.random.key(0)), act, 0, 40)
    assert 17 <= _steps_to_goal(terminated) <= 18


def test_u_maze_slides_along_walls():
    task = u_maze(start_noise=0.0)
    state, start = task.reset(jax.random.key(0))
    for _ in range(3):
        state, position, *_ = task.step(state, jnp.array([1.0, 1.0]), jax.random.key(0))
    assert position[0] > start[0] + 0.8 and position[1] < -2 / 3


@pytest.mark.parametrize('layout', [('S.', 'G'), ('S.', '..'), ('SX', '.G')])
def test_u_maze_refuses_bad_layouts(layout):
    with pytest.raises(UsageError):
        u_maze(layout=layout)


@pytest.mark.parametrize('missing', [0.0, 0.55, 0.9])
def test_u_maze_offline_data_end_before_the_missing_part(missing):
    data = u_maze_offline(jax.random.key(3), 40, missing=missing)
    boundary = data.extras['boundary'].astype(bool)
    assert data.reward.sum() == 0 and np.all(data.discount == 1)
    for positions in (data.observation, data.next_observation):
        in_arm = positions[:, 1] >= 2 / 3
        assert not np.any(in_arm & (positions[:, 0] < -2 + 4 * missing - 1e-6))
    linked = np.all(data.observation[1:] == data.next_observation[:-1], axis=1)
    np.testing.assert_array_equal(linked, ~boundary[:-1])
    assert boundary[-1]


def test_u_maze_offline_data_are_transitions_of_the_task_and_repeat_with_the_key():
    data = u_maze_offline(jax.random.key(3), 20)
    again = u_maze_offline(jax.random.key(3), 20)
    jax.tree.map(np.testing.assert_array_equal, data, again)
    step = jax.jit(jax.vmap(u_maze().step, in_axes=(0, 0, None)))
    _, successors, rewards, *_ = step(maze_module.MazeState(data.observation), data.action, jax.random.key(0))
    np.testing.assert_allclose(successors, data.next_observation, atol=1e-6)
    np.testing.assert_array_equal(rewards, data.reward)


def test_point_mass_offline_data_take_the_long_way():
    data = point_mass_wall_offline(jax.random.key(0), 30)
    boundary = data.extras['boundary'].astype(bool)
    x, y = data.observation[:, 0], data.observation[:, 1]
    crossing = (x < 0.5) & (data.next_observation[:, 0] >= 0.5)
    assert crossing.sum() >= 30 and y[crossing].min() > 1.15
    assert boundary.sum() == 30 and data.reward.sum() >= 28
    np.testing.assert_array_equal(data.reward, 1 - data.discount)
    np.testing.assert_array_equal(boundary & (data.discount == 0), data.discount == 0)


def test_probes_have_the_answers_they_state():
    key = jax.random.key(0)
    task = make_task('ooorl/ProbeTwoSteps-v0')
    state, observation = task.reset(key)
    state, second, reward, terminated, _ = task.step(state, jnp.zeros(1), key)
    assert observation == 0 and second == 1 and reward == 0 and not terminated
    _, _, reward, terminated, _ = task.step(state, jnp.zeros(1), key)
    assert reward == 1 and terminated
    for name, best in (('ProbeActionReward', lambda o: 0.5), ('ProbeActionAndObservationReward', lambda o: o / 2)):
        task = make_task(f'ooorl/{name}-v0')
        state, observation = task.reset(key)
        _, _, reward, terminated, _ = task.step(state, jnp.full(1, best(observation[0])), key)
        assert reward == 1 and terminated
