"""Commands in a directory of their own, files of data for them, and the one line that a refused one leaves."""

import os

import h5py
import numpy as np
import pytest
from conftest import ROOT

from ooorl.runner.cli import main

ROWS = 40


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
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
