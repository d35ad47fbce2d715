"""Where environments live: in this process, or partly in worker processes that step theirs at the same time."""

import contextlib
import itertools
import mmap
import multiprocessing
import os
import pathlib
import pickle
import select
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable

import cloudpickle
import numpy as np

from ooorl.envs.host_worker import Block, Description, EnvGroup, EnvironmentFailure, block_bytes, block_in, failure_of, wait_awake
from ooorl.errors import UsageError

WORKER_FILE = pathlib.Path(__file__).with_name('host_worker.py')


class LocalGroup:
    """A group in this process: `send` does the work, `receive` hands over what came of it."""

    def __init__(self, make_env: Callable, num_envs: int):
        self._group = EnvGroup(make_env, num_envs)
        self._answer, self._error = self._group.description, None

    def attach(self, memory, sizes: tuple, start: int, stop: int) -> None:
        """Shows the group its rows of the block in `memory`."""
        self._group.attach(block_in(memory, *sizes).rows(start, stop))

    def send(self, name: str, arguments: tuple) -> None:
        """Calls the method `name` of the group."""
        self._answer = self._error = None
        try:
            self._answer = getattr(self._group, name)(*arguments)
        except (Exception, SystemExit) as error:  # raised where answers are received, once all groups have answered
            self._error = failure_of(error, name, self._group.row)

    def receive(self):
        """The answer to the last `send`, or at first the description."""
        if self._error is not None:
            raise self._error
        return self._answer


def _end(connection, process) -> None:
    connection.close()
    try:
        process.wait(timeout=2.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class WorkerGroup:
    """A group in a process of its own, which ends with this object, with the program, or with a crash of it.

    The worker is a fresh interpreter on `host_worker.py` (POSIX only): nothing is forked beside JAX's threads, and the
    caller's main module is not run again, so a script needs no `if __name__ == '__main__'`.
    """

    def __init__(self, make_env: Callable, num_envs: int, memory_file: int):
        try:
            pickled = cloudpickle.dumps(make_env)
        except Exception as error:
            raise UsageError(
                f'workers need an environment constructor that can be pickled; {make_env!r} cannot ({error}); '
                'use a module-level function or workers=0'
            ) from error
        self._connection, theirs = multiprocessing.Pipe()
        inherited = (theirs.fileno(), memory_file)
        command = [sys.executable, '-P', str(WORKER_FILE), *map(str, inherited)]
        process = subprocess.Popen(command, pass_fds=inherited, stdin=subprocess.DEVNULL)
        # Closed here so that the worker's death shows as an end of file.
        theirs.close()
        self._process = process
        self._finalizer = weakref.finalize(self, _end, self._connection, process)
        self._poller = select.poll()
        self._poller.register(self._connection.fileno(), select.POLLIN)
        self._number = 0
        self.send('begin', (list(sys.path), pickled, num_envs))

    def attach(self, memory, sizes: tuple, start: int, stop: int) -> None:
        """Shows the group its rows of the block, which lies in the memory that it inherited."""
        del memory
        self.send('attach', (sizes, start, stop))
        self.receive()

    def send(self, name: str, arguments: tuple) -> None:
        """Asks the worker to call the method `name` of its group."""
        self._number += 1
        with contextlib.suppress(OSError):  # a worker that is gone shows where its answer is awaited
            self._connection.send_bytes(pickle.dumps((self._number, name, arguments)))

    def _death(self) -> EnvironmentFailure:
        try:
            status = self._process.wait(timeout=2.0)
            how = f'by signal {-status}' if status < 0 else f'with exit status {status}'
        except subprocess.TimeoutExpired:
            how = 'in an unknown way'
        return EnvironmentFailure('a worker process that lives', f'ended its worker {how}')

    def receive(self):
        """Waits for the answer to the last `send`, or at first for the description."""
        number = None
        while number != self._number:  # an earlier answer was left by an interruption, such as Ctrl-C
            try:
                wait_awake(self._poller)
                number, succeeded, answer = pickle.loads(self._connection.recv_bytes())
            except (EOFError, OSError) as error:
                raise self._death() from error
        if not succeeded:
            raise EnvironmentFailure(*answer)
        return answer


def _memory_file():
    """A file without a name, in memory where the system has such files."""
    return tempfile.TemporaryFile(dir='/dev/shm' if os.access('/dev/shm', os.W_OK) else None)


class Pool:
    """Environments shared between this process and `workers` others, which all work at the same time.

    Args:
      make_env: `() -> gymnasium.Env`.
      num_envs: how many environments.
      workers: processes beside this one; more than one for each environment but the first are not made.
    """

    def __init__(self, make_env: Callable, num_envs: int, workers: int):
        sizes = [len(share) for share in np.array_split(np.arange(num_envs), min(workers + 1, num_envs))]
        self._bounds = list(itertools.pairwise(np.cumsum([0, *sizes]).tolist()))
        self._file = _memory_file() if len(sizes) > 1 else None
        # This process comes last: its share is no larger than others, and it begins when they are all at work.
        self._groups = [WorkerGroup(make_env, size, self._file.fileno()) for size in sizes[:-1]]
        self._groups.append(LocalGroup(make_env, sizes[-1]))
        self.description = Description(*self._receive()[0])

    def attach(self, observation_dim: int, action_dim: int) -> Block:
        """Makes the block through which all environments are stepped; its rows are the environments in order."""
        sizes = (self._bounds[-1][-1], observation_dim, action_dim)
        size = block_bytes(*sizes)
        if self._file is not None:
            self._file.truncate(size)
        memory = mmap.mmap(-1 if self._file is None else self._file.fileno(), size)
        for group, bounds in zip(self._groups, self._bounds, strict=True):
            group.attach(memory, sizes, *bounds)
        return block_in(memory, *sizes)

    def ask(self, name: str) -> None:
        """Has all environments `reset` or `step`, as the block says.

        Raises:
          EnvironmentFailure: for the first environment that failed, its `row` counted over all; or for a worker that died.
        """
        for group in self._groups:
            group.send(name, ())
        self._receive()

    def replay(self, jobs: list[tuple[int, int, np.ndarray]]) -> None:
        """For each (environment, seed, actions[t, A]): bring it to where the actions lead after the seed."""
        for group, (start, stop) in zip(self._groups, self._bounds, strict=True):
            group.send('replay', ([(i - start, *job) for i, *job in jobs if start <= i < stop],))
        self._receive()

    def _receive(self) -> list:
        answers, errors = [], []
        for group, (start, _) in zip(self._groups, self._bounds, strict=True):
            # Every group is heard, also after a failure, so that none is still at work when this returns.
            try:
                answers.append(group.receive())
            except EnvironmentFailure as error:
                error.row = None if error.row is None else start + error.row
                errors.append(error)
        if errors:
            raise errors[0]
        return answers
