"""Logs as tables, CSV or Parquet, one row a step: read by the names of their columns into the arrays that `from_arrays` takes.

Cells are parted by commas, semicolons, tabs or bars, whichever the header has; where it is not commas, numbers may have a decimal
comma. Columns of a Parquet file may be lists of numbers. Names may be patterns (`x_*`), in the order of the numbers in them.
Episodes end at a terminal row, at a time-out row, and where the column `episode` changes: then the last row counts as cut off,
unless it is terminal.
"""

import contextlib
import csv
import fnmatch
import os
import re
from collections.abc import Mapping, Sequence

import numpy as np

from ooorl.errors import UsageError
from ooorl.validation import decimal, is_in_digits

ENDINGS = (".csv", ".tsv", ".parquet")
_DELIMITERS = ",;\t|"
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_FLAGS = {"true": 1.0, "false": 0.0}


def is_table(path) -> bool:
    """Whether a file's name says that it is such a table."""
    return os.path.splitext(os.fspath(path))[1].lower() in ENDINGS


def read(
    path,
    *,
    observations: Sequence[str],
    actions: Sequence[str],
    reward: str,
    terminal: str | None = None,
    timeout: str | None = None,
    episode: str | None = None,
    next_observations: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """The arrays of a log.

    Args:
      path: a `.csv` or `.tsv` file with a header, or a `.parquet` file (which needs pyarrow).
      observations: columns, or patterns of them, in this order.
      actions: likewise.
      reward: a column.
      terminal: a column, true where the task ended; None: it never does.
      timeout: a column, true where an episode was cut off.
      episode: a column that names the episode of each row.
      next_observations: columns of the successors, where the log has them.

    Raises:
      UsageError: where a column is missing, a cell is no number, or rows of one episode lie apart.
    """
    columns = _columns(path)
    _check_once(columns, observations, actions, path)
    ends = {"terminals": terminal, "timeouts": timeout}
    arrays = {
        "observations": _matrix(columns, observations, path),
        "actions": _matrix(columns, actions, path),
        "rewards": _numbers(columns, reward, path),
        **{name: _numbers(columns, own, path) != 0 for name, own in ends.items() if own},
    }
    if next_observations:
        arrays["next_observations"] = _matrix(columns, next_observations, path)
    if episode is not None:
        last = _last_rows(_column(columns, episode, path), episode, path)
        arrays["timeouts"] = (arrays.get("timeouts", False) | last) & ~arrays.get("terminals", np.zeros(len(last), bool))
    if not (terminal or timeout or episode):
        raise UsageError(f"A log needs to say where episodes end; none of --episode, --terminal, --timeout of {path} was named.")
    return arrays


def _columns(path) -> Mapping[str, list]:
    path = os.fspath(path)
    try:
        return _parquet(path) if path.lower().endswith(".parquet") else _csv(path)
    except UnicodeDecodeError:
        raise UsageError(f"A table in UTF-8 is needed; {path} has other letters; save it as UTF-8.") from None
    except (OSError, csv.Error) as error:
        raise UsageError(f"A table is needed; {path} cannot be read as one ({error}); check it.") from None


def _csv(path):
    with open(path, newline="", encoding="utf-8-sig") as file:
        first = file.readline()
        delimiter = max(_DELIMITERS, key=first.count)
        header = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
        cells = [row for row in csv.reader(file, delimiter=delimiter) if row]
    twice = [name for name in header if header.count(name) > 1]
    if twice or not cells:
        what = f"has two columns {twice[0]!r}" if twice else "has no rows"
        raise UsageError(f"A CSV file with a header of different names and with rows is needed; {path} {what}; mend it.")
    wrong = next((number for number, row in enumerate(cells) if len(row) != len(header)), None)
    if wrong is not None:
        raise UsageError(f"{len(header)} cells a row are needed; row {wrong + 2} of {path} has {len(cells[wrong])}; mend it.")
    if delimiter != ",":
        cells = [[cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell.strip()) else cell for cell in row] for row in cells]
    return dict(zip(header, zip(*cells, strict=True), strict=True))


def _parquet(path):
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UsageError('Parquet needs the package pyarrow; pip install pyarrow, or save the log as CSV.') from None
    try:
        table = parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise UsageError(f"A Parquet file is needed; {path} cannot be read as one ({error}); check it.") from None
    return {name: table[name].to_pylist() for name in table.column_names}


def _named(columns, names, path):
    """The columns that names and patterns stand for."""
    chosen = []
    for name in names:
        found = [name] if name in columns else sorted(fnmatch.filter(columns, name), key=_natural)
        if not found:
            _column(columns, name, path)
        chosen += found
    return chosen


def _check_once(columns, observations, actions, path):
    """A policy that is shown the action it is to find learns nothing else."""
    chosen = _named(columns, observations, path) + _named(columns, actions, path)
    twice = [name for name in dict.fromkeys(chosen) if chosen.count(name) > 1]
    if twice:
        raise UsageError(
            f"Observations and actions of different columns are needed; {path} would give {twice[0]!r} twice; name it once."
        )


def _matrix(columns, names, path):
    chosen = _named(columns, names, path)
    parts = [_vectors(_column(columns, name, path), name, path) for name in chosen]
    parts = [_numbers(columns, name, path)[:, None] if own is None else own for name, own in zip(chosen, parts, strict=True)]
    return np.concatenate(parts, axis=-1)


def _vectors(cells, name, path):
    """A column of lists as `[rows, numbers]`; None where its cells are no lists."""
    if not isinstance(cells[0], list):
        return None
    try:
        found = np.asarray(cells, np.float64)
        if found.ndim == 2:
            return found
    except (TypeError, ValueError):
        pass
    raise UsageError(f"Lists of as many numbers in every row are needed in column {name!r}; {path} has others; mend it.")


def _natural(name):
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"([0-9]+)", name))]


def _column(columns, name, path):
    if name not in columns:
        raise UsageError(f"Column {name!r} is needed; {path} has {', '.join(map(str, columns))}; name one of these.")
    return columns[name]


def _numbers(columns, name, path):
    cells = _column(columns, name, path)
    if is_in_digits("".join(cell for cell in cells if isinstance(cell, str))):
        with contextlib.suppress(TypeError, ValueError):
            return np.asarray(cells, np.float64)
    values = np.empty(len(cells))
    for row, cell in enumerate(cells):
        text = str(cell).strip()
        try:
            values[row] = _FLAGS[text.lower()] if text.lower() in _FLAGS else decimal(text)
        except ValueError:
            raise UsageError(f"Numbers are needed in column {name!r}; row {row + 2} of {path} has {cell!r}; mend it.") from None
    return values


def _last_rows(names, column, path):
    """True on the last row of every episode."""
    names = np.asarray([str(name) for name in names])
    last = np.append(names[1:] != names[:-1], True)
    apart = len(np.unique(names)) != last.sum()
    if apart:
        raise UsageError(f"The rows of an episode must follow each other; {path} returns to one in {column!r}; sort the file.")
    return last
