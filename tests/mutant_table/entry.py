"""What an entry of the table is."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """One edit: `old`, found exactly once in `ooorl/<file>`, becomes `new`, and one of `tests` must fail.

    `excuse` says why an edit that survives is no fault of the tests.
    """

    name: str
    file: str
    tests: tuple[str, ...]
    old: str
    new: str
    excuse: str = ''


def mutants(file, tests, *edits):
    """Edits (label, old, new[, excuse]) of one file, each against the same tests, in their order."""
    return [Mutant(f'{file}: {label}', file, tests, old, new, *excuse) for label, old, new, *excuse in edits]
