"""The verb of the command line that does many runs as one: sweep."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from ooorl.errors import UsageError

ENGINES = ('local', 'slurm', 'ray')
STATUSES = {'complete': 0, 'interrupted': 143}


def add_parsers(commands, main: Callable[[list[str]], int]) -> None:
    """Adds `sweep` to the subparsers of the command line, of which `main` is the whole."""
    sweep = commands.add_parser('sweep', help='tasks x presets x settings x seeds, each once, on this machine or a cluster')
    sweep.add_argument('file', nargs='?', type=Path, metavar='SWEEP.toml')
    sweep.add_argument('--out', type=Path, metavar='DIR', help='directory of the sweep (sweeps/<its name>)')
    sweep.add_argument('--engine', default='local', metavar='local|slurm|ray', help='local: processes over the cores (default)')
    sweep.add_argument('--jobs', type=int, default=0, metavar='N', help='cells at once (a core each; slurm: no limit)')
    sweep.add_argument('--address', help='of a Ray cluster; without, one on this machine')
    sweep.add_argument('--dry-run', action='store_true', help='list the cells and what became of them; run nothing')
    sweep.add_argument('--again', action='store_true', help='also run cells again that have failed')
    sweep.add_argument('--cell', type=Path, metavar='FOLDER', help='what engines call: run one cell in this process')
    sweep.set_defaults(command=lambda arguments: _sweep(arguments, main))


def _sweep(arguments, main):
    from ooorl.runner.sweep import cells

    if arguments.cell is not None:
        return _one(arguments, main)
    if arguments.file is None:
        raise UsageError('sweep needs a file that says what to run; got none; docs/sweeps.md shows one')
    if arguments.engine not in ENGINES:
        raise UsageError(f'--engine must be one of {", ".join(ENGINES)}; got {arguments.engine!r}')
    if arguments.jobs < 0:
        raise UsageError(f'--jobs must be 0 or more; got {arguments.jobs}')
    name, found = cells.read(arguments.file)
    directory = arguments.out or Path('sweeps') / name
    for task in cells.unscored(found):
        line = 'neither the sweep nor the data name an environment, hence no scores; env = "ID" in its table gives one'
        print(f'{task}: {line}')
    if arguments.dry_run:
        return _list(directory, found)
    cells.prepare(directory, name, found)
    return _run(arguments, main, directory, name, found)


def _one(arguments, main):
    from ooorl.runner.sweep.work import work

    if not (arguments.cell / 'cell.json').is_file():
        raise UsageError(f'--cell needs the folder of a cell; {arguments.cell} holds no cell.json')
    found = work(arguments.cell, main, again=arguments.again)
    return 0 if found is None else STATUSES.get(found.status, 1)


def _list(directory, found):
    from ooorl.runner.sweep import claims

    for cell in found:
        state = claims.state(directory / 'cells' / cell.id)
        print(f'{cell.id}  {cell.algorithm} on {cell.task}, seeds {cell.seeds}: {state.status} {state.note}'.rstrip())
    print(f'{len(found)} cells')


def _run(arguments, main, directory, name, found):
    from ooorl.mapping import num_cores
    from ooorl.runner.sweep import claims, cluster, local, slurm

    folders = {directory / 'cells' / cell.id: cell for cell in found}
    told = _Progress(folders)
    if arguments.engine == 'slurm':
        print(f'wrote {slurm.write(directory, name, list(folders), jobs=arguments.jobs)}; sbatch takes it')
        return 0
    jobs = arguments.jobs or num_cores()
    if arguments.engine == 'ray':
        cores = max(1.0, num_cores() / jobs)
        whole = {folder.resolve(): folder for folder in folders}
        settings = {'address': arguments.address, 'cores': cores, 'again': arguments.again}
        cluster.run(list(whole), main, told=lambda folder, state: told(whole[folder], state), **settings)
    else:
        cores = local.cores_of(jobs)
        if arguments.again:
            for folder in folders:
                if claims.state(folder).status == 'failed':
                    claims.forget(folder)
        local.run(list(folders), lambda folder, place: local.Process(folder, cores[place]), jobs=jobs, told=told)
    print(told.summary(directory))
    return 0 if not told.counts.keys() - {'complete', 'running elsewhere'} else 1


class _Progress:
    """Says what became of each cell as it ends."""

    def __init__(self, folders):
        self.folders, self.counts = folders, Counter()

    def __call__(self, folder, state):
        cell, status = self.folders[folder], 'running elsewhere' if state is None else state.status
        self.counts[status] += 1
        note = f': {state.note}' if state is not None and state.note and status != 'complete' else ''
        seconds = '' if state is None else f' ({state.seconds:.0f} s)'
        done = f'[{sum(self.counts.values())}/{len(self.folders)}]'
        print(f'{done} {cell.algorithm} on {cell.task}, seeds {cell.seeds}: {status}{seconds}{note}', flush=True)

    def summary(self, directory):
        """One line on all cells, and how to make the table."""
        words = ', '.join(f'{count} {status}' for status, count in sorted(self.counts.items()))
        where = os.fspath(directory)
        return f'{len(self.folders)} cells: {words}\nooorl table {where} --out {where}/results.html makes the table'
