"""Data beside which draws of a policy are kept, for agents that read them from there."""

from collections.abc import Mapping

import jax

from ooorl.agents.cached import with_candidates, with_places
from ooorl.errors import UsageError
from ooorl.policies import POLICIES
from ooorl.runner.config import fields, online_table, parse
from ooorl.runner.settings import AGENT_TABLES, QUIET_SCHEMES
from ooorl.types import Spec, Transition


def with_kept_draws(config: Mapping, spec: Spec, dataset: Transition) -> Transition:
    """The data with what agents that keep draws (`cached`) read beside a row: candidates of a given policy, drawn here once, or
    where these are refreshed the places of its states.

    Raises:
      UsageError: if the policy learns and its draws are never refreshed, or rows are collected, of which no draws are kept.
    """
    for table in (config[name] for name in AGENT_TABLES if 'cached' in config.get(name, {})):
        if not table['cached']:
            _refuse_nothing_kept(table)
            continue
        _refuse_other_rows(config['run'], table)
        dataset = with_places(dataset) if table.get('refresh_every') else _drawn_once(table, spec, dataset)
    return dataset


def _refuse_nothing_kept(table):
    if table.get('refresh_every'):
        given = table['refresh_every']
        raise UsageError(f'refresh_every is for draws that are kept; got {given} with cached = false; set cached = true')


def _refuse_other_rows(run, table):
    scheme = run['scheme']
    if run['store']:
        raise UsageError(f'cached keeps draws for the rows of the data set; got others in run.store, {run["store"]}; remove one')
    if scheme not in QUIET_SCHEMES and (online_table(table) or table)['cached']:
        raise UsageError(
            f'cached keeps draws for the rows of the data set; scheme {scheme!r} collects others; set cached = false, in '
            '[agent.online] where it is to be kept offline'
        )


def _drawn_once(table, spec, dataset):
    kind = table.get('policy', {}).get('kind', 'the default')
    if kind not in POLICIES or not POLICIES[kind].given:
        raise UsageError(
            f'cached needs a policy that is given (kind = "opaque"), or refresh_every, in updates; got {kind!r}, which learns; '
            'set refresh_every, or leave cached out'
        )
    chosen, wide = POLICIES[kind], Spec(observation_dim=spec.observation_dim, action_dim=table['chunk'] * spec.action_dim)
    own = {key: value for key, value in table['policy'].items() if key in fields(chosen.config)}
    policy = chosen.builder(wide, parse(chosen.config, own, '[policy]'))
    params_key, key = jax.random.split(jax.random.key(0))
    return with_candidates(dataset, policy, policy.init(params_key), key, table['num_candidates'])
