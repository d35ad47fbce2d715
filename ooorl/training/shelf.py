"""Compiled programs of a run kept on the disk, ready to be called: a later process neither traces nor lowers them.

jax's own cache knows a program by its text, which takes tracing and lowering to make: a quarter to a second of Python each. A
shelf knows it by what its text follows from: whoever opens one names a folder after everything that the programs of a run are
made from (`runner.fingerprint`), and here each gets the name that it has in the run, with the shapes of its arguments.

What is kept is what the compiler made. An executable that came out of jax's cache cannot be written once more (jaxlib 0.10: some
of its functions are missing then), so its program is traced again next time, as is one that calls libraries, whose functions jax
makes known when it lowers. Files are Python pickles, as trustworthy as their folder.
"""

import hashlib
import os
import pickle
import re
import shutil
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from jax.experimental import serialize_executable

KEEP = 16  # folders beside each other; those that were used longest ago go
WHOLE = 'whole'  # a file that is there once all programs of a run are that take long to make
INTERNAL = {'TopK'}  # custom calls that are no calls


class Shelf:
    """Programs of one run: `load` what an earlier process has `compiled`, by the same names.

    Args:
      folder: of all programs that are made from the same things, and of nothing else.
    """

    def __init__(self, folder: Path):
        self.folder, self._agents = Path(folder), []
        self._writer, self._missing = ThreadPoolExecutor(1, 'shelf'), False
        _Hits.listen()

    @property
    def whole(self) -> bool:
        """Whether an earlier run has left all of its programs here, but for some that run seldom."""
        return (self.folder / WHOLE).exists()

    def name_agents(self, agents) -> None:
        """Says which agents the run has, in order: names of programs hold them, names of files their places."""
        self._agents = list({id(agent): agent for agent in agents}.values())

    def load(self, job):
        """The program of a job, or None where there is none that can be used."""
        try:
            return serialize_executable.deserialize_and_load(*pickle.loads(zlib.decompress(self._path(job).read_bytes())))
        except Exception:  # noqa: BLE001 - no such file, a damaged one, another version's: it is made again
            return None

    def compiled(self, job, lowered):
        """The program of a job, compiled and kept, which a thread of its own does."""
        before = _Hits.here.number
        program = lowered.compile()
        try:
            if _Hits.here.number > before:
                raise ValueError('an executable that can be written')
            self._writer.submit(self._keep, self._path(job), program, job.rare)
        except (RuntimeError, ValueError):  # nobody waits for this program any more, or it cannot be kept
            self._missing |= not job.rare
        return program

    def close(self, whole: bool) -> None:
        """Waits for what is being written; `whole` says that the run has come to its end."""
        self._writer.shutdown(cancel_futures=not whole)
        try:
            if whole and self.folder.is_dir():
                self._tidy()
        except OSError:  # the disk is full, or somebody else cleans up: nothing depends on it
            return

    def _tidy(self):
        for left in self.folder.glob('.*'):  # of processes that were killed
            left.unlink(missing_ok=True)
        if not self._missing:
            (self.folder / WHOLE).touch()
        os.utime(self.folder)
        folders = [path for path in self.folder.parent.iterdir() if path.is_dir()]
        for old in sorted(folders, key=lambda path: path.stat().st_mtime)[:-KEEP]:
            shutil.rmtree(old, ignore_errors=True)

    def _path(self, job):
        leaves, structure = jax.tree.flatten(job.args)
        said = [self._said(job.key), str(structure), *map(_kind, leaves)]
        return self.folder / hashlib.sha256('\n'.join(said).encode()).hexdigest()

    def _said(self, part):
        if isinstance(part, tuple):
            return f'({", ".join(map(self._said, part))})'
        if part is None or isinstance(part, str | int | float | bool):
            return repr(part)
        number = next((n for n, agent in enumerate(self._agents) if agent is part), None)
        if number is None:
            raise ValueError('a name that another process can make')
        return f'agent {number}'

    def _keep(self, path, program, rare):
        try:
            if _calls_out(program):
                raise ValueError('a program without calls of libraries')
            kept = pickle.dumps(serialize_executable.serialize(program))
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f'.{path.name}.{os.getpid()}')
            temporary.write_bytes(zlib.compress(kept, 1))
            temporary.rename(path)
        except Exception:  # noqa: BLE001 - a program that cannot be kept is traced again next time
            self._missing |= not rare


class _Hits:
    """How many executables this thread has got out of jax's cache."""

    class _Here(threading.local):
        number = 0

    here, _listening = _Here(), False

    @classmethod
    def listen(cls):
        if not cls._listening:
            jax.monitoring.register_event_listener(cls._heard)
            cls._listening = True

    @classmethod
    def _heard(cls, event, **_):
        if event == '/jax/compilation_cache/cache_hits':
            cls.here.number += 1


def _calls_out(program):
    return not set(re.findall(r'custom_call_target="([^"]*)"', program.as_text())) <= INTERNAL


def _kind(leaf):
    return f'{np.shape(leaf)} {getattr(leaf, "dtype", type(leaf))} {getattr(leaf, "weak_type", False)}'
