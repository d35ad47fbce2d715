"""A config made ready to run: data loaded, environments made, phases built, everything checked, nothing written."""

import dataclasses
import hashlib
import typing
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ooorl import data, envs
from ooorl.data import splits
from ooorl.data.pull import pull
from ooorl.data.splits import Combinations
from ooorl.errors import UsageError
from ooorl.mapping import num_cores, num_shares
from ooorl.runner import belonging, build, config, earlier_runs, hosts, memory, run_directory, steering, taught, without_resets
from ooorl.runner.head_support import check_heads
from ooorl.runner.kept_draws import with_kept_draws
from ooorl.runner.return_range import with_return_ranges
from ooorl.runner.seed_groups import seed_group
from ooorl.runner.seed_list import parse_seeds
from ooorl.runner.settings import QUIET_SCHEMES
from ooorl.training.evaluate import evaluate
from ooorl.training.phases import Setup, env_steps, round_sizes
from ooorl.training.preflight import check
from ooorl.training.spread import over_batches
from ooorl.types import Spec
from ooorl.validation import check_not_negative, check_positive, converted


class Prepared(NamedTuple):
    """A checked run that has written nothing yet."""

    config: dict
    setup: Setup
    dataset: 'data.Dataset | None'
    spec: Spec
    box: 'data.Box | None'  # of actions in the environment's units, else the data's; None: [-1, 1]
    store_notes: tuple[str, ...] = ()  # on rows of an earlier run that it reads
    plan: tuple[memory.Part, ...] = ()  # what it will hold at least


def prepare(settings: Mapping, *, fits: bool = True) -> Prepared:
    """Loads the data, makes the environments and builds the phases of a config, checking everything that can be checked.

    Without `fits` all but whether it fits into memory.

    Raises:
      UsageError: one sentence on the first thing that is wrong. Nothing has been written then.
    """
    settings = config.resolve(settings)
    settings = {**settings, 'environment': {**settings['environment'], 'id': envs.own_name(settings['environment']['id'])}}
    seeds = parse_seeds(settings['run']['seeds'])
    guessed = not settings['environment']['id']
    settings, line = belonging.settled(settings)
    try:
        environment, evaluation = make_environments(settings, len(seeds))
        dataset, box = _dataset_for(settings, line)
    except UsageError as error:
        if not (guessed and settings['environment']['id']) or settings['run']['scheme'] not in QUIET_SCHEMES:
            raise
        # Only the data name this environment, and training does without it; what is wrong with the data shows again.
        settings, line = belonging.without_environment(settings, error)
        environment = evaluation = None
        dataset, box = _dataset_for(settings, line)
    settings, environment, evaluation = _with_steering(settings, environment, evaluation, box)
    evaluation = _by_combination(evaluation, settings['dataset'], dataset)
    stores, notes = earlier_runs.stores(settings, seeds)
    settings, given = taught.given(settings, seeds, dataset)
    spec = _spec(dataset, environment, settings['environment']['id'], stores)
    settings, dataset = with_return_ranges(settings, dataset)
    transitions = None if dataset is None else with_kept_draws(settings, spec, dataset.transitions)
    if transitions is not None:
        check_heads(settings, transitions)
    run = settings['run']
    setup = Setup(
        phases=build.build_phases(settings, spec, transitions, stores, _irreversible(environment, evaluation)),
        seeds=seeds,
        dataset=transitions,
        environment=environment,
        evaluation=evaluation,
        updates_per_round=run['updates_per_round'],
        evaluate_every=run['evaluate_every'] or None,
        seed_group=run['seed_group'] or seed_group(settings, -(-len(seeds) // num_shares(len(seeds)))),
        score_range=build.score_range(settings),
        stores=stores,
        given=given,
    )
    if 'lives' in settings:
        bare = {key: value for key, value in settings['agent'].items() if key != 'cautious'}
        setup = without_resets.living(settings, setup, build.build_agent(bare, spec, transitions))
    if run['devices'] == 'batch':
        setup = over_batches(setup)
    check(setup)
    hosts.check(setup, run['hosts'])
    _check_batches(setup)
    parts = _checked_memory(setup, run['memory_limit']) if fits else ()
    _check_map(settings['report'], spec, len(seeds))
    return Prepared(settings, setup, dataset, spec, box, notes, parts)


def _checked_memory(setup, allowed):
    """Against what is free a lower bound will do; a limit is compared with the whole plan, which takes seconds of tracing."""
    if allowed:
        from ooorl.runner import memory_plan

        parts = tuple(memory_plan.of_run(setup))
    else:
        parts = tuple(memory.of_setup(setup))
    memory.check(parts, memory.parsed(allowed) if allowed else None)
    return parts


def _with_steering(settings, environment, evaluation, box):
    """The config with the digest of the policy that is steered, and the environments whose actions are its noise."""
    policy = steering.frozen(settings)
    if policy is None:
        return settings, environment, evaluation
    settings = {**settings, 'steered': {**settings['steered'], 'digest': policy.digest}}
    return settings, *(steering.noise_environment(policy, one, box) for one in (environment, evaluation))


def _dataset_for(settings, line):
    """The data set of a config, compared with its environment, or None, and the box of actions; `line` joins the data's notes."""
    with belonging.opened(settings) as place:
        box = place and place.action_box
        if not any(settings['dataset'][key] for key in ('path', 'task', 'scripted')):
            return None, box
        dataset = load_dataset(settings['dataset'], place, belonging.labeller(settings['environment'], place))
    noted = dataclasses.replace(dataset, notes=(*dataset.notes, *([line] if line else [])))
    return noted, box or (None if place else dataset.action_box)


def load_dataset(table: Mapping, place: 'belonging.Place | None' = None, labeller=None) -> 'data.Dataset | None':
    """The data set that a resolved `[dataset]` table names, without the rows in its regions; or None.

    Raises:
      UsageError: where it cannot be used, or does not belong to the environment `place`.
    """
    dataset = _whole_dataset(table, place, labeller)
    if dataset is None:
        return None
    if table.get('first_rows'):
        dataset = data.fixups.first_rows(dataset, table['first_rows'])
    dropped = {'discs': table['drop_discs'], 'boxes': table['drop_boxes']}
    if any(dropped.values()):
        dataset = data.fixups.remove_regions(dataset, **dropped)
    if table.get('combinations'):
        dataset = splits.part(dataset, Combinations(**table['combinations']))
    return belonging.compared(dataset, place, table['replay'])


def _by_combination(evaluation, table, dataset):
    """The environment that is evaluated in, knowing which episodes are out of the combinations that the data have."""
    if table['combinations'] and dataset is None:
        raise UsageError('combinations are of the rows of a data set; got none; name one in [dataset], or remove the sub-table')
    if evaluation is None or not table['combinations']:
        return evaluation
    return dataclasses.replace(evaluation, held_out=splits.held_out_test(Combinations(**table['combinations']), dataset))


def _whole_dataset(table, place, labeller):
    if table['scripted']:
        return _scripted(table)
    if not (table['path'] or table['task']):
        return None
    path = table['path'] or pull(table['task'])
    if run_directory.is_run(path):
        return earlier_runs.dataset(path, table, place)
    reading = {'environment_box': place and place.action_box, 'labeller': labeller}
    reading['infos'] = () if table['replay'] == 'off' else belonging.states_in(path, place)
    if table['task']:
        return data.load_task(table['task'], path, **reading)
    for key in ('terminal_ends_episode', 'action_low', 'action_high', 'observation_keys'):
        reading[key] = table.get(key)
    return data.load(path, clip_actions=table['clip_actions'], **reading)


def _scripted(table):
    from ooorl.envs import goal_maze, maze, point_mass_physics, point_mass_wall, scripted, scripted_combinations, tabletop

    makers = {
        'u_maze': (scripted.u_maze_offline, maze.u_maze),
        'point_mass_wall': (scripted.point_mass_wall_offline, point_mass_wall.point_mass_wall),
        'goal_maze': (scripted_combinations.goal_maze_offline, goal_maze.goal_maze),
        'tabletop': (scripted_combinations.tabletop_offline, tabletop.tabletop),
        'point_mass_physics': (scripted_combinations.point_mass_physics_offline, point_mass_physics.point_mass_physics),
    }
    name = table['scripted']
    if name not in makers:
        raise UsageError(f'dataset.scripted must be one of {", ".join(makers)}; got {name!r}')
    maker, task = makers[name]
    hints = typing.get_type_hints(task) | typing.get_type_hints(maker) | {'seed': int}
    settings = dict(table['settings'])
    for key in settings.keys() & hints.keys():
        settings[key] = converted(settings[key], hints[key], f'{key} in [dataset.settings]')
    seed = settings.pop('seed', 0)
    check_positive(**{key: value for key, value in settings.items() if key in ('num_episodes', 'horizon')})
    check_not_negative(seed=seed)
    episodes = settings.get('num_episodes', 0)
    memory.check([memory.Part(episodes * memory.SCRIPTED_EPISODE, f'{episodes:,} episodes of scripted data', 'num_episodes')])
    try:
        transitions = maker(jax.random.key(seed), **settings)
    except TypeError as error:
        raise UsageError(f'dataset.settings must be those of scripted data {name!r}; {error}') from None
    digest = hashlib.sha256(b''.join(np.ascontiguousarray(leaf).tobytes() for leaf in jax.tree.leaves(transitions))).hexdigest()
    return data.Dataset(transitions=transitions, name=f'scripted {name}', sha256=digest, notes=())


def make_environments(settings: Mapping, num_seeds: int):
    """(collection, evaluation) environments of a resolved config; None where not asked for."""
    table, evaluation = settings['environment'], settings['evaluation']
    if not table['id']:
        return None, None
    envs.check_known(table['id'])  # also where no copy is made
    collects = settings['run']['scheme'] not in QUIET_SCHEMES and not settings['run']['store']
    keys = settings['dataset']['observation_keys']
    environment = None
    if collects:
        environment = _make(table, table['num_envs'], num_seeds, table['settings'], {'observation_keys': keys})
    if not evaluation['num_episodes']:
        return environment, None
    merged = {**table['settings'], **evaluation['settings']}
    helped = {'observation_keys': keys, 'copies': _copies(table, evaluation, num_seeds)}
    return environment, _make(table, evaluation['num_episodes'], num_seeds, merged, helped)


def _copies(table, evaluation, num_seeds):
    """How many copies a seed play the episodes of an evaluation on the host, so that turns are equally long; None: one each."""
    num, asked = evaluation['num_episodes'], evaluation['copies']
    if table['id'] in envs.TASKS:
        if asked:
            raise UsageError(f'evaluation.copies is for environments on the host; {table["id"]} is not; got {asked}; remove it')
        return None
    most = asked or max(1, max(32, 8 * num_cores()) // num_seeds)
    turns = -(-num // most)
    return None if turns == 1 else -(-num // turns)


def _make(table, num_envs, num_seeds, settings, helped):
    name, workers = table['id'], table['workers']
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    compiled = name in envs.TASKS
    if compiled and workers > 0:
        raise UsageError(f'environment.workers is for environments on the host; {name} is compiled; got {workers}; remove it')
    memory.check([memory.of_copies(num_seeds, helped.get('copies') or num_envs, compiled)])
    helped = {} if compiled else {key: value for key, value in {**helped, 'workers': workers}.items() if value}
    try:
        environment = envs.make(name, (num_envs,) if compiled else (num_seeds, num_envs), **helped, **settings)
        if compiled:  # an episode traced, not played: settings of a wrong type would else show only once the run has begun
            jax.eval_shape(lambda: evaluate(environment, lambda *_: _no_action(environment), jax.random.key(0)))
    except TypeError as error:
        first = str(error).partition('\n')[0]
        raise UsageError(f'environment.settings must be those of {name}; got {settings} ({first}); mend them') from None
    return environment


def _irreversible(*environments):
    """The test of what cannot be taken back that the first environment knows, or None."""
    return next((one.irreversible for one in environments if one is not None), None)


def _no_action(environment):
    return jnp.zeros((*environment.batch_shape, environment.spec.action_dim))


def _spec(dataset, environment_or_none, name, stores) -> Spec:
    if environment_or_none is not None:
        if dataset is not None:
            data.check_spec(dataset, environment_or_none.spec, environment=name)
        return environment_or_none.spec
    given = [earlier_runs.spec_of(store) for store in stores.values()]
    if given and dataset is not None:
        data.check_spec(dataset, given[0], environment='run.store')
    if dataset is None and given:
        return given[0]
    if dataset is None:
        raise UsageError(
            'a run needs a data set, or an environment that it collects in; the config has neither; give --dataset, without '
            'which nothing trains offline, or environment.id'
        )
    return dataset.spec


def _check_map(table, spec, num_seeds):
    columns = table['map_columns']
    if columns and not 0 <= min(columns) <= max(columns) < spec.observation_dim:
        raise UsageError(f'report.map_columns must be observation columns, 0 to {spec.observation_dim - 1}; got {columns}')
    if columns and table['map_seed'] >= num_seeds:
        raise UsageError(f'report.map_seed must be a position in the list of {num_seeds} seeds; got {table["map_seed"]}')


def _check_batches(setup):
    rows = 0 if setup.dataset is None else setup.dataset.reward.shape[0]
    for number, phase in enumerate(setup.phases):
        if not phase.num_updates:
            continue
        sizes = round_sizes(phase, setup)
        _, cycles = sizes.done(len(sizes))
        available = rows + env_steps(setup, number, cycles)
        if phase.sampling.batch_size > available:
            raise UsageError(
                f'batch_size must be at most the number of rows, {available} in phase {phase.name!r}; '
                f'got {phase.sampling.batch_size}; lower it or give more data'
            )
