"""Edits of a policy's draws, in numbers worked out by hand and in limits where they vanish."""

import draws
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import FROZEN, linear, random_batch, trees_equal

from ooorl.agents.expo import EXPOConfig, expo
from ooorl.agents.fql import FQLConfig, fql_critic
from ooorl.errors import UsageError
from ooorl.interpreted import interpreted
from ooorl.policies.averaged import averaged
from ooorl.policies.edited import EditConfig, Edited, edited_policy
from ooorl.policies.gaussian import gaussian_policy
from ooorl.types import Spec

SPEC, ROWS = Spec(observation_dim=3, action_dim=2), 6
KEY = jax.random.key(2)
BATCH = random_batch(jax.random.key(1), ROWS)
BASE = gaussian_policy(SPEC, (8,))


def made(policy=BASE, **settings):
    critic = fql_critic(SPEC, FQLConfig(hidden=(8,), num_critics=3))
    return expo(SPEC, EXPOConfig(**{'hidden': (8,), 'num_candidates': 3} | settings), critic=critic, policy=policy)


def test_an_edit_and_its_density_by_hand():
    # Mean 0 and log-deviation -1 whatever is seen, and a draw that comes to 0.3 before tanh.
    policy = edited_policy(Spec(observation_dim=1, action_dim=1), BASE, EditConfig(edit_scale=0.15, hidden=()))
    params = {'network': linear([[0.0, 0.0], [0.0, 0.0]], [0.0, -1.0])}
    replay = draws.Replay('normal')
    for action, edited in ((0.95, 0.993697), (0.98, 1.0)):
        noise = [jnp.full((1, 1, 1), 0.3 * jnp.exp(1.0))]
        found, log_prob = replay.run(policy.edit, noise, params, jnp.zeros((1, 1)), jnp.array([[action]]), KEY)
        np.testing.assert_allclose(found, [[edited]], atol=1e-6)
        np.testing.assert_allclose(log_prob, [-0.162765], atol=1e-6)


def test_edits_of_no_size_are_the_policy_and_its_best_draw():
    policy = edited_policy(SPEC, BASE, EditConfig(edit_scale=0.0, num_candidates=4, hidden=(8,)))
    params = interpreted(policy.init)(KEY)
    found = interpreted(policy.candidates)(params, BATCH.observation, KEY)
    plain = interpreted(BASE.sample, static_argnums=3)(params.base, BATCH.observation, jax.random.split(KEY)[0], 4)
    np.testing.assert_array_equal(found, jnp.concatenate([plain, plain]))
    agent = made(edit_scale=0.0, keep_plain=False, num_candidates=4)
    state = interpreted(agent.init)(KEY)
    candidates = interpreted(BASE.sample, static_argnums=3)(state.policy, BATCH.observation, jax.random.split(KEY)[0], 4)
    values = jnp.stack([interpreted(agent.q)(state, BATCH.observation, action).mean(axis=0) for action in candidates])
    action = interpreted(agent.best_action)(state, BATCH.observation, KEY)
    np.testing.assert_array_equal(action, candidates[values.argmax(axis=0), jnp.arange(ROWS)])


KEPT = [({}, 8), ({'num_edited': 1}, 5), ({'keep_plain': False}, 4), ({'num_edited': 0}, 4)]


@pytest.mark.parametrize(('settings', 'num'), KEPT)
def test_draws_and_their_edits_are_candidates(settings, num):
    policy = edited_policy(SPEC, BASE, EditConfig(num_candidates=4, hidden=(8,), edit_scale=0.2, **settings))
    params = interpreted(policy.init)(KEY)
    found = interpreted(policy.candidates)(params, BATCH.observation, KEY)
    plain = interpreted(BASE.sample, static_argnums=3)(params.base, BATCH.observation, jax.random.split(KEY)[0], 4)
    assert found.shape == (num, ROWS, 2) and jnp.abs(found).max() <= 1
    edited = found if num == 4 and settings.get('num_edited') != 0 else found[4:]
    if settings.get('keep_plain', True):
        np.testing.assert_array_equal(found[:4], plain)
    sizes = jnp.abs(edited - plain[: len(edited)])
    assert len(edited) == 0 or 0 < sizes.max() <= 0.2 + 1e-6


def test_the_policy_by_itself_is_one_draw_unedited_and_unjudged():
    agent = made(num_candidates=1, num_edited=0)
    state = interpreted(agent.init)(KEY)
    expected = interpreted(BASE.sample, static_argnums=3)(state.policy, BATCH.observation, jax.random.split(KEY)[0], 1)[0]
    np.testing.assert_array_equal(interpreted(agent.sample_action)(state, BATCH.observation, KEY), expected)


def test_no_gradient_of_q_reaches_the_policy_and_a_given_one_stays():
    agent, given = made(), made(imitate='nothing')
    state = interpreted(agent.init)(KEY)
    new, _ = interpreted(agent.update)(state, BATCH, KEY)
    other, _ = interpreted(agent.update)(state, BATCH._replace(reward=BATCH.reward + 5.0), KEY)
    worse = state._replace(critic=jax.tree.map(lambda leaf: leaf * 2.0, state.critic))
    third, _ = interpreted(agent.update)(worse, BATCH, KEY)
    assert trees_equal(new.policy, other.policy) and trees_equal(new.policy, third.policy)
    assert not trees_equal(new.edit, third.edit) and not trees_equal(new.policy, state.policy)
    same, metrics = interpreted(given.update)(state, BATCH, KEY)
    assert trees_equal(same.policy, state.policy) and 'policy/loss' not in metrics
    assert trees_equal((same.edit, same.critic), (new.edit, new.critic))


def test_settings_reach_what_they_are_named_for():
    agent = made()
    state = interpreted(agent.init)(KEY)
    new, metrics = interpreted(agent.update)(state, BATCH, KEY)
    for settings in ({'policy_value': 'min'}, {'edit_scale': 0.5}, {'learning_rate': 1e-2}):
        assert not trees_equal(made(**settings).update(state, BATCH, KEY)[0].edit, new.edit), settings
    towards = interpreted(made(target_entropy=-9.0).update)(state, BATCH, KEY)[1]
    np.testing.assert_allclose(towards['temperature/loss'] - metrics['temperature/loss'], 9.0 - 1.0, rtol=1e-5)
    # The slow critics are those of another state here, so that who compares is seen in what is chosen.
    slow = state._replace(critic=state.critic._replace(target_q=jax.tree.map(jnp.negative, state.critic.target_q)))
    choosing = [made(slow_choice=flag, num_candidates=6).best_action for flag in (False, True)]
    actions = [interpreted(best)(slow, BATCH.observation, KEY) for best in choosing]
    assert (actions[0] != actions[1]).any()


def test_what_acts_is_the_slow_copy_and_what_is_learnt_from_the_fitted_one():
    agent = made(averaged(BASE, FROZEN), num_edited=0, num_candidates=1)
    state = interpreted(agent.init)(KEY)
    new, _ = interpreted(agent.update)(state, BATCH, KEY)
    frozen = new._replace(policy=new.policy._replace(fitted=jax.tree.map(jnp.zeros_like, new.policy.fitted)))
    np.testing.assert_array_equal(*(interpreted(agent.best_action)(each, BATCH.observation, KEY) for each in (new, frozen)))


@pytest.mark.parametrize(('settings', 'sentence'), [
    ({'num_candidates': 0}, 'num_candidates must be greater than 0'),
    ({'num_edited': 9, 'num_candidates': 8}, 'num_edited must be at most num_candidates, 8; got 9'),
    ({'num_edited': 0, 'keep_plain': False}, 'a candidate to act with'),
    ({'edit_scale': -0.1}, 'edit_scale must be 0 or more'),
    ({'imitate': 'search'}, 'imitate must be one of'),
    ({'policy_value': 'first'}, 'policy_value must be one of'),
    ({'aggregate': 'max'}, 'aggregate must be one of'),
    ({'learning_rate': 0.0}, 'learning_rate'),
])  # fmt: skip
def test_settings_that_make_no_sense_are_refused(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        EXPOConfig(**settings)


def test_parameters_of_base_and_edit_stand_beside_each_other():
    policy = edited_policy(SPEC, BASE, EditConfig(hidden=(8,)))
    params = interpreted(policy.init)(KEY)
    assert isinstance(params, Edited)
    loss = interpreted(policy.loss)(params, BATCH.observation, BATCH.action, KEY)
    np.testing.assert_array_equal(loss, interpreted(BASE.loss)(params.base, BATCH.observation, BATCH.action, KEY))
    assert interpreted(policy.mode)(params, BATCH.observation, KEY).shape == (ROWS, 2)
