"""OGBench's data, made here: rows replay, rewards are the package's own, a make is the same however it is cut."""

import importlib
import json
import os

import numpy as np
import pytest
from conftest import ROOT

ogbench = pytest.importorskip('ogbench')

from ooorl import catalogue, data, envs  # noqa: E402
from ooorl.catalogue.ogbench import FAMILIES  # noqa: E402
from ooorl.data.audit import audit  # noqa: E402
from ooorl.data.make import RECIPES, make, named, num_rows  # noqa: E402
from ooorl.envs.ogbench.oracles import cells_at, episode  # noqa: E402
from ooorl.errors import UsageError  # noqa: E402
from ooorl.runner import build, config  # noqa: E402
from ooorl.runner.cli import main  # noqa: E402

pytestmark = pytest.mark.filterwarnings('ignore')
MADE = ('cube-single-noisy', 'scene-play', 'puzzle-3x3-play', 'pointmaze-teleport-stitch')


@pytest.fixture(scope='module')
def place():
    """`family -> environment of its task 1`, each made once."""
    made = {}
    return lambda family: made.setdefault(family, envs.single(f'{family}-singletask-task1-v0').unwrapped)


@pytest.fixture(scope='module', params=MADE)
def made(request, tmp_path_factory):
    """(recipe, family, path) of two short episodes."""
    path = tmp_path_factory.mktemp('made') / f'{request.param}.npz'
    make(request.param, path, rows=38, episode_rows=20, num_threads=1)
    return request.param, request.param.rpartition('-')[0], path


def test_recorded_actions_from_recorded_states_give_the_same(made, place):
    _, family, path = made
    env = place(family)
    dataset = data.load(path, labeller=env, infos=env.state_names)
    rows = dataset.transitions
    assert dataset.num_rows == 36 and np.flatnonzero(rows.extras['boundary']).tolist() == [18, 35]
    env.reset(seed=0)
    for row in range(dataset.num_rows):
        env.set_env_state({name: dataset.infos[name][row] for name in env.state_names})
        observation, reward, terminated, _, _ = env.step(rows.action[row])
        error = np.delete(np.abs(observation - rows.next_observation[row]), env.unsteady_entries)
        assert error.max() < 1e-3, row  # 0.1 mm: states are stored in float32, and how contacts began is not
        assert (reward, terminated) == (rows.reward[row], rows.discount[row] == 0)


def test_made_data_belong_to_their_environment_whatever_is_unsteady(made, place):
    _, family, path = made
    found = audit(path, lambda: envs.single(f'{family}-singletask-v0'), max_rows=20)
    assert found.kind != 'other' and not found.wrong and not found.findings  # so few steps spread little: rounding is 'rough'
    hidden = {'scene': (26, 27), 'cube-single': (26, 27), 'puzzle-3x3': (18,)}
    assert place(family).unsteady_entries == hidden.get(family, ())


def test_labels_and_rows_are_those_of_the_package(made, place):
    _, family, path = made
    dataset, theirs = data.load(path, labeller=place(family)), ogbench.load_dataset(str(path), add_info=True)
    ogbench.relabel_utils.relabel_dataset(f'{family}-singletask-task1-v0', place(family)._inner, theirs)
    rows = dataset.transitions
    names = {'observation': 'observations', 'action': 'actions', 'next_observation': 'next_observations', 'reward': 'rewards'}
    for ours, column in (*names.items(), ('discount', 'masks')):
        np.testing.assert_array_equal(getattr(rows, ours), theirs[column])
    np.testing.assert_array_equal(rows.extras['boundary'], theirs['terminals'])
    assert f'by ogbench {json.loads(open(f"{path}.json").read())["versions"]["ogbench"]}' in dataset.notes[0]


def test_rewards_are_those_of_the_state_that_is_acted_in(place, tmp_path):
    dense, sparse = place('cube-single'), envs.single('cube-single-play-singletask-task1-v0', reward='sparse').unwrapped
    dense.reset(seed=0)
    states = {'qpos': np.tile(dense._inner.data.qpos, (2, 1)), 'qvel': np.zeros((2, dense.model.nv))}
    states['qpos'][1, 14:17] = dense._inner._data.mocap_pos[0]
    for env in (dense, sparse):
        rewards, ended = env.labelled(states)
        assert rewards.tolist() == [-1.0, 0.0] and ended.tolist() == [False, True]
        env.reset(seed=0)
        for row in range(2):
            env.set_env_state({name: column[row] for name, column in states.items()})
            _, reward, terminated, _, info = env.step(np.ones(5))  # which leaves the cube where it is
            assert (reward, terminated, info['success']) == (row - 1.0, row == 1, row == 1)
    with pytest.raises(UsageError, match=r'states of sizes \[21, 20\] are needed by cube-single.*got \[20, 20\]'):
        dense.labelled({**states, 'qpos': states['qpos'][:, 1:]})


@pytest.mark.parametrize('family', ['antmaze-medium', 'humanoidmaze-medium', 'antsoccer-arena'])
def test_walkers_whose_data_come_from_elsewhere_replay_and_are_labelled(place, tmp_path, family):
    """Rows in the layout of the published files, float32; the second half stands at the goal, or its ball does."""
    env, path = place(family), tmp_path / 'walker.npz'
    env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (8, FAMILIES[family].action_dim))
    states, seen, start = [], [], 15 if 'soccer' in family else 0
    for row, action in enumerate(actions):
        qpos, qvel = env._inner.data.qpos.copy(), env._inner.data.qvel.copy()
        if row == 4:
            qpos[start : start + 2] = env._inner.cur_goal_xy
            env.set_env_state({'qpos': qpos, 'qvel': qvel})
        states.append((qpos, qvel))
        seen.append(env._inner.get_ob())
        ended = env.step(action)[2]
        assert ended == (row >= 4)
    columns = {'observations': seen, 'actions': actions, 'qpos': [s[0] for s in states], 'qvel': [s[1] for s in states]}
    np.savez(path, terminals=np.arange(8) % 4 == 3, **{name: np.float32(column) for name, column in columns.items()})
    rows = data.load(path, labeller=env).transitions
    assert rows.reward.tolist() == [-1.0] * 3 + [0.0] * 3 and rows.discount.tolist() == [1.0] * 3 + [0.0] * 3
    found = audit(path, lambda: envs.single(f'{family}-navigate-singletask-task1-v0'))
    assert found.kind != 'other' and not found.wrong
    entry = catalogue.lookup(f'{family}-navigate-singletask-task1-v0')
    assert (entry.observation_dim, entry.action_dim) == (rows.observation.shape[1], rows.action.shape[1])


def test_the_experiment_on_the_cube_begins_before_arrivals(place, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'experiments'))
    held, env, path = importlib.import_module('cube_held'), place('cube-single'), tmp_path / 'cube.npz'
    env.reset(seed=0)
    qpos = np.tile(env._inner.data.qpos, (30, 1)) + np.eye(21)[14] * 1e-3 * np.arange(30)[:, None]
    qpos[25:, 14:17] = env._inner._data.mocap_pos[0]
    np.savez(path, qpos=qpos, qvel=np.zeros((30, 20)), terminals=np.arange(30) == 29)
    made, begun = held.CubeHeldEnv(str(path)), []
    for seed in range(6):
        made.reset(seed=seed)
        begun.append(round((made._inner.data.qpos[14] - qpos[0, 14]) / 1e-3))
    assert len(set(begun)) > 1 and set(begun) <= set(range(5, 21))
    with pytest.raises(UsageError, match='needs data of cube-single as settings.starts'):
        held.CubeHeldEnv('absent.npz')


def test_sparse_rewards_tell_only_whether_all_is_done(place):
    states = {'qpos': np.zeros((3, 23)), 'qvel': np.zeros((3, 23)), 'button_states': np.zeros((3, 9), np.int64)}
    goal = place('puzzle-3x3')
    goal.reset(seed=0)
    states['button_states'][1] = goal._inner._target_button_states
    states['button_states'][2] = 1 - goal._inner._target_button_states
    missing = -(states['button_states'] != goal._inner._target_button_states).sum(axis=1)
    np.testing.assert_array_equal(goal.labelled(states)[0], missing)
    goal._sparse = True
    np.testing.assert_array_equal(goal.labelled(states)[0], [-1.0, 0.0, -1.0] if missing[0] else [0.0, 0.0, -1.0])
    goal._sparse = False


@pytest.mark.parametrize('family', ['scene', 'pointmaze-teleport'])
def test_episodes_follow_from_the_seed_whatever_was_before(place, family):
    env, actions = place(family), np.random.default_rng(0).uniform(-1, 1, (12, FAMILIES[family].action_dim))

    def episode(env):
        np.random.seed(np.random.randint(1000))
        seen = [env.reset(seed=3)[0]]
        return np.stack([*seen, *(env.step(action)[0] for action in actions)])

    first, outside = episode(env), np.random.get_state()[1].tolist()
    env.reset(seed=1)
    env.step(actions[0])
    assert np.random.get_state()[1].tolist() == outside  # numpy's own generator is left as it was
    np.testing.assert_array_equal(first, episode(env))
    np.testing.assert_array_equal(first, episode(envs.single(f'{family}-singletask-task1-v0').unwrapped))


def test_copies_share_a_model_and_nothing_that_is_written_into_it(place):
    copies = [place('scene'), *(envs.single('scene-singletask-task1-v0').unwrapped for _ in range(2))]
    assert len({id(env.model) for env in copies}) == 1
    for env in copies:
        env.reset(seed=0)
    joint = copies[0].model.joint('drawer_slide')
    state = {'qpos': copies[0]._inner.data.qpos.copy(), 'qvel': np.zeros(copies[0].model.nv)}
    state['qvel'][joint.dofadr[0]] = -1.0

    def moved(order):
        for number, env in enumerate(copies):  # the drawer of the last one is open to all
            env.set_env_state({**state, 'button_states': np.full(2, number // 2)})
        for number in order:
            copies[number].step(np.zeros(5))
        return [float(env._inner.data.qpos[joint.qposadr[0]] - state['qpos'][joint.qposadr[0]]) for env in copies]

    found = moved([0, 0, 0, 1, 1, 1, 2, 2, 2])
    assert found == moved([0, 1, 2, 2, 0, 1, 1, 2, 0])
    assert found[0] == found[1] and abs(found[0]) < 1e-5 and abs(found[2]) > 1e-3


def test_a_make_is_the_same_for_every_number_of_processes_and_after_an_interruption(tmp_path):
    recipe, size = 'pointmaze-medium-navigate', {'rows': 95, 'episode_rows': 30, 'seed': 2}
    found = [make(recipe, tmp_path / f'{num}.npz', num_threads=num, **size)['sha256'] for num in (1, 2)]
    cut, counted = tmp_path / 'cut.npz', []

    def stop(rows):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(recipe, cut, num_threads=1, advance=stop, **size)
    parts = tmp_path / '.cut.npz.parts'
    assert sorted(os.listdir(parts)) == ['000000.npz', 'plan.json'] and not cut.exists()
    with pytest.raises(UsageError, match='parts of the same data set were needed in .*; it holds those of another'):
        make(recipe, cut, num_threads=1, **{**size, 'seed': 3})
    found.append(make(recipe, cut, num_threads=1, advance=counted.append, **size)['sha256'])
    assert len(set(found)) == 1 and counted == [30, 30, 5] and not parts.exists()
    assert make(recipe, tmp_path / 'other.npz', num_threads=1, **{**size, 'seed': 3})['sha256'] != found[0]


def test_an_episode_follows_from_its_words():
    options = {**RECIPES['cube-single-noisy'].options, 'p_random_action': 0.5}
    del options['episode_rows']
    one, same, other = (episode('cube-single', 'noisy', 12, words, options)[0] for words in ((0, 1), (0, 1), (0, 2)))
    for name, column in one.items():
        np.testing.assert_array_equal(column, same[name])
    assert not np.array_equal(one['actions'], other['actions'])


def test_scenes_whose_cube_is_out_of_sight_are_made_anew():
    from ooorl.envs.ogbench.oracles import _cube_is_visible

    places = {(0.3, 0.0, 0.02): True, (0.3, 0.29, 0.02): False, (0.3, -0.31, 0.05): False, (0.3, -0.31, 0.07): True}
    for xyz, seen in places.items():
        assert _cube_is_visible([[0.0] * 14 + [0.0, 0.0, 0.02], [0.0] * 14 + list(xyz)]) == seen


def test_stitched_goals_lie_four_cells_away():
    walls = np.array([list('11111111'), list('10000001'), list('10111101'), list('11111111')]).astype(int)
    assert cells_at(walls, (1, 1), 4) == [(1, 5)] and sorted(cells_at(walls, (1, 2), 2)) == [(1, 4), (2, 1)]


def test_names_and_sizes():
    for name in ('scene-singletask-task1-v0', 'scene-play-singletask-task1-v0', 'scene-noisy-singletask-task1-v0'):
        assert envs.own_name(name) == 'ooorl/scene-singletask-task1-v0'
    assert envs.own_name('puzzle-3x3-play-singletask-v0') == 'ooorl/puzzle-3x3-singletask-v0'
    for other in ('scene-stitch-singletask-v0', 'scene-singletask-task6-v0', 'Hopper-v4', ''):
        assert envs.own_name(other) == other
    entry = catalogue.lookup('scene-play-singletask-task1-v0')
    assert (entry.environment, entry.file, entry.scored) == ('ooorl/scene-singletask-task1-v0', 'scene-play-v0.npz', 'success')
    for name in ('cube-double-singletask-task2-v0', 'pointmaze-giant-singletask-v0'):
        env, facts = envs.make(name), FAMILIES[name.partition('-singletask')[0]]
        sizes = (env.spec.observation_dim, env.spec.action_dim, env.horizon)
        assert sizes == (facts.observation_dim, facts.action_dim, facts.horizon)
    assert num_rows('pointmaze-giant-navigate', episodes=2) == 4002 and num_rows('cube-single-play') == 100_000
    for name in ('scene-noisy', 'scene-noisy-v0', 'scene-noisy-singletask-v0', 'scene-noisy-singletask-task5-v0'):
        assert named(name) == 'scene-noisy'
    assert {name for name, recipe in RECIPES.items() if recipe.kind == 'oracle'} == {
        f'{family}-{kind}' for family, facts in FAMILIES.items() for kind in facts.data if facts.scripted
    }


def test_scores_are_success_even_with_other_rewards():
    table = {
        'run': {'scheme': 'offline'},
        'environment': {'id': 'ooorl/scene-singletask-task1-v0', 'settings': {'reward': 'sparse'}},
        'dataset': {'path': 'scene.npz'},
        'agent': {'agent': 'bc'},
    }
    assert build.score_range(config.resolve(table)) == (0.0, 1.0, 'success')


@pytest.mark.parametrize(('recipe', 'arguments', 'words'), [
    ('scene-plays', {}, "recipe must be one of scene-play, .*; got 'scene-plays'"),
    ('antmaze-giant-stitch', {}, 'trained controllers, .* ooorl data pull antmaze-giant-stitch-singletask-v0'),
    ('scene-play', {'rows': 1}, 'rows must be at least 2; got 1'),
    ('scene-play', {'episodes': 0}, 'episodes must be at least 1; got 0'),
    ('scene-play', {'rows': 50, 'episodes': 2}, 'rows were given as well'),
    ('scene-play', {'rows': 50, 'min_norm': 1.0}, r"knows the options \['episode_rows', 'noise', 'noise_smoothing'"),
    ('scene-play', {'rows': 50, 'policies': ['x.npz']}, 'scene-play needs no policies'),
    ('scene-play', {'rows': 50, 'num_threads': 0}, 'processes must lie between 1 and 1000; got 0'),
    ('maze2d-umaze', {'episodes': 2}, 'maze2d-umaze has episodes of no fixed length'),
])  # fmt: skip
def test_bad_arguments_are_one_sentence(tmp_path, recipe, arguments, words):
    with pytest.raises(UsageError, match=words):
        make(recipe, tmp_path / 'data.npz', **arguments)
    with pytest.raises(UsageError, match='ends in .npz'):
        make('scene-play', tmp_path / 'data.hdf5', rows=50)


def test_the_command_line_makes_checks_and_converts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_it = ['data', 'make', 'pointmaze-medium-stitch', '--rows', '220', '--processes', '1', '--out']
    assert main([*make_it, 'maze.hdf5']) == 2 and 'ends in .npz' in capsys.readouterr().err
    assert main([*make_it, 'maze.npz', '--drop', '1,1,1']) == 2
    assert "--drop-box are for data in D4RL's layout" in capsys.readouterr().err
    assert main([*make_it, 'maze.npz']) == 0
    told = capsys.readouterr()
    assert 'wrote maze.npz: 220 rows' in told.out and 'rows/s' in told.out and '220/220 rows' in told.err
    assert sorted(os.listdir()) == ['maze.npz', 'maze.npz.json']
    assert main(['data', 'check', 'maze.npz']) == 0
    told = capsys.readouterr().out
    assert 'it is data of this environment' in told and 'rewards and ends of pointmaze-medium-singletask-v0' in told
    assert main(['data', 'check', 'maze.npz', '--env', 'scene-singletask-task1-v0']) == 2
    assert "'button_states' is needed" in capsys.readouterr().err
    os.remove('maze.npz.json')
    assert main(['data', 'info', 'maze.npz']) == 2
    assert "in OGBench's layout and holds none" in capsys.readouterr().err
    assert main(['data', 'convert', 'maze.npz', 'maze.hdf5', '--env', 'pointmaze-medium-stitch-singletask-task2-v0']) == 0
    assert data.load('maze.hdf5').num_rows == 218


def test_a_make_whose_processes_end_says_so(tmp_path):
    from ooorl.data import shards

    for end in (os._exit, list):  # killed; without a part
        with pytest.raises(UsageError, match='processes that live were needed to make episodes; one ended with status'):
            shards.made_in_parts(end, 4, tmp_path / end.__name__, {}, processes=2)
