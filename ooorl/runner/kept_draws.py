"""Data beside which the draws of a given policy are kept, for agents that read them from there."""

from collections.abc import Mapping

import jax

from ooorl.agents.cached import with_candidates
from ooorl.errors import UsageError
from ooorl.policies import POLICIES
from ooorl.runner.config import fields, parse
from ooorl.runner.settings import AGENT_TABLES
from ooorl.types import Spec, Transition


def with_kept_draws(config: Mapping, spec: Spec, dataset: Transition) -> Transition:
    """The data with candidates of the given policy whose agent reads them from its rows (`cached`), drawn here once.

    Raises:
      UsageError: if the policy is none that is given: draws of one that learns would be those of its first parameters for ever.
    """
    for table in (config[name] for name in AGENT_TABLES if config.get(name, {}).get('cached')):
        kind = table.get('policy', {}).get('kind', 'the default')
        if kind not in POLICIES or not POLICIES[kind].given:
            raise UsageError(
                f'cached needs a policy that is given (kind = "opaque"); got {kind!r}; leave cached out, or keep the draws of a '
                'policy that learns by agents.cached.with_candidates'
            )
        chosen, wide = POLICIES[kind], Spec(observation_dim=spec.observation_dim, action_dim=table['chunk'] * spec.action_dim)
        own = {key: value for key, value in table['policy'].items() if key in fields(chosen.config)}
        policy = chosen.builder(wide, parse(chosen.config, own, '[policy]'))
        params_key, key = jax.random.split(jax.random.key(0))
        dataset = with_candidates(dataset, policy, policy.init(params_key), key, table['num_candidates'])
    return dataset
