"""The results of sweeps, of run directories and of files that hold results, as entries of a table."""

from pathlib import Path

from ooorl.errors import UsageError
from ooorl.reporting import results
from ooorl.runner import run_directory
from ooorl.runner.seed_list import parse_seeds
from ooorl.runner.sweep import cells, claims


def results_in(path: Path, *, num_last: int = 10) -> list[results.Result]:
    """All results at a place: a sweep's directory, a run's, a folder with runs below it, or a JSON file of results.

    What is damaged, failed or not there yet has an entry that says so.

    Raises:
      UsageError: where there is nothing of the kind.
    """
    path = Path(path)
    if path.is_file():
        return results.read(path)
    if cells.is_sweep(path):
        return [one for cell in cells.listed(path) for one in _of_cell(path / 'cells' / cell.id, cell, num_last)]
    found = results.found_under(path) if path.is_dir() else []
    if not found:
        raise UsageError(f'a table needs the directory of a sweep or of runs, or a file of results; {path} holds none of these')
    return [one for run in found for one in _of_run(run, num_last)]


def _of_cell(folder, cell, num_last):
    state, seeds = claims.state(folder), parse_seeds(cell.seeds)
    named = {'algorithm': cell.algorithm, 'task': cell.task}
    if state.status in ('complete', 'diverged') and (folder / 'run' / 'summary.json').is_file():
        return _read(folder / 'run', seeds, num_last, **named)
    status = {'waiting': 'missing', 'complete': 'missing'}.get(state.status, state.status)
    note = state.note if status in ('failed', 'diverged') else ''
    return results.without_scores(cell.algorithm, cell.task, seeds, status, run=str(folder / 'run'), note=note)


def _of_run(run, num_last):
    if (run / 'summary.json').is_file():
        return _read(run, (0,), num_last, algorithm='', task='')
    table = run_directory.read_config(run, 'table')
    agent = next(table[name]['agent'] for name in ('exploit', 'agent', 'explore') if name in table)
    task = table['dataset']['task'] or Path(table['dataset']['path']).stem or table['environment']['id']
    status = 'running' if run_directory.is_held(run) else 'interrupted'
    agent = results.named(agent, table['run']['scheme'])
    return results.without_scores(agent, task, parse_seeds(table['run']['seeds']), status, run=str(run))


def _read(run, seeds, num_last, *, algorithm, task):
    try:
        return results.of_run(run, algorithm=algorithm, task=task, num_last=num_last)
    except UsageError as error:
        name, where = algorithm or run.name, task or 'unknown'
        return results.without_scores(name, where, seeds, 'failed', run=str(run), note=str(error))
