"""A signal that fades over each phase, for bonuses that should be gone at its end."""

from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp

from ooorl.nn.schedules import Progress
from ooorl.types import Signal, State, ignore_data
from ooorl.validation import check_unit


class FadingState(NamedTuple):
    """A signal's state, and where it stands in its phase."""

    signal: State
    progress: Progress


def fading(signal: Signal, end: float) -> Signal:
    """The signal times 1 - (1 - end) k / K after k of a phase's K updates: whole at first, the share `end` of it at last.

    Like learning rates (`ooorl.nn.schedules`) it begins anew in every phase, and does not fade where nobody has begun one.
    """
    check_unit(scale_end=end)

    def share(state):
        if state.progress.updates is None:
            return 1.0
        return 1.0 - (1.0 - end) * jnp.clip(state.progress.count / jnp.maximum(state.progress.updates, 1), 0.0, 1.0)

    def update(state, batch, key):
        own, score, metrics = signal.update(state.signal, batch, key)
        progress = state.progress._replace(count=state.progress.count + 1)
        return FadingState(own, progress), share(state) * score, metrics | {'share': jnp.asarray(share(state), jnp.float32)}

    told = signal.observe is not ignore_data
    return replace(
        signal,
        init=lambda key: FadingState(signal.init(key), Progress(jnp.zeros((), jnp.int32), None)),
        update=update,
        score=lambda state, batch: share(state) * signal.score(state.signal, batch),
        observe=(lambda state, rows: state._replace(signal=signal.observe(state.signal, rows))) if told else ignore_data,
    )
