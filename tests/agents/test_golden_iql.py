"""IQL against numbers recorded from the official code and from OOO's."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ooorl.agents.iql import IQLConfig, _critic_parts, iql
from ooorl.nn import schedules
from ooorl.nn.heads import scalar_head
from ooorl.policies.gaussian import gaussian_policy
from ooorl.signals.novelty import RNDConfig, _rnd_parts
from ooorl.types import Signal, Spec
from ooorl.wrap import bonus, value_bounds

pytestmark = pytest.mark.usefixtures('highest_precision')
SPEC = Spec(observation_dim=5, action_dim=3)


def _config(arrays, **changes):
    settings = {
        'gamma': golden.decimal(arrays, 'hp_discount'),
        'expectile': golden.decimal(arrays, 'hp_expectile'),
        'inverse_temperature': golden.decimal(arrays, 'hp_beta'),
        'max_weight': golden.decimal(arrays, 'hp_weight_cap'),
        'polyak': golden.decimal(arrays, 'hp_tau'),
        'learning_rate': golden.decimal(arrays, 'hp_lr'),
        'log_std_min': golden.decimal(arrays, 'hp_log_std_min'),
        'hidden': (8, 8),
    }
    return IQLConfig(**settings | changes)


def _state(agent, arrays):
    """A state with the recorded parameters and fresh optimisers."""
    state = agent.init(jax.random.key(0))
    members = [tuple(golden.dense_tree(arrays, f'init/{name}{e}') for e in range(2)) for name in ('q', 'tq')]
    critic = state.critic._replace(value=golden.dense_tree(arrays, 'init/v'), q=members[0], target_q=members[1])
    policy = {'mean': golden.dense_tree(arrays, 'init/pi'), 'log_std': jnp.asarray(arrays['init/pi/log_std'])}
    return state._replace(critic=critic, policy=policy)


def _check_parameters(comparison, prefix, state, kind='parameter'):
    """All networks of a state; for gradients there is no target."""
    comparison.check_tree(kind, f'{prefix}/v', state.critic.value)
    for e in range(2):
        comparison.check_tree(kind, f'{prefix}/q{e}', state.critic.q[e])
        if state.critic.target_q is not None:
            comparison.check_tree(kind, f'{prefix}/tq{e}', state.critic.target_q[e])
    comparison.check_tree(kind, f'{prefix}/pi', state.policy['mean'])
    comparison.check(kind, f'{prefix}/pi/log_std', state.policy['log_std'])


def _gradients(state):
    """The latest gradients in the place of the parameters they belong to."""
    critic = state.critic._replace(value=state.critic.value_opt[0], q=state.critic.q_opt[0], target_q=None)
    return state._replace(critic=critic, policy=state.policy_opt[0])


def _check_losses(comparison, step, state, metrics):
    for name, key, gradient in (
        ('value', 'value/loss', _gradients(state).critic.value),
        ('actor', 'policy/loss', _gradients(state).policy),
        ('critic', 'q/loss', _gradients(state).critic.q),
    ):
        comparison.check('scalar', f'step{step}/{name}_loss', metrics[key])
        comparison.check('scalar', f'step{step}/gnorm_{name}', optax.tree.norm(gradient))


def _check_means(comparison, step, metrics, names):
    for key, name in names.items():
        mean = comparison.arrays[f'step{step}/{name}'].astype(np.float64).mean()
        np.testing.assert_allclose(metrics[key], mean, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize('name', ['iql_e07_b3_const', 'iql_e07_b3_cosine', 'iql_e09_b10_const', 'iql_e09_b10_cosine'])
def test_official_iql(golden_dir, name):
    arrays = golden.load(golden_dir, name)
    cosine = {'schedule': 'cosine', 'schedule_of': 'policy'} if arrays['hp_cosine'] else {}
    config = _config(arrays, **cosine)
    policy = gaussian_policy(SPEC, (8, 8))
    agent = iql(SPEC, config, grad_transform=golden.recorded_gradient())
    parts = _critic_parts(SPEC, config, scalar_head(), optax.identity())

    @jax.jit
    def intermediates(old, new, batch):
        target_q = parts.q_values(old.critic.target_q, batch.observation, batch.action)
        q = parts.q_values(old.critic.q, batch.observation, batch.action)
        return {
            'target_q0': target_q[0], 'target_q1': target_q[1], 'q0': q[0], 'q1': q[1],
            'v_old': parts.value(old.critic.value, batch.observation),
            'v_new': parts.value(new.critic.value, batch.observation),
            'next_v_new': parts.value(new.critic.value, batch.next_observation),
            'pi_mean': policy.mode(old.policy, batch.observation, None),
            'log_prob': -policy.loss(old.policy, batch.observation, batch.action, None),
        }  # fmt: skip

    update, comparison = jax.jit(agent.update), golden.Comparison(arrays)
    state = schedules.begin(_state(agent, arrays), int(arrays['hp_cosine_steps']) if cosine else 0)
    for step in range(1, 6):
        batch, old = golden.batch(arrays, step), state
        state, metrics = update(old, batch, jax.random.key(step))
        ours = intermediates(old, state, batch)
        for key, value in ours.items():
            comparison.check('value', f'step{step}/{key}', value)
        means = {'policy/advantage': 'adv', 'policy/weight': 'weight', 'q/target': 'q_target', 'value/mean': 'v_old'}
        _check_means(comparison, step, metrics, means)
        _check_losses(comparison, step, state, metrics)
        if step == 1:
            _check_parameters(comparison, 'grad1', _gradients(state), kind='gradient')
        if step in (1, 2, 5):
            _check_parameters(comparison, f'after{step}', state)
    action = agent.best_action(state, jnp.asarray(arrays['policy_obs']), jax.random.key(0))
    comparison.check('value', 'policy_mean_action_after5', action)
    print(name, comparison.worst)


def test_ooo_iql_with_bonus_and_bounds(golden_dir):
    arrays = golden.load(golden_dir, 'ooo_iql_bonus_bounds')
    config = _config(arrays, q_loss='mean')
    parts = _rnd_parts(SPEC, RNDConfig(hidden=(8,), num_features=6), optax.identity())
    # The recorded masks travel in the batch, in the place of drawn ones.
    signal = Signal(
        init=parts.init, update=lambda state, batch, key: parts.step(state, batch, batch.extras['mask']), score=parts.score
    )
    plain = iql(SPEC, config, grad_transform=golden.recorded_gradient())
    agent = bonus(plain, signal, scale=golden.decimal(arrays, 'hp_bonus_scale'))
    low, high = golden.decimal(arrays, 'hp_q_min'), golden.decimal(arrays, 'hp_q_max')
    agent = value_bounds(agent, gamma=config.gamma, low=low, high=high)
    predictor, target = golden.dense_tree(arrays, 'init/pred'), golden.dense_tree(arrays, 'init/targ')
    state = agent.init(jax.random.key(0))
    state = state._replace(
        agent=_state(plain, arrays), signal=state.signal._replace(predictor=predictor, target=target)
    )
    update, comparison = jax.jit(agent.update), golden.Comparison(arrays)
    for step in range(1, 6):
        batch = golden.batch(arrays, step, mask=arrays['mask'][step - 1])
        state, metrics = update(state, batch, jax.random.key(step))
        comparison.check_tree('parameter', f'step{step}/after/pred', state.signal.predictor)
        comparison.check('scalar', f'step{step}/rnd_loss', metrics['bonus/loss'])
        means = {'policy/advantage': 'adv', 'policy/weight': 'weight', 'q/target': 'q_target', 'q/mean': 'q'}
        _check_means(comparison, step, metrics, means | {'bonus/mean': 'bonus'})
        _check_losses(comparison, step, state.agent, metrics)
        if step in (1, 2, 5):
            _check_parameters(comparison, f'after{step}', state.agent)
    print(comparison.worst)
