"""Checks of config values, written once.

Only Python numbers are checked: a traced hyper-parameter (a sweep mapped inside one program) passes.
"""

from ooorl.errors import UsageError


def _is_number(name, value) -> bool:
    if isinstance(value, str):
        raise UsageError(f'{name} must be a number; got {value!r}')
    return isinstance(value, int | float) and not isinstance(value, bool)


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


def check_positive(**values):
    """Each value must be greater than 0."""
    for name, value in values.items():
        if _is_number(name, value) and not value > 0:
            raise UsageError(f'{name} must be greater than 0; got {value}')


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
