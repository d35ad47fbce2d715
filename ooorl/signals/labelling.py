"""Labels of a life's states from few questions: "is this state irreversible?" is asked about O(log T) of its T successors.

A life is everything between two resets. Its states are the successors s_1 .. s_T of its T transitions, numbered 0 .. T-1, so that
a label belongs to the successor of its row and never to the state before it. Where what is irreversible is never left, labels are
0 .. 0 1 .. 1 and bisection finds the first 1:

    the last state first; where it is reversible, so are all: 1 query
    otherwise the middle of what is left, again and again: at most 1 + ceil(log2 T) queries

Source: the oracle of PAINT, Xie et al., "When to Ask for Help", NeurIPS 2022, arXiv:2210.10765. Its release never asks about the
last state and marks the state before the first irreversible one as well; neither is done here.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.errors import UsageError
from ooorl.types import Array
from ooorl.validation import check_choice, check_not_negative

UNKNOWN = -1  # the label of a state that nobody has judged
MODES = ('bisect', 'exhaustive')


class Bisection(NamedTuple):
    """How far a life is judged; int32 scalars, so that it can be stored while somebody thinks about an answer.

    All states before `low` are reversible, all from `high` on are not. `probe` is the state to ask about next, -1 when all is
    known; `queries` counts the answers.
    """

    low: Array
    high: Array
    probe: Array
    queries: Array


def query_bound(length: int) -> int:
    """The most queries that a life of `length` states takes: 1 + ceil(log2 T), 0 where there is no state."""
    return 1 + (length - 1).bit_length() if length else 0


def begin(length: Array) -> Bisection:
    """Nothing is known of a life of `length` states."""
    length, zero = jnp.asarray(length, jnp.int32), jnp.zeros((), jnp.int32)
    return Bisection(zero, length, length - 1, zero)


def answered(state: Bisection, irreversible: Array) -> Bisection:
    """What is known once the state `probe` is said to be irreversible, or not. Where nothing was asked nothing changes."""
    asked = state.probe >= 0
    low = jnp.where(asked & ~irreversible, state.probe + 1, state.low)
    high = jnp.where(asked & irreversible, state.probe, state.high)
    probe = jnp.where(low < high, (low + high) // 2, -1)
    return Bisection(low, high, probe, state.queries + asked)


def first_irreversible(ask: Callable[[Array], Array], length: Array, most: int) -> Bisection:
    """Bisection inside of a program: `ask(index) -> bool` answers at once; lives have at most `most` states.

    The first irreversible state of the result is `high`, `length` where there is none.
    """

    def step(_, state):
        return answered(state, ask(jnp.maximum(state.probe, 0)))

    return jax.lax.fori_loop(0, query_bound(most), step, begin(length))


class Labels(NamedTuple):
    """The labels of a life.

    Attributes:
      label: `[T]` int8: 1 irreversible, 0 reversible, -1 unknown.
      queries: how many states were asked about.
      contradictions: answers that cannot be true of states that are never left again.
    """

    label: np.ndarray
    queries: int
    contradictions: int


def label_life(
    ask: Callable[[int], bool], length: int, *, mode: str = 'bisect', audits: int = 0, known: Mapping[int, bool] | None = None
) -> Labels:
    """Labels the `length` states of a life by asking on the host.

    Answers that contradict one another are counted; of such a life only the states that somebody has judged keep their labels,
    all others stay unknown.

    Args:
      ask: `(index) -> irreversible`.
      length: T.
      mode: 'bisect' (states that are irreversible are never left) or 'exhaustive' (they may be: all T are asked about).
      audits: so many further states, evenly spread, are asked about to test that, as far as the bound leaves queries for it; most
        where the whole life is reversible.
      known: states that are known beforehand (a goal is reversible); nobody is asked about them, but they may contradict.

    Raises:
      UsageError: for another mode or a negative number of audits.
    """
    check_choice(MODES, mode=mode)
    check_not_negative(audits=audits)
    if any(not 0 <= step < length for step in known or {}):
        raise UsageError(f'known states must lie between 0 and {length - 1}; got {sorted(known)}; count the successors')
    told = {}
    found = begin(length)
    while mode == 'bisect' and int(found.probe) >= 0:
        probe = int(found.probe)
        told[probe] = bool(ask(probe))
        found = answered(found, told[probe])
    spare = min(audits, query_bound(length) - len(told)) if mode == 'bisect' else length
    for probe in _spread(length, told, spare):
        told[probe] = bool(ask(probe))
    return _labels(length, told, known or {}, mode)


def _spread(length, told, number):
    """`number` states of those not asked about, evenly spread."""
    left = [step for step in range(length) if step not in told]
    number = min(number, len(left))
    return [left[(2 * i + 1) * len(left) // (2 * number)] for i in range(number)]


def _labels(length, told, known, mode):
    facts = {**told, **known}
    order = np.array([facts[step] for step in sorted(facts)], bool)
    disagreed = sum(told[step] != known[step] for step in told.keys() & known.keys())
    contradictions = int((order[:-1] & ~order[1:]).sum()) + disagreed
    label = np.full(length, UNKNOWN, np.int8)
    if mode == 'bisect' and not contradictions and length:
        first = min((step for step, bad in facts.items() if bad), default=length)
        label[:] = np.arange(length) >= first
    for step, bad in facts.items():
        label[step] = UNKNOWN if step in told and step in known and told[step] != known[step] else bad
    return Labels(label, len(told), contradictions)
