"""Evaluation: exactly one whole episode per copy, counted as it was played."""

from dataclasses import replace

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from line_world import HORIZON, LineEnv, eighths, line_task

from ooorl.envs import batched, host, make
from ooorl.errors import UsageError
from ooorl.training.evaluate import ScoreRange, evaluate, with_normalised
from ooorl.types import Spec, Task


def constant(value):
    return lambda observation, key: jnp.full((*observation.shape[:-1], 1), value)


def ends_at(limit):
    """A task of reward 1 a step whose episodes end after 1 to `limit` steps, drawn at the reset; success in step 2 only."""

    def reset(key):
        length = jax.random.randint(key, (), 1, limit + 1)
        state = jnp.stack([length, 0]).astype(jnp.float32)
        return state, state

    def step(state, action, key):
        del action, key
        state = state.at[1].add(1.0)
        return state, state, jnp.float32(1.0), state[1] >= state[0], state[1] == 2

    return Task(spec=Spec(observation_dim=2, action_dim=1), horizon=9, reset=reset, step=step)


def test_each_copy_plays_exactly_one_episode():
    environment = batched(ends_at(6), 64)
    scores = jax.jit(lambda key: evaluate(environment, constant(0.0), key))(jax.random.key(0))
    lengths = np.asarray(scores['length'])
    assert set(lengths) == set(range(1, 7))
    np.testing.assert_array_equal(scores['return'], lengths)  # nothing of the episodes that follow
    np.testing.assert_array_equal(scores['success'], lengths >= 2)  # at any step, also before the last
    assert {str(leaf.dtype) for leaf in scores.values()} == {'float32'}


def test_the_time_limit_ends_an_episode():
    scores = evaluate(batched(line_task(), 2), constant(0.25), jax.random.key(0))
    np.testing.assert_array_equal(scores['length'], [HORIZON] * 2)
    np.testing.assert_array_equal(scores['return'], [0.25 + 0.5 + 0.75 + 1.0 + 1.25] * 2)
    np.testing.assert_array_equal(scores['reward_max'], [1.25, 1.25])
    np.testing.assert_array_equal(scores['success'], [0.0, 0.0])


class DrawnEnv(gymnasium.Env):
    """Episodes of 1 to 6 steps, drawn at the reset; the reward is the action plus a draw."""

    observation_space, action_space = gymnasium.spaces.Box(-9.0, 9.0, (1,)), gymnasium.spaces.Box(-1.0, 1.0, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(1, 7))
        return np.array([self.left], np.float32), {}

    def step(self, action):
        self.left -= 1
        reward = float(action[0]) + float(self.np_random.uniform())
        return np.array([self.left], np.float32), reward, self.left == 0, False, {'success': reward > 1.5}


@pytest.mark.parametrize('chunk', [1, 2])
def test_scores_of_an_episode_do_not_depend_on_how_many_copies_take_turns(chunk):
    def noisy(observation, key):
        return np.asarray(jax.random.uniform(key, (*observation.shape[:-1], chunk))) * np.cos(observation)

    key = jax.random.split(jax.random.key(5), 1)[0]
    found = {}
    for copies in (None, 1, 3, 7):
        environment = host(DrawnEnv, (2, 5), copies=copies, horizon=9)
        environment = replace(environment, held_out=lambda observation: observation[..., 0] > 3)
        found[copies] = evaluate(environment, noisy, key, chunk)
        assert [first for first, _ in environment.turns] == {1: [0, 1, 2, 3, 4], 3: [0, 2]}.get(copies, [])
    assert len(set(found[None]['return'].ravel().tolist())) == 10
    for scores in found.values():
        jax.tree.map(np.testing.assert_array_equal, scores, found[None])


def test_copies_that_take_turns_are_for_evaluation():
    with pytest.raises(UsageError, match='can only be evaluated in'):
        host(DrawnEnv, 2, copies=1, horizon=9).reset(jax.random.key(0))


def test_compiled_and_host_environments_give_the_same_scores():
    compiled, hosted = (
        evaluate(environment, lambda obs, key: eighths(obs, key) + 0.25, jax.random.key(3))
        for environment in (batched(line_task(), 16), host(LineEnv, 16, horizon=HORIZON))
    )
    for name in ('return', 'reward_max', 'length', 'success'):
        np.testing.assert_array_equal(compiled[name], hosted[name], err_msg=name)
    assert len(set(np.asarray(compiled['length']))) > 1


def test_normalised_scores_speak_of_the_column_they_name():
    scores = {'return': np.array([30.0, -10.0]), 'reward_max': np.array([4.0, 1.0])}
    assert with_normalised(scores, None) == scores
    np.testing.assert_array_equal(with_normalised(scores, ScoreRange(-10.0, 30.0))['normalised'], [100.0, 0.0])
    np.testing.assert_array_equal(with_normalised(scores, ScoreRange(0.0, 4.0, 'reward_max'))['normalised'], [100.0, 25.0])


def test_on_the_host_evaluation_ends_with_its_last_episode():
    whole = host(LineEnv, 4, horizon=200)
    count = []

    def step(state, action, key):
        count.append(state)
        return whole.step(state, action, key)

    def to_the_horizon(*arguments, until):
        del until
        return whole.scan(*arguments)

    def policy(observation, key):
        del key
        return np.float32([[0.25], [0.5], [1.0], [0.75]]) + 0 * observation

    early, full = (
        (evaluate(replace(whole, step=step, scan=scan), policy, jax.random.key(0)), len(count))
        for scan in (whole.scan, to_the_horizon)
    )
    assert (early[1], full[1]) == (8, 8 + 200)
    jax.tree.map(np.testing.assert_array_equal, early[0], full[0])
    np.testing.assert_array_equal(early[0]['length'], [8, 4, 2, 3])


@pytest.mark.parametrize(('name', 'action', 'returns', 'length'), [
    ('ooorl/ProbeConstantReward-v0', 0.3, {1.0}, 1),
    ('ooorl/ProbeObservationReward-v0', 0.3, {-1.0, 1.0}, 1),
    ('ooorl/ProbeTwoSteps-v0', 0.3, {1.0}, 2),
    ('ooorl/ProbeActionReward-v0', 0.5, {1.0}, 1),
    ('ooorl/ProbeActionReward-v0', 0.0, {0.75}, 1),
    ('ooorl/ProbeActionAndObservationReward-v0', 0.5, {1.0, 0.0}, 1),
])  # fmt: skip
def test_probe_tasks_score_what_they_say(name, action, returns, length):
    scores = evaluate(make(name, (16,)), constant(action), jax.random.key(0))
    assert set(np.asarray(scores['return']).tolist()) == returns
    assert set(np.asarray(scores['length']).tolist()) == {length}
