"""What the values of a trained IFQL say where its policy fails: does reward reach states of episodes that never met the goal?

    python experiments/ogbench_probe.py runs/ogbench_curves/scene-1-ifql-small     # a run directory of ogbench_curves.py

Prints, and writes to `results/ogbench_probe-<name>.json`, by seed: V in episodes of the data that meet the goal and in those that
do not, and at the task's own starts. Where values are learnt for states and not for rows, the two kinds of episodes, which see
much the same states, have much the same values.
"""

import sys
from pathlib import Path

import jax
import numpy as np

from ooorl import envs
from ooorl.nn.networks import mlp
from ooorl.reporting import writers
from ooorl.runner import place, run_directory
from ooorl.runner.prepare import prepare
from ooorl.training import checkpoint

NUM_STARTS = 40
HERE = Path(__file__).resolve().parent
LAYER_NORMS = {True: 'before', False: None}


def values_of(settings, state, seed):
    """`observation[..., O] -> V[...]` of one seed of a finished IQL."""
    agent = settings['agent']
    norm = LAYER_NORMS.get(agent['layer_norm'], agent['layer_norm'])
    network = mlp(tuple(agent['hidden']), 1, layer_norm=norm, activation=agent['activation'])
    params = jax.tree.map(lambda leaf: leaf[seed], state.critic.value)
    return lambda observation: np.asarray(network.apply(params, observation))[..., 0]


def starts_of(settings):
    """Observations with which episodes of the run's environment begin."""
    env = envs.single(settings['environment']['id'], **settings['environment']['settings'])
    return np.stack([env.reset(seed=seed)[0] for seed in range(NUM_STARTS)]).astype(np.float32)


def probed(directory: Path) -> dict:
    """The probe of a run directory as plain data."""
    settings = run_directory.read_config(directory, 'eval')
    settings['evaluation']['num_episodes'] = 0
    prepared = prepare(settings)
    settings, data = prepared.config, prepared.setup.dataset
    (agent, finished, *_), meta = checkpoint.restore(directory / 'checkpoint', place.template_of(prepared.setup))
    state = finished.get('offline', agent)
    last, goal = np.asarray(data.extras['boundary']) > 0, np.asarray(data.discount) == 0
    episode = np.cumsum(np.append(0, last[:-1]))
    meets = np.isin(episode, np.unique(episode[goal]))
    found = {'data': {'episodes': int(episode[-1]) + 1, 'with_goal': len(np.unique(episode[goal])), 'goal_rows': int(goal.sum())}}
    starts, rows = starts_of(settings), np.asarray(data.observation)
    for number, seed in enumerate(prepared.setup.seeds):
        value = values_of(settings, state, number)
        of_rows, of_starts = value(rows), value(starts)
        parts = {'episodes with goal': of_rows[meets], 'episodes without': of_rows[~meets], 'starts of the task': of_starts}
        found[f'seed {seed}'] = {name: [float(part.mean()), float(part.std())] for name, part in parts.items()}
    return {'run': directory.name, 'updates': settings['offline']['num_updates'], 'mean_and_deviation_of_V': found}


def main(argv: list[str]) -> int:
    """Probes each run directory."""
    for text in argv:
        found = probed(Path(text))
        writers.write_json(HERE / 'results' / f'ogbench_probe-{Path(text).name}.json', found)
        print(found)
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
