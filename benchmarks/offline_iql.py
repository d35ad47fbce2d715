"""How many updates a second does IQL make on a data set, beside a public implementation in torch?

Two critics, V and a Gaussian of 256 x 256, batch 256, the same million rows in episodes of a thousand steps, of the sizes of
D4RL's halfcheetah; both draw their own batches from them. Ours is `make_learn`, as every run has it. The peer is the IQL of
d3rlpy as its `fit` does it, without its loggers: `sample_transition_batch`, `update`; "one batch" leaves out its sampling, which
is Python. Its `compile_graph` is for CUDA only. Both live in processes of their own, confined to the same cores, with as many
threads of torch, and take turns. It takes the losses of V and Q in one step, then the policy's; we V, policy, Q, as published.

Beside it: seconds from the start of the process to the end of the first update (imports, reading 160 MB, compiling without a
cache), and the most memory a process had, data included.

The peer wants an environment of its own: `python -m venv E; E/bin/pip install d3rlpy` (its torch brings CUDA, 5 GB; unused here).

    python benchmarks/offline_iql.py --peer E/bin/python         # about 4 minutes on four idle cores; without --peer one
    python benchmarks/offline_iql.py --rows 3000 --updates 20 --repeats 2 --hidden 16 --cores 1 --dry
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import timing

from ooorl.mapping import num_cores

BATCH, EPISODE = 256, 1000
OBSERVATION, ACTION = 17, 6
PEER = """
import os, sys, time
import numpy as np
import d3rlpy, torch
from importlib import metadata
file, hidden, updates, batch, threads = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(threads)
encoder = d3rlpy.models.encoders.VectorEncoderFactory([hidden, hidden])
sizes = {name + '_encoder_factory': encoder for name in ('actor', 'critic', 'value')}
iql = d3rlpy.algos.IQLConfig(batch_size=batch, **sizes).create(device='cpu')
rows = np.load(file)
data = d3rlpy.dataset.MDPDataset(**{name: rows[name] for name in rows.files})
iql.build_with_dataset(data)
def learn(drawn=None):
    iql.update(drawn or data.sample_transition_batch(batch))
learn()
print('|', metadata.version('d3rlpy'), torch.__version__, flush=True)
fixed = data.sample_transition_batch(batch)
for line in sys.stdin:
    if line.startswith('memory'):
        print('|', [line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0], flush=True)
        continue
    began = time.perf_counter()
    for _ in range(updates):
        learn(fixed if line.startswith('one') else None)
    print('|', updates / (time.perf_counter() - began), flush=True)
"""


def written(rows, path):
    """Noise in episodes that time out, some of which end before, as columns that both read."""
    rng = np.random.default_rng(0)
    terminals = (rng.random(rows) < 0.001).astype(np.float32)
    np.savez(
        path,
        observations=rng.standard_normal((rows, OBSERVATION), np.float32),
        actions=np.tanh(rng.standard_normal((rows, ACTION), np.float32)),
        rewards=rng.standard_normal(rows, np.float32),
        terminals=terminals,
        timeouts=((np.arange(1, rows + 1) % EPISODE == 0) & (terminals == 0)).astype(np.float32),
    )


def transitions(path):
    """The rows whose successor is known or not needed, as the peer uses them."""
    from ooorl.types import Transition

    with np.load(path) as rows:
        following = np.roll(rows['observations'], -1, axis=0)
        whole = Transition(
            observation=rows['observations'],
            action=rows['actions'],
            reward=rows['rewards'],
            discount=1.0 - rows['terminals'],
            next_observation=following,
            extras={'boundary': rows['terminals']},
        )
        kept = rows['timeouts'] == 0
        kept[-1] = False
    return Transition(*(column[kept] for column in whole[:-1]), extras={'boundary': whole.extras['boundary'][kept]})


def serve(arguments):
    """Ours, in a process of its own: what `PEER` is to the peer."""
    import jax

    from ooorl.agents.iql import IQLConfig, iql
    from ooorl.training import learn, replay
    from ooorl.training.sampling import Sampling
    from ooorl.types import Spec

    jax.config.update('jax_enable_compilation_cache', False)
    spec = Spec(observation_dim=OBSERVATION, action_dim=ACTION)
    agent = iql(spec, IQLConfig(hidden=(arguments.hidden, arguments.hidden)))
    sources = {'dataset': jax.device_put(replay.full(transitions(arguments.serve)))}
    state = jax.jit(agent.init)(jax.random.key(0))

    def program(num_updates):
        learns = learn.make_learn(agent, Sampling(batch_size=BATCH), num_updates=num_updates, streams={'dataset': 1})
        return jax.jit(learns, donate_argnums=0)

    state = jax.block_until_ready(program(1)(state, sources, jax.random.key(1))[0])
    print('|', flush=True)
    many = program(arguments.updates)
    for number, line in enumerate(sys.stdin):
        if line.startswith('memory'):
            print('|', most_memory(), flush=True)
            continue
        began = time.perf_counter()
        state = jax.block_until_ready(many(state, sources, jax.random.key(number + 2))[0])
        print('|', arguments.updates / (time.perf_counter() - began), flush=True)


def most_memory():
    """Of this process so far, in kB."""
    status = Path('/proc/self/status').read_text(encoding='utf-8')
    return next(line.split()[1] for line in status.splitlines() if line.startswith('VmHWM'))


def began(command, needs, cores):
    """A process, with the seconds to the end of its first update."""
    start = time.perf_counter()
    process = timing.Process(command, needs, set(sorted(os.sched_getaffinity(0))[:cores]))
    process.seconds_to_first_update = time.perf_counter() - start
    return process


def contenders(arguments, path, cores):
    """Ours and, where it is there, the peer, in the two ways of asking it."""
    own = [sys.executable, __file__, '--serve', path, '--hidden', arguments.hidden, '--updates', arguments.updates]
    ours = began([str(word) for word in own], 'ours did not start', cores)
    processes, calls = {'IQL': ours}, {'IQL': ours}
    if arguments.peer:
        sizes = map(str, (arguments.hidden, arguments.updates, BATCH, cores))
        peer = began([arguments.peer, '-c', PEER, str(path), *sizes], 'the peer needs d3rlpy', cores)
        processes |= {'d3rlpy, IQL': peer, 'd3rlpy, IQL, one batch': peer}
        calls |= {'d3rlpy, IQL': peer, 'd3rlpy, IQL, one batch': lambda: float(peer.ask('one batch')[0])}
    return processes, calls


def measure(arguments, path, cores):
    processes, calls = contenders(arguments, path, cores)
    rates = timing.take_turns(calls, arguments.repeats)
    for name, values in rates.items():
        ratios = [a / b for a, b in zip(rates['IQL'], values, strict=True)]
        settings = {
            'cores_used': cores, 'rows': arguments.rows, 'batch': BATCH, 'hidden': arguments.hidden, 'updates': arguments.updates,
            'ours_over_this': round(statistics.median(ratios), 3),
            'ours_over_this_range': [round(min(ratios), 3), round(max(ratios), 3)],
            'seconds_to_first_update': round(processes[name].seconds_to_first_update, 2),
            'most_memory_mb': round(int(processes[name].ask('memory')[0]) / 1024),
        }  # fmt: skip
        if processes[name].greeting:
            settings['peer_versions'] = dict(zip(('d3rlpy', 'torch'), processes[name].greeting, strict=True))
        if arguments.dry:
            print(name, timing.summary(values), settings, flush=True)
        else:
            timing.record(Path(__file__).stem, unit='updates/s', contender=name, values=values, **settings)
    for process in set(processes.values()):
        process.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--peer', help='a Python that has d3rlpy')
    parser.add_argument('--rows', type=int, default=1_000_000)
    parser.add_argument('--hidden', type=int, default=256)
    parser.add_argument('--updates', type=int, default=500, help='in one measurement')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--cores', type=int, nargs='+', default=sorted({1, num_cores()}), help='one run for each number')
    parser.add_argument('--dry', action='store_true', help='print, and write no results')
    parser.add_argument('--serve', help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'rows.npz'
        written(arguments.rows, path)
        for cores in arguments.cores:
            measure(arguments, path, cores)


if __name__ == '__main__':
    main()
