"""The engine of one machine: a process for each cell, as many at once as there are cores to give them."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from ooorl.mapping import num_cores
from ooorl.runner.sweep import claims


class Process:
    """A cell that a process of its own runs, on some of the cores."""

    def __init__(self, folder: Path, cores: Sequence[int] = (), again: bool = False):
        """Starts it; what it prints before it has a log of its own goes to that log."""
        command = [sys.executable, '-m', 'ooorl', 'sweep', '--cell', str(folder), *(['--again'] if again else [])]
        with open(folder / 'log.txt', 'a', encoding='utf-8') as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        if cores:
            os.sched_setaffinity(self.process.pid, cores)

    def is_done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.process.poll() is not None

    def stop(self) -> None:
        """Asks it to write a checkpoint and end."""
        self.process.send_signal(signal.SIGTERM)


def run(
    folders: Sequence[Path],
    start: Callable[[Path, int], Process],
    *,
    jobs: int,
    told: Callable[[Path, claims.State | None], None],
    pause: float = 0.1,
) -> None:
    """Runs all cells that are not done, `jobs` at a time; one whose worker was killed is begun again.

    Args:
      folders: of the cells.
      start: `(folder, place) -> Process`, place below `jobs`; anything with `is_done` and `stop` will do.
      jobs: how many at once.
      told: called with the state of every cell that has ended, or is done already; None where another engine has it.
      pause: seconds between two looks at what is going on.

    Ctrl-C, and whatever else is raised here, asks those under way to stop and waits for them.
    """
    waiting, active, begun = list(folders), {}, Counter()
    try:
        while waiting or active:
            while waiting and len(active) < jobs:
                begun[waiting[0]] += 1
                _begin(waiting.pop(0), active, start, jobs, told)
            time.sleep(pause)
            for place in [place for place, (_, process) in active.items() if process.is_done()]:
                folder, _ = active.pop(place)
                found = claims.state(folder)
                if found.status in ('interrupted', 'waiting') and begun[folder] <= claims.ATTEMPTS:
                    waiting.append(folder)  # its worker was killed: from its last checkpoint
                else:
                    told(folder, None if found.status == 'running' else found)
    finally:
        for _, process in active.values():
            process.stop()
        while any(not process.is_done() for _, process in active.values()):
            time.sleep(pause)


def _begin(folder, active, start, jobs, told):
    before = claims.state(folder)
    if before.status == 'running':
        told(folder, None)
    elif before.status in claims.DONE:
        told(folder, before)
    else:
        place = next(place for place in range(jobs) if place not in active)
        active[place] = folder, start(folder, place)


def cores_of(jobs: int) -> list[list[int]]:
    """The cores that this process may use, shared out among so many jobs; empty where the system cannot say."""
    if not hasattr(os, 'sched_getaffinity'):
        return [[] for _ in range(jobs)]
    known = sorted(os.sched_getaffinity(0))[: num_cores()]
    return [known[place % len(known) :: jobs] for place in range(jobs)] if jobs <= len(known) else [known] * jobs
