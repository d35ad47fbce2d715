"""Presets: an algorithm's settings for a family of tasks, as data, each value with its source.

`configs/presets/<name>.toml`, which the wheel holds as well, has

* `about`, `default` (a variant) and `families`, those that it has settings for;
* `[sources]`, name to text: where values come from;
* `[variants]`, name to a list of layers, each laid over those before it;
* `[also]`, variant to further families that it alone has settings for;
* `needs`, keys that some block must give a task (values that belong to single tasks), else the preset does not fit it;
* `[[values]]` blocks: `layer`, `source` (a name of `[sources]`, or several), `where` in it; optionally `families` and `tasks`
  (patterns of ids) that the block is for; and `set`, a config table. Of blocks that fit, later ones win.

`name@variant` names one; without a variant it is the default one.
"""

import difflib
import fnmatch
import json
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import ooorl
from ooorl import catalogue, data
from ooorl.envs import own_name
from ooorl.errors import UsageError
from ooorl.runner import run_directory
from ooorl.runner.settings import SCHEMES

FAMILIES = {'gym_mujoco': 'locomotion'}  # families of the catalogue that are called otherwise here
_KEYS = {'about', 'default', 'families', 'also', 'sources', 'variants', 'needs', 'values'}
_BLOCK = {'layer', 'source', 'where', 'families', 'tasks', 'set'}


class Task(NamedTuple):
    """What a preset must know of a task: ids of the catalogue that it may be, its family and a word for it."""

    ids: tuple[str, ...]
    family: str
    name: str


class Preset(NamedTuple):
    """A preset for a task: a config table without data and environment, and by dotted key where each value comes from."""

    name: str
    table: dict
    sources: dict[str, str]


def directory() -> Path:
    """The folder of configs: that of the wheel, or in a checkout the one at its top."""
    packed = Path(ooorl.__file__).parent / 'configs'
    return packed if packed.is_dir() else Path(ooorl.__file__).parent.parent / 'configs'


def names() -> list[str]:
    """All presets."""
    return sorted(path.stem for path in (directory() / 'presets').glob('*.toml'))


def is_preset(text: str) -> bool:
    """Whether this names a preset, with or without a variant."""
    return text.partition('@')[0] in names()


@cache
def read(name: str) -> dict:
    """A preset's file, checked.

    Raises:
      UsageError: if there is none, or something in it is missing: above all a source.
    """
    if name not in names():
        raise UsageError(f'a preset must be one of {", ".join(names())}; got {name!r}')
    held = tomllib.loads((directory() / 'presets' / f'{name}.toml').read_text(encoding='utf-8'))
    _demand(_KEYS - {'needs', 'also'} <= held.keys() <= _KEYS, name, 'keys')
    _demand(held.get('also', {}).keys() <= held['variants'].keys(), name, 'variants under also')
    layers = {layer for own in held['variants'].values() for layer in own}
    known = set(held['families']).union(*held.get('also', {}).values())
    _demand(held['default'] in held['variants'], name, 'default')
    for block in held['values']:
        _demand({'layer', 'source', 'set'} <= block.keys() <= _BLOCK, name, f'keys of a block ({", ".join(block)})')
        _demand(block['layer'] in layers, name, f'layer {block["layer"]!r}')
        named = _named_sources(block)
        _demand(named and all(held['sources'].get(own, '').strip() for own in named), name, f'source {block["source"]!r}')
        _demand(set(block.get('families', ())) <= known, name, 'families of a block')
    return held


def _demand(true, name, what):
    if not true:
        raise UsageError(f'a preset needs sources and layers for all its values; {name}.toml has wrong {what}; mend it')


def families(held: Mapping, variant: str) -> list[str]:
    """The families of tasks that a variant of a preset's file has settings for."""
    return [*held['families'], *held.get('also', {}).get(variant, ())]


def _named_sources(block):
    return [block['source']] if isinstance(block['source'], str) else block['source']


def task_of(dataset: str | None, environment: str | None, family: str | None = None, like: str | None = None) -> Task:
    """The task that a data set (an id of the catalogue, or a file) and an environment speak of.

    Where given, `like`, an id of the catalogue, is that task, and `family` decides its family.

    Raises:
      UsageError: if the family cannot be told.
    """
    if like is not None:
        return catalogued(like)
    name = dataset or environment or ''
    known = {_family(entry) for entry in catalogue.ENTRIES.values()}
    if family is not None and family not in known:
        raise UsageError(f'--family must be one of {", ".join(sorted(known))}; got {family!r}')
    ids = tuple(_ids(dataset, environment))
    families = {_family(catalogue.ENTRIES[own]) for own in ids}
    if family is None and len(families) != 1:
        raise UsageError(
            f'a preset needs the family of its task; {name or "no data set and no environment"} tells none; name a task of the '
            f'catalogue with --dataset or its environment with --env, or say --family ({", ".join(sorted(known))})'
        )
    return Task(ids, family or families.pop(), name)


def catalogued(like: str) -> Task:
    """What a preset must know of the task `like`, an id of the catalogue.

    Raises:
      UsageError: if there is none.
    """
    if like not in catalogue.ENTRIES:
        raise UsageError(f'--like needs an id of the catalogue; got {like!r}; `ooorl data list` shows them')
    return Task((like,), _family(catalogue.ENTRIES[like]), like)


def _ids(dataset, environment):
    if dataset in catalogue.ENTRIES:
        return [dataset]
    if not environment and dataset and run_directory.is_run(dataset):
        environment = run_directory.read_config(run_directory.named(dataset)[0], '--dataset')['environment']['id']
    elif not environment and dataset and Path(dataset).exists():
        environment = data.environment_of(dataset)[0]
    return [entry.id for entry in catalogue.ENTRIES.values() if environment and own_name(environment) == entry.environment]


def _family(entry):
    return FAMILIES.get(entry.family, entry.family)


def _variant(text):
    """Name, content and variant of `name` or `name@variant`."""
    name, _, variant = text.partition('@')
    held = read(name)
    variant = variant or held['default']
    if variant not in held['variants']:
        raise UsageError(f'preset {name} has the variants {", ".join(held["variants"])}; got {variant!r}')
    return name, held, variant


def preset(text: str, task: Task, given: Iterable[str] = ()) -> Preset:
    """The preset `name` or `name@variant` for a task; `given` are dotted keys that the user sets.

    Raises:
      UsageError: if there is no such preset or variant, or it does not fit the task.
    """
    name, held, variant = _variant(text)
    if task.family not in families(held, variant):
        others = [f'{name}@{own}' for own in held['variants'] if task.family in families(held, own)]
        raise UsageError(
            f'preset {name}@{variant} has settings for {", ".join(families(held, variant))}; {task.name} is {task.family}; '
            f'choose {" or ".join([*others, "another preset"])}, or say with --family whose settings to take'
        )
    table, sources = {'name': f'{text}-{Path(task.name or task.family).stem}'}, {}
    for layer in held['variants'][variant]:
        for block in held['values']:
            if block['layer'] == layer and _fits(block, task):
                _lay(table, block['set'], sources, _told(held, {**block, 'families': (), 'tasks': ()}))
    for scheme in set(SCHEMES) - {table.get('run', {}).get('scheme')}:  # budgets of a layer below that had another scheme
        table.pop(scheme, None)
        sources = {key: value for key, value in sources.items() if key.partition('.')[0] != scheme}
    lacking = [key for key in held.get('needs', ()) if key not in sources and key not in given]
    if lacking:
        raise UsageError(
            f'preset {name} knows no {lacking[0]} for {task.name}, which its authors chose for each task; give one with '
            f'--set {lacking[0]}=VALUE, and say so where you report it'
        )
    return Preset(text if '@' in text else f'{name}@{variant}', table, sources)


def _fits(block, task):
    if task.family not in block.get('families', (task.family,)):
        return False
    patterns = block.get('tasks')
    return patterns is None or bool(task.ids) and all(any(fnmatch.fnmatch(own, p) for p in patterns) for own in task.ids)


def _lay(table, changes, sources, source, before=''):
    """Lays a config table over another one, in place, and notes the source of every value."""
    for key, value in changes.items():
        path = f'{before}{key}'
        if _is_table(path, value):
            _lay(table.setdefault(key, {}), value, sources, source, f'{path}.')
            sources.setdefault(path, source)
        else:
            table[key] = value
            sources[path] = source


def flat(table: Mapping, before: str = '') -> dict[str, object]:
    """The values of a config table by dotted key."""
    values = {}
    for key, value in table.items():
        path = f'{before}{key}'
        if _is_table(path, value) and value:
            values |= flat(value, f'{path}.')
        else:
            values[path] = value
    return values


def _is_table(path, value):
    return isinstance(value, Mapping) and not path.endswith(('.mix', '.settings'))


def explained(text: str, task: Task | None, key: str = '') -> list[tuple[str, str, str]]:
    """`(key, value, source)` of a preset's values, or of those whose key ends with `key`.

    Without a task these are the values of every block of the variant, and the source says whom the block is for.

    Raises:
      UsageError: where nothing of the preset has such a key.
    """
    _, held, variant = _variant(text)
    if task is not None:
        found = preset(text, task, held.get('needs', ()))
        rows = [(path, _shown(value), found.sources[path]) for path, value in flat(found.table).items() if path in found.sources]
    else:
        blocks = [block for layer in held['variants'][variant] for block in held['values'] if block['layer'] == layer]
        rows = [(path, _shown(value), _told(held, block)) for block in blocks for path, value in flat(block['set']).items()]
    known = [row[0] for row in rows]
    rows = [row for row in rows if not key or row[0] == key or row[0].endswith(f'.{key}')]
    if not rows:
        near = difflib.get_close_matches(key, {path.rpartition('.')[2] for path in known}, n=1)
        meant = f', but {near[0]}' if near else ''
        raise UsageError(f'preset {text} sets no {key}{meant}; what it leaves out has the default that docs/config.md names')
    return rows


def _told(held, block):
    told = '; '.join(held['sources'][own] for own in _named_sources(block))
    told = f'{told}, {block["where"]}' if 'where' in block else told
    whom = [*block.get('families', ()), *block.get('tasks', ())]
    return f'{told} [for {", ".join(whom)}]' if whom else told


def _shown(value):
    return json.dumps(value)  # as TOML writes it, where nothing is nested
