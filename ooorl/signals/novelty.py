"""Signals: scores of transitions that know nothing of rewards, to be used as exploration bonuses.

`rnd` is random network distillation as OOO uses it, `state_action_counts` the count bonus of its point-mass
example, `ensemble_disagreement` the spread of learned dynamics. Scores are recomputed for every minibatch with the
current state of the signal and never stored; `ooorl.wrap.bonus` scales them into `batch.extras['bonus']`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ooorl.errors import UsageError
from ooorl.nn import moments
from ooorl.nn.moments import RunningMoments
from ooorl.nn.networks import ensemble, mlp
from ooorl.nn.optimizers import adam, moved
from ooorl.types import Array, Params, Signal, Spec
from ooorl.validation import check_choice, check_positive, check_unit


@dataclass(frozen=True, kw_only=True)
class RNDConfig:
    """Settings of `rnd`; the defaults are those of OOO with IQL."""

    hidden: tuple[int, ...] = (512,)  # widths of predictor and target; OOO with Cal-QL (512, 512)
    num_features: int = 512  # outputs of both
    learning_rate: float = 1e-4  # Adam, predictor only
    mask_probability: float = 0.25  # share of the rows that train the predictor
    clip: float = 5.0  # bound of the normalised observations
    order: str = 'update_first'  # score with the new predictor (OOO with IQL); 'score_first': the old (with RLPD)
    normaliser: str = 'official'  # what the bonus deviation is taken of: see `rnd`; 'official', 'raw' or 'none'
    kernel_init: str = 'orthogonal'  # of `networks.mlp`; OOO with RLPD 'xavier_uniform'
    last_init: str | None = None  # of the last layer, None repeats `kernel_init`; OOO with Cal-QL 'small'

    def __post_init__(self):
        check_positive(num_features=self.num_features, learning_rate=self.learning_rate, clip=self.clip)
        check_unit(mask_probability=self.mask_probability)
        check_choice(('update_first', 'score_first'), order=self.order)
        check_choice(('official', 'raw', 'none'), normaliser=self.normaliser)


class RNDState(NamedTuple):
    """Predictor, its optimiser, the frozen target and the running moments of observations and bonuses."""

    predictor: Params
    predictor_opt: optax.OptState
    target: Params
    observations: RunningMoments
    bonuses: RunningMoments


class _RNDParts(NamedTuple):
    init: Callable
    errors: Callable  # (state, predictor, batch) -> [B, num_features]
    score: Callable  # (state, batch) -> [B]
    step: Callable  # (state, batch, mask[B]) -> (state, score[B], metrics)


def _rnd_parts(spec: Spec, config: RNDConfig, grad_transform) -> _RNDParts:
    network = mlp(config.hidden, config.num_features, kernel_init=config.kernel_init, last_init=config.last_init)
    optimizer = optax.chain(grad_transform, adam(config.learning_rate))

    def init(key):
        predictor_key, target_key = jax.random.split(key)
        observation = jnp.zeros((1, spec.observation_dim))
        predictor = network.init(predictor_key, observation)
        return RNDState(
            predictor=predictor,
            predictor_opt=optimizer.init(predictor),
            target=network.init(target_key, observation),
            observations=moments.start((spec.observation_dim,)),
            bonuses=moments.start(),
        )

    def errors(state, predictor, batch):
        x = _normalised(state.observations, batch.next_observation, config.clip)
        return (network.apply(predictor, x) - network.apply(state.target, x)) ** 2

    def raw_score(state, predictor, batch):
        return errors(state, predictor, batch).max(axis=-1)

    def scale(state):
        return 1.0 if config.normaliser == 'none' else moments.deviation(state.bonuses)

    def step(state, batch, mask):
        def loss_fn(predictor):
            rows = errors(state, predictor, batch).mean(axis=-1)
            return (mask * rows).sum() / jnp.maximum(mask.sum(), 1.0)

        loss, gradient = jax.value_and_grad(loss_fn)(state.predictor)
        updates, opt = optimizer.update(gradient, state.predictor_opt, state.predictor)
        new = moved(state.predictor, updates)
        raw = raw_score(state, new if config.order == 'update_first' else state.predictor, batch)
        score = raw / scale(state)
        metrics = {'loss': loss, 'deviation': moments.deviation(state.bonuses)}
        state = state._replace(
            predictor=new,
            predictor_opt=opt,
            observations=moments.absorb(state.observations, batch.observation),
            bonuses=moments.absorb(state.bonuses, score if config.normaliser == 'official' else raw),
        )
        return state, score, metrics

    def score(state, batch):
        return raw_score(state, state.predictor, batch) / scale(state)

    return _RNDParts(init, errors, score, step)


def rnd(
    spec: Spec, config: RNDConfig = RNDConfig(), *, grad_transform: optax.GradientTransformation = optax.identity()
) -> Signal:
    """Random network distillation on next observations: how badly f has learned a random network g there.

        x = clip((s' - mean_s) / std_s, -clip, clip)
        L = sum_i b_i mean_k (f_k(x_i) - g_k(x_i))^2 / max(sum_i b_i, 1),   b_i ~ Bernoulli(mask_probability)
        score_i = max_k (f_k(x_i) - g_k(x_i))^2 / std_bonus

    One `update` takes one Adam step on f, scores the batch, then lets the running moments absorb it: mean_s and std_s
    are of current observations s although s' is normalised, and std_bonus ('official') is of the scores themselves,
    already divided, so that it settles at the square root of the raw deviation. `normaliser='raw'` divides by the
    deviation of the raw bonuses, 'none' by 1. A batch whose mask is empty has loss 0; Adam still moves f by momentum.
    Variances below 1e-8 count as 1e-8: kitchen has constant observation dimensions.

    Source: Burda et al., arXiv:1810.12894; Sobol Mark et al., arXiv:2310.08558, in its released form: the maximum over
    outputs, where Burda et al. take the mean.
    """
    parts = _rnd_parts(spec, config, grad_transform)

    def update(state, batch, key):
        mask = jax.random.uniform(key, batch.reward.shape) < config.mask_probability
        return parts.step(state, batch, mask.astype(jnp.float32))

    return Signal(init=parts.init, update=update, score=parts.score)


def _normalised(running, values, clip):
    centre = jnp.broadcast_to(moments.mean(running), values.shape)
    return jnp.clip((values - centre) / jnp.broadcast_to(moments.deviation(running), values.shape), -clip, clip)


class CountState(NamedTuple):
    """How often each cell of the grid was visited: int32 `[cells]`, observation bins major, action bins minor."""

    visits: Array


def state_action_counts(
    low: Sequence[float],
    high: Sequence[float],
    observation_bins: Sequence[int],
    action_bins: Sequence[int],
    observation_columns: Sequence[int] | None = None,
) -> Signal:
    """The count bonus `1 / sqrt(N(s, a) + 1)` on a grid over observation columns and all action dimensions.

    A grid with n bins has n evenly spaced points from low to high, both included (-1 to 1 for actions); a row counts at
    its nearest point, rows outside at the border. `observe` counts, every stored transition once; `update` only scores.

    Args:
      low: smallest value of each gridded observation column.
      high: largest.
      observation_bins: points per column; OOO's point mass has (100, 100).
      action_bins: points per action dimension; OOO's point mass has (10, 10).
      observation_columns: which columns are gridded; None for all of them.

    Raises:
      UsageError: if the lengths disagree, an interval is empty or a dimension has fewer than two points.

    Source: Sobol Mark et al., arXiv:2310.08558, the point-mass example.
    """
    columns = tuple(range(len(low)) if observation_columns is None else observation_columns)
    if not len(columns) == len(low) == len(high) == len(observation_bins):
        raise UsageError(
            'state_action_counts needs one low, high and number of bins per observation column; '
            f'got {len(low)}, {len(high)} and {len(observation_bins)} for {len(columns)} columns'
        )
    bins = (*observation_bins, *action_bins)
    if not all(a < b for a, b in zip(low, high, strict=True)) or min(bins) < 2:
        raise UsageError(f'state_action_counts needs low < high and at least 2 bins; got {low}, {high}, {bins}')
    lowest = np.array([*low, *(-1.0 for _ in action_bins)], np.float32)
    highest = np.array([*high, *(1.0 for _ in action_bins)], np.float32)
    last = np.array(bins, np.float32) - 1.0

    def cells(batch):
        values = jnp.concatenate([batch.observation[..., columns], batch.action], axis=-1)
        lowest_, span, last_ = (jnp.broadcast_to(x, values.shape) for x in (lowest, highest - lowest, last))
        points = jnp.clip(jnp.round((values - lowest_) / span * last_), 0.0, last_).astype(jnp.int32)
        return jnp.ravel_multi_index(tuple(jnp.moveaxis(points, -1, 0)), bins, mode='clip')

    def score(state, batch):
        return 1.0 / jnp.sqrt(state.visits[cells(batch)] + 1.0)

    def update(state, batch, key):
        del key
        return state, score(state, batch), {'seen': (state.visits[cells(batch)] > 0).astype(jnp.float32).mean()}

    def observe(state, transitions):
        return CountState(state.visits.at[cells(transitions)].add(1))

    def init(key):
        del key
        return CountState(jnp.zeros(int(np.prod(bins)), jnp.int32))

    return Signal(init=init, update=update, score=score, observe=observe)


@dataclass(frozen=True, kw_only=True)
class DisagreementConfig:
    """Settings of `ensemble_disagreement`."""

    hidden: tuple[int, ...] = (256, 256)  # widths of every member
    num_members: int = 5  # ensemble members E
    learning_rate: float = 3e-4  # Adam, all members
    mask_probability: float = 0.5  # share of the rows that each member learns from, drawn for itself
    clip: float = 5.0  # bound of normalised inputs and targets
    normaliser: str = 'none'  # of the score: 'none', or the running 'deviation' of the scores

    def __post_init__(self):
        check_positive(learning_rate=self.learning_rate, clip=self.clip)
        check_choice(('none', 'deviation'), normaliser=self.normaliser)
        check_unit(mask_probability=self.mask_probability)
        if self.num_members < 2:
            raise UsageError(f'num_members must be at least 2, one member agrees with itself; got {self.num_members}')


class DisagreementState(NamedTuple):
    """Members, their optimiser and the running moments of observations, their changes and raw scores."""

    members: Params
    members_opt: optax.OptState
    observations: RunningMoments
    changes: RunningMoments
    scores: RunningMoments


def ensemble_disagreement(spec: Spec, config: DisagreementConfig = DisagreementConfig()) -> Signal:
    """How much an ensemble of dynamics models f_e(s, a) of the normalised change of observation disagrees.

        L = sum_e sum_i b_ei mean_k (f_ek(s_i, a_i) - d_ik)^2 / max(sum_i b_ei, 1),   d = normalised s' - s
        score_i = mean_k std_e f_ek(s_i, a_i)                 in deviations of the change of observation

    One `update` takes one Adam step on the members, scores with the new ones, then lets the running moments absorb the batch.
    With `normaliser='deviation'` scores are divided by the running deviation of the undivided ones: then they do not fade, since
    scores and deviation become smaller together, and end as nearly the same number everywhere.

    Source: Pathak, Gandhi & Gupta, arXiv:1906.04161, who take the variance over members; the deviation keeps the units.
    """
    network = ensemble(mlp(config.hidden, spec.observation_dim), config.num_members)
    optimizer = adam(config.learning_rate)

    def init(key):
        members = network.init(key, jnp.zeros((1, spec.observation_dim)), jnp.zeros((1, spec.action_dim)))
        return DisagreementState(
            members=members,
            members_opt=optimizer.init(members),
            observations=moments.start((spec.observation_dim,)),
            changes=moments.start((spec.observation_dim,)),
            scores=moments.start(),
        )

    def predictions(state, members, batch):
        return network.apply(members, _normalised(state.observations, batch.observation, config.clip), batch.action)

    def raw_score(state, members, batch):
        return predictions(state, members, batch).std(axis=0).mean(axis=-1)

    def score(state, batch):
        raw = raw_score(state, state.members, batch)
        return raw / moments.deviation(state.scores) if config.normaliser == 'deviation' else raw

    def update(state, batch, key):
        change = batch.next_observation - batch.observation
        target = _normalised(state.changes, change, config.clip)[None]
        mask = jax.random.uniform(key, (config.num_members, *batch.reward.shape)) < config.mask_probability

        def loss_fn(members):
            rows = ((predictions(state, members, batch) - target) ** 2).mean(axis=-1)
            return ((mask * rows).sum(axis=-1) / jnp.maximum(mask.sum(axis=-1), 1)).sum()

        loss, gradient = jax.value_and_grad(loss_fn)(state.members)
        updates, opt = optimizer.update(gradient, state.members_opt, state.members)
        state = state._replace(members=moved(state.members, updates), members_opt=opt)
        raw, bonus = raw_score(state, state.members, batch), score(state, batch)
        metrics = {'loss': loss, 'deviation': moments.deviation(state.scores)}
        state = state._replace(
            observations=moments.absorb(state.observations, batch.observation),
            changes=moments.absorb(state.changes, change),
            scores=moments.absorb(state.scores, raw),
        )
        return state, bonus, metrics

    return Signal(init=init, update=update, score=score)
