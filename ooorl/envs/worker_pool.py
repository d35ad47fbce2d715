"""Where a group of environments lives: in this process or in a worker process, behind the same two calls."""

import multiprocessing
import pathlib
import subprocess
import sys
import weakref
from collections.abc import Callable

import cloudpickle

from ooorl.envs.host_worker import EnvGroup
from ooorl.errors import UsageError

WORKER_FILE = pathlib.Path(__file__).with_name('host_worker.py')


class LocalGroup:
    """A group in this process: `send` does the work, `receive` hands over what came of it."""

    def __init__(self, make_env: Callable, num_envs: int):
        self._group = EnvGroup(make_env, num_envs)
        self._answer = self._group.describe()

    def send(self, name: str, arguments: tuple) -> None:
        """Calls the method `name` of the group."""
        self._answer = None
        self._answer = getattr(self._group, name)(*arguments)

    def receive(self):
        """The answer to the last `send`, or at first the description."""
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

    def __init__(self, make_env: Callable, num_envs: int):
        try:
            pickled = cloudpickle.dumps(make_env)
        except Exception as error:
            raise UsageError(
                f'workers need an environment constructor that can be pickled; {make_env!r} cannot ({error}); '
                'use a module-level function or workers=0'
            ) from error
        self._connection, theirs = multiprocessing.Pipe()
        command = [sys.executable, '-P', str(WORKER_FILE), str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        # Closed here so that the worker's death shows as an end of file.
        theirs.close()
        self._finalizer = weakref.finalize(self, _end, self._connection, process)
        self.send('begin', (list(sys.path), pickled, num_envs))

    def send(self, name: str, arguments: tuple) -> None:
        """Asks the worker to call the method `name` of its group."""
        try:
            self._connection.send((name, arguments))
        except OSError as error:
            raise RuntimeError('an environment worker has died; its own output says why') from error

    def receive(self):
        """Waits for the answer to the last `send`, or at first for the description."""
        try:
            succeeded, answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise RuntimeError('an environment worker has died; its own output says why') from error
        if not succeeded:
            raise RuntimeError(f'an environment failed in a worker:\n{answer}')
        return answer
