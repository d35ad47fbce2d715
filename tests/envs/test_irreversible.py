"""What cannot be taken back in each compiled task, and pictures of all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ooorl.envs import TASKS, make, make_task
from ooorl.envs.cliffs import CliffState, is_irreversible, way_left

WITH_TRUTH = ['ooorl/IrreversibleMaze-v0', 'ooorl/TabletopNoWalls-v0', 'ooorl/PointMassCliffs-v0']


def _lives(task, num, steps, act):
    """`[num, steps]`: whether each state of lives without resets is irreversible."""

    def life(key):
        reset_key, loop_key = jax.random.split(key)

        def step(state, key):
            observation, action_key = state[1], jax.random.split(key)[0]
            state, observation, *_ = task.step(state[0], act(observation, action_key), key)
            return (state, observation), task.irreversible(observation)

        return jax.lax.scan(step, task.reset(reset_key), jax.random.split(loop_key, steps))[1]

    return np.asarray(jax.jit(jax.vmap(life))(jax.random.split(jax.random.key(0), num)))


def _wander(observation, key):
    """Uniform actions; on the table, to the mug first and away with it, the magnet mostly on."""
    action = jax.random.uniform(key, (3 if observation.size == 12 else 2,), minval=-1.0, maxval=1.0)
    if observation.size == 12:
        chase = jnp.clip((observation[2:4] - observation[0:2]) / 0.2, -1.0, 1.0)
        action = jnp.where(observation[4] < -0.5, jnp.append(chase, 1.0), jnp.append(action[:2], 0.95 + action[2]))
    return action


@pytest.mark.parametrize('name', WITH_TRUTH)
def test_what_is_irreversible_is_never_left(name):
    task = make_task(name)
    bad = _lives(task, 40, 300, _wander)
    assert task.absorbing and not (bad[:, :-1] & ~bad[:, 1:]).any()
    assert bad[:, -1].any() and bad[:, 0].mean() < 0.5
    assert make(name, (2,)).irreversible is task.irreversible
    assert not bool(task.irreversible(task.reset(jax.random.key(0))[1]))


def test_every_other_task_has_no_such_test():
    known = {name for name in TASKS if make_task(name).irreversible is not None}
    assert known == set(WITH_TRUTH) and make('ooorl/UMaze-v0').irreversible is None


def test_cliffs_end_where_they_are_drawn():
    places = jnp.array([[0.5, 0.19], [0.5, 0.2], [0.3, 0.0], [0.31, -1.0], [1.0, -1.0], [0.0, 1.01], [0.69, 0.3]])
    assert is_irreversible(places).tolist() == [True, False, False, True, False, True, False]
    task = make_task('ooorl/PointMassCliffs-v0', noise=0.0)
    path = [(0.0, 1.0)] * 12 + [(1.0, 0.0)] * 20 + [(0.0, -1.0)] * 12
    state, succeeded = CliffState(jnp.array([-0.7, -0.7])), []
    step = jax.jit(task.step)
    for action in path:
        state, observation, reward, terminated, success = step(state, jnp.array(action), jax.random.key(0))
        assert not is_irreversible(observation)
        succeeded.append(bool(success))
        assert bool(terminated) == succeeded[-1] == bool(reward)
    assert sum(succeeded) >= 1
    fallen = step(CliffState(jnp.array([0.5, 0.0])), jnp.array([0.0, 1.0]), jax.random.key(0))
    assert fallen[1].tolist() == [0.5, 0.0] and not fallen[4]


def test_the_way_round_the_canyon_is_paid_by_length():
    # (0.2, 0.3) is the first corner: 0.6 to the second and sqrt(0.01 + 1) to the goal.
    places = jnp.array([[0.2, 0.3], [0.8, 0.3], [0.9, -0.7], [0.2, -0.7]])
    np.testing.assert_allclose(way_left(places), [0.6 + 1.01**0.5, 1.01**0.5, 0.0, 1.0 + 0.6 + 1.01**0.5], atol=1e-6)
    task = make_task('ooorl/PointMassCliffs-v0', noise=0.0, reward='way')
    up = task.step(CliffState(jnp.array([0.2, -0.7])), jnp.array([0.0, 1.0]), jax.random.key(0))
    assert up[2] == pytest.approx(0.08, abs=1e-6)
    fall = task.step(CliffState(jnp.array([0.29, 0.0])), jnp.array([1.0, 0.0]), jax.random.key(0))
    assert fall[2] == 0.0 and bool(task.irreversible(fall[1]))


@pytest.mark.parametrize('name', [name for name in TASKS if 'Probe' not in name])
def test_pictures_show_where_things_are(name):
    task = make_task(name)
    first = np.asarray(task.reset(jax.random.key(0))[1])
    moved = first + np.float32(0.3) * (np.arange(first.size) < 2)
    pictures = [task.render(first), task.render(moved)]
    for picture in pictures:
        assert picture.dtype == np.uint8 and picture.shape[2] == 3 and max(picture.shape) == 240
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 3
    changed = (pictures[0] != pictures[1]).any(axis=-1).mean()
    assert 0 < changed < 0.05
