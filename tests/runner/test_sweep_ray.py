"""A sweep on a real Ray cluster of two workers, one of which is killed in the middle of a cell."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from conftest import ROOT

from ooorl.runner.sweep import claims, cluster

MEMORY = 80 * 2**20


def slow_cell():
    """What a worker does with a cell; made here, so that it travels by value."""

    def run(folder):
        with open(folder / 'begun.txt', 'a') as file:
            file.write(f'{os.getpid()}\n')
        time.sleep(3)
        with open(folder / 'done.txt', 'a') as file:
            file.write('x')
        return 'complete', ''

    return lambda folder, command, again=False: claims.attempt(folder, run, again=again)


def kill_one(folders, killed):
    """Kills the worker of a cell once two are under way."""
    while not killed:
        begun = [folder for folder in folders if (folder / 'begun.txt').exists() and claims.is_held(folder)]
        if len(begun) >= 2:
            os.kill(int((begun[0] / 'begun.txt').read_text().split()[-1]), signal.SIGKILL)
            killed.append(begun[0])
        time.sleep(0.1)


@pytest.mark.slow
def test_a_killed_workers_cell_runs_again_and_every_cell_is_done_once(tmp_path, monkeypatch):
    pytest.importorskip('ray')
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.setenv('RAY_memory_monitor_refresh_ms', '0')  # how full this machine is says nothing here
    from ray.cluster_utils import Cluster

    folders = [Path(tmp_path) / str(number) for number in range(6)]
    for folder in folders:
        folder.mkdir()
    head = {'num_cpus': 0, 'object_store_memory': MEMORY, 'include_dashboard': False}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    told, killed = {}, []
    try:
        for _ in range(2):
            nodes.add_node(num_cpus=1, object_store_memory=MEMORY)
        threading.Thread(target=kill_one, args=(folders, killed), daemon=True).start()
        cluster.run(folders, None, address=nodes.address, cores=1, told=told.__setitem__, do=slow_cell())
    finally:
        nodes.shutdown()
    assert {state.status for state in told.values()} == {'complete'} and len(told) == 6
    assert [(folder / 'done.txt').read_text() for folder in folders] == ['x'] * 6
    assert [folder for folder in folders if len((folder / 'begun.txt').read_text().split()) == 2] == killed
