"""The recipe of `recipe.toml` with one part taken out at a time, on the same collections.

    python experiments/ablation.py --cells umaze:iql:rnd,wall:iql:counts        # resumes by cell
    python experiments/ablation.py --table

A cell (`ooo_claims.py`) explores once; then everything is retrained for every line of `PARTS` on those very rows, and a trial of
a few episodes deploys. Nothing is tuned here. Seeds are those of the recipe's table, 2000 to 2009.
"""

import argparse
import copy
import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import recipes
from claims_table import Cell, score, shown, verdict
from ooo_claims import advanced, config_of, parse_cell, portable

from ooorl.mapping import num_cores
from ooorl.reporting import writers
from ooorl.runner import config
from ooorl.runner.prepare import make_environments, prepare
from ooorl.runner.seed_list import parse_seeds
from ooorl.runner.summary import versions
from ooorl.training import deployment
from ooorl.training.programs import Programs

HERE = Path(__file__).resolve().parent
PREFIX = 'ablation-'
WHOLE = 'whole'
EXPLOITERS = ('exploit', 'climb')
# What each line takes out of the recipe: keys of both exploiters, or single tables.
KEYS = {'schedule': ('schedule',), 'average': ('ema_rate',), 'mix': ('sampling',)}
PARTS = {
    WHOLE: 'the whole recipe',
    'schedule': 'rates stay as they are',
    'average': 'the newest policy acts, not its average',
    'mix': 'batches as the cell draws them',
    'updates': 'half of the updates',
    'unit': 'imitation in units of Q, not of the advantage',
    'climb': 'without the climbing policy',
    'data': 'without the candidate data alone',
    'choice': 'the weighted policy, no trial',
}
TRAINED = (WHOLE, *KEYS, 'updates', 'unit')  # the others are other choices among the whole recipe's policies
ARMS = {'retrain': 'exploit', 'climb': 'climb', 'data': 'exploit'}


def without(recipe: Mapping, part: str) -> dict:
    """The recipe without one of its parts."""
    recipe = copy.deepcopy(dict(recipe))
    for name in EXPLOITERS:
        for key in KEYS.get(part, ()):
            recipe[name].pop(key, None)
    if part == 'updates':
        recipe['ooo']['updates'] = 1
    if part == 'unit':
        recipe['climb'].pop('q_unit')
    return recipe


def phases_of(table: Mapping, recipe: Mapping) -> tuple:
    """The prepared run of a cell and its phases: exploration, then `arm/part` for each arm and part."""
    prepared = prepare(recipes.applied(table, recipe))
    phases = [p for p in prepared.setup.phases if '@' not in p.name and not p.name.startswith('plain-')]
    for part in TRAINED:
        for arm, exploiter in ARMS.items():
            if part == 'unit' and arm != 'climb':
                continue
            made = prepare(recipes.applied(table, without(recipe, part), exploiter)).setup.phases
            last = next(phase for phase in reversed(made) if phase.name.startswith('retrain@'))
            alone = {'store': None, 'online_limit': None} if arm == 'data' else {}
            phases.append(replace(last, name=f'{arm}/{part}', **alone))
    return prepared, tuple(phases)


def candidates_of(part: str) -> tuple[str, ...]:
    """Names of the phases that a line chooses from, the first of equals first."""
    own = part if part in TRAINED else WHOLE
    names = {arm: f'{arm}/{WHOLE if part == "unit" and arm != "climb" else own}' for arm in ARMS}
    if part == 'choice':
        return (names['retrain'],)
    return (*(name for arm, name in names.items() if arm != part), 'explore')


def run_cell(cell: Cell, overrides: Iterable[str], recipe: Mapping) -> dict:
    """Explores, retrains for every part, lets all play the trial; scores by phase, and what each line deploys by seed."""
    began = time.monotonic()
    prepared, phases = phases_of(config.read(config_of(cell), overrides), recipe)
    setup, last = replace(prepared.setup, phases=phases), {}
    state = advanced(setup, None, last, {})
    names = [phase.name for phase in phases if phase.name == 'explore' or '/' in phase.name]
    agents = {phase.name: phase.agent for phase in phases}
    settings = {**prepared.config, 'evaluation': {**prepared.config['evaluation'], 'num_episodes': recipe['ooo']['episodes']}}
    programs = Programs(replace(setup, evaluation=make_environments(settings, len(setup.seeds))[1]))
    returns, _ = deployment.trial(programs, [deployment.Candidate(name, agents[name], state.finished[name]) for name in names])
    scores = {name: _scores(name, setup.seeds, last) for name in names}
    chosen = {part: deployment.best({name: returns[name] for name in candidates_of(part)}) for part in PARTS}
    return {
        'cell': str(cell), 'seeds': list(setup.seeds), 'num_episodes': prepared.config['evaluation']['num_episodes'],
        'scores': scores, 'chosen': {part: list(own) for part, own in chosen.items()},
        'trial': {name: np.asarray(own, float).tolist() for name, own in returns.items()},
        'wall_seconds': round(time.monotonic() - began, 1), 'versions': versions(), 'recipe': dict(recipe),
        'config': portable(prepared.config),
    }  # fmt: skip


def _scores(name, seeds, last):
    return {key: [last['eval', name, seed][key] for seed in seeds] for key in ('success', 'return', 'length')}


def deployed(cell: Cell, result: Mapping, part: str) -> np.ndarray:
    """The score `[S]` of what a line deploys, seed by seed."""
    by_name = {name: score(cell, own) for name, own in result['scores'].items()}
    return np.array([by_name[name][number] for number, name in enumerate(result['chosen'][part])])


def table(results: Mapping[Cell, dict]) -> str:
    """The results as Markdown: what each line deploys, less what the whole recipe does; and its two retrained policies."""
    heads = ('cell', 'taken out', 'weighted', 'climbing', 'deployed', 'whole recipe - it, weighted', 'deployed')
    lines = ['| ' + ' | '.join(heads) + ' |', '|---' * len(heads) + '|']
    for cell, result in results.items():
        whole = deployed(cell, result, WHOLE)
        for part, words in PARTS.items():
            names = {name.split('/')[0]: name for name in candidates_of(part)}
            arms = [_shown_arm(cell, result, names.get(arm)) for arm in ('retrain', 'climb')]
            own = deployed(cell, result, part)
            entries = [str(cell), 'nothing' if part == WHOLE else f'{part}: {words}', *arms, shown(cell.task, own)]
            both = [_weighted_verdict(cell, result, names), verdict(cell.task, whole, own)]
            lines.append('| ' + ' | '.join([*entries, *(('', '') if part == WHOLE else both)]) + ' |')
    return '\n'.join(lines)


def _shown_arm(cell, result, name):
    return '-' if name is None else shown(cell.task, score(cell, result['scores'][name]))


def _weighted_verdict(cell, result, names):
    if names['retrain'] == f'retrain/{WHOLE}':
        return 'the same'
    ours, theirs = (score(cell, result['scores'][name]) for name in (f'retrain/{WHOLE}', names['retrain']))
    return verdict(cell.task, ours, theirs)


def read_results(out: Path) -> dict[Cell, dict]:
    """All results in a directory, in the order of the cells."""
    found = [writers.read_json(path) for path in sorted(out.glob(f'{PREFIX}*.json'))]
    return {Cell(*result['cell'].split(':')): result for result in found}


def main(argv: list[str] | None = None) -> int:
    """Runs the cells that have no result yet, then prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--cells', default='umaze:iql:rnd,wall:iql:counts', metavar='TASK:METHOD:SIGNAL,...')
    parser.add_argument('--seeds', default='2000:2010', metavar='A:B')
    parser.add_argument('--out', type=Path, default=HERE / 'results', metavar='DIR')
    parser.add_argument('--recipe', type=Path, default=HERE / 'recipe.toml', metavar='FILE.toml')
    parser.add_argument('--set', action='append', default=[], metavar='SECTION.KEY=VALUE', help='change the configs')
    parser.add_argument('--table', action='store_true', help='only print the table of the results in --out')
    arguments = parser.parse_args(argv)
    if not arguments.table:
        if 'JAX_NUM_CPU_DEVICES' not in os.environ:
            jax.config.update('jax_num_cpu_devices', min(num_cores(), len(parse_seeds(arguments.seeds))))
        for cell in map(parse_cell, arguments.cells.split(',')):
            path = cell.path(arguments.out, PREFIX)
            if not path.exists():
                print(f'--- {cell}', flush=True)
                recipe = recipes.read(arguments.recipe)
                result = run_cell(cell, [f"run.seeds='{arguments.seeds}'", *arguments.set], recipe)
                arguments.out.mkdir(parents=True, exist_ok=True)
                writers.write_json(path, result)
    print(table(read_results(arguments.out)))
    return 0


if __name__ == '__main__':
    sys.exit(main())
