"""Caution with every kind of critic: one explorer after another between the cliffs, plain and cautious, all else equal.

    python experiments/irreversibility_caution.py            # agents that have no result yet
    python experiments/irreversibility_caution.py --table

Every explorer seeks what it has not done (`wrap.bonus` with counts); the cautious one is besides told the truth of every row
(`wrap.labelled`) and given a floor (`wrap.cautious`). Half of each batch comes from the 4 demonstrations. Counted are the lives
that fell and the steps below, among all that were collected; success is that of the explorer itself, deployed.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from irreversibility_methods import GAMMA, PLACES, demonstrations, detectors

from ooorl import signals, wrap
from ooorl.agents.calql import CalQLConfig, CalQLCriticConfig, calql, calql_critic
from ooorl.agents.iql import IQLConfig, iql
from ooorl.agents.parl import PARLConfig, parl
from ooorl.agents.sac import SACConfig, sac
from ooorl.agents.td3 import TD3Config, td3
from ooorl.envs import batched
from ooorl.policies.gaussian import gaussian_policy
from ooorl.reporting import writers
from ooorl.reporting.intervals import score_difference, score_interval
from ooorl.training.phases import Setup, online
from ooorl.training.run import iterate
from ooorl.training.sampling import Sampling

OUT = Path(__file__).resolve().parent / 'results' / 'irreversibility_caution.json'
SEEDS, STEPS, UPDATES, EPISODES, FLOOR, SCALE = range(10), 3000, 1500, 20, -10.0, 3.0
SMALL = {'gamma': GAMMA, 'polyak': 0.02, 'learning_rate': 1e-3}
HIDDEN = (64, 64)


def _calql(spec):
    rates = {'policy_learning_rate': 1e-3, 'conservative_weight': 1.0, 'num_actions': 4}
    return calql(spec, CalQLConfig(**SMALL, **rates, hidden=HIDDEN, critic_hidden=HIDDEN, critic_layer_norm='before'))


def _parl(spec):
    critic = calql_critic(
        spec, CalQLCriticConfig(**SMALL, conservative_weight=1.0, num_actions=4, critic_hidden=HIDDEN, critic_layer_norm='before')
    )
    config = PARLConfig(learning_rate=1e-3, num_candidates=8, num_kept=4, num_steps=2)
    return parl(spec, config, critic=critic, policy=gaussian_policy(spec, HIDDEN))


AGENTS = {
    'sac': lambda spec: sac(spec, SACConfig(**SMALL, hidden=HIDDEN, critic_layer_norm='before', init_temperature=0.1)),
    'td3': lambda spec: td3(spec, TD3Config(**SMALL, hidden=HIDDEN)),
    'iql': lambda spec: iql(spec, IQLConfig(**SMALL, hidden=HIDDEN, expectile=0.9, inverse_temperature=10.0)),
    'calql': _calql,
    'parl': _parl,
}


def explorer(name: str, task, rows, careful: bool):
    """The agent with its bonus and, if careful, with caution and the truth."""
    agent = wrap.bonus(AGENTS[name](task.spec), signals.state_action_counts([-1.2] * 2, [1.2] * 2, (15, 15), (3, 3)), scale=SCALE)
    if not careful:
        return agent
    known = detectors(PLACES['cliffs'], rows)['classifier']
    return wrap.labelled(wrap.cautious(agent, known, floor=FLOOR), task.irreversible)


def measure(name: str, careful: bool, seeds=SEEDS) -> dict:
    """What an explorer visited, for every seed."""
    began, rows, place, event = time.monotonic(), demonstrations('cliffs'), PLACES['cliffs'], None
    task = place.task(horizon=place.episode)
    sampling = Sampling(batch_size=64, mix={'dataset': 0.5, 'online': 0.5}, gamma=GAMMA)
    agent, plain = explorer(name, task, rows, careful), {'boundary': rows.extras['boundary']}
    setup = Setup(
        phases=online(agent, num_env_steps=STEPS, num_updates=UPDATES, cycle_steps=2, sampling=sampling),
        seeds=seeds, dataset=rows._replace(extras=plain), environment=batched(task, 2), evaluation=batched(task, EPISODES),
        updates_per_round=UPDATES,
    )
    found = []
    for event in iterate(setup):
        found += [row for row in event.rows if row['kind'] == 'eval' and row['phase'] == 'online']
    store = event.state.stores['online'].storage
    lost, was_lost = (np.asarray(task.irreversible(seen)) for seen in (store.next_observation, store.observation))
    return {
        'seeds': list(seeds), 'success': [row['success'] for row in found][-len(seeds) :],
        'lost_lives': (lost & ~was_lost).sum(axis=1).tolist(), 'irreversible_steps': lost.sum(axis=1).tolist(),
        'wall_seconds': time.monotonic() - began,
    }


def table(results: dict) -> str:
    """Markdown: a line for every agent that has both results."""
    lines = ['| agent | lives lost, plain | cautious | fewer | success, plain | cautious |', '|---|---|---|---|---|---|']
    for name in AGENTS:
        pair = [results.get(f'{name}:{kind}') for kind in ('plain', 'cautious')]
        if None in pair:
            continue
        visits = [_interval('return', one['lost_lives']) for one in pair]
        share = 1 - np.mean(pair[1]['lost_lives']) / np.mean(pair[0]['lost_lives'])
        apart = score_difference('return', pair[0]['lost_lives'], pair[1]['lost_lives'])
        fewer = f'{share:.0%} ({apart.point:.1f} [{apart.low:.1f}, {apart.high:.1f}])'
        success = [_interval('success', one['success']) for one in pair]
        lines.append(f'| {" | ".join([name, *visits, fewer, *success])} |')
    return '\n'.join(lines)


def _interval(metric, values):
    found, digits = score_interval(metric, np.asarray(values, float)), 2 if metric == 'success' else 1
    return f'{found.point:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]'


def main(argv: list[str] | None = None) -> int:
    """Measures what is missing, one entry after another, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--table', action='store_true', help='only print the table of the results')
    parser.add_argument('--out', type=Path, default=OUT, metavar='FILE')
    arguments = parser.parse_args(argv)
    for name in () if arguments.table else AGENTS:
        for kind in ('plain', 'cautious'):
            results = json.loads(arguments.out.read_text(encoding='utf-8')) if arguments.out.exists() else {}
            if f'{name}:{kind}' not in results:
                found = measure(name, kind == 'cautious')
                writers.write_json(arguments.out, {**results, f'{name}:{kind}': found})
                print(f'  {name}:{kind}', flush=True)
    print(table(json.loads(arguments.out.read_text(encoding='utf-8'))))
    return 0


if __name__ == '__main__':
    sys.exit(main())
