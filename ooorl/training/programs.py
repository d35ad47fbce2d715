"""Compiled programs of a run: each compiled once, timed, given up when somebody asks for it, and run in parts of seconds.

Programs of later phases can be made while the first one trains (`Programs.expect`): threads of their own trace and compile them
for shapes alone. What is compiled is the same, so no number depends on who made a program, or when.
"""

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from ooorl.mapping import map_seeds, num_hosts, seldom
from ooorl.training import replay
from ooorl.training.stopwatch import Stopwatch, total

PART_SECONDS = 2.0  # how long a part of a round should take
NUM_AHEAD = 2  # threads that make programs ahead: while one compiles, which Python has no part in, the other traces


class Stopped(Exception):
    """What was going on was given up because somebody asked for it; the last complete state stands."""


class Job(NamedTuple):
    """A program, and what it is called with: arrays, or shapes where it is only to be compiled.

    Attributes:
      key: what tells it from other programs of this run.
      function: pure.
      args: arrays.
      donate: numbers of the arguments whose memory it may take.
      rare: whether it runs so seldom that optimising it would cost more than it brings (`mapping.seldom`).
    """

    key: Any
    function: Callable
    args: tuple
    donate: tuple[int, ...] = ()
    rare: bool = False

    def lower(self):
        """Traced and lowered, ready to be compiled."""
        return (seldom if self.rare else jax.jit)(self.function, donate_argnums=self.donate).lower(*self.args)


class Programs:
    """Compiled programs of a run, each compiled once, and the data that all seeds share."""

    def __init__(self, setup, *, stopped: Callable[[], bool] | None = None, watch: Stopwatch | None = None):
        self.setup, self.watch = setup, watch or Stopwatch()
        self.dataset = None if setup.dataset is None else replay.full(setup.dataset)
        self._stopped, self._compiled = stopped, {}
        self._ahead, self._noted = _Ahead(), {}

    @property
    def compile_seconds(self) -> float:
        """Wall time spent on compiling so far."""
        return total(self.watch.spent, 'compile')

    def expect(self, jobs: Iterable[Job]) -> None:
        """Has threads of their own compile these programs, in this order; those that are wanted before are not made twice."""
        self._ahead.begin(jobs)

    def close(self) -> None:
        """Whatever is expected and not begun is forgotten."""
        self._ahead.close()

    def once(self, key, make: Callable):
        """What `make()` answered when it was first asked for under this name."""
        if key not in self._noted:
            self._noted[key] = make()
        return self._noted[key]

    def run(self, job: Job):
        """`call` of a job."""
        return self.call(job.key, job.function, *job.args, donate=job.donate, rare=job.rare)

    def call(self, key, function, *args, donate=(), rare=False):
        """Compiles `function` for these arguments once under `key`, then calls it; see `Job`."""
        if key in self._compiled:
            try:
                return self._compiled[key](*args)
            except ValueError as error:  # told before anything is done: arrays that devices have shared out since it was made
                if 'sharding' not in str(error):
                    raise
        with self.watch.on('compile'):
            self.heed()
            program = self._ahead.claim(key, self.heed)
        if program is not None:
            try:  # arguments are checked before anything is done with them
                results = program(*args)
            except (TypeError, ValueError):  # made for others
                del program
            else:
                self._compiled[key] = program
                return results
        with self.watch.on('compile'):
            self._compiled[key] = self._compile(Job(key, function, args, donate, rare).lower())
        return self._compiled[key](*args)

    def heed(self):
        """Raises `Stopped` if somebody asked for it."""
        if self._stopped is not None and self._stopped():
            raise Stopped

    def wait(self, arrays):
        """The arrays once they are there; given up when somebody asks for it."""
        pause = 1e-4
        while self._stopped is not None and not all(leaf.is_ready() for leaf in jax.tree.leaves(arrays)):
            self.heed()
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        return jax.device_get(arrays)

    def _compile(self, lowered):
        if self._stopped is None:
            return lowered.compile()
        # Signals reach this thread only between two steps of Python, of which the compiler makes none.
        answers = []
        thread = threading.Thread(target=lambda: answers.append(_answer(lowered.compile)), name='compile', daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(0.1)
            self.heed()
        value, error = answers[0]
        if error is not None:
            raise error
        return value

    def over_seeds(self, function, in_axes, *, together=False, nearby=False):
        """`function` mapped over the seed axis as this run wants it (see `map_seeds`).

        All seeds `together` suit what only moves data; what acts `nearby`, on a device of its own, is not shared out.
        """
        group = len(self.setup.seeds) if together else self.setup.seed_group
        return map_seeds(function, in_axes, group=group, spread=self.setup.devices == 'seeds' and not nearby)

    def keys(self, phase_number, round_number, purpose):
        """One key a seed for one purpose of one round."""
        numbers = np.asarray([phase_number, round_number, purpose], np.uint32)
        return _folded(np.asarray(self.setup.seeds, np.uint32), numbers)


@jax.jit
def _folded(seeds, numbers):
    def fold(seed):
        key = jax.random.key(seed)
        for number in numbers:
            key = jax.random.fold_in(key, number)
        return key

    return jax.vmap(fold)(seeds)


class _Ahead:
    """Programs made by threads of their own, each by whoever comes first: them, or the one who wants it."""

    def __init__(self):
        self._lock, self._turn = threading.Lock(), threading.Lock()
        self._made, self._closed = {}, False

    def begin(self, jobs):
        jobs = iter(jobs)
        for _ in range(NUM_AHEAD):
            # Not as daemons: the interpreter must not be taken away from a thread that compiles.
            threading.Thread(target=self._work, args=(jobs,), name='compile').start()

    def close(self):
        self._closed = True

    def claim(self, key, heed):
        """The program once it is made; None if nobody has begun to make it, who then need not."""
        with self._lock:
            made = self._made.setdefault(key, None)  # None: left to who wants it
        if made is None:
            return None
        while True:
            try:
                return made.result(timeout=0.1)
            except TimeoutError:
                heed()

    def _work(self, jobs):
        while True:
            with self._turn:  # one traces at a time, lest the thread that trains waits for Python behind several
                job, _ = (None, None) if self._closed else _answer(lambda: next(jobs, None))
                if job is None:
                    return
                with self._lock:
                    made = None if job.key in self._made else self._made.setdefault(job.key, Future())
                lowered, error = (None, None) if made is None else _answer(job.lower)
            if made is not None:
                program, error = (None, error) if error else _answer(lowered.compile)
                made.set_result(program)  # None after an error: who wants it meets it, too, and tells it


def _answer(function):
    try:
        return function(), None
    except Exception as error:  # noqa: BLE001 - raised again in the thread that asked
        return None, error


class _Part(NamedTuple):
    """The last part of a phase: its steps, how long it took, and what of that no step is to blame for; None: not known yet."""

    count: int
    seconds: float
    fixed: float | None


@dataclass
class Pace:
    """How many steps make a part of `PART_SECONDS`, judged by the parts before. No number of a run depends on it.

        seconds = fixed + count * each

    A part costs something however short it is: seeds mapped in groups copy their stores once. Were that taken for the cost of a
    step, parts of one step would follow one another for ever. So twice as many steps are tried once, and two parts, one at least
    twice as long as the other, tell both; `fixed` is left out of the two seconds.
    """

    parts: dict[str, _Part] = field(default_factory=dict)  # by phase

    def count(self, phase, left: int) -> int:
        """Steps of the next part of a phase, of which `left` remain in the round; one where nothing is known yet.

        Several hosts do the same programs in the same order, whatever their clocks say: whole rounds.
        """
        if num_hosts() > 1:
            return left
        last = self.parts.get(phase.name)
        return min(left, 1 if last is None else max(1, int(_wanted(last))))

    def took(self, phase, count: int, seconds: float) -> None:
        """A part of `count` steps took so long."""
        last = self.parts.get(phase.name)
        fixed = None if last is None else last.fixed
        if last is not None and max(count, last.count) >= 2 * min(count, last.count):
            each = max(0.0, (seconds - last.seconds) / (count - last.count))
            fixed = max(0.0, seconds - count * each)
        self.parts[phase.name] = _Part(count, seconds, fixed)


def _wanted(last):
    """Steps that `PART_SECONDS` are for, at most twice as many as before where fixed costs alone speak for more."""
    whole = PART_SECONDS * last.count / max(last.seconds, 1e-9)
    if last.fixed is None:
        return max(whole, 2 * last.count)
    return min(PART_SECONDS * last.count / max(last.seconds - last.fixed, 1e-9), max(whole, 2 * last.count))
