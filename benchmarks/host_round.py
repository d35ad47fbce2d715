"""How much of an online phase on a host environment does the learner wait, and for what?

Runs the real rounds of a SAC phase on HalfCheetah (two 256 x 256 critics, batch 256, one seed, one environment) and times
its parts: acting, stepping, the other work of collection, and learning. "waits" is the share of the wall time in which no
learning program runs. The parts are timed with a barrier behind each program; the cycles per second are those of the
undisturbed round, measured in turn with the timed one.

    python benchmarks/host_round.py                    # about 3 minutes
    python benchmarks/host_round.py --cycles 5 --repeats 2 --hidden 16 --dry
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import jax
import timing

from ooorl import envs
from ooorl.agents.sac import SACConfig, sac
from ooorl.training import phases, rounds
from ooorl.training.sampling import Sampling


class Stopwatch:
    """Seconds by name."""

    def __init__(self):
        self.seconds = {}

    def around(self, name, function, wait):
        """`function` with its time added to `name`; `wait` for its result too."""

        def timed(*args, **kwargs):
            began = time.perf_counter()
            result = function(*args, **kwargs)
            if wait:
                jax.block_until_ready(result)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
            return result

        return timed


def prepared(arguments, utd):
    """A run in the middle of its online phase: `(programs, phase, state, cycles per round)`."""
    environment = envs.make(arguments.environment, (1, arguments.num_envs), workers=arguments.workers)
    agent = sac(environment.spec, SACConfig(hidden=(arguments.hidden,) * 2, utd=utd, num_critics=arguments.critics))
    block = arguments.num_envs
    warm = -(-arguments.warm // block) * block
    num_rounds = 2 * (arguments.repeats + 1)  # plain and timed, and one of each before
    cycles = max(1, arguments.cycles // utd)
    fill = phases.Phase(name='fill', agent=agent, num_updates=0, num_env_steps=warm, cycle_steps=warm // block, store='online')
    learn = phases.Phase(
        name='online', agent=agent, num_updates=cycles * num_rounds, store='online',
        num_env_steps=cycles * block * num_rounds, sampling=Sampling(batch_size=256 * utd),
    )  # fmt: skip
    setup = phases.Setup(phases=(fill, learn), seeds=(0,), environment=environment, updates_per_round=cycles)
    programs = rounds.Programs(setup)
    state = rounds.begin(programs, rounds.RunState(0, 0, None, {}, {}, {}), fill)
    state, _, _ = rounds.one_round(programs, state, fill, phases.round_sizes(fill, setup))
    state = state._replace(phase=1, round=0, agent=None, finished={'fill': state.agent})
    state = rounds.begin(programs, state, learn)
    return programs, learn, state, cycles


def measure(arguments, utd):
    """Times rounds by turns, plain and with the stopwatch, and records the parts."""
    programs, phase, state, cycles = prepared(arguments, utd)
    sizes = phases.round_sizes(phase, programs.setup)
    plain_step, plain_call, plain_collect = programs.setup.environment.step, programs.call, rounds.collection.collect_keyed
    held = {'state': state}

    def one_round():
        began = time.perf_counter()
        held['state'], _, _ = rounds.one_round(programs, held['state'], phase, sizes)
        jax.block_until_ready(held['state'].agent)
        return time.perf_counter() - began

    def timed_round():
        watch = Stopwatch()

        def call(key, *args, **kwargs):
            return watch.around(key[0], plain_call, wait=True)(key, *args, **kwargs)

        environment = replace(programs.setup.environment, step=watch.around('step', plain_step, wait=False))
        setup = programs.setup
        programs.setup, programs.call = replace(setup, environment=environment), call
        rounds.collection.collect_keyed = watch.around('collect', plain_collect, wait=True)
        try:
            total = one_round()
        finally:
            programs.setup, programs.call, rounds.collection.collect_keyed = setup, plain_call, plain_collect
        parts = dict(watch.seconds)
        learning, collecting = parts.pop('after'), parts.pop('collect')
        split[:] = [*split, {
            **{name: 1e3 * seconds / cycles for name, seconds in parts.items()},
            'rest of collection': 1e3 * (collecting - sum(parts.values())) / cycles,
            'rest of the cycle': 1e3 * (total - collecting - learning) / cycles,
            'learn': 1e3 * learning / cycles,
            'waits': 1.0 - learning / total,
        }]  # fmt: skip
        return total

    split = []
    seconds = timing.take_turns({'plain': one_round, 'timed': timed_round}, arguments.repeats)
    split = split[1:]
    settings = {
        'utd': utd, 'environment': arguments.environment, 'hidden': arguments.hidden, 'critics': arguments.critics,
        'num_envs': arguments.num_envs, 'workers': arguments.workers, 'compile_seconds': round(programs.compile_seconds, 2),
    }  # fmt: skip
    rows = [('cycles a second', 'cycles/s', [cycles / value for value in seconds['plain']])]
    rows += [(name, 'share' if name == 'waits' else 'ms/cycle', [part[name] for part in split]) for name in split[0]]
    for contender, unit, values in rows:
        if arguments.dry:
            print(contender, timing.summary(values), unit)
        else:
            timing.record(Path(__file__).stem, unit=unit, contender=contender, values=values, **settings)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--environment', default='HalfCheetah-v4')
    parser.add_argument('--utd', type=int, nargs='+', default=[1, 20], help='critic steps a cycle')
    parser.add_argument('--critics', type=int, default=2)
    parser.add_argument('--hidden', type=int, default=256)
    parser.add_argument('--num-envs', type=int, default=1)
    parser.add_argument('--workers', type=int, default=0)
    parser.add_argument('--warm', type=int, default=1000, help='rows collected before')
    parser.add_argument('--cycles', type=int, default=200, help='cycles a round, divided by the critic steps of each')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--dry', action='store_true', help='print, and write no results')
    arguments = parser.parse_args()
    jax.config.update('jax_enable_compilation_cache', False)
    for utd in arguments.utd:
        measure(arguments, utd)


if __name__ == '__main__':
    main()
