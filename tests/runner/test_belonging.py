"""Data and environments: which one is taken, and what is said where the two do not belong together."""

import json
import os
import tomllib

import gymnasium
import h5py
import jax
import numpy as np
import pytest
from reused import undrawn  # noqa: F401  no figures
from tiny_configs import OFFLINE, changed, written

from ooorl import data
from ooorl.envs.scripted import u_maze_offline
from ooorl.errors import UsageError
from ooorl.runner import belonging, build, config
from ooorl.runner.cli import main
from ooorl.runner.prepare import prepare
from ooorl.runner.return_range import with_return_ranges

U_MAZE = changed(OFFLINE, run__seeds='0:1', evaluation__num_episodes=1, environment__settings={'horizon': 5})
U_MAZE = changed(U_MAZE, agent__agent='bc', offline__num_updates=5)


@pytest.fixture(autouse=True)
def _scratch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope='module')
def recorded(tmp_path_factory):
    """A file of the U-maze, as anybody's program would write it."""
    rows = u_maze_offline(jax.random.key(0), num_episodes=4)
    names = ('observations', 'actions', 'rewards', 'discounts', 'next_observations')
    path = tmp_path_factory.mktemp('data') / 'u.npz'
    np.savez(path, **dict(zip(names, rows[:5], strict=True)), boundary=np.asarray(rows.extras['boundary']) > 0)
    return str(path)


def refused(table, *words):
    with pytest.raises(UsageError) as caught:
        prepare(table)
    assert all(word in str(caught.value) for word in words), caught.value


def notes(table):
    return '\n'.join(prepare(table).dataset.notes)


def test_sizes_are_compared_without_an_evaluation_too(recorded):
    table = changed(U_MAZE, dataset__path=recorded, environment__settings={}, evaluation__num_episodes=0)
    refused(changed(table, environment__id='ooorl/Tabletop-v0'), 'size 12 are needed by ooorl/Tabletop-v0; u.npz has size 2')
    refused(changed(table, environment__id='Pendulum-v1'), 'size 3 are needed by Pendulum-v1')


def test_data_of_another_environment_of_equal_sizes_are_refused_unless_told_otherwise(recorded):
    table = changed(U_MAZE, dataset__path=recorded, environment__id='ooorl/PointMassWall-v0')
    refused(table, 'data of ooorl/PointMassWall-v0 are needed; u.npz does not replay', '--env ID', 'dataset.replay="warn"')
    assert 'replay: WARNING, u.npz does not replay' in notes(changed(table, dataset__replay='warn'))
    assert 'not replayed: dataset.replay is off' in notes(changed(table, dataset__replay='off'))
    scripted = changed(table, dataset__path='', dataset__scripted='u_maze', dataset__settings={'num_episodes': 4})
    refused(scripted, 'scripted u_maze does not replay')
    assert 'rows lead where they led, in ooorl/UMaze-v0' in notes(changed(table, environment__id='ooorl/UMaze-v0'))


def test_walls_of_another_maze_are_noticed(recorded):
    settings = {'layout': ['#####', '#S..#', '###.#', '#G..#', '#####'], 'horizon': 5}
    table = changed(U_MAZE, dataset__path=recorded, environment__id='ooorl/UMaze-v0', environment__settings=settings)
    refused(table, 'lead elsewhere')


def test_a_run_without_environment_trains_and_says_so(recorded):
    prepared = prepare(changed(OFFLINE, agent__agent='bc', dataset__path=recorded))
    assert prepared.setup.evaluation is None and prepared.config['environment']['id'] == ''
    assert 'not evaluated: neither the config nor the data name an environment; --env ID gives one' in prepared.dataset.notes


def test_the_option_names_an_environment_and_drops_what_was_said_of_another(recorded):
    table = changed(U_MAZE, environment__id='ooorl/Tabletop-v0', environment__settings={'horizon': 7}, evaluation__task='')
    assert main(['run', written(table), '--dataset', recorded, '--env', 'ooorl/UMaze-v0', '--out', 'out']) == 0
    assert tomllib.loads(open('out/config.toml').read())['environment'] == {
        'id': 'ooorl/UMaze-v0', 'num_envs': 1, 'workers': 0, 'settings': {},
    }  # fmt: skip


def test_the_catalogue_chooses_the_environment_of_its_tasks():
    table = config.resolve(changed(OFFLINE, dataset__task='hopper-medium-v2'))
    settings, line = belonging.settled(table)
    assert settings['environment']['id'] == 'Hopper-v4' and 'Hopper-v4, which the data name' in line
    named = config.resolve(changed(OFFLINE, dataset__task='hopper-medium-v2', environment__id='Walker2d-v4'))
    assert belonging.settled(named)[0]['environment']['id'] == 'Walker2d-v4'


def pendulum(folder, env_id='Pendulum-v1'):
    """Three episodes of the pendulum as Minari writes them, dict observations beside."""
    env = gymnasium.make('Pendulum-v1')
    os.makedirs(f'{folder}/data')
    with h5py.File(f'{folder}/data/main_data.hdf5', 'w') as file:
        for episode in range(3):
            env.action_space.seed(episode)
            rows, seen = [], [env.reset(seed=episode)[0]]
            for _ in range(20):
                action = env.action_space.sample()
                following, reward, *_ = env.step(action)
                seen.append(following)
                rows.append((action, reward))
            group = file.create_group(f'episode_{episode}')
            group['observations'] = np.array(seen)
            group['actions'], group['rewards'] = (np.array(column) for column in zip(*rows, strict=True))
            group['terminations'], group['truncations'] = np.zeros(20, bool), np.arange(20) == 19
    space = {'type': 'Box', 'dtype': 'float32', 'shape': [1], 'low': [-2.0], 'high': [2.0]}
    facts = {'action_space': json.dumps(space), 'env_spec': json.dumps({'id': env_id, 'kwargs': {'g': 9.81}})}
    with open(f'{folder}/data/metadata.json', 'w') as file:
        json.dump(facts, file)
    return folder


def test_minari_data_are_evaluated_where_they_were_recorded():
    table = changed(U_MAZE, environment=None, dataset__path=pendulum('pendulum'))
    prepared = prepare(table)
    assert prepared.config['environment'] == {'id': 'Pendulum-v1', 'num_envs': 1, 'workers': 0, 'settings': {'g': 9.81}}
    told = '\n'.join(prepared.dataset.notes)
    assert 'actions rescaled to [-1, 1] from [-2, 2]' in told and 'only sizes were compared with Pendulum-v1' in told
    assert 'environment: Pendulum-v1, which the data name' in told and prepared.setup.evaluation.spec.observation_dim == 3
    assert prepare(prepared.config).config == prepared.config  # so that --resume and eval find the same run


@pytest.mark.parametrize(('name', 'words'), [
    ('Absent-v3', "the data name Absent-v3, which cannot be used (a known environment was needed"),
    ('CartPole-v1', 'the data name CartPole-v1, which cannot be used'),
    ('antigravity:Pendulum-v1', 'neither the config nor the data name an environment'),
])  # fmt: skip
def test_an_environment_that_only_the_data_name_is_done_without(name, words):
    prepared = prepare(changed(U_MAZE, environment=None, dataset__path=pendulum('pendulum', name)))
    assert f'not evaluated: {words}' in '\n'.join(prepared.dataset.notes)
    assert prepared.config['environment']['id'] == '' and prepared.setup.evaluation is None


def test_an_environment_that_is_named_must_exist_though_nothing_is_played():
    table = changed(U_MAZE, environment={'id': 'Pendulun-v1'}, dataset__path=pendulum('pendulum'), evaluation={'num_episodes': 0})
    with pytest.raises(UsageError, match="got 'Pendulun-v1'; did you mean 'Pendulum-v1'"):
        prepare(table)


class Both(gymnasium.Env):
    """Dict observations: a position and, one level deeper, a goal and a word."""

    _goal = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float64)
    observation_space = gymnasium.spaces.Dict({
        'position': gymnasium.spaces.Box(-9.0, 9.0, (2,), np.float64),
        'wanted': gymnasium.spaces.Dict({'goal': _goal, 'word': gymnasium.spaces.Text(3)}),
    })  # fmt: skip
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {'position': np.array([1.0, 2.0]), 'wanted': {'goal': np.array([0.5]), 'word': 'a'}}, {}

    def step(self, action):
        return self.reset()[0], 0.0, False, False, {}


def test_dict_observations_are_joined_in_data_and_environment(monkeypatch):
    spec = gymnasium.envs.registration.EnvSpec('Both-v0', Both, max_episode_steps=3)
    monkeypatch.setitem(gymnasium.registry, 'Both-v0', spec)
    os.makedirs('both/data')
    with h5py.File('both/data/main_data.hdf5', 'w') as file:
        group = file.create_group('episode_0')
        group['observations/wanted/goal'], group['observations/position'] = np.full((21, 1), 0.5), np.ones((21, 2))
        group['actions'], group['rewards'] = np.zeros((20, 1)), np.zeros(20)
        group['terminations'], group['truncations'] = np.zeros(20, bool), np.arange(20) == 19
    keys = ['wanted/goal', 'position']
    table = changed(U_MAZE, environment={'id': 'Both-v0'}, dataset={'path': 'both', 'observation_keys': keys})
    prepared = prepare(table)
    np.testing.assert_array_equal(prepared.dataset.transitions.observation[0], [0.5, 1, 1])
    _, seen = prepared.setup.evaluation.reset(jax.random.key(0))
    np.testing.assert_array_equal(seen[0, 0], [0.5, 1.0, 2.0])
    refused(changed(table, dataset__observation_keys=['goal']), 'which has position, wanted')
    refused(changed(table, dataset__observation_keys=['wanted/word']), "'wanted/word' is Text")


def test_the_units_of_a_plain_file_come_from_the_environment():
    flat = data.load(pendulum('pendulum')).transitions
    columns = {'observations': flat.observation, 'rewards': flat.reward, 'timeouts': flat.extras['boundary'] > 0}
    np.savez('plain.npz', actions=2.0 * flat.action, **columns)
    table = changed(U_MAZE, environment={'id': 'Pendulum-v1'}, dataset__path='plain.npz')
    assert 'actions rescaled to [-1, 1] from [-2, 2], by Pendulum-v1' in notes(table)
    np.savez('weak.npz', actions=flat.action, **columns)
    refused(changed(table, dataset__path='weak.npz'), 'fit [-1, 1] as well as [-2, 2] (Pendulum-v1)')
    stated = changed(table, dataset__path='weak.npz', dataset__action_low=-1.0, dataset__action_high=[1.0])
    assert 'rescaled' not in notes(stated)
    np.savez('far.npz', actions=2.0 * flat.action, **{**columns, 'observations': 3.0 * flat.observation})
    assert 'observations lie outside the bounds of Pendulum-v1' in notes(changed(table, dataset__path='far.npz'))


def test_what_make_writes_beside_a_file_names_its_environment(recorded):
    rows = dict(np.load(recorded))
    np.savez('made.npz', **rows)
    manifest = {'environment': 'ooorl/UMaze-v0', 'sha256': data.sha256('made.npz')}
    for content, expected in (
        (manifest, 'ooorl/UMaze-v0'),
        ({'made_from': {'manifest': manifest}, 'sha256': manifest['sha256']}, 'ooorl/UMaze-v0'),
        ({'id': 'hopper-medium-v2', 'sha256': manifest['sha256']}, 'Hopper-v4'),
        ({**manifest, 'sha256': '0' * 64}, ''),
        ({**manifest, 'environment': 'os:UMaze-v0'}, ''),
        ([1], ''),
    ):
        with open('made.npz.json', 'w') as file:
            json.dump(content, file)
        assert data.environment_of('made.npz') == (expected, {})


def dataset_of_returns(*episodes, finished=True):
    rewards = np.concatenate(episodes)
    ends = np.isin(np.arange(len(rewards)), np.cumsum([len(e) for e in episodes]) - 1)
    ends[-1] &= finished
    columns = {'observations': np.arange(len(rewards))[:, None] * 1.0, 'rewards': rewards, 'boundary': ends, 'terminals': ends}
    following = columns['observations'] + 1.0
    return data.from_arrays({**columns, 'actions': np.zeros((len(rewards), 1)), 'next_observations': following})


def test_the_scale_of_returns_by_hand():
    """Returns 6, -2 and 1: 1000 / (6 - (-2)) = 125; an unfinished last episode of return -4 counts: 1000 / 10 = 100."""
    table = config.resolve(changed(OFFLINE, agent__reward={'scale': 'return_range', 'shift': 1.0}, dataset__path='x'))
    whole = dataset_of_returns([1.0, 2.0, 3.0], [-1.0, -1.0], [1.0])
    changed_table, noted = with_return_ranges(table, whole)
    assert changed_table['agent']['reward'] == {'scale': 125.0, 'shift': 1.0}
    assert table['agent']['reward']['scale'] == 'return_range'
    assert noted.notes[-1] == 'reward scale 125 = 1000 / (6 - -2), the range of 3 returns'
    cut = dataset_of_returns([1.0, 2.0, 3.0], [-1.0, -3.0], finished=False)
    assert with_return_ranges(table, cut)[0]['agent']['reward']['scale'] == 100.0
    with pytest.raises(UsageError, match='trajectories of different returns'):
        with_return_ranges(table, dataset_of_returns([1.0, 1.0], [2.0]))
    with pytest.raises(UsageError, match='needs a data set'):
        with_return_ranges(table, None)
    with pytest.raises(UsageError, match="scale must be one of 'return_range'; got 'range'"):
        config.resolve(changed(OFFLINE, agent__reward={'scale': 'range'}))


def test_the_scale_of_returns_is_kept_as_a_number(recorded):
    rows = dict(np.load(recorded))
    np.savez('rewarded.npz', **{**rows, 'rewards': rows['boundary'] * np.cumsum(rows['boundary'])})  # returns 1, 2, 3, 4
    table = changed(U_MAZE, environment=None, dataset__path='rewarded.npz', agent__reward={'scale': 'return_range'})
    kept = prepare(table).config
    assert kept['agent']['reward']['scale'] == pytest.approx(1000 / 3)
    assert prepare(kept).config == kept


def test_files_are_scored_by_the_references_of_their_environment():
    table = config.resolve(changed(OFFLINE, dataset__path='x.hdf5', environment__id='Hopper-v4'))
    found = build.score_range(table)
    assert (found.low, found.high) == (-20.272305, 3234.3)
    for other in ({'environment__id': 'Hopper-v5'}, {'environment__settings': {'healthy_reward': 0}}, {'dataset__path': ''}):
        assert build.score_range(config.resolve(changed(table, **other))) is None


def test_an_environment_that_rewards_are_needed_from_must_exist(tmp_path):
    rows = {name: np.zeros((4, 2), np.float32) for name in ('observations', 'actions', 'qpos', 'qvel')}
    np.savez(tmp_path / 'play.npz', **rows, terminals=np.array([0.0, 0.0, 0.0, 1.0]))
    table = changed(OFFLINE, dataset={'path': str(tmp_path / 'play.npz')}, evaluation={'num_episodes': 0})
    for name, words in (('scene-play-singletask-task6-v0', 'a known environment was needed; got .scene-play-singletask-task6'),
                        ('ooorl/UMaze-v0', 'Rewards are needed; .* is in OGBench.s layout')):  # fmt: skip
        with pytest.raises(UsageError, match=words):
            prepare(changed(table, environment={'id': name}))
