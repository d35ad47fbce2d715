"""What every setting means, read from the config dataclasses themselves: the comment beside a field is its documentation."""

import ast
import dataclasses
import functools
import inspect
import textwrap
from typing import NamedTuple


class Setting(NamedTuple):
    """One key of a table: its name, type and default as they are written in TOML, and the sentence on what it does."""

    name: str
    type: str
    default: str
    meaning: str


@functools.cache
def settings_of(kind: type) -> tuple[Setting, ...]:
    """The settings of a config dataclass, in order, inherited ones included."""
    comments, types = {}, {}
    for ancestor in reversed(kind.__mro__):
        if dataclasses.is_dataclass(ancestor):
            for name, annotation, meaning in _written(ancestor):
                types[name] = annotation
                comments[name] = meaning or comments.get(name, '')
    return tuple(Setting(f.name, _type(types[f.name]), _default(f), comments[f.name]) for f in dataclasses.fields(kind))


def _written(kind):
    """`(name, annotation, comment)` of every field that the class itself declares."""
    lines = textwrap.dedent(inspect.getsource(kind)).splitlines()
    body = ast.parse('\n'.join(lines)).body[0].body
    for node in body:
        if isinstance(node, ast.AnnAssign):
            yield node.target.id, ast.unparse(node.annotation), _comment(lines, node)


def _comment(lines, node):
    """The comment behind a field, or else the lines of comment above it."""
    behind = lines[node.end_lineno - 1][node.end_col_offset :].strip()
    if behind.startswith('#'):
        return behind.lstrip('# ')
    above, number = [], node.lineno - 2
    while lines[number].strip().startswith('#'):
        above.insert(0, lines[number].strip().lstrip('# '))
        number -= 1
    return ' '.join(above)


TOML_TYPES = {'str': 'string', 'int': 'whole number', 'float': 'number', 'bool': 'true or false', 'None': '', 'Mapping': 'table'}


def _type(annotation):
    def named(part):
        inner, _, rest = part.partition('[')
        if inner == 'tuple':
            item = rest.rstrip(']').split(',')[0] if 'tuple' not in rest else 'lists'
            return f'list of {TOML_TYPES.get(item, item)}s'.replace('listss', 'lists') if rest else 'list'
        return TOML_TYPES.get(inner, inner)

    return ' or '.join(filter(None, (named(part.strip()) for part in annotation.split('|'))))


def _default(field):
    if field.default_factory is not dataclasses.MISSING:
        return _toml(field.default_factory())
    return 'needed' if field.default is dataclasses.MISSING else _toml(field.default)


def _toml(value):
    if value is None:
        return 'absent'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f'[{", ".join(map(_toml, value))}]'
    if isinstance(value, dict):
        return '{' + ', '.join(f'{k} = {_toml(v)}' for k, v in value.items()) + '}'
    return f'"{value}"' if isinstance(value, str) else f'{value:,}'.replace(',', '_') if isinstance(value, int) else repr(value)
