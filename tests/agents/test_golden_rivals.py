"""EXPO-like edits and their kin against updates recorded from QAM's released code, all on one critic and on chunks."""

from collections.abc import Callable
from typing import NamedTuple

import draws
import golden
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import blank

from ooorl.agents.dsrl import DSRLConfig, dsrl
from ooorl.agents.expo import EXPOConfig, expo
from ooorl.agents.fql import FQLConfig, FQLCriticState, fql_critic
from ooorl.agents.iql import IQLConfig, iql
from ooorl.agents.qam import QAMConfig, qam
from ooorl.policies.averaged import Averaged, averaged
from ooorl.policies.flow import FlowConfig, flow_policy
from ooorl.types import Spec
from ooorl.windows import one_decision
from ooorl.wrap import chunked

pytestmark = pytest.mark.usefixtures('highest_precision')
SPEC = Spec(observation_dim=5, action_dim=9)
FLOW = FlowConfig(hidden=(8, 8))


def critic_config(arrays):
    return FQLConfig(
        gamma=golden.decimal(arrays, 'hp_discount'), polyak=golden.decimal(arrays, 'hp_tau'),
        learning_rate=golden.decimal(arrays, 'hp_lr'), aggregate='lower', rho=golden.decimal(arrays, 'hp_rho'), hidden=(8, 8),
        num_critics=int(arrays['hp_num_qs']), num_steps=int(arrays['hp_flow_steps']),
    )  # fmt: skip


class Case(NamedTuple):
    """One recorded agent.

    Attributes:
      make: `(arrays, grad_transform) -> Agent`, not chunked.
      fields: names of the state's learnt fields to `(arrays, prefix) -> parameters`; 'critic' is `FQLCriticState`.
      draws: what an update draws, in its order: (of jax.random, name of the numbers, axes in front of the rows).
      metrics: of the agent to those of the record.
      moved: the fields, in the order of the optimisers' steps.
      acting: what acting draws: the name of the numbers, axes in front of the candidates.
    """

    make: Callable
    fields: dict
    draws: list
    metrics: dict
    moved: tuple
    acting: tuple


def made_expo(arrays, grad_transform):
    config = EXPOConfig(
        learning_rate=golden.decimal(arrays, 'hp_lr'), edit_scale=golden.decimal(arrays, 'hp_edit_scale'), hidden=(8, 8),
        num_candidates=int(arrays['hp_best_of_n']), keep_plain=False,
        target_entropy=golden.decimal(arrays, 'hp_edit_target_entropy'),
    )  # fmt: skip
    critic = fql_critic(SPEC, critic_config(arrays), grad_transform=grad_transform)
    return expo(SPEC, config, critic=critic, policy=flow_policy(SPEC, FLOW), grad_transform=grad_transform)


def flow_of(net):
    return lambda arrays, prefix: golden.flow_tree(arrays, f'{prefix}/{net}', SPEC.action_dim)


def squashed_of(net):
    return lambda arrays, prefix: golden.squashed_tree(arrays, f'{prefix}/{net}')


def log_temperature(arrays, prefix):
    return jnp.asarray(arrays[f'{prefix}/log_alpha'])


def made_dsrl(arrays, grad_transform):
    config = DSRLConfig(
        learning_rate=golden.decimal(arrays, 'hp_lr'), noise_bound=golden.decimal(arrays, 'hp_noise_scale'), hidden=(8, 8),
        num_candidates=int(arrays['hp_best_of_n']), target_entropy=golden.decimal(arrays, 'hp_target_entropy'),
    )  # fmt: skip
    critic = fql_critic(SPEC, critic_config(arrays), grad_transform=grad_transform)
    policy = averaged(flow_policy(SPEC, FLOW), golden.decimal(arrays, 'hp_tau'), lags=True)
    return dsrl(SPEC, config, critic=critic, policy=policy, grad_transform=grad_transform)


def averaged_flow(arrays, prefix):
    fitted = flow_of('flow')(arrays, prefix)
    return fitted if prefix == 'grad1' else Averaged(fitted, flow_of('tflow')(arrays, prefix))


def made_qam(arrays, grad_transform):
    config = QAMConfig(
        **vars(critic_config(arrays)) | {'inverse_temperature': golden.decimal(arrays, 'hp_inv_temp')},
    )
    return qam(SPEC, config, grad_transform=grad_transform)


def averaged_slow(arrays, prefix):
    fitted = flow_of('slow')(arrays, prefix)
    return fitted if prefix == 'grad1' else Averaged(fitted, flow_of('tslow')(arrays, prefix))


CASES = {
    'qam_qam_h3_e4': Case(
        made_qam,
        {'policy': averaged_slow, 'fast': flow_of('fast')},
        [
            ('normal', 'next_z', 'n'), ('normal', 'chain_x0', ''), ('normal', 'chain_w', 'w'), ('normal', 'flow_x0', ''),
            ('uniform', 'flow_t', 't'),
        ],
        {'q/loss': 'critic_critic_loss', 'policy/loss': 'actor_flow_loss', 'fast/loss': 'actor_adj_loss'},
        ('q', 'policy', 'fast'),
        (('noise', 0),),
    ),
    'qam_dsrl_h3_e4': Case(
        made_dsrl,
        {
            'policy': averaged_flow, 'steering': squashed_of('pi'), 'log_temperature': log_temperature,
            'noise_q': lambda arrays, prefix: golden.ensemble_tree(arrays, f'{prefix}/zq'),
        },
        [
            ('normal', 'next_eps', 'n'), ('normal', 'distill_z', ''), ('normal', 'flow_x0', ''), ('uniform', 'flow_t', 't'),
            ('normal', 'eps', '1'),
        ],
        {
            'q/loss': 'critic_critic_loss', 'noise_q/loss': 'critic_distill_loss', 'policy/loss': 'actor_flow_loss',
            'steering/loss': 'actor_actor_loss', 'steering/entropy': 'actor_entropy', 'temperature/loss': 'actor_alpha_loss',
        },
        ('q', 'noise_q', 'policy', 'steering', 'log_temperature'),
        (('eps', 0),),
    ),
    'qam_fedit_h3_e4_bon4': Case(
        made_expo,
        {'policy': flow_of('flow'), 'edit': squashed_of('edit'), 'log_temperature': log_temperature},
        [
            ('normal', 'next_z', 'n'), ('normal', 'next_edit_eps', '1n'), ('normal', 'flow_x0', ''), ('uniform', 'flow_t', 't'),
            ('normal', 'base_z', '1'), ('normal', 'edit_eps', '1'),
        ],
        {
            'q/loss': 'critic_critic_loss', 'policy/loss': 'actor_bc_flow_loss', 'temperature/loss': 'actor_edit_alpha_loss',
            'edit/entropy': 'actor_edit_entropy', 'temperature/value': 'alpha',
        },
        ('q', 'policy', 'edit', 'log_temperature'),
        (('noise', 0), ('edit_eps', 1)),
    ),
}  # fmt: skip


def noise(arrays, name, shape, number):
    """Numbers of one draw: candidates come first here and behind the rows there."""
    values = arrays[f'noise/{name}'][number]
    if 'n' in shape:
        values = np.moveaxis(values, 1, 0)
    if 't' in shape:
        values = values[:, 0]
    if 'w' in shape:
        values = values[:-1]  # the last of them is drawn there and never used
    return values[None] if '1' in shape else values


def recorded(case, arrays, prefix, slow=True):
    """All recorded parameters, by the fields of the state; of the critic both."""
    nets = {'q': 'q', 'target_q': 'tq'} if slow else {'q': 'q'}
    critic = {field: golden.ensemble_tree(arrays, f'{prefix}/{net}') for field, net in nets.items()}
    return critic | {field: tree(arrays, prefix) for field, tree in case.fields.items()}


def held(case, state):
    """The same of a state."""
    critic = getattr(state, 'critic', state)
    return {'q': critic.q, 'target_q': critic.target_q} | {field: getattr(state, field) for field in case.fields}


def compare(comparison, kind, name, ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        comparison.check_numbers(kind, name, mine, other)


def started(case, arrays, agent, prefix='init'):
    state, found = blank(agent.init), recorded(case, arrays, prefix)
    if hasattr(state, 'critic'):
        critic = FQLCriticState(q=found.pop('q'), q_opt=state.critic.q_opt, target_q=found.pop('target_q'))
        found['critic'] = critic
    return state._replace(**found)


@pytest.mark.parametrize('name', CASES)
def test_the_released_updates(golden_dir, name):
    arrays, case = golden.load(golden_dir, name), CASES[name]
    comparison, gamma = golden.Comparison(arrays), golden.decimal(arrays, 'hp_discount')
    replayed = draws.Replay(*(kind for kind, *_ in case.draws))
    agent = chunked(case.make(arrays, replayed.grad_transform), 3, gamma=gamma, ends='drop')
    state = started(case, arrays, agent)
    for number in range(1, 6):
        numbers = [noise(arrays, *draw[1:], number - 1) for draw in case.draws]
        state, metrics = replayed.run(agent.update, numbers, state, golden.windows(arrays, number, gamma), jax.random.key(0))
        for ours, theirs in case.metrics.items():
            comparison.check('scalar', f'step{number}/{theirs}', metrics[ours])
        np.testing.assert_allclose(metrics['q/target'], arrays[f'step{number}/td_target'].mean(), rtol=1e-5, atol=1e-6)
        if f'after{number}/q/w0' in arrays:
            theirs = recorded(case, arrays, f'after{number}')
            for field, ours in held(case, state).items():
                compare(comparison, 'parameter', f'after{number}/{field}', ours, theirs[field])
        if number == 1:
            theirs = recorded(case, arrays, 'grad1', slow=False)
            joint = replayed.gradients[0]
            gradients = [joint[field] for field in case.moved] if isinstance(joint, dict) else replayed.gradients
            for gradient, field in zip(gradients, case.moved, strict=True):
                compare(comparison, 'gradient', f'grad1/{field}', gradient, theirs[field])


@pytest.mark.parametrize('name', CASES)
def test_the_released_policies_act(golden_dir, name):
    arrays, case = golden.load(golden_dir, name), CASES[name]
    agent = case.make(arrays, optax.identity())
    state = started(case, arrays, agent, 'after5')
    replayed = draws.Replay(*('normal' for _ in case.acting))
    for number, observation in enumerate(arrays['act/obs']):
        numbers = [arrays[f'act/{key}'][number][(None,) * lead] for key, lead in case.acting]
        action = replayed.run(agent.best_action, numbers, state, jnp.asarray(observation), jax.random.key(0))
        golden.Comparison(arrays).check_numbers('value', 'act/action', action, arrays['act/action'][number])


def ifql_parts(arrays, prefix):
    """Recorded parameters by the fields of `IQLState`."""
    q, target_q = (golden.ensemble_tree(arrays, f'{prefix}/{net}') for net in ('q', 'tq'))
    return {'value': golden.dense_tree(arrays, f'{prefix}/v'), 'q': q, 'target_q': target_q}, flow_of('flow')(arrays, prefix)


def test_the_released_updates_of_ifql(golden_dir):
    arrays = golden.load(golden_dir, 'qam_ifql_h3_e4')
    comparison, gamma = golden.Comparison(arrays), golden.decimal(arrays, 'hp_discount')
    replayed = draws.Replay('normal', 'uniform')
    config = IQLConfig(
        gamma=gamma, polyak=golden.decimal(arrays, 'hp_tau'), learning_rate=golden.decimal(arrays, 'hp_lr'), hidden=(8, 8),
        expectile=golden.decimal(arrays, 'hp_kappa'), aggregate='lower', rho=golden.decimal(arrays, 'hp_rho'), num_critics=4,
        inverse_temperature=0.0, activation='gelu', layer_norm='after', at_once=True, q_loss='mean',
    )  # fmt: skip
    agent = iql(SPEC, config, policy=flow_policy(SPEC, FLOW), grad_transform=replayed.grad_transform)
    critic, policy = ifql_parts(arrays, 'init')
    state = blank(agent.init)
    state = state._replace(critic=state.critic._replace(**critic), policy=policy)
    for number in range(1, 6):
        numbers = [arrays['noise/flow_x0'][number - 1], arrays['noise/flow_t'][number - 1][:, 0]]
        windows = golden.windows(arrays, number, gamma)
        rows = one_decision(windows, gamma, 'drop')
        # There the steps behind an end are part of the action, and V is fitted to rows that count for nothing else. As all losses
        # read what was there before, V's part of an update without weights is that of the record, and the rest of one with them.
        rows = rows._replace(action=windows.action.reshape(7, -1))
        everywhere = rows._replace(extras={'weight': jnp.ones(7)})
        weighed, metrics = replayed.run(agent.update, numbers, state, rows, jax.random.key(0))
        gradients = replayed.gradients
        whole, of_v = replayed.run(agent.update, numbers, state, everywhere, jax.random.key(0))
        gradients[0] = replayed.gradients[0]
        found = {'q/loss': 'critic_critic_loss', 'value/loss': 'value_value_loss'}
        for ours, theirs in found.items():
            comparison.check('scalar', f'step{number}/{theirs}', (metrics | {'value/loss': of_v['value/loss']})[ours])
        np.testing.assert_allclose(metrics['policy/loss'] / 9, arrays[f'step{number}/actor_actor_loss'], rtol=1e-5)
        np.testing.assert_allclose(metrics['q/target'], arrays[f'step{number}/td_target'].mean(), rtol=1e-5, atol=1e-6)
        for gradient, net, factor in zip(gradients, ('v', 'flow', 'q'), (1, 9, 1), strict=True):
            norm = optax.tree.norm(gradient) / factor  # ours sums over the numbers of an action
            comparison.check('scalar', f'step{number}/gnorm_{net}', norm)
        critic = weighed.critic._replace(value=whole.critic.value, value_opt=whole.critic.value_opt)
        state = weighed._replace(critic=critic)
        if f'after{number}/q/w0' in arrays:
            critic, policy = ifql_parts(arrays, f'after{number}')
            compare(comparison, 'parameter', f'after{number}/flow', state.policy, policy)
            for field, theirs in critic.items():
                compare(comparison, 'parameter', f'after{number}/{field}', getattr(state.critic, field), theirs)
    acted = (arrays[f'act/{name}'] for name in ('obs', 'noise', 'candidate_q_min', 'index'))
    for observation, noise, values, index in zip(*acted, strict=True):
        candidates = flow_policy(SPEC, FLOW).decode(state.policy, jnp.asarray(observation), jnp.asarray(noise))
        found = agent.q(state, jnp.broadcast_to(observation, (8, 5)), candidates).min(axis=0)
        comparison.check_numbers('value', 'act/candidate_q_min', found, values)
        assert found.argmax() == index  # what `wrap.reranked` acts with
