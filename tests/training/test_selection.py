"""Rows drawn by what their episodes returned: weights worked by hand, and what batches hold of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_configs import OFFLINE, TINY, changed

from ooorl.errors import UsageError
from ooorl.runner.prepare import prepare
from ooorl.training import learn, replay
from ooorl.training import run as running
from ooorl.training.sampling import Sampling
from ooorl.training.selection import effective_rows, row_weights, worth
from ooorl.types import Agent, Transition

# Four episodes of 4, 3, 2 and 1 rows that return 0, 1, 3 and 10 and begin at 0, 1, 2 and 3; two more rows end nowhere.
EPISODE = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4, 4])
BOUNDARY = np.array([0, 0, 0, 1, 0, 0, 1, 0, 1, 1, 0, 0], np.float32)
REWARD = np.array([0, 0, 0, 0, 0, 0, 1, 0, 3, 10, 50, 0], np.float32)


def known():
    column = jnp.asarray(REWARD)[:, None]
    valid = jnp.ones((12, 1), bool)
    return worth(column, jnp.asarray(BOUNDARY)[:, None], valid, jnp.asarray(EPISODE, jnp.float32)[:, None])


def masses(finished=10, **settings):
    """The share of each finished episode, of all rows of finished episodes."""
    (weights,) = row_weights([known()], Sampling(**settings))
    weights = np.asarray(weights)[:finished]
    return np.bincount(EPISODE[:finished], weights / weights.sum()), float(effective_rows([weights]))


@pytest.mark.parametrize(('temperature', 'shares', 'rows'), [
    (0.1, [0.000181, 0.000369, 0.001819, 0.997630], 1.0048), (1.0, [0.314132, 0.260377, 0.212017, 0.213475], 8.6719),
])  # fmt: skip
def test_return_weights_by_hand(temperature, shares, rows):
    found, effective = masses(weighting='return', weight_temperature=temperature)
    np.testing.assert_allclose(found, shares, atol=2e-6)
    assert effective == pytest.approx(rows, rel=1e-4)


def test_advantage_weights_by_hand():
    # b = -1.3, 1.9, 5.1, 8.3: the first episode is better than its beginning promised.
    found, _ = masses(weighting='advantage')
    np.testing.assert_allclose(found, [0.581850, 0.001335, 0.000038, 0.416777], atol=1e-4)


def test_the_top_share_counts_whole_episodes_and_none_that_is_not_finished():
    (weights,) = row_weights([known()], Sampling(weighting='top', top_share=0.5))
    np.testing.assert_array_equal(weights, [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0])


def test_unfinished_episodes_are_the_worst_and_equals_are_equal():
    (weights,) = row_weights([known()], Sampling(weighting='return'))
    assert weights[10] == weights[0] < weights[4]
    same = known()._replace(total=jnp.ones(12))
    np.testing.assert_array_equal(row_weights([same], Sampling(weighting='advantage'))[0], np.ones(12))


def test_sources_are_ranked_together():
    better = known()._replace(total=known().total + 100.0)
    low, high = row_weights([known(), better], Sampling(weighting='top', top_share=0.5))
    assert not low.any() and high.sum() == 10.0


def batches(sampling, sources, num_updates=40):
    """Rewards `[U, B]` of the batches that an agent is given."""
    agent = Agent(
        init=lambda key: jnp.zeros(()), update=lambda state, batch, key: (state, {'seen': batch.reward}),
        sample_action=None, best_action=None,
    )  # fmt: skip
    draw, _ = learn.make_learn_ahead(agent, sampling, num_updates=num_updates, streams={'dataset': 1, 'online': 1})
    return np.asarray(jax.jit(draw)(sources, jax.random.key(0))[0].reward)


def store(reward):
    rows = jnp.asarray(reward)[:, None]
    return replay.full(Transition(rows, rows, rows[:, 0], jnp.ones(12), rows, {'boundary': jnp.asarray(BOUNDARY)}))


def test_a_share_of_the_batch_is_drawn_by_weight_and_the_rest_as_ever():
    seen = batches(Sampling(batch_size=8, weighting='return', weight_share=0.75), {'dataset': store(REWARD)})
    # Six rows of eight nearly always from the episode that returns 10; two of twelve rows of equal right.
    assert (seen[:, :6] == 10.0).mean() > 0.97
    assert (seen[:, 6:] == 10.0).mean() < 0.3


def test_successes_follow_their_own_mix():
    sources = {'dataset': store(REWARD), 'online': store(REWARD + 100.0)}
    settings = {'batch_size': 8, 'success_rows': 8, 'success_reward': 1.0}
    assert (batches(Sampling(**settings, success_mix={'dataset': 1.0, 'online': 0.0}), sources) < 100.0).all()
    assert (batches(Sampling(**settings), sources) >= 100.0).mean() > 0.4


@pytest.mark.parametrize(('settings', 'words'), [
    ({'weighting': 'best'}, 'weighting'), ({'weight_temperature': 0.0}, 'weight_temperature'), ({'top_share': 0.0}, 'top_share'),
    ({'success_mix': {'dataset': 0.5}}, 'shares of success_mix'), ({'weight_share': 1.5}, 'weight_share'),
])  # fmt: skip
def test_settings_that_select_nothing_sensible_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        Sampling(**settings)


def test_a_phase_that_collects_weighs_no_episodes_and_one_that_does_not_reports_its_rows():
    table = changed(OFFLINE, evaluation={'num_episodes': 0}, dataset=TINY['dataset'], agent__sampling__weighting='return')
    rows = []
    running.run(prepare(table).setup, report=lambda event: rows.extend(event.rows))
    found = [row['mix/effective_rows'] for row in rows if row['kind'] == 'diagnostics']
    assert len(found) == 2 and found[0] == found[1] > 1.0
    with pytest.raises(UsageError, match='weighting is for phases that collect nothing'):
        prepare(changed(TINY, explore__sampling__weighting='top'))


def test_shares_move_in_a_line_while_the_store_fills():
    settings = {'batch_size': 8, 'mix': {'dataset': 1.0, 'online': 0.0}, 'mix_end': {'dataset': 0.0, 'online': 1.0}}
    for size, online in ((3, 2), (6, 4), (12, 8)):
        filling = store(REWARD + 100.0)._replace(size=jnp.asarray(size, jnp.int32))
        seen = batches(Sampling(**settings), {'dataset': store(REWARD), 'online': filling}, num_updates=4)
        assert ((seen >= 100.0).sum(axis=1) == online).all()  # a quarter of twelve rows: a quarter of the batch
    with pytest.raises(UsageError, match='mix_end needs shares in mix'):
        Sampling(mix_end={'online': 1.0})
    with pytest.raises(UsageError, match='mix_end is for phases that collect'):
        prepare(changed(TINY, exploit__sampling__mix={'dataset': 1.0}, exploit__sampling__mix_end={'online': 1.0}))
