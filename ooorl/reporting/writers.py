"""The files of a run directory, and the progress line on the terminal.

`metrics.jsonl` is the record: one JSON object a line, appended and never rewritten, without wall times, so a
run that was interrupted and resumed holds the same bytes as one that was not. `metrics.csv` and the
TensorBoard events under `tensorboard/` are made from the same rows.

Numbers in JSON: a float32 is written as the shortest decimal that gives the same float32 back, and a value
that JSON has no number for as the string "NaN", "Infinity" or "-Infinity", which `float()` reads; `read_rows`
and `read_json` turn these strings back into floats.
"""

import csv
import hashlib
import json
import math
import os
import re
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from ooorl.errors import UsageError
from ooorl.reporting.events import Events

ROW_COLUMNS = ("kind", "phase", "seed", "updates", "env_steps")
_NOT_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class MetricsWriter:
    """Appends rows of metrics to a run directory.

    A row holds `kind` ("train", "eval" or "episodes"), `phase`, `seed`, `updates`, `env_steps` and any number
    of named metrics. To resume, store `offset()` and `digest()` in the checkpoint and give them to `truncate` first.
    """

    def __init__(self, directory, *, tensorboard=True):
        """Opens `directory` (made if need be) for appending; `tensorboard=False` leaves the events out."""
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.path = self.directory / "metrics.jsonl"
        self._made = not self.path.exists()
        self._file = open(self.path, "ab")
        self._digest = hashlib.sha256()
        self._tensorboard = tensorboard
        self._events = None

    def write(self, rows):
        """Appends `rows`, a list of dictionaries of scalars (NumPy and JAX scalars too)."""
        rows = [plain(row) for row in rows]
        lines = [json.dumps(row, allow_nan=False, separators=(", ", ": ")) + "\n" for row in rows]
        text = "".join(lines).encode()
        self._file.write(text)
        self._digest.update(text)
        self._write_events(rows)

    def offset(self):
        """Puts all rows on the disk and returns the length of `metrics.jsonl` in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        if self._events is not None:
            self._events.flush()
        return self._file.tell()

    def digest(self):
        """SHA-256 of all rows so far, to tell whether somebody changed them."""
        return self._digest.hexdigest()

    def truncate(self, offset, digest=None):
        """Drops the rows after `offset` bytes and makes the TensorBoard events anew from those that stay.

        Raises:
          UsageError: if these bytes are not whole rows or (with `digest`) not those that were written; nothing is dropped then.
        """
        self._file.flush()
        with open(self.path, "rb") as file:
            # No more than there is: a damaged count may be larger than any file.
            kept = file.read(min(offset, os.fstat(file.fileno()).st_size))
        found = hashlib.sha256(kept)
        if len(kept) < offset or (offset and not kept.endswith(b"\n")) or digest not in (None, found.hexdigest()):
            if self._made and not self._file.tell():
                self.path.unlink()  # everything stays as it was found
            raise UsageError(
                f"{self.path} must hold the {offset} bytes of whole rows that the checkpoint counted; it holds "
                f"{os.fstat(self._file.fileno()).st_size} bytes that do not match; restore it or start in an empty directory."
            )
        kept = read_rows(self.path, offset)
        self._digest = found
        self._file.truncate(offset)
        self._file.seek(0, os.SEEK_END)
        os.fsync(self._file.fileno())
        self._drop_events()
        self._write_events(kept)

    def close(self):
        """Puts everything on the disk and writes `metrics.csv`; call it at the end or when interrupted."""
        if self._file.closed:
            return
        with ExitStack() as closing:  # all of them, also where the disk is full
            closing.callback(self._close_events)
            closing.callback(self._file.close)
            self.offset()
        write_csv(self.path, self.directory / "metrics.csv")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _write_events(self, rows):
        if not self._tensorboard or not rows:
            return
        if self._events is None:
            self._events = Events(self.directory / "tensorboard")
        for row in rows:
            for tag, value, step in _scalars(row):
                self._events.add(tag, value, step)

    def _close_events(self):
        events, self._events = self._events, None
        if events is not None:
            events.close()

    def _drop_events(self):
        self._close_events()
        for path in (self.directory / "tensorboard").glob("events.out.tfevents.*"):
            path.unlink()


def read_rows(path, size=-1):
    """The rows of a `metrics.jsonl`, or of its first `size` bytes; a last line cut short by a crash is left out.

    Raises:
      UsageError: if a line is no row.
    """
    with open(path, "rb") as file:
        lines = file.read(size).split(b"\n")[:-1]
    return [_parsed(line, f"line {number} of {path}") for number, line in enumerate(lines, 1)]


def read_json(path):
    """The object in a file that `write_json` wrote."""
    return _parsed(Path(path).read_bytes(), str(path))


def _parsed(text, where):
    """An object in JSON; anything else is damage."""
    try:
        value = _restored(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"a file that a run wrote was needed; {where} is no JSON ({error}); restore it.") from None
    if not isinstance(value, dict):
        raise UsageError(f"a file that a run wrote was needed; {where} holds no table; restore it.")
    return value


def write_json(path, value):
    """Writes `value` (NumPy and JAX arrays as nested lists) as JSON, all of it or nothing; a list of numbers on one line."""
    text = json.dumps(plain(value), allow_nan=False, indent=2, ensure_ascii=False) + "\n"
    # Neither a quote nor a bracket inside: nothing but a list of numbers, none of it from within a string.
    text = re.sub(r"\[\n\s+([^\[\]{}\"]*?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text)
    with atomically(path) as file:
        file.write(text)


def write_csv(jsonl_path, csv_path):
    """Rewrites the rows of a `metrics.jsonl` as CSV: the union of columns, empty where one is absent."""
    with open(jsonl_path, "rb") as file:
        names = {name: None for line in file if line.endswith(b"\n") for name in json.loads(line)}
    columns = [name for name in ROW_COLUMNS if name in names] + [name for name in names if name not in ROW_COLUMNS]
    with atomically(csv_path) as target, open(jsonl_path, "rb") as source:
        writer = csv.DictWriter(target, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(json.loads(line) for line in source if line.endswith(b"\n"))


def check_file(path):
    """Refuses to write a file where a folder is, which `.` is too."""
    if Path(path).is_dir():
        raise UsageError(f"a file to write was needed; {path} is a folder; name a file in it.")


@contextmanager
def atomically(path, mode="w"):
    """A file to write to, text or (`"wb"`) bytes, that takes the place of `path` only once it is whole and on the disk.

    Its folder must exist: one that somebody deleted is not made again.
    """
    path = Path(path)
    check_file(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
        with open(temporary, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # the rename itself is durable only once the directory is
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def plain(value):
    """`value` in terms of JSON's own types; see the module for floats."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) and not isinstance(value, np.floating):
        return _plain_float(value)
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "dtype"):
        return _plain_array(np.asarray(value))
    kind = type(value).__name__
    raise UsageError(f"only numbers, text, lists and dictionaries can be written as JSON; got {kind}; convert it first.")


def _plain_array(array):
    if array.ndim:
        return [_plain_array(item) for item in array]
    if array.dtype.kind in "biuU":
        return array.item()
    # str() of a short float is its shortest decimal; 0.1 in float32 must not become 0.10000000149011612.
    return _plain_float(float(str(array[()])) if array.dtype.kind == "f" else float(array))


def _plain_float(value):
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def _restored(value):
    if isinstance(value, str):
        return _NOT_NUMBERS.get(value, value)
    if isinstance(value, dict):
        return {name: _restored(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_restored(item) for item in value]
    return value


def _scalars(row):
    """`(tag, value, step)` of every metric; what was measured by acting goes by environment steps."""
    kind = row.get("kind", "train")
    prefix = f"{row.get('phase', 'run')}/seed{row.get('seed', 0)}/" + ("" if kind == "train" else f"{kind}/")
    step = row.get("env_steps" if kind == "episodes" else "updates") or 0
    for name, value in row.items():
        value = _restored(value)
        if name not in ROW_COLUMNS and isinstance(value, (bool, int, float)):
            yield prefix + name, float(value), step


@contextmanager
def progress(description, total, *, completed=0, unit="updates", every_seconds=30.0, file=None):
    """Shows how far a loop is: a live bar on a terminal, else a plain line now and then and one at the end.

    Args:
      description: what is being done.
      total: how much there is to do.
      completed: how much of it is done already (a resumed run).
      unit: what is counted.
      every_seconds: pause between plain lines.
      file: where to write; standard output by default.

    Yields:
      `advance(num, note="")`: counts `num` more; the note (a score) is shown beside the bar.
    """
    file = sys.stdout if file is None else file
    if file.isatty():
        yield from _live(description, total, completed, unit, file)
    else:
        yield from _lines(description, total, completed, unit, every_seconds, file)


def _live(description, total, completed, unit, file):
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(file=file)) as bar:
        task = bar.add_task(description, total=total, completed=completed, rate="", note="")

        def advance(num, note=""):
            bar.advance(task, num)
            speed = bar.tasks[0].speed
            rate = "" if speed is None else f"{speed:,.0f} {unit}/s"
            bar.update(task, rate=rate, **({"note": note} if note else {}))

        yield advance


def _lines(description, total, completed, unit, every_seconds, file, clock=time.monotonic):
    done, last, last_note = completed, (clock(), completed), ""
    start, shown = last, completed

    def line(since):
        nonlocal last, shown
        now = clock()
        rate = (done - since[1]) / max(now - since[0], 1e-9)
        left = f", {duration((total - done) / rate)} left" if 0 < rate and done < total else ""
        tail = f" | {last_note}" if last_note else ""
        share = done / max(total, 1)
        text = f"{description}: {done:,}/{total:,} {unit} ({share:.0%}), {rate:,.0f}/s{left}{tail}"
        print(text, file=file, flush=True)
        last, shown = (now, done), done

    def advance(num, note=""):
        nonlocal done, last_note
        done, last_note = done + num, note or last_note
        if clock() - last[0] >= every_seconds:
            line(last)

    yield advance
    if done != shown:
        line(start)


def duration(seconds):
    """Seconds as a person says them: "12 s", "34 min", "5.6 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def times_text(wall, times):
    """How long something took and what on: "61 s: compile 40 s, train 21 s"; parts below half a second are left out."""
    parts = ", ".join(f"{name} {duration(seconds)}" for name, seconds in times.items() if seconds >= 0.5)
    return duration(wall) + (f": {parts}" if parts else "")
