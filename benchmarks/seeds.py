"""How are seeds best shared out on a CPU: over how many devices where these do not divide them, and how many mapped together?

Each contender is a process of its own with so many devices, which makes rounds of offline IQL (batch 64) of all seeds when
asked, by turns with the others. Devices: 5 and 7 seeds of 64 x 64 over 1 to 4 of them, where seeds are filled up; without that
they would run on one. Groups: 8 seeds on one device, mapped one by one, by fours (what is chosen for networks up to 96 wide) and
all together.

    python benchmarks/seeds.py                         # about 2 minutes on four idle cores
    python benchmarks/seeds.py --widths 8 --seeds 5 --devices 1 2 --updates 20 --repeats 1 --dry
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import timing


class Process:
    """One contender; a call gives the updates a second of all its seeds together."""

    def __init__(self, **settings):
        environment = {**os.environ, 'JAX_NUM_CPU_DEVICES': str(settings['devices'])}
        command = [sys.executable, __file__, '--serve', json.dumps(settings)]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def __call__(self):
        self._process.stdin.write('go\n')
        return float(self._process.stdout.readline())

    def close(self):
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def serve(settings):
    """Runs one round for every line that comes in and answers with its updates a second."""
    import jax
    from iql_updates import synthetic

    from ooorl.agents.iql import IQLConfig, iql
    from ooorl.training import phases, rounds
    from ooorl.training.sampling import Sampling
    from ooorl.types import Spec

    agent = iql(Spec(observation_dim=17, action_dim=6), IQLConfig(hidden=(settings['width'],) * 2))
    updates = settings['updates']
    phase = phases.Phase(name='offline', agent=agent, num_updates=updates * 1000, sampling=Sampling(batch_size=64))
    setup = phases.Setup(
        phases=(phase,), seeds=range(settings['seeds']), dataset=synthetic(10_000), updates_per_round=updates,
        seed_group=settings['group'],
    )  # fmt: skip
    programs, sizes = rounds.Programs(setup), phases.round_sizes(phase, setup)
    state = rounds.begin(programs, rounds.RunState(0, 0, None, {}, {}, {}), phase)
    for _ in sys.stdin:
        began = time.perf_counter()
        state, _, _ = rounds.one_round(programs, state, phase, sizes)
        jax.block_until_ready(state.agent)
        print(settings['seeds'] * updates / (time.perf_counter() - began), flush=True)


def measure(arguments, question, contenders, reference):
    """Takes turns and records the rates, with ratios to the contender named `reference`."""
    processes = {name: Process(**settings) for name, settings in contenders.items()}
    try:
        rates = timing.take_turns(processes, arguments.repeats)
    finally:
        for process in processes.values():
            process.close()
    for name, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(values, rates[reference], strict=True))
        settings = {'question': question, **contenders[name], 'ratio_to': reference, 'ratio': round(ratio, 3)}
        if arguments.dry:
            print(name, timing.summary(values), settings)
        else:
            timing.record(Path(__file__).stem, unit='updates/s of all seeds', contender=name, values=values, **settings)


def main(arguments):
    for seeds in arguments.seeds:
        each = {'width': arguments.widths[0], 'seeds': seeds, 'group': 4, 'updates': arguments.updates}
        names = {f'{seeds} seeds on {num} devices': {**each, 'devices': num} for num in arguments.devices}
        measure(arguments, 'devices', names, next(iter(names)))
    for width in arguments.widths:
        updates = max(10, arguments.updates * arguments.widths[0] ** 2 // width**2)
        each = {'width': width, 'seeds': 8, 'updates': updates, 'devices': 1}
        names = {f'8 seeds of {width} x {width} by {group}': {**each, 'group': group} for group in (1, 4, 8)}
        measure(arguments, 'groups', names, f'8 seeds of {width} x {width} by 1')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--seeds', type=int, nargs='+', default=[5, 7])
    parser.add_argument('--devices', type=int, nargs='+', default=[1, 2, 3, 4])
    parser.add_argument('--widths', type=int, nargs='+', default=[64, 96, 256])
    parser.add_argument('--updates', type=int, default=500, help='of each seed in a round, of the first width')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--dry', action='store_true', help='print, and write no results')
    parser.add_argument('--serve', help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    main(parsed) if parsed.serve is None else serve(json.loads(parsed.serve))
