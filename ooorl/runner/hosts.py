"""Several hosts at work on one run: every one of them runs the same command, the first one writes.

Seeds, or the rows of each batch, are shared out over the devices of all hosts; what a program leaves is on all of them. So a host
can read every array, and only the first one holds the run directory, whose files are those of a run on one host. The data must be
at the same path everywhere; a run directory that `--resume` reads, too.
"""

import os

import jax

from ooorl.errors import UsageError
from ooorl.training import run as running
from ooorl.training.phases import Setup

ADDRESS, NUMBER = 'JAX_COORDINATOR_ADDRESS', 'JAX_PROCESS_ID'


def join(num: int) -> None:
    """Makes this process one of `num`, by `jax.distributed`; call it before anything asks jax for its devices.

    Under Slurm, Open MPI and on TPUs jax finds the others by itself; elsewhere two variables say where they are,
    JAX_COORDINATOR_ADDRESS (host:port of the first one) and JAX_PROCESS_ID (0 is the first one).

    Raises:
      UsageError: if they cannot be found, or are not as many.
    """
    if num == 1:
        return
    named = {}
    if ADDRESS in os.environ:
        number = os.environ.get(NUMBER, '')
        if number not in map(str, range(num)):
            raise UsageError(f'run.hosts = {num} needs {NUMBER} from 0 to {num - 1} beside {ADDRESS}; got {number!r}; set it')
        named = {'num_processes': num, 'process_id': int(number)}
    try:
        jax.distributed.initialize(**named)
    except (RuntimeError, ValueError) as error:
        told = str(error).partition('\n')[0]
        raise UsageError(f'run.hosts = {num} needs hosts that find each other ({told}); set {ADDRESS} and {NUMBER}') from None
    if jax.process_count() != num:
        raise UsageError(f'run.hosts must be the number of processes, {jax.process_count()}; got {num}; change it')


def check(setup: Setup, num: int) -> None:
    """Refuses what several hosts cannot share.

    Raises:
      UsageError: for environments that step on the host.
    """
    places = {'environment.id': setup.environment, 'evaluation': setup.evaluation}
    for name, place in places.items():
        if num > 1 and place is not None and not place.compiled:
            raise UsageError(
                f'run.hosts = {num} needs compiled environments; {place.name} of {name} steps on the host; for offline runs set '
                'evaluation.num_episodes = 0 and use `ooorl eval` afterwards'
            )


def follow(setup: Setup, state) -> None:
    """What every host but the first does: its part of all programs, from `state` on (None: from the beginning).

    Raises:
      UsageError: where another host has ended before.
    """
    try:
        for _ in running.iterate(setup, resume=state):
            pass
    except jax.errors.JaxRuntimeError as error:
        told = str(error).partition('\n')[0][:120]
        raise UsageError(f'all hosts are needed to the end; another has ended ({told}); see what the first one says') from None
