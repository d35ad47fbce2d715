"""How many seeds a CPU maps together in one program."""

from collections.abc import Mapping

from ooorl.runner.settings import AGENT_TABLES


def seed_group(config: Mapping, num_seeds: int = 4) -> int:
    """How many of a device's seeds a CPU should map together: of small networks about 4, in equal groups, compiled once."""
    widest = [max(_widths(config[name]), default=None) for name in AGENT_TABLES if name in config]
    if not all(width is not None and width <= 96 for width in widest):
        return 1
    equal = [size for size in range(3, 8) if num_seeds % size == 0]
    return min(equal, key=lambda size: abs(size - 4), default=4)


def _widths(table):
    """Widths of all networks of an agent's table, its signals and policies included."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _widths(value)
        elif name == 'hidden':
            yield from value
