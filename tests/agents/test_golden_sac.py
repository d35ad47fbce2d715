"""SAC and RLPD against numbers recorded from the official RLPD code."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import blank

from ooorl.agents.sac import SACConfig, _parts
from ooorl.nn.distributions import tanh_gaussian_from_noise
from ooorl.nn.heads import scalar_head
from ooorl.nn.networks import mlp
from ooorl.types import DensityPolicy, Spec

pytestmark = pytest.mark.usefixtures('highest_precision')
SPEC = Spec(observation_dim=5, action_dim=3)


def _policy_of_noise():
    """A tanh-Gaussian policy that takes recorded noise `[B, A]` in the place of a key."""
    network = mlp((8, 8), 6)

    def draw(params, observation, noise, num):
        mean, log_std = jnp.split(network.apply(params, observation), 2, axis=-1)
        return tanh_gaussian_from_noise(noise[None], mean[None], jnp.clip(log_std, -20.0, 2.0)[None])

    def missing(*_):
        raise NotImplementedError

    return DensityPolicy(
        init=lambda key: network.init(key, jnp.zeros((1, 5))), sample=missing, mode=missing, loss=missing,
        sample_and_log_prob=draw,
    )


def _config(arrays):
    names = {'gamma': 'discount', 'polyak': 'tau', 'learning_rate': 'lr', 'target_entropy': 'target_entropy'}
    return SACConfig(
        **{ours: golden.decimal(arrays, f'hp_{theirs}') for ours, theirs in names.items()}, hidden=(8, 8),
        num_critics=int(arrays['hp_num_qs']), num_target_critics=int(arrays['hp_num_min_qs']), utd=int(arrays['hp_utd']),
        critic_layer_norm='before' if arrays['hp_layer_norm'] else None, policy_value='mean',
        entropy_backup=bool(arrays['hp_backup_entropy']),
    )


def _member_arrays(arrays, prefix, num):
    """The stacked critics of a file, one entry per member."""
    stacked = {key: value for key, value in arrays.items() if key.startswith(prefix + '/')}
    return [{key.replace(prefix, 'member'): value[e] for key, value in stacked.items()} for e in range(num)]


def _members(arrays, prefix, num):
    return tuple(golden.dense_tree(member, 'member') for member in _member_arrays(arrays, prefix, num))


def _policy_arrays(arrays, prefix):
    """The two output layers of the recorded policy as one."""
    out = {key: value for key, value in arrays.items() if key.startswith(prefix + '/') and 'logstd' not in key}
    for name in ('w', 'b'):
        out[f'{prefix}/{name}2'] = np.concatenate([arrays[f'{prefix}/{name}2'], arrays[f'{prefix}/{name}_logstd']], axis=-1)
    return out


def _check_trees(comparison, kind, name, ours, theirs):
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        comparison.check_numbers(kind, name, mine, other)


def _check_state(comparison, prefix, state, num):
    arrays = comparison.arrays
    policy = golden.dense_tree(_policy_arrays(arrays, f'{prefix}/pi'), f'{prefix}/pi')
    _check_trees(comparison, 'parameter', f'{prefix}/pi', state.policy, policy)
    _check_trees(comparison, 'parameter', f'{prefix}/q', state.q, _members(arrays, f'{prefix}/q', num))
    _check_trees(comparison, 'parameter', f'{prefix}/tq', state.target_q, _members(arrays, f'{prefix}/tq', num))
    comparison.check('parameter', f'{prefix}/log_temp', state.log_temperature)


def _check_q_step(comparison, here, state, batch, noise, members, q_step, q_values, policy):
    """One critic step with everything in it."""
    action, log_prob = (x[0] for x in policy.sample_and_log_prob(state.policy, batch.next_observation, noise, 1))
    comparison.check('value', f'{here}/next_actions', action)
    # The reference inverts tanh, which loses digits: its own verification found 3.0e-4.
    np.testing.assert_allclose(log_prob, comparison.arrays[f'{here}/next_log_prob'], rtol=1e-3, atol=1e-4)
    every = q_values(state.target_q, batch.next_observation, action)
    comparison.check('value', f'{here}/target_q_all_members', every)
    comparison.check('value', f'{here}/q', q_values(state.q, batch.observation, batch.action))
    state, metrics = q_step(state, batch, members, noise)
    comparison.check('scalar', f'{here}/critic_loss', metrics['q/loss'])
    comparison.check('scalar', f'{here}/gnorm_critic', optax.tree.norm(state.q_opt[0]))
    np.testing.assert_allclose(metrics['q/target'], comparison.arrays[f'{here}/td_target'].mean(), rtol=1e-4, atol=1e-5)
    return state


@pytest.mark.parametrize('name', ['sac_e2_utd2_backup0', 'rlpd_e10m2_ln_utd2_backup1'])
def test_official_rlpd(golden_dir, name):
    arrays = golden.load(golden_dir, name)
    config, policy, comparison = _config(arrays), _policy_of_noise(), golden.Comparison(arrays)
    parts = _parts(SPEC, config, policy, scalar_head(), golden.recorded_gradient())
    q_step, policy_step, q_values = jax.jit(parts.q_step), jax.jit(parts.policy_step), jax.jit(parts.q_values)
    num = config.num_critics
    state = blank(parts.init)._replace(
        policy=golden.dense_tree(_policy_arrays(arrays, 'init/pi'), 'init/pi'), q=_members(arrays, 'init/q', num),
        target_q=_members(arrays, 'init/tq', num), log_temperature=jnp.asarray(arrays['init/log_temp'], jnp.float32),
    )
    for step in range(1, 6):
        whole = golden.batch(arrays, step)
        for j in range(2):
            batch = jax.tree.map(lambda leaf, j=j: leaf[7 * j : 7 * (j + 1)], whole)
            members = jnp.asarray(arrays['subset_indices'][step - 1, j]) if 'subset_indices' in arrays else None
            noise = jnp.asarray(arrays['noise/critic'][step - 1, j])
            state = _check_q_step(
                comparison, f'step{step}/critic{j + 1}', state, batch, noise, members, q_step, q_values, policy
            )
            if step == 1 and j == 0:
                theirs = _members(arrays, 'grad1_first_critic_step/q', num)
                _check_trees(comparison, 'gradient', 'grad1/q', state.q_opt[0], theirs)
        state, metrics = policy_step(state, batch, jnp.asarray(arrays['noise/actor'][step - 1]))
        ours = {
            'actor_loss': metrics['policy/loss'], 'entropy': metrics['policy/entropy'],
            'temperature': metrics['temperature/value'], 'temperature_loss': metrics['temperature/loss'],
            'gnorm_actor': optax.tree.norm(state.policy_opt[0]), 'grad_log_temp': state.temperature_opt[0],
        }
        for key, value in ours.items():
            comparison.check('scalar', f'step{step}/{key}', value)
        if step == 1:
            theirs = golden.dense_tree(_policy_arrays(arrays, 'grad1/pi'), 'grad1/pi')
            _check_trees(comparison, 'gradient', 'grad1/pi', state.policy_opt[0], theirs)
        if step in (1, 2, 5):
            _check_state(comparison, f'after{step}', state, num)
    print(name, comparison.worst)
