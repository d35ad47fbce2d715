"""TOML files to checked tables of settings; `build` turns these into agents and phases.

A config is a table of tables. Every key is checked: an unknown one is an error that names the nearest known one, and every value
passes through the frozen dataclass that it configures. `resolve` fills in all defaults, so that the file kept beside the results
says everything.
"""

import dataclasses
import difflib
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path

from ooorl.agents import algorithm
from ooorl.data.splits import Combinations, Factor
from ooorl.errors import UsageError
from ooorl.runner import steering, without_resets
from ooorl.runner.settings import (
    AGENT_TABLES,
    AGENTS_OF,
    CHOSEN,
    OPTIONAL,
    SCHEMES,
    SUB_TABLES,
    TABLES,
    WHERE_GIVEN,
    AgentConfig,
    RunConfig,
)
from ooorl.validation import check_choice, check_named, converted

# What an agent keeps for all of its life, and where else it is said.
FIXED_ONLINE = {
    'agent': 'the same agent goes on',
    'sampling': 'write [agent.online_sampling]',
    'online_sampling': 'write [agent.online_sampling]',
    'chunk': 'chunks are those of both phases',
    'normalise_observation': 'its statistics are part of the state',
    'online': 'it is the sub-table itself',
}
# Agents that collect after they have learnt from data, and may then draw batches otherwise.
SAMPLED_ONLINE = (('finetune', 'agent'), ('wsrl', 'agent'), ('ooo', 'explore'))


def read(path: str | Path, overrides: typing.Sequence[str] = ()) -> dict:
    """Reads a TOML file and applies `section.key=value` overrides; values are TOML, or else taken as strings.

    Raises:
      UsageError: if the file is missing or no TOML, or an override has no `=`.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise UsageError(f'a config file was needed; {path} does not exist; configs/ holds examples') from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f'a config file in TOML was needed; {path} cannot be read as one ({error}); mend it') from None
    for text in overrides:
        override(table, text)
    return table


def override(table: dict, text: str) -> None:
    """Applies one `section.key=value` to a config."""
    name, equals, value = text.partition('=')
    if not equals or '.' not in name:
        raise UsageError(f'--set takes section.key=value; got {text!r}')
    try:
        value = tomllib.loads(f'v = {value}')['v']
    except tomllib.TOMLDecodeError:
        pass
    put(table, name.strip(), value)


def put(table: dict, name: str, value) -> None:
    """Sets `section.key` of a config."""
    *sections, key = name.split('.')
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise UsageError(f'--set takes section.key=value; {section!r} in {name!r} is a value, not a section')
    table[key] = value


def resolve(table: Mapping) -> dict:
    """The same config with every default filled in and every key and value checked.

    Raises:
      UsageError: naming the table, the key and the nearest known key.
    """
    from ooorl.runner import taught  # which reads configs

    table = taught.with_table(table)
    name = table.get('name', 'run')
    rest = {key: value for key, value in table.items() if key != 'name'}
    _refuse_unknown(rest, (*TABLES, *AGENT_TABLES), 'the config')
    scheme = parse(RunConfig, rest.get('run', {}), '[run]').scheme
    used = {'run', 'environment', 'evaluation', 'dataset', 'report', scheme, *(key for key in WHERE_GIVEN if key in rest)}
    idle = [key for key in rest if key in SCHEMES and key != scheme]
    if idle:
        raise UsageError(f'[{idle[0]}] belongs to scheme {idle[0]!r}; got scheme {scheme!r}; remove the table')
    resolved = {'name': _plain_name(name)}
    resolved |= {key: _plain(parse(TABLES[key], rest.get(key, {}), f'[{key}]')) for key in TABLES if key in used}
    if resolved['dataset']['combinations']:
        resolved['dataset']['combinations'] = _combinations(resolved['dataset']['combinations'])
    for key in AGENTS_OF.get(scheme, ('agent',)):
        if key in OPTIONAL and key not in rest:
            continue
        if key not in rest:
            raise UsageError(f'scheme {scheme!r} needs the table [{key}]; the config has {", ".join(rest) or "none"}')
        resolved[key] = _resolve_agent({name: value for name, value in rest[key].items() if name != 'online'}, f'[{key}]')
        if 'online_sampling' in resolved[key] and (scheme, key) not in SAMPLED_ONLINE:
            raise UsageError(
                f'[{key}.online_sampling] is for what learns from data and then collects: schemes finetune, wsrl, [explore] of '
                f'ooo; got scheme {scheme!r}; write [{key}.sampling]'
            )
        if 'online' in rest[key]:
            resolved[key] = _check_online(rest[key], resolved[key], scheme)
    unused = [key for key in AGENT_TABLES if key in rest and key not in resolved]
    if unused:
        raise UsageError(f'scheme {scheme!r} does not use the table [{unused[0]}]; remove it')
    without_resets.refuse_elsewhere(resolved)
    steering.refuse_elsewhere(resolved)
    return resolved


def _combinations(table):
    where = '[dataset.combinations]'
    made = parse(Combinations, table, where)
    return {**_plain(made), 'factors': [_plain(parse(Factor, own, f'{where} factors')) for own in made.factors]}


def _plain_name(name):
    """The name of a run names its folder, too."""
    if not isinstance(name, str) or not name.strip() or name in ('.', '..') or len(name) > 200:
        raise UsageError(f'name must be a word or a few; got {name!r}')
    wrong = [c for c in name if c in '/\\' or not c.isprintable()]
    if wrong:
        raise UsageError(f'name must do as the name of a folder; got {name!r} with {wrong[0]!r}; --out names the place')
    return name


def _resolve_agent(table, where):
    own = parse(AgentConfig, {k: v for k, v in table.items() if k in fields(AgentConfig)}, where)
    config_type = algorithm(own.agent).config
    subs = {key: table[key] for key in (*SUB_TABLES, *CHOSEN) if key in table}
    settings = {key: value for key, value in table.items() if key not in subs and key not in fields(AgentConfig)}
    known = (*fields(config_type), *fields(AgentConfig), *SUB_TABLES, *CHOSEN)
    _refuse_unknown(settings, known, where)
    resolved = _plain(own) | _plain(parse(config_type, settings, where))
    for key, value in subs.items():
        place = f'{where[:-1]}.{key}]'
        if key in CHOSEN:
            resolved[key] = _resolve_chosen(value, place, *CHOSEN[key])
        else:
            if key.endswith('sampling') and isinstance(value, Mapping) and gamma_of(table | resolved) is not None:
                value = {'gamma': gamma_of(table | resolved), **value}
            resolved[key] = _plain(parse(SUB_TABLES[key], value, place))
    return _without_default_policy(own.agent, resolved, settings, where) if 'policy' in subs else resolved


def online_table(table: Mapping) -> dict | None:
    """An agent's resolved table with the changes of its sub-table `online`, for the online phase; None where there is none."""
    if 'online' not in table:
        return None
    merged = {key: value for key, value in table.items() if key != 'online'}
    for key, value in table['online'].items():
        merged[key] = {**merged.get(key, {}), **value} if isinstance(value, Mapping) else value
    return _resolve_agent(merged, '[agent.online]')


def _check_online(table, resolved, scheme):
    """A sub-table `online` says what is different online, and belongs to fine-tuning alone."""
    if not isinstance(table['online'], Mapping):
        raise UsageError(f'[agent.online] must be a table; got {table["online"]!r}')
    if scheme != 'finetune':
        raise UsageError(f"[agent.online] belongs to scheme 'finetune'; got scheme {scheme!r}; remove the sub-table")
    for key, instead in FIXED_ONLINE.items():
        if key in table['online']:
            raise UsageError(f'[agent.online] must leave {key} as it is; {instead}')
    if 'policy' in table['online'] and 'policy' not in resolved:
        raise UsageError('[agent.online] must leave the policy as it is, the default one; write [agent.policy] for both phases')
    online_table(resolved | {'online': table['online']})
    return resolved | {'online': dict(table['online'])}


def gamma_of(table: Mapping) -> float | None:
    """The discount factor of an agent table: its own, or that of its critic; None where it learns no values."""
    critic = table.get('critic')
    return table.get('gamma', critic.get('gamma') if isinstance(critic, Mapping) else None)


def _without_default_policy(agent, resolved, settings, where):
    """The table without the settings of the policy that a sub-table `policy` replaces."""
    idle = algorithm(agent).of_default_policy
    for key in settings:
        if key in idle:
            raise UsageError(f'{key} in {where} belongs to the default policy, which the sub-table policy replaces; remove one')
    return {key: value for key, value in resolved.items() if key not in idle}


def _resolve_chosen(table, where, own_type, name, kinds):
    """A table whose key `name` chooses, among `kinds`, the config that its other keys belong to."""
    if not isinstance(table, Mapping):
        raise UsageError(f'{where} must be a table; got {table!r}')
    own = parse(own_type, {k: v for k, v in table.items() if k in fields(own_type)}, where)
    check_choice(tuple(kinds), **{name: getattr(own, name)})
    config_type = kinds[getattr(own, name)]
    settings = {key: value for key, value in table.items() if key not in fields(own_type)}
    known = (*fields(config_type), *fields(own_type))
    for key in settings:
        having = [other for other, config in kinds.items() if key not in known and key in fields(config)]
        if having:  # what is left of another choice
            raise UsageError(f'{key} in {where} belongs to {name} {having[0]!r}; got {getattr(own, name)!r}; remove the key')
    _refuse_unknown(settings, known, where)
    return _plain(own) | _plain(parse(config_type, settings, where))


def parse(kind: type, table: Mapping, where: str):
    """A frozen config dataclass from a table.

    Raises:
      UsageError: for an unknown key (with the nearest known one), a value of the wrong type, or one the dataclass refuses.
    """
    if not isinstance(table, Mapping):
        raise UsageError(f'{where} must be a table; got {table!r}')
    hints = typing.get_type_hints(kind)
    _refuse_unknown(table, fields(kind), where)
    values = {key: converted(value, hints[key], f'{key} in {where}') for key, value in table.items()}
    missing = [f.name for f in dataclasses.fields(kind) if _required(f) and f.name not in values]
    if missing:
        raise UsageError(f'{where} needs {", ".join(missing)}; add it')
    try:
        made = kind(**values)
        check_named(made)
        return made
    except UsageError as error:
        raise UsageError(f'{where}: {error}') from None


def _required(field):
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def fields(kind: type) -> tuple[str, ...]:
    """Names of a config dataclass's fields."""
    return tuple(field.name for field in dataclasses.fields(kind))


def _refuse_unknown(table, known, where):
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            raise UsageError(f'unknown key {key!r} in {where}; did you mean {near[0]!r}?')


def _plain(config):
    """A dataclass as a table that TOML can hold: no None, lists for tuples."""

    def plain(value):
        if isinstance(value, tuple | list):
            return [plain(v) for v in value]
        if isinstance(value, Mapping):
            return {k: plain(v) for k, v in value.items()}
        return value

    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    return {key: plain(value) for key, value in values.items() if value is not None}
