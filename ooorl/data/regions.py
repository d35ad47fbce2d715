"""Regions of the plane that rows are removed from: the one test of what lies inside, for corrections, configs and files."""

import numpy as np

from ooorl.errors import UsageError
from ooorl.validation import check_regions


def inside(positions: np.ndarray, discs=(), boxes=()) -> np.ndarray:
    """Which positions lie in any of the regions, edges included.

    Args:
      positions: `[N, O]`; the first two entries are x and y.
      discs: `(x, y, radius)`, in units of the positions.
      boxes: `(low x, low y, high x, high y)`.

    Returns:
      `[N]` bool.

    Raises:
      UsageError: if a region has another number of entries, no radius, or its corners the wrong way round; if O < 2.
    """
    check_regions(discs, boxes)
    if positions.shape[1] < 2:
        raise UsageError('regions need observations that begin with x and y; got observations of size 1; leave them out')
    xy = positions[:, :2].astype(np.float64)
    found = np.zeros(len(xy), bool)
    for x, y, radius in discs:
        found |= np.square(xy - (x, y)).sum(axis=1) <= radius**2
    for low_x, low_y, high_x, high_y in boxes:
        found |= ((xy >= (low_x, low_y)) & (xy <= (high_x, high_y))).all(axis=1)
    return found


def described(discs=(), boxes=()) -> str:
    """The regions in words, for notes."""
    parts = [f'within {radius:g} of ({x:g}, {y:g})' for x, y, radius in discs]
    parts += [f'in the box from ({box[0]:g}, {box[1]:g}) to ({box[2]:g}, {box[3]:g})' for box in boxes]
    return ', or '.join(parts)
