"""CQL and Cal-QL against numbers recorded from the official Cal-QL code, in all 16 combinations of its settings."""

import itertools

import golden
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import Replay
from small import blank

from ooorl.agents.calql import CalQLConfig, calql
from ooorl.interpreted import interpreted
from ooorl.nn.losses import calibrated, conservative_gap
from ooorl.policies.gaussian import tanh_gaussian_policy
from ooorl.types import Spec

pytestmark = pytest.mark.usefixtures('highest_precision')
SPEC = Spec(observation_dim=5, action_dim=3)
SETTINGS = list(itertools.product((0, 1), repeat=4))


def _config(arrays, importance, calibrate, lagrange, maximum):
    names = {'gamma': 'discount', 'polyak': 'tau', 'learning_rate': 'qf_lr', 'policy_learning_rate': 'policy_lr',
             'conservative_weight': 'min_q_weight', 'gap_temperature': 'cql_temp', 'target_entropy': 'target_entropy'}
    settings = {ours: golden.decimal(arrays, f'hp_{theirs}') for ours, theirs in names.items()}
    return CalQLConfig(
        **settings, num_actions=int(arrays['hp_n_actions']),
        target_gap=golden.decimal(arrays, 'hp_gap') if lagrange else None,
        importance_sampling=bool(importance), calibrate=bool(calibrate), max_target_backup=bool(maximum),
        hidden=(8, 8), critic_hidden=(8, 8),
    )


def _policy_tree(arrays, prefix):
    affine = [arrays[f'{prefix}/log_std_{name}'] for name in ('multiplier', 'offset')]
    return {'network': golden.dense_tree(arrays, prefix), 'log_std_affine': jnp.asarray(np.stack(affine), jnp.float32)}


def _start(arrays, agent):
    q, slow = (tuple(golden.dense_tree(arrays, f'init/{name}{e}') for e in range(2)) for name in ('q', 'tq'))
    log_dual, log_temperature = (jnp.asarray(arrays[f'init/{n}'], jnp.float32) for n in ('log_alpha_prime', 'log_alpha'))
    state = blank(agent.init)
    critic = state.critic._replace(q=q, target_q=slow, log_dual=log_dual)
    return state._replace(critic=critic, policy=_policy_tree(arrays, 'init/pi'), log_temperature=log_temperature)


def _noise(arrays, name, step):
    """`[num, B, A]`."""
    noise = jnp.asarray(arrays[f'noise/{name}'][step - 1])
    return noise[None] if noise.ndim == 2 else jnp.swapaxes(noise, 0, 1)


def _draws(arrays, config, step):
    """Uniform actions, the noise at s' (first that of the target) and the noise at s (first that of the policy's loss)."""
    ahead = [_noise(arrays, name, step) for name in ('next_multi' if config.max_target_backup else 'next_single', 'cql_next')]
    now = [_noise(arrays, name, step) for name in ('new', 'cql_current')]
    return _noise(arrays, 'cql_uniform', step), jnp.concatenate(ahead), jnp.concatenate(now)


def _check_values(comparison, here, config, policy, agent, state, batch, draws):
    """Everything that the losses are made of, rebuilt from the policy's draws, the agent's values and the two public formulas."""
    n, (uniform, ahead, now) = config.num_actions, draws
    (at_next, log_next), (at_now, log_now) = (
        Replay('normal').run(
            lambda seen, noise: policy.sample_and_log_prob(state.policy, seen, jax.random.key(0), len(noise)),
            [noise], seen, noise,
        )
        for seen, noise in ((batch.next_observation, ahead), (batch.observation, now))
    )
    comparison.check('value', f'{here}/new_actions', at_now[0])
    comparison.check('value', f'{here}/log_pi', log_now[0])
    log_prob = -interpreted(policy.loss)(state.policy, batch.observation, batch.action, None)
    comparison.check('value', f'{here}/log_pi_data', log_prob)
    slow = state._replace(critic=state.critic._replace(q=state.critic.target_q))
    target_q = interpreted(agent.q)(slow, batch.next_observation, at_next[:-n]).min(axis=0)
    comparison.check('value', f'{here}/target_q_values', target_q.max(axis=0))
    if config.max_target_backup:
        np.testing.assert_array_equal(target_q.argmax(axis=0), comparison.arrays[f'{here}/max_target_indices'][:, 0])
    q_data = interpreted(agent.q)(state, batch.observation, batch.action)
    q = interpreted(agent.q)(state, batch.observation, jnp.concatenate([uniform, at_next[-n:], at_now[1:]]))
    if config.calibrate:
        q = jnp.concatenate([q[:, :n], calibrated(q[:, n:], batch.extras['return_to_go'])], axis=1)
    flat = jnp.full(uniform.shape[:-1], -3 * np.log(2.0))
    density = jnp.concatenate([flat, log_next[-n:], log_now[1:]]) if config.importance_sampling else None
    gap = conservative_gap(q_data, q, density, config.gap_temperature)
    for e in range(2):
        comparison.check('value', f'{here}/q{e + 1}_pred', q_data[e])
        comparison.check('value', f'{here}/cql_qf{e + 1}_ood', gap[e] + q_data[e])
        comparison.check('scalar', f'{here}/cql_qf{e + 1}_diff', gap[e].mean())
        for name, rows in (('rand', q[e, :n]), ('next_actions', q[e, n : 2 * n]), ('current_actions', q[e, 2 * n :])):
            comparison.check('value', f'{here}/cql_q{e + 1}_{name}', rows.T)


def _check_losses(comparison, here, config, metrics, gradients):
    arrays, (policy, _, q, *dual) = comparison.arrays, gradients
    q_loss = arrays[f'{here}/loss_qf1'] + arrays[f'{here}/loss_qf2']
    bellman = arrays[f'{here}/qf1_bellman_loss'] + arrays[f'{here}/qf2_bellman_loss']
    gap = (arrays[f'{here}/cql_qf1_diff'] + arrays[f'{here}/cql_qf2_diff']) / 2
    comparison.check_numbers('scalar', 'q loss', metrics['q/loss'], q_loss)
    comparison.check_numbers('scalar', 'bellman', metrics['q/bellman'], bellman)
    comparison.check_numbers('scalar', 'gap', metrics['q/gap'], gap)
    comparison.check('scalar', f'{here}/loss_policy', metrics['policy/loss'])
    comparison.check('scalar', f'{here}/loss_log_alpha', metrics['temperature/loss'])
    comparison.check('scalar', f'{here}/alpha', metrics['temperature/value'])
    comparison.check('scalar', f'{here}/gnorm_policy', optax.tree.norm(policy))
    for e in range(2):
        comparison.check('scalar', f'{here}/gnorm_qf{e + 1}', optax.tree.norm(q[e]))
    np.testing.assert_allclose(metrics['q/target'], arrays[f'{here}/td_target'].mean(), rtol=1e-5, atol=1e-6)
    assert len(dual) == (config.target_gap is not None)
    if dual:
        comparison.check('scalar', f'{here}/loss_log_alpha_prime', metrics['dual/loss'])
        comparison.check('scalar', f'{here}/alpha_prime', metrics['dual/value'])


def _check_policy(comparison, kind, prefix, policy):
    comparison.check_tree(kind, prefix, policy['network'])
    for i, name in enumerate(('multiplier', 'offset')):
        comparison.check(kind, f'{prefix}/log_std_{name}', policy['log_std_affine'][i])


def _check_state(comparison, prefix, config, state):
    _check_policy(comparison, 'parameter', f'{prefix}/pi', state.policy)
    for e in range(2):
        comparison.check_tree('parameter', f'{prefix}/q{e}', state.critic.q[e])
        comparison.check_tree('parameter', f'{prefix}/tq{e}', state.critic.target_q[e])
    comparison.check('parameter', f'{prefix}/log_alpha', state.log_temperature)
    if config.target_gap is not None:
        comparison.check('parameter', f'{prefix}/log_alpha_prime', state.critic.log_dual)


def _batch(arrays, step):
    return golden.batch(arrays, step, return_to_go=jnp.asarray(arrays['batch/mc_return'][step - 1]))


def _check_gradients(comparison, variant, gradients):
    policy, temperature, q, *_ = gradients
    for e in range(2):
        comparison.check_tree('gradient', f'{variant}/grad1/q{e}', q[e])
    if f'{variant}/grad1/pi/w0' in comparison.arrays:
        _check_policy(comparison, 'gradient', f'{variant}/grad1/pi', policy)
        comparison.check('scalar', f'{variant}/grad1/log_alpha', temperature)


@pytest.mark.parametrize('importance, calibrate, lagrange, maximum', SETTINGS)
def test_official_calql(golden_dir, importance, calibrate, lagrange, maximum):
    arrays = golden.load(golden_dir, 'calql_16')
    config, comparison = _config(arrays, importance, calibrate, lagrange, maximum), golden.Comparison(arrays)
    variant = f'is{importance}_cal{calibrate}_lag{lagrange}_max{maximum}'
    # Op by op: compiling 16 variants would take twice as long.
    replay = Replay('uniform', 'normal', 'normal')
    policy = tanh_gaussian_policy(SPEC, (8, 8), log_std_affine=(1.0, -1.0))
    agent = calql(SPEC, config, policy=policy, grad_transform=replay.grad_transform)
    state = _start(arrays, agent)
    for step in (1, 2):
        here, batch, draws = f'{variant}/step{step}', _batch(arrays, step), _draws(arrays, config, step)
        _check_values(comparison, here, config, policy, agent, state, batch, draws)
        state, metrics = replay.run(agent.update, draws, state, batch, jax.random.key(step))
        _check_losses(comparison, here, config, metrics, replay.gradients)
        if step == 1:
            _check_gradients(comparison, variant, replay.gradients)
        _check_state(comparison, f'{variant}/after{step}', config, state)
    print(variant, comparison.worst)
