"""What does it cost to make rows of metrics out of a round's arrays: fetched all at once, or number by number?

As many metrics as IQL logs with a bonus, for 8 seeds. "At once" is one `jax.device_get` of all of them and numbers out of numpy
arrays, as `training.run` does; "column by column" fetches each metric by itself; "number by number" takes every number out of its
array on the device, which is a small program, a wait and a copy each time. On an accelerator each of these is a round trip.

    python benchmarks/host_rows.py                     # seconds
"""

import argparse
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import timing


def at_once(columns):
    """Rows by one transfer."""
    fetched = jax.device_get(columns)
    return [{name: float(value[seed]) for name, value in fetched.items()} for seed in range(len(fetched['0']))]


def by_column(columns):
    """Rows by a transfer for each metric."""
    fetched = {name: np.asarray(value) for name, value in columns.items()}
    return [{name: float(value[seed]) for name, value in fetched.items()} for seed in range(len(fetched['0']))]


def by_number(columns):
    """Rows by a transfer for each number."""
    return [{name: float(value[seed]) for name, value in columns.items()} for seed in range(len(columns['0']))]


def timed(way, make, rounds):
    """A call gives milliseconds a round; arrays are new in every round, since jax keeps what it has fetched."""

    def run():
        seconds = 0.0
        for number in range(rounds):
            columns = jax.block_until_ready(make(number))
            began = time.perf_counter()
            way(columns)
            seconds += time.perf_counter() - began
        return 1e3 * seconds / rounds

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--metrics', type=int, default=16)
    parser.add_argument('--seeds', type=int, default=8)
    parser.add_argument('--rounds', type=int, default=20)
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--dry', action='store_true', help='print, and write no results')
    arguments = parser.parse_args()
    each = jnp.arange(arguments.seeds, dtype=jnp.float32)
    make = jax.jit(lambda number: {str(name): each * number + name for name in range(arguments.metrics)})
    ways = {'at once': at_once, 'column by column': by_column, 'number by number': by_number}
    assert at_once(make(1)) == by_column(make(1)) == by_number(make(1))
    found = timing.take_turns({name: timed(way, make, arguments.rounds) for name, way in ways.items()}, arguments.repeats)
    for name, values in found.items():
        ratio = statistics.median(a / b for a, b in zip(values, found['at once'], strict=True))
        settings = {'metrics': arguments.metrics, 'seeds': arguments.seeds, 'ratio_to_at_once': round(ratio, 2)}
        if arguments.dry:
            print(name, timing.summary(values), settings)
        else:
            timing.record(Path(__file__).stem, unit='ms/round', contender=name, values=values, **settings)


if __name__ == '__main__':
    main()
