"""The training loop: what a batch is made of, and that one program serves a growing store."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stores import BOTH, STREAMS, extend, learner, listening, rows_of, store, successes

from ooorl.errors import UsageError
from ooorl.training import replay
from ooorl.training.learn import make_learn_ahead
from ooorl.training.sampling import Sampling
from ooorl.types import Agent


def test_a_success_lends_its_whole_trajectory_also_in_interleaved_streams():
    sampling = Sampling(success_rows=1)
    assert rows_of(successes(store(**STREAMS), 2, sampling)) == [1, 3, 4, 6]
    assert rows_of(successes(store(**STREAMS, capacity=12), 2, sampling)) == [1, 3, 4, 6]
    assert rows_of(successes(store(**STREAMS), 2, Sampling(success_rows=1, success_unit='transition'))) == [3, 6]
    assert rows_of(successes(store(**STREAMS), 2, Sampling(success_rows=1, success_reward=2.0))) == []
    # Read as one stream, the same rows are other episodes.
    assert rows_of(successes(store(**STREAMS), 1, sampling)) == [3, 4, 5, 6]


def test_metrics_are_averaged_over_the_updates():
    agent = Agent(
        init=lambda key: jnp.zeros(()),
        update=lambda state, batch, key: (state + 1, {'count': state}),
        sample_action=None,
        best_action=None,
    )
    learn = learner(agent, Sampling(batch_size=2), num_updates=5, streams={'dataset': 1})
    state, metrics = learn(jnp.zeros(()), {'dataset': store([0, 1], [0, 1])}, jax.random.key(0))
    assert state == 5 and metrics['count'] == 2.0  # the mean of 0 to 4


def test_one_trace_serves_a_growing_store_and_every_limit():
    traces = []
    agent = listening((), lambda batch: traces.append(1) or {'row': batch.observation.max()})
    learn = learner(agent, Sampling(batch_size=64), num_updates=3, streams={'dataset': 1, 'online': 2})
    data, online = store([0, 0], [0, 1]), store([0] * 4, [0] * 4, capacity=40)
    for _ in range(3):
        learn(jnp.zeros(()), {'dataset': data, 'online': online}, jax.random.key(0))
        online = extend(online, jax.tree.map(lambda leaf: leaf[:4], online.storage))
    for limit in (0, 3, 11):
        learn(jnp.zeros(()), {'dataset': data, 'online': replay.take(online, limit)}, jax.random.key(0))
    assert len(traces) == 1 and learn._cache_size() == 1


def test_the_second_call_moves_nothing_between_host_and_device():
    learn = learner(listening(), Sampling(batch_size=8), num_updates=3, streams={'dataset': 1})
    state, sources, key = jnp.zeros(()), {'dataset': store([0, 1], [0, 1])}, jax.random.key(0)
    state, _ = learn(state, sources, key)
    with jax.transfer_guard('disallow'):
        learn(state, sources, key)


def composition(sampling, sources, streams):
    """Share of rows from the data set (its rewards are at least 10) and share of successes, over many updates."""
    agent = listening((), lambda b: {'dataset': (b.reward >= 10).mean(), 'wins': ((b.reward == 1) | (b.reward == 11)).mean()})
    learn = learner(agent, sampling, num_updates=200, streams=streams)
    _, metrics = learn(jnp.zeros(()), sources, jax.random.key(3))
    return {name: float(value) for name, value in metrics.items()}


DATA = {'reward': [10.0] * 9 + [11.0], 'boundary': [0, 1] * 5}  # wins at the rate of one row in ten, in one trajectory of two
ONLINE = {'reward': [0.0] * 29 + [1.0], 'boundary': [0, 1] * 15}


def test_batches_are_composed_as_the_mix_says():
    sources = {'dataset': store(**DATA), 'online': store(**ONLINE)}
    assert composition(Sampling(batch_size=8, mix={'dataset': 0.25, 'online': 0.75}), sources, BOTH)['dataset'] == 0.25
    assert composition(Sampling(batch_size=8, mix='growing'), sources, BOTH)['dataset'] == 0.25
    # 1,600 draws at 1/4: standard error 0.011.
    assert abs(composition(Sampling(batch_size=8), sources, BOTH)['dataset'] - 0.25) < 0.045


def test_success_rows_come_from_successes_in_proportion_to_their_number():
    sources = {'dataset': store(**DATA), 'online': store(**ONLINE)}
    every = composition(Sampling(batch_size=8, success_rows=8, success_unit='transition', success_reward=10.5), sources, BOTH)
    assert every == {'dataset': 1.0, 'wins': 1.0}
    mixed = Sampling(batch_size=8, success_rows=4, mix={'online': 1.0})
    # Half of the batch is drawn from 10 rows of the data, all of them at least 1, and 2 online; standard error 0.013.
    assert abs(composition(mixed, sources, BOTH)['dataset'] - 0.5 * 10 / 12) < 0.055


def test_without_a_success_the_rows_come_from_the_mix():
    sources = {'dataset': store(**DATA), 'online': store(**ONLINE)}
    for mix, expected, tolerance in (({'online': 1.0}, 0.0, 0.0), ({'dataset': 1.0}, 1.0, 0.0), ('union', 0.25, 0.045)):
        got = composition(Sampling(batch_size=8, mix=mix, success_rows=8, success_reward=100.0), sources, BOTH)['dataset']
        assert abs(got - expected) <= tolerance


@pytest.mark.parametrize(('settings', 'words'), [
    ({'batch_size': 0}, 'batch_size must be greater than 0; got 0'),
    ({'success_rows': 300}, 'success_rows must be at most batch_size, 256; got 300'),
    ({'mix': 'unoin'}, "mix must be one of 'union', 'growing'; got 'unoin'"),
    ({'mix': {'dataset': 0.5}}, 'sum to 1'),
    ({'mix': {'dataset': 1.5, 'online': -0.5}}, '0 or more'),
    ({'mix': {}}, 'sum to 1'),
    ({'mix': {'data': 1.0}}, 'got data'),
    ({'success_unit': 'row'}, "success_unit must be one of 'trajectory', 'transition'"),
])  # fmt: skip
def test_bad_sampling_is_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        Sampling(**settings)


def test_no_key_is_used_twice_by_drawing_and_updating(monkeypatch):
    used = []

    def keep(keys):
        used.extend(bytes(one) for one in np.asarray(keys).reshape(-1, 2))

    def watched(name):
        original = getattr(jax.random, name)

        def draw(key, *arguments, **settings):
            jax.debug.callback(keep, jax.random.key_data(key))
            return original(key, *arguments, **settings)

        return draw

    def update(state, batch, key):
        return state + jax.random.normal(key, ()), {}

    for name in ('split', 'normal', 'uniform', 'randint'):
        monkeypatch.setattr(jax.random, name, watched(name))
    agent = dataclasses.replace(listening(), update=update)
    settings = {'sampling': Sampling(batch_size=4, success_rows=1), 'num_updates': 2, 'streams': {'dataset': 1, 'online': 2}}
    sources = {'dataset': store(reward=[0, 1, 0, 0], boundary=[0, 1, 0, 1]), 'online': store(**STREAMS)}
    learner(agent, **settings)(jnp.zeros(()), sources, jax.random.key(0))
    jax.effects_barrier()
    assert len(used) > 10 and len(set(used)) == len(used)


def test_drawing_ahead_is_the_same_learning():
    def update(state, batch, key):
        noise = jax.random.normal(key, ())
        return 0.9 * state + batch.observation.sum() + noise, {'sum': batch.observation.sum(), 'state': state}

    agent = dataclasses.replace(listening(), update=update)
    settings = {'sampling': Sampling(batch_size=4, success_rows=1), 'num_updates': 5, 'streams': {'dataset': 1, 'online': 2}}
    sources = {'dataset': store(reward=[0, 1, 0, 0], boundary=[0, 1, 0, 1]), 'online': store(**STREAMS)}
    draw, learn = make_learn_ahead(agent, **settings)
    key = jax.random.key(7)
    expected = learner(agent, **settings)(jnp.zeros(()), sources, key)
    found = jax.jit(learn)(jnp.zeros(()), jax.jit(draw)(sources, key))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
