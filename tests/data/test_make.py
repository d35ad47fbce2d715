"""Local data sets: what the files hold, that their rows replay in the environments, cut-out regions."""

import json

import numpy as np
import pytest
from d4rl_checks import make as make_env
from d4rl_checks import policy, recorded, registered, replay_errors

pytest.importorskip('mujoco')
h5py = pytest.importorskip('h5py')

from ooorl.data import load, load_task  # noqa: E402
from ooorl.data.make import RECIPES, drop_region, make  # noqa: E402
from ooorl.data.policies_npz import load_policy  # noqa: E402
from ooorl.errors import UsageError  # noqa: E402

pytestmark = pytest.mark.filterwarnings('ignore')


def _columns(path):
    columns = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: columns.update({name: item[()]}) if hasattr(item, 'shape') else None)
    return columns


def _perceptron(path, sizes, **extra):
    """Writes a small random policy."""
    random = np.random.default_rng(0)
    arrays = {}
    for index, (num_in, num_out) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        arrays[f'W{index}'] = 0.1 * random.standard_normal((num_in, num_out)).astype(np.float32)
        arrays[f'b{index}'] = np.zeros(num_out, np.float32)
    np.savez(path, **arrays, act='tanh', outact='clip', **extra)
    return path


def _replayed(path, environment, num_positions):
    columns = _columns(path)
    env = make_env(environment).unwrapped
    env.reset(seed=0)
    rows = [columns[name] for name in ('observations', 'actions', 'timeouts')]
    return replay_errors(env, *rows, num_positions), columns


@pytest.mark.parametrize('size', ['umaze', 'medium', 'large'])
def test_point_rows_replay_in_the_environment(tmp_path, size):
    path = tmp_path / 'point.hdf5'
    manifest = make(f'maze2d-{size}', path, rows=4001, seed=1)
    errors, columns = _replayed(path, manifest['environment'], 2)
    assert len(columns['rewards']) == 4001
    assert errors[:, :2].max() < 1e-6 and errors[:, 2:].max() < 2e-5
    assert np.abs(columns['actions']).max() <= 1.0 and not columns['terminals'].any()
    assert columns['timeouts'][-1] and columns['timeouts'].sum() > 10
    inside = ~columns['timeouts'][:-1]
    np.testing.assert_array_equal(columns['next_observations'][:-1][inside], columns['observations'][1:][inside])
    assert load(path).num_rows > 3900


def test_point_data_visit_every_cell_and_the_goal(tmp_path):
    make('maze2d-umaze', tmp_path / 'point.hdf5', rows=20_000, seed=0)
    columns = _columns(tmp_path / 'point.hdf5')
    cells = {tuple(cell) for cell in np.rint(columns['observations'][:, :2]).astype(int)}
    assert cells == {(1, 1), (1, 2), (1, 3), (2, 3), (3, 1), (3, 2), (3, 3)}
    assert 0.02 < columns['rewards'].mean() < 0.3


def test_dense_rewards_are_those_of_the_rows_own_observation(tmp_path):
    make('maze2d-umaze-dense', tmp_path / 'point.hdf5', rows=2000, seed=0)
    columns = _columns(tmp_path / 'point.hdf5')
    expected = np.exp(-np.linalg.norm(columns['observations'][:, :2] - [1.0, 1.0], axis=1))
    np.testing.assert_allclose(columns['rewards'], expected, rtol=1e-6)


def test_data_are_a_function_of_the_seed(tmp_path):
    hashes = [
        make('maze2d-medium', tmp_path / f'{name}.hdf5', rows=5000, seed=seed, num_threads=threads)['sha256']
        for name, seed, threads in (('a', 3, 1), ('b', 3, 2), ('c', 4, 2))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_ant_rows_replay_and_episodes_go_on_after_the_goal(tmp_path):
    path = tmp_path / 'ant.hdf5'
    actor = recorded('policies/d4rl_ant_hierarch_pol.npz')
    manifest = make('antmaze-umaze', path, rows=3003, seed=0, policies=[actor])
    errors, columns = _replayed(path, manifest['environment'], 15)
    assert errors[:, :15].max() < 5e-6
    np.testing.assert_array_equal(np.flatnonzero(columns['timeouts']), [1000, 2001, 3002])
    distance = np.linalg.norm(columns['next_observations'][:, :2] - [0.75, 8.75], axis=1)
    np.testing.assert_array_equal(columns['rewards'], distance <= 0.5)
    np.testing.assert_array_equal(columns['terminals'], columns['rewards'] > 0)
    assert manifest['behaviours'][0]['own_goal_reached'] >= 1 / 3
    dataset = load(path)
    assert (dataset.num_rows, dataset.num_episodes) == (3003, 3)


def test_an_unfinished_ant_episode_has_no_time_out(tmp_path):
    actor = _perceptron(tmp_path / 'ant.npz', (29, 4, 8), log_std=np.zeros(8))
    make('antmaze-large-diverse', tmp_path / 'ant.hdf5', rows=1100, seed=0, policies=[actor])
    np.testing.assert_array_equal(np.flatnonzero(_columns(tmp_path / 'ant.hdf5')['timeouts']), [1000])
    assert load(tmp_path / 'ant.hdf5').num_episodes == 1
    with pytest.raises(UsageError, match='none of the 500 of antmaze-umaze does; make more'):
        make('antmaze-umaze', tmp_path / 'short.hdf5', rows=500, policies=[actor])


@pytest.mark.parametrize(('body', 'sizes'), [('hopper', (11, 3)), ('walker2d', (17, 6)), ('halfcheetah', (17, 6))])
def test_policy_rows_hold_whole_episodes_of_every_policy(tmp_path, body, sizes):
    first, second = (
        _perceptron(tmp_path / f'{name}.npz', (sizes[0], 8, sizes[1]), log_std=np.full(sizes[1], spread))
        for name, spread in (('first', -1.0), ('second', 0.0))
    )
    path = tmp_path / 'rows.hdf5'
    manifest = make(f'{body}-medium-expert', path, rows=3000, seed=0, policies=[first, second])
    columns = _columns(path)
    env = make_env(manifest['environment']).unwrapped
    env.reset(seed=0)
    for row in range(0, 3000, 37):
        env.set_state(columns['infos/qpos'][row], columns['infos/qvel'][row])
        reached, reward, terminated, _, _ = env.step(columns['actions'][row])
        np.testing.assert_allclose(reached, columns['next_observations'][row], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(reward, columns['rewards'][row], rtol=1e-4, atol=1e-4)
        assert terminated == columns['terminals'][row]
    assert [behaviour['rows'] for behaviour in manifest['behaviours']] == [1500, 1500]
    assert [behaviour['name'] for behaviour in manifest['behaviours']] == ['first.npz', 'second.npz']
    # The share of the first policy ends its last episode, and so does the file.
    ends = columns['timeouts'] | columns['terminals']
    assert ends[1499] and ends[2999]
    assert load(path).num_rows == 3000


def test_rows_of_a_hand_replay_with_what_resets_place(tmp_path):
    actor = _perceptron(tmp_path / 'hand.npz', (46, 4, 26), log_std=np.zeros(26))
    manifest = make('hammer-expert', tmp_path / 'rows.hdf5', rows=230, seed=0, policies=[actor])
    columns = _columns(tmp_path / 'rows.hdf5')
    np.testing.assert_array_equal(np.flatnonzero(columns['timeouts']), [199, 229])
    assert np.ptp(columns['infos/board_pos'][:200], axis=0).max() == 0.0 < abs(np.diff(columns['infos/board_pos'][[0, 200], 2]))
    env = make_env(manifest['environment']).unwrapped
    env.reset(seed=7)
    for row in (3, 217):
        env.set_env_state({name: columns[f'infos/{name}'][row] for name in env.state_names})
        reached, reward, _, _, _ = env.step(columns['actions'][row])
        np.testing.assert_allclose(reached, columns['next_observations'][row], rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(reward, columns['rewards'][row], rtol=1e-4, atol=1e-4)


def test_random_half_cheetah_scores_about_nothing(tmp_path):
    manifest = make('halfcheetah-random', tmp_path / 'rows.hdf5', rows=5000, seed=0)
    (behaviour,) = manifest['behaviours']
    assert behaviour['episodes'] == 5 and abs(behaviour['normalised_score']) < 1.0
    assert json.loads((tmp_path / 'rows.hdf5.json').read_text()) == manifest
    assert manifest['versions']['mujoco'] and manifest['seed'] == 0


def test_a_ladder_of_policies_gives_equal_shares(tmp_path):
    names = ['sb3/a2c-Hopper', 'sb3/sac-Hopper', 'sb3/trpo-Hopper']
    ladder = [recorded(f'policies/{name}.npz') for name in names]
    manifest = make('hopper-medium-replay', tmp_path / 'rows.hdf5', rows=6000, seed=0, policies=ladder)
    assert [behaviour['rows'] for behaviour in manifest['behaviours']] == [2000, 2000, 2000]
    scores = [behaviour['normalised_score'] for behaviour in manifest['behaviours']]
    assert scores[0] < scores[1] < scores[2]


def test_regions_are_cut_out_and_mark_boundaries(tmp_path):
    source, out = tmp_path / 'point.hdf5', tmp_path / 'missing.hdf5'
    make('maze2d-large', source, rows=20_000, seed=0)
    manifest = drop_region(source, out, discs=[(3.0, 6.0, 0.75)], boxes=[(0.0, 0.0, 2.5, 2.5)])
    before, after = _columns(source), _columns(out)
    xy = before['observations'][:, :2]
    inside = np.linalg.norm(xy - [3.0, 6.0], axis=1) <= 0.75
    inside |= (xy <= 2.5).all(axis=1)
    assert inside.any() and manifest['removed_rows'] == inside.sum()
    for name in ('observations', 'actions', 'rewards', 'infos/goal'):
        np.testing.assert_array_equal(after[name], before[name][~inside])
    gap = np.append(inside[1:], False)[~inside]
    np.testing.assert_array_equal(after['timeouts'], before['timeouts'][~inside] | gap)
    # Where no time-out is marked the next row is the successor; and a row before a gap keeps its true one.
    follows = ~after['timeouts'][:-1]
    np.testing.assert_array_equal(after['next_observations'][:-1][follows], after['observations'][1:][follows])
    assert manifest['made_from']['manifest']['recipe'] == 'maze2d-large'
    dataset = load(out)
    kept_gaps = dataset.transitions.next_observation[dataset.transitions.extras['boundary'] > 0]
    assert (np.linalg.norm(kept_gaps[:, :2] - [3.0, 6.0], axis=1) <= 0.75).any()


def test_the_task_with_missing_data_lacks_about_as_many_rows_as_the_published_one(tmp_path):
    """18,713 of 500,000 published rows are missing; how much time a walk spends in the corners varies."""
    make('maze2d-large', tmp_path / 'point.hdf5', rows=200_000, seed=0)
    whole, holed = load(tmp_path / 'point.hdf5'), load_task('maze2d-missing-data-large-v1', tmp_path / 'point.hdf5')
    assert 0.025 < 1 - holed.num_rows / whole.num_rows < 0.055
    x, y = holed.transitions.observation[:, :2].T
    assert np.hypot(x - 7, y - 9).min() > 1.25
    for row in (1, 7):  # the corner cells of the left column
        assert not ((np.abs(x - row) <= 0.5) & (np.abs(y - 1) <= 0.5)).any()


def test_policies_of_both_kinds_are_computed_as_described(tmp_path):
    random = np.random.default_rng(0)
    plain = load_policy(
        _perceptron(
            tmp_path / 'plain.npz',
            (3, 4, 2),
            obs_mean=np.ones(3),
            obs_var=np.full(3, 4.0),
            clip_obs=0.5,
            eps=0.0,
            log_std=np.full(2, -30.0),
        )
    )
    observation = np.array([1.2, 9.0, -9.0])
    hidden = np.tanh(np.array([0.1, 0.5, -0.5]) @ plain.arrays['W0'])
    np.testing.assert_allclose(plain.mode(observation), np.clip(hidden @ plain.arrays['W1'], -1, 1), rtol=1e-6)
    np.testing.assert_allclose(plain.sample(observation, random), plain.mode(observation), atol=1e-10)
    squashed = tmp_path / 'squashed.npz'
    np.savez(
        squashed,
        W0=np.eye(2),
        b0=np.zeros(2),
        W_mean=np.ones((2, 1)),
        b_mean=np.zeros(1),
        W_logstd=np.zeros((2, 1)),
        b_logstd=np.zeros(1),
    )
    loaded = load_policy(squashed)
    np.testing.assert_allclose(loaded.mode([0.5, -2.0]), np.tanh([0.5]))
    draws = loaded.sample(np.tile([0.5, -2.0], (20_000, 1)), random)
    np.testing.assert_allclose(np.arctanh(draws).mean(), 0.5, atol=0.03)
    np.testing.assert_allclose(np.arctanh(draws).std(), 1.0, atol=0.03)


def test_recorded_policies_load():
    assert policy('mjrl/door-v0').hidden == 'tanh'
    ant = policy('d4rl_ant_hierarch_pol')
    assert (ant.observation_size, ant.action_size, ant.hidden, ant.output) == (29, 8, 'relu', 'tanh')


def test_bad_requests_are_refused(tmp_path):
    out, actor = tmp_path / 'out.hdf5', _perceptron(tmp_path / 'p.npz', (11, 3))
    cases = [
        ('recipe must be one of', lambda: make('hopper-perfect', out, rows=10)),
        ('rows must be at least 2', lambda: make('maze2d-umaze', out, rows=1)),
        ('knows the options', lambda: make('maze2d-umaze', out, rows=10, greedy=True)),
        ('needs 2 policies', lambda: make('hopper-medium-expert', out, rows=10, policies=[actor])),
        ('needs no policies', lambda: make('hopper-random', out, rows=10, policies=[actor])),
        ('one or more policies', lambda: make('hopper-medium-replay', out, rows=10)),
        ('must read 17 numbers', lambda: make('walker2d-medium', out, rows=10, policies=[actor])),
        ('no policy file', lambda: make('hopper-medium', out, rows=10, policies=[tmp_path / 'none.npz'])),
        ('drop_region needs', lambda: drop_region(out, out)),
        ('no file', lambda: drop_region(tmp_path / 'none.hdf5', out, discs=[(0, 0, 1)])),
    ]
    for message, call in cases:
        with pytest.raises(UsageError, match=message):
            call()
    assert not out.exists()


def test_every_recipe_has_a_registered_environment():
    for name in {recipe.environment for recipe in RECIPES.values()}:
        assert registered(name).id == name
