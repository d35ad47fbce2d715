"""Checks of config values, written once.

Only Python numbers are checked: a traced hyper-parameter (a sweep mapped inside one program) passes.
"""

import inspect
import types
import typing
from collections.abc import Mapping
from dataclasses import fields

from ooorl.errors import UsageError


def whole(text: str) -> int:
    """An integer that somebody wrote: digits 0 to 9, perhaps with a sign; none of what else `int` reads (`1_0`, other scripts).

    >>> whole(' -12')
    -12

    Raises:
      ValueError: if it is none.
    """
    return int(_in_digits(text))


def decimal(text: str) -> float:
    """A number that somebody wrote, in digits 0 to 9, which may be `nan` or `inf`; none of what else `float` reads.

    Raises:
      ValueError: if it is none.
    """
    return float(_in_digits(text))


def is_in_digits(text: str) -> bool:
    """Whether numbers in a text, if there are any, are in digits 0 to 9 with nothing between them."""
    return text.isascii() and '_' not in text


def _in_digits(text):
    if not is_in_digits(text):
        raise ValueError(f'numbers are written in digits 0 to 9; got {text!r}')
    return text


def _is_number(name, value) -> bool:
    if isinstance(value, str):
        raise UsageError(f'{name} must be a number; got {value!r}')
    return isinstance(value, int | float) and not isinstance(value, bool)


LARGEST_FLOAT = 3.4e38  # float32 has no larger ones
LARGEST_INT = 2**31 - 1
LARGEST_WIDTH, MOST_LAYERS, MOST_COPIES = 65_536, 64, 1_000


def check_finite(where: str, value) -> None:
    """No number in a setting, tables and lists in it included, may be NaN, infinite, or beyond what the arrays can hold."""
    if isinstance(value, float) and not abs(value) <= LARGEST_FLOAT:
        raise UsageError(f'{where} must be a finite number, at most 3.4e38 in size; got {value}')
    if isinstance(value, int) and abs(value) > LARGEST_INT:
        raise UsageError(f'{where} must be an integer of at most {LARGEST_INT} in size; got {value}')
    if isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            check_finite(where, part)


def check_widths(**values):
    """Each value must be a few layer widths, none of them 0."""
    for name, widths in values.items():
        if len(widths) > MOST_LAYERS or not all(1 <= width <= LARGEST_WIDTH for width in widths):
            raise UsageError(
                f'{name} must be at most {MOST_LAYERS} widths from 1 to {LARGEST_WIDTH}; got {_shortened(list(widths))}'
            )


def check_copies(**values):
    """Each value counts parts that are computed one by one: from 1 to 1000, or None where the default decides."""
    for name, value in values.items():
        if value is not None and _is_number(name, value) and not 1 <= value <= MOST_COPIES:
            raise UsageError(f'{name} must lie between 1 and {MOST_COPIES}; got {value}')


def check_repeats(**values):
    """Each value counts what is repeated, 0 to 1000 times, or is None; whether 0 means anything is the config's to say."""
    for name, value in values.items():
        if value is not None and _is_number(name, value) and not 0 <= value <= MOST_COPIES:
            raise UsageError(f'{name} must lie between 0 and {MOST_COPIES}; got {value}')


def check_rate(**values):
    """Each value must lie in [0, 1): the share that dropout sets to zero."""
    for name, value in values.items():
        if _is_number(name, value) and not 0.0 <= value < 1.0:
            raise UsageError(f'{name} must lie in [0, 1); got {value}')


def _shortened(value) -> str:
    text = str(value)
    return text if len(text) <= 80 else f'{text[:77]}...'


# What a setting's name says of its value, whoever's config it stands in.
NAMED = {
    'dropout': check_rate,
    'num_critics': check_copies,
    'num_members': check_copies,
    'num_layers': check_copies,
    'num_heads': check_copies,
    'num_candidates': check_copies,
    'num_actions': check_copies,
    'num_steps': check_repeats,
    'utd': check_copies,
    'policy_delay': check_copies,
}


def check_named(config) -> None:
    """The rules that go with the names of a config dataclass's fields: `NAMED`, and widths for `hidden` and `..._hidden`."""
    for field in fields(config):
        value = getattr(config, field.name)
        rule = check_widths if field.name.endswith('hidden') and isinstance(value, tuple) else NAMED.get(field.name)
        if rule is not None:
            rule(**{field.name: value})


def check_fraction(**values):
    """Each value must lie strictly between 0 and 1."""
    for name, value in values.items():
        if _is_number(name, value) and not 0.0 < value < 1.0:
            raise UsageError(f'{name} must lie strictly between 0 and 1; got {value}')


def check_unit(**values):
    """Each value must lie in [0, 1]."""
    for name, value in values.items():
        if _is_number(name, value) and not 0.0 <= value <= 1.0:
            raise UsageError(f'{name} must lie in [0, 1]; got {value}')


def check_dropout(rate):
    """A rate of dropout must lie in [0, 1)."""
    check_unit(dropout=rate)
    if isinstance(rate, int | float) and rate >= 1:
        raise UsageError(f'dropout must be less than 1; got {rate}')


def check_positive(**values):
    """Each value must be greater than 0."""
    for name, value in values.items():
        if _is_number(name, value) and not value > 0:
            raise UsageError(f'{name} must be greater than 0; got {value}')


def check_share(**values):
    """Each value must lie in (0, 1]: a share of what is new, without which nothing would ever move."""
    for name, value in values.items():
        if _is_number(name, value) and not 0.0 < value <= 1.0:
            raise UsageError(f'{name} must be greater than 0 and at most 1; got {value}')


def check_not_negative(**values):
    """Each value must be 0 or more."""
    for name, value in values.items():
        if _is_number(name, value) and not value >= 0:
            raise UsageError(f'{name} must be 0 or more; got {value}')


def check_choice(choices, **values):
    """Each value must be one of `choices`."""
    for name, value in values.items():
        if value not in choices:
            raise UsageError(f'{name} must be one of {", ".join(map(repr, choices))}; got {value!r}')


def check_regions(discs, boxes):
    """Discs must be (x, y, radius > 0), boxes (low x, low y, high x, high y) with low < high."""
    for disc in discs:
        if len(disc) != 3 or not disc[2] > 0:
            raise UsageError(f'a disc must be [x, y, radius] with a radius greater than 0; got {list(disc)}')
    for box in boxes:
        if len(box) != 4 or not (box[0] < box[2] and box[1] < box[3]):
            raise UsageError(f'a box must be [low x, low y, high x, high y], low below high; got {list(box)}')


def converted(value, hint, where: str):
    """A value from TOML as what an annotation asks for: lists for tuples, integers for floats; every number in it finite.

    Raises:
      UsageError: if it is of another type, naming `where`.
    """
    check_finite(where, value)
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    for option in options:
        kind = typing.get_origin(option) or option
        if kind is tuple and isinstance(value, list | tuple):
            item = typing.get_args(option)[:1]
            return tuple(converted(v, item[0], where) if item else _frozen(v) for v in value)
        if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if kind is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        if kind in (bool, str) and isinstance(value, kind):
            return value
        if inspect.isclass(kind) and issubclass(kind, Mapping) and isinstance(value, Mapping):
            return dict(value)
    wanted = ' or '.join(_called(option) for option in options if option is not type(None))
    raise UsageError(f'{where} must be of type {wanted}; got {value!r}')


def _called(option) -> str:
    """What people who write TOML call a type."""
    kind = typing.get_origin(option) or option
    if inspect.isclass(kind) and issubclass(kind, Mapping):
        return 'table'
    return 'list' if kind is tuple else getattr(kind, '__name__', str(kind))


def _frozen(value):
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value
