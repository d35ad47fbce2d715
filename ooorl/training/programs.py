"""Compiled programs of a run: each compiled once, timed, given up when somebody asks for it, and run in parts of seconds."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.mapping import map_seeds, seldom
from ooorl.training import replay
from ooorl.training.stopwatch import Stopwatch, total

PART_SECONDS = 2.0  # how long a part of a round should take


class Stopped(Exception):
    """What was going on was given up because somebody asked for it; the last complete state stands."""


class Programs:
    """Compiled programs of a run, each compiled once, and the data that all seeds share."""

    def __init__(self, setup, *, stopped: Callable[[], bool] | None = None, watch: Stopwatch | None = None):
        self.setup, self.watch = setup, watch or Stopwatch()
        self.dataset = None if setup.dataset is None else replay.full(setup.dataset)
        self._stopped, self._compiled = stopped, {}

    @property
    def compile_seconds(self) -> float:
        """Wall time spent on compiling so far."""
        return total(self.watch.spent, 'compile')

    def call(self, key, function, *args, donate=(), rare=False):
        """Compiles `function` for these arguments once under `key`, then calls it.

        Args:
          key: what tells it from other programs of this run.
          function: pure.
          *args: arrays.
          donate: numbers of the arguments whose memory it may take.
          rare: whether it runs so seldom that optimising it would cost more than it brings (`mapping.seldom`).
        """
        if key not in self._compiled:
            with self.watch.on('compile'):
                self.heed()
                program = (seldom if rare else jax.jit)(function, donate_argnums=donate)
                self._compiled[key] = self._compile(program.lower(*args))
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

    def over_seeds(self, function, in_axes):
        """`function` mapped over the seed axis as this run wants it; see `map_seeds`."""
        return map_seeds(function, in_axes, group=self.setup.seed_group)

    def keys(self, phase_number, round_number, purpose):
        """One key a seed for one purpose of one round."""
        numbers = np.asarray([phase_number, round_number, purpose], np.uint32)

        def fold(seed):
            key = jax.random.key(seed)
            for number in numbers:
                key = jax.random.fold_in(key, number)
            return key

        return jax.vmap(fold)(jnp.asarray(self.setup.seeds, jnp.uint32))


def _answer(function):
    try:
        return function(), None
    except Exception as error:  # noqa: BLE001 - raised again in the thread that asked
        return None, error


@dataclass
class Pace:
    """How many steps make a part of `PART_SECONDS`, judged by the parts before. No number of a run depends on it."""

    seconds: dict[str, float] = field(default_factory=dict)  # of one step, by phase

    def count(self, phase, left: int) -> int:
        """Steps of the next part of a phase, of which `left` remain in the round; one where nothing is known yet."""
        known = self.seconds.get(phase.name)
        return min(left, 1 if known is None else max(1, int(PART_SECONDS / max(known, 1e-9))))

    def took(self, phase, count: int, seconds: float) -> None:
        """A part of `count` steps took so long."""
        self.seconds[phase.name] = seconds / count
