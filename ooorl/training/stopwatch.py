"""Wall time by phase and by what it was spent on: one thing at a time, so that the parts add up to the whole."""

import time
from collections.abc import Callable
from contextlib import contextmanager

ACTIVITIES = ('compile', 'train', 'collect', 'evaluate', 'checkpoint', 'report', 'other')


class Stopwatch:
    """Never stands still: whatever happens is counted for the newest activity that has begun and not ended.

    Attributes:
      spent: seconds, `{phase: {activity: seconds}}`; what belongs to no phase is under ''.
    """

    def __init__(self, began: float | None = None, clock: Callable[[], float] = time.monotonic):
        """Time counts from `began` (of `clock`), now if not given."""
        self._clock, self._since = clock, clock() if began is None else began
        self._phase, self._activity = '', 'other'
        self.spent = {}

    def lap(self) -> dict:
        """`spent` up to now."""
        now = self._clock()
        own = self.spent.setdefault(self._phase, {})
        own[self._activity] = own.get(self._activity, 0.0) + now - self._since
        self._since = now
        return self.spent

    def enter(self, phase: str) -> None:
        """From now on time is that of `phase`; '' for none."""
        self.lap()
        self._phase = phase

    @contextmanager
    def on(self, activity: str):
        """Inside, time goes to `activity`, but for what is spent on others inside of it."""
        self.lap()
        before, self._activity = self._activity, activity
        try:
            yield
        finally:
            self.lap()
            self._activity = before


def total(spent: dict, activity: str | None = None) -> float:
    """Seconds of all phases together, of one activity or of all of them."""
    return sum(value for own in spent.values() for name, value in own.items() if activity in (None, name))


def added(left: dict, right: dict) -> dict:
    """The times of two stretches of one run together."""
    phases = {**left, **right}
    return {
        phase: {
            name: left.get(phase, {}).get(name, 0.0) + right.get(phase, {}).get(name, 0.0)
            for name in {**left.get(phase, {}), **right.get(phase, {})}
        }
        for phase in phases
    }
