"""Which config a command means by a name, and that config with the data and the environment that the command names."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from ooorl import catalogue
from ooorl.errors import UsageError
from ooorl.runner import config, presets


def table_of(
    name: str,
    dataset: str | None,
    environment: str | None,
    family: str | None = None,
    keys: Iterable[str] = (),
    like: str | None = None,
) -> dict:
    """The config table of a file, of one of the wheel's by its name (`ooo/tabletop`), or of a preset for a task.

    Args:
      name: of it.
      dataset, environment, family, like: what a preset is asked for (`presets.task_of`).
      keys: dotted keys that the user sets.

    Raises:
      UsageError: if there is none, or a preset does not fit.
    """
    if name.endswith('.toml') or Path(name).is_file():
        return config.read(name)
    if presets.is_preset(name):
        return presets.preset(name, presets.task_of(dataset, environment, family, like), keys).table
    packed = presets.directory() / f'{name}.toml'
    if not packed.is_file():
        known = ', '.join(presets.names())
        raise UsageError(f'a config file or a preset is needed ({known}); got {name!r}; `ooorl explain` lists presets')
    return config.read(packed)


def placed(
    table: dict, dataset: str | None, environment: str | None, keys: Iterable[str] = (), like: str | None = None
) -> dict:
    """A config with another data set and environment; what it says of its own ones goes, unless `keys` are the user's.

    `like` is the task of the catalogue whose reference scores count.

    Raises:
      UsageError: if that is none.
    """
    keys = tuple(keys)
    if dataset is not None:
        found = not Path(dataset).exists() and dataset in catalogue.ENTRIES
        cleared = {k: v for k, v in table.get('dataset', {}).items() if k not in ('path', 'task', 'scripted', 'settings')}
        table['dataset'] = {**cleared, 'task' if found else 'path': dataset}
        if found and 'evaluation.task' not in keys:
            table.get('evaluation', {}).pop('task', None)  # the config's own speaks of the data it was written for
    if environment is not None:
        _use_environment(table, environment, keys)
    if like is not None:
        presets.catalogued(like)
        if 'evaluation.task' not in keys and catalogue.ENTRIES[like].reference_min is not None:
            table.setdefault('evaluation', {})['task'] = like
    return table


def _use_environment(table: Mapping, name, keys):
    environment, evaluation = table.setdefault('environment', {}), table.get('evaluation', {})
    if environment.get('id', '') not in ('', name):
        for where, section, key in (
            ('environment', environment, 'settings'), ('evaluation', evaluation, 'settings'), ('evaluation', evaluation, 'task'),
        ):  # fmt: skip
            if not any(own.startswith(f'{where}.{key}') for own in keys):
                section.pop(key, None)
    environment['id'] = name
