"""How long does it take to read a million rows of D4RL HDF5 and make transitions of them?

Files of halfcheetah's sizes are written to a temporary folder, compressed as D4RL's are and plain, with and without their
own `next_observations`. `load` is everything a user waits for, the checks and the file's SHA-256 among it; `read` is its
reading alone; "h5py" is the floor: the bare columns, nothing checked, nothing assembled.

    python benchmarks/loading.py                       # about 4 minutes
    python benchmarks/loading.py --rows 3000 --repeats 2 --dry
"""

import argparse
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import timing

from ooorl import data
from ooorl.data import validate

OBSERVATIONS, ACTIONS, EPISODE = 17, 6, 1000


def write(path, rows, compressed, successors):
    """Episodes of 1000 rows of noise, rounded so that they compress about as recordings do."""
    rng = np.random.default_rng(0)
    observations = np.round(rng.standard_normal((rows + 1, OBSERVATIONS)), 3).astype(np.float32)
    columns = {
        'observations': observations[:-1],
        'actions': np.tanh(rng.standard_normal((rows, ACTIONS))).astype(np.float32),
        'rewards': rng.standard_normal(rows).astype(np.float32),
        'terminals': np.zeros(rows, bool),
        'timeouts': np.arange(rows) % EPISODE == EPISODE - 1,
    }
    if successors:
        columns['next_observations'] = observations[1:]
    options = {'compression': 'gzip'} if compressed else {}
    with h5py.File(path, 'w') as file:
        for name, column in columns.items():
            file.create_dataset(name, data=column, **options)


def seconds(function):
    """A contender that gives the seconds `function` takes."""

    def contender():
        began = time.perf_counter()
        function()
        return time.perf_counter() - began

    return contender


def bare(path):
    with h5py.File(path) as file:
        return {name: file[name][()] for name in file}


def assembled(path, columns):
    return data.assemble(validate.columns(columns, path), source=path, name='rows', clip_actions=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--rows', type=int, default=1_000_000)
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--dry', action='store_true', help='print, and write no results')
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for compressed, successors in ((True, True), (True, False), (False, True)):
            path = str(Path(folder) / 'rows.hdf5')
            write(path, arguments.rows, compressed, successors)
            _, columns = data.read_columns(path)
            contenders = {
                'load': seconds(lambda path=path: data.load(path)),
                'read': seconds(lambda path=path: data.read_columns(path)),
                'check and assemble': seconds(lambda path=path, columns=columns: assembled(path, columns)),
                'sha256': seconds(lambda path=path: data.sha256(path)),
                'h5py': seconds(lambda path=path: bare(path)),
            }
            settings = {
                'rows': arguments.rows, 'compressed': compressed, 'next_observations': successors,
                'megabytes': round(Path(path).stat().st_size / 1e6, 1),
            }  # fmt: skip
            for contender, values in timing.take_turns(contenders, arguments.repeats).items():
                if arguments.dry:
                    print(contender, timing.summary(values), settings)
                else:
                    timing.record(Path(__file__).stem, unit='s', contender=contender, values=values, **settings)


if __name__ == '__main__':
    main()
