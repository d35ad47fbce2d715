"""Who does a cell, and what became of it: one lock file a cell, held by the process that runs it, and a small state beside it.

The operating system takes a lock from its process when it dies, however it dies, also on another machine that shares the folder
(locks of NFS included, where it is mounted with them). A cell that is done is never run again; one whose worker was killed is
found free by the next.
"""

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

LOCK, STATE = '.cell.lock', 'state.json'
DONE = ('complete', 'diverged', 'failed')
ATTEMPTS = 3  # of a cell whose worker dies, before it counts as failed


class State(NamedTuple):
    """What is known of a cell: `status` 'waiting', 'running', 'interrupted' or one of `DONE`; how often it was begun; a note."""

    status: str = 'waiting'
    attempts: int = 0
    note: str = ''
    seconds: float = 0.0


def state(folder: Path) -> State:
    """The state of a cell; a running one whose worker is gone is 'interrupted'."""
    found = _read(Path(folder))
    return found._replace(status='interrupted') if found.status == 'running' and not is_held(folder) else found


def is_held(folder: Path) -> bool:
    """Whether some process runs the cell at this moment."""
    from filelock import FileLock, Timeout

    if not (Path(folder) / LOCK).exists():
        return False
    try:
        with FileLock(Path(folder) / LOCK, timeout=0):
            return False
    except Timeout:
        return True


def attempt(folder: Path, execute: Callable[[Path], tuple[str, str]], *, again: bool = False) -> State | None:
    """Runs a cell if nobody else does and it is not done: the state afterwards, or None where another process has it.

    Args:
      folder: of the cell.
      execute: `(folder) -> (status, note)`, one of `DONE`, or 'interrupted' where it is to go on later.
      again: also if it has failed before.
    """
    from filelock import FileLock, Timeout

    folder = Path(folder)
    try:
        with FileLock(folder / LOCK, timeout=0):
            before = _read(folder)
            before = before._replace(status='waiting', attempts=0) if again and before.status == 'failed' else before
            if before.status in DONE:
                return before
            if before.attempts >= ATTEMPTS:
                return _write(folder, before._replace(status='failed', note=f'its worker died {before.attempts} times'))
            _write(folder, before._replace(status='running', attempts=before.attempts + 1, note=_who()))
            began = time.monotonic()
            status, note = execute(folder)
            attempts = before.attempts + (status != 'interrupted')  # being asked to stop is no failure
            return _write(folder, State(status, attempts, note, before.seconds + time.monotonic() - began))
    except Timeout:
        return None


def forget(folder: Path) -> None:
    """Lets a cell that has failed be run again, unless somebody has it."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(Path(folder) / LOCK, timeout=0):
            _write(Path(folder), State())
    except Timeout:
        pass


def _who():
    return f'process {os.getpid()} on {platform.node()} since {time.strftime("%Y-%m-%d %H:%M:%S")}'


def _read(folder):
    try:
        return State(**json.loads((folder / STATE).read_text(encoding='utf-8')))
    except (OSError, ValueError, TypeError):  # none yet; half of one is not written
        return State()


def _write(folder, new):
    temporary = folder / f'.{STATE}.{os.getpid()}.tmp'
    temporary.write_text(json.dumps(new._asdict()), encoding='utf-8')
    temporary.replace(folder / STATE)
    return new
