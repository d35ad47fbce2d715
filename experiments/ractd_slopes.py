"""Do the values that policies climb know which action beside a cloned one is better? Asked of runs of `ractd.py`, and of MuJoCo.

    python experiments/ractd_slopes.py --work runs/ractd --tasks halfcheetah,hopper

In 100 states of the data the cloned action (the mode of `gaussian`, first seed) is changed by .3 in 6 random directions, and in
the one in which a critic's value rises most. What a change is worth is simulated: that action, then the cloned ones, returns of
15 and of 60 steps, less those of the cloned action itself. `correlation` is between what a critic says of the 600 random changes
and what they were worth, `size_said` and `size` are the deviations of these, `says` and `worth` means over states of the change
up the critic's slope, `better` the share of states where that was of use; `value` and `return` are means over the data of what
the critic says of its actions (a model of returns in shares of its range) and of what followed them. One number a seed of the
critic. The results' JSON is `ractd_slopes.json`.
"""

import argparse
import json
import sys
from pathlib import Path

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import ractd

from ooorl.reporting import writers
from ooorl.runner import run_directory

STATES, CHANGES, LENGTH, GAMMA, HORIZONS = 100, 6, 0.3, 0.99, (15, 60)
PARTS = {'fql': 'offline', 'ofql': 'offline', 'ofql_ends': 'offline', 'students': 'returns'}  # the phase that has values


def loaded(directory):
    """`(prepared, final states by phase)` of a run of `ractd.py`."""
    task, _, part = directory.name.partition('-')
    settings = run_directory.read_config(directory, 'eval')
    settings['evaluation']['num_episodes'], settings['environment']['id'] = 0, ractd.TASKS[task][0]
    prepared = ractd.prepared_of(settings, part)
    return prepared, ractd.finished_of(prepared, directory)


def cloned(directory):
    """`(observations [N, O], mode)`: states spread over the data, and the action of the cloned policy in any."""
    prepared, finished = loaded(directory)
    agent, state = prepared.setup.phases[0].agent, jax.tree.map(lambda leaf: leaf[0], finished['offline'])
    mode = jax.jit(lambda observation: agent.best_action(state, observation, jax.random.key(0)))
    data = prepared.setup.dataset
    rows = np.linspace(0, len(data.reward) - 500, STATES).astype(int)
    return np.asarray(data.observation)[rows], lambda observation: np.asarray(mode(jnp.asarray(observation, jnp.float32)))


def simulated(env, observation, action, mode):
    """Discounted returns `[len(HORIZONS), N]` of an action, then the cloned ones; an observation has all but x."""
    places = [(np.append(0.0, row[: env.model.nq - 1]), row[env.model.nq - 1 :]) for row in np.asarray(observation, float)]
    now, total, alive, found = np.array(observation), np.zeros(len(places)), np.ones(len(places), bool), []
    for step in range(max(HORIZONS)):
        for index in np.flatnonzero(alive):
            env.set_state(*places[index])
            now[index], reward, terminated, *_ = env.step(action[index])
            total[index] += GAMMA**step * reward
            places[index], alive[index] = (env.data.qpos.copy(), env.data.qvel.copy()), not terminated
        action = mode(now)
        if step + 1 in HORIZONS:
            found.append(total.copy())
    return np.stack(found)


def changed(action, direction):
    """The action moved by LENGTH in a direction, inside its box."""
    unit = direction / np.maximum(np.linalg.norm(direction, axis=-1, keepdims=True), 1e-9)
    return np.clip(action + LENGTH * unit, -1.0, 1.0).astype(np.float32)


def slopes_of(agent, states, observation, action, others, worth, judge):
    """What each seed's critic says of the changes, and what they are worth."""
    rows = {}

    @jax.jit
    def valued(state, action):
        value = lambda a: agent.q(state, jnp.asarray(observation), a).mean(axis=0)  # noqa: E731
        return value(action), jax.grad(lambda a: value(a).sum())(action)

    for seed in range(jax.tree.leaves(states)[0].shape[0]):
        own = jax.tree.map(lambda leaf, seed=seed: leaf[seed], states)
        base, slope = map(np.asarray, valued(own, action))
        says = np.stack([valued(own, other)[0] for other in others]) - base
        up = changed(action, slope)
        found = {'says': (valued(own, up)[0] - base).mean(), 'size_said': says.std()}
        for horizon, so, gained in zip(HORIZONS, worth, judge(up), strict=True):
            found[f'correlation_{horizon}'] = np.corrcoef(says.ravel(), so.ravel())[0, 1]
            found |= {f'worth_{horizon}': gained.mean(), f'better_{horizon}': (gained > 0).mean(), f'size_{horizon}': so.std()}
        for name, value in found.items():
            rows.setdefault(name, []).append(float(f'{value:.4g}'))
    return rows


def values_of(directory):
    """Mean value and return of the data's rows by seed, as the last diagnostics of the run tell them."""
    rows = [row for row in map(json.loads, (directory / 'metrics.jsonl').read_text().splitlines()) if 'q/dataset' in row]
    last = [row for row in rows if row['updates'] == rows[-1]['updates']]
    followed = [row['q/dataset'] - row['q_minus_return/dataset'] for row in last]
    found = {'value': [row['q/dataset'] for row in last], 'return': followed}
    return {name: [float(f'{one:.4g}') for one in values] for name, values in found.items() if values}


def task_slopes(work, task):
    """`{part: slopes}` of the finished runs of a task."""
    observation, mode = cloned(work / f'{task}-gaussian')
    env, action = gymnasium.make(ractd.TASKS[task][0]).unwrapped, mode(observation)
    base = simulated(env, observation, action, mode)
    directions = np.random.default_rng(0).normal(size=(CHANGES, *action.shape))
    others = [changed(action, direction) for direction in directions]
    worth = np.stack([simulated(env, observation, other, mode) - base for other in others], axis=1)
    found = {}
    for part, phase in PARTS.items():
        if (work / f'{task}-{part}' / 'summary.json').exists():
            prepared, finished = loaded(work / f'{task}-{part}')
            agent = next(one.agent for one in prepared.setup.phases if one.name == phase)
            judge = lambda up: simulated(env, observation, up, mode) - base  # noqa: E731
            found[part] = slopes_of(agent, finished[phase], observation, action, others, worth, judge)
            found[part] |= values_of(work / f'{task}-{part}')
    return found


def main(argv=None):
    """Writes the slopes of all critics of some tasks, and prints their means over seeds."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--work', type=Path, default=Path('runs/ractd'), metavar='DIR')
    parser.add_argument('--tasks', default='halfcheetah,hopper')
    arguments = parser.parse_args(argv)
    found = {task: task_slopes(arguments.work, task) for task in arguments.tasks.split(',')}
    writers.write_json(ractd.HERE / 'results' / 'ractd_slopes.json', found)
    for task, parts in found.items():
        for part, rows in parts.items():
            print(f'{task} | {part} | ' + ' | '.join(f'{name} {np.mean(values):.2f}' for name, values in rows.items()))
    return 0


if __name__ == '__main__':
    sys.exit(main())
