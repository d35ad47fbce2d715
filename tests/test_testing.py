"""`check_agent` lets a good agent pass and names what is wrong with each of many bad ones; so does `check_signal`."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from ooorl.testing import check_agent, check_signal, example_batch
from ooorl.types import Agent, Signal, Spec

SPEC = Spec(observation_dim=3, action_dim=2)


class _State(NamedTuple):
    weight: jax.Array
    slow: jax.Array


def _update(state, batch, key):
    noise = jax.random.normal(key, batch.reward.shape)
    seen = (batch.reward * batch.extras['label'] + batch.discount * batch.next_observation[:, 0]).mean()
    weight = 0.9 * state.weight + 0.1 * seen + 0.01 * noise.mean()
    return _State(weight, 0.5 * (state.slow + weight)), {'loss': seen}


def _act(state, observation, key):
    del key
    return jnp.tanh(state.weight * observation[..., :2])


GOOD = Agent(
    init=lambda key: _State(jax.random.normal(key, ()), jnp.zeros(())),
    update=_update,
    sample_action=_act,
    best_action=_act,
    reads=('label',),
    q=lambda state, observation, action: jnp.stack([state.weight * action.sum(axis=-1)] * 2),
)


def _after(change):
    """The good update with its results changed."""
    return lambda state, batch, key: change(*_update(state, batch, key), batch)


def _drawing_twice(state, batch, key):
    state, metrics = _update(state, batch, key)
    return state._replace(slow=state.slow + jax.random.uniform(key)), metrics


def _one_buffer(key):
    weight = jax.random.normal(key, ())
    return _State(weight, weight)


def _counting():
    """Updates that differ from trace to trace, as hidden state does."""
    calls = []

    def update(state, batch, key):
        calls.append(None)
        state, metrics = _update(state, batch, key)
        return state._replace(weight=state.weight + len(calls)), metrics

    return update


WRONG = {
    'the state.weight is no key': {'init': lambda key: _State(key, jnp.zeros(()))},
    'the state.slow is an array with a type of its own': {'init': lambda key: _State(jax.random.normal(key, ()), 0.0)},
    'is float32 or an integer': {'init': lambda key: _State(jax.random.normal(key, ()), jnp.zeros((), jnp.float16))},
    'are traced once, not 2 times': {
        'update': _after(lambda state, metrics, batch: (state._replace(slow=jnp.asarray(0.0)), metrics))
    },
    'the state.slow is a copy and not the same array as the state.weight': {'init': _one_buffer},
    'keeps the structure of the state': {'update': _after(lambda state, metrics, batch: (tuple(state), metrics))},
    'keeps the shapes and types of the state': {
        'update': _after(lambda state, metrics, batch: (state._replace(slow=batch.reward), metrics))
    },
    'the metric loss is a scalar': {'update': _after(lambda state, metrics, batch: (state, {'loss': batch.reward}))},
    'the metric loss is finite': {'update': _after(lambda state, metrics, batch: (state, {'loss': metrics['loss'] / 0.0}))},
    'update reports metrics': {'update': _after(lambda state, metrics, batch: (state, {}))},
    'watched for keys that are used twice': {'update': _drawing_twice},
    'given the columns in reads': {'reads': ()},
    'seeds mapped at once equal': {'update': _counting()},
    'does not read the successor where the discount is 0': {
        'update': _after(lambda state, metrics, batch: (state, {'loss': batch.next_observation.mean()}))
    },
    'sample_action at observations .3,. has the shape': {'sample_action': lambda s, o, key: _act(s, jnp.atleast_2d(o), key)},
    'best_action at observations .3,. stays in the box': {'best_action': lambda s, o, key: 2.0 + _act(s, o, key)},
    'best_action at observations .3,. is float32': {'best_action': lambda s, o, key: _act(s, o, key).astype(jnp.bfloat16)},
    'sample_action at observations .3,. is finite': {'sample_action': lambda s, o, key: _act(s, o, key) / 0.0 * 0.0},
    'q at observations .3,. is .E, ': {'q': lambda state, observation, action: state.weight * action.sum(axis=-1)},
    'observe keeps the structure': {'observe': lambda state, transitions: tuple(state)},
    'sees.state, batch. keeps': {'sees': lambda state, batch: jax.tree.map(lambda leaf: leaf[:2], batch)},
}


def _batch():
    return example_batch(SPEC, jax.random.key(0), reads=('label',))


def test_a_good_agent_passes():
    check_agent(GOOD, SPEC)
    check_agent(GOOD, SPEC, batch=_batch())


@pytest.mark.parametrize('sentence', WRONG)
def test_each_fault_is_named(sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_agent(dataclasses.replace(GOOD, **WRONG[sentence]), SPEC, batch=_batch())


def test_a_batch_without_a_column_that_is_read_is_named():
    with pytest.raises(AssertionError, match="columns .'label'., which the agent reads"):
        check_agent(GOOD, SPEC, batch=_batch()._replace(extras={}))


def test_who_may_read_final_successors_says_so():
    update = WRONG['does not read the successor where the discount is 0']['update']
    check_agent(dataclasses.replace(GOOD, update=update), SPEC, reads_final_successors=True)


def _signal(score):
    return Signal(
        init=lambda key: jnp.zeros(()), update=lambda state, batch, key: (state + 1.0, score(batch), {}),
        score=lambda state, batch: score(batch),
    )


def test_signals_score_every_row():
    check_signal(_signal(lambda batch: jnp.abs(batch.reward)), SPEC)
    with pytest.raises(AssertionError, match='the score of update is not negative'):
        check_signal(_signal(lambda batch: batch.reward), SPEC)
    with pytest.raises(AssertionError, match='the score of update has the shape'):
        check_signal(_signal(lambda batch: jnp.abs(batch.reward).mean()), SPEC)
