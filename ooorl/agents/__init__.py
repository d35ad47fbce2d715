"""Agents: losses and an update, one algorithm a file, and the one table of their names.

Adding an algorithm touches its file, one line of `ALGORITHMS`, one row of the conformance test and one config.
"""

import importlib
import typing
from collections.abc import Callable
from typing import NamedTuple

from ooorl.agents.bc import BCConfig, bc
from ooorl.agents.calql import CalQLConfig, CalQLCriticConfig, calql, calql_critic
from ooorl.agents.distill import DistilConfig, distil
from ooorl.agents.dsrl import DSRLConfig, dsrl
from ooorl.agents.expo import EXPOConfig, expo
from ooorl.agents.fql import FQLConfig, FQLCriticConfig, fql, fql_critic
from ooorl.agents.iql import IQLConfig, iql, iql_critic
from ooorl.agents.odice import ODICEConfig, odice
from ooorl.agents.parl import PARLConfig, parl
from ooorl.agents.prdc import PRDCConfig, prdc
from ooorl.agents.qam import QAMConfig, qam
from ooorl.agents.returns import ReturnsConfig, returns
from ooorl.agents.sac import SACConfig, sac, sac_critic
from ooorl.agents.td3 import TD3Config, td3
from ooorl.agents.wsrl import WSRLConfig, wsrl
from ooorl.errors import UsageError
from ooorl.types import Agent


class Algorithm(NamedTuple):
    """One algorithm.

    Attributes:
      config: a frozen dataclass, every field with a default.
      builder: `(spec, config, **seams) -> Agent`.
      used: "offline", "online" or both, as its authors use it.
      needs: what it needs beside transitions.
      together: keys of its table that are changed together, and what for.
      of_default_policy: keys of its table that mean nothing where another policy is given.
      critic: of one that takes any critic, the kind where none is given.
    """

    config: type
    builder: Callable[..., Agent]
    used: str = ''
    needs: str = ''
    together: str = ''
    of_default_policy: tuple[str, ...] = ()
    critic: str = ''


BOTH = 'offline, online'
ALGORITHMS = {
    'bc': Algorithm(BCConfig, bc, 'offline', '', 'rewards are not read', ('hidden', 'dropout')),
    'iql': Algorithm(
        IQLConfig, iql, BOTH, '',
        '`expectile` with `inverse_temperature`: .7 and 3 locomotion, .9 and 10 antmaze; '
        'IDQL: `inverse_temperature = 0` with sub-tables `policy` (`kind = "diffusion"`; IFQL: flow) and `reranked`',
        ('dropout', 'log_std_min'),
    ),
    'td3': Algorithm(
        TD3Config, td3, BOTH, 'next actions (computed) where `critic_cloning_weight` > 0; a policy with `decode`',
        'TD3+BC: `q_normalisation = 2.5`, `cloning_weight = 1`, `cloning_reduce = "mean"`; '
        'ReBRAC: `q_normalisation = 1`, `policy_value = "min"`, both cloning weights, `critic_layer_norm = "after"`; '
        'Diffusion-QL: `policy_action = "sample"`, `cloning_weight = 1`, `q_normalisation` its eta, and a diffusion policy',
        ('exploration_noise', 'policy_layer_norm'),
    ),
    'sac': Algorithm(
        SACConfig, sac, 'online', 'a policy with a density',
        'RLPD: `num_critics = 10`, `num_target_critics = 2`, `critic_layer_norm = "before"`, `policy_value = "mean"`, '
        '`utd = 20` with `sampling.batch_size = 5120`',
    ),
    'calql': Algorithm(
        CalQLConfig, calql, BOTH, 'a policy with a density; returns-to-go (computed) where `calibrate`',
        'CQL: `calibrate = false`; antmaze: `target_gap = 0.8` instead of `conservative_weight`', ('hidden',),
    ),
    'distil': Algorithm(
        DistilConfig, distil, 'offline', 'a teacher with a flow or diffusion policy (scheme `distil`)',
        'RACTD: an EDM teacher, table `[returns]` with `reward_weight` about 0.5; 0 is plain consistency distillation',
    ),
    'fql': Algorithm(
        FQLConfig, fql, BOTH, 'a policy with `decode`; flow where none is given',
        '`aggregate = "min"` for D4RL; `distil_weight` per task, or `normalise_q = true` with .03 to 10', ('num_steps',),
    ),
    'expo': Algorithm(
        EXPOConfig, expo, BOTH, 'a critic (sub-table `critic`; that of FQL where none is given) and any policy (flow)',
        '`edit_scale` per task; OGBench: `num_candidates = 1`, `keep_plain = false`; `imitate = "nothing"`: the policy is given',
        critic='fql',
    ),
    'dsrl': Algorithm(
        DSRLConfig, dsrl, BOTH, 'a critic (sub-table `critic`; that of FQL where none is given); a policy with `decode` (flow)',
        '`noise_bound` per task; original: `imitate = "nothing"` online, `noise_steps = 10`, `target_entropy = 0`',
        ('policy_ema_rate',), critic='fql',
    ),
    'qam': Algorithm(
        QAMConfig, qam, BOTH, '', '`inverse_temperature` per task, .3 to 30; the policy is a pair of flows of its own'
    ),
    'odice': Algorithm(
        ODICEConfig, odice, 'offline', '', '`eta = 0`: semi-gradient; `orthogonal = false`: their sum', ('policy_hidden',)
    ),
    'parl': Algorithm(
        PARLConfig, parl, BOTH, 'a critic (sub-table `critic`; Cal-QL where none is given) and any policy (diffusion)',
        '`imitate = "data"` and `learning_rate = 3e-4`: the policy is cloned; `imitate = "nothing"` and `num_steps = 0`: V-GPS',
        critic='calql',
    ),
    'wsrl': Algorithm(
        WSRLConfig, wsrl, 'online', 'a policy with a density; scheme `wsrl`, which pretrains it with Cal-QL',
        '`num_critics = 10`, `num_target_critics = 2`, `critic_layer_norm = "before"`, `learning_rate = 3e-4`; '
        '`calibrate = false` for locomotion', ('hidden',),
    ),
    'prdc': Algorithm(
        PRDCConfig, prdc, 'offline', 'a data set to search', '`beta` with `q_normalisation`: 2 and 2.5, antmaze 7.5 and 7.5',
        ('exploration_noise', 'policy_layer_norm'),
    ),
    'returns': Algorithm(ReturnsConfig, returns, 'offline', 'returns-to-go (computed)', 'judges a student (scheme `distil`)'),
}

# Critics without a policy of their own, for agents that take any.
CRITICS = {
    'calql': Algorithm(CalQLCriticConfig, calql_critic),
    'fql': Algorithm(FQLCriticConfig, fql_critic),
    'iql': Algorithm(IQLConfig, iql_critic),
    'sac': Algorithm(SACConfig, sac_critic),
}


SETTINGS_OF = {  # methods that are settings of others
    'cql': 'calql with calibrate = false', 'rebrac': 'td3 with cloning_weight and critic_cloning_weight',
    'td3bc': 'td3 with cloning_weight', 'rlpd': 'sac with utd, num_critics and a mix of both sources',
}  # fmt: skip


def algorithm(name: str) -> Algorithm:
    """The algorithm of that name, or for `module:builder` the one that an installed module of yours holds.

    The config of such a builder is what its second parameter is annotated with.

    Raises:
      UsageError: if there is none.
    """
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    module, colon, attribute = name.partition(':')
    if not colon:
        known = f'{", ".join(ALGORITHMS)}, or module:builder for one of yours'
        told = f', which is {SETTINGS_OF[name]}' if name in SETTINGS_OF else ''
        raise UsageError(f'agent must be one of {known}; got {name!r}{told}')
    try:
        builder = getattr(importlib.import_module(module), attribute)
        hints = typing.get_type_hints(builder)
    except (Exception, SystemExit) as error:  # importing somebody's module may raise anything
        raise UsageError(
            f'agent {name!r} could not be imported ({error!r}); install or mend it, or put its folder on PYTHONPATH'
        ) from None
    config = next((kind for parameter, kind in hints.items() if parameter not in ('spec', 'return')), None)
    if not hasattr(config, '__dataclass_fields__'):
        raise UsageError(f'agent {name!r} needs a builder (spec: Spec, config: Config) with Config a dataclass; got {builder!r}')
    return Algorithm(config, builder)
