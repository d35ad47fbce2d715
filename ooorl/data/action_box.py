"""The box that actions were recorded in, and its map onto [-1, 1].

Stored actions always lie in [-1, 1] (`ooorl.types.Transition`); recordings have the environment's own units:

    a' = 2 (a - low) / (high - low) - 1

The box is, in this order, the one that is stated (`action_low`, `action_high`), the one that the file itself names (Minari's
metadata, or arrays `action_low` and `action_high`), and that of the environment the data are to be used with; with none of
them it is [-1, 1].
"""

from typing import NamedTuple

import numpy as np

from ooorl.errors import UsageError

# Of the box's width; the rounding of float32.
_SLACK = 1e-6


class Box(NamedTuple):
    """Bounds `low`, `high` `[A]` of actions, and `source`, where they come from, in words."""

    low: np.ndarray
    high: np.ndarray
    source: str


def box(low, high, source) -> Box | None:
    """A box from numbers or arrays; None where a bound is not finite, as of spaces that are open."""
    low, high = (np.asarray(bound, np.float64).reshape(-1) for bound in (low, high))
    low, high = np.broadcast_arrays(low, high)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return None
    if not (low < high).all():
        raise UsageError(f'An action box with low < high is needed; {source} gives {_shown(low, high)}; mend it.')
    return Box(low, high, source)


def in_file(low, high, source) -> Box | None:
    """The box of a file's own arrays `action_low` and `action_high`; None where it lacks one of them."""
    return None if low is None or high is None else box(low, high, f"{source}'s own action_low and action_high")


def of_space(space, source) -> Box | None:
    """The box of an environment's action space; None where it has no finite bounds."""
    return box(space.low, space.high, source) if hasattr(space, 'low') else None


def stated(low, high) -> Box | None:
    """The box of the settings `action_low` and `action_high`; None where neither is given.

    Raises:
      UsageError: if one is missing, not finite, or low is not below high.
    """
    if low is None and high is None:
        return None
    if low is None or high is None or 1 < np.size(low) != np.size(high) > 1:
        raise UsageError(f'action_low and action_high are needed together and alike; got {low} and {high}; give both.')
    found = box(low, high, 'action_low and action_high')
    if found is None:
        raise UsageError(f'Finite bounds of actions are needed; got action_low {low} and action_high {high}; mend them.')
    return found


def is_unit(given: Box | None) -> bool:
    """Whether a box is [-1, 1]; no box counts as that."""
    return given is None or bool((given.low == -1.0).all() and (given.high == 1.0).all())


def same(one: Box | None, other: Box | None) -> bool:
    """Whether two boxes are the same one; no box counts as [-1, 1]."""
    if is_unit(one) or is_unit(other):
        return is_unit(one) and is_unit(other)
    return np.array_equal(one.low, other.low) and np.array_equal(one.high, other.high)


def shown(given: Box | None) -> str:
    """A box as people read it."""
    return '[-1, 1]' if given is None else _shown(given.low, given.high)


def normalised(actions, source, notes, *, stated=None, recorded=None, environment=None, clip=False):
    """Actions `[N, A]` as float32 in [-1, 1].

    Args:
      actions: as in the file.
      source: what messages call the file.
      notes: a list, to which what was done is added.
      stated, recorded, environment: a `Box` or None, in the order in which they count.
      clip: clip actions that leave the box instead of refusing them.

    Raises:
      UsageError: where actions leave the box by more than rounding and `clip` is False, or the box cannot be told.
    """
    known = stated or recorded or _of_environment(actions, environment, source, notes)
    if known is not None and len(known.low) not in (1, actions.shape[1]):
        raise UsageError(
            f'An action box of {actions.shape[1]} entries is needed for {source}; {known.source} gives {len(known.low)}; '
            'name the data and the environment that belong together.'
        )
    if not is_unit(known):
        width = known.high - known.low
        actions = 2.0 * (actions.astype(np.float64) - known.low) / width - 1.0
        notes.append(f'actions rescaled to [-1, 1] from {_shown(known.low, known.high)}, by {known.source}')
    result = np.ascontiguousarray(actions, np.float32)
    largest = max(float(result.max()), -float(result.min()))
    if largest <= 1.0:
        return result
    outside = (np.abs(result) > 1.0 + _SLACK).any(axis=1)
    if outside.any():
        _outside(int(outside.sum()), result, known, source, notes, clip)
    return np.clip(result, -1.0, 1.0)


def _outside(count, actions, known, source, notes, clip):
    """Notes that actions are clipped, or refuses them."""
    rows = f'{count} of {len(actions)} rows'
    if known is None:
        largest = f'largest size {np.abs(actions).max():.4g}'
        units = 'action_low and action_high, or the environment (--env), give the box of actions in other units'
        if not clip:
            raise UsageError(
                f'Actions in [-1, 1], or the box they were recorded in, are needed; {rows} of {source} leave [-1, 1] '
                f'({largest}); {units}, and clip_actions=true clips where [-1, 1] is the box.'
            )
        notes.append(f'actions of {count} rows clipped to [-1, 1] ({largest}): {units}')
        return
    inside = f'{_shown(known.low, known.high)} ({known.source})'
    beyond = f'by up to {50 * (np.abs(actions).max() - 1):.3g} % of its width'
    if not clip:
        raise UsageError(
            f'Actions in {inside} are needed; {rows} of {source} leave it {beyond}; clip_actions=true clips them, as '
            'environments do, and action_low and action_high state another box.'
        )
    notes.append(f'actions of {count} rows clipped to {inside}, which they leave {beyond}')


def _of_environment(actions, given, source, notes):
    """The environment's box, or None for [-1, 1], by which of the two the actions fit into."""
    if given is None or len(given.low) != actions.shape[1]:  # other sizes are refused as such, later
        return None
    if is_unit(given):
        return given
    slack = _SLACK * (given.high - given.low)
    in_unit = bool((np.abs(actions) <= 1.0 + _SLACK).all())
    in_box = bool(((actions >= given.low - slack) & (actions <= given.high + slack)).all())
    if in_unit and in_box and not ((given.low >= -1.0) & (given.high <= 1.0)).all():
        raise UsageError(
            f'The units of actions are needed; those of {source} fit [-1, 1] as well as {_shown(given.low, given.high)} '
            f"({given.source}); say which with action_low and action_high of [dataset]."
        )
    if in_unit and not in_box:
        known = f'{_shown(given.low, given.high)} ({given.source})'
        notes.append(f'actions taken to be rescaled to [-1, 1] already: they leave {known}')
        return None
    return given


def _shown(low, high):
    if len(set(low)) == 1 and len(set(high)) == 1:
        return f'[{low[0]:g}, {high[0]:g}]'
    return f'[{", ".join(f"{x:g}" for x in low)}] to [{", ".join(f"{x:g}" for x in high)}]'
