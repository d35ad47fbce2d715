"""A run directory from outside: who may write in it, what it was started with, what killed processes left in it.

One process at a time writes in a run directory: it holds a lock (`.lock`) that the operating system takes away from it when it
dies, however it dies. `.holder` says who that is.
"""

import difflib
import json
import os
import platform
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import tomli_w

from ooorl.errors import UsageError
from ooorl.runner import config
from ooorl.training import checkpoint

LOCK, HOLDER = '.lock', '.holder'
FILES = ('config.toml', 'metrics.jsonl', 'metrics.csv', 'summary.json', 'report.html', 'states.npz', 'eval.json')
# Settings that change no result: a run may go on with others. Which devices work changes last digits, as their number does.
FREE = (
    ('environment', 'workers'), ('evaluation', 'copies'), ('run', 'checkpoint_seconds'), ('run', 'memory_limit'),
    ('run', 'devices'), ('run', 'hosts'),
)  # fmt: skip


class Held:
    """A run directory that this process has locked."""

    def __init__(self, out: Path):
        self.out = out
        self._lock = os.stat(out / LOCK).st_ino

    def check(self) -> None:
        """Makes sure that the directory is still there, and still this one.

        Raises:
          UsageError: if it was deleted or replaced.
        """
        with suppress(OSError):
            if os.stat(self.out / LOCK).st_ino == self._lock:
                return
        raise UsageError(f'the run needs its directory; {self.out} was deleted or replaced meanwhile; start anew')


@contextmanager
def opened(out: Path, text: str, resume: bool) -> Iterator[Held]:
    """The directory of a run of config `text`, made or found, locked and free of what killed processes left.

    Raises:
      UsageError: if it holds something else, with `resume` another config, if another process writes in it, or, whatever goes
        wrong with files inside, if it was deleted meanwhile.
    """
    _refuse_unfit(out, resume)
    existed = out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(out):
            _refuse_unfit(out, resume)  # another process may have come first
            if resume:
                _compare(out, text)
            _clean(out)
            held = Held(out)
            try:
                yield held
            except (OSError, UsageError):
                held.check()  # where the directory is gone, that is why
                raise
    finally:
        if not existed:
            with suppress(OSError):
                out.rmdir()  # which it does only where nothing came of the run


def is_held(out: Path) -> bool:
    """Whether a process writes in a run directory at this moment."""
    from filelock import FileLock, Timeout

    if not (out / LOCK).exists():
        return False
    try:
        with FileLock(out / LOCK, timeout=0):
            return False
    except Timeout:
        return True


def read_config(directory: Path, purpose: str) -> dict:
    """The resolved config that a run directory keeps.

    Raises:
      UsageError: if there is none, or none that can be read.
    """
    path = Path(directory) / 'config.toml'
    if not path.is_file():
        raise UsageError(f'{purpose} needs the directory of a run; {directory} holds no config.toml; name one that a run wrote')
    try:
        return config.resolve(tomllib.loads(path.read_text(encoding='utf-8')))
    except (OSError, ValueError) as error:  # a UsageError too: keys that make no sense
        told = f'{purpose} needs the config that the run was started with; {path} is damaged ({error}); restore it'
        raise UsageError(told) from None


def named(text: str) -> tuple[Path, str]:
    """`RUN_DIR` or `RUN_DIR:store` as directory and store, '' where none is named."""
    directory, colon, store = text.rpartition(':')
    if colon and not Path(text).is_dir():
        return Path(directory), store
    return Path(text), ''


def is_run(text: str) -> bool:
    """Whether a text names the directory of a run, with or without a store of it."""
    directory = named(text)[0]
    return (directory / 'config.toml').is_file() and (directory / 'metrics.jsonl').exists()


def _refuse_unfit(out, resume):
    for name in FILES:
        if (out / name).is_dir():
            raise UsageError(f'a run writes a file {name}; in {out} there is a folder of that name; remove it')
    if resume:
        if not (out / 'config.toml').is_file():
            raise UsageError(f'--resume needs the directory of a run; {out} holds no config.toml; start it without --resume')
    elif out.exists() and (not out.is_dir() or not all(_is_leftover(path) for path in out.iterdir())):
        found = 'another run' if (out / 'config.toml').is_file() else 'other files'
        raise UsageError(
            f'--out needs a new or empty directory; {out} holds {found}; choose another one, or go on with --resume'
        )


def _is_leftover(path):
    return path.name in (LOCK, HOLDER) or (path.name.startswith('.') and path.name.endswith('.tmp'))


def _clean(out):
    for path in out.iterdir():
        if path.name.startswith('.') and path.name.endswith('.tmp'):
            path.unlink()
    checkpoint.remove_leftovers(out / 'checkpoint')


@contextmanager
def _locked(out):
    from filelock import FileLock, Timeout

    lock = FileLock(out / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UsageError(f'{out} is being written by {_holder(out)}; wait for it to end, or choose another --out') from None
    try:
        me = {'process': os.getpid(), 'machine': platform.node(), 'since': time.strftime('%Y-%m-%d %H:%M:%S')}
        (out / HOLDER).write_text(json.dumps(me))
        yield
    finally:
        with suppress(OSError):
            (out / HOLDER).unlink()
            (out / LOCK).unlink()  # still locked: whoever opened it meanwhile sees that it has no name any more
        lock.release()


def _holder(out):
    try:
        told = json.loads((out / HOLDER).read_text())
        return f'process {told["process"]} on {told["machine"]} since {told["since"]}'
    except (OSError, ValueError, LookupError, TypeError):
        return 'another process'


def _compare(out, text):
    before, text = _deciding(read_config(out, '--resume')), _deciding(config.resolve(tomllib.loads(text)))
    if before != text:
        changes = difflib.unified_diff(before.splitlines(), text.splitlines(), 'config.toml', 'this config', lineterm='', n=0)
        shown = ' | '.join(line for line in changes if line[:1] in '+-' and line[:3] not in ('+++', '---'))
        raise UsageError(
            f'--resume needs the config the run was started with; this one differs ({shown}); undo that or use another --out'
        )


def _deciding(table):
    """What decides the results in a config, complete with settings that came later."""
    for section, key in FREE:
        table[section].pop(key)
    return tomli_w.dumps(table)
