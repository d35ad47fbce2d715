"""Batching: time limits, automatic resets, true successors, names, and the gymnasium face of the tasks."""

import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ooorl.envs import TASKS, batched, make, make_task
from ooorl.errors import UsageError
from ooorl.types import Spec, Task


def _counter(horizon, end):
    """Counts its steps from a random start in (0, 1); terminates when `end` steps are done."""

    def reset(key):
        start = jax.random.uniform(key, (1,))
        return start, start

    def step(state, action, key):
        state = state + 1
        done = state[0] >= end
        return state, state, done.astype(jnp.float32), done, done

    return Task(spec=Spec(observation_dim=1, action_dim=1), horizon=horizon, reset=reset, step=step)


def _roll(environment, num_steps, num_envs=3):
    state, observation = environment.reset(jax.random.key(0))

    def one_step(state, key):
        return environment.step(state, jnp.zeros((num_envs, 1)), key)

    keys = jax.random.split(jax.random.key(1), num_steps)
    return observation, jax.tree.map(np.asarray, environment.scan(one_step, state, keys)[1])


def test_time_limit_truncates_and_resets():
    first, steps = _roll(batched(_counter(horizon=4, end=100), 3), 9)
    ended = np.arange(1, 10) % 4 == 0
    np.testing.assert_array_equal(steps.truncated, np.repeat(ended[:, None], 3, 1))
    assert not steps.terminated.any()
    # The successor goes on counting where the episode was cut; the observation starts again.
    np.testing.assert_allclose(steps.next_observation[3], first + 4, rtol=1e-6)
    assert np.all(steps.observation[3] < 1) and np.all(steps.observation[3] != first)
    np.testing.assert_array_equal(steps.observation[~ended], steps.next_observation[~ended])
    np.testing.assert_allclose(steps.next_observation[4], steps.observation[3] + 1, rtol=1e-6)
    assert len(np.unique(steps.observation[3])) == 3


def test_termination_in_the_last_step_is_no_truncation():
    _, steps = _roll(batched(_counter(horizon=3, end=3), 3), 6)
    np.testing.assert_array_equal(steps.terminated[:, 0], [False, False, True] * 2)
    assert not steps.truncated.any()
    np.testing.assert_array_equal(steps.success, steps.terminated)


@pytest.mark.parametrize('name', [name for name in TASKS if 'Probe' not in name])
def test_every_task_steps_in_any_batch_shape(name):
    environment = make(name, (2, 3))
    following, state, observation, step = jax.jit(lambda key: _reset_and_step(environment, key))(jax.random.key(0))
    assert observation.shape == step.observation.shape == (2, 3, environment.spec.observation_dim)
    assert step.reward.shape == step.truncated.shape == (2, 3)
    jax.tree.map(lambda a, b: np.testing.assert_equal((a.dtype, a.shape), (b.dtype, b.shape)), state, following)


def _reset_and_step(environment, key):
    state, observation = environment.reset(key)
    action = jnp.zeros((*environment.batch_shape, environment.spec.action_dim))
    following, step = environment.step(state, action, key)
    return following, state, observation, step


def test_environments_map_over_seeds():
    environment = make('ooorl/UMaze-v0', (4,))
    step = jax.jit(jax.vmap(lambda key: _reset_and_step(environment, key)))(jax.random.split(jax.random.key(0), 2))[3]
    assert step.observation.shape == (2, 4, 2)


def test_settings_reach_the_task_and_bad_names_are_refused():
    assert make('ooorl/UMaze-v0', (1,), horizon=7).horizon == 7
    with pytest.raises(UsageError, match='UMaze-v0'):
        make('ooorl/UMase-v0')
    with pytest.raises(UsageError, match='HalfCheetah'):
        make('HalfCheeta-v4')
    with pytest.raises(UsageError, match='goal_radius'):
        make_task('ooorl/UMaze-v0', radius=1)
    with pytest.raises(UsageError):
        make('ooorl/UMaze-v0', (0,))


def test_import_starts_no_backend():
    check = 'import ooorl.envs, jax._src.xla_bridge as bridge; assert not bridge._backends'
    subprocess.run([sys.executable, '-c', check], check=True, env={'PYTHONPATH': ':'.join(sys.path)})


@pytest.mark.parametrize('name', TASKS)
def test_tasks_pass_gymnasiums_own_checker(name):
    gymnasium = pytest.importorskip('gymnasium')
    from gymnasium.utils.env_checker import check_env

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        check_env(gymnasium.make(name).unwrapped, skip_render_check=True)


def test_gymnasium_time_limit_is_the_horizon_of_the_task():
    gymnasium = pytest.importorskip('gymnasium')
    for name in TASKS:
        assert gymnasium.spec(name).max_episode_steps == make_task(name).horizon
    env = gymnasium.make('ooorl/IrreversibleMaze-v0')
    env.reset(seed=0)
    outcomes = [env.step(np.zeros(2, np.float32))[2:4] for _ in range(50)]
    assert outcomes[-1] == (False, True) and not any(map(any, outcomes[:-1]))


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'horizon': []}, 'horizon of ooorl/UMaze-v0 must be of type int; got'),
        ({'horizon': 0}, 'horizon must be greater than 0'),
        ({'step_size': 'far'}, 'step_size of ooorl/UMaze-v0 must be of type float'),
        ({'goal_radius': float('nan')}, 'goal_radius of ooorl/UMaze-v0 must be a finite number'),
        ({'layout': 3}, 'layout of ooorl/UMaze-v0 must be of type list'),
    ],
)
def test_settings_of_a_task_are_checked_by_type(settings, message):
    with pytest.raises(UsageError, match=message):
        make_task('ooorl/UMaze-v0', **settings)
