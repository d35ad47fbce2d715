"""Detectors of states that cannot be left again, as signals.

`reversibility_classifier` learns from labels, `precedence` from the order of observations alone, `reset_reachability` from which
states have led back to where episodes begin. All are asked about successors: their score of a row says how likely its
`next_observation` is irreversible, in [0, 1]. A detector that has not been fitted yet says so (`verdict`), and scores 0, so that
it never triggers anything.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ooorl.errors import UsageError
from ooorl.nn.networks import Network, mlp
from ooorl.nn.optimizers import adam, moved, slow_copy
from ooorl.signals.labelling import UNKNOWN
from ooorl.types import Array, Key, Params, Signal, Spec, State, Transition
from ooorl.validation import check_fraction, check_not_negative, check_positive, check_unit


@dataclass(frozen=True, eq=False, kw_only=True)
class Detector(Signal):
    """A signal whose scores are probabilities, and which knows whether it has learnt anything.

    Attributes:
      fitted: `(state) -> bool`; until it is true all scores are 0.
    """

    fitted: Callable[[State], Array]


def verdict(detector: Detector, state: State, batch: Transition, threshold: float) -> Array:
    """`[B]` int8: 1 where the score exceeds the threshold, else 0; -1, unknown, where the detector was never fitted."""
    found = (detector.score(state, batch) > threshold).astype(jnp.int8)
    return jnp.where(detector.fitted(state), found, UNKNOWN)


def visited(observation: Array) -> Transition:
    """A batch whose successors are the given observations `[..., O]`, for whoever wants to know of states."""
    zeros = jnp.zeros(observation.shape[:-1])
    return Transition(observation, zeros[..., None], zeros, zeros, observation)


def chosen(observation: Array, columns: tuple[int, ...] | None) -> Array:
    """The columns of an observation that a detector looks at; None for all."""
    return observation if columns is None else observation[..., jnp.asarray(columns)]


def check_columns(columns: tuple[int, ...] | None, spec: Spec) -> int:
    """How many columns are looked at.

    Raises:
      UsageError: if there is none, or one that observations lack.
    """
    if columns is None:
        return spec.observation_dim
    if not columns or not 0 <= min(columns) <= max(columns) < spec.observation_dim:
        raise UsageError(f'columns must be some of 0 to {spec.observation_dim - 1}; got {columns}')
    return len(columns)


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Settings of `reversibility_classifier`; widths and rate are PAINT's."""

    hidden: tuple[int, ...] = (128, 128)  # widths
    learning_rate: float = 1e-3  # Adam
    columns: tuple[int, ...] | None = None  # of the observation that are looked at; none given: all. A goal tells nothing
    calibrated: bool = False  # undo the balancing of the classes, so that scores are probabilities of the rows seen
    min_labels: int = 1  # rows of each class that must have been seen before it says anything

    def __post_init__(self):
        check_positive(learning_rate=self.learning_rate, min_labels=self.min_labels)


class ClassifierState(NamedTuple):
    """The network, its optimiser, and how many reversible and irreversible rows it has learnt from, `seen` `[2]`."""

    network: Params
    network_opt: optax.OptState
    seen: Array


def reversibility_classifier(spec: Spec, config: ClassifierConfig = ClassifierConfig()) -> Detector:
    """A classifier of successors by the column `label` (1 irreversible, 0 reversible, -1 or absent: unknown).

        L = mean over the classes that the batch holds of mean over their rows of cross-entropy(f(s'), label)
        score = sigmoid(f(s')),   calibrated: sigmoid(f(s') + log(seen irreversible / seen reversible))

    Both classes weigh the same whatever their shares, as where half of each batch is drawn from either: hence 0.5 is no
    probability of one half unless `calibrated`. Rows without label are scored and not learnt from. One update takes the step,
    then scores.

    Source: arXiv:2210.10765, whose release draws 32 + 32 rows.
    """
    network, optimizer = mlp(config.hidden, 1), adam(config.learning_rate)
    width = check_columns(config.columns, spec)

    def init(key):
        params = network.init(key, jnp.zeros((1, width)))
        return ClassifierState(params, optimizer.init(params), jnp.zeros(2))

    def logit(params, batch):
        return network.apply(params, chosen(batch.next_observation, config.columns))[..., 0]

    def fitted(state):
        return state.seen.min() >= config.min_labels

    def score(state, batch):
        shift = jnp.log(jnp.maximum(state.seen[1], 1.0) / jnp.maximum(state.seen[0], 1.0)) if config.calibrated else 0.0
        return jnp.where(fitted(state), jax.nn.sigmoid(logit(state.network, batch) + shift), 0.0)

    def update(state, batch, key):
        del key
        label = batch.extras.get('label', jnp.full_like(batch.reward, UNKNOWN))
        rows = jnp.stack([label == 0, label == 1]).astype(jnp.float32)

        def loss_fn(params):
            value = logit(params, batch)
            losses = jnp.stack([jax.nn.softplus(value), jax.nn.softplus(-value)])
            classes = (rows * losses).sum(axis=1) / jnp.maximum(rows.sum(axis=1), 1.0)
            return classes.sum() / jnp.maximum((rows.sum(axis=1) > 0).sum(), 1)

        loss, gradient = jax.value_and_grad(loss_fn)(state.network)
        new = _stepped(optimizer, gradient, state, rows.sum() > 0)
        new = new._replace(seen=state.seen + rows.sum(axis=1))
        return new, score(new, batch), {'loss': loss, 'labelled': rows.sum() / rows.shape[1], 'fitted': fitted(new) * 1.0}

    return Detector(init=init, update=update, score=score, fitted=fitted)


def _stepped(optimizer, gradient, state, learns):
    """The state after an optimiser's step, or as it is where there was nothing to learn from: momentum must not move it."""
    updates, opt = optimizer.update(gradient, state.network_opt, state.network)
    after = state._replace(network=moved(state.network, updates), network_opt=opt)
    return jax.tree.map(lambda new, old: jnp.where(learns, new, old), after, state)


def fit(
    detector: Detector, transitions: Transition, label: Array, key: Key, *, num_updates: int, batch_size: int = 64
) -> State:
    """A fresh detector fitted to rows `[n]` and their labels `[n]`, half of each batch drawn from either class.

    Where a class has no row, batches come from the other and a classifier stays unfitted. Compiles; PAINT does so at every reset.
    """
    init_key, loop_key = jax.random.split(key)
    counts = [jnp.cumsum(label == value) for value in (0, 1)]

    def draw(key, up_to, num):
        rank = jax.random.randint(key, (num,), 0, jnp.maximum(up_to[-1], 1))
        return jnp.searchsorted(up_to, rank, side='right')

    def step(state, key):
        keys = jax.random.split(key, 3)
        half = batch_size // 2
        rows = [draw(k, up_to, half) for k, up_to in zip(keys, counts, strict=False)]
        rows = [jnp.where(own[-1] > 0, mine, other) for own, mine, other in zip(counts, rows, rows[::-1], strict=True)]
        rows = jnp.minimum(jnp.concatenate(rows), label.shape[0] - 1)
        batch = jax.tree.map(lambda leaf: leaf[rows], transitions)
        batch = batch._replace(extras={**batch.extras, 'label': label[rows].astype(jnp.float32)})
        return detector.update(state, batch, keys[2])[0], None

    return jax.lax.scan(step, detector.init(init_key), jax.random.split(loop_key, num_updates))[0]


@dataclass(frozen=True, kw_only=True)
class PrecedenceConfig:
    """Settings of `precedence`."""

    hidden: tuple[int, ...] = (128, 128)  # widths
    learning_rate: float = 1e-3  # Adam
    columns: tuple[int, ...] | None = None  # of the observation that are looked at; none given: all
    threshold: float = 0.7  # probability of the order from which on a step counts as irreversible
    min_updates: int = 1000  # before it says anything
    reset: tuple[float, ...] = ()  # where episodes begin, in the columns looked at: scores are of states and not of steps

    def __post_init__(self):
        check_positive(learning_rate=self.learning_rate)
        check_not_negative(min_updates=self.min_updates)
        if not 0.5 <= self.threshold < 1:
            raise UsageError(f'threshold must lie in [0.5, 1), as 0.5 is what says nothing of the order; got {self.threshold}')


def _check_reset(reset, width):
    if len(reset) != width:
        raise UsageError(f'reset must have a number for each of the {width} columns looked at; got {len(reset)}')


class PrecedenceState(NamedTuple):
    """The network, its optimiser and the number of updates."""

    network: Params
    network_opt: optax.OptState
    updates: Array


def _antisymmetric(network: Network, params, before, after):
    return network.apply(params, before, after)[..., 0] - network.apply(params, after, before)[..., 0]


def precedence(spec: Spec, config: PrecedenceConfig = PrecedenceConfig()) -> Detector:
    """How sure it is that s comes before s' and never after, from the order of observations alone: no labels.

        psi(x, y) = sigmoid(g(x, y) - g(y, x)),   L = -mean log psi(s, y),   score = psi(s, s') where that exceeds threshold, else
        0

    y is the column `later` `[B, O]` (a later observation of the episode, `with_later`) where the batch has it, else s'. Taking
    g's difference makes both orders of a pair one row and psi(x, x) one half. It depends on who collected the data: steps that a
    policy never takes back look as if they could not be.

    A step's score says nothing of a state in which somebody stands. With `reset` o the score is psi(o, s'): how sure it is that
    s' comes after the reset and nobody ever came from it to the reset, of any state. Learning is the same.

    Source: Grinsztajn et al., "There Is No Turning Back", NeurIPS 2021, arXiv:2106.04480 (RAE), who draw the order of each pair.
    """
    network, optimizer = mlp(config.hidden, 1), adam(config.learning_rate)
    width = check_columns(config.columns, spec)
    if config.reset:
        _check_reset(config.reset, width)

    def init(key):
        params = network.init(key, jnp.zeros((1, width)), jnp.zeros((1, width)))
        return PrecedenceState(params, optimizer.init(params), jnp.zeros((), jnp.int32))

    def order(params, before, after):
        return _antisymmetric(network, params, chosen(before, config.columns), chosen(after, config.columns))

    def fitted(state):
        return state.updates >= config.min_updates

    def score(state, batch):
        before, after = (chosen(seen, config.columns) for seen in (batch.observation, batch.next_observation))
        before = jnp.broadcast_to(jnp.array(config.reset), after.shape) if config.reset else before
        psi = jax.nn.sigmoid(_antisymmetric(network, state.network, before, after))
        return jnp.where(fitted(state) & (psi > config.threshold), psi, 0.0)

    def update(state, batch, key):
        del key
        later = batch.extras.get('later', batch.next_observation)

        def loss_fn(params):
            return jax.nn.softplus(-order(params, batch.observation, later)).mean()

        loss, gradient = jax.value_and_grad(loss_fn)(state.network)
        state = _stepped(optimizer, gradient, state, True)._replace(updates=state.updates + 1)
        return state, score(state, batch), {'loss': loss, 'fitted': fitted(state) * 1.0}

    return Detector(init=init, update=update, score=score, fitted=fitted)


def with_later(transitions: Transition, window: int, key: Key) -> Transition:
    """Rows `[n]` in the order they were lived, with a column `later`: the successor 0 to window - 1 rows on, of the same
    episode."""
    num = transitions.reward.shape[0]
    rows = jnp.arange(num)
    ends = jnp.where(transitions.extras['boundary'] > 0, rows, num - 1)
    last = jax.lax.cummin(ends, reverse=True)
    ahead = jnp.minimum(rows + jax.random.randint(key, (num,), 0, window), last)
    return transitions._replace(extras={**transitions.extras, 'later': transitions.next_observation[ahead]})


@dataclass(frozen=True, kw_only=True)
class ReachabilityConfig:
    """Settings of `reset_reachability`."""

    reset: tuple[float, ...] = ()  # the observation where episodes begin, in the columns that are looked at
    radius: float = 0.1  # of the ball around it that counts as reset
    gamma: float = 0.99  # discount; a score above x means: further from the reset than log(1 - x) / log(gamma) steps
    expectile: float = 0.9  # of the regression: how near to the best way back that the data hold
    polyak: float = 0.02  # share of the network in its slow copy after each update
    hidden: tuple[int, ...] = (128, 128)  # widths
    learning_rate: float = 1e-3  # Adam
    columns: tuple[int, ...] | None = None  # of the observation that are looked at; none given: all
    min_updates: int = 1000  # before it says anything

    def __post_init__(self):
        check_fraction(expectile=self.expectile, gamma=self.gamma)
        check_unit(polyak=self.polyak)
        check_positive(radius=self.radius, learning_rate=self.learning_rate)
        check_not_negative(min_updates=self.min_updates)


class ReachabilityState(NamedTuple):
    """The network and its slow copy, its optimiser, the number of updates and of resets that it has seen reached."""

    network: Params
    network_opt: optax.OptState
    slow: Params
    updates: Array
    resets: Array


def reset_reachability(spec: Spec, config: ReachabilityConfig) -> Detector:
    """One minus the discounted chance to come back to where episodes begin, without labels.

        y = 1 where s' is a reset, else gamma V_slow(s')
        L = mean |expectile - 1(u < 0)| cross-entropy(V(s), y),  u = y - V(s);   score = 1 - V(s')

    V is a sigmoid; the loss has its least where expectile regression has it, E |expectile - 1(u < 0)| u = 0. Rows that ended the
    task anywhere but at a reset teach nothing. V is a lower bound that depends on the data: what nobody has come back from looks
    irreversible, though it may not be.

    Raises:
      UsageError: if the reset does not fit the columns.
    """
    width = check_columns(config.columns, spec)
    _check_reset(config.reset, width)
    network, optimizer, reset = mlp(config.hidden, 1), adam(config.learning_rate), jnp.asarray(config.reset, jnp.float32)

    def init(key):
        params = network.init(key, jnp.zeros((1, width)))
        zero = jnp.zeros((), jnp.int32)
        return ReachabilityState(params, optimizer.init(params), jax.tree.map(jnp.copy, params), zero, zero + 0)

    def logit(params, observation):
        return network.apply(params, chosen(observation, config.columns))[..., 0]

    def value(params, observation):
        return jax.nn.sigmoid(logit(params, observation))

    def fitted(state):
        return (state.updates >= config.min_updates) & (state.resets > 0)

    def score(state, batch):
        return jnp.where(fitted(state), 1.0 - value(state.network, batch.next_observation), 0.0)

    def update(state, batch, key):
        del key
        place = chosen(batch.next_observation, config.columns)
        back = ((place - jnp.broadcast_to(reset, place.shape)) ** 2).sum(axis=-1) <= config.radius**2
        target = jnp.where(back, 1.0, config.gamma * value(state.slow, batch.next_observation))
        teaches = jnp.where(back, 1.0, batch.discount)

        def loss_fn(params):
            found = logit(params, batch.observation)
            weight = jnp.where(target > jax.nn.sigmoid(found), config.expectile, 1.0 - config.expectile)
            # The cross-entropy to a soft target: its gradient is that of the square, freed of the sigmoid's own, which vanishes.
            return (teaches * weight * (jax.nn.softplus(found) - target * found)).mean()

        loss, gradient = jax.value_and_grad(loss_fn)(state.network)
        new = _stepped(optimizer, gradient, state, True)
        slow = slow_copy(new.network, state.slow, config.polyak)
        new = new._replace(slow=slow, updates=state.updates + 1, resets=state.resets + back.sum(dtype=jnp.int32))
        return new, score(new, batch), {'loss': loss, 'target': target.mean(), 'fitted': fitted(new) * 1.0}

    return Detector(init=init, update=update, score=score, fitted=fitted)
