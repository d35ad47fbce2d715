"""Measures the claims of OOO (arXiv:2310.08558) at a size that two cores can run, and prints the table.

    python experiments/ooo_claims.py                          # every cell whose result is not there yet
    python experiments/ooo_claims.py --cells umaze:iql:counts
    python experiments/ooo_claims.py --table                  # what the results in the repository say
    python experiments/ooo_claims.py --recipe experiments/recipe.toml --seeds 2000:2010

A cell is task:method:signal and runs `configs/ooo/<task>-<method>-<signal>.toml`. The signal `none` stands for the arms
that listen to no bonus, which all signals of a task and method share: the data alone, the base method (the explorer's
agent without its bonus, pretrained and fine-tuned), and retraining on what that one collected.

Every cell runs all its seeds in one program, collects the same number of environment steps, and scores the last
checkpoint's deployed actions. Seeds 0 to 7 are for the numbers that are shown; anything to be tuned belongs to seeds from
1000 on.
"""

import argparse
import copy
import os
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import recipes
from claims_table import (
    ARMS,
    CANDIDATES,
    LANDED,
    OF_RECIPES,
    PREFIX,
    RECIPE_PREFIX,
    Cell,
    brief,
    counted,
    read_results,
    side_by_side,
    table,
)

from ooorl import wrap
from ooorl.errors import UsageError
from ooorl.mapping import num_cores
from ooorl.reporting import writers
from ooorl.runner import build, config
from ooorl.runner.choice import as_plain
from ooorl.runner.prepare import Prepared, make_environments, prepare
from ooorl.runner.seed_list import parse_seeds
from ooorl.runner.session import note
from ooorl.runner.signal_tables import BUILDERS, SIGNALS
from ooorl.runner.summary import versions
from ooorl.training import deployment, rounds
from ooorl.training.phases import Phase, Setup, round_sizes
from ooorl.training.programs import Programs
from ooorl.training.run import Diverged, iterate
from ooorl.training.stopwatch import Stopwatch
from ooorl.types import Agent, Signal, ignore_data

HERE = Path(__file__).resolve().parent
CONFIGS = HERE.parent / 'configs' / 'ooo'

KEPT_METRICS = ('q/mean', 'q/target', 'value/mean', 'policy/q', 'bonus/mean', 'bonus/deviation')


def config_of(cell: Cell) -> Path:
    """The config a cell runs; the arms without a bonus are the same in all configs of a task and method."""
    if cell.signal != 'none':
        return CONFIGS / f'{"-".join(cell)}.toml'
    return next(path for path in _config_files() if path.stem.startswith(f'{cell.task}-{cell.method}-'))


def _config_files():
    return sorted(path for path in CONFIGS.glob('*.toml') if path.stem.count('-') == 2)


def all_cells() -> list[Cell]:
    """Every cell that has a config, the shared arms of a task and method before the others."""
    found = []
    for path in _config_files():
        cell = Cell(*path.stem.split('-'))
        found += [each for each in (cell._replace(signal='none'), cell) if each not in found]
    return found


def parse_cell(text: str) -> Cell:
    """'umaze:iql:counts' as a cell.

    Raises:
      UsageError: if there is no config for it.
    """
    known = all_cells()
    for cell in known:
        if str(cell) == text:
            return cell
    raise UsageError(f'--cells takes {", ".join(map(str, known))}; got {text!r}')


def frozen(signal: Signal) -> Signal:
    """The signal scoring only: `update` and `observe` leave predictor, counts and statistics as they are."""
    return replace(signal, update=lambda state, batch, key: (state, signal.score(state, batch), {}), observe=ignore_data)


def frozen_bonus_exploiter(settings: Mapping, prepared: Prepared) -> Agent:
    """The config's exploiter listening to the explorer's signal, frozen, at the explorer's scale."""
    spec, exploit, bonus = prepared.setup.environment.spec, settings['exploit'], settings['explore']['bonus']
    bare = {key: value for key, value in exploit.items() if key not in ('bounds', 'reward')}
    kind = SIGNALS[bonus['signal']]
    known = {key: value for key, value in bonus.items() if key in config.fields(kind)}
    signal = BUILDERS[bonus['signal']](spec, config.parse(kind, known, '[bonus]'))
    agent = wrap.bonus(build.build_agent(bare, spec), frozen(signal), scale=bonus['scale'])
    if 'bounds' in exploit:
        agent = wrap.value_bounds(agent, gamma=exploit['gamma'], **exploit['bounds'])
    return wrap.rescaled_reward(agent, **exploit.get('reward', {}))


def td3_exploiter(settings: Mapping, prepared: Prepared) -> Agent:
    """TD3 in place of the config's exploiter: its discount, rates, widths and rewards, nothing that is pessimistic."""
    exploit = settings['exploit']
    kept = {key: exploit[key] for key in ('gamma', 'polyak', 'learning_rate', 'hidden', 'reward') if key in exploit}
    table = copy.deepcopy({key: value for key, value in settings.items() if key != 'exploit'})
    resolved = config.resolve({**table, 'exploit': {'agent': 'td3', **kept}})
    return build.build_agent(resolved['exploit'], prepared.setup.environment.spec)


def phases_of(
    cell: Cell, prepared: Prepared, landed: Phase | None = None, extra: tuple[Phase, ...] = (), without: Collection[str] = ()
) -> tuple[Phase, ...]:
    """The phases of a cell, all made from those of its config; `landed` retrains as the config does without a recipe.

    With a recipe there is retraining on the data alone in every cell, as a candidate, and its `extra` phases. Of `landed` and the
    arms of comparison, `td3` and `frozen`, those in `without` are left out.
    """
    made = {phase.name: phase for phase in prepared.setup.phases}
    steps = prepared.config['ooo']['num_env_steps'] + prepared.config['ooo']['random_steps']
    if cell.signal == 'none':
        plain = [phase for name, phase in made.items() if name.startswith('plain-') and '@' not in name]
        plain.append(replace(made[f'plain-retrain@{steps}'], name='plain-retrain'))
        alone = [replace(made['retrain@0'], name='offline', store=None, online_limit=None)] if 'retrain@0' in made else []
        return (*alone, *plain)
    if landed is not None and 'retrain@0' in made:
        extra = (*extra, replace(made['retrain@0'], name='data', store=None, online_limit=None))
    retrain = replace(made[f'retrain@{steps}'], name='retrain')
    first = [phase for name, phase in made.items() if '@' not in name and not name.startswith('plain-')]
    return (
        *first,
        retrain,
        *extra,
        *(() if landed is None or LANDED in without else (replace(landed, name=LANDED),)),
        *(
            replace(retrain, name=name, agent=make(prepared.config, prepared))
            for name, make in (('td3', td3_exploiter), ('frozen', frozen_bonus_exploiter))
            if name not in without
        ),
    )


def retraining(cell: Cell, table: Mapping, name: str) -> Phase | None:
    """Retraining on everything as a config has it, under a name; None for the arms without a bonus."""
    if cell.signal == 'none':
        return None
    phases = prepare(table).setup.phases
    return replace(next(p for p in reversed(phases) if p.name.startswith('retrain@')), name=name)


def chosen_arm(setup: Setup, prepared: Prepared, state, last: Mapping, num_episodes: int) -> dict:
    """The arm that deploys, seed by seed, what a trial of a few episodes prefers; the steps of the trial count."""
    by_name = {phase.name: phase for phase in setup.phases}
    candidates = [
        deployment.Candidate(name, by_name[name].agent, state.finished[name]) for name in CANDIDATES if name in state.finished
    ]
    settings = {**prepared.config, 'evaluation': {**prepared.config['evaluation'], 'num_episodes': num_episodes}}
    _, evaluation = make_environments(settings, len(setup.seeds))
    programs = Programs(replace(setup, evaluation=evaluation))
    observation = deployment.states_of(setup.dataset, state.stores['online'], len(setup.seeds))
    choice = deployment.choose(programs, candidates, candidates[0], observation)
    rows = [last['eval', name, seed] for name, seed in zip(choice.chosen, setup.seeds, strict=True)]
    steps = int(sum(own.sum() for own in choice.steps.values()) / len(setup.seeds))
    columns = {name: [row[name] for row in rows] for name in ('success', 'return', 'length')}
    own = {'env_steps': last['eval', 'retrain', setup.seeds[0]]['env_steps'] + steps, 'updates': 0, 'metrics': {}}
    return {**columns, **own, 'trial': as_plain(choice)}


def run_cell(
    cell: Cell, seeds: str, overrides: Iterable[str], recipe: Mapping | None = None, without: Collection[str] = ()
) -> dict:
    """Runs a cell, with a recipe laid over its config where there is one, `without` some arms, and returns it as plain data."""
    began = time.monotonic()
    table, landed, extra = config.read(config_of(cell), [f"run.seeds='{seeds}'", *overrides]), None, ()
    if recipe is not None:
        landed = retraining(cell, table, LANDED)
        second = retraining(cell, recipes.applied(table, recipe, 'climb'), 'climb') if 'climb' in recipe else None
        extra = () if second is None else (second,)
        table = recipes.applied(table, recipe)
    prepared = prepare(table)
    setup = replace(prepared.setup, phases=phases_of(cell, prepared, landed, extra, without))
    last, spent = {}, {}
    # The frozen bonus starts from what the explorer's signal has become, which no phase can say: it is begun by hand.
    adopts = setup.phases[-1].name == 'frozen'
    state = advanced(replace(setup, phases=setup.phases[:-1]) if adopts else setup, None, last, spent)
    if adopts:
        state = rounds.begin(rounds.Programs(setup), state, setup.phases[-1])
        signal = jax.tree.map(jnp.copy, state.finished['explore'].signal)
        state = advanced(setup, state._replace(agent=state.agent._replace(signal=signal)), last, spent)
    threshold = prepared.config['exploit'].get('sampling', {}).get('success_reward', 1.0)
    found = {
        'cell': str(cell),
        'seeds': list(setup.seeds),
        'num_episodes': prepared.config['evaluation']['num_episodes'],
        'arms': {phase.name: _arm(setup, phase, last) for phase in setup.phases if phase.name in (*ARMS, *OF_RECIPES)},
        'buffer': {name: buffer(store, threshold) for name, store in state.stores.items()},
        'dataset': _dataset(prepared, threshold),
        'wall_seconds': round(time.monotonic() - began, 1),
        'seconds': {name: round(value, 1) for name, value in spent.items()},
        'versions': versions(),
        'config': portable(prepared.config),
        **({} if recipe is None else {'recipe': recipe}),
    }
    if cell.signal != 'none' and (recipe or {}).get('ooo', {}).get('episodes'):
        found['arms']['chosen'] = chosen_arm(setup, prepared, state, last, recipe['ooo']['episodes'])
    return found


def advanced(setup: Setup, state, last: dict, spent: dict):
    """Runs what is left of a setup; the newest rows go to `last` and the seconds to `spent`, by phase."""
    begun = None if state is None else state.phase
    watch = Stopwatch()
    events = iterate(setup, resume=state, watch=watch)
    for number in range(begun or 0, len(setup.phases)):
        phase = setup.phases[number]
        sizes = round_sizes(phase, setup)
        with writers.progress(f'{phase.name:<16}', sizes.done(len(sizes))[phase.num_updates == 0], unit='updates') as advance:
            for event in events:
                state = event.state
                advance(event.steps, note(event.rows))
                last.update({(row['kind'], row['phase'], row['seed']): row for row in event.rows})
                if event.phase_done:
                    break
    for phase, own in watch.lap().items():
        for name, seconds in own.items():
            key = 'compile' if name == 'compile' else phase
            spent[key] = spent.get(key, 0.0) + seconds
    return state


def _arm(setup, phase, last):
    scores = [last['eval', phase.name, seed] for seed in setup.seeds]
    metrics = [last.get(('train', phase.name, seed), {}) for seed in setup.seeds]
    columns = {name: [row[name] for row in scores] for name in ('success', 'return', 'length')}
    kept = {name: [row[name] for row in metrics] for name in KEPT_METRICS if all(name in row for row in metrics)}
    return {**columns, 'env_steps': scores[0]['env_steps'], 'updates': phase.num_updates, 'metrics': kept}


def buffer(store, threshold: float) -> dict:
    """How many rows a store holds, and of each seed how many have at least this reward, and which is the first (-1: none)."""
    valid = jnp.arange(store.storage.reward.shape[1])[None] < store.size[:, None]
    wins = ((store.storage.reward >= threshold) & valid).sum(axis=1)
    first = jnp.where(wins > 0, ((store.storage.reward >= threshold) & valid).argmax(axis=1), -1)
    return {'rows': int(store.size[0]), 'success_rows': wins.tolist(), 'first_success_row': first.tolist()}


def _dataset(prepared, threshold):
    if prepared.dataset is None:
        return None
    reward = np.asarray(prepared.dataset.transitions.reward)
    known = {'name': Path(prepared.dataset.name).name, 'sha256': prepared.dataset.sha256}
    return {**known, 'rows': len(reward), 'success_rows': int((reward >= threshold).sum())}


def portable(settings):
    """The config without the folder in which somebody keeps a data set."""
    dataset = {**settings['dataset'], 'path': Path(settings['dataset']['path']).name if settings['dataset']['path'] else ''}
    return {**settings, 'dataset': dataset}


def _arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--cells', default='', metavar='TASK:METHOD:SIGNAL,...', help='default: every cell that has a config')
    parser.add_argument('--seeds', default='0:8', metavar='A:B')
    parser.add_argument('--out', type=Path, default=HERE / 'results', metavar='DIR')
    parser.add_argument('--set', action='append', default=[], metavar='SECTION.KEY=VALUE', help='change the configs')
    parser.add_argument('--dataset', action='append', default=[], metavar='TASK=PATH', help='where the data of a task lie')
    parser.add_argument('--recipe', type=Path, metavar='FILE.toml', help='laid over every config; results apart')
    parser.add_argument('--without', default='', metavar='ARM,...', help='arms of comparison to leave out: landed, td3, frozen')
    parser.add_argument('--table', action='store_true', help='only print the table of the results in --out')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Runs the cells that have no result yet, then prints the table."""
    arguments = _arguments(argv)
    if not arguments.table:
        if 'JAX_NUM_CPU_DEVICES' not in os.environ:
            jax.config.update('jax_num_cpu_devices', min(num_cores(), len(parse_seeds(arguments.seeds))))
        recipe = None if arguments.recipe is None else recipes.read(arguments.recipe)
        cells = [parse_cell(text) for text in arguments.cells.split(',')] if arguments.cells else all_cells()
        paths = dict(text.split('=', 1) for text in arguments.dataset)
        for cell in cells:
            path = cell.path(arguments.out, PREFIX if recipe is None else RECIPE_PREFIX)
            if not path.exists():
                print(f'--- {cell}', flush=True)
                data = [f"dataset.path='{paths[cell.task]}'"] if cell.task in paths else []
                try:
                    result = run_cell(cell, arguments.seeds, [*arguments.set, *data], recipe, arguments.without.split(','))
                except (Diverged, UsageError) as error:
                    print(f'{cell}: {error}', file=sys.stderr, flush=True)
                    continue
                arguments.out.mkdir(parents=True, exist_ok=True)
                writers.write_json(path, result)
    if arguments.recipe is None:
        print(table(read_results(arguments.out)))
    else:
        old, new = read_results(arguments.out), read_results(arguments.out, RECIPE_PREFIX)
        print('\n\n'.join((side_by_side(old, new), brief(old, new), f'as landed: {counted(old)}', f'recipe: {counted(new)}')))
    return 0


if __name__ == '__main__':
    sys.exit(main())
