"""The one rule for sizes: what a run will hold at once is added up before anything of it is allocated.

A lower bound is compared with the memory that is free: stores `[S, steps]`, data, the states of all phases' agents for all seeds,
the batches of a dispatch, environments and the actions that make host environments resumable. What would not fit is refused with
the numbers and the setting to change.
"""

import math
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax

from ooorl.errors import UsageError
from ooorl.mapping import num_shares, on_cpu
from ooorl.nn.optimizers import optimizer_states
from ooorl.training.phases import Setup, round_sizes

HOST_COPY = 20_000  # bytes of an environment on the host, a small one
SCRIPTED_EPISODE = 1_000  # bytes of an episode of scripted data
WORKING = 'batches, windows and gradients'
KINDS = ('data', 'stores', 'parameters', 'optimiser states', WORKING, 'environments')


class Part(NamedTuple):
    """Something that a run holds: its bytes, what it is in words, the settings that decide, and its line in the plan."""

    bytes: int
    what: str
    settings: str
    kind: str = 'environments'


def available() -> int:
    """Bytes that this process may still take: of all its accelerators, or of the machine and the container around it."""
    if not on_cpu():
        every = [device.memory_stats() or {} for device in jax.local_devices()]
        return sum(stats.get('bytes_limit', 2**63) - stats.get('bytes_in_use', 0) for stats in every)
    free = [os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')]
    try:
        lines = Path('/proc/meminfo').read_text(encoding='ascii').splitlines()
        free = [1024 * int(line.split()[1]) for line in lines if line.startswith('MemAvailable:')] or free
        group = Path('/sys/fs/cgroup')
        free.append(int((group / 'memory.max').read_text()) - int((group / 'memory.current').read_text()))
    except (OSError, ValueError):  # no such file, or no limit
        pass
    return max(0, min(free))


def check(parts, limit: int | None = None) -> None:
    """Refuses parts that do not fit together into the memory that is free, or into `limit` bytes of it."""
    parts = list(parts)
    total, free = sum(part.bytes for part in parts), available()
    if limit is not None and limit < free:
        allowed = f'memory_limit allows {in_words(limit)}'
    else:
        limit, allowed = free, f'{in_words(free)} are free'
    if total > limit:
        largest = max(parts, key=lambda part: part.bytes)
        raise UsageError(
            f'this run needs {in_words(total)} of memory at least; {allowed}; {in_words(largest.bytes)} of it '
            f'are {largest.what}; lower {largest.settings}'
        )


def parsed(text: str) -> int:
    """'8GB', '500 MB' or '2.5GiB' in bytes.

    Raises:
      UsageError: if it is none of these, or nothing.
    """
    found = re.fullmatch(r'([0-9.]+) *([kMGTP])(i?)B', text.strip())
    try:
        size = int(float(found[1]) * (1024 if found[3] else 1000) ** ('kMGTP'.index(found[2]) + 1)) if found else 0
    except ValueError:
        size = 0
    if size < 1:
        raise UsageError(f"memory_limit must look like '8GB', '500MB' or '7.5GiB'; got {text!r}")
    return size


def in_words(size: int) -> str:
    """Bytes as people read them."""
    power = min(6, int(math.log(max(size, 1), 1000)))
    return f'{size / 1000**power:.3g} {("B", "kB", "MB", "GB", "TB", "PB", "EB")[power]}'


def by_kind(parts: Iterable[Part]) -> dict[str, list[Part]]:
    """Parts that take memory, by kind in the order of `KINDS`."""
    parts = list(parts)
    found = {kind: [part for part in parts if part.kind == kind and part.bytes] for kind in KINDS}
    return {kind: own for kind, own in found.items() if own}


def line(parts: Iterable[Part]) -> str:
    """The plan in one line: bytes of all kinds together, and of each."""
    sums = {kind: sum(part.bytes for part in own) for kind, own in by_kind(parts).items()}
    each = ', '.join(f'{kind.partition(",")[0]} {in_words(size)}' for kind, size in sums.items())
    return f'memory: at least {in_words(sum(sums.values()))} ({each}); {in_words(available())} are free'


def of_copies(num_seeds: int, num_envs: int, compiled: bool) -> Part:
    """Environments, before they are made."""
    size = num_seeds * num_envs * (4 if compiled else HOST_COPY)
    return Part(size, f'{num_envs:,} environments x {num_seeds:,} seeds', 'num_envs, num_episodes or the seeds')


def of_setup(setup: Setup) -> Iterator[Part]:
    """What the phases of a run hold, on all devices together."""
    seeds, shares = len(setup.seeds), num_shares(len(setup.seeds)) if setup.devices == 'seeds' else jax.device_count()
    if setup.dataset is not None:
        # Every device has its own, and on a CPU the rows as they were loaded stay beside these.
        size, held = nbytes(setup.dataset), f' on {shares} devices' if shares > 1 else ''
        what = f'{setup.dataset.reward.shape[0]:,} rows of data{held}'
        yield Part(size * (shares + on_cpu()), what, 'the number of rows', 'data')
    for name, store in setup.stores.items():
        what = f'{store.num_rows:,} rows of an earlier run in {name!r} x {seeds:,} seeds'
        yield Part(nbytes(store.rows), what, 'the number of seeds', 'stores')
    for name in dict.fromkeys(phase.store for phase in setup.phases if phase.num_env_steps):
        steps = sum(phase.num_env_steps for phase in setup.phases if phase.store == name)
        size = steps * seeds * _row(setup.environment.spec)
        settings = 'num_env_steps, random_steps or the seeds'
        yield Part(size, f'{steps:,} collected steps x {seeds:,} seeds', settings, 'stores')
    if setup.evaluation is not None and setup.evaluation.compiled:
        horizon = setup.evaluation.horizon
        yield Part(32 * horizon, f'the keys of an episode of {horizon:,} steps', 'the time limit')
    for environment in (setup.environment, setup.evaluation):
        if environment is not None and not environment.compiled:
            live = environment.turns[0][1] if environment.turns else environment
            size = 4 * math.prod(live.batch_shape) * environment.horizon * environment.spec.action_dim
            yield Part(size, f'episodes of {environment.horizon:,} actions', 'the time limit, the copies or the seeds')
    yield from _agents(setup, seeds, 1 if setup.devices == 'seeds' else shares)
    yield from _batches(setup, seeds)


def nbytes(tree) -> int:
    """Bytes of all arrays, or shapes of arrays, in a tree."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _row(spec):
    return 4 * (2 * spec.observation_dim + spec.action_dim + 3)


def _agents(setup, seeds, copies):
    """Every phase's final state is kept, so that later phases and `ooorl eval` find it."""
    everywhere = f' on {copies} devices' if copies > 1 else ''
    states = {}
    for phase in setup.phases:
        if id(phase.agent) not in states:
            states[id(phase.agent)] = jax.eval_shape(phase.agent.init, jax.random.key(0))
        optimisers = nbytes(optimizer_states(states[id(phase.agent)]))
        sizes = {'optimiser states': optimisers, 'parameters': nbytes(states[id(phase.agent)]) - optimisers}
        for kind, size in sizes.items():
            what = f'the {kind} of phase {phase.name!r}, {in_words(size)} x {seeds:,} seeds{everywhere}'
            yield Part(size * seeds * copies, what, 'its widths or the seeds', kind)


def _bytes_a_row(setup):
    if setup.environment is not None:
        return _row(setup.environment.spec)
    given = setup.dataset if setup.dataset is not None else next(iter(setup.stores.values())).rows.storage
    return nbytes(given) // given.reward.size


def _batches(setup, seeds):
    largest, source = 0, setup.environment
    for phase in setup.phases:
        on_host = phase.num_env_steps and not source.compiled
        updates, cycles = round_sizes(phase, setup).done(1)
        # On the host all batches of a cycle are drawn at once, for all seeds.
        at_once = updates // cycles * seeds if on_host else 1
        rows = phase.sampling.batch_size * phase.agent.window
        largest = max(largest, at_once * _bytes_a_row(setup) * rows if phase.num_updates else 0)
    yield Part(largest, 'the batches of one cycle', 'batch_size, cycle_steps or the updates of a cycle', WORKING)
