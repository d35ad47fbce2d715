"""What the published size costs beside the scaled-down one: updates a second, time of a decision, memory, parameters.

    python experiments/ogbench_scaling.py scene=scene-play.npz scene:1:ifql:small scene:1:ifql:full     # data, cells

Cells are those of `ogbench_curves.py`, with the data that they learn from; each is measured in a process of its own, on the cores
that this one may use. Writes `results/ogbench_scaling.json` and prints it as a table.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import ogbench_curves

from ooorl.mapping import num_cores
from ooorl.runner.prepare import prepare
from ooorl.training import replay
from ooorl.training.learn import make_learn

RESULT = Path(__file__).resolve().parent / 'results' / 'ogbench_scaling.json'
SECONDS, CALLS = 15.0, 200  # of learning and, at most, of calls
HEAD = ('cell', 'parameters', 'updates/s', 'one decision, ms: median, 99 %', '256 decisions, ms: median, 99 %', 'memory, MB')


def measured(text: str, dataset: str) -> dict:
    """One cell: how fast it learns and acts, and the largest resident size of this process."""
    settings = ogbench_curves.settings_of(ogbench_curves.parse_cell(text), dataset, '0:1', 100, ['evaluation.num_episodes=0'])
    setup = prepare(settings).setup
    agent, sources = setup.phases[0].agent, {'dataset': replay.full(jax.tree.map(jnp.asarray, setup.dataset))}
    state = agent.init(jax.random.key(0))
    found = {'parameters': _numbers(state), 'updates_per_second': _rate(agent, setup, state, sources)}
    for rows in (1, 256):
        found[f'milliseconds_of_{rows}'] = _latency(agent, state, setup.dataset.observation[:rows])
    return found | {'resident_megabytes': round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)}


def _numbers(state):
    """Of the parameters, without optimisers and slow copies."""
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    names = [(jax.tree_util.keystr(path), leaf.size) for path, leaf in leaves]
    return sum(size for name, size in names if '_opt' not in name and 'target' not in name)


def _rate(agent, setup, state, sources):
    num = 20
    learn = make_learn(agent, setup.phases[0].sampling, num_updates=num, streams={'dataset': 1})
    program = jax.jit(learn).lower(state, sources, jax.random.key(0)).compile()
    done, began = 0, None
    while began is None or time.perf_counter() - began < SECONDS:
        state, _ = jax.block_until_ready(program(state, sources, jax.random.key(done)))
        done, began = (0, time.perf_counter()) if began is None else (done + num, began)  # the first time is not counted
    return round(done / (time.perf_counter() - began), 2)


def _latency(agent, state, observation):
    act, spans = jax.jit(agent.best_action), []
    observation = jnp.asarray(observation)
    for number in range(CALLS + 3):
        began = time.perf_counter()
        jax.block_until_ready(act(state, observation, jax.random.key(number)))
        spans.append(1e3 * (time.perf_counter() - began))
        if sum(spans[3:]) > 1e3 * SECONDS:
            break
    return [round(float(np.percentile(spans[3:], q)), 2) for q in (50, 99)]


def table(found: dict) -> str:
    """The measurements as Markdown."""
    rows = [
        [
            cell, f'{own["parameters"]:,}', _figures(own['updates_per_second']),
            *(', '.join(_figures(value) for value in own[f'milliseconds_of_{num}']) for num in (1, 256)),
            f'{own["resident_megabytes"]:,}',
        ]
        for cell, own in found['cells'].items()
    ]  # fmt: skip
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in [HEAD, ['---'] * len(HEAD), *rows])


def _figures(value):
    """Three of them, without an exponent."""
    return f'{value:.3g}' if value < 999 else f'{float(f"{value:.3g}"):,.0f}'


def main(arguments: list[str]) -> None:
    """Measures each cell in a process of its own."""
    if arguments[0] == '--alone':
        print(f'\n{json.dumps(measured(*arguments[1:]))}')
        return
    dataset, *cells = arguments
    files = dict([dataset.split('=', 1)])
    found = {'cores': num_cores(), 'cells': {}}
    for cell in cells:
        command = [sys.executable, __file__, '--alone', cell, files[cell.split(':')[0]]]
        answer = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
        found['cells'][cell] = json.loads(answer.strip().splitlines()[-1])
    RESULT.write_text(json.dumps(found, indent=2) + '\n', encoding='utf-8')
    print(table(found))


if __name__ == '__main__':
    main(sys.argv[1:])
