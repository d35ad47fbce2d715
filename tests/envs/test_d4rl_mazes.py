"""The ant and the point mass in D4RL's mazes: layouts, resets, rewards, dynamics against recordings."""

import numpy as np
import pytest
from d4rl_checks import make, needs_ogbench, needs_robotics, policy, read, replay_errors

mujoco = pytest.importorskip('mujoco')

from ooorl.envs.d4rl import antmaze, maze2d, mazes  # noqa: E402
from ooorl.envs.d4rl.controllers import AntNavigator, PointController  # noqa: E402
from ooorl.envs.d4rl.parallel import ParallelSimulation  # noqa: E402
from ooorl.envs.d4rl.simulated import margins_add  # noqa: E402
from ooorl.errors import UsageError  # noqa: E402

SIZES = ('umaze', 'medium', 'large')


def _walls(layout):
    return [[tile == '#' for tile in row] for row in layout]


@needs_robotics
@pytest.mark.parametrize(('size', 'name'), [('umaze', 'U_MAZE'), ('medium', 'MEDIUM_MAZE'), ('large', 'LARGE_MAZE')])
def test_layouts_are_those_of_gymnasium_robotics(size, name):
    from gymnasium_robotics.envs.maze import maps

    assert _walls(mazes.MAZES[size].rows) == [[cell == 1 for cell in row] for row in getattr(maps, name)]


@needs_ogbench
@pytest.mark.parametrize('size', ['medium', 'large'])
def test_ant_equals_the_ant_of_ogbench_over_100_open_loop_steps(size):
    from ogbench.locomaze.maze import make_maze_env

    theirs, ours = make_maze_env('ant', 'maze', maze_type=size), antmaze.AntMazeEnv(size)
    assert _walls(mazes.MAZES[size].rows) == (theirs.maze_map == 1).tolist()
    random = np.random.default_rng(0)
    theirs.reset(seed=0)
    ours.reset(seed=0)
    qpos, qvel = theirs.data.qpos.copy(), theirs.data.qvel.copy()
    for env in (theirs, ours):
        # Both without the warm start that their resets left behind.
        mujoco.mj_resetData(env.model, env.data)
        env.set_state(qpos, qvel)
    for _ in range(100):
        action = random.uniform(-1.0, 1.0, 8)
        np.testing.assert_array_equal(ours.step(action)[0], theirs.step(action)[0])


def _as_recorded(env):
    """The recordings were made where margins add up."""
    env.reset(seed=0)
    if not margins_add():
        env.model.geom_margin[:] *= 2.0
    return env


def test_recorded_ant_steps_are_reproduced():
    keys = ('observations', 'actions', 'timeouts')
    observations, actions, timeouts = read('antmaze/antmaze-umaze-gen.hdf5', keys, 2002)
    errors = replay_errors(_as_recorded(antmaze.AntMazeEnv('umaze')), observations, actions, timeouts, 15)
    if tuple(int(part) for part in mujoco.__version__.split('.')[:2]) >= (3, 12):
        # Later versions than the recording's resolve contacts a little differently.
        assert np.quantile(errors[:, :15].max(axis=1), 0.95) < 1e-3
        return
    # The file is float32: half a unit in the last place of 9 metres is 5e-7.
    assert errors[:, :15].max() < 2e-6
    assert errors[:, 15:].max() < 2e-5


def test_recorded_point_steps_and_rewards_are_reproduced():
    keys = ('observations', 'actions', 'timeouts', 'rewards')
    observations, actions, timeouts, rewards = read('maze2d/maze2d-umaze-gen.hdf5', keys, 20_000)
    env = _as_recorded(maze2d.Maze2dEnv('umaze'))
    errors = replay_errors(env, observations, actions, timeouts, 2)
    # On MuJoCo 3.3.0 one of these rows differs, by 0.007.
    share = 1.0 if margins_add() else 0.95
    assert np.quantile(errors[:, :2].max(axis=1), share) < 1e-6
    assert np.quantile(errors[:, 2:].max(axis=1), share) < 1e-5
    # Recorded rewards are those of the row's own observation.
    np.testing.assert_array_equal(maze2d.reward_at(observations[:, :2], env.goal, False), rewards)


@pytest.mark.parametrize(('build', 'margin'), [(antmaze.build_model, 0.01), (maze2d.build_model, 0.002)])
def test_d4rl_margins_begin_contacts_where_the_larger_margin_says(build, margin):
    model = build(mazes.MAZES['umaze'], d4rl_margins=True)
    # Both shapes of every pair have this margin, which are added or compared.
    np.testing.assert_allclose(model.geom_margin * (2 if margins_add() else 1), margin)


@pytest.mark.parametrize(('size', 'corner'), [('umaze', (0, 8)), ('medium', (20, 20)), ('large', (32, 24))])
def test_ant_starts_at_the_origin_and_goals_are_resampled_in_their_cell(size, corner):
    env = antmaze.AntMazeEnv(size)
    starts, goals = [], []
    for seed in range(200):
        observation, info = env.reset(seed=seed)
        starts.append(observation)
        goals.append(info['goal'] - corner)
    starts, goals = np.array(starts), np.array(goals)
    rest = np.array([0, 0, 0.75, 1] + [0] * 11)
    assert (np.abs(starts[:, :15] - rest) <= 0.1).all()
    assert 0.09 < starts[:, 15:].std() < 0.11
    assert (goals >= 0).all() and (goals <= 1.5).all()
    # U[0, 1] + U[0, 0.5]: mean 0.75, variance 1 / 12 + 0.25 / 12.
    np.testing.assert_allclose(goals.mean(axis=0), 0.75, atol=0.08)
    np.testing.assert_allclose(goals.var(axis=0), 1.25 / 12, atol=0.03)


def test_ant_is_paid_and_ends_within_half_a_metre_of_the_goal():
    for terminate in (True, False):
        env = antmaze.AntMazeEnv('umaze', terminate_at_goal=terminate)
        for distance, near in ((0.3, True), (0.8, False)):
            env.reset(seed=0, options={'goal': (0.0, distance)})
            env.set_state(env.init_qpos, env.init_qvel)
            _, reward, terminated, truncated, info = env.step(np.zeros(8))
            assert (reward, terminated, truncated) == (float(near), near and terminate, False)
            assert info['success'] is near


@pytest.mark.parametrize(('size', 'horizon'), [('Umaze', 300), ('Medium', 600), ('Large', 800)])
def test_point_episodes_last_their_horizon_and_never_end(size, horizon):
    env = make(f'ooorl/Maze2d{size}-v0')
    env.reset(seed=0)
    steps = 0
    truncated = False
    while not truncated:
        _, _, terminated, truncated, _ = env.step(np.zeros(2))
        assert not terminated
        steps += 1
    assert steps == horizon


def test_point_resets_cover_every_free_cell():
    env = maze2d.Maze2dEnv('umaze')
    env.reset(seed=0)
    starts = np.array([env.reset()[0] for _ in range(700)])
    cells, counts = np.unique(np.rint(starts[:, :2]), axis=0, return_counts=True)
    assert (np.abs(starts[:, :2] - np.rint(starts[:, :2])) <= 0.1).all()
    np.testing.assert_array_equal(cells, mazes.cells(env.maze, '.'))
    assert counts.min() > 60 and counts.max() < 145  # 100 expected in each, standard deviation 9
    assert 0.09 < starts[:, 2:].std() < 0.11


def test_point_speed_is_cut_before_the_step_and_rewards_follow_the_successor():
    sparse, dense = maze2d.Maze2dEnv('umaze'), maze2d.Maze2dEnv('umaze', reward='dense')
    for env in (sparse, dense):
        env.reset(seed=0)
        env.set_state([1.0, 1.48], [0.0, 100.0])
    (observation, reward, *_), (_, shaped, *_) = sparse.step(np.zeros(2)), dense.step(np.zeros(2))
    # From 1.48 (inside) at speed 5 for 0.01 s to about 1.53 (outside).
    assert 1.52 < observation[1] < 1.54
    assert reward == 0.0
    np.testing.assert_allclose(shaped, np.exp(1.0 - observation[1]), rtol=1e-12)


@pytest.mark.parametrize('size', SIZES)
def test_paths_lead_from_everywhere_to_everywhere(size):
    maze = mazes.MAZES[size]
    table, free = mazes.next_cells(maze), mazes.cells(maze, '.')
    for target in free:
        for start in free:
            cell, steps = tuple(start), 0
            while cell != tuple(target):
                following = tuple(table[(*cell, *target)])
                assert abs(following[0] - cell[0]) + abs(following[1] - cell[1]) == 1
                assert maze.rows[following[0]][following[1]] == '.'
                cell, steps = following, steps + 1
                assert steps < 60


# Mean returns measured with another implementation of the controller. Controllers differ by where they cut
# corners, hence the width.
@pytest.mark.parametrize(('size', 'horizon', 'expected'), [('umaze', 300, 239), ('medium', 600, 406), ('large', 800, 572)])
def test_the_waypoint_controller_reaches_the_goal_and_stays(size, horizon, expected):
    maze, random, num = mazes.MAZES[size], np.random.default_rng(0), 100
    env, simulation = maze2d.Maze2dEnv(size), ParallelSimulation(maze2d.build_model(maze), 1, 2)
    env.reset(seed=0)
    state = np.array([env.reset()[0] for _ in range(num)])
    controller, total = PointController(maze, random), np.zeros(num)
    goals = np.tile(env.goal, (num, 1))
    controller.aim(state[:, :2], goals)
    for _ in range(horizon):
        action, reached = controller.act(state)
        state[:, 2:] = np.clip(state[:, 2:], -5.0, 5.0)
        state = simulation.step(state, action)
        total += maze2d.reward_at(state[:, :2], env.goal, False)
    simulation.close()
    assert reached.mean() > 0.95
    assert abs(total.mean() / expected - 1.0) < 0.15


def _share_of_own_goals(num_ants, num_steps, seed, enough=1.0):
    """Of so many steps; fewer where the share, which only grows, is enough before."""
    maze, random = mazes.MAZES['umaze'], np.random.default_rng(seed)
    env = antmaze.AntMazeEnv('umaze')
    env.reset(seed=seed)
    starts = [env.reset() for _ in range(num_ants)]
    state, goal = np.array([start[0] for start in starts]), np.array([start[1]['goal'] for start in starts])
    navigator = AntNavigator(maze, policy('d4rl_ant_hierarch_pol'), 0.2, random)
    simulation, arrived = ParallelSimulation(env.model, antmaze.FRAME_SKIP, 2), np.zeros(num_ants, bool)
    for _ in range(num_steps):
        state = simulation.step(state, navigator.act(state, goal))
        arrived |= np.linalg.norm(state[:, :2] - goal, axis=1) <= antmaze.GOAL_RADIUS
        if arrived.mean() >= enough:
            break
    simulation.close()
    return arrived.mean()


def test_the_policy_behind_d4rls_data_walks_to_its_goals():
    assert _share_of_own_goals(8, 1001, seed=0, enough=0.5) >= 0.5


@pytest.mark.slow
def test_the_policy_behind_d4rls_data_reaches_most_of_its_goals():
    assert _share_of_own_goals(100, 1001, seed=0) >= 0.65


def test_unknown_mazes_and_rewards_are_refused():
    with pytest.raises(UsageError, match='maze must be one of'):
        antmaze.AntMazeEnv('ultra')
    with pytest.raises(UsageError, match='reward must be'):
        maze2d.Maze2dEnv('umaze', reward='binary')
