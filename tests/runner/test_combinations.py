"""Out-of-combination generalisation from a config: what is learnt from, and scores in and out of combination."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_configs import OFFLINE, changed

from ooorl.envs.batched import batched
from ooorl.envs.goal_maze import FOUR_ROOMS, centres_of
from ooorl.errors import UsageError
from ooorl.runner import config
from ooorl.runner.prepare import prepare
from ooorl.training.evaluate import evaluate, means
from ooorl.types import Spec, Task

STARTS = {'name': 'start', 'columns': [0, 1], 'levels': centres_of(FOUR_ROOMS, 'S').tolist(), 'at': 'start', 'radius': 0.3}
GOALS = {'name': 'goal', 'columns': [2, 3], 'levels': centres_of(FOUR_ROOMS, 'G').tolist()}
TABLE = changed(
    OFFLINE, dataset={'scripted': 'goal_maze', 'settings': {'num_episodes': 80}}, environment={'id': 'ooorl/GoalMaze-v0'},
    evaluation={'num_episodes': 64}, dataset__combinations={'factors': [STARTS, GOALS], 'held_out_classes': 1},
)  # fmt: skip


def test_a_config_says_which_combinations_are_learnt_from():
    train = prepare(TABLE)
    assert "not of part 'train'; 12 of 16 combinations of start, goal are for training" in ' '.join(train.dataset.notes)
    assert train.config['dataset']['combinations']['factors'][1] == {**GOALS, 'at': 'row'}
    # Levels are numbered row by row from one corner, and those with start + goal = 3 are out: the opposite corner's goal.
    rows, held_out = train.setup.dataset, train.setup.evaluation.held_out
    begins = np.append(True, rows.extras['boundary'][:-1] > 0)
    first = rows.observation[begins & (np.abs(rows.observation[:, :2]).min(axis=-1) > 1.6)]
    assert len(first) and not np.any((np.sign(first[:, :2]) == -np.sign(first[:, 2:])).all(axis=-1))
    observation = train.setup.evaluation.reset(jax.random.key(0))[1]
    opposite = (jnp.sign(observation[:, :2]) == -jnp.sign(observation[:, 2:])).all(axis=-1)
    assert held_out(observation).tolist() == opposite.tolist() and 0 < opposite.sum() < 64


def test_a_wrong_table_is_refused_by_name():
    with pytest.raises(UsageError, match="unknown key 'level' in .dataset.combinations. factors; did you mean 'levels'"):
        config.resolve(changed(TABLE, dataset__combinations={'factors': [STARTS, {**GOALS, 'level': 1}]}))
    with pytest.raises(UsageError, match='combinations are of the rows of a data set; got none'):
        prepare(changed(TABLE, dataset__scripted=None, dataset__settings=None))


def test_successes_are_told_apart_by_the_first_observation():
    """Each episode is one step, begins at 0 or 1 and succeeds at 1 alone; 1 is held out."""
    def reset(key):
        first = jax.random.bernoulli(key, 0.5, (1,)).astype(jnp.float32)
        return first, first

    def step(state, action, key):
        return state, state, 0.0, jnp.array(True), state[0] > 0.5

    task = Task(spec=Spec(observation_dim=1, action_dim=1), horizon=1, reset=reset, step=step)
    environment = batched(task, (6,))
    plain = evaluate(environment, lambda observation, key: observation, jax.random.key(0))
    assert not {'success_in', 'success_out'} & set(plain)
    environment = replace(environment, held_out=lambda observation: observation[:, 0] > 0.5)
    scores = evaluate(environment, lambda observation, key: observation, jax.random.key(0))
    won = np.asarray(scores['success']) > 0
    assert 0 < won.sum() < 6 and np.isnan(scores['success_in']).tolist() == won.tolist()
    found = means(scores)
    assert (found['success_in'], found['success_out']) == (0.0, 1.0) and found['success'] == pytest.approx(won.mean())
    assert np.isnan(means({'success_in': np.full((2, 3), np.nan)})['success_in']).all()
