"""A run that was stopped, however it was stopped, and resumed ends with the same bits as one that was not."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import line_world  # noqa: F401  registers NoisyLine-v0
import numpy as np
import orbax.checkpoint
import pytest
import tomli_w
from conftest import ROOT
from reused import reused_data, reused_programs  # noqa: F401  for what runs in this process

from ooorl.runner.cli import main
from ooorl.training import checkpoint

SAMPLING = {'batch_size': 8, 'success_rows': 2}
AGENT = {'agent': 'iql', 'hidden': [8], 'schedule': 'cosine', 'normalise_observation': True, 'sampling': SAMPLING}
SCHEME = {'pretrain_updates': 12, 'num_env_steps': 24, 'explore_updates': 12, 'retrain_updates': 12}
MAZE = {
    'name': 'maze',
    # Three rounds a phase: 9 in all.
    'run': {'scheme': 'ooo', 'seeds': '0:2', 'updates_per_round': 4, 'checkpoint_seconds': 0.0},
    'environment': {'id': 'ooorl/UMaze-v0', 'num_envs': 2, 'settings': {'horizon': 7}},
    'evaluation': {'num_episodes': 3},
    'dataset': {'scripted': 'u_maze', 'settings': {'num_episodes': 6}},
    'ooo': SCHEME,
    'explore': {**AGENT, 'bonus': {'signal': 'rnd', 'scale': 1.0, 'hidden': [8], 'num_features': 4}},
    'exploit': {**AGENT, 'bounds': {}},
}
PLAIN = {'agent': 'iql', 'hidden': [8], 'sampling': {'batch_size': 8}}
LINE = {
    'name': 'line',
    'run': {'scheme': 'ooo', 'seeds': '0:2', 'updates_per_round': 4, 'checkpoint_seconds': 0.0},
    'environment': {'id': 'NoisyLine-v0', 'num_envs': 2},
    'evaluation': {'num_episodes': 3},
    'dataset': {'path': 'line.npz'},
    'ooo': SCHEME,
    'explore': PLAIN,
    'exploit': PLAIN,
}

# A process that has imported everything and forks for each line that it reads: a file for what is printed, where to stop, and the
# arguments of `ooorl`. The fork runs it and stops itself, the server prints its status. With SIGKILL=record:5 that is right after
# the fifth round, before its checkpoint; with SIGKILL=rename:5 with the fifth checkpoint written but not yet in its place; with
# SIGTERM instead, that signal is sent.
DRIVER = textwrap.dedent("""
    import gc, json, os, signal, sys, traceback
    import line_world, lowering, orbax.checkpoint
    from ooorl.reporting import figures, report
    from ooorl.runner import build, prepare, session
    from ooorl.runner.cli import main
    from ooorl.training import programs

    programs.Pace.count = lambda self, phase, left: left  # every round in one part, so that rounds can be counted
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
    lowering.share_context()
    lowering.answer_with_numpy()
    lowering.initialise_with_numpy()
    programs.Programs.expect = lambda self, jobs: None  # who is stopped in the second round wants no programs of the last
    figures.svg = lambda drawn: '<svg></svg>'

    def stop_at(place, left, number):
        left = [int(left)]

        def count():
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), number)

        if place == 'record':
            record = session._Session._record
            # The checkpoint before is on the disk: it is written while the next round runs.
            session._Session._record = lambda self, event: (self.saver.wait(), record(self, event), count())
        else:
            rename = os.rename

            def counted(source, target):
                if os.path.basename(source).startswith('.writing-'):
                    count()
                rename(source, target)

            os.rename = counted

    def run(told, stop, arguments):
        os.dup2(os.open(told, os.O_WRONLY | os.O_CREAT), 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 70
        try:
            for name, where in stop.items():
                stop_at(*where.split(':'), getattr(signal, name))
            status = main(arguments)
        except BaseException:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(status)

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(*json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
""")


@pytest.fixture(scope='module', autouse=True)
def whole_rounds_and_no_figures():
    """As in the driver, every round is one part, so that checkpoints can be counted. Reports are written, but not drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('ooorl.training.programs.Pace.count', lambda self, phase, left: left)
        patch.setattr('ooorl.reporting.figures.svg', lambda drawn: '<svg></svg>')
        yield


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A directory with the configs and the data."""
    directory = tmp_path_factory.mktemp('resume')
    position = np.linspace(0.0, 1.9, 40, dtype=np.float32)[:, None]
    columns = {
        'observations': position,
        'actions': np.full((40, 1), 0.05, np.float32),
        'rewards': position[:, 0],
        'terminals': np.arange(40) % 5 == 4,
        'next_observations': position + 0.05,
    }
    np.savez(directory / 'line.npz', **columns)
    for table in (MAZE, LINE):
        (directory / f'{table["name"]}.toml').write_text(tomli_w.dumps(table))
    return directory


def environment():
    # Every process compiles the same programs anew, small ones too, but for what is kept.
    kept = {'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'}
    return {**os.environ, **kept, 'PYTHONPATH': f'{ROOT}{os.pathsep}{ROOT / "tests" / "support"}'}


@pytest.fixture(scope='module')
def run(place):
    """`ooorl run` in a process of its own to where `stop` says; returns status and what it printed to stderr."""
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}
    with subprocess.Popen([sys.executable, '-c', DRIVER], cwd=place, env=environment(), **pipes) as server:

        def run(name, out, *options, **stop):
            told = place / f'{out}.stderr'
            told.write_text('')
            command = [str(told), stop, ['run', f'{name}.toml', '--out', out, *options]]
            server.stdin.write(json.dumps(command) + '\n')
            server.stdin.flush()
            return int(server.stdout.readline()), told.read_text()

        yield run


def finish(place, name, out, *options):
    """`ooorl run` to its end, in this process: what was stopped was stopped in others."""
    with contextlib.chdir(place):
        assert main(['run', f'{name}.toml', '--out', out, *options]) == 0
    return outcome(place / out)


def outcome(out):
    """What must not depend on interruptions: metrics, scores, and every array of the last checkpoint."""
    newest = checkpoint.newest(out / 'checkpoint')
    summary = json.loads((out / 'summary.json').read_text())
    return {
        'metrics': (out / 'metrics.jsonl').read_bytes(),
        'table': (out / 'metrics.csv').read_bytes(),
        'scores': [(phase['name'], phase['scores'], phase['online_rows']) for phase in summary['phases']],
        'arrays': {name: (array.dtype, array.tobytes()) for name, array in arrays(newest).items()},
    }


def arrays(path):
    # Read with orbax itself: nothing of ours stands between the disk and the comparison.
    with orbax.checkpoint.Checkpointer(orbax.checkpoint.PyTreeCheckpointHandler()) as checkpointer:
        names = checkpointer.metadata(path / 'arrays').item_metadata.tree
        as_numpy = dict.fromkeys(names, orbax.checkpoint.RestoreArgs(restore_type=np.ndarray))
        return checkpointer.restore(path / 'arrays', args=orbax.checkpoint.args.PyTreeRestore(restore_args=as_numpy))


def evaluated(out):
    """What `ooorl eval` writes."""
    with contextlib.chdir(out.parent):
        assert main(['eval', out.name, '--episodes', '4']) == 0
    return (out / 'eval.json').read_bytes()


def assert_same(got, expected):
    assert got['metrics'] == expected['metrics'] and got['table'] == expected['table']
    assert got['scores'] == expected['scores']
    assert got['arrays'].keys() == expected['arrays'].keys()
    differing = [name for name in got['arrays'] if got['arrays'][name] != expected['arrays'][name]]
    assert not differing


def checkpoints(out):
    return sorted(path.name for path in (out / 'checkpoint').iterdir())


@pytest.fixture(scope='module')
def maze(place):
    found = finish(place, 'maze', 'maze-whole')
    assert len(found['arrays']) > 50 and found['metrics'].count(b'\n') > 30
    return found


def test_killed_in_every_phase_with_a_checkpoint_every_round(place, run, maze):
    out = place / 'often'
    status, _ = run('maze', 'often', SIGKILL='record:2')  # the second round of pretraining, before its checkpoint
    assert status == -signal.SIGKILL and checkpoints(out) == ['00000001']
    status, told = run('maze', 'often', '--resume', SIGTERM='record:3')  # after rounds 2, 3 and one of exploring
    assert status == 128 + signal.SIGTERM
    assert told == 'ooorl: stopped after a checkpoint; the same command with --resume goes on\n'
    assert checkpoints(out) == ['00000003', '00000004']
    meta = out / 'checkpoint' / '00000004' / 'meta.json'
    meta.write_bytes(meta.read_bytes()[:-9])  # damaged: the run goes on from the one before
    # The second round of retraining, while it is saved.
    status, _ = run('maze', 'often', '--resume', SIGKILL='rename:5')
    assert status == -signal.SIGKILL
    assert checkpoints(out)[0].startswith('.writing-') and checkpoints(out)[1:] == ['00000006', '00000007']
    assert_same(finish(place, 'maze', 'often', '--resume'), maze)
    assert checkpoints(out) == ['00000008', '00000009']


def test_killed_with_checkpoints_at_the_ends_of_phases_only(place, run, maze):
    rarely = ('--set', 'run.checkpoint_seconds=1e9')
    status, _ = run('maze', 'rarely', *rarely, SIGKILL='record:5')  # the second round of exploring
    assert status == -signal.SIGKILL and checkpoints(place / 'rarely') == ['00000001']
    status, _ = run('maze', 'rarely', *rarely, '--resume', SIGKILL='record:5')  # the second round of retraining
    assert status == -signal.SIGKILL and checkpoints(place / 'rarely') == ['00000001', '00000002']
    assert_same(finish(place, 'maze', 'rarely', *rarely, '--resume'), maze)


def test_killed_from_outside_at_an_unplanned_moment(place, maze):
    program = 'import lowering, sys; from ooorl.runner.cli import main; lowering.initialise_with_numpy(); sys.exit(main())'
    command = [sys.executable, '-c', program, 'run', 'maze.toml', '--out', 'outside']
    process = subprocess.Popen(command, cwd=place, env=environment(), stdout=subprocess.DEVNULL)
    directory = place / 'outside' / 'checkpoint'
    while not (directory.is_dir() and any(directory.iterdir())) and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() in (-signal.SIGKILL, 0)  # 0 where this process slept through all of it
    assert_same(finish(place, 'maze', 'outside', '--resume'), maze)


def test_host_environments_go_on_in_mid_episode(place, run):
    expected = finish(place, 'line', 'line-whole')
    status, told = run('line', 'line', SIGKILL='record:6')  # exploring, two rounds in: rows of both environments under way
    assert status == -signal.SIGKILL and checkpoints(place / 'line') == ['00000004', '00000005'], told
    # With another number of processes, from where the environments stood to the same bits.
    assert_same(finish(place, 'line', 'line', '--resume', '--set', 'environment.workers=1'), expected)
    assert evaluated(place / 'line') == evaluated(place / 'line-whole')
