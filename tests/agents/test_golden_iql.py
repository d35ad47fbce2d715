"""IQL against numbers recorded from the official code and from OOO's."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import Replay

from ooorl.agents.iql import IQLConfig, iql, iql_critic
from ooorl.interpreted import interpreted
from ooorl.nn import schedules
from ooorl.policies.gaussian import gaussian_policy
from ooorl.signals.novelty import RNDConfig, rnd
from ooorl.types import Spec
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
    state = interpreted(agent.init)(jax.random.key(0))
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


def _gradients(state, gradients):
    """The latest gradients in the place of the parameters they belong to; an update makes them in this order."""
    value, policy, q = gradients
    return state._replace(critic=state.critic._replace(value=value, q=q, target_q=None), policy=policy)


def _check_losses(comparison, step, metrics, gradients):
    names = {'value': 'value/loss', 'actor': 'policy/loss', 'critic': 'q/loss'}
    for (name, key), gradient in zip(names.items(), gradients, strict=True):
        comparison.check('scalar', f'step{step}/{name}_loss', metrics[key])
        comparison.check('scalar', f'step{step}/gnorm_{name}', optax.tree.norm(gradient))


def _check_means(comparison, step, metrics, names):
    for key, name in names.items():
        mean = comparison.arrays[f'step{step}/{name}'].astype(np.float64).mean()
        np.testing.assert_allclose(metrics[key], mean, rtol=1e-5, atol=1e-6, err_msg=name)


def _check_values(comparison, step, agent, critic, policy, state, batch):
    """Values and policy before an update. The critic on its own shows what `agent` does not."""
    ours = {
        'pi_mean': interpreted(agent.best_action)(state, batch.observation, None),
        'log_prob': -interpreted(policy.loss)(state.policy, batch.observation, batch.action, None),
    }
    for e in range(2):
        ours[f'q{e}'] = interpreted(agent.q)(state, batch.observation, batch.action)[e]
        ours[f'target_q{e}'] = critic.target_q(state.critic, batch.observation, batch.action)[e]
    for key, value in ours.items():
        comparison.check('value', f'step{step}/{key}', value)


@pytest.mark.parametrize('name', ['iql_e07_b3_const', 'iql_e07_b3_cosine', 'iql_e09_b10_const', 'iql_e09_b10_cosine'])
def test_official_iql(golden_dir, name):
    arrays = golden.load(golden_dir, name)
    cosine = {'schedule': 'cosine', 'schedule_of': 'policy'} if arrays['hp_cosine'] else {}
    config = _config(arrays, **cosine)
    policy, replay, comparison = gaussian_policy(SPEC, (8, 8)), Replay(), golden.Comparison(arrays)
    agent, critic = iql(SPEC, config, grad_transform=replay.grad_transform), iql_critic(SPEC, config)
    state = schedules.begin(_state(agent, arrays), int(arrays['hp_cosine_steps']) if cosine else 0)
    for step in range(1, 6):
        batch = golden.batch(arrays, step)
        _check_values(comparison, step, agent, critic, policy, state, batch)
        state, metrics = replay.run(agent.update, [], state, batch, jax.random.key(step))
        means = {'policy/advantage': 'adv', 'policy/weight': 'weight', 'q/target': 'q_target', 'value/mean': 'v_old'}
        _check_means(comparison, step, metrics, means)
        _check_losses(comparison, step, metrics, replay.gradients)
        if step == 1:
            _check_parameters(comparison, 'grad1', _gradients(state, replay.gradients), kind='gradient')
        if step in (1, 2, 5):
            _check_parameters(comparison, f'after{step}', state)
    action = interpreted(agent.best_action)(state, jnp.asarray(arrays['policy_obs']), jax.random.key(0))
    comparison.check('value', 'policy_mean_action_after5', action)
    print(name, comparison.worst)


def test_ooo_iql_with_bonus_and_bounds(golden_dir):
    arrays = golden.load(golden_dir, 'ooo_iql_bonus_bounds')
    config, replay, comparison = _config(arrays, q_loss='mean'), Replay('uniform'), golden.Comparison(arrays)
    plain = iql(SPEC, config, grad_transform=replay.grad_transform)
    agent = bonus(plain, rnd(SPEC, RNDConfig(hidden=(8,), num_features=6)), scale=golden.decimal(arrays, 'hp_bonus_scale'))
    low, high = (golden.decimal(arrays, f'hp_q_{name}') for name in ('min', 'max'))
    agent = value_bounds(agent, gamma=config.gamma, low=low, high=high)
    predictor, target = golden.dense_tree(arrays, 'init/pred'), golden.dense_tree(arrays, 'init/targ')
    state = interpreted(agent.init)(jax.random.key(0))
    state = state._replace(
        agent=_state(plain, arrays), signal=state.signal._replace(predictor=predictor, target=target)
    )
    for step in range(1, 6):
        batch = golden.batch(arrays, step)
        state, metrics = replay.run(agent.update, [arrays['uniform_draws'][step - 1]], state, batch, jax.random.key(step))
        comparison.check_tree('parameter', f'step{step}/after/pred', state.signal.predictor)
        comparison.check('scalar', f'step{step}/rnd_loss', metrics['bonus/loss'])
        means = {'policy/advantage': 'adv', 'policy/weight': 'weight', 'q/target': 'q_target', 'q/mean': 'q'}
        _check_means(comparison, step, metrics, means | {'bonus/mean': 'bonus'})
        _check_losses(comparison, step, metrics, replay.gradients)
        if step in (1, 2, 5):
            _check_parameters(comparison, f'after{step}', state.agent)
    print(comparison.worst)
