"""Sweeps: cells by content, each run once whoever asks for it, killed ones again, and a table whatever has failed."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import PATIENCE, ROOT
from tiny_configs import OFFLINE, changed, written

from ooorl.errors import UsageError
from ooorl.runner.cli import main
from ooorl.runner.sweep import cells, claims, cluster, local, slurm
from ooorl.runner.sweep.work import work


@pytest.fixture(autouse=True)
def _scratch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PYTHONPATH', str(ROOT))


def folders(num):
    found = [Path('cells') / str(number) for number in range(num)]
    for folder in found:
        folder.mkdir(parents=True)
    return found


def once(folder):
    """A cell that only says that it was run."""
    with open(folder / 'runs.txt', 'a') as file:
        file.write('x')
    return 'complete', ''


class Thread:
    """A worker that is a thread, with the interface of `local.Process`."""

    def __init__(self, folder, execute):
        self.thread = threading.Thread(target=claims.attempt, args=(folder, execute))
        self.thread.start()

    def is_done(self):
        return not self.thread.is_alive()

    def stop(self):
        pass


def engine(found, execute=once, jobs=8):
    told = []
    local.run(found, lambda folder, place: Thread(folder, execute), jobs=jobs, told=lambda *what: told.append(what), pause=0.002)
    return told


def test_two_engines_on_one_directory_run_200_cells_once_each():
    found, told = folders(200), []
    engines = [threading.Thread(target=lambda own=own: told.extend(engine(own))) for own in (found, found[::-1])]
    for one in engines:
        one.start()
    for one in engines:
        one.join()
    assert [(folder / 'runs.txt').read_text() for folder in found] == ['x'] * 200
    assert len(told) == 400 and {claims.state(folder).status for folder in found} == {'complete'}
    assert {state.status for _, state in engine(found) if state} == {'complete'}
    assert [(folder / 'runs.txt').read_text() for folder in found] == ['x'] * 200, 'what is done is not run again'


HOLDING = """
import sys, time
from pathlib import Path
from ooorl.runner.sweep import claims
def hold(folder):
    (folder / 'held').touch()
    time.sleep(600)
claims.attempt(Path('cells/0'), hold)
"""


def test_a_cell_whose_worker_was_killed_runs_again_and_one_that_runs_elsewhere_does_not():
    found = folders(2)
    worker = subprocess.Popen([sys.executable, '-c', HOLDING])
    began = time.monotonic()
    while not (found[0] / 'held').exists():
        assert time.monotonic() - began < PATIENCE
        time.sleep(0.02)
    told = dict(engine(found))
    assert told[found[0]] is None and told[found[1]].status == 'complete' and not (found[0] / 'runs.txt').exists()
    assert claims.state(found[0]).status == 'running' and 'process' in claims.state(found[0]).note
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert claims.state(found[0]).status == 'interrupted'
    assert dict(engine(found))[found[0]] == claims.state(found[0]) and claims.state(found[0]).attempts == 2


def test_a_worker_that_always_dies_fails_at_last():
    class Dies(Exception):
        pass

    def die(folder):
        raise Dies

    (folder,) = folders(1)
    for _ in range(claims.ATTEMPTS):
        with pytest.raises(Dies):
            claims.attempt(folder, die)
    assert claims.attempt(folder, once) == claims.State('failed', claims.ATTEMPTS, 'its worker died 3 times')
    assert claims.attempt(folder, once, again=True).status == 'complete'


def sweep_file(**table):
    import tomli_w

    Path('s.toml').write_text(tomli_w.dumps(table))
    return 's.toml'


def data_file(seed=0):
    generator = np.random.default_rng(seed)
    np.savez('mine.npz', observations=generator.normal(size=(40, 3)), actions=generator.uniform(-1, 1, (40, 2)),
             rewards=generator.normal(size=40), terminals=np.arange(40) % 10 == 9)  # fmt: skip


TASK = {'dataset': 'mine.npz', 'family': 'locomotion', 'name': 'mine'}


def test_cells_are_named_by_what_decides_their_results():
    data_file()
    two = [{'name': 'fast', 'set': {'agent.learning_rate': 1e-2}}, {'name': 'slow', 'set': {'agent.learning_rate': 1e-4}}]
    _, found = cells.read(sweep_file(presets=['bc@small', 'td3bc@small'], tasks=[TASK], seeds='0:3', settings=two))
    assert len({cell.id for cell in found}) == len(found) == 12
    assert {cell.algorithm for cell in found} == {'bc@small fast', 'bc@small slow', 'td3bc@small fast', 'td3bc@small slow'}
    assert {cell.table['agent']['learning_rate'] for cell in found} == {1e-2, 1e-4}
    _, same = cells.read(sweep_file(presets=['bc@small'], tasks=[TASK], seeds='1:2', set={'agent.learning_rate': 1e-2}))
    assert same[0].id == found[1].id, 'the same run under another name of its setting'
    data_file(seed=1)
    assert cells.read('s.toml')[1][0].id != same[0].id, 'other data are another cell'
    _, whole = cells.read(sweep_file(presets=['bc@small'], tasks=[TASK], seeds='0:5', seeds_per_cell=2))
    assert [cell.seeds for cell in whole] == ['0,1', '2,3', '4']


def test_the_sweep_of_the_documentation_is_one():
    code = re.search(r'^```toml\n(.*?)^```', (ROOT / 'docs' / 'sweeps.md').read_text(encoding='utf-8'), re.MULTILINE | re.DOTALL)
    Path('sweep.toml').write_text(code[1])
    name, found = cells.read('sweep.toml')
    assert (name, len(found)) == ('first', 30) and found[0].table['offline']['num_updates'] == 5000


@pytest.mark.parametrize(('table', 'told'), [
    ({'presets': ['bc@small'], 'tasks': [TASK, {**TASK, 'env': 'Hopper-v4'}]}, 'cells of a sweep need names of their own'),
    ({'presets': ['fql'], 'tasks': ['hopper-medium-v2']}, 'preset fql@paper has settings for'),
    ({'presets': ['bc'], 'tasks': [TASK], 'settings': [{'nam': 'x'}]}, 'need a name and a table set'),
    ({'presets': ['bc'], 'tasks': [{'data': 'x'}]}, 'a task of a sweep needs an id'),
    ({'presets': ['bc'], 'tasks': [{**TASK, 'dataset': 'no.npz'}]}, 'data that are there, or an id of the catalogue; got no.npz'),
    ({'presets': ['bc'], 'tasks': [TASK], 'set': {'agent.learning_rat': 1}}, "bc on mine: unknown key 'learning_rat'"),
    ({'presets': ['bc']}, 'the sweep needs tasks'),
])  # fmt: skip
def test_a_sweep_that_cannot_be_is_one_sentence(table, told, capsys):
    data_file()
    assert main(['sweep', sweep_file(**table)]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count('\n') == 1 and not Path('sweeps').exists()


def test_directories_of_other_versions_are_refused(capsys):
    data_file()
    Path('old').mkdir()
    Path('old/sweep.json').write_text(json.dumps({'version': 0, 'cells': []}))
    file = sweep_file(presets=['bc@small'], tasks=[TASK])
    assert main(['sweep', file, '--out', 'old', '--engine', 'slurm']) == 2
    assert "a sweep of version 1 is needed; old is of version 0" in capsys.readouterr().err
    assert main(['sweep', file, '--out', '.', '--engine', 'slurm']) == 2
    assert 'holds no sweep.json' in capsys.readouterr().err


def test_two_engines_may_begin_a_directory_at_the_same_moment(monkeypatch):
    cell = cells.Cell('a', 'bc', 'task', '0', {})
    Path('new').mkdir()
    Path('new/.sweep.json.1.tmp').touch()  # what another one is writing
    write, seen = cells.writers.write_json, []

    def look(path, table):
        write(path, table)
        seen.append(path.name)
        if len(seen) == 1:
            cells.prepare(Path('new'), 'first', [cell])

    monkeypatch.setattr(cells.writers, 'write_json', look)
    cells.prepare(Path('new'), 'first', [cell])
    assert seen == ['sweep.json', 'sweep.json', 'cell.json', 'cell.json'] and cells.listed(Path('new')) == [cell]


def test_a_real_sweep_half_of_which_fails_makes_its_table(capsys):
    data_file()
    sizes = {'run.updates_per_round': 5, 'offline.num_updates': 10}
    written(changed(OFFLINE, agent__agent='bc'), 'good.toml')
    written(changed(OFFLINE, agent__agent='bc', agent__sampling__batch_size=1000), 'bad.toml')
    file = sweep_file(presets=['good.toml', 'bad.toml'], tasks=[TASK], seeds='0:1', set=sizes)
    assert main(['sweep', file, '--out', 'out', '--jobs', '1']) == 1
    told = capsys.readouterr().out
    assert 'mine: neither the sweep nor the data name an environment' in told
    assert 'good on mine, seeds 0: complete' in told and 'bad on mine, seeds 0: failed' in told
    assert 'batch_size must be at most the number of rows' in told
    assert main(['sweep', file, '--out', 'out', '--jobs', '1']) == 1
    assert '2 cells: 1 complete, 1 failed' in capsys.readouterr().out
    assert main(['table', 'out', '--out', 'r.md', 'r.html']) == 0
    assert '2 seeds in all: 1 failed, 1 not evaluated.' in capsys.readouterr().out
    assert '| bad | 1 failed |' in Path('r.md').read_text()


def test_damaged_data_stop_their_own_cells_alone(capsys):
    Path('cut.hdf5').write_bytes(b'\x89HDF\r\n\x1a\n')
    data_file()
    written(changed(OFFLINE, agent__agent='bc'), 'good.toml')
    file = sweep_file(presets=['good.toml', 'bc@small'], tasks=[TASK, {'dataset': 'cut.hdf5', 'name': 'cut'}], seeds='0:1')
    assert not main(['sweep', file, '--dry-run'])
    assert '4 cells' in capsys.readouterr().out
    _, found = cells.read(file)  # a preset asks the file for its task: that cell has no settings, and fails without being run
    cells.prepare(Path('out'), 'two', found)
    (lost,) = [cell for cell in found if cell.problem]
    state = work(Path('out/cells') / lost.id, lambda words: pytest.fail('was run'))
    assert (lost.algorithm, lost.task) == ('bc@small', 'cut')
    assert state.status == 'failed' and state.note.startswith('A whole HDF5 file is needed;')


def test_the_script_for_slurm_runs_its_cell_and_asks_to_be_queued_again(monkeypatch):
    found = folders(3)
    Path('bin').mkdir()
    lines = ['#!/bin/bash', 'echo "$@" >> ran.txt', 'trap "exit 143" TERM', '[ -e slow ] && { sleep 30 & wait; }', 'exit 0', '']
    Path('bin/python').write_text('\n'.join(lines))
    Path('bin/scontrol').write_text('#!/bin/bash\necho "$@" >> queued.txt\n')
    for name in ('python', 'scontrol'):
        os.chmod(f'bin/{name}', 0o755)
    monkeypatch.setattr(sys, 'executable', str(Path('bin/python').resolve()))
    script = slurm.write(Path('.'), 'tiny', found, jobs=2)
    assert '#SBATCH --array=0-2%2' in script.read_text()
    environment = {**os.environ, 'SLURM_ARRAY_TASK_ID': '1', 'SLURM_ARRAY_JOB_ID': '7'}
    environment['PATH'] = f'{Path("bin").resolve()}:{environment["PATH"]}'
    assert subprocess.run(['bash', script], env=environment, timeout=PATIENCE).returncode == 0
    assert Path('ran.txt').read_text() == f'-m ooorl sweep --cell {found[1].resolve()}\n' and not Path('queued.txt').exists()
    Path('slow').touch()
    task = subprocess.Popen(['bash', script], env=environment)
    while Path('ran.txt').read_text().count('\n') < 2:
        time.sleep(0.02)
    time.sleep(0.2)
    task.send_signal(signal.SIGTERM)
    assert task.wait(timeout=PATIENCE) == 143 and Path('queued.txt').read_text() == 'requeue 7_1\n'


def test_ray_is_asked_for_in_a_sentence(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'ray', None)
    data_file()
    assert main(['sweep', sweep_file(presets=['bc@small'], tasks=[TASK], seeds='0:1'), '--engine', 'ray']) == 2
    assert '--engine ray needs the package ray' in capsys.readouterr().err
    with pytest.raises(UsageError, match='a table needs the directory'):
        from ooorl.runner.gathered import results_in

        results_in(Path('nowhere'))


def test_a_cluster_that_is_not_there_is_found_out_at_once():
    with pytest.raises(OSError):
        cluster.reach('127.0.0.1:1')
    for other in (None, 'auto', 'ray://127.0.0.1:1'):
        cluster.reach(other)
