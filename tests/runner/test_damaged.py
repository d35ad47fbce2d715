"""A run directory in any state: `eval`, `report` and `--resume` answer with one sentence and status 2, or go on."""

import json
import os
import pkgutil
import shutil
import signal
import threading

import numpy as np
import pytest
import tomli_w
from conftest import ROOT
from reused import reused_data, reused_programs  # noqa: F401  most of what a run costs is compiling
from tiny_configs import TINY, changed, written

from ooorl.errors import UsageError
from ooorl.reporting import writers
from ooorl.runner import run_directory, session
from ooorl.runner.cli import main
from ooorl.runner.place import template_of
from ooorl.runner.prepare import prepare
from ooorl.training import checkpoint, intact, programs

SMALL = changed(
    TINY, run={'scheme': 'offline', 'updates_per_round': 2, 'checkpoint_seconds': 0.0}, ooo=None, explore=None, exploit=None,
    offline={'num_updates': 4}, evaluation__num_episodes=1,
    agent={'agent': 'bc', 'hidden': [2], 'sampling': {'batch_size': 2}},
)  # fmt: skip
LINE = {'kind': 'train', 'phase': 'offline', 'seed': 0, 'updates': 2, 'env_steps': 0, 'loss': 0.5}
OTHERS = (None, -1, 2.5, 'word', [], {}, [[]], True, 10**40, float('nan'))


def one_in(number):
    """`step`: a few cases, one in so many, or, which takes minutes, all of them."""
    return pytest.mark.parametrize('step', [pytest.param(number, id='few'), pytest.param(1, id='all', marks=pytest.mark.slow)])


@pytest.fixture(scope='module', autouse=True)
def no_figures():
    """What is tested is files: figures are not drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('ooorl.reporting.figures.svg', lambda drawn: '<svg></svg>')
        yield


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A finished run and its config, made once; tests work on copies."""
    directory = tmp_path_factory.mktemp('finished')
    session.execute(prepare(SMALL), directory / 'out', quiet=True)
    (directory / 'c.toml').write_text(tomli_w.dumps(SMALL))
    return directory


@pytest.fixture
def place(finished, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / 'out'


def replaced_values(value, others):
    """Copies of a JSON value, each with one part replaced, or with one key missing."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield {name: own for name, own in value.items() if name != key}
            yield from ({**value, key: new} for new in replaced_values(item, others))
    elif isinstance(value, list) and value:
        yield from ([new, *value[1:]] for new in replaced_values(value[0], others))
    yield from others


NUM_DAMAGES = 11


def damages(path):
    """`(what, do)` for a file: removed, emptied, cut, overwritten, made a folder, and other JSON of every kind."""
    content = path.read_bytes()
    noise = np.random.default_rng(0).bytes(200)

    def folder():
        path.unlink()
        path.mkdir()

    def content_of(new):
        return lambda: path.write_bytes(new)

    yield 'removed', path.unlink
    yield 'a folder', folder
    parts = {'emptied': b'', 'cut': content[: len(content) // 2], 'noise': noise, 'no text': b'\xff\xfe' + content}
    parts |= {'a list': b'[1, 2]\n', 'a number': b'3\n', 'nothing': b'null\n', 'NaN': b'{"seeds": [NaN], "phase": NaN}\n'}
    parts['half noise'] = content[: len(content) // 2] + noise
    for name, new in parts.items():
        yield name, content_of(new)


def status_of(capsys, arguments):
    """The exit status of a command, which must be 0 or else 2 with one line, behind warnings of damaged checkpoints."""
    status = main(arguments)
    told = [line for line in capsys.readouterr().err.splitlines() if not line.startswith('warning: ')]
    assert status in (0, 2), (arguments, status, told)
    assert status == 0 or (len(told) == 1 and told[0].startswith('ooorl: ')), told
    return status


COMMANDS = {
    'eval': ['eval', 'out', '--episodes', '1'],
    'report': ['report', 'out', '--out', 'r.html'],
    'resume': ['run', 'c.toml', '--out', 'out', '--resume'],
}


def cases(place, step):
    """`(file, number of its damage)`: one in `step` of each file; where only digests tell, one in `step` files."""
    files = sorted(path.relative_to(place) for path in place.rglob('*') if path.is_file())
    assert len(files) > 20
    read = ('meta.json', 'manifest.json')
    inner = [name for name in files if name.parts[0] in ('checkpoint', 'tensorboard') and name.name not in read]
    outer = [(name, number) for name in files if name not in inner for number in range(NUM_DAMAGES)]
    return outer[::step] + [(name, number % NUM_DAMAGES) for number, name in enumerate(inner)][::step]


@pytest.fixture
def resumed(monkeypatch):
    """What runs that are resumed go on from."""
    states, restored = [], session._restored
    monkeypatch.setattr(session, '_restored', lambda *args: states.append(restored(*args)) or states[-1])
    return states


@one_in(13)
@pytest.mark.parametrize('command', COMMANDS)
def test_any_damage_to_any_file_is_one_sentence_or_nothing(place, finished, capsys, resumed, command, step):
    """One that is refused is left as it is, and none is begun anew: a resumed run ends with the rows of the whole one."""
    statuses = set()
    for name, number in cases(place, step):
        dict(enumerate(damages(place / name)))[number][1]()
        before = snapshot(place)
        statuses.add(status := status_of(capsys, COMMANDS[command]))
        if command == 'resume' and status:
            assert snapshot(place) == before, (name, number)
        elif command == 'resume':
            assert (place / 'metrics.jsonl').read_bytes() == (finished / 'out' / 'metrics.jsonl').read_bytes()
        shutil.rmtree(place)
        shutil.copytree(finished / 'out', place)
    assert statuses == {0, 2} and all(state is not None for state, _ in resumed)


@one_in(17)
def test_other_values_in_a_summary_and_in_rows(place, capsys, step):
    summary, seen = json.loads((place / 'summary.json').read_text()), set()
    for new in [*replaced_values(summary, OTHERS)][::step]:
        (place / 'summary.json').write_text(json.dumps(new))
        seen.add(status_of(capsys, COMMANDS['report']))
    (place / 'summary.json').write_text(json.dumps(summary))
    for new in [*replaced_values(LINE, OTHERS)][::step]:
        (place / 'metrics.jsonl').write_text(json.dumps(LINE) + '\n' + json.dumps(new) + '\n')
        seen.add(status_of(capsys, COMMANDS['report']))
    assert seen == {0, 2}


@one_in(43)
@pytest.mark.parametrize('command', ['eval', 'resume'])
def test_other_values_in_a_checkpoint_that_seems_intact(place, finished, capsys, resumed, command, step):
    newest = checkpoint.newest(place / 'checkpoint')
    meta = json.loads((newest / 'meta.json').read_text())
    sums = {**meta, 'sums': {'train': {'loss': [[1], 'float64']}}}
    for new in [*replaced_values(meta, OTHERS), *replaced_values(sums, OTHERS)][::step]:
        (newest / 'meta.json').write_text(json.dumps(new))
        (newest / 'manifest.json').write_text(json.dumps(intact.digests(newest)))
        status_of(capsys, COMMANDS[command])
        shutil.rmtree(place)
        shutil.copytree(finished / 'out', place)
    assert all(state is not None for state, _ in resumed)


@one_in(41)
@pytest.mark.parametrize('command', COMMANDS)
def test_settings_of_other_types_in_the_config(place, capsys, command, step):
    config = place / 'config.toml'
    text = config.read_text()
    changes = [(number, new) for number in range(len(text.splitlines())) for new in ('= []', '= nan', '= "word"', '[run]', '')]
    for number, new in changes[::step]:
        lines = text.splitlines()
        lines[number] = lines[number].partition('=')[0] + new if new.startswith('=') else new
        config.write_text('\n'.join(lines))
        status_of(capsys, COMMANDS[command])
    config.write_text(text)
    assert status_of(capsys, COMMANDS[command]) == 0


def snapshot(place):
    return {path: path.read_bytes() for path in place.rglob('*') if path.is_file()}


def test_damaged_checkpoints_are_refused_and_everything_is_kept(place, capsys):
    for path in (place / 'checkpoint').iterdir():
        (path / 'meta.json').write_text('{}')
    before = snapshot(place)
    assert main(COMMANDS['resume']) == 2
    told = capsys.readouterr().err
    assert 'all in out/checkpoint are damaged' in told and 'meta.json was changed' in told and 'start anew' in told
    assert snapshot(place) == before
    assert main(COMMANDS['eval']) == 2 and 'are damaged' in capsys.readouterr().err
    shutil.rmtree(place / 'checkpoint')
    before = snapshot(place)
    assert main(COMMANDS['resume']) == 2 and 'has lost those of its run' in capsys.readouterr().err
    assert snapshot(place) == before


def test_rows_that_were_changed_are_refused_and_kept(place, capsys):
    path = place / 'metrics.jsonl'
    path.write_text(path.read_text().replace('"kind": "train"', '"kind": "drain"', 1))
    before = path.read_bytes()
    assert main(COMMANDS['resume']) == 2 and 'do not match' in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_second_process_is_told_who_writes(place, capsys):
    text = (place / 'config.toml').read_text()
    with run_directory.opened(place, text, resume=True):
        assert main(COMMANDS['resume']) == 2
        told = capsys.readouterr().err
        assert f'out is being written by process {os.getpid()} on ' in told and 'choose another --out' in told
        assert status_of(capsys, COMMANDS['eval']) == 0 and status_of(capsys, COMMANDS['report']) == 0  # they only read
    assert not list(place.glob('.lock*')) and not list(place.glob('.holder*'))
    assert main(COMMANDS['resume']) == 0


def test_what_a_killed_first_write_leaves_does_not_stop_a_fresh_start(place, finished, capsys):
    os.makedirs('killed')
    for name in ('.lock', '.holder', '.config.toml.77.tmp'):
        (place.parent / 'killed' / name).write_text('half')
    assert main(['run', 'c.toml', '--out', 'killed']) == 0
    assert not [path for path in (place.parent / 'killed').iterdir() if path.name.startswith('.')]
    # Killed later, the config is there: then --resume begins from the start.
    os.makedirs('later')
    shutil.copy(place / 'config.toml', 'later')
    assert main(['run', 'c.toml', '--out', 'later', '--resume']) == 0
    for name in ('killed', 'later'):
        assert (place.parent / name / 'metrics.jsonl').read_bytes() == (finished / 'out' / 'metrics.jsonl').read_bytes()


@pytest.mark.parametrize('moment', ['runner.session._Session._record', 'runner.session.visited', 'reporting.report.load'])
def test_a_deleted_directory_stops_the_run_soon_and_stays_deleted(place, capsys, monkeypatch, moment):
    """Deleted while the run learns, before the map is written, while the report is drawn."""
    function = pkgutil.resolve_name(f'ooorl.{moment.replace("._Session", ":_Session")}')

    def deleting(*args):
        found = function(*args)
        shutil.rmtree('gone', ignore_errors=True)
        return found

    monkeypatch.setattr(f'ooorl.{moment}', deleting)
    assert main(['run', 'c.toml', '--out', 'gone']) == 2
    assert 'gone was deleted or replaced meanwhile' in capsys.readouterr().err
    assert not os.path.exists('gone')


def test_a_run_that_is_interrupted_has_summary_and_report_and_its_times_add_up_when_resumed(place, capsys, monkeypatch):
    record, left = session._Session._record, [3]

    def stopping(self, event):
        record(self, event)
        left[0] -= 1
        if left[0] == 0:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(session._Session, '_record', stopping)
    assert main(['run', 'c.toml', '--out', 'half']) == 128 + signal.SIGTERM
    half = place.parent / 'half'
    summary = writers.read_json(half / 'summary.json')
    assert summary['status'] == 'interrupted' and 'was interrupted' in summary['notes'][0]
    assert 'was interrupted' in (half / 'report.html').read_text()
    assert summary['wall_seconds'] == pytest.approx(sum(summary['times'].values()))
    assert main(['run', 'c.toml', '--out', 'half', '--resume']) == 0
    whole = writers.read_json(half / 'summary.json')
    assert whole['status'] == 'complete' and (half / 'metrics.jsonl').read_bytes() == (place / 'metrics.jsonl').read_bytes()
    assert whole['wall_seconds'] == pytest.approx(sum(whole['times'].values()))
    assert whole['wall_seconds'] > summary['wall_seconds']
    phase = whole['phases'][0]
    assert phase['wall_seconds'] == pytest.approx(sum(phase['times'].values()))
    assert 0 < phase['times']['train'] <= whole['times']['train']


def test_a_checkpoint_may_be_due_in_the_middle_of_a_round(place, monkeypatch):
    places, save = [], checkpoint.Saver.save

    def noted(self, number, tree, meta):
        places.append((meta['phase'], meta['round'], meta['done']))
        return save(self, number, tree, meta)

    monkeypatch.setattr(checkpoint.Saver, 'save', noted)
    monkeypatch.setattr(programs.Pace, 'count', lambda self, phase, left: 1)
    assert main(['run', 'c.toml', '--out', 'parts']) == 0
    assert places == [(0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 0)]
    assert (place.parent / 'parts' / 'metrics.jsonl').read_bytes() == (place / 'metrics.jsonl').read_bytes()


def test_a_run_is_evaluated_while_it_is_written(place, capsys, monkeypatch):
    """Checkpoints come and go between listing and reading."""
    setup = prepare(SMALL).setup
    place_of = json.loads((checkpoint.newest(place / 'checkpoint') / 'meta.json').read_text())
    done = threading.Event()
    failures, tree = [], template_of(setup)(place_of)
    arrays = checkpoint.restore(place / 'checkpoint', lambda meta: tree)[0]

    def write():
        for number in range(10, 22):
            checkpoint.save(place / 'checkpoint', number, arrays, place_of)
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    while not done.is_set():
        try:
            assert checkpoint.restore(place / 'checkpoint', lambda meta: tree)[1]['phase'] == place_of['phase']
        except UsageError as error:
            failures.append(str(error))
    thread.join()
    assert not failures


@pytest.mark.parametrize(('out', 'words'), [('.', 'is a folder'), ('out', 'is a folder')])
def test_a_report_needs_a_file_to_write(place, capsys, out, words):
    assert main(['report', 'out', '--out', out]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize('name', ['../up', 'a/b', '..', '', 5, 'a\nb', 'x' * 300])
def test_a_name_of_a_run_is_one_of_a_folder(place, capsys, name):
    assert main(['run', written({**SMALL, 'name': name}, 'named.toml')]) == 2
    assert 'name must' in capsys.readouterr().err
    assert not os.path.exists('runs') and ROOT.exists()
