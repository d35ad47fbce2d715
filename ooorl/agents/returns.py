"""A model of returns: what followed the data's actions, regressed on state and action; nothing is bootstrapped.

    L_R = E[ (R(s, a) - y)^2 ],   y = 2 (G - low) / (high - low) - 1

G is the data's own discounted return from that row on (`return_to_go`; a time-out cuts the sum, rows whose episode has no end in
the data count nothing), [low, high] the range of all G seen so far, which is soon that of the data. R is the value of the policy
that made the data, one step of improvement over which is what `agents.distill` climbs.

Acting is uniformly random: this is nobody's policy.

Source: the reward model of Duan et al., "RACTD", arXiv:2506.07822, with an MLP instead of its residual network; there the range
is that of the whole data set from the start.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ooorl.agents.steps import descend, init_q, learner
from ooorl.nn.losses import weighted
from ooorl.nn.networks import mlp
from ooorl.nn.schedules import Scheduled, scheduled_adam
from ooorl.types import Agent, Array, Params, Spec
from ooorl.validation import check_positive


@dataclass(frozen=True, kw_only=True)
class ReturnsConfig(Scheduled):
    """Settings of `returns`."""

    hidden: tuple[int, ...] = (256, 256)  # widths
    learning_rate: float = 3e-4  # Adam

    def __post_init__(self):
        super().__post_init__()
        check_positive(learning_rate=self.learning_rate)


class ReturnsState(NamedTuple):
    """Parameters, their optimiser, and the range of returns seen."""

    r: Params
    r_opt: optax.OptState
    low: Array
    high: Array


def returns(spec: Spec, config: ReturnsConfig = ReturnsConfig()) -> Agent:
    """A regression of the data's returns; its `q` is R, one member, in units in which they lie in [-1, 1]."""
    network = mlp(config.hidden, 1, activation='mish')
    optimizer = scheduled_adam(config, 'critic', config.learning_rate)

    def init(key):
        most = jnp.asarray(jnp.finfo(jnp.float32).max)
        return ReturnsState(**learner('r', init_q(network, spec, key), optimizer), low=most, high=-most)

    def value(params, observation, action):
        return network.apply(params, observation, action)[..., 0]

    def update(state, batch, key):
        del key
        column = batch.extras['return_to_go']
        known = jnp.isfinite(column)
        low = jnp.minimum(state.low, jnp.where(known, column, jnp.inf).min())
        high = jnp.maximum(state.high, jnp.where(known, column, -jnp.inf).max())
        target = 2.0 * (jnp.where(known, column, low) - low) / jnp.maximum(high - low, 1e-6) - 1.0

        def loss_fn(params):
            error = jnp.where(known, value(params, batch.observation, batch.action) - target, 0.0)
            return weighted(batch, error**2).mean(), None

        state, loss, _ = descend(state._replace(low=low, high=high), 'r', loss_fn, optimizer)
        return state, {'returns/loss': loss, 'returns/known': known.mean(), 'returns/low': low, 'returns/high': high}

    def act(state, observation, key):
        del state
        return jax.random.uniform(key, (*observation.shape[:-1], spec.action_dim), minval=-1.0, maxval=1.0)

    return Agent(
        init=init,
        update=update,
        sample_action=act,
        best_action=act,
        reads=('return_to_go',),
        q=lambda state, observation, action: value(state.r, observation, action)[None],
        weighs=True,
    )
