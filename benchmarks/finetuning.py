"""What do batches that need to know all rows cost an online phase: rows from successes, and returns-to-go?

Runs the real rounds of an online phase of IQL on HalfCheetah (one environment, one update a step) beside a data set of a
million rows, by turns: batches drawn from all rows, batches with a quarter from successes, and batches with returns. The ratios
are the medians over the turns.

    python benchmarks/finetuning.py                    # about 3 minutes
    python benchmarks/finetuning.py --rows 2000 --cycles 5 --repeats 2 --hidden 16 --dry
"""

import argparse
import dataclasses
import statistics
import time
from pathlib import Path

import jax
import numpy as np
import timing

from ooorl import envs
from ooorl.agents.iql import IQLConfig, iql
from ooorl.training import phases, rounds
from ooorl.training.sampling import Sampling
from ooorl.types import Transition


def synthetic(num_rows, spec, horizon=1000):
    """Noise in episodes of `horizon` rows, every tenth of which ends with a reward of 1."""
    random = np.random.default_rng(0)
    rows = np.arange(num_rows)
    boundary = (rows % horizon == horizon - 1).astype(np.float32)
    observation = random.normal(size=(num_rows, spec.observation_dim)).astype(np.float32)
    return Transition(
        observation=observation,
        action=random.uniform(-1, 1, (num_rows, spec.action_dim)).astype(np.float32),
        reward=(boundary * (rows // horizon % 10 == 0)).astype(np.float32),
        discount=np.ones(num_rows, np.float32),
        next_observation=observation,
        extras={'boundary': boundary},
    )


class Phase:
    """Rounds of one kind of online phase; a call runs one and gives cycles a second."""

    def __init__(self, arguments, environment, dataset, agent, sampling):
        num_rounds, block = arguments.repeats + 1, environment.batch_shape[-1]
        steps = arguments.cycles * num_rounds * block
        self.phase = phases.Phase(
            name='online', agent=agent, num_updates=steps, store='online', num_env_steps=steps, sampling=sampling
        )
        setup = phases.Setup(
            phases=(self.phase,), seeds=(0,), environment=environment, dataset=dataset, updates_per_round=arguments.cycles
        )
        self.programs = rounds.Programs(setup)
        self.state = rounds.begin(self.programs, rounds.RunState(0, 0, None, {}, {}, {}), self.phase)
        self.sizes, self.cycles = phases.round_sizes(self.phase, setup), arguments.cycles

    def __call__(self):
        began = time.perf_counter()
        self.state, _, _ = rounds.one_round(self.programs, self.state, self.phase, self.sizes)
        jax.block_until_ready(self.state.agent)
        return self.cycles / (time.perf_counter() - began)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--environment', default='HalfCheetah-v4')
    parser.add_argument('--rows', type=int, default=1_000_000)
    parser.add_argument('--hidden', type=int, default=256)
    parser.add_argument('--cycles', type=int, default=100, help='cycles a round')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--dry', action='store_true', help='print, and write no results')
    arguments = parser.parse_args()
    jax.config.update('jax_enable_compilation_cache', False)
    environment = envs.make(arguments.environment, (1, 1))
    dataset = synthetic(arguments.rows, environment.spec)
    agent = iql(environment.spec, IQLConfig(hidden=(arguments.hidden,) * 2))
    plain, special = Sampling(batch_size=256), Sampling(batch_size=256, success_rows=64)
    kinds = {
        'all rows': (agent, plain),
        'a quarter from successes': (agent, special),
        'with returns-to-go': (dataclasses.replace(agent, reads=('return_to_go',)), plain),
    }
    contenders = {
        name: Phase(arguments, envs.make(arguments.environment, (1, 1)), dataset, *kind) for name, kind in kinds.items()
    }
    rates = timing.take_turns(contenders, arguments.repeats)
    for name, values in rates.items():
        ratios = [a / b for a, b in zip(values, rates['all rows'], strict=True)]
        settings = {'rows': arguments.rows, 'hidden': arguments.hidden, 'ratio_to_all_rows': round(statistics.median(ratios), 3)}
        if arguments.dry:
            print(name, timing.summary(values), settings)
        else:
            timing.record(Path(__file__).stem, unit='cycles/s', contender=name, values=values, **settings)


if __name__ == '__main__':
    main()
