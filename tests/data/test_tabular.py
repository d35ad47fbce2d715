"""Logs in CSV and Parquet: columns by name, episodes where the log says, and what is wrong in one sentence."""

import numpy as np
import pytest

from ooorl import data
from ooorl.data import tabular
from ooorl.errors import UsageError
from ooorl.runner.cli import main

ROWS = """run,x_10,x_2,force,gain,done
a,1,2,4,0.5,false
a,3,4,-4,0.5,true
b,5,6,0,1,False
b,7,8,2,1,False
b,9,10,2,1,0
c,0,0,0,0,0
"""
COLUMNS = {'observations': ['x_*'], 'actions': ['force'], 'reward': 'gain', 'terminal': 'done', 'episode': 'run'}


@pytest.fixture(autouse=True)
def _scratch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'log.csv').write_text(ROWS)


def test_a_log_by_hand():
    arrays = tabular.read('log.csv', **COLUMNS)
    np.testing.assert_array_equal(arrays['observations'][:2], [[2, 1], [4, 3]], 'patterns in the order of their numbers')
    np.testing.assert_array_equal(arrays['terminals'], [0, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(arrays['timeouts'], [0, 0, 0, 0, 1, 1])


def test_a_log_becomes_a_data_set(capsys):
    options = ['--observations', 'x_2,x_10', '--actions', 'force', '--reward', 'gain', '--terminal', 'done', '--episode', 'run']
    assert main(['data', 'convert', 'log.csv', 'log.npz', *options, '--action-low=-4', '--action-high', '4']) == 0
    assert 'format npz' in capsys.readouterr().out
    made = data.load('log.npz').transitions
    # The last rows of b and c have no successor in the log.
    np.testing.assert_array_equal(made.action[:, 0], [1.0, -1.0, 0.0, 0.5])
    np.testing.assert_array_equal(made.discount, [1, 0, 1, 1])
    np.testing.assert_array_equal(made.next_observation[2], [8, 7])


def test_parquet_is_read_alike():
    pyarrow = pytest.importorskip('pyarrow')
    from pyarrow import csv, parquet

    del pyarrow
    parquet.write_table(csv.read_csv('log.csv'), 'log.parquet')
    for name, array in tabular.read('log.csv', **COLUMNS).items():
        np.testing.assert_array_equal(tabular.read('log.parquet', **COLUMNS)[name], array)


@pytest.mark.parametrize('delimiter', ';\t|')
def test_other_delimiters_and_decimal_commas_are_read_alike(delimiter):
    with open('other.csv', 'w') as file:
        file.write(ROWS.replace(',', delimiter).replace('0.5', '0,5'))
    for name, array in tabular.read('log.csv', **COLUMNS).items():
        np.testing.assert_array_equal(tabular.read('other.csv', **COLUMNS)[name], array)


def test_columns_of_lists():
    pyarrow = pytest.importorskip('pyarrow')
    from pyarrow import parquet

    names = {'observations': ['state', 'x'], 'actions': ['a'], 'reward': 'r', 'terminal': 'r'}
    state = [[1.0, 2.0], [3.0, 4.0]]
    parquet.write_table(pyarrow.table({'state': state, 'x': [5, 6], 'a': [[0.5], [1]], 'r': [0, 1]}), 'log.parquet')
    arrays = tabular.read('log.parquet', **names)
    np.testing.assert_array_equal(arrays['observations'], [[1, 2, 5], [3, 4, 6]])
    np.testing.assert_array_equal(arrays['actions'], [[0.5], [1]])
    parquet.write_table(pyarrow.table({'state': [[1.0], [3.0, 4.0]], 'x': [5, 6], 'a': [[1], [1]], 'r': [0, 1]}), 'log.parquet')
    with pytest.raises(UsageError, match="Lists of as many numbers in every row are needed in column 'state'"):
        tabular.read('log.parquet', **names)


@pytest.mark.parametrize(('changed', 'text', 'told'), [
    ({'reward': 'profit'}, ROWS, "Column 'profit' is needed; log.csv has run, x_10, x_2, force, gain, done"),
    ({'observations': ['y_*']}, ROWS, r"Column 'y_\*' is needed"),
    ({}, ROWS.replace('a,3,4', 'a,3,'), "Numbers are needed in column 'x_2'; row 3 of log.csv has ''"),
    ({}, ROWS.replace('a,1,2', 'a,1_0,٢'), "Numbers are needed in column 'x_2'; row 2 of log.csv has '٢'"),
    ({}, ROWS.replace('c,0', 'a,0'), "must follow each other; log.csv returns to one in 'run'"),
    ({}, ROWS.replace('a,1,2', 'a,1'), '6 cells a row are needed; row 2 of log.csv has 5'),
    ({}, '', 'with a header of different names and with rows is needed; log.csv has no rows'),
    ({}, ROWS.replace('x_2', 'x_10'), "log.csv has two columns 'x_10'"),
    ({'observations': ['*']}, ROWS, "of different columns are needed; log.csv would give 'force' twice"),
    ({'actions': ['force', 'force']}, ROWS, "would give 'force' twice"),
    ({'episode': None, 'terminal': None}, ROWS, 'needs to say where episodes end'),
])  # fmt: skip
def test_what_is_wrong_is_said(changed, text, told):
    with open('log.csv', 'w') as file:
        file.write(text)
    with pytest.raises(UsageError, match=told):
        tabular.read('log.csv', **{**COLUMNS, **changed})


def test_letters_must_be_utf8():
    with open('log.csv', 'wb') as file:
        file.write(ROWS.replace('force', 'kraft-größe').encode('latin-1'))
    with pytest.raises(UsageError, match='log.csv has other letters; save it as UTF-8'):
        tabular.read('log.csv', **COLUMNS)


def test_time_stamps_that_float32_cannot_tell_apart_are_noted(capsys):
    rows = ''.join(f'{1.7e9 + row},{row},0,1,{row // 5}\n' for row in range(10))
    with open('log.csv', 'w') as file:
        file.write('time,x,force,gain,run\n' + rows)
    arguments = ['--observations', 'time,x', '--actions', 'force', '--reward', 'gain', '--episode', 'run']
    assert main(['data', 'convert', 'log.csv', 'log.npz', *arguments]) == 0
    # float32 holds every 128th second of these years, the first among them: the last is 9 s off; ten seconds deviate by 2.87.
    told = capsys.readouterr().out
    assert 'observation entries 0: float32 rounds by up to 3.1 deviations; subtract a constant first' in told
    whole = {'observations': np.arange(2**40, 2**40 + 10)[:, None], 'actions': np.zeros((10, 1)), 'rewards': np.zeros(10)}
    notes = data.from_arrays({**whole, 'terminals': np.arange(10) == 9}).notes
    assert notes[0].startswith('observation entries 0: float32 rounds')
    small = {**whole, 'observations': np.arange(10, dtype=np.int16)[:, None] / 3, 'terminals': np.arange(10) == 9}
    assert not any('float32' in note for note in data.from_arrays(small).notes)


def test_columns_must_be_named(capsys):
    assert main(['data', 'convert', 'log.csv', 'log.npz', '--actions', 'force']) == 2
    assert '--observations, --reward of log.csv were not named' in capsys.readouterr().err
    assert main(['data', 'check', 'log.csv']) == 2
    assert 'make a data set of it with `ooorl data convert log.csv mine.npz' in capsys.readouterr().err
