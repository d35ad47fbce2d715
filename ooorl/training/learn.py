"""The one training loop: many updates of an agent on batches drawn from stores, as a single compiled scan."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from ooorl.errors import UsageError
from ooorl.training.batch_parts import batches
from ooorl.training.known import know
from ooorl.training.loops import loop_part, packed, unpacked
from ooorl.training.replay import ReplayState, capacity
from ooorl.training.sampling import Sampling
from ooorl.types import Agent, Array, Metrics, State
from ooorl.wrap import with_extras

SOURCES = {'dataset': 0.0, 'online': 1.0}  # the column `source`, for agents that read it


def make_learn(
    agent: Agent, sampling: Sampling, *, num_updates: int, streams: Mapping[str, int]
) -> Callable[[State, dict[str, ReplayState], jax.Array], tuple[State, Metrics]]:
    """Builds `learn(state, sources, key) -> (state, metrics)`: `num_updates` updates, metrics averaged over them.

    The function is pure and not yet compiled; it can be jitted, mapped over seeds or placed inside a larger scan. What takes a
    pass over all rows, the columns that the agent `reads` and where the successes are, is computed once per call, unless it is
    handed in as a fourth argument, `known`: what `known.know` and `known.keep_up` say of each source.

    Args:
      agent: what learns.
      sampling: how batches are drawn.
      num_updates: length of the scan.
      streams: for each source, from how many environments its rows were collected side by side (1 for a data set).
    """

    def learn(state, sources, key, known=None):
        batch_keys, update_keys = _step_keys(key, num_updates)
        return _updates(agent, state, (batch_keys, update_keys), _draw_from(agent, sources, known, streams, sampling))

    return learn


def make_learn_part(
    agent: Agent, sampling: Sampling, *, num_updates: int, streams: Mapping[str, int]
) -> Callable[[State, dict[str, ReplayState], jax.Array, Array, Array], tuple[State, Metrics]]:
    """Builds `learn(state, sources, key, first, count) -> (state, rows)`: a part of what `make_learn` does.

    It makes the updates `first` to `first + count - 1` of the `num_updates`. `rows` are their packed metrics,
    `[num_updates, ...]`, of which the first `count` count. See `loop_part` on why parts of any length are as good as the whole.
    """

    def learn(state, sources, key, first, count):
        step = _step(agent, _draw_from(agent, sources, None, streams, sampling))
        return loop_part(step, state, _step_keys(key, num_updates), first, count)

    return learn


def make_learn_ahead(
    agent: Agent, sampling: Sampling, *, num_updates: int, streams: Mapping[str, int]
) -> tuple[Callable, Callable]:
    """The same in two parts, for callers that must keep the sources out of what they map over seeds.

    Returns:
      `draw(sources, key, known=None) -> drawn`: all batches of the updates at once, in memory together.
      `learn(state, drawn) -> (state, metrics)`; `learn(state, draw(sources, key))` is what `make_learn` computes.
    """

    def draw(sources, key, known=None):
        batch_keys, update_keys = _step_keys(key, num_updates)
        return jax.vmap(_draw_from(agent, sources, known, streams, sampling))(batch_keys), update_keys

    def learn(state, drawn):
        return _updates(agent, state, drawn, lambda batch: batch)

    return draw, learn


def _step_keys(key, num):
    """`num` keys to draw with and `num` to update with."""
    pairs = jax.vmap(jax.random.split)(jax.random.split(key, num))
    return pairs[:, 0], pairs[:, 1]


def _step(agent, batch_of):
    def step(state, inputs):
        drawn, update_key = inputs
        state, metrics = agent.update(state, batch_of(drawn), update_key)
        return state, packed(metrics)

    return step


def _updates(agent, state, inputs, batch_of):
    state, metrics = jax.lax.scan(_step(agent, batch_of), state, inputs)
    return state, unpacked(jax.tree.map(lambda values: values.mean(axis=0), metrics))


def _draw_from(agent, sources, known, streams, sampling):
    known = known or {name: know(source, streams[name], agent.reads, sampling) for name, source in sources.items()}
    columns = {name: own.columns for name, own in known.items()}
    if 'source' in agent.reads:
        columns = {name: {**own, 'source': jnp.full(capacity(sources[name]), SOURCES[name])} for name, own in columns.items()}
    sources = {name: own._replace(storage=with_extras(own.storage, **columns[name])) for name, own in sources.items()}
    _check_columns(agent, sources)
    windows = {} if agent.window == 1 else {'length': agent.window, 'streams': tuple(streams[name] for name in sources)}
    return batches(sources, known, sampling, windows)


def _check_columns(agent, sources):
    for name, source in sources.items():
        missing = [c for c in agent.reads if c not in source.storage.extras and not c.startswith('reward_')]
        if missing:
            raise UsageError(
                f'the agent reads batch.extras[{missing[0]!r}], but {name} stores only {sorted(source.storage.extras)}; '
                'add the column to the data'
            )
