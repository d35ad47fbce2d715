"""The data verbs and `eval --video` of the command line, in this process."""

import json
import os

import gymnasium
import h5py
import numpy as np
import pytest
import tomli_w
from conftest import ROOT

from ooorl import data
from ooorl.data.make import RECIPES
from ooorl.runner.cli import main

ROWS = 60


@pytest.fixture(autouse=True)
def _scratch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('OOORL_DATA', str(tmp_path / 'data'))


def refused(capsys, *arguments, printed=False):
    """The one sentence with which a command is refused."""
    capsys.readouterr()
    assert main(list(arguments)) == 2
    told = capsys.readouterr()
    assert (printed or told.out == '') and told.err.startswith('ooorl: ') and len(told.err.splitlines()) == 1
    return told.err


def said(capsys, *arguments):
    """What a command that succeeds prints."""
    capsys.readouterr()
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def test_make_then_info_then_check(capsys):
    told = said(capsys, 'data', 'make', 'maze2d-umaze', '--out', 'umaze.hdf5', '--rows', '3000', '--seed', '3')
    assert 'wrote umaze.hdf5: 3,000 rows' in told and sorted(os.listdir()) == ['umaze.hdf5', 'umaze.hdf5.json']
    manifest = json.loads(open('umaze.hdf5.json').read())
    assert (manifest['recipe'], manifest['rows'], manifest['seed']) == ('maze2d-umaze', 3000, 3)
    assert manifest['file'] == 'umaze.hdf5' and manifest['sha256'] == data.sha256('umaze.hdf5')
    assert 'observation_dim: 4' in said(capsys, 'data', 'info', 'umaze.hdf5')
    assert 'data of this environment' in said(capsys, 'data', 'check', 'umaze.hdf5')  # the manifest names it
    assert 'data of this environment' in said(capsys, 'data', 'check', 'umaze.hdf5', '--environment', 'ooorl/Maze2dUmaze-v0')
    # A maze of equal sizes, and rewards with another sign: status 1.
    assert main(['data', 'check', 'umaze.hdf5', '--environment', 'ooorl/Maze2dLarge-v0']) == 1
    assert 'umaze.hdf5 does not replay' in capsys.readouterr().out
    with h5py.File('umaze.hdf5', 'a') as file:
        file['rewards'][:] = -file['rewards'][:]
    assert 'the file names no environment' in said(capsys, 'data', 'check', 'umaze.hdf5')  # it is no longer the one that was made
    assert main(['data', 'check', 'umaze.hdf5', '--env', 'ooorl/Maze2dUmaze-v0']) == 1
    assert "they are -1 times the environment's" in capsys.readouterr().out


def test_what_a_file_does_not_say_is_said_by_options(capsys):
    np.savez('data.npz', **{**columns(3), 'actions': np.linspace(-2, 2, ROWS)[:, None]})
    assert 'action_low and action_high' in refused(capsys, 'data', 'convert', 'data.npz', 'out.npz')
    assert 'takes numbers' in refused(capsys, 'data', 'info', 'data.npz', '--action-low', 'few')
    assert 'from [-2, 2], by action_low' in said(capsys, 'data', 'info', 'data.npz', '--action-low', '-2', '--action-high', '2')
    said(capsys, 'data', 'convert', 'data.npz', 'out.npz', '--action-low=-2', '--action-high=2')
    np.testing.assert_allclose(data.load('out.npz').transitions.action, np.linspace(-1, 1, ROWS)[:, None], atol=1e-6)
    assert main(['data', 'check', 'data.npz', '--environment', 'Pendulum-v1']) == 2
    assert 'from [-2, 2], by Pendulum-v1' in capsys.readouterr().out


def test_make_leaves_out_regions(capsys):
    arguments = ['data', 'make', 'maze2d-umaze', '--out', 'hole.hdf5', '--rows', '3000', '--drop', '1,1,0.7', '--drop=3,1,0.5',
                 '--drop-box=2.5,2.5,3.5,3.5']  # fmt: skip
    told = said(capsys, *arguments)
    assert 'removed' in told and sorted(os.listdir()) == ['hole.hdf5', 'hole.hdf5.json']
    xy = data.load('hole.hdf5').transitions.observation[:, :2]
    assert np.linalg.norm(xy - (1, 1), axis=1).min() > 0.7 and np.linalg.norm(xy - (3, 1), axis=1).min() > 0.5
    assert not (np.abs(xy - 3.0) <= 0.5).all(axis=1).any()
    manifest = json.loads(open('hole.hdf5.json').read())
    assert manifest['boxes'] == [[2.5, 2.5, 3.5, 3.5]]
    assert manifest['discs'] == [[1, 1, 0.7], [3, 1, 0.5]] and manifest['rows'] + manifest['removed_rows'] == 3000
    assert manifest['made_from']['manifest']['recipe'] == 'maze2d-umaze'


@pytest.mark.parametrize(('arguments', 'words'), [
    (['nothing-known'], 'recipe must be one of'),
    (['maze2d-umaze', '--rows', '1'], 'rows must be at least 2; got 1'),
    (['maze2d-umaze', '--drop', '1,2'], "--drop takes X,Y,RADIUS, 3 numbers; got '1,2'"),
    (['maze2d-umaze', '--drop-box', '1,2,x,4'], "--drop-box takes X,Y,X2,Y2, 4 numbers; got '1,2,x,4'"),
    (['maze2d-umaze', '--drop-box', '1,2,1,4'], 'low below high; got [1.0, 2.0, 1.0, 4.0]'),
    (['maze2d-umaze', '--drop', '1,2,0'], 'a radius greater than 0'),
    (['maze2d-umaze', '--drop', '-1,-2,0'], 'a radius greater than 0'),
    (['maze2d-umaze', '--rows', '100', '--drop', '2,2,50'], 'every row of new.hdf5 lies in the regions'),
    (['maze2d-umaze', '--seed', '-1'], 'seed must be 0 or more; got -1'),
    (['maze2d-umaze', '--processes', '-3'], 'processes must lie between 1 and 1000; got -3'),
    (['hopper-medium'], 'hopper-medium needs 1 policy (medium); got 0'),
    (['hopper-medium', '--policy', 'absent.npz'], 'absent.npz'),
])  # fmt: skip
def test_make_refuses_and_leaves_nothing(capsys, arguments, words):
    assert words in refused(capsys, 'data', 'make', *arguments, '--out', 'new.hdf5')
    assert os.listdir() == []


def test_make_keeps_what_is_there(capsys):
    open('old.hdf5', 'w').close()
    assert 'old.hdf5 exists already' in refused(capsys, 'data', 'make', 'maze2d-umaze', '--out', 'old.hdf5')
    assert 'absent does not exist' in refused(capsys, 'data', 'make', 'maze2d-umaze', '--out', 'absent/new.hdf5')


def test_names_that_the_catalogue_lacks(capsys):
    assert 'did you mean hopper-medium-v2' in refused(capsys, 'data', 'pull', 'hoper-medium-v2')
    assert "got 'zzz'" in refused(capsys, 'data', 'list', 'zzz')
    assert 'hopper-medium-v2' in said(capsys, 'data', 'list', 'hopper-medium')


@pytest.mark.parametrize(('name', 'words'), [
    ('NoSuchThing-v0', "got 'NoSuchThing-v0'"),
    ('ooorl/UMaze-v0', 'Actions of size 2 are needed by this task; the data have 1'),
    ('Hopper-v4', 'Observations of shape (11,) are needed by this environment; data.npz has size 2'),
    ('MountainCarContinuous-v0', 'A simulator whose state can be set is needed; this one cannot'),
])  # fmt: skip
def test_check_refuses_other_environments(capsys, name, words):
    np.savez('data.npz', **columns())
    capsys.readouterr()
    assert main(['data', 'check', 'data.npz', '--environment', name]) == 2
    assert words in capsys.readouterr().err


def test_a_hand_is_put_where_its_recording_says(capsys):
    """The door's place is neither in qpos nor in qvel."""
    pytest.importorskip('gymnasium_robotics')
    path = os.path.join(os.environ.get('OOORL_SHARED_DATA', ROOT.parent / 'shared' / 'data'), 'adroit', 'door-human.hdf5')
    if not os.path.exists(path):
        pytest.skip(f'{path} is not here')
    assert 'it is data of this environment' in said(capsys, 'data', 'check', path, '--environment', 'ooorl/AdroitDoor-v0')
    line = refused(capsys, 'data', 'check', path, '--environment', 'ooorl/AdroitHammer-v0', printed=True)
    assert "'infos/board_pos' is needed" in line


def test_check_refuses_what_is_no_data(capsys):
    with open('data.txt', 'w') as file:
        file.write('a,b')
    assert 'data.txt is neither' in refused(capsys, 'data', 'check', 'data.txt')


def test_a_transfer_is_shown_as_it_goes(capsys):
    from ooorl.runner.cli_data import _show_bytes

    for done, total in ((1_000_000, 2_000_000), (2_000_000, 2_000_000), (3_000_000, None)):
        _show_bytes(done, total)
    assert capsys.readouterr().err == '\r1 of 2 MB\r2 of 2 MB\n\r3 MB'


def test_every_recipe_names_an_environment_and_a_task():
    from ooorl import catalogue

    environments = {entry.environment for entry in catalogue.ENTRIES.values()}
    for recipe in RECIPES.values():
        assert recipe.environment in environments and (recipe.task is None or recipe.task in catalogue.ENTRIES)


class Drawn(gymnasium.Env):
    """Two numbers that follow the action, drawn as a grey square; an episode ends after three steps."""

    metadata = {'render_modes': ['rgb_array'], 'render_fps': 10}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-9.0, 9.0, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, render_mode=None, broken=False, rewards=(1.0, 1.0, 1.0)):
        self.render_mode, self._broken, self._rewards = render_mode, broken, rewards

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self._steps += 1
        return np.full(2, self._steps, np.float32), self._rewards[self._steps - 1], self._steps == 3, False, {}

    def render(self):
        if self._broken:
            raise RuntimeError('no display\nand more')
        return np.full((16, 16, 3), 60 * self._steps, np.uint8)


def columns(observation_dim=2):
    """A small data set."""
    rng = np.random.default_rng(0)
    return {
        'observations': rng.normal(size=(ROWS, observation_dim)).astype(np.float32),
        'actions': rng.uniform(-0.9, 0.9, (ROWS, 1)).astype(np.float32),
        'rewards': rng.normal(size=ROWS).astype(np.float32),
        'terminals': np.arange(ROWS) % 10 == 9,
    }


@pytest.fixture
def run_dir(monkeypatch):
    """A finished offline run with an environment of gymnasium's, on Hopper's scale."""
    return offline_run(monkeypatch, {'num_episodes': 0, 'task': 'hopper-medium-v2'})


def offline_run(monkeypatch, evaluation, **settings):
    """The directory of a finished run on three-step episodes."""
    spec = gymnasium.envs.registration.EnvSpec('Drawn-v0', Drawn, max_episode_steps=5)
    monkeypatch.setitem(gymnasium.registry, 'Drawn-v0', spec)
    np.savez('data.npz', **columns())
    table = {
        'name': 'offline',
        'run': {'scheme': 'offline', 'seeds': '0:2', 'updates_per_round': 5, 'seed_group': 2},
        'environment': {'id': 'Drawn-v0', 'settings': settings},
        'evaluation': evaluation,
        'dataset': {'path': 'data.npz'},
        'offline': {'num_updates': 5},
        'agent': {'agent': 'bc', 'hidden': [4], 'sampling': {'batch_size': 8}},
    }
    with open('c.toml', 'w') as file:
        file.write(tomli_w.dumps(table))
    assert main(['run', 'c.toml', '--out', 'out']) == 0
    return 'out'


def test_eval_keeps_every_episode_and_films_one(capsys, run_dir, monkeypatch):
    import imageio.v3 as imageio

    told = said(capsys, 'eval', run_dir, '--episodes', '4', '--video', 'film.gif')
    assert 'return 3' in told and 'normalised' in told and 'video: film.gif, 4 pictures' in told
    phase = json.loads(open('out/eval.json').read())['phases']['offline']
    shapes = {name: np.shape(values) for name, values in phase.items()}
    assert shapes == dict.fromkeys(('return', 'reward_max', 'length', 'success', 'normalised'), (2, 4))
    np.testing.assert_allclose(phase['normalised'], 100 * (3 + 20.272305) / (3234.3 + 20.272305), rtol=1e-5)
    film = imageio.imread('film.gif')
    assert film.shape[:3] == (4, 16, 16) and [int(frame.mean()) for frame in film] == [0, 60, 120, 180]

    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    for name, words in (
        ('film.avi', '.gif or .mp4'),
        ('film.mp4', 'imageio-ffmpeg'),
        ('absent/film.gif', 'absent does not exist'),
    ):
        assert words in refused(capsys, 'eval', run_dir, '--episodes', '2', '--video', name)


def test_tasks_scored_by_the_largest_reward(capsys, monkeypatch):
    """Two of four tasks done at the most: half of the scale, whatever the return."""
    evaluation = {'num_episodes': 2, 'task': 'kitchen-partial-cumulative-v0'}
    out = offline_run(monkeypatch, evaluation, rewards=[1.0, 2.0, 1.0])
    rows = [json.loads(line) for line in open(f'{out}/metrics.jsonl')]
    scores = [row for row in rows if row['kind'] == 'eval'] + [json.load(open(f'{out}/summary.json'))['phases'][0]['scores']]
    told = said(capsys, 'eval', out, '--episodes', '2')
    assert all(words in told for words in ('return 4 (', 'largest reward 2 (', 'normalised score 50.0 ('))
    for row in scores:
        shown = [np.mean(row[name]) for name in ('return', 'reward_max', 'normalised')]
        np.testing.assert_allclose(shown, [4.0, 2.0, 50.0])
    assert 'normalised score</th>' in open(f'{out}/report.html').read()


def test_video_is_refused_where_nothing_can_be_drawn():
    from ooorl.errors import UsageError
    from ooorl.runner.video import Camera

    with pytest.raises(UsageError, match='ProbeTwoSteps-v0 draws nothing'):
        Camera('film.gif', {'id': 'ooorl/ProbeTwoSteps-v0', 'settings': {}})
    gymnasium.register('Broken-v0', Drawn, max_episode_steps=5, kwargs={'broken': True})
    try:
        with pytest.raises(UsageError, match=r'drawing Broken-v0 failed here \(RuntimeError: no display\); set MUJOCO_GL'):
            Camera('film.gif', {'id': 'Broken-v0', 'settings': {}})
    finally:
        del gymnasium.registry['Broken-v0']
