"""A sweep's file as cells, and the directory that holds them.

    name = "first"
    presets = ["iql@small", "bc@small", "mine.toml"]       # presets, configs of the wheel, files
    tasks = ["hopper-medium-v2", { dataset = "mine.hdf5", env = "Hopper-v4", family = "locomotion", name = "mine" }]
    seeds = "0:5"
    seeds_per_cell = 1                                     # of one run; 0: all of them
    set = { "offline.num_updates" = 2000 }                 # for every cell
    [[settings]]                                           # and, if there are any, each of these
    name = "slow"
    set = { "agent.learning_rate" = 1e-4 }

A cell is named by the SHA-256 of what decides its results: its resolved config with the digest of a data file instead of its
path. So the same cell is never run twice in one directory, whoever asks for it, and a changed setting is another cell.
`sweep.json` lists the cells of the sweep as it is now; `cells/<id>/` holds `cell.json`, `state.json`, `log.txt` and the run
directory `run/`.
"""

import hashlib
import itertools
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ooorl import catalogue, data
from ooorl.errors import UsageError
from ooorl.reporting import writers
from ooorl.runner import belonging, chosen, config, presets
from ooorl.runner.run_directory import FREE, is_run
from ooorl.runner.seed_list import parse_seeds
from ooorl.validation import check_not_negative

VERSION = 1
LISTING = 'sweep.json'


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """A sweep's file."""

    presets: tuple[str, ...]  # presets (`iql@small`), configs of the wheel (`ooo/tabletop`) or files
    tasks: tuple  # ids of the catalogue, or tables (`dataset`, `env`, `like`, `family`, `name`, `set`); [""]: as the configs say
    name: str = 'sweep'  # names the folder
    seeds: str = '0:5'  # as for `ooorl run`
    seeds_per_cell: int = 1  # seeds that one run has; 0: all of them
    set: Mapping = None  # settings for every cell, by dotted key
    settings: tuple = ()  # tables with `name` and `set`: every preset on every task is run with each

    def __post_init__(self):
        check_not_negative(seeds_per_cell=self.seeds_per_cell)
        parse_seeds(self.seeds)


class Cell(NamedTuple):
    """One run: `id`, what it is called, its seeds and its config table.

    `problem` says why there is no table: data that a preset must know something of, and that nobody can read. Such a cell fails.
    """

    id: str
    algorithm: str
    task: str
    seeds: str
    table: dict
    problem: str = ''


def read(path: str | Path) -> tuple[str, list[Cell]]:
    """`(name, cells)` of a sweep's file.

    Raises:
      UsageError: for a file, preset, task or setting that cannot be used, and for cells of one name that differ.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise UsageError(f'a sweep needs a TOML file; {path} cannot be read as one ({error}); mend it') from None
    sweep = config.parse(SweepConfig, table, 'the sweep')
    cells, named = {}, {}
    product = itertools.product(sweep.presets, map(_task, sweep.tasks), map(_setting, sweep.settings or ({},)), _groups(sweep))
    for preset, task, (setting, changes), seeds in product:
        changes = {key: value for own in (sweep.set or {}, task['set'], changes) for key, value in presets.flat(own).items()}
        cell = _cell(path.parent, preset, task, changes, setting, seeds)
        cells.setdefault(cell.id, cell)
        if named.setdefault((cell.algorithm, cell.task, cell.seeds), cell.id) != cell.id:
            raise UsageError(
                f'cells of a sweep need names of their own; two different ones are {cell.algorithm} on {cell.task} with seeds '
                f'{cell.seeds}; give settings or tasks a name'
            )
    if not cells:
        raise UsageError(f'a sweep needs presets and tasks; {path} names none; add some')
    return sweep.name, list(cells.values())


def unscored(cells: list[Cell]) -> list[str]:
    """Tasks in which nothing can be evaluated: neither a cell's config nor its data name an environment."""
    named = {cell.task: cell for cell in cells if cell.table.get('dataset', {}).get('path') not in catalogue.ENTRIES}
    return [task for task, cell in named.items() if _is_unscored(cell)]


def _is_unscored(cell):
    try:
        return belonging.settled(config.resolve(cell.table))[1].startswith('not evaluated')
    except UsageError:  # of damaged data: the cell fails and says so, the others go on
        return False


def _groups(sweep):
    seeds = parse_seeds(sweep.seeds)
    size = sweep.seeds_per_cell or len(seeds)
    return [','.join(map(str, seeds[start : start + size])) for start in range(0, len(seeds), size)]


def _task(given):
    known = {'dataset', 'env', 'like', 'family', 'name', 'set'}
    if isinstance(given, str):
        return {'dataset': given or None, 'name': given, 'set': {}}
    fits = isinstance(given, Mapping) and given.keys() <= known and given.keys() & {'dataset', 'env'}
    if not fits or not isinstance(given.get('set', {}), Mapping):
        raise UsageError(
            f'a task of a sweep needs an id, or a table of dataset or env, and like, family, name and set; got {given!r}'
        )
    name = given.get('name') or given.get('like') or Path(given.get('dataset') or given['env']).name
    return {**given, 'name': name, 'set': given.get('set', {})}


def _setting(given):
    if not isinstance(given, Mapping) or (given and not given.keys() == {'name', 'set'}):
        raise UsageError(f'[[settings]] of a sweep need a name and a table set; got {given!r}')
    return given.get('name', ''), given.get('set', {})


def _cell(folder, preset, task, changes, setting, seeds):
    dataset, environment = task.get('dataset'), task.get('env')
    if dataset and dataset not in catalogue.ENTRIES and not data.minari.cached(dataset):
        found = (folder / dataset).resolve()
        if not (found.exists() or is_run(str(found))):  # a cell is named by its data's digest
            raise UsageError(f'a task of a sweep needs data that are there, or an id of the catalogue; got {dataset}; make them')
        dataset = str(found)
    is_file = preset.endswith('.toml')
    source = str(folder / preset) if is_file else preset
    algorithm = f'{Path(preset).stem if is_file else preset} {setting}'.strip()
    try:
        table = chosen.table_of(source, dataset, environment, task.get('family'), changes, task.get('like'))
    except UsageError as error:
        if not _is_damaged(dataset):
            raise
        return Cell(_hashed([algorithm, seeds, changes, data.sha256(dataset)]), algorithm, task['name'], seeds, {}, str(error))
    for key, value in changes.items():
        config.put(table, key, value)
    table = chosen.placed(table, dataset, environment, changes, task.get('like'))
    config.put(table, 'run.seeds', seeds)
    name = task['name'] or table.get('name', '')
    try:
        resolved = config.resolve(table)
    except UsageError as error:
        raise UsageError(f'{algorithm} on {name}: {error}') from None
    return Cell(_digest(resolved, dataset), algorithm, name, seeds, table)


def _is_damaged(dataset):
    if not dataset or dataset in catalogue.ENTRIES or is_run(dataset):
        return False
    try:
        data.environment_of(dataset)
    except UsageError:
        return True
    return False


def _digest(resolved, dataset):
    """What names a cell: everything that decides its results, and nothing else."""
    deciding = json.loads(json.dumps(resolved))
    del deciding['name']
    for section, key in FREE:
        deciding[section].pop(key, None)
    if dataset and dataset not in catalogue.ENTRIES and Path(dataset).exists() and not is_run(dataset):
        deciding['dataset']['path'] = data.sha256(dataset)
    return _hashed(deciding)


def _hashed(deciding):
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:16]


def prepare(directory: Path, name: str, cells: list[Cell]) -> None:
    """Makes the directory of a sweep, or brings it up to date; what has been run stays.

    Raises:
      UsageError: if it holds something else, or a sweep of another version.
    """
    directory = Path(directory)
    if directory.exists() and any(not own.name.startswith('.') for own in directory.iterdir()):
        listed(directory)
    directory.mkdir(parents=True, exist_ok=True)
    entries = [{key: value for key, value in cell._asdict().items() if key != 'table'} for cell in cells]
    # The list comes first: another engine that begins now finds a sweep here, or nothing but what is being written.
    writers.write_json(directory / LISTING, {'version': VERSION, 'name': name, 'cells': entries})
    for cell in cells:
        folder = directory / 'cells' / cell.id
        folder.mkdir(parents=True, exist_ok=True)
        writers.write_json(folder / 'cell.json', cell._asdict())


def listed(directory: Path) -> list[Cell]:
    """The cells of a sweep's directory, without their tables.

    Raises:
      UsageError: if it is none, or one of another version.
    """
    path = Path(directory) / LISTING
    if not path.is_file():
        raise UsageError(f'the directory of a sweep is needed; {directory} holds no {LISTING}; name another, or an empty one')
    held = writers.read_json(path)
    if held.get('version') != VERSION:
        raise UsageError(
            f'a sweep of version {VERSION} is needed; {directory} is of version {held.get("version")!r}; take another directory, '
            'or the version of ooorl that made it'
        )
    try:
        return [Cell(**entry, table={}) for entry in held['cells']]
    except (LookupError, TypeError):
        raise UsageError(f'the list of cells that a sweep wrote is needed; {path} is damaged; run the sweep again') from None


def is_sweep(directory: Path) -> bool:
    """Whether this is the directory of a sweep."""
    return (Path(directory) / LISTING).is_file()
