"""The one training loop: many updates of an agent on batches drawn from stores, as a single compiled scan."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from ooorl.errors import UsageError
from ooorl.training import episodes
from ooorl.training.replay import ReplayState, View, capacity, sample_views, shares, view, where
from ooorl.types import Agent, Array, Metrics, State, Transition
from ooorl.validation import check_choice, check_not_negative, check_positive
from ooorl.wrap import with_extras

STORES = ('dataset', 'online')  # what a phase can draw from
COMPUTED = ('return_to_go', 'discounted_horizon', 'reward_low', 'reward_high')


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a batch is drawn."""

    batch_size: int = 256  # rows of a batch
    mix: Mapping[str, float] | str = 'union'  # 'union', 'growing', or fixed shares {'dataset': 0.5, 'online': 0.5}
    success_rows: int = 0  # so many rows of each batch come from successes (none stored: from the mix)
    success_reward: float = 1.0  # a raw reward at least this high is a success
    success_unit: str = 'trajectory'  # draw from the whole 'trajectory' that succeeds, or only the 'transition'
    gamma: float = 0.99  # discount of return_to_go
    failure_returns: bool = False  # an episode without success counts as failing for ever: r_last / (1 - gamma)

    def __post_init__(self):
        check_positive(batch_size=self.batch_size)
        check_not_negative(success_rows=self.success_rows)
        check_choice(('trajectory', 'transition'), success_unit=self.success_unit)
        if self.success_rows > self.batch_size:
            raise UsageError(f'success_rows must be at most batch_size, {self.batch_size}; got {self.success_rows}')
        if isinstance(self.mix, str):
            check_choice(('union', 'growing'), mix=self.mix)
        elif set(self.mix) - set(STORES):
            raise UsageError(f'mix gives shares to {" and ".join(STORES)}; got {", ".join(map(str, self.mix))}; rename')
        elif not all(isinstance(share, int | float) for share in self.mix.values()):
            raise UsageError(f'the shares of mix must be numbers; got {dict(self.mix)}')
        elif abs(sum(self.mix.values()) - 1.0) > 1e-6 or min(self.mix.values()) < 0:
            raise UsageError(f'the shares of mix must be 0 or more and sum to 1; got {dict(self.mix)}')


def make_learn(
    agent: Agent, sampling: Sampling, *, num_updates: int, streams: Mapping[str, int]
) -> Callable[[State, dict[str, ReplayState], jax.Array], tuple[State, Metrics]]:
    """Builds `learn(state, sources, key) -> (state, metrics)`: `num_updates` updates, metrics averaged over them.

    The function is pure and not yet compiled; it can be jitted, mapped over seeds or placed inside a larger scan. Columns the
    agent `reads` are computed from the sources once per call.

    Args:
      agent: what learns.
      sampling: how batches are drawn.
      num_updates: length of the scan.
      streams: for each source, from how many environments its rows were collected side by side (1 for a data set).
    """

    def learn(state, sources, key):
        batch_keys, update_keys = _step_keys(key, num_updates)
        return _updates(agent, state, (batch_keys, update_keys), _draw_from(agent, sources, streams, sampling))

    return learn


def make_learn_ahead(
    agent: Agent, sampling: Sampling, *, num_updates: int, streams: Mapping[str, int]
) -> tuple[Callable, Callable]:
    """The same in two parts, for callers that must keep the sources out of what they map over seeds.

    Returns:
      `draw(sources, key) -> drawn`: all batches of the updates at once, in memory together.
      `learn(state, drawn) -> (state, metrics)`; `learn(state, draw(sources, key))` is what `make_learn` computes.
    """

    def draw(sources, key):
        batch_keys, update_keys = _step_keys(key, num_updates)
        return jax.vmap(_draw_from(agent, sources, streams, sampling))(batch_keys), update_keys

    def learn(state, drawn):
        return _updates(agent, state, drawn, lambda batch: batch)

    return draw, learn


def _step_keys(key, num):
    """`num` keys to draw with and `num` to update with."""
    pairs = jax.vmap(jax.random.split)(jax.random.split(key, num))
    return pairs[:, 0], pairs[:, 1]


def _updates(agent, state, inputs, batch_of):
    def step(state, inputs):
        drawn, update_key = inputs
        state, metrics = agent.update(state, batch_of(drawn), update_key)
        return state, packed(metrics)

    state, metrics = jax.lax.scan(step, state, inputs)
    return state, unpacked(jax.tree.map(lambda values: values.mean(axis=0), metrics))


def packed(metrics: Metrics) -> dict[tuple[str, ...], Array]:
    """Scalars by name as one vector under all of their names: a loop writes one row for them and not one number for each."""
    names = tuple(sorted(metrics))
    return {names: jnp.stack([jnp.asarray(metrics[name], jnp.float32) for name in names])} if names else {}


def unpacked(rows: Mapping[tuple[str, ...], Array]) -> Metrics:
    """What was `packed`, by name; the vectors may have got leading axes."""
    return {name: values[..., place] for names, values in rows.items() for place, name in enumerate(names)}


def _draw_from(agent, sources, streams, sampling):
    sources = {name: annotated(source, streams[name], agent.reads, sampling) for name, source in sources.items()}
    _check_columns(agent, sources)
    return _batches(sources, streams, sampling, _reward_range(agent, sources))


def _check_columns(agent, sources):
    for name, source in sources.items():
        missing = [c for c in agent.reads if c not in source.storage.extras and not c.startswith('reward_')]
        if missing:
            raise UsageError(
                f'the agent reads batch.extras[{missing[0]!r}], but {name} stores only {sorted(source.storage.extras)}; '
                'add the column to the data'
            )


def annotated(source: ReplayState, num_streams: int, reads: tuple[str, ...], sampling: Sampling) -> ReplayState:
    """The source with the episode columns in `reads` computed: `return_to_go` and `discounted_horizon`."""
    if 'return_to_go' not in reads:
        return source
    # A hidden row counts 0 here and -inf below: 0 * -inf would poison the recursion across a boundary.
    reward, discount, boundary = _visible_streams(source, num_streams, hidden=0.0)
    if sampling.failure_returns:
        returns, horizon = episodes.sparse_returns_to_go(
            reward, discount, boundary, sampling.gamma, sampling.success_reward
        )
    else:
        returns = episodes.returns_to_go(reward, discount, boundary, sampling.gamma)
        horizon = episodes.discounted_horizon(discount, boundary, sampling.gamma)
    columns = {'return_to_go': returns.reshape(-1), 'discounted_horizon': horizon.reshape(-1)}
    pad = capacity(source) - returns.size
    columns = {name: jnp.pad(column, (0, pad), constant_values=jnp.nan) for name, column in columns.items()}
    return source._replace(storage=with_extras(source.storage, **columns))


def _visible_streams(source, num_streams, hidden):
    """Reward, discount and boundary as `[T, N]`; rows that are not valid get the reward `hidden` and end no episode."""
    rows = capacity(source) // num_streams * num_streams
    valid = jnp.arange(rows) < source.size
    storage = source.storage
    reward = jnp.where(valid, storage.reward[:rows], hidden)
    # A row that was never written has discount 0, which would end the episode before it.
    discount = jnp.where(valid, storage.discount[:rows], 1.0)
    boundary = jnp.where(valid, storage.extras['boundary'][:rows], 0.0)
    shape = (rows // num_streams, num_streams)
    return reward.reshape(shape), discount.reshape(shape), boundary.reshape(shape)


def successes(source: ReplayState, num_streams: int, sampling: Sampling) -> View:
    """The rows that count as successes under `sampling`."""
    reward, _, boundary = _visible_streams(source, num_streams, hidden=-jnp.inf)
    if sampling.success_unit == 'trajectory':
        reward = episodes.episode_max(reward, boundary)
    flat = reward.reshape(-1)
    mask = jnp.pad(flat >= sampling.success_reward, (0, capacity(source) - flat.size))
    return where(source, mask)


def _reward_range(agent, sources):
    if not {'reward_low', 'reward_high'} & set(agent.reads):
        return {}
    low, high = jnp.inf, -jnp.inf
    for source in sources.values():
        valid = jnp.arange(capacity(source)) < source.size
        low = jnp.minimum(low, jnp.where(valid, source.storage.reward, jnp.inf).min())
        high = jnp.maximum(high, jnp.where(valid, source.storage.reward, -jnp.inf).max())
    return {'reward_low': low, 'reward_high': high}


def _batches(sources, streams, sampling, reward_range) -> Callable[[jax.Array], Transition]:
    names = tuple(sources)
    views = tuple(view(source) for source in sources.values())
    weights, exact = shares(sampling.mix, names)
    num_plain = sampling.batch_size - sampling.success_rows
    if sampling.success_rows:
        wins = tuple(successes(sources[name], streams[name], sampling) for name in names)
        none_yet = sum(win.size for win in wins) == 0
        plain_weights = jnp.stack([every.size for every in views]).astype(jnp.float32) if weights is None else weights
        win_weights = jnp.stack([win.size for win in wins]).astype(jnp.float32)
        win_weights = jnp.where(none_yet, plain_weights, win_weights)
        wins = tuple(
            View(win.storage, jnp.where(none_yet, jnp.arange(win.index.size), win.index),
                 jnp.where(none_yet, every.size, win.size))
            for win, every in zip(wins, views, strict=True)
        )

    def draw(key):
        plain_key, win_key = jax.random.split(key)
        parts = []
        if num_plain:
            parts.append(sample_views(views, plain_key, num_plain, weights=weights, exact=exact))
        if sampling.success_rows:
            parts.append(sample_views(wins, win_key, sampling.success_rows, weights=win_weights))
        batch = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
        columns = {name: jnp.broadcast_to(value, batch.reward.shape) for name, value in reward_range.items()}
        return with_extras(batch, **columns)

    return draw
