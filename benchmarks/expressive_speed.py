"""How fast do agents with expressive policies learn and act, beside the public code of FQL on the same data in the same run?

Every contender learns from the same stored transitions, of the sizes of halfcheetah, batch 256, drawing its batches itself;
then one compiled call of its acting function for 1 and for 256 observations is timed, call by call. All take turns in a process;
FQL appears twice, and the ratio of the two ("control") is what the machine resolves. `ratio_to_peer` is the median over the turns
of our FQL's rate divided by the peer's, each turn's by itself.

The peer is a checkout of github.com/seohongpark/fql, whose `agents/fql.py` runs as it is, with its own loop (one call of
`update` for each batch, drawn by numpy) and the same sizes. Without `--peer` it is left out. It imports distrax and
ml_collections, of which FQL uses no more than a dictionary: where they cannot be imported, empty modules stand in.

    python benchmarks/expressive_speed.py --peer CHECKOUT       # about 10 minutes on one core
    python benchmarks/expressive_speed.py --repeats 1 --calls 20 --dry
"""

import argparse
import json
import statistics
import sys
import time
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import timing

from ooorl.agents.bc import BCConfig, bc
from ooorl.agents.calql import CalQLCriticConfig, calql_critic
from ooorl.agents.fql import FQLConfig, fql
from ooorl.agents.parl import PARLConfig, parl
from ooorl.policies.diffusion import DiffusionConfig, diffusion_policy
from ooorl.policies.flow import FlowConfig, flow_policy
from ooorl.training import replay
from ooorl.training.learn import make_learn
from ooorl.training.sampling import Sampling
from ooorl.types import Spec, Transition

SPEC = Spec(observation_dim=17, action_dim=6)
ROWS, BATCH = 100_000, 256
MOST_SECONDS = 15.0  # of timing single calls of one size
OURS, CONTROL, PEER = 'FQL, 4 x 512', 'FQL, once more', 'FQL, 4 x 512, public code'


def agents():
    """Every contender of ours: the agent, and updates in one measurement."""
    flow = flow_policy(SPEC, FlowConfig(hidden=(256, 256, 256)))
    critic = calql_critic(SPEC, CalQLCriticConfig(conservative_weight=1.0))
    slow_search = PARLConfig(num_candidates=8, num_kept=4, num_steps=5)
    return {
        'flow BC, 4 x 512': (bc(SPEC, BCConfig(), policy=flow_policy(SPEC)), 30),
        'diffusion BC, LN-ResNet 3 x 256 (IDQL)': (bc(SPEC, BCConfig(), policy=diffusion_policy(SPEC, DiffusionConfig())), 20),
        'PA-RL, Cal-QL 2 x 256 and flow 3 x 256, 8 candidates': (parl(SPEC, slow_search, critic=critic, policy=flow), 4),
        'PA-RL, the same with 32 candidates': (parl(SPEC, PARLConfig(), critic=critic, policy=flow), 2),
        OURS: (fql(SPEC, FQLConfig()), 10),
        CONTROL: (fql(SPEC, FQLConfig()), 10),
    }


def transitions():
    """Synthetic rows `[ROWS]`: none of the numbers matters for speed."""
    random = np.random.default_rng(0)

    def normal(*shape):
        return random.standard_normal(shape, dtype=np.float32)

    ends = np.zeros(ROWS, np.float32)
    ends[999::1000] = 1.0
    observation, action = normal(ROWS, SPEC.observation_dim), np.tanh(normal(ROWS, SPEC.action_dim))
    after = np.roll(observation, -1, axis=0)
    return Transition(observation, action, normal(ROWS), np.ones(ROWS, np.float32), after, {'boundary': ends})


class Ours:
    """An agent of ours learning as a run makes it learn: drawing and updating in one compiled scan."""

    def __init__(self, agent, num_updates, rows):
        self.agent, self.num_updates, self.state = agent, num_updates, agent.init(jax.random.key(0))
        self.sources = {'dataset': replay.full(jax.tree.map(jnp.asarray, rows))}
        learn = make_learn(agent, Sampling(batch_size=BATCH), num_updates=num_updates, streams={'dataset': 1})
        began = time.perf_counter()
        self.program = jax.jit(learn, donate_argnums=0).lower(self.state, self.sources, jax.random.key(1)).compile()
        self.compile_seconds = time.perf_counter() - began
        self._act = jax.jit(agent.sample_action)

    def learn(self):
        """Updates a second."""
        began = time.perf_counter()
        self.state, _ = jax.block_until_ready(self.program(self.state, self.sources, jax.random.key(1)))
        return self.num_updates / (time.perf_counter() - began)

    def act(self, observation, key):
        return self._act(self.state, observation, key)


class Peer:
    """The public code's agent, learning as its `main.py` makes it learn."""

    def __init__(self, checkout: Path, num_updates, rows):
        agents, datasets = _imported(checkout)
        fields = {
            'observations': rows.observation, 'actions': rows.action, 'rewards': rows.reward, 'masks': rows.discount,
            'next_observations': rows.next_observation, 'terminals': rows.extras['boundary'],
        }  # fmt: skip
        self.dataset, self.num_updates = datasets.Dataset.create(**fields), num_updates
        began = time.perf_counter()
        agent = agents.FQLAgent.create(0, rows.observation[:1], rows.action[:1], agents.get_config())
        self.agent, info = agent.update(self.dataset.sample(BATCH))
        jax.block_until_ready(info)
        self.compile_seconds = time.perf_counter() - began

    def learn(self):
        began = time.perf_counter()
        for _ in range(self.num_updates):
            self.agent, info = self.agent.update(self.dataset.sample(BATCH))
        jax.block_until_ready((self.agent, info))
        return self.num_updates / (time.perf_counter() - began)

    def act(self, observation, key):
        return self.agent.sample_actions(observation, seed=key)


def _imported(checkout):
    """`agents.fql` and `utils.datasets` of the checkout."""
    for name in ('distrax', 'ml_collections'):
        try:
            __import__(name)
        except Exception:  # noqa: BLE001 - it is missing, or does not go with this jax
            for partial in [part for part in sys.modules if part.partition('.')[0] == name]:
                del sys.modules[partial]
            sys.modules[name] = _stand_in(name)
    sys.path.insert(0, str(checkout))
    import agents.fql
    import utils.datasets

    return agents.fql, utils.datasets


def _stand_in(name):
    module = types.ModuleType(name)
    if name == 'ml_collections':
        module.ConfigDict = dict
        module.config_dict = types.SimpleNamespace(placeholder=lambda kind: None)
    else:
        module.__getattr__ = lambda attribute: object  # a class to derive from, never made
    return module


def latency(contender, rows, calls):
    """Median and 99th percentile of the milliseconds of at most `calls` single calls, and how many `MOST_SECONDS` allowed."""
    observation = jnp.ones((rows, SPEC.observation_dim))
    spans = []
    for key in list(jax.random.split(jax.random.key(2), calls + 3)):
        began = time.perf_counter()
        jax.block_until_ready(contender.act(observation, key))
        spans.append(1e3 * (time.perf_counter() - began))
        if sum(spans[3:]) > 1e3 * MOST_SECONDS:
            break
    half, most = (round(float(np.percentile(spans[3:], q)), 3) for q in (50, 99))
    return {f'p50_ms_of_{rows}': half, f'p99_ms_of_{rows}': most, f'calls_of_{rows}': len(spans) - 3}


def measure(arguments):
    """Times everybody, and writes or prints a line for each."""
    rows = transitions()
    contenders = {name: Ours(agent, num, rows) for name, (agent, num) in agents().items()}
    if arguments.peer:
        contenders[PEER] = Peer(arguments.peer, 10, rows)
    rates = timing.take_turns({name: contender.learn for name, contender in contenders.items()}, arguments.repeats)

    def ratio(name, other):
        return round(statistics.median(a / b for a, b in zip(rates[name], rates[other], strict=True)), 3)

    shared = {'batch': BATCH, 'control': ratio(CONTROL, OURS)}
    if arguments.peer:
        shared['ratio_to_peer'] = ratio(OURS, PEER)
    for name, contender in contenders.items():
        settings = {'compile_seconds': round(contender.compile_seconds, 2), **shared}
        for num in (1, 256):
            settings |= latency(contender, num, arguments.calls)
        if arguments.dry:
            print(name, timing.summary(rates[name]), settings, flush=True)
        else:
            timing.record(Path(__file__).stem, unit='updates/s', contender=name, values=rates[name], **settings)


def table() -> str:
    """The newest measurement of every contender as Markdown."""
    path = timing.RESULTS / f'{Path(__file__).stem}.jsonl'
    rows = {row['contender']: row for row in map(json.loads, path.read_text(encoding='utf-8').splitlines())}
    head = ('', 'updates/s, median (least to most)', 'one action, ms: median, 99 %', '256 actions, ms: median, 99 %')
    lines = ['| ' + ' | '.join(head) + ' |', '|---' * len(head) + '|']
    for name, row in rows.items():
        spans = [f'{row[f"p50_ms_of_{num}"]:.3g}, {row[f"p99_ms_of_{num}"]:.3g}' for num in (1, 256)]
        rate = f'{row["median"]:.3g} ({row["min"]:.3g} to {row["max"]:.3g})'
        lines.append(f'| {name} | {rate} | {spans[0]} | {spans[1]} |')
    last = list(rows.values())[-1]
    beside = f'our FQL makes {last["ratio_to_peer"]:.2f} of the updates of its public code; ' if 'ratio_to_peer' in last else ''
    return '\n'.join([*lines, '', f'By turns in one process, {beside}our FQL beside itself {last["control"]:.2f}.'])


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--peer', type=Path, metavar='CHECKOUT', help='of github.com/seohongpark/fql; without it, only ours')
    parser.add_argument('--calls', type=int, default=200, help='single calls whose times give the percentiles')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--table', action='store_true', help='only print the newest results as a table')
    parser.add_argument('--dry', action='store_true', help='print, and write no results')
    arguments = parser.parse_args()
    if arguments.table:
        print(table())
        return
    jax.config.update('jax_enable_compilation_cache', False)
    measure(arguments)


if __name__ == '__main__':
    main()
