"""How many updates a second do expressive policies make, and how long does one action take?

Behaviour cloning of each policy at the sizes that its source uses, batch 256, observations and actions of the sizes of D4RL's
halfcheetah; then one compiled call of `sample_action` for 1 and for 256 observations, timed one by one. All take turns in one
process; the Gaussian appears twice, and the ratio of the two ("control") is what the machine resolves.

    python benchmarks/expressive_policies.py                                          # about 6 minutes on four cores
    python benchmarks/expressive_policies.py --updates 4 --calls 20 --repeats 1 --dry
"""

import argparse
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import timing

from ooorl.agents.bc import bc
from ooorl.policies import POLICIES
from ooorl.types import Spec, Transition

SPEC = Spec(observation_dim=17, action_dim=6)
BATCH = 256
CONTENDERS = {
    'gaussian': ('gaussian', {}),
    'gaussian, once more': ('gaussian', {}),
    'flow, 4 x 512, 10 steps (FQL)': ('flow', {}),
    'flow, 3 x 256, 10 steps': ('flow', {'hidden': (256, 256, 256)}),
    'diffusion, LN-ResNet 3 x 256, 5 steps of DDPM (IDQL)': ('diffusion', {}),
    'the same without its slow copy': ('diffusion', {'ema_rate': None}),
    'diffusion, 3 x 256, 5 steps of DDPM (Diffusion-QL)': (
        'diffusion',
        {
            'network': 'mlp', 'time_features': 'sinusoidal', 'num_time_features': 16, 'time_hidden': (32, 16), 'dropout': 0.0,
            'variance': 'posterior', 'clip': 'guess', 'ema_rate': 0.005,
        },
    ),
    'diffusion, EDM, 10 levels of Heun': (
        'diffusion', {'process': 'edm', 'sampler': 'heun', 'clip': 'guess', 'hidden': (256, 256, 256)},
    ),
    'autoregressive, 4 x 256, 128 bins (PA-RL)': ('autoregressive', {}),
}  # fmt: skip


class Contender:
    """A policy being cloned, compiled: `learn` gives updates a second, `latency` milliseconds of single calls."""

    def __init__(self, kind, settings, num_updates):
        entry = POLICIES[kind]
        self.agent = bc(SPEC, policy=entry.builder(SPEC, entry.config(**settings)))
        keys = jax.random.split(jax.random.key(0), 3)
        observation = jax.random.normal(keys[0], (BATCH, SPEC.observation_dim))
        action = jnp.tanh(jax.random.normal(keys[1], (BATCH, SPEC.action_dim)))
        zeros = jnp.zeros(BATCH)
        batch = Transition(observation, action, zeros, zeros, observation)
        self.num_updates, self.state = num_updates, self.agent.init(keys[2])

        def learn(state, key):
            def step(state, key):
                return self.agent.update(state, batch, key)[0], None

            return jax.lax.scan(step, state, jax.random.split(key, num_updates))[0]

        began = time.perf_counter()
        self.program = jax.jit(learn, donate_argnums=0).lower(self.state, keys[0]).compile()
        self.compile_seconds = time.perf_counter() - began
        self.act = jax.jit(self.agent.sample_action)

    def learn(self):
        began = time.perf_counter()
        self.state = jax.block_until_ready(self.program(self.state, jax.random.key(1)))
        return self.num_updates / (time.perf_counter() - began)

    def latency(self, rows, calls):
        """Milliseconds of `calls` single calls."""
        observation = jnp.ones((rows, SPEC.observation_dim))
        keys = list(jax.random.split(jax.random.key(2), calls + 3))
        spans = []
        for key in keys:
            began = time.perf_counter()
            jax.block_until_ready(self.act(self.state, observation, key))
            spans.append(1e3 * (time.perf_counter() - began))
        return spans[3:]


def measure(arguments):
    contenders = {name: Contender(*what, arguments.updates) for name, what in CONTENDERS.items()}
    rates = timing.take_turns({name: contender.learn for name, contender in contenders.items()}, arguments.repeats)
    control = statistics.median(
        a / b for a, b in zip(rates['gaussian, once more'], rates['gaussian'], strict=True)
    )
    for name, contender in contenders.items():
        size = sum(leaf.size for leaf in jax.tree.leaves(contender.state.policy))
        settings = {
            'batch': BATCH, 'parameters': size, 'compile_seconds': round(contender.compile_seconds, 2),
            'control': round(control, 3),
        }  # fmt: skip
        for rows in (1, 256):
            spans = contender.latency(rows, arguments.calls)
            settings |= {f'p{q}_ms_of_{rows}': round(float(np.percentile(spans, q)), 3) for q in (50, 99)}
        if arguments.dry:
            print(name, timing.summary(rates[name]), settings)
        else:
            timing.record(Path(__file__).stem, unit='updates/s', contender=name, values=rates[name], **settings)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--updates', type=int, default=50, help='updates in one measurement')
    parser.add_argument('--calls', type=int, default=300, help='single calls whose times give the percentiles')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--dry', action='store_true', help='print, and write no results')
    arguments = parser.parse_args()
    jax.config.update('jax_enable_compilation_cache', False)
    measure(arguments)


if __name__ == '__main__':
    main()
