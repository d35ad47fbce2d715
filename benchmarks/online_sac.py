"""How many environment steps a second does online SAC make with one update a step, beside a public implementation?

Ours are the real rounds of an online phase (`host_round.prepared`): HalfCheetah, one environment, two critics and a policy of
256 x 256, batch 256. The peer is the SAC of sbx-rl with the same sizes, in a process of an environment of its own, where it and
its torch belong: `python -m venv E; E/bin/pip install sbx-rl "gymnasium[mujoco]"`. Both take turns; the first thousand steps of
each, without updates, and compilation are not timed. rejax, whose training loop stays on the device, breaks with jax 0.10.

    python benchmarks/online_sac.py --peer E/bin/python          # about 2 minutes on four idle cores; without --peer one
    python benchmarks/online_sac.py --steps 20 --repeats 1 --hidden 16 --warm 300 --dry
"""

import argparse
import statistics
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import timing
from host_round import prepared

from ooorl.training import phases, rounds

PEER = """
import sys, time
from importlib import metadata
import gymnasium
from sbx import SAC
steps, hidden, warm, name = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
model = SAC(
    'MlpPolicy', gymnasium.make(name), learning_starts=warm, batch_size=256, train_freq=1, gradient_steps=1,
    policy_kwargs={'net_arch': [hidden, hidden]}, buffer_size=1_000_000, seed=0, device='cpu',
)
model.learn(warm + steps)
print('|', metadata.version('sbx-rl'), metadata.version('jax'), flush=True)
for line in sys.stdin:
    began = time.perf_counter()
    model.learn(steps, reset_num_timesteps=False)
    print('|', steps / (time.perf_counter() - began), flush=True)
"""


class Ours:
    """A call runs a round and gives its steps a second."""

    def __init__(self, arguments):
        settings = SimpleNamespace(**vars(arguments), num_envs=1, workers=0, critics=2, cycles=arguments.steps)
        self.programs, self.phase, self.state, self.cycles = prepared(settings, 1)
        self.sizes = phases.round_sizes(self.phase, self.programs.setup)

    def __call__(self):
        began = time.perf_counter()
        self.state, _, _ = rounds.one_round(self.programs, self.state, self.phase, self.sizes)
        jax.block_until_ready(self.state.agent)
        return self.cycles / (time.perf_counter() - began)


def peer(arguments):
    """The same of the peer's process."""
    sizes = map(str, (arguments.steps, arguments.hidden, arguments.warm, arguments.environment))
    return timing.Process([arguments.peer, '-c', PEER, *sizes], 'the peer needs sbx-rl and gymnasium[mujoco]')


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--peer', help='a Python that has sbx-rl')
    parser.add_argument('--environment', default='HalfCheetah-v4')
    parser.add_argument('--hidden', type=int, default=256)
    parser.add_argument('--warm', type=int, default=1000, help='steps without updates before')
    parser.add_argument('--steps', type=int, default=1000, help='in one measurement')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--dry', action='store_true', help='print, and write no results')
    arguments = parser.parse_args()
    jax.config.update('jax_enable_compilation_cache', False)
    peers = {'sbx-rl, SAC': peer(arguments)} if arguments.peer else {}
    rates = timing.take_turns({'online SAC': Ours(arguments), **peers}, arguments.repeats)
    for name, values in rates.items():
        ratios = [a / b for a, b in zip(rates['online SAC'], values, strict=True)]
        settings = {'utd': 1, 'environment': arguments.environment, 'hidden': arguments.hidden, 'batch': 256}
        settings |= {'ours_over_this': round(statistics.median(ratios), 3)}
        settings |= {'peer_versions': dict(zip(('sbx-rl', 'jax'), peers[name].greeting, strict=True))} if name in peers else {}
        if arguments.dry:
            print(name, timing.summary(values), settings)
        else:
            timing.record(Path(__file__).stem, unit='steps/s', contender=name, values=values, **settings)


if __name__ == '__main__':
    main()
