"""How long the rounds of a phase are, computed where asked for."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Rounds(Sequence):
    """(updates, cycles of collection) of each round of a phase, computed where asked for: a phase may have any number of them.

    A phase is a row of periods, at whose ends it is evaluated, and a period is a row of rounds, equal but for its last one. All
    lengths are counted in cycles, or in updates where nothing is collected.

    Attributes:
      total: length of the phase.
      period: length of a period; of the last one, what is left.
      most: length of a round.
      updates_per_cycle: of learning; None where nothing is collected.
    """

    total: int
    period: int
    most: int
    updates_per_cycle: int | None = None

    def __len__(self):
        whole, rest = divmod(self.total, self.period)
        return max(1, whole * self._per_period() + -(-rest // self.most))

    def __getitem__(self, number: int) -> tuple[int, int]:
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        number %= len(self)
        return self._counts(self._passed(number + 1) - self._passed(number))

    def done(self, number: int) -> tuple[int, int]:
        """(updates, cycles) of the first `number` rounds together."""
        return self._counts(self._passed(number))

    def ends_period(self, number: int) -> bool:
        """Whether the first `number` rounds are a whole number of periods."""
        return self._passed(number) % self.period == 0

    def _per_period(self):
        return -(-self.period // self.most)

    def _passed(self, number):
        periods, rounds = divmod(number, self._per_period())
        return min(self.total, periods * self.period + min(rounds * self.most, self.period))

    def _counts(self, length):
        return (length, 0) if self.updates_per_cycle is None else (length * self.updates_per_cycle, length)


def divided(total: int, most: int, period: int | None, updates_per_cycle: int | None = None) -> Rounds:
    """The rounds of a phase of length `total`: of at most `most`, cut wherever a `period` ends."""
    if not period or period >= total:
        return Rounds(total, max(1, total), most, updates_per_cycle)
    most = min(most, period)
    equal = next(size for size in range(most, 0, -1) if period % size == 0)
    return Rounds(total, period, equal if 2 * equal >= most else most, updates_per_cycle)
