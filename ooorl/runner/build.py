"""Checked tables of settings to agents and phases: the one place where names meet builders."""

import dataclasses
import inspect
import re
from collections.abc import Mapping

import jax
import numpy as np

from ooorl import catalogue, wrap
from ooorl.agents import CRITICS, algorithm
from ooorl.agents.cached import states_of
from ooorl.agents.monte_carlo import monte_carlo_start
from ooorl.agents.prior_data import PriorDataConfig, prior_data
from ooorl.agents.slow_policy import slow_policy
from ooorl.errors import UsageError
from ooorl.nn.heads import hl_gauss_head
from ooorl.nn.losses import ensemble_value
from ooorl.policies import policy_kind, refuse_to_fit
from ooorl.runner import signal_tables
from ooorl.runner.config import fields, gamma_of, online_table, parse
from ooorl.runner.settings import QUIET_SCHEMES
from ooorl.training import phases, schemes
from ooorl.training.chunks import receding
from ooorl.training.evaluate import ScoreRange
from ooorl.training.sampling import Sampling
from ooorl.types import Agent, Spec


def build_agent(
    table: Mapping, spec: Spec, dataset=None, *, with_bonus: bool = True, irreversible=None, learns_from: Mapping = {}
) -> Agent:
    """The agent of a resolved agent table, wrapped as the table says (see `ooorl.wrap` for the order).

    Args:
      table: resolved.
      spec: of the environment.
      dataset: offline transitions, for what is computed from them.
      with_bonus: whether its bonus, if it has one, is on.
      irreversible: the environment's own test of observations, for tables that ask for its labels.
      learns_from: what a student is built with beside its settings (`agents.distill`).
    """
    entry = algorithm(table['agent'])
    config_type, builder = entry.config, entry.builder
    chunk = table.get('chunk', 1)
    spec = Spec(observation_dim=spec.observation_dim, action_dim=chunk * spec.action_dim)
    config = parse(config_type, {k: v for k, v in table.items() if k in fields(config_type)}, '[agent]')
    takes, seams = inspect.signature(builder).parameters, {}
    if 'head' in table:
        if 'head' not in takes and 'critic' not in takes:
            raise UsageError(f'{table["agent"]} has no critic to give a head to; remove the sub-table head')
        seams['head'] = hl_gauss_head(**table['head'])
    if 'student' in takes:
        seams |= _student(table, learns_from)
    elif 'policy' in table:
        if 'policy' not in takes:
            raise UsageError(f'{table["agent"]} brings a policy of its own; remove the sub-table policy')
        refuse_to_fit(table['policy']['kind'], table['agent'], table.get('imitate', ''))
        seams['policy'] = _policy(table['policy'], spec, dataset if table['normalise_observation'] else None)
    if 'critic' in table and 'critic' not in takes:
        raise UsageError(f'{table["agent"]} brings a critic of its own; remove the sub-table critic')
    if 'critic' in takes:
        seams['critic'] = _critic(table.get('critic', {'kind': entry.critic or 'calql'}), spec, seams.pop('head', None))
    if 'observation' in takes:
        seams |= _pairs(table, dataset, chunk)
    if 'states' in takes and dataset is not None and table.get('refresh_every'):
        seams['states'] = _in_units(states_of(dataset), table, dataset)
    agent = builder(spec, config, **seams)
    if table.get('ema_rate') is not None:
        agent = slow_policy(agent, table['ema_rate'])
    if table.get('monte_carlo_share'):
        _refuse_without_values(table, 'monte_carlo_share', 'start', 'key')
        agent = monte_carlo_start(agent, table['monte_carlo_share'])
    if 'prior' in table:
        _refuse_without_values(table, 'prior', 'reward')
        agent = prior_data(agent, spec, parse(PriorDataConfig, table['prior'], '[prior]'))
    if 'bonus' in table and with_bonus:
        _refuse_without_values(table, 'bonus', 'raise')
        agent = signal_tables.with_bonus(agent, table['bonus'], spec)
    if 'cautious' in table:
        _refuse_without_values(table, 'cautious', 'lower')
        agent = signal_tables.with_caution(agent, table['cautious'], spec)
    agent = _chunked(agent, table)
    if 'bounds' in table:
        _refuse_without_values(table, 'bounds', 'bound')
        agent = wrap.value_bounds(agent, gamma=gamma_of(table), **table['bounds'])
    if 'reward' in table:
        agent = wrap.rescaled_reward(agent, **table['reward'])
    if table.get('terminal_reward') is not None:
        agent = wrap.terminal_at_reward(agent, reward=table['terminal_reward'])
    if table['normalise_observation']:
        agent = wrap.normalised_observation(agent, *_statistics(dataset))
    agent = signal_tables.with_labels(agent, table, irreversible)
    agent = _reranked(agent, table) if 'reranked' in table else agent
    return receding(agent, table.get('chunk_executed') or agent.chunk)


def _refuse_without_values(table, name, what, kind='sub-table'):
    if gamma_of(table) is None:
        raise UsageError(f'{table["agent"]} learns no values to {what}; remove the {kind} {name}')


def _chunked(agent, table):
    if (table.get('backup_steps') or 1) > table.get('chunk', 1):
        _refuse_without_values(table, 'backup_steps', 'back up', 'key')
    try:
        settings = {'ends': table.get('chunk_ends', 'keep'), 'backup_steps': table.get('backup_steps')}
        return wrap.chunked(agent, table.get('chunk', 1), gamma=gamma_of(table) or 0.99, **settings)
    except UsageError as error:
        raise UsageError(f'chunk with agent {table["agent"]}: {error}') from None


def _policy(table, spec, normalised_by=None):
    kind, units = policy_kind(table['kind']), {}
    if kind.given and normalised_by is not None:
        units = dict(zip(('observation_mean', 'observation_std'), _statistics(normalised_by), strict=True))
    config = parse(kind.config, {k: v for k, v in table.items() if k in fields(kind.config)}, '[policy]')
    return kind.builder(spec, config, **units)


def _student(table, learns_from):
    if not learns_from:
        raise UsageError(f'{table["agent"]} learns from a teacher; got none; set run.scheme = "distil" and name it in [student]')
    settings = table.get('policy', {'kind': 'consistency'})
    if settings['kind'] != 'consistency':
        raise UsageError(f'{table["agent"]} fits a consistency policy; got kind {settings["kind"]!r}; change it, or leave it out')
    own = {k: v for k, v in settings.items() if k != 'kind'}
    return {'student': parse(policy_kind('consistency').config, own, '[policy]'), **learns_from}


def _critic(table, spec, head):
    kind = CRITICS[table['kind']]
    config = parse(kind.config, {k: v for k, v in table.items() if k in fields(kind.config)}, '[critic]')
    return kind.builder(spec, config, head=head)


def _reranked(agent, table):
    if agent.q is None:
        raise UsageError(f'{table["agent"]} has no Q to rank candidates by; remove the sub-table reranked')
    settings = table['reranked']

    def value(state, observation, action):
        q = agent.q(state, observation, action)
        return ensemble_value(q, settings['value'], settings['rho'])

    return wrap.reranked(agent, value, num_candidates=settings['num_candidates'], collecting=settings['collecting'])


def _statistics(dataset):
    if dataset is None:
        raise UsageError('normalise_observation needs a data set to take mean and deviation from; none was given')
    observation = np.asarray(dataset.observation, np.float64)
    # 1e-3 as TD3+BC's code has it: constant columns stay near zero instead of exploding.
    return observation.mean(axis=0).astype(np.float32), (observation.std(axis=0) + 1e-3).astype(np.float32)


def _in_units(observation, table, dataset):
    """Observations of the data set as the agent sees them."""
    observation = np.asarray(observation, np.float32)
    if not table['normalise_observation']:
        return observation
    mean, std = _statistics(dataset)
    return (observation - mean) / std


def _pairs(table, dataset, chunk):
    """Observations, as the agent sees them, and actions of the data set."""
    if chunk > 1:
        raise UsageError(f'{table["agent"]} searches the data for single actions; got chunk = {chunk}; set it to 1, or use td3')
    if dataset is None:
        raise UsageError(f'{table["agent"]} searches a data set for its nearest actions; none was given; name one in [dataset]')
    observation = _in_units(dataset.observation, table, dataset)
    return {'observation': observation, 'action': np.asarray(dataset.action, np.float32)}


def _sampling(table, gamma, key='sampling'):
    values = dict(table.get(key, table.get('sampling', {})))
    values.setdefault('gamma', gamma)
    return parse(Sampling, values, f'[{key}]')


def build_phases(config: Mapping, spec: Spec, dataset, stores: Mapping = {}, irreversible=None) -> tuple[phases.Phase, ...]:
    """The phases of a resolved config; with a store of an earlier run those of them that collect nothing.

    `irreversible` is as for `build_agent`.
    """
    scheme = config['run']['scheme']
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in config[scheme].items()}
    if scheme == 'ooo' and stores:
        return _retraining_phases(config, spec, dataset, settings, stores, irreversible)
    if scheme == 'ooo':
        return _ooo_phases(config, spec, dataset, settings, irreversible)
    if scheme == 'distil':
        return _distil_phases(config, spec, dataset, settings)
    table = config['agent']
    if scheme == 'wsrl':
        return _wsrl_phases(table, spec, dataset, settings)
    agent = build_agent(table, spec, dataset, irreversible=irreversible)
    samplings = {'sampling': _sampling(table, gamma_of(table) or 0.99)}
    if scheme == 'finetune':
        samplings['online_sampling'] = _sampling(table, gamma_of(table) or 0.99, 'online_sampling')
        if 'online' in table:
            settings['online_agent'] = build_agent(online_table(table), spec, dataset, irreversible=irreversible)
    if stores:
        (settings['store'],) = stores
    if scheme == 'online':
        settings['random_agent'] = uniform(spec)
    return getattr(phases, scheme)(agent, **settings, **samplings)


def _wsrl_phases(table, spec, dataset, settings):
    if table['agent'] != 'wsrl':
        raise UsageError(f"scheme 'wsrl' needs agent = 'wsrl', whose settings hold those of Cal-QL; got {table['agent']!r}")
    sampling = _sampling(table, table['gamma'])
    online = dataclasses.replace(sampling, mix={'online': 1.0}, batch_size=table['utd'] * sampling.batch_size)
    if 'online_sampling' in table:
        online = _sampling(table, table['gamma'], 'online_sampling')
        online = online if isinstance(online.mix, Mapping) else dataclasses.replace(online, mix={'online': 1.0})
    pessimist = build_agent({**table, 'agent': 'calql'}, spec, dataset)
    return schemes.wsrl(pessimist, build_agent(table, spec, dataset), **settings, sampling=sampling, online_sampling=online)


def _distil_phases(config, spec, dataset, settings):
    """The student sees what its teacher sees: whole chunks, and observations in the same units."""
    teacher, student, judge = config['teacher'], config['student'], config.get('returns')
    for name in ('chunk', 'chunk_ends', 'normalise_observation'):
        for other, table in (('student', student), ('returns', judge)):
            allowed = (1, teacher['chunk']) if (name, other) == ('chunk', 'returns') else (teacher[name],)
            if table is not None and table[name] not in allowed:
                raise UsageError(f'{name} in [{other}] must be that of [teacher], {teacher[name]!r}; got {table[name]!r}')
    if 'policy' not in teacher:
        raise UsageError('a teacher takes noise away from actions; got no policy; add [teacher.policy] kind = "diffusion"')
    wide = Spec(observation_dim=spec.observation_dim, action_dim=teacher['chunk'] * spec.action_dim)
    learns_from = {'teacher': _policy(teacher['policy'], wide)}
    if judge is not None:
        bare = {**judge, 'normalise_observation': False, 'chunk': 1, 'chunk_executed': None}
        per_step = Spec(observation_dim=spec.observation_dim, action_dim=judge['chunk'] * spec.action_dim)
        learns_from |= {'returns': build_agent(bare, per_step, dataset), 'return_dim': per_step.action_dim}
    earlier, _ = settings.pop('teacher'), settings.pop('digest')
    return schemes.distil(
        None if earlier else build_agent(teacher, spec, dataset),
        build_agent(student, spec, dataset, learns_from=learns_from),
        returns=judge and build_agent(judge, spec, dataset),
        **settings,
        sampling=_sampling(teacher, gamma_of(teacher) or 0.99),
        return_sampling=judge and _sampling(judge, gamma_of(judge) or 0.99),
        student_sampling=_sampling(student, 0.99),
    )


def uniform(spec: Spec) -> Agent:
    """An agent that draws actions uniformly from the box and learns nothing."""
    def act(state, observation, key):
        del state
        return jax.random.uniform(key, (*observation.shape[:-1], spec.action_dim), minval=-1.0, maxval=1.0)

    return Agent(
        init=lambda key: {'unused': jax.random.uniform(key)},
        update=lambda state, batch, key: (state, {}),
        sample_action=act,
        best_action=act,
    )


def _retraining_phases(config, spec, dataset, settings, stores, irreversible):
    table, ((name, store),) = config['exploit'], stores.items()
    return phases.retraining(
        build_agent(table, spec, dataset, irreversible=irreversible), num_updates=settings['retrain_updates'], store=name,
        budgets=settings['retrain_at'] or (store.num_rows,), sampling=_sampling(table, gamma_of(table) or 0.99),
    )


def _ooo_phases(config, spec, dataset, settings, irreversible):
    explore, exploit = config['explore'], config['exploit']
    without, retrain_without = settings.pop('without_bonus'), settings.pop('retrain_without_bonus')
    settings |= {'retrain_at': settings['retrain_at'] or None, 'random_agent': uniform(spec)}
    gammas = [gamma_of(table) or 0.99 for table in (explore, exploit)]
    samplings = {
        'explore_sampling': _sampling(explore, gammas[0]),
        'online_sampling': _sampling(explore, gammas[0], 'online_sampling'),
        'retrain_sampling': _sampling(exploit, gammas[1]),
    }
    exploiter = build_agent(exploit, spec, dataset, irreversible=irreversible)
    explorer = build_agent(explore, spec, dataset, irreversible=irreversible)
    made = phases.ooo(explorer, exploiter, **settings, **samplings)
    if without or retrain_without:
        plain = phases.ooo(
            build_agent(explore, spec, dataset, with_bonus=False, irreversible=irreversible), exploiter,
            **{**settings, 'retrain_at': None if retrain_without else ()}, **samplings, store='plain',
        )
        made += tuple(
            dataclasses.replace(p, name=f'plain-{p.name}', start=p.start and f'plain-{p.start}') for p in plain
        )
    return made


def score_range(config: Mapping) -> ScoreRange | None:
    """Reference scores of `evaluation.task`, else of the data set's task where its own environment is evaluated in; or None.

    For a data file they are those of the environment, where all its tasks have the same and none of its settings differ.

    Raises:
      UsageError: if the task is unknown, has no reference scores, or is scored in another catalogued environment.
    """
    named, environment = config['evaluation']['task'], _unversioned(config['environment']['id'])
    task = named or config['dataset']['task'] or _task_of_file(config)
    if not task:
        return None
    try:
        entry = catalogue.lookup(task)
    except KeyError as error:
        raise UsageError(error.args[0]) from None
    scored_in = _unversioned(entry.environment)
    if not named and (environment != scored_in or entry.reference_min is None):
        return None
    if entry.reference_min is None:
        raise UsageError(f'evaluation.task needs a task with reference scores; {task} has none; remove the key')
    if environment != scored_in and environment in {_unversioned(e.environment) for e in catalogue.ENTRIES.values()}:
        raise UsageError(
            f'evaluation.task needs a task that is scored in {config["environment"]["id"]}; {task} is in {entry.environment}; '
            'name another, or "" for none'
        )
    return ScoreRange(entry.reference_min, entry.reference_max, entry.scored)


def _task_of_file(config):
    changed = config['environment']['settings'] or config['evaluation']['settings']
    if not config['dataset']['path'] or config['run']['scheme'] not in (*QUIET_SCHEMES, 'finetune'):
        return ''
    entries = [entry for entry in catalogue.ENTRIES.values() if entry.environment == config['environment']['id']]
    references = {(entry.reference_min, entry.reference_max, entry.scored) for entry in entries}
    # Settings may change returns; whether a task was done they do not.
    return entries[0].id if len(references) == 1 and (not changed or entries[0].scored == 'success') else ''


def _unversioned(name):
    return re.sub(r'-v\d+$', '', name.rpartition(':')[2])
