"""SAC and RLPD against numbers recorded from the official RLPD code."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import Replay
from small import blank

from ooorl.agents.sac import SACConfig, sac
from ooorl.interpreted import interpreted
from ooorl.policies.gaussian import tanh_gaussian_policy
from ooorl.types import Spec

pytestmark = pytest.mark.usefixtures('highest_precision')
SPEC = Spec(observation_dim=5, action_dim=3)


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
    _check_trees(comparison, 'parameter', f'{prefix}/pi', state.policy['network'], policy)
    _check_trees(comparison, 'parameter', f'{prefix}/q', state.q, _members(arrays, f'{prefix}/q', num))
    _check_trees(comparison, 'parameter', f'{prefix}/tq', state.target_q, _members(arrays, f'{prefix}/tq', num))
    comparison.check('parameter', f'{prefix}/log_temp', state.log_temperature)


def _check_values(comparison, step, agent, state, batch):
    """What the first q step of an update reads, on its rows."""
    here, arrays = f'step{step}/critic1', comparison.arrays
    values = interpreted(agent.q)
    comparison.check('value', f'{here}/q', values(state, batch.observation, batch.action)[:, ::2])
    slow, successor, action = state._replace(q=state.target_q), batch.next_observation[::2], arrays[f'{here}/next_actions']
    comparison.check('value', f'{here}/target_q_all_members', values(slow, successor, jnp.asarray(action)))


def _check_metrics(comparison, step, metrics, gradients):
    first, second, policy, temperature = gradients
    here, arrays = f'step{step}', comparison.arrays
    ours = {
        'actor_loss': metrics['policy/loss'], 'entropy': metrics['policy/entropy'],
        'temperature': metrics['temperature/value'], 'temperature_loss': metrics['temperature/loss'],
        'critic1/gnorm_critic': optax.tree.norm(first), 'critic2/gnorm_critic': optax.tree.norm(second),
        'gnorm_actor': optax.tree.norm(policy), 'grad_log_temp': temperature,
    }
    for key, value in ours.items():
        comparison.check('scalar', f'{here}/{key}', value)
    loss, target = (np.mean([arrays[f'{here}/critic{j}/{name}'] for j in (1, 2)]) for name in ('critic_loss', 'td_target'))
    comparison.check_numbers('scalar', 'critic_loss', metrics['q/loss'], loss)
    # The reference inverts tanh for the density in the target, which loses digits.
    np.testing.assert_allclose(metrics['q/target'], target, rtol=1e-4, atol=1e-5)


def _interleaved(arrays, step):
    """The recorded update takes rows 0-6, then rows 7-13; ours takes every second row."""
    whole = golden.batch(arrays, step)
    return jax.tree.map(lambda leaf: leaf.reshape(2, 7, *leaf.shape[1:]).swapaxes(0, 1).reshape(leaf.shape), whole)


def _draws(arrays, step):
    for j in range(2):
        if 'subset_indices' in arrays:
            yield arrays['subset_indices'][step - 1, j]
        yield arrays['noise/critic'][step - 1, j][None]
    yield arrays['noise/actor'][step - 1][None]


NAMES = [f'{kind}_backup{backup}' for kind in ('sac_e2_utd2', 'rlpd_e10m2_ln_utd2') for backup in (0, 1)]


@pytest.mark.parametrize('name', NAMES)
def test_official_rlpd(golden_dir, name):
    arrays = golden.load(golden_dir, name)
    config, comparison = _config(arrays), golden.Comparison(arrays)
    replay = Replay(*(('choice', 'normal') * 2 if 'subset_indices' in arrays else ('normal',) * 2), 'normal')
    policy, num = tanh_gaussian_policy(SPEC, config.hidden, log_std_bounds=(-20.0, 2.0)), config.num_critics
    agent = sac(SPEC, config, policy=policy, grad_transform=replay.grad_transform)
    state = blank(agent.init)._replace(
        policy={'network': golden.dense_tree(_policy_arrays(arrays, 'init/pi'), 'init/pi')}, q=_members(arrays, 'init/q', num),
        target_q=_members(arrays, 'init/tq', num), log_temperature=jnp.asarray(arrays['init/log_temp'], jnp.float32),
    )
    for step in range(1, 6):
        batch = _interleaved(arrays, step)
        _check_values(comparison, step, agent, state, batch)
        state, metrics = replay.run(agent.update, _draws(arrays, step), state, batch, jax.random.key(step))
        _check_metrics(comparison, step, metrics, replay.gradients)
        if step == 1:
            first, _, policy_gradient, _ = replay.gradients
            theirs = _members(arrays, 'grad1_first_critic_step/q', num)
            _check_trees(comparison, 'gradient', 'grad1/q', first, theirs)
            theirs = golden.dense_tree(_policy_arrays(arrays, 'grad1/pi'), 'grad1/pi')
            _check_trees(comparison, 'gradient', 'grad1/pi', policy_gradient['network'], theirs)
        if step in (1, 2, 5):
            _check_state(comparison, f'after{step}', state, num)
    print(name, comparison.worst)
