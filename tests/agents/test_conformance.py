"""Every agent and every signal satisfies `ooorl.testing`, and every setting changes something.

An agent joins with one row of `AGENTS`, a signal with one of `SIGNALS`.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import random_batch

from ooorl.agents.bc import BCConfig, bc
from ooorl.agents.calql import CalQLConfig, CalQLCriticConfig, calql, calql_critic
from ooorl.agents.dsrl import DSRLConfig, dsrl
from ooorl.agents.expo import EXPOConfig, expo
from ooorl.agents.fql import FQLConfig, fql, fql_critic
from ooorl.agents.iql import IQLConfig, iql, iql_critic
from ooorl.agents.odice import ODICEConfig, odice
from ooorl.agents.parl import PARLConfig, parl
from ooorl.agents.prdc import PRDCConfig, prdc
from ooorl.agents.qam import QAMConfig, qam
from ooorl.agents.sac import SACConfig, sac, sac_critic
from ooorl.agents.td3 import TD3Config, td3
from ooorl.agents.wsrl import WSRLConfig, wsrl
from ooorl.interpreted import interpreted
from ooorl.nn import schedules
from ooorl.nn.heads import hl_gauss_head
from ooorl.policies.autoregressive import AutoregressiveConfig, autoregressive_policy
from ooorl.policies.diffusion import DiffusionConfig, diffusion_policy
from ooorl.policies.flow import FlowConfig, flow_policy
from ooorl.policies.gaussian import gaussian_policy
from ooorl.policies.mean_flow import MeanFlowConfig, mean_flow_policy
from ooorl.signals import DisagreementConfig, RNDConfig, ensemble_disagreement, rnd, state_action_counts
from ooorl.testing import check_agent, check_signal
from ooorl.types import Spec
from ooorl.wrap import bonus, normalised_observation, rescaled_reward, terminal_at_reward, value_bounds

SPEC = Spec(observation_dim=3, action_dim=2)
ROWS = 12


@dataclass(frozen=True)
class Given:
    """A changed setting that shows only beside other settings: `value` is compared with the default under `settings`."""

    value: Any
    settings: dict


@dataclass(frozen=True)
class Row:
    """One thing under test.

    Attributes:
      build: `(config) -> Agent` or Signal for `SPEC`.
      config: its config class, None where it has none.
      settings: small sizes, used in every test.
      changes: for every field of the config a value, or a `Given`, that must change what two updates do.
      extras: columns `[ROWS]` that its batches need.
    """

    build: Callable
    config: Callable | None = None
    settings: dict = field(default_factory=dict)
    changes: dict = field(default_factory=dict)
    extras: dict = field(default_factory=dict)

    def make(self, **settings):
        """The agent or signal with some settings changed."""
        return self.build(self.config(**self.settings | settings) if self.config else None)


SMALL = {'hidden': (8,)}
LINEAR = {'schedule': 'linear'}
SCHEDULE_CHANGES = {
    'schedule': 'cosine', 'schedule_of': Given('critic', LINEAR), 'schedule_end': Given(0.5, LINEAR), 'schedule_warmup': 0.9,
}  # fmt: skip
IQL_CHANGES = SCHEDULE_CHANGES | {
    'gamma': 0.5, 'expectile': 0.9, 'inverse_temperature': 1.0, 'max_weight': 0.5, 'polyak': 0.5, 'learning_rate': 1e-3,
    'hidden': (9,), 'dropout': 0.5, 'log_std_min': 0.5, 'num_critics': 3, 'layer_norm': True,
    'activation': 'gelu', 'kernel_init': 'xavier_uniform', 'at_once': True,
    # Adam hides the factor of a loss except from gradients as small as its epsilon.
    'q_loss': 'mean', 'aggregate': 'mean', 'rho': Given(0.1, {'aggregate': 'lower'}), 'extraction': 'ddpg_bc',
    'cloning_weight': Given(0.5, {'extraction': 'ddpg_bc'}), 'q_normalisation': Given(2.0, {'extraction': 'ddpg_bc'}),
    'q_unit': Given('size', {'extraction': 'ddpg_bc'}),
}  # fmt: skip
TD3_CHANGES = SCHEDULE_CHANGES | {
    'gamma': 0.5, 'polyak': 0.5, 'learning_rate': 1e-3, 'critic_learning_rate': 1e-2,
    'adam_eps': 1e-3, 'policy_delay': 3, 'split_batch': True,
    'target_noise': 1.0, 'noise_clip': 0.01, 'target_policy': False, 'policy_action': 'sample', 'policy_value': 'min',
    'q_normalisation': 2.5, 'cloning_weight': 1.0, 'cloning_reduce': 'mean', 'critic_cloning_weight': 0.5,
    'q_unit': Given('advantage', {'q_normalisation': 2.5}),
    'exploration_noise': 0.5, 'hidden': (9,), 'num_critics': 3, 'critic_layer_norm': 'after', 'policy_layer_norm': 'before',
    'q_loss': 'mean', 'aggregate': 'mean', 'rho': Given(0.1, {'aggregate': 'lower'}), 'activation': 'gelu',
}  # fmt: skip
SAC_CHANGES = SCHEDULE_CHANGES | {
    'gamma': 0.5, 'polyak': 0.5, 'learning_rate': 1e-3, 'policy_learning_rate': 1e-2, 'utd': 2, 'num_critics': 3,
    'num_target_critics': 1,
    'entropy_backup': False, 'policy_value': 'mean', 'init_temperature': 0.5, 'learn_temperature': False,
    'target_entropy': -3.0, 'hidden': (9,), 'critic_layer_norm': 'before', 'kernel_init': 'xavier_uniform',
    'aggregate': 'mean', 'rho': Given(0.1, {'aggregate': 'lower'}),
}  # fmt: skip
CALQL_CHANGES = SCHEDULE_CHANGES | {
    'gamma': 0.5, 'polyak': 0.5, 'learning_rate': 1e-3, 'policy_learning_rate': 1e-3, 'conservative_weight': 1.0,
    'target_gap': 0.8, 'init_log_dual': Given(0.0, {'target_gap': 0.8}), 'num_actions': 4, 'importance_sampling': False,
    'gap_temperature': 2.0, 'max_target_backup': False, 'calibrate': False, 'calibrate_random': True,
    'init_temperature': 0.5, 'target_entropy': -3.0, 'hidden': (9,), 'critic_hidden': (9,), 'critic_layer_norm': 'before',
    'critic_activation': 'swish', 'critic_unit_features': True, 'num_critics': 3, 'num_target_critics': 1, 'num_gap_critics': 1,
    'aggregate': 'mean', 'rho': Given(0.1, {'aggregate': 'lower'}), 'policy_value': 'lower',
}  # fmt: skip
ODICE_CHANGES = SCHEDULE_CHANGES | {
    'gamma': 0.5, 'trust': 0.9, 'eta': 0.5, 'orthogonal': False, 'max_weight': 0.1, 'polyak': 0.5, 'learning_rate': 1e-3,
    'policy_weight_decay': 0.1, 'hidden': (9,), 'policy_hidden': (9,), 'num_members': 3, 'layer_norm': False,
    'aggregate': 'mean', 'rho': Given(0.1, {'aggregate': 'lower'}),
}  # fmt: skip
FQL_CHANGES = SCHEDULE_CHANGES | {
    'gamma': 0.5, 'polyak': 0.5, 'learning_rate': 1e-3, 'distil_weight': 3.0, 'normalise_q': True, 'aggregate': 'min',
    'num_candidates': 3,
    'rho': Given(0.1, {'aggregate': 'lower'}), 'hidden': (9,), 'num_critics': 3, 'critic_layer_norm': None, 'num_steps': 2,
    'kernel_init': 'orthogonal',
}  # fmt: skip
PARL = {'num_candidates': 4, 'num_kept': 3, 'num_steps': 2, 'step_size': 0.1}
PARL_CHANGES = SCHEDULE_CHANGES | {
    'learning_rate': 1e-3, 'imitate': 'data', 'distil_choice': 'best', 'acting': 'softmax', 'num_candidates': 5, 'num_kept': 2,
    'num_steps': 1, 'step_size': 1.0, 'aggregate': 'min', 'rho': Given(3.0, {'aggregate': 'lower'}),
    'temperature': Given(9.0, {'acting': 'softmax', 'step_size': 1.0}), 'climb_aggregate': Given('min', {'step_size': 1.0}),
    'slow_critic': True, 'cached': True, 'refresh_every': Given(2, {'cached': True}),
}  # fmt: skip
REBRAC = SMALL | {'critic_cloning_weight': 0.1, 'cloning_weight': 0.1, 'critic_layer_norm': 'after', 'policy_value': 'min'}
RLPD = SMALL | {'num_critics': 4, 'num_target_critics': 2, 'utd': 2, 'critic_layer_norm': 'before', 'policy_value': 'mean'}
SMALL_CALQL = SMALL | {'critic_hidden': (8,), 'num_actions': 3}


def _wrapped(config):
    signal = rnd(SPEC, RNDConfig(hidden=(8,), num_features=4))
    agent = value_bounds(bonus(iql(SPEC, config), signal, scale=2.0), gamma=0.9, low=-2.0, high=2.0)
    agent = terminal_at_reward(rescaled_reward(agent, scale=2.0, shift=-1.0), reward=4.0)
    return normalised_observation(agent, np.full(3, 0.1), np.full(3, 2.0))


def _prdc(config):
    data = random_batch(jax.random.key(5), ROWS)
    return prdc(SPEC, config, observation=data.observation, action=data.action)


DIFFUSION = DiffusionConfig(hidden=(8,), time_hidden=(8, 8), num_time_features=4, num_levels=3)  # with a slow copy
TOKENS = AutoregressiveConfig(num_bins=5, num_layers=1, num_heads=2, width=8, ema_rate=0.1)
AGENTS = {
    'bc': Row(
        lambda config: bc(SPEC, config), BCConfig, SMALL,
        SCHEDULE_CHANGES | {'hidden': (9,), 'learning_rate': 1e-3, 'dropout': 0.5},
    ),
    'iql': Row(lambda config: iql(SPEC, config), IQLConfig, SMALL, IQL_CHANGES),
    'iql_hl_gauss': Row(lambda config: iql(SPEC, config, head=hl_gauss_head(-5.0, 5.0, 11)), IQLConfig, SMALL),
    'iql_wrapped': Row(_wrapped, IQLConfig, SMALL),
    'iql_diffusion': Row(lambda config: iql(SPEC, config, policy=diffusion_policy(SPEC, DIFFUSION)), IQLConfig, SMALL),
    'bc_tokens': Row(lambda config: bc(SPEC, config, policy=autoregressive_policy(SPEC, TOKENS)), BCConfig),
    'td3_mean_flow': Row(
        lambda config: td3(SPEC, config, policy=mean_flow_policy(SPEC, MeanFlowConfig(hidden=(8,), ema_rate=0.1))),
        TD3Config, SMALL | {'policy_action': 'sample', 'cloning_weight': 1.0, 'policy_delay': 1},
    ),
    'td3_flow': Row(
        lambda config: td3(SPEC, config, policy=flow_policy(SPEC, FlowConfig(hidden=(8,), num_steps=2, ema_rate=0.1))),
        TD3Config, SMALL | {'policy_action': 'sample', 'cloning_weight': 1.0},
    ),
    'td3': Row(lambda config: td3(SPEC, config), TD3Config, SMALL, TD3_CHANGES, {'next_action': jnp.zeros((ROWS, 2))}),
    'rebrac': Row(lambda config: td3(SPEC, config), TD3Config, REBRAC, extras={'next_action': jnp.zeros((ROWS, 2))}),
    'sac': Row(lambda config: sac(SPEC, config), SACConfig, SMALL, SAC_CHANGES),
    'rlpd': Row(lambda config: sac(SPEC, config), SACConfig, RLPD),
    'wsrl': Row(lambda config: wsrl(SPEC, config), WSRLConfig, SMALL_CALQL | {'utd': 2}),
    'odice': Row(lambda config: odice(SPEC, config), ODICEConfig, SMALL | {'policy_hidden': (8,)}, ODICE_CHANGES),
    'prdc': Row(_prdc, PRDCConfig, SMALL),
    'fql': Row(lambda config: fql(SPEC, config), FQLConfig, SMALL, FQL_CHANGES),
    'expo': Row(
        lambda config: expo(
            SPEC, config, critic=fql_critic(SPEC, FQLConfig(hidden=(8,))), policy=gaussian_policy(SPEC, (8,))
        ),
        EXPOConfig, SMALL | {'num_candidates': 2},
    ),
    'dsrl': Row(
        lambda config: dsrl(
            SPEC, config, critic=fql_critic(SPEC, FQLConfig(hidden=(8,))), policy=gaussian_policy(SPEC, (8,))
        ),
        DSRLConfig, SMALL,
    ),
    'qam': Row(lambda config: qam(SPEC, config), QAMConfig, SMALL | {'num_critics': 2, 'num_steps': 3}),
    'parl': Row(
        lambda config: parl(
            SPEC, config, critic=iql_critic(SPEC, IQLConfig(hidden=(8,))), policy=flow_policy(SPEC, FlowConfig(hidden=(8,))),
            states=jnp.ones((4, 3)),
        ),
        PARLConfig, PARL, PARL_CHANGES,
        {name: jnp.zeros((ROWS, 4, 2)) for name in ('candidates', 'next_candidates')}
        | {name: jnp.zeros(ROWS) for name in ('place', 'next_place')},
    ),
    'parl_sac': Row(
        lambda config: parl(
            SPEC, config, critic=sac_critic(SPEC, SACConfig(hidden=(8,), utd=2, num_target_critics=1)),
            policy=gaussian_policy(SPEC, (8,)),
        ),
        PARLConfig, PARL,
    ),
    'parl_calql': Row(
        lambda config: parl(
            SPEC, config, critic=calql_critic(
                SPEC, CalQLCriticConfig(critic_hidden=(8,), num_actions=3, num_target_critics=1, num_gap_critics=1)
            ),
            policy=gaussian_policy(SPEC, (8,)),
        ),
        PARLConfig, PARL, extras={'return_to_go': jnp.ones(ROWS)},
    ),
    'calql': Row(
        lambda config: calql(SPEC, config), CalQLConfig, SMALL_CALQL, CALQL_CHANGES, {'return_to_go': jnp.ones(ROWS)}
    ),
}

SIGNALS = {
    'rnd': Row(
        lambda config: rnd(SPEC, config), RNDConfig, {'hidden': (8,), 'num_features': 6},
        {
            'hidden': (9,), 'num_features': 7, 'learning_rate': 1e-3, 'mask_probability': 0.9, 'clip': 0.5,
            'order': 'score_first', 'normaliser': 'none', 'kernel_init': 'xavier_uniform', 'last_init': 'small',
        },
    ),
    'state_action_counts': Row(lambda config: state_action_counts([-2.0] * 3, [2.0] * 3, (4, 4, 4), (3, 3))),
    'ensemble_disagreement': Row(
        lambda config: ensemble_disagreement(SPEC, config), DisagreementConfig, {'hidden': (8,)},
        {
            'hidden': (9,), 'num_members': 3, 'learning_rate': 1e-3, 'mask_probability': 0.9, 'clip': 0.5,
            'normaliser': 'deviation',
        },
    ),
}  # fmt: skip

ROW_OF = AGENTS | SIGNALS
KEYS = jax.random.split(jax.random.key(42), 3)
# A bonus reads all successors; Cal-QL's gap takes actions from the policy at them.
READ_FINAL_SUCCESSORS = ('iql_wrapped', 'calql', 'parl_calql')


def _batch(name, seed=0):
    return random_batch(jax.random.key(seed), ROWS, **ROW_OF[name].extras)


@pytest.mark.parametrize('name', AGENTS)
def test_agents_conform(name):
    check_agent(ROW_OF[name].make(), SPEC, batch=_batch(name), reads_final_successors=name in READ_FINAL_SUCCESSORS)


@pytest.mark.parametrize('name', SIGNALS)
def test_signals_conform(name):
    check_signal(ROW_OF[name].make(), SPEC)


def _update_of(name, made):
    """`update` of an agent or, with the score among the metrics, of a signal."""
    if name in AGENTS:
        return made.update

    def update(state, batch, key):
        state, score, metrics = made.update(state, batch, key)
        return state, {'score': score, **metrics}

    return update


def _same(left, right):
    return jax.tree.structure(left) == jax.tree.structure(right) and all(
        np.array_equal(a, b, equal_nan=True) for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    )


def _fingerprint(name, **settings):
    """What initialisation, two updates and acting come to under some settings: items from cheap to dear, made when asked for.

    Run with numpy: each is another program, which runs once or twice.
    """
    made, key = ROW_OF[name].make(**settings), jax.random.key(0)
    init = jax.jit(made.init)  # traced once; never compiled
    yield jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(init, key))
    state = schedules.begin(interpreted(init)(key), 4)
    yield state
    update = interpreted(_update_of(name, made))
    for seed in range(2):
        state, metrics = update(state, _batch(name, seed), KEYS[seed])
        yield state, metrics
    if name in AGENTS:
        yield [interpreted(act)(state, _batch(name).observation, key) for act in (made.sample_action, made.best_action)]


def _learnt(state):
    """The parameters that gradients move, by name; slow copies and optimisers left out."""
    found = {}
    for name, value in state._asdict().items():
        if hasattr(value, '_asdict'):
            found |= _learnt(value)
        elif not name.startswith('target_') and not name.endswith('_opt'):
            found[name] = value
    return found


@pytest.mark.parametrize('name', ['bc', 'iql', 'td3', 'sac', 'rlpd', 'odice', 'calql'])
def test_every_rate_falls_to_zero_with_the_phase(name):
    agent, states = ROW_OF[name].make(schedule='linear'), []
    state = schedules.begin(interpreted(agent.init)(jax.random.key(0)), 2)
    update = interpreted(agent.update)
    for seed in range(3):
        state, _ = update(state, _batch(name, seed), KEYS[seed])
        states.append(_learnt(state))
    moved = {part for part in states[0] if not _same(states[0][part], states[1][part])}
    assert moved == set(states[0]) - {'log_dual'}
    assert all(_same(states[1][part], states[2][part]) for part in states[0])


_fingerprint_of_defaults = functools.cache(lambda name: tuple(_fingerprint(name)))
CHANGES = [(name, setting) for name, row in ROW_OF.items() for setting in row.changes]


@pytest.mark.parametrize(('name', 'setting'), CHANGES)
def test_every_setting_changes_something(name, setting):
    change = ROW_OF[name].changes[setting]
    if isinstance(change, Given):
        before, change, given = _fingerprint(name, **change.settings), change.value, change.settings
    else:
        before, given = _fingerprint_of_defaults(name), {}
    after = _fingerprint(name, **given | {setting: change})
    assert any(not _same(b, a) for b, a in zip(before, after, strict=True))


@pytest.mark.parametrize('name', [name for name, row in ROW_OF.items() if row.changes])
def test_no_setting_is_forgotten(name):
    assert {f.name for f in fields(ROW_OF[name].config)} == set(ROW_OF[name].changes)
