"""The command line: what works, and what ends otherwise, in the same words in a process of its own."""

import contextlib
import gc
import io
import json
import os
import signal
import subprocess
import sys
import time
import tomllib

import numpy as np
import pytest
from commands import ROWS, hdf5, refusal, scratch  # noqa: F401
from conftest import PATIENCE, ROOT
from reused import reused_data, reused_programs  # noqa: F401  a run, and the same one resumed and evaluated
from tiny_configs import TINY, changed, written

from ooorl.reporting import tables
from ooorl.runner import cli
from ooorl.runner.cli import main
from ooorl.training.programs import Programs


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
from ooorl.reporting import figures
from ooorl.runner.cli import main
figures.svg = lambda drawn: '<svg></svg>'
status = main(sys.argv[1:])
print('devices:', jax.local_device_count())
sys.exit(status)
"""


def test_a_cpu_device_per_core_gives_the_same_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr('ooorl.reporting.figures.svg', lambda drawn: '<svg></svg>')
    monkeypatch.setattr('ooorl.training.run.Programs', Programs)  # this run has other agents than the file's other runs
    cloning = {'agent': 'bc', 'hidden': [8], 'sampling': {'batch_size': 8}}
    written(changed(TINY, explore=cloning, exploit=cloning, report=None))
    assert main(['run', 'c.toml', '--out', 'out']) == 0
    environment = {key: value for key, value in os.environ.items() if key != 'JAX_NUM_CPU_DEVICES'}
    command = [sys.executable, '-c', TWO_CORES, 'run', 'c.toml', '--out', 'two']
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0 and 'devices: 2' in done.stdout, done.stderr
    rows, expected = (
        [json.loads(line) for line in (tmp_path / out / 'metrics.jsonl').read_text().splitlines()] for out in ('two', 'out')
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


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_a_signal_that_a_callback_of_the_garbage_collector_swallows_is_raised_again():
    held, swallowed = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}, []

    def callback(phase, info):
        gc.callbacks.remove(callback)
        swallowed.append(phase)
        os.kill(os.getpid(), signal.SIGTERM)  # its handler raises before the next line
        swallowed.clear()

    try:
        cli._from_now_on()
        gc.callbacks.append(callback)
        gc.collect()
        assert swallowed == ['start'] and cli._Asked.number == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            time.sleep(60)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        for number, handler in held.items():
            signal.signal(number, handler)
        cli._Asked.number = None


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


def test_modules_of_configs_are_found_in_the_folder_of_the_command(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', ['/usr/bin', '/lib'])  # as of the installed command, which begins with its own folder
    cli._find_modules_here()
    cli._find_modules_here()
    assert sys.path == ['/usr/bin', '/lib', str(tmp_path)]
    monkeypatch.setattr(sys, 'path', ['', '/lib'])
    cli._find_modules_here()
    assert sys.path == ['', '/lib']
