"""Measures whether a policy of which only its answers are known acts better when a critic learnt offline ranks them.

    python experiments/black_box.py --policy halfcheetah=MEDIUM.npz --dataset halfcheetah=FILE    # what has no result yet
    python experiments/black_box.py --table

The claim is that of V-GPS (arXiv:2410.13816), and of PA-RL without fine-tuning (arXiv:2412.06685). The policy is a Python
callable that is handed observations and answers with actions; its weights, density and gradients are not used. The critic has
never seen the environment, only data that this policy made. `configs/black_box/<task>.toml` says critic and
search.

A callable that answers the same every time leaves nothing to rank: with `--noise` the candidates are its answer and its answer
with Gaussian noise, without they are its own draws; what one draw does by itself is an arm of its own. Seeds 0 to 5 are for the
numbers that are shown; anything to be tuned belongs to seeds from 1000 on. Every seed has a critic of its own; all arms of a
seed play the same episodes.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ooorl import wrap
from ooorl.agents import CRITICS
from ooorl.agents.parl import PARLConfig, parl
from ooorl.data.policies_npz import load_policy
from ooorl.policies.opaque import opaque_policy
from ooorl.reporting import intervals, tables, writers
from ooorl.runner import config
from ooorl.runner.prepare import Prepared, prepare
from ooorl.runner.summary import versions
from ooorl.training.evaluate import with_normalised
from ooorl.training.run import run, score
from ooorl.types import Agent

HERE = Path(__file__).resolve().parent
CONFIGS = HERE.parent / 'configs' / 'black_box'
PREFIX = 'black_box-'
CLIMB = {'num_steps': 10, 'step_size': 3e-3}  # PA-RL's search: ten times its step, for values a tenth of its


def answers(npz: Path, noise: float) -> Callable[[np.ndarray, int, int], np.ndarray]:
    """The policy of a file as the callable that `opaque_policy` takes: its draws, or its one answer beside answers with noise."""
    loaded = load_policy(npz)

    def draws(observation, num, seed):
        random = np.random.default_rng(seed)
        return np.stack([loaded.sample(observation, random) for _ in range(num)])

    def noisy(observation, num, seed):
        added = noise * np.random.default_rng(seed).standard_normal((num, len(observation), loaded.action_size))
        added[0] *= num == 1
        return np.clip(loaded.mode(observation) + added, -1.0, 1.0)

    return noisy if noise else draws


def one_answer(npz: Path) -> Callable[[np.ndarray, int, int], np.ndarray]:
    """The policy of a file as a callable that always answers the same: with its likeliest actions."""
    loaded = load_policy(npz)
    return lambda observation, num, seed: np.broadcast_to(loaded.mode(observation), (num, len(observation), loaded.action_size))


ALONE = {'num_candidates': 1, 'num_kept': 1}
# What acts: whether the callable may draw, and what is changed in the config's search.
ARMS = {
    'alone, likeliest': (False, ALONE),
    'alone, one draw': (True, ALONE),
    're-ranked': (True, {}),
    're-ranked, softmax': (True, {'acting': 'softmax'}),
    're-ranked and climbed': (True, CLIMB),
}
BASES, RERANKED = ('alone, likeliest', 'alone, one draw'), 're-ranked'


def agent_of(prepared: Prepared, npz: Path, arm: str, noise: float) -> Agent:
    """The agent of an arm: they share a critic, and so the form of their state, and differ in how they act."""
    draws, changes = ARMS[arm]
    table = {**prepared.config['agent'], **changes}
    spec, kind = prepared.setup.evaluation.spec, CRITICS[table['critic']['kind']]
    own = config.parse(PARLConfig, {key: table[key] for key in config.fields(PARLConfig) if key in table}, '[agent]')
    known = {key: value for key, value in table['critic'].items() if key in config.fields(kind.config)}
    critic = kind.builder(spec, config.parse(kind.config, known, '[critic]'))
    policy = opaque_policy(spec, answers(npz, noise) if draws else one_answer(npz))
    return wrap.rescaled_reward(parl(spec, own, critic=critic, policy=policy), **table.get('reward', {}))


def run_cell(task: str, npz: Path, noise: float, overrides: list[str]) -> dict:
    """Learns the critics of a task and scores every arm under them."""
    began = time.monotonic()
    prepared = prepare(config.read(CONFIGS / f'{task}.toml', overrides))
    phase = replace(prepared.setup.phases[0], agent=agent_of(prepared, npz, RERANKED, noise))
    # Nothing is evaluated on the way: what acts is decided afterwards.
    learnt = run(replace(prepared.setup, phases=(phase,), evaluation=None), report=_told)
    learning = time.monotonic() - began
    arms = {arm: _scored(prepared, agent_of(prepared, npz, arm, noise), learnt.finished[phase.name], arm) for arm in ARMS}
    return {
        'task': task,
        'policy': npz.name,
        'noise': noise,
        'seeds': list(prepared.setup.seeds),
        'num_episodes': prepared.config['evaluation']['num_episodes'],
        'arms': arms,
        'dataset': {'name': Path(prepared.dataset.name).name, 'sha256': prepared.dataset.sha256, 'notes': prepared.dataset.notes},
        'wall_seconds': round(time.monotonic() - began, 1),
        'seconds_of_learning': round(learning, 1),
        'versions': versions(),
        'config': _portable(prepared.config),
    }


def _told(event):
    values = [row for row in event.rows if row['kind'] == 'train'][:1]
    print(event.updates, {name: round(value, 3) for name, value in values[0].items() if isinstance(value, float)}, flush=True)


def _scored(prepared, agent, state, arm):
    found = score(prepared.setup, agent, state)
    means = {name: np.asarray([np.mean(own) for own in columns]) for name, columns in found.items()}
    means = with_normalised(means, prepared.setup.score_range)
    kept = {name: [float(f'{value:.6g}') for value in means[name]] for name in ('return', 'length', 'normalised')}
    print(arm, kept, flush=True)
    return kept


def _portable(settings: Mapping) -> dict:
    """The config without the folder in which somebody keeps a data set."""
    return {**settings, 'dataset': {**settings['dataset'], 'path': Path(settings['dataset']['path']).name}}


def table(results: Mapping[str, dict]) -> str:
    """The results as Markdown: D4RL's score of every arm and what re-ranking adds to the callable, paired by seed."""
    columns = ('task, callable', *ARMS, *(f're-ranked, minus {base}' for base in BASES))
    lines = ['| ' + ' | '.join(columns) + ' |', '|---' * len(columns) + '|']
    for result in results.values():
        scores = {arm: np.asarray(result['arms'][arm]['normalised']) for arm in ARMS}
        entries = [tables.cell('normalised', own.tolist()) for own in scores.values()]
        entries += [verdict(scores[RERANKED], scores[base]) for base in BASES]
        lines.append(f'| {result["task"]}, {result["policy"].removesuffix(".npz")} | ' + ' | '.join(entries) + ' |')
    return '\n'.join(lines)


def verdict(own: np.ndarray, alone: np.ndarray) -> str:
    """'held: +3.1 [+1.0, +5.2]', the mean paired difference with its interval."""
    found = intervals.paired_difference(own, alone)
    word = 'held' if found.low > 0 else 'reversed' if found.high < 0 else 'not separated'
    return f'{word}: {found.point:+.1f} [{found.low:+.1f}, {found.high:+.1f}]'


def read_results(out: Path) -> dict[str, dict]:
    """All results in a directory, by task."""
    found = (writers.read_json(path) for path in sorted(out.glob(f'{PREFIX}*.json')))
    return {result['task']: result for result in found}


def _arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--policy', action='append', default=[], metavar='TASK=NPZ', help='tasks to run, with the callable')
    parser.add_argument('--dataset', action='append', default=[], metavar='TASK=PATH', help='where the data of a task lie')
    parser.add_argument('--noise', type=float, default=0.0, help='deviation of noise on its likeliest answer; 0: its own draws')
    parser.add_argument('--seeds', default='', metavar='A:B', help="default: the configs', 0:6")
    parser.add_argument('--out', type=Path, default=HERE / 'results', metavar='DIR')
    parser.add_argument('--set', action='append', default=[], metavar='SECTION.KEY=VALUE', help='change the configs')
    parser.add_argument('--table', action='store_true', help='only print the table of the results in --out')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Runs the tasks that have no result yet, then prints the table."""
    arguments = _arguments(argv)
    paths = dict(text.split('=', 1) for text in arguments.dataset)
    overrides = [*arguments.set, *([f"run.seeds='{arguments.seeds}'"] if arguments.seeds else [])]
    for task, npz in () if arguments.table else (text.split('=', 1) for text in arguments.policy):
        out = arguments.out / f'{PREFIX}{task}.json'
        if not out.exists():
            print(f'--- {task}', flush=True)
            found = run_cell(task, Path(npz), arguments.noise, [*overrides, f"dataset.path='{paths[task]}'"])
            arguments.out.mkdir(parents=True, exist_ok=True)
            writers.write_json(out, found)
    print(table(read_results(arguments.out)))
    return 0


if __name__ == '__main__':
    sys.exit(main())
