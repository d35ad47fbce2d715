"""Windows, and FQL on chunks, against numbers recorded from Q-chunking's released code."""

import draws
import golden
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import blank

from ooorl.agents.fql import FQLConfig, fql
from ooorl.training import replay
from ooorl.types import Spec, Transition
from ooorl.wrap import chunked, one_decision

pytestmark = pytest.mark.usefixtures('highest_precision')
NETS = {'q': 'q', 'target_q': 'tq', 'policy': 'flow', 'one_step': 'onestep'}

# Numbers of an action (chunks of 3, or plain actions with 3-step returns), and of candidates.
RECORDED = {'qam_fql_h3_e4': (9, 1), 'qam_fql_n3_e4_bon4': (3, 4)}


def first_rows(windows):
    """The rows of the recorded stream that windows begin with, which its observations tell apart."""
    return [window[0].tobytes() for window in np.asarray(windows.observation)]


@pytest.mark.parametrize('length', [1, 3, 5])
def test_windows_and_what_they_come_to(golden_dir, length):
    arrays = golden.load(golden_dir, 'qam_windows')
    fields = (arrays[f'stream/{name}'] for name in ('obs', 'act', 'rew', 'mask', 'next_obs'))
    stream = replay.full(Transition(*fields, {'boundary': arrays['stream/terminal']}))
    windows = replay.sample_windows(stream, jax.random.key(0), 400, length)
    places = {row.tobytes(): number for number, row in enumerate(arrays[f'L{length}/obs'])}
    found = np.array([places.get(row, -1) for row in first_rows(windows)])
    inside = found >= 0  # the others begin so late that the record has no window for them
    found = found[inside]
    assert set(found) == set(range(int(arrays[f'L{length}/start_count'])))
    assert not np.asarray(windows.extras['valid'])[~inside, -1].any()
    valid = arrays[f'L{length}/valid'][found]
    np.testing.assert_array_equal(np.asarray(windows.extras['valid'])[inside], valid)
    for gamma in arrays['hp_gammas']:
        row = jax.tree.map(lambda leaf: np.asarray(leaf)[inside], one_decision(windows, float(gamma), 'drop'))
        np.testing.assert_allclose(row.reward, arrays[f'L{length}/g{gamma}/rew'][found, -1], atol=1e-6)
        np.testing.assert_allclose(row.discount / gamma ** (length - 1), arrays[f'L{length}/mask'][found, -1], atol=1e-6)
        np.testing.assert_array_equal(row.extras['weight'], valid[:, -1])
        np.testing.assert_array_equal(row.next_observation, arrays[f'L{length}/next_obs'][found, -1])
        np.testing.assert_array_equal(row.observation, arrays[f'L{length}/obs'][found])
        # Behind an end the record has actions of the next episode, here there are none.
        action = (arrays[f'L{length}/act'][found] * valid[..., None]).astype(np.float32)
        np.testing.assert_array_equal(row.action.reshape(action.shape), action)


def recorded(arrays, prefix, field, action_dim):
    """The recorded parameters of one of a state's fields."""
    if field == 'policy':
        return golden.flow_tree(arrays, f'{prefix}/flow', action_dim)
    if field == 'one_step':
        return golden.dense_tree(arrays, f'{prefix}/onestep')
    return golden.ensemble_tree(arrays, f'{prefix}/{NETS[field]}')


def check(comparison, kind, prefix, field, ours, action_dim):
    theirs = recorded(comparison.arrays, prefix, field, action_dim)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        comparison.check_numbers(kind, f'{prefix}/{field}', mine, other)


@pytest.mark.parametrize('name', RECORDED)
def test_the_released_updates_of_fql(golden_dir, name):
    arrays, (action_dim, num) = golden.load(golden_dir, name), RECORDED[name]
    comparison = golden.Comparison(arrays)
    gamma = golden.decimal(arrays, 'hp_discount')
    replayed = draws.Replay('normal', 'normal', 'uniform', 'normal')
    config = FQLConfig(
        gamma=gamma, polyak=golden.decimal(arrays, 'hp_tau'), learning_rate=golden.decimal(arrays, 'hp_lr'),
        distil_weight=golden.decimal(arrays, 'hp_alpha'), aggregate='lower', rho=golden.decimal(arrays, 'hp_rho'), num_critics=4,
        hidden=(8, 8), num_steps=int(arrays['hp_flow_steps']), num_candidates=num,
    )  # fmt: skip
    plain = fql(Spec(observation_dim=5, action_dim=action_dim), config, grad_transform=replayed.grad_transform)
    agent = chunked(plain, action_dim // 3, gamma=gamma, ends='drop', backup_steps=3)
    state = blank(agent.init)._replace(**{field: recorded(arrays, 'init', field, action_dim) for field in NETS})
    for number in range(1, 6):
        noise = [arrays[f'noise/{key}'][number - 1] for key in ('next_z', 'flow_x0', 'flow_t', 'distill_z')]
        noise[0], noise[2] = noise[0][:, 0] if num == 1 else np.moveaxis(noise[0], 1, 0), noise[2][:, 0]
        windows = golden.windows(arrays, number, gamma)
        state, metrics = replayed.run(agent.update, noise, state, windows, jax.random.key(0))
        for key, theirs in {
            'q/loss': 'critic_critic_loss', 'policy/loss': 'actor_bc_flow_loss', 'one_step/distance': 'actor_distill_loss',
        }.items():  # fmt: skip
            comparison.check('scalar', f'step{number}/{theirs}', metrics[key])
        np.testing.assert_allclose(metrics['q/target'], arrays[f'step{number}/td_target'].mean(), rtol=1e-5, atol=1e-6)
        for gradient, net in zip(replayed.gradients, ('q', 'flow', 'onestep'), strict=True):
            comparison.check('scalar', f'step{number}/gnorm_{net}', optax.tree.norm(gradient))
        if number == 1:
            for gradient, field in zip(replayed.gradients, ('q', 'policy', 'one_step'), strict=True):
                check(comparison, 'gradient', 'grad1', field, gradient, action_dim)
        if f'after{number}/flow/w0' in arrays:
            for field in NETS:
                check(comparison, 'parameter', f'after{number}', field, getattr(state, field), action_dim)


@pytest.mark.parametrize('name', RECORDED)
def test_the_released_policy_acts(golden_dir, name):
    arrays, (action_dim, num) = golden.load(golden_dir, name), RECORDED[name]
    agent = fql(Spec(observation_dim=5, action_dim=action_dim), FQLConfig(hidden=(8, 8), num_critics=4, num_candidates=num))
    state = blank(agent.init)._replace(**{field: recorded(arrays, 'after5', field, action_dim) for field in ('one_step', 'q')})
    for observation, noise, action in zip(arrays['act/obs'], arrays['act/noise'], arrays['act/action'], strict=True):
        replayed = draws.Replay('normal')
        noise = noise[0] if num == 1 else noise
        found = replayed.run(agent.sample_action, [noise], state, jnp.asarray(observation), jax.random.key(0))
        golden.Comparison(arrays).check_numbers('value', 'act/action', found, action)
