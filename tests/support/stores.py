"""Stores whose rows tell which they are, agents that report on their batches, and what the loop does to both, compiled."""

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.interpreted import interpreted
from ooorl.training import known, replay
from ooorl.training.learn import make_learn
from ooorl.types import Agent, Transition

GAMMA = 0.9
# Two environments side by side, four steps: row = 2 t + e. Environment 0 wins in its second episode (rows 4 and 6), environment 1
# in its first (rows 1 and 3), whose second one is unfinished.
STREAMS = {'reward': [0, 0, 0, 1, 0, 0, 1, 0], 'boundary': [0, 0, 1, 1, 0, 0, 1, 0]}
BOTH = {'dataset': 1, 'online': 1}

# Each is another program in every test, which runs a few times.
extend = jax.jit(replay.extend)
annotated = interpreted(known.annotated, static_argnums=1)
know = interpreted(known.know, static_argnums=1)
successes = interpreted(known.successes, static_argnums=1)


def learner(*args, **settings):
    """`make_learn`, compiled."""
    return jax.jit(make_learn(*args, **settings))


def listening(reads=(), report=lambda batch: {}):
    """An agent that learns nothing and reports on its batches: its state counts updates."""

    def update(state, batch, key):
        del key
        return state + 1, {name: jnp.asarray(value, jnp.float32) for name, value in report(batch).items()}

    def act(state, observation, key):
        del state, key
        return observation

    return Agent(init=lambda key: jnp.zeros(()), update=update, sample_action=act, best_action=act, reads=reads)


def store(reward, boundary, discount=None, capacity=None):
    """A buffer whose observation is the row number."""
    reward = np.asarray(reward, np.float32)
    num = len(reward)
    rows = Transition(
        observation=np.arange(num, dtype=np.float32)[:, None],
        action=np.zeros((num, 1), np.float32),
        reward=reward,
        discount=np.ones(num, np.float32) if discount is None else np.asarray(discount, np.float32),
        next_observation=np.arange(1, num + 1, dtype=np.float32)[:, None],
        extras={'boundary': np.asarray(boundary, np.float32)},
    )
    if capacity is None:
        return replay.full(rows)
    return extend(replay.create(jax.tree.map(lambda leaf: leaf[0], rows), capacity), rows)


def rows_of(view):
    """Row numbers that a view may draw."""
    rows = np.flatnonzero(np.asarray(view.mask))
    assert len(rows) == int(view.size)
    return np.asarray(view.storage.observation)[rows, 0].astype(int).tolist()
