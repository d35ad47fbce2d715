"""What does a critic step of RLPD consist of, its ten members in a tuple of trees, as for CPUs, or in one, as for accelerators?

Counted are the instructions of the loop over critic steps in the program that XLA makes of one update for the present device,
without those that only name or pass on what is there. On an accelerator each is about one kernel; on a CPU the count says how
much one optimiser step and one product for all members leave to do, and nothing about time, which is measured beside it.

    python benchmarks/critics.py                                                      # a minute on two cores
"""

import argparse
import re
import statistics
import time
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import timing

from ooorl.agents.sac import SACConfig, sac
from ooorl.types import Spec, Transition

SPEC = Spec(observation_dim=17, action_dim=6)
CONFIG = {'num_critics': 10, 'num_target_critics': 2, 'critic_layer_norm': 'before', 'utd': 20, 'policy_value': 'mean'}
FREE = ('parameter', 'get-tuple-element', 'tuple', 'bitcast', 'constant')


def loop_instructions(text):
    """Instructions of the largest loop body in the text of a compiled program."""
    bodies = set(re.findall(r'body=%?([\w.\-]+)', text))
    counts = {}
    for name, lines in re.findall(r'^%?([\w.\-]+) [^\n]*\{\n(.*?)^\}', text, flags=re.DOTALL | re.MULTILINE):
        kinds = re.findall(r'^\s+(?:ROOT )?%?[\w.\-]+ = .*? ([a-z][\w\-]*)\(', lines, flags=re.MULTILINE)
        counts[name] = sum(kind not in FREE for kind in kinds)
    return max((counts[name] for name in bodies if name in counts), default=0)


class Contender:
    """Updates of RLPD, compiled; what it is called with is made on the spot."""

    def __init__(self, stacked, rows, hidden):
        with mock.patch('ooorl.nn.networks.stacks_members', lambda: stacked):
            self.agent = sac(SPEC, SACConfig(**CONFIG, hidden=(hidden, hidden)))
        keys = jax.random.split(jax.random.key(0), 3)
        observation, num = jax.random.normal(keys[0], (20 * rows, SPEC.observation_dim)), 20 * rows
        action = jnp.tanh(jax.random.normal(keys[1], (num, SPEC.action_dim)))
        self.batch = Transition(observation, action, jnp.zeros(num), jnp.ones(num), observation)
        self.state, self.key = jax.jit(self.agent.init)(keys[2]), keys[2]
        self.program = jax.jit(self.agent.update, donate_argnums=0).lower(self.state, self.batch, self.key).compile()

    def __call__(self):
        began = time.perf_counter()
        self.state, _ = jax.block_until_ready(self.program(self.state, self.batch, self.key))
        return 1.0 / (time.perf_counter() - began)


def main(arguments):
    layouts = {'tuple of trees': False, 'one tree': True}
    contenders = {name: Contender(stacked, arguments.rows, arguments.hidden) for name, stacked in layouts.items()}
    measured = timing.take_turns(contenders, arguments.repeats)
    for name, values in measured.items():
        ratio = statistics.median(x / y for x, y in zip(values, measured['tuple of trees'], strict=True))
        counted = loop_instructions(contenders[name].program.as_text())
        settings = {'instructions_of_a_critic_step': counted, 'ratio_to_tuple': round(ratio, 3), 'rows': arguments.rows}
        timing.record(Path(__file__).stem, unit='updates/s', contender=name, values=values, **settings, **CONFIG)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--rows', type=int, default=256, help='of one critic step')
    parser.add_argument('--hidden', type=int, default=256, help='width of both hidden layers')
    parser.add_argument('--repeats', type=int, default=7)
    main(parser.parse_args())
