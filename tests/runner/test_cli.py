"""The command line: what works, and bad input in one sentence, status 2, without traceback or anything written."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tomllib

import h5py
import numpy as np
import pytest
from conftest import PATIENCE, ROOT
from reused import reused_data, reused_programs  # noqa: F401  a run, and the same one resumed and evaluated
from tiny_configs import OFFLINE, TINY, changed, written

from ooorl.reporting import tables
from ooorl.runner.cli import main

ROWS = 40


@pytest.fixture(autouse=True)
def _scratch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


def hdf5(name='data.hdf5', observation_dim=2, **replaced):
    """A D4RL file, some columns replaced."""
    rng = np.random.default_rng(0)
    columns = {
        'observations': rng.normal(size=(ROWS, observation_dim)).astype(np.float32),
        'actions': rng.uniform(-0.9, 0.9, (ROWS, 2)).astype(np.float32),
        'rewards': rng.normal(size=ROWS).astype(np.float32),
        'terminals': np.arange(ROWS) % 10 == 9,
        'timeouts': np.zeros(ROWS, bool),
    } | replaced
    with h5py.File(name, 'w') as file:
        for key, value in columns.items():
            file[key] = value
    return name


def refusal(capsys, *arguments, out='out'):
    """The one line that a bad command leaves; nothing else may be there."""
    before = sorted(os.listdir('.'))
    assert main([*arguments, *(['--out', out] if out else [])]) == 2
    told = capsys.readouterr()
    lines = told.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith('ooorl: ') and 'Traceback' not in told.out
    assert sorted(os.listdir('.')) == before
    return lines[0]


def test_a_missing_or_broken_config(capsys):
    assert 'nothing.toml does not exist' in refusal(capsys, 'run', 'nothing.toml')
    for number, content in enumerate((b'[run\nscheme=', b'\xff\xfe', b'a = 1\na = 2\n')):
        with open(f'{number}.toml', 'wb') as file:
            file.write(content)
        assert f'{number}.toml cannot be read as one' in refusal(capsys, 'run', f'{number}.toml')
    os.mkdir('folder')
    assert 'a config file or a preset' in refusal(capsys, 'run', 'folder')
    os.mkdir('folder.toml')
    assert 'folder.toml cannot be read as one' in refusal(capsys, 'run', 'folder.toml')


BAD_SETTINGS = [
    ({'explore__expectil': 0.7}, "unknown key 'expectil' in [explore]; did you mean 'expectile'?"),
    ({'run__seed': '0:2'}, "unknown key 'seed' in [run]; did you mean 'seeds'?"),
    ({'enviroment': {}}, "unknown key 'enviroment' in the config; did you mean 'environment'?"),
    ({'explore__sampling__batchsize': 3}, "unknown key 'batchsize' in [explore.sampling]; did you mean 'batch_size'?"),
    ({'explore__bonus': {'signal': 'rnd', 'scal': 1.0}}, "unknown key 'scal' in [explore.bonus]; did you mean 'scale'?"),
    ({'explore__expectile': 1.2}, 'expectile must lie strictly between 0 and 1; got 1.2'),
    ({'explore__hidden': 8}, "hidden in [explore] must be of type tuple; got 8"),
    ({'explore__learning_rate': 'fast'}, "learning_rate in [explore] must be of type float; got 'fast'"),
    ({'run__seed_group': 1.5}, 'seed_group in [run] must be of type int; got 1.5'),
    ({'run': 5}, '[run] must be a table; got 5'),
    ({'explore__agent': 'iqll'}, "agent must be one of bc, iql"),
    ({'explore__bonus': {'signal': 'rdn'}}, "signal must be one of 'rnd'"),
    ({'run__scheme': 'oo'}, "scheme must be one of 'offline', 'finetune', 'online', 'ooo', 'distil', 'wsrl'; got 'oo'"),
    ({'exploit': None}, "scheme 'ooo' needs the table [exploit]"),
    ({'agent': {}}, "scheme 'ooo' does not use the table [agent]"),
    ({'offline': {}}, "[offline] belongs to scheme 'offline'; got scheme 'ooo'"),
    ({'explore__sampling__batch_size': 100_000}, 'batch_size must be at most the number of rows,'),
    ({'explore__sampling__batch_size': 0}, 'batch_size must be greater than 0; got 0'),
    ({'explore__sampling__mix': {'dataset': 0.7}}, 'sum to 1'),
    ({'explore__sampling__mix': {'dataset': 'half'}}, 'the shares of mix must be numbers'),
    ({'explore__sampling__mix': {'dataset': 0.5, 'offline': 0.5}}, 'got dataset, offline'),
    ({'environment__id': 'ooorl/UMase-v0'}, "got 'ooorl/UMase-v0'; did you mean 'ooorl/UMaze-v0'?"),
    ({'environment__settings': {'horizont': 3}}, "got 'horizont'"),
    ({'environment__settings': {'horizon': -3}}, 'horizon must be greater than 0; got -3'),
    ({'environment__settings': {'horizon': 'long'}}, "horizon of ooorl/UMaze-v0 must be of type int; got 'long'"),
    ({'environment__settings': {'horizon': 2.5}}, 'horizon of ooorl/UMaze-v0 must be of type int; got 2.5'),
    ({'environment__num_envs': 0}, 'num_envs must be greater than 0; got 0'),
    ({'environment__workers': -2}, 'workers must be 0 or more, or -1 for all cores; got -2'),
    ({'environment__workers': 1.5}, 'workers in [environment] must be of type int; got 1.5'),
    ({'environment__workers': 1}, 'environment.workers is for environments on the host; ooorl/UMaze-v0 is compiled; got 1'),
    ({'environment__settings': {'workers': 1}}, 'workers is a key of [environment]'),
    ({'evaluation__settings': {'workers': 1}}, 'workers is a key of [environment]'),
    ({'evaluation__num_episodes': -1}, 'num_episodes must be 0 or more; got -1'),
    ({'evaluation__task': 'hoper-medium-v2'}, 'hoper-medium-v2'),
    ({'run__seeds': '4:2'}, "seeds must look like '0:8' or '3,5'"),
    ({'run__seeds': '1,1'}, "got '1,1'"),
    ({'run__seeds': 'one'}, "got 'one'"),
    ({'run__seeds': '0:1:2'}, "got '0:1:2'"),
    ({'run__seeds': '4294967296'}, '2**32'),
    ({'ooo__num_env_steps': 21}, 'num_env_steps of phase \'explore\' must be a multiple of num_envs x cycle_steps = 2; got 21'),
    ({'ooo__explore_updates': 11}, "num_updates of phase 'explore' must be a multiple of its 10 cycles of collection; got 11"),
    ({'ooo__cycle_steps': 0}, 'cycle_steps must be greater than 0; got 0'),
    ({'ooo__pretrain_updates': -5}, 'num_updates must be 0 or more; got -5'),
    ({'ooo__retrain_at': [30]}, 'retrain_at needs budgets between 0 and random_steps + num_env_steps, 20; got 30'),
    ({'ooo__retrain_at': [20, 20]}, 'names of their own'),
    ({'exploit__agent': 'bc'}, 'bc learns no values to bound; remove the sub-table bounds'),
    ({'explore__reward': {'scale': 0.0}}, 'scale of the reward must be greater than 0'),
    ({'explore__head': {'low': 1.0, 'high': 0.0}}, 'low must be less than high'),
    ({'explore__head': {'low': 1.0}}, '[explore.head] needs high; add it'),
    ({'explore__bonus': {'signal': 'counts', 'low': [0.0], 'high': [1.0], 'observation_bins': [3], 'action_bins': [3]}},
     'counts needs action_bins for 2 action dimensions'),
    ({'dataset__path': 'x.hdf5'}, '[dataset] takes one of path, task and scripted'),
    ({'dataset__settings': {'num_episodes': []}}, 'num_episodes in [dataset.settings] must be of type int'),
    ({'environment__settings': {'horizon': []}}, 'horizon of ooorl/UMaze-v0 must be of type int'),
    ({'dataset__scripted': 'umaze'}, 'dataset.scripted must be one of u_maze, point_mass_wall'),
    ({'dataset__drop_discs': [[0.0, 0.0]]}, 'a disc must be [x, y, radius]'),
    ({'dataset__drop_boxes': [[0, 0, 0, 1]]}, 'a box must be [low x, low y, high x, high y], low below high'),
    ({'dataset__drop_boxes': [-9, -9, 9, 9]}, 'drop_boxes in [dataset] must be of type tuple; got -9'),
    ({'dataset__drop_boxes': [[-99, -99, 99, 99]]}, 'lies in them'),
    ({'dataset__terminal_ends_episode': False}, 'terminal_ends_episode is for a file given by path'),
    ({'dataset__settings': {'episodes': 4}}, 'dataset.settings must be those of scripted data'),
    ({'report__map_columns': [0, 7]}, 'report.map_columns must be observation columns, 0 to 1'),
    ({'report__map_columns': [0]}, 'map_columns must have 2 entries; got 1'),
    ({'report__walls': [[1, 2, 3]]}, 'walls must be segments'),
    ({'report__map_seed': 2}, 'map_seed must be a position in the list of 2 seeds; got 2'),
]  # fmt: skip


@pytest.mark.parametrize(('changes', 'words'), BAD_SETTINGS)
def test_bad_settings(capsys, changes, words):
    assert words in refusal(capsys, 'run', written(changed(TINY, **changes)))


@pytest.mark.parametrize(('arguments', 'words'), [
    (['--set', 'run.seeds'], "--set takes section.key=value; got 'run.seeds'"),
    (['--set', 'seeds=3'], "--set takes section.key=value; got 'seeds=3'"),
    (['--set', 'name.deeper.x=3'], "'name' in 'name.deeper.x=3' is a value, not a section"),
    (['--set', 'explore.expectile=2'], 'expectile must lie strictly between 0 and 1; got 2'),
    (['--seeds', '3:1'], "got '3:1'"),
    (['--dataset', 'absent.hdf5'], 'absent.hdf5'),
])  # fmt: skip
def test_bad_options(capsys, arguments, words):
    assert words in refusal(capsys, 'run', written(TINY), *arguments)


def nan_rows():
    rewards = np.zeros(ROWS, np.float32)
    rewards[7] = np.nan
    return rewards


@pytest.mark.parametrize(('replaced', 'words'), [
    ({'rewards': nan_rows()}, 'Finite numbers'),
    ({'actions': np.full((ROWS, 2), 3.0, np.float32)}, '[-1, 1]'),
    ({'observation_dim': 5}, '5'),
    ({'actions': np.zeros((ROWS, 3), np.float32)}, '3'),
    ({'rewards': np.zeros(ROWS - 1, np.float32)}, str(ROWS - 1)),
])  # fmt: skip
def test_bad_data(capsys, replaced, words):
    line = refusal(capsys, 'run', written(TINY), '--dataset', hdf5(**replaced))
    assert words in line


def test_a_file_that_holds_no_data_set(capsys):
    with open('noise.hdf5', 'wb') as file:
        file.write(b'not HDF5 at all' * 100)
    assert 'noise.hdf5' in refusal(capsys, 'run', written(TINY), '--dataset', 'noise.hdf5')
    os.mkdir('folder')
    assert 'folder' in refusal(capsys, 'run', written(TINY), '--dataset', 'folder')


def test_a_run_without_data_and_environment_is_refused(capsys):
    assert 'needs a data set or an environment' in refusal(capsys, 'run', written(OFFLINE))
    without = changed(OFFLINE, environment__id='ooorl/UMaze-v0')
    assert 'needs a data set' in refusal(capsys, 'run', written(without))
    normalised = changed(TINY, dataset=None, explore__normalise_observation=True)
    assert 'normalise_observation needs a data set' in refusal(capsys, 'run', written(normalised))


def test_directories_that_hold_something_else(capsys):
    os.mkdir('full')
    written(TINY, 'full/notes.txt')
    assert 'full holds other files' in refusal(capsys, 'run', written(TINY), out='full')
    written(TINY, 'full/config.toml')
    assert 'full holds another run; choose another one, or go on with --resume' in refusal(capsys, 'run', 'c.toml', out='full')
    assert 'out holds no config.toml; start it without --resume' in refusal(capsys, 'run', 'c.toml', '--resume')
    line = refusal(capsys, 'run', 'c.toml', '--resume', '--set', 'explore.expectile=0.8', out='full')
    assert 'this one differs' in line and '+expectile = 0.8' in line


def test_a_directory_that_cannot_be_made(capsys):
    written(TINY, 'file')
    assert 'files must be readable and writable' in refusal(capsys, 'run', written(TINY), out='file/out')
    assert "holds other files" in refusal(capsys, 'run', 'c.toml', out='file')


@pytest.fixture(scope='module')
def tiny_run(tmp_path_factory):
    """A finished run, with everything that a user has, and what it printed; one in a process of its own comes below."""
    directory, printed = tmp_path_factory.mktemp('tiny'), io.StringIO()
    written(TINY, directory / 'c.toml')
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.chdir(directory)
        patch.setenv('COLUMNS', '200')
        assert main(['run', 'c.toml', '--out', 'out']) == 0
    return directory, printed.getvalue()


def test_a_run_leaves_its_files_and_says_what_it_did(tiny_run):
    directory, printed = tiny_run
    names = set(os.listdir(directory / 'out'))
    assert names == {
        'checkpoint', 'config.toml', 'metrics.csv', 'metrics.jsonl', 'report.html', 'states.npz', 'summary.json', 'tensorboard',
    }  # fmt: skip
    assert not list((directory / 'out').rglob('*.tmp'))
    for phrase in ('tiny -> out, seeds 0:2', 'data: scripted u_maze', 'exploit: iql, values from data to from data',
                   'phases: pretrain, explore, retrain@20', 'report: out/report.html'):  # fmt: skip
        assert phrase in printed
    summary = json.loads((directory / 'out' / 'summary.json').read_text())
    assert [phase['name'] for phase in summary['phases']] == ['pretrain', 'explore', 'retrain@20']
    assert all(len(phase['scores']['success']) == 2 for phase in summary['phases'])
    resolved = tomllib.loads((directory / 'out' / 'config.toml').read_text())
    assert resolved['explore']['gamma'] == 0.99 and resolved['explore']['sampling']['gamma'] == 0.99


# `ooorl run` in a process that may use two cores, where no variable has decided about devices.
TWO_CORES = """
import os, sys
os.sched_getaffinity = lambda process: {0, 1}
import jax
from ooorl.runner.cli import main
status = main(sys.argv[1:])
print('devices:', jax.local_device_count())
sys.exit(status)
"""


def test_a_cpu_device_per_core_gives_the_same_numbers(tiny_run):
    directory, _ = tiny_run
    environment = {key: value for key, value in os.environ.items() if key != 'JAX_NUM_CPU_DEVICES'}
    command = [sys.executable, '-c', TWO_CORES, 'run', 'c.toml', '--out', 'two']
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0 and 'devices: 2' in done.stdout, done.stderr
    rows, expected = (
        [json.loads(line) for line in (directory / out / 'metrics.jsonl').read_text().splitlines()] for out in ('two', 'out')
    )
    for row, other in zip(rows, expected, strict=True):
        assert row.keys() == other.keys() and (row['kind'], row['phase']) == (other['kind'], other['phase'])
        numbers = [name for name in row if name not in ('kind', 'phase')]
        # Each seed is a program of its own on its device, and both are one program otherwise: sums are taken in another order.
        np.testing.assert_allclose([row[n] for n in numbers], [other[n] for n in numbers], rtol=1e-3, atol=1e-4, err_msg=str(row))


def test_a_finished_run_can_be_resumed_evaluated_and_reported(tiny_run, capsys, monkeypatch):
    directory, _ = tiny_run
    monkeypatch.chdir(directory)
    before = (directory / 'out' / 'metrics.jsonl').read_bytes()
    kept = directory / 'out' / 'config.toml'
    text = kept.read_text()
    kept.write_text(text.replace('drop_boxes = []\n', ''))  # written before that setting existed
    assert kept.read_text() != text
    assert main(['run', 'c.toml', '--out', 'out', '--resume']) == 0
    assert (directory / 'out' / 'metrics.jsonl').read_bytes() == before
    capsys.readouterr()
    assert main(['eval', 'out', '--episodes', '4', '--phase', 'retrain@20']) == 0
    printed = capsys.readouterr().out
    scores = json.loads((directory / 'out' / 'eval.json').read_text())
    for metric, values in scores['phases']['retrain@20'].items():  # one function words every score
        assert tables.cell(metric, np.mean(values, axis=1).tolist()) in printed
    assert printed.startswith('retrain@20: ')
    assert np.shape(scores['phases']['retrain@20']['return']) == (2, 4)
    assert main(['report', 'out', '--out', 'both.html']) == 0
    assert '<html' in (directory / 'both.html').read_text()
    for arguments, words in (
        (['eval', 'out', '--phase', 'retrain@1'], 'got retrain@1'),
        (['eval', 'out', '--episodes', '0'], 'at least one episode'),
        (['eval', 'nowhere'], 'nowhere holds no config.toml'),
        (['report', 'nowhere', '--out', 'x.html'], 'nowhere'),
    ):
        assert words in refusal(capsys, *arguments, out=None)


def test_divergence_names_the_last_good_checkpoint(capsys, tmp_path):
    sick = changed(TINY, exploit__learning_rate=1e30, run__seeds='0:1', report__map_columns=[])
    assert main(['run', written(sick), '--out', 'out']) == 1
    line = capsys.readouterr().err
    assert len(line.splitlines()) == 1 and 'Traceback' not in line
    assert "phase 'retrain@20' produced others by update 5 for seeds [0]" in line
    assert 'the last good checkpoint is out/checkpoint/' in line
    good = sorted(os.listdir('out/checkpoint'))[-1]
    assert line.strip().endswith(good)


def test_doctor_and_lists(capsys):
    assert main(['doctor']) == 0
    told = capsys.readouterr().out
    assert 'jax runs on cpu' in told and 'python 3' in told and 'cache:' in told
    assert main(['data', 'list', 'hopper-medium*']) == 0
    assert 'hopper-medium-v2' in capsys.readouterr().out
    assert 'nothing-like-this' in refusal(capsys, 'data', 'list', 'nothing-like-this', out=None)
    assert main(['data', 'info', hdf5()]) == 0
    assert str(ROWS) in capsys.readouterr().out
    assert main(['data', 'check', 'data.hdf5']) == 0
    capsys.readouterr()
    assert 'absent.hdf5' in refusal(capsys, 'data', 'info', 'absent.hdf5', out=None)


def test_bad_input_in_a_process_of_its_own(tmp_path):
    written(changed(TINY, explore__expectile=1.2))
    command = [sys.executable, '-m', 'ooorl.runner.cli', 'run', 'c.toml', '--out', 'out']
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert done.stderr == 'ooorl: [explore]: expectile must lie strictly between 0 and 1; got 1.2\n'
    assert not os.path.exists('out')


def test_a_signal_after_the_last_word_ends_the_process_without_another(tmp_path):
    """It finds modules half unloaded."""
    code = 'import atexit, os, signal, sys; atexit.register(os.kill, os.getpid(), signal.SIGTERM); from ooorl.runner import cli'
    command = [sys.executable, '-c', f'{code}; sys.exit(cli.main())', 'data', 'list']
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, '') and 'hopper-medium-v2' in done.stdout


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    command = f'{sys.executable} -m ooorl.runner.cli data list | head -1'
    done = subprocess.run(['bash', '-c', command], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0 and 'Traceback' not in done.stderr


def test_a_seed_that_diverges_costs_the_others_nothing_and_the_command_ends_with_one(capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'tests' / 'support'))
    table = changed(
        TINY, run__seeds='0:4', explore={'agent': 'fragile:fragile', 'breaks_at': 12, 'sampling': {'batch_size': 8}},
        exploit={'agent': 'fragile:fragile', 'share': 0.0, 'sampling': {'batch_size': 8}},
    )
    assert main(['run', written(table), '--out', 'out']) == 1
    told = capsys.readouterr()
    assert "phase 'explore' produced others for seeds [0, 2]; lower the learning rate" in told.err
    assert told.err.splitlines()[-1].endswith('the other seeds are complete') and 'undefined (2 of 4 seeds missing)' in told.out
    with open('out/summary.json') as file:
        phases = {phase['name']: phase for phase in json.load(file)['phases']}
    for name, lost in (('pretrain', []), ('explore', [0, 2]), ('retrain@20', [0, 2])):
        assert phases[name]['diverged'] == lost
        assert [value is None for value in phases[name]['scores']['return']] == [seed in lost for seed in range(4)]
    assert main(['eval', 'out', '--episodes', '2', '--phase', 'retrain@20']) == 0
    assert 'undefined (2 of 4 seeds missing, mean of the others ' in capsys.readouterr().out


@pytest.mark.parametrize(('settings', 'said'), [
    ({'when': 'constructor'}, 'constructor runs was needed; nasty:Nasty-v0 raised ArithmeticError: the physics exploded (nasty'),
    ({'when': 'reset', 'kind': 'exits'}, 'reset runs was needed; nasty:Nasty-v0 raised SystemExit'),
    ({'kind': 'nan'}, 'a finite observation was needed; nasty:Nasty-v0, copy '),
])  # fmt: skip
def test_an_environment_that_misbehaves_is_one_sentence(capsys, monkeypatch, settings, said):
    monkeypatch.syspath_prepend(str(ROOT / 'tests' / 'support'))
    table = changed(
        TINY, environment={'id': 'nasty:Nasty-v0', 'num_envs': 1, 'settings': settings}, report=None, dataset=None,
        ooo={'pretrain_updates': 0, 'num_env_steps': 40, 'explore_updates': 0, 'retrain_updates': 1},
    )
    assert main(['run', written(table), '--out', 'out']) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0]
