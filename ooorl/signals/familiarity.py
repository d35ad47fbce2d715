"""Detectors of states that are unlike the known ones: baselines for `reversibility`, which they are not.

They flag novelty: a state that is merely new scores as high as one that cannot be left (on a table without walls, a distance to
the nearest neighbour tells both from known states without error). Give them to `ooorl.wrap.cautious` only to see what that costs.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ooorl.errors import UsageError
from ooorl.nn.networks import mlp
from ooorl.nn.optimizers import adam, moved
from ooorl.signals.labelling import UNKNOWN
from ooorl.signals.reversibility import Detector, check_columns, chosen
from ooorl.types import Array, Params, Spec, Transition, ignore_data
from ooorl.validation import check_choice, check_not_negative, check_positive

REMEMBERED = ('collected', 'sampled')
NOWHERE = 1e15  # where nothing is: far from everything, and finite, as every number of a state is; its square fits, too


@dataclass(frozen=True, kw_only=True)
class NeighbourConfig:
    """Settings of `nearest_neighbour`."""

    radius: float = 0.1  # distance that scores one half, in units of the columns (`usual_distance`)
    capacity: int = 4096  # observations remembered, the newest ones
    columns: tuple[int, ...] | None = None  # of the observation that are looked at; none given: all
    remember: str = 'collected'  # 'collected' rows, as they enter the store; or 'sampled', those of the batches, data sets' too

    def __post_init__(self):
        check_positive(radius=self.radius, capacity=self.capacity)
        check_choice(REMEMBERED, remember=self.remember)


class NeighbourState(NamedTuple):
    """Remembered observations `[capacity, columns]`, `NOWHERE` where there is none yet, and how many were ever stored."""

    memory: Array
    stored: Array


def nearest_neighbour(spec: Spec, config: NeighbourConfig = NeighbourConfig()) -> Detector:
    """Distance d of s' to the nearest observation remembered: score = d / (d + radius).

    'collected': every successor that enters the store is remembered, but for those whose column `label` says that they are
    irreversible. 'sampled': those of every batch that is learnt from; where it has a column `label`, only what that says is
    reversible, so that a place is not known because somebody stands in it. Of more rows than fit at once, evenly spread ones.
    """
    width = check_columns(config.columns, spec)

    def init(key):
        del key
        return NeighbourState(jnp.full((config.capacity, width), NOWHERE), jnp.zeros((), jnp.int32))

    def score(state, batch):
        place = chosen(batch.next_observation, config.columns)
        apart = place.reshape(-1, 1, width) - state.memory[None]
        nearest = jnp.sqrt((apart**2).sum(axis=-1).min(axis=-1)).reshape(place.shape[:-1])
        # Where nothing is remembered there is no distance.
        return jnp.where(nearest < NOWHERE / 2, nearest / (nearest + config.radius), 0.0)

    def stored(state, transitions, least):
        """The state with the rows that fit and whose label is at least `least` and not 1; the others take no place."""
        rows = transitions.reward.shape[0]
        kept = np.linspace(0, rows - 1, min(rows, config.capacity)).astype(int)
        label = transitions.extras.get('label', jnp.zeros(rows))[kept]
        known = (label >= least) & (label < 1)
        slots = (state.stored + jnp.cumsum(known) - 1) % config.capacity
        places = chosen(transitions.next_observation, config.columns)[kept]
        memory = state.memory.at[jnp.where(known, slots, config.capacity)].set(places, mode='drop')
        return NeighbourState(memory, state.stored + known.sum(dtype=jnp.int32))

    def update(state, batch, key):
        del key
        if config.remember == 'sampled':
            state = stored(state, batch, 0.0)
        return state, score(state, batch), {'fitted': (state.stored > 0) * 1.0}

    return Detector(
        init=init, update=update, score=score, fitted=lambda state: state.stored > 0,
        observe=(lambda state, rows: stored(state, rows, UNKNOWN)) if config.remember == 'collected' else ignore_data,
    )


def usual_distance(observation: np.ndarray, quantile: float = 0.95) -> float:
    """Quantile of the distances of rows `[n, columns]` to their nearest others: a `radius` that known rows rarely exceed."""
    rows = np.asarray(observation, np.float64)
    nearest = [np.delete(((rows - row) ** 2).sum(axis=-1), number).min() for number, row in enumerate(rows)]
    return float(np.quantile(np.sqrt(nearest), quantile))


@dataclass(frozen=True, kw_only=True)
class ConfidenceConfig:
    """Settings of `confidence_minimisation`."""

    hidden: tuple[int, ...] = (128, 128)  # widths
    num_classes: int = 8  # K
    weight: float = 0.5  # lambda, of the loss on uncertain rows
    learning_rate: float = 1e-3  # Adam
    columns: tuple[int, ...] | None = None  # of the observation that are looked at; none given: all
    min_updates: int = 1000  # updates with known rows before it says anything

    def __post_init__(self):
        check_positive(learning_rate=self.learning_rate)
        check_not_negative(weight=self.weight, min_updates=self.min_updates)
        if self.num_classes < 2:
            raise UsageError(f'num_classes must be at least 2, one class is always certain; got {self.num_classes}')


class ConfidenceState(NamedTuple):
    """The network, its optimiser and the number of updates with known rows."""

    network: Params
    network_opt: optax.OptState
    updates: Array


def confidence_loss(logits: Array) -> Array:
    """`logsumexp(f) - mean_k f_k` over the last axis: cross-entropy to the uniform distribution, at least log K."""
    return jax.nn.logsumexp(logits, axis=-1) - logits.mean(axis=-1)


def confidence_minimisation(spec: Spec, config: ConfidenceConfig = ConfidenceConfig()) -> Detector:
    """A classifier of known states that is taught to be unsure on a set that holds unknown ones.

        L = mean over known rows of cross-entropy(f(s'), class) + lambda * mean over uncertain rows of confidence_loss(f(s'))
        score = (1 - max_k softmax(f(s'))_k) * K / (K - 1)

    A row is known where its column `class` (`progress_classes`) is 0 or more, uncertain where it is -1; without the column
    nothing is learnt and the detector stays unfitted. The uncertain set may hold known states, too.

    Source: Choi et al., "Conservative Prediction via Data-Driven Confidence Minimization", TMLR 2024, arXiv:2306.04974.
    """
    network, optimizer = mlp(config.hidden, config.num_classes), adam(config.learning_rate)
    width = check_columns(config.columns, spec)

    def init(key):
        params = network.init(key, jnp.zeros((1, width)))
        return ConfidenceState(params, optimizer.init(params), jnp.zeros((), jnp.int32))

    def logits(params, batch):
        return network.apply(params, chosen(batch.next_observation, config.columns))

    def fitted(state):
        return state.updates >= max(config.min_updates, 1)

    def score(state, batch):
        unsure = 1.0 - jax.nn.softmax(logits(state.network, batch)).max(axis=-1)
        return jnp.where(fitted(state), unsure * config.num_classes / (config.num_classes - 1), 0.0)

    def loss_fn(params, batch, label):
        values = logits(params, batch)
        own = jnp.maximum(label, 0).astype(jnp.int32)[:, None]
        error = jax.nn.logsumexp(values, axis=-1) - jnp.take_along_axis(values, own, axis=-1)[:, 0]
        known, uncertain = (label >= 0), (label == -1)
        terms = (known * error).sum() / jnp.maximum(known.sum(), 1)
        return terms + config.weight * (uncertain * confidence_loss(values)).sum() / jnp.maximum(uncertain.sum(), 1)

    def update(state, batch, key):
        del key
        label = batch.extras.get('class', jnp.full_like(batch.reward, -2.0))
        loss, gradient = jax.value_and_grad(loss_fn)(state.network, batch, label)
        updates, opt = optimizer.update(gradient, state.network_opt, state.network)
        learns = (label >= -1).any()
        after = ConfidenceState(moved(state.network, updates), opt, state.updates + (label >= 0).any())
        after = jax.tree.map(lambda new, old: jnp.where(learns, new, old), after, state)
        return after, score(after, batch), {'loss': loss, 'fitted': fitted(after) * 1.0}

    return Detector(init=init, update=update, score=score, fitted=fitted)


def progress_classes(transitions: Transition, num_classes: int) -> Transition:
    """Rows `[n]` in the order they were lived, with a column `class`: to which of K equal shares their steps to the episode's end
    belong. What `confidence_minimisation` tells apart on known rows, so that it must look at states."""
    boundary = np.asarray(transitions.extras['boundary']) > 0
    rows = np.arange(boundary.size)
    ends = np.append(np.flatnonzero(boundary), boundary.size - 1)
    left = ends[np.searchsorted(ends, rows)] - rows
    edges = np.quantile(left, np.arange(1, num_classes) / num_classes)
    classes = jnp.asarray(np.searchsorted(edges, left, side='right'), jnp.float32)
    return transitions._replace(extras={**transitions.extras, 'class': classes})
