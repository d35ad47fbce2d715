"""Signals that ask a run to stop: noted while it computes, obeyed at once while it waits for somebody."""

import signal
import threading
from collections.abc import Callable

STOPPING = (signal.SIGTERM, signal.SIGINT)


class Interrupted(Exception):
    """A signal asked the run to stop; its last checkpoint is on the disk. `number` is the signal's."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class noted:
    """While inside, SIGTERM and SIGINT are noted in `.number` instead of obeyed; a second SIGINT is obeyed at once."""

    number = 0

    def __enter__(self):
        self._before = _handled(self._note)
        return self

    def __exit__(self, *_):
        _restored(self._before)

    def _note(self, number, frame):
        del frame
        if self.number == number == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice: stop at once, the last checkpoint stands
        self.number = number


def obeying(wait: Callable) -> Callable:
    """`wait`, a function that may take for ever; a signal that comes meanwhile raises `Interrupted` in it."""

    def stop(number, frame):
        del frame
        raise Interrupted(number)

    def waiting(*arguments):
        before = _handled(stop)
        try:
            return wait(*arguments)
        finally:
            _restored(before)

    return waiting


def _handled(handler):
    """The handlers that were there before; only the main thread has any, elsewhere somebody else handles signals."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number in STOPPING}


def _restored(before):
    for number, handler in before.items():
        signal.signal(number, handler)
