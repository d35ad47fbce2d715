"""The engine of a Ray cluster: one Ray task a cell, in a fresh process; Ray schedules, and repeats a task whose worker died."""

import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from ooorl.errors import UsageError
from ooorl.runner.sweep import claims, work


def run(
    folders: Sequence[Path],
    command: Callable[[list[str]], int],
    *,
    address: str | None,
    cores: float,
    told: Callable[[Path, claims.State | None], None],
    again: bool = False,
    do: Callable = work.work,
) -> None:
    """Runs all cells that are not done on a Ray cluster, which must see the sweep's folder under the same path.

    Args:
      folders: of the cells.
      command: the command line.
      address: of the cluster; None for one of Ray's own on this machine.
      cores: CPUs that a cell asks Ray for.
      told: called with the state of every cell that has ended; None where another engine has it.
      again: also cells that have failed before.
      do: what a worker does with a folder.

    Raises:
      UsageError: where the package is missing, or the cluster cannot be reached.
    """
    try:
        import ray
    except ImportError:
        raise UsageError('--engine ray needs the package ray; pip install "ooorl[ray]"') from None
    try:
        reach(address)
        ray.init(address=address, log_to_driver=False, ignore_reinit_error=True)
    except (OSError, ValueError, RuntimeError) as error:
        first = (str(error).splitlines() or [''])[0]
        told = f'--address needs a Ray cluster that answers; {address} does not ({first})'
        raise UsageError(f'{told}; start one, with the same RAY_AUTH_MODE, and token where it asks for one, as here') from None
    # A process for each cell: programs, devices and memory of one are gone before the next. A killed one is run again by Ray.
    task = ray.remote(num_cpus=cores, max_calls=1, max_retries=claims.ATTEMPTS)(_cell)
    pending = {task.remote(str(folder), command, again, do): Path(folder) for folder in folders}
    try:
        while pending:
            (done, *_), _ = ray.wait(list(pending), num_returns=1)
            folder = pending.pop(done)
            told(folder, _ended(ray, done, folder))
    finally:
        for one in pending:
            ray.cancel(one)
        ray.shutdown()


def reach(address: str | None) -> None:
    """Raises an OSError where nobody listens at `host:port`: Ray itself tries for a quarter of an hour."""
    host, _, port = (address or '').rpartition(':')
    if host and '/' not in host and port.isascii() and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10.0).close()


def _cell(folder, command, again, do):
    found = do(Path(folder), command, again=again)
    return None if found is None else tuple(found)


def _ended(ray, done, folder):
    try:
        found = ray.get(done)
    except ray.exceptions.RayError as error:
        known = claims.state(folder)
        first = (str(error).splitlines() or [''])[0]
        return known if known.status in claims.DONE else known._replace(status='failed', note=f'Ray gave up: {first[:200]}')
    return None if found is None else claims.State(*found)
