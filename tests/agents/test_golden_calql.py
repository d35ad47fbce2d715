"""CQL and Cal-QL against numbers recorded from the official Cal-QL code, in all 16 combinations of its settings."""

import itertools

import golden
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import blank

from ooorl.agents.calql import CalQLConfig, CalQLState, _actor_parts, _critic_parts, _gather
from ooorl.nn.distributions import tanh_gaussian_from_noise, tanh_gaussian_log_prob
from ooorl.nn.heads import scalar_head
from ooorl.nn.losses import calibrated, conservative_gap
from ooorl.nn.networks import mlp
from ooorl.types import DensityPolicy, Spec

pytestmark = pytest.mark.usefixtures('highest_precision')
SPEC = Spec(observation_dim=5, action_dim=3)
SETTINGS = list(itertools.product((0, 1), repeat=4))


def _moments(params, observation):
    mean, raw = jnp.split(mlp((8, 8), 6).apply(params['network'], observation), 2, axis=-1)
    return mean, jnp.clip(params['log_std_affine'][0] * raw + params['log_std_affine'][1], -20.0, 2.0)


def _draw(params, observation, noise, num):
    """The recorded noise `[num, B, A]` stands in the place of a key."""
    mean, log_std = _moments(params, observation)
    return tanh_gaussian_from_noise(noise, *(jnp.broadcast_to(x, (num, *x.shape)) for x in (mean, log_std)))


def _policy_of_noise():
    def missing(*_):
        raise NotImplementedError

    return DensityPolicy(init=missing, sample=missing, mode=missing, loss=missing, sample_and_log_prob=_draw)


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


def _start(arrays, critic, optimizer):
    q, slow = (tuple(golden.dense_tree(arrays, f'init/{name}{e}') for e in range(2)) for name in ('q', 'tq'))
    log_dual, log_temperature = (jnp.asarray(arrays[f'init/{n}'], jnp.float32) for n in ('log_alpha_prime', 'log_alpha'))
    state, policy = blank(critic.init), _policy_tree(arrays, 'init/pi')
    state = state._replace(q=q, target_q=slow, log_dual=log_dual)
    return CalQLState(state, policy, optimizer.init(policy), log_temperature, optimizer.init(log_temperature))


def _noise(arrays, name, step):
    """`[num, B, A]`."""
    noise = jnp.asarray(arrays[f'noise/{name}'][step - 1])
    return noise[None] if noise.ndim == 2 else jnp.swapaxes(noise, 0, 1)


def _check_values(comparison, here, config, critic, state, batch, draws):
    """Everything the critic's losses are made of, rebuilt from the same parts."""
    n, arrays = config.num_actions, comparison.arrays
    q_data = critic.q_values(state.critic.q, batch.observation, batch.action)
    q = critic.q_values(state.critic.q, batch.observation, draws.sampled)
    if config.calibrate:
        q = jnp.concatenate([q[:, :n], calibrated(q[:, n:], batch.extras['return_to_go'])], axis=1)
    gap = conservative_gap(q_data, q, draws.log_density, config.gap_temperature)
    slow = critic.q_values(state.critic.target_q, batch.next_observation, draws.backup).min(axis=0)
    comparison.check('value', f'{here}/target_q_values', slow.max(axis=0))
    for e in range(2):
        comparison.check('value', f'{here}/q{e + 1}_pred', q_data[e])
        comparison.check('value', f'{here}/cql_qf{e + 1}_ood', gap[e] + q_data[e])
        comparison.check('scalar', f'{here}/cql_qf{e + 1}_diff', gap[e].mean())
        for name, rows in (('rand', q[e, :n]), ('next_actions', q[e, n : 2 * n]), ('current_actions', q[e, 2 * n :])):
            comparison.check('value', f'{here}/cql_q{e + 1}_{name}', rows.T)
    if config.max_target_backup:
        np.testing.assert_array_equal(slow.argmax(axis=0), arrays[f'{here}/max_target_indices'][:, 0])


def _check_losses(comparison, here, config, state, metrics):
    arrays = comparison.arrays
    q_loss = arrays[f'{here}/loss_qf1'] + arrays[f'{here}/loss_qf2']
    bellman = arrays[f'{here}/qf1_bellman_loss'] + arrays[f'{here}/qf2_bellman_loss']
    comparison.check_numbers('scalar', 'q loss', metrics['q/loss'], q_loss)
    comparison.check_numbers('scalar', 'bellman', metrics['q/bellman'], bellman)
    comparison.check('scalar', f'{here}/loss_policy', metrics['policy/loss'])
    comparison.check('scalar', f'{here}/loss_log_alpha', metrics['temperature/loss'])
    comparison.check('scalar', f'{here}/alpha', metrics['temperature/value'])
    comparison.check('scalar', f'{here}/gnorm_policy', optax.tree.norm(state.policy_opt[0]))
    for e in range(2):
        comparison.check('scalar', f'{here}/gnorm_qf{e + 1}', optax.tree.norm(state.critic.q_opt[0][e]))
    np.testing.assert_allclose(metrics['q/target'], arrays[f'{here}/td_target'].mean(), rtol=1e-5, atol=1e-6)
    if config.target_gap is not None:
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


def _check_gradients(comparison, variant, state):
    for e in range(2):
        comparison.check_tree('gradient', f'{variant}/grad1/q{e}', state.critic.q_opt[0][e])
    if f'{variant}/grad1/pi/w0' in comparison.arrays:
        _check_policy(comparison, 'gradient', f'{variant}/grad1/pi', state.policy_opt[0])
        comparison.check('scalar', f'{variant}/grad1/log_alpha', state.temperature_opt[0])


@pytest.mark.parametrize('importance, calibrate, lagrange, maximum', SETTINGS)
def test_official_calql(golden_dir, importance, calibrate, lagrange, maximum):
    arrays = golden.load(golden_dir, 'calql_16')
    config, comparison = _config(arrays, importance, calibrate, lagrange, maximum), golden.Comparison(arrays)
    variant = f'is{importance}_cal{calibrate}_lag{lagrange}_max{maximum}'
    critic = _critic_parts(SPEC, config, scalar_head(), golden.recorded_gradient())
    optimizer, update_with = _actor_parts(SPEC, config, _policy_of_noise(), critic, golden.recorded_gradient())
    state = _start(arrays, critic, optimizer)
    for step in (1, 2):
        here, batch, old = f'{variant}/step{step}', _batch(arrays, step), state
        backup_noise = _noise(arrays, 'next_multi' if maximum else 'next_single', step)
        now = jnp.concatenate([_noise(arrays, 'new', step), _noise(arrays, 'cql_current', step)])
        ahead = jnp.concatenate([backup_noise, _noise(arrays, 'cql_next', step)])
        uniform = _noise(arrays, 'cql_uniform', step)
        at_now, log_now = _draw(old.policy, batch.observation, now, len(now))
        at_next, log_next = _draw(old.policy, batch.next_observation, ahead, len(ahead))
        comparison.check('value', f'{here}/new_actions', at_now[0])
        comparison.check('value', f'{here}/log_pi', log_now[0])
        log_prob = tanh_gaussian_log_prob(batch.action, *_moments(old.policy, batch.observation))
        comparison.check('value', f'{here}/log_pi_data', log_prob)
        draws = _gather(SPEC, config, uniform, at_next, at_now[1:], log_next, log_now[1:])
        _check_values(comparison, here, config, critic, old, batch, draws)
        # Op by op: compiling 16 variants would take twice as long.
        state, metrics = update_with(old, batch, uniform, now, ahead, jax.random.key(0))
        _check_losses(comparison, here, config, state, metrics)
        if step == 1:
            _check_gradients(comparison, variant, state)
        _check_state(comparison, f'{variant}/after{step}', config, state)
    print(variant, comparison.worst)
