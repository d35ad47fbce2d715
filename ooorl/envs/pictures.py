"""Pictures of compiled tasks, drawn with numpy: flat shapes on a plane, four times as fine as shown and then averaged."""

from collections.abc import Sequence

import numpy as np

SIZE = 240  # pixels of the longer side
FINE = 2  # finer each way than shown
GROUND, WALL, DANGER = (245, 245, 242), (70, 78, 92), (214, 92, 74)
GOAL, START, BODY, OTHER = (86, 160, 96), (180, 196, 214), (38, 84, 168), (226, 156, 52)


class Canvas:
    """A rectangle of the plane, x to the right and y upwards, to draw on; later shapes cover earlier ones.

    Args:
      low: its lower left corner (x, y).
      high: its upper right one.
    """

    def __init__(self, low: Sequence[float], high: Sequence[float]):
        spans = np.subtract(high, low)
        width, height = (int(round(SIZE * span / spans.max())) * FINE for span in spans)
        self._x = low[0] + (np.arange(width) + 0.5)[None, :] * spans[0] / width
        self._y = high[1] - (np.arange(height) + 0.5)[:, None] * spans[1] / height
        self._pixels = np.full((height, width, 3), GROUND, np.uint8)

    def box(self, low: Sequence[float], high: Sequence[float], colour: Sequence[int]) -> None:
        """The rectangle between two corners."""
        self._pixels[(self._x >= low[0]) & (self._x <= high[0]) & (self._y >= low[1]) & (self._y <= high[1])] = colour

    def disc(self, centre: Sequence[float], radius: float, colour: Sequence[int]) -> None:
        """A disc."""
        self._pixels[(self._x - centre[0]) ** 2 + (self._y - centre[1]) ** 2 <= radius**2] = colour

    def line(self, start: Sequence[float], end: Sequence[float], width: float, colour: Sequence[int]) -> None:
        """A segment with round ends."""
        dx, dy = end[0] - start[0], end[1] - start[1]
        along = ((self._x - start[0]) * dx + (self._y - start[1]) * dy) / max(dx**2 + dy**2, 1e-12)
        along = np.clip(along, 0.0, 1.0)
        apart = (self._x - start[0] - along * dx) ** 2 + (self._y - start[1] - along * dy) ** 2
        self._pixels[apart <= (width / 2) ** 2] = colour

    def picture(self) -> np.ndarray:
        """`[H, W, 3]` uint8."""
        height, width, _ = self._pixels.shape
        fine = self._pixels.reshape(height // FINE, FINE, width // FINE, FINE, 3)
        return fine.mean(axis=(1, 3)).round().astype(np.uint8)
