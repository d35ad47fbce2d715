"""How far what acts in a run of `ractd.py` is from the data's actions: mean squared error and own spread, by seed.

    python experiments/ractd_errors.py --work runs/ractd --tasks halfcheetah,hopper

Of 2,000 rows spread over the data: `error` is E[(a - data's action)^2], a mean over rows and numbers of an action, `first` and
`second` that of the two halves of the rows (in half-cheetah and hopper those of the medium and of the expert policy), `spread`
E[(a - a')^2] / 2 of two draws. error - spread is the data's own spread and the square of the bias. The results' JSON is
`ractd_errors.json`; what acts through many calls is left out.
"""

import argparse
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import ractd

from ooorl.reporting import writers
from ooorl.runner import run_directory

ROWS, CALLS = 2_000, 5


def errors_of(directory):
    """`{what acts: {error, first, second, spread}}`, each by seed."""
    task, _, part = directory.name.partition('-')
    settings = run_directory.read_config(directory, 'eval')
    settings['evaluation']['num_episodes'], settings['environment']['id'] = 0, ractd.TASKS[task][0]
    prepared = ractd.prepared_of(settings, part)
    finished, data = ractd.finished_of(prepared, directory), prepared.setup.dataset
    steps = prepared.setup.phases[0].agent.chunk  # few plans go over the end of an episode
    rows = np.linspace(0, len(data.reward) - steps, ROWS).astype(int)
    observation = jnp.asarray(data.observation[rows])
    action = np.asarray(data.action)[rows[:, None] + np.arange(steps)].reshape(ROWS, -1)
    acting = ractd.acting(prepared, part).items()
    return {
        name: _errors(agent, finished[phase], observation, action) for name, (agent, phase, calls) in acting if calls <= CALLS
    }


def _errors(agent, states, observation, action):
    act = jax.jit(jax.vmap(lambda state, key: agent.best_action(state, observation, key), in_axes=(0, None)))
    one, two = (np.asarray(act(states, jax.random.key(seed))) for seed in (1, 2))
    error, half = ((one - action) ** 2).mean(axis=2), len(action) // 2
    parts = {'error': error, 'first': error[:, :half], 'second': error[:, half:], 'spread': ((one - two) ** 2).mean(axis=2) / 2.0}
    return {name: [float(f'{value:.4g}') for value in values.mean(axis=1)] for name, values in parts.items()}


def main(argv=None):
    """Writes the errors of all run directories of some tasks, and prints their means over seeds."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--work', type=Path, default=Path('runs/ractd'), metavar='DIR')
    parser.add_argument('--tasks', default='halfcheetah,hopper')
    arguments = parser.parse_args(argv)
    found = {}
    for task in arguments.tasks.split(','):
        for directory in sorted(arguments.work.glob(f'{task}-*')):
            if (directory / 'summary.json').exists():
                found.setdefault(task, {}).update(errors_of(directory))
    writers.write_json(ractd.HERE / 'results' / 'ractd_errors.json', found)
    for task, rows in found.items():
        for name, values in rows.items():
            print(f'{task} | {name} | ' + ' | '.join(f'{np.mean(own):.4f}' for own in values.values()))
    return 0


if __name__ == '__main__':
    sys.exit(main())
