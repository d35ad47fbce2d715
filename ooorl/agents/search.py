"""Searching for good actions around a policy's draws: rank, climb, choose; no gradient reaches the policy.

    candidates  a_1 .. a_N ~ policy(s), clipped to the box here and nowhere else
    rank        keep the `num_kept` with the highest Q
    climb       a <- clip(a + step_size * grad_a Q(s, a), -1, 1), `num_steps` times, each candidate on its own; its result is the
                best iterate that it visited, start and end included, so Q never falls; ties go to the later one
    choose      the highest Q, or a draw in proportion to exp(Q / temperature)

Q is one value an action: the mean over the ensemble's members (`aggregate`), of its current parameters or, with `slow_critic`, of
its slow ones; climbing may have an aggregate of its own. A data action, where
given, takes the place of the worst kept candidate before climbing. The gradient is raw: no normalisation, no momentum.

Source: Mark et al., "Policy-Agnostic RL", arXiv:2412.06685; constants of MaxSobolMark/PolicyAgnosticRL@a26a192. The paper's
algorithm accepts a step only if it improves, which stalls for ever after one refusal; remembering the best iterate is what the
released code does. There starting points outside the box may win unclipped.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from ooorl.errors import UsageError
from ooorl.nn.losses import AGGREGATES, ensemble_value
from ooorl.policies.noise import beside
from ooorl.types import Array
from ooorl.validation import check_choice, check_not_negative, check_positive

CHOICES = ('best', 'softmax')


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Settings of `search`, shared by everybody who searches with one agent; the defaults are PA-RL's."""

    num_candidates: int = 32  # N, draws of the policy; OpenVLA 8
    num_kept: int = 10  # of them, after ranking; OpenVLA 4
    num_steps: int = 10  # of climbing; 0 ranks only
    step_size: float = 3e-4  # of climbing, per unit of Q's gradient
    temperature: float = 1.0  # of draws in proportion to exp(Q / temperature)
    aggregate: str = 'mean'  # over critics: 'mean', 'min', or 'lower' = mean - rho std
    climb_aggregate: str | None = None  # the same where candidates climb and their best iterate is remembered; None: aggregate
    rho: float = 0.5  # of 'lower'
    slow_critic: bool = False  # the slow critics judge, as in V-GPS, instead of the current ones

    def __post_init__(self):
        check_positive(num_candidates=self.num_candidates, num_kept=self.num_kept, temperature=self.temperature)
        check_not_negative(num_steps=self.num_steps, step_size=self.step_size, rho=self.rho)
        check_choice(AGGREGATES, aggregate=self.aggregate)
        check_choice((None, *AGGREGATES), climb_aggregate=self.climb_aggregate)
        if self.num_kept > self.num_candidates:
            raise UsageError(f'num_kept must be at most num_candidates, {self.num_candidates}; got {self.num_kept}')


def climb(
    q: Callable[[Array], Array],
    action: Array,
    *,
    num_steps: int,
    step_size: float,
    low: Array | float = -1.0,
    high: Array | float = 1.0,
) -> tuple[Array, Array]:
    """Gradient ascent on Q for every action by itself: the best iterates and their values, `([..., A], [...])`.

    Args:
      q: `action[..., A] -> [...]`; each value depends on its own action alone.
      action: where to start.
      num_steps: of ascent.
      step_size: of each step.
      low: of the box that iterates are clipped to, a number or `[A]`.
      high: likewise.
    """
    low, high = (jnp.broadcast_to(jnp.asarray(side, action.dtype), action.shape) for side in (low, high))

    def value_and_slope(action):
        def total(action):
            values = q(action)
            return values.sum(), values

        slope, values = jax.grad(total, has_aux=True)(action)
        return values, slope

    def better(best, action, values):
        best_action, best_values = best
        wins = values >= best_values
        return jnp.where(wins[..., None], action, best_action), jnp.where(wins, values, best_values)

    def step(carry, _):
        action, best = carry
        values, slope = value_and_slope(action)
        return (jnp.clip(action + step_size * slope, low, high), better(best, action, values)), None

    start = (action, jnp.full(action.shape[:-1], -jnp.inf, action.dtype))
    (action, best), _ = jax.lax.scan(step, (action, start), None, length=num_steps)
    return jax.lax.stop_gradient(better(best, action, q(action)))


def search(
    q: Callable[[Array], Array],
    candidates: Array,
    config: SearchConfig,
    *,
    data_action: Array | None = None,
    climbed: Callable[[Array], Array] | None = None,
) -> tuple[Array, Array]:
    """Ranks and climbs: actions with their values, `([M, ..., A], [M, ...])`, M = `config.num_kept`.

    Args:
      q: `action[..., A] -> [...]`, for candidates `[N, ..., A]`.
      candidates: `[N, ..., A]`, N `config.num_candidates`.
      config: settings.
      data_action: `[..., A]`, put in the place of the worst that was kept.
      climbed: what is climbed, where that is not q; values are those of q all the same.
    """
    candidates = jnp.clip(candidates, -1.0, 1.0)
    if config.num_kept < candidates.shape[0] or data_action is not None:
        order = q(candidates).argsort(axis=0)[-config.num_kept :]
        candidates = jnp.take_along_axis(candidates, order[..., None], axis=0)
    if data_action is not None:
        candidates = jnp.concatenate([candidates[1:], jnp.clip(data_action, -1.0, 1.0)[None]])
    actions, values = climb(climbed or q, candidates, num_steps=config.num_steps, step_size=config.step_size)
    return actions, q(actions) if climbed else values


def best_of(q: Callable[[Array], Array], candidates: Array) -> Array:
    """The candidate of highest value, `[N, ..., A] -> [..., A]`; a single one is not judged."""
    return candidates[0] if candidates.shape[0] == 1 else choose(candidates, q(candidates), None, 'best')


def members_value(q: Callable[[Array, Array], Array], observation: Array, aggregate: str, rho: float = 0.5) -> Callable:
    """`action[..., A] -> [...]`, the aggregate of an ensemble's `q(observation, action) -> [E, ...]` at given observations."""
    return lambda action: ensemble_value(q(beside(action, observation), action), aggregate, rho)


def choose(actions: Array, values: Array, key, how: str, temperature: float = 1.0) -> Array:
    """One action `[..., A]` of `[M, ..., A]`: that of highest value, or with 'softmax' a draw by exp(value / temperature)."""
    check_choice(CHOICES, choice=how)
    index = values.argmax(axis=0) if how == 'best' else jax.random.categorical(key, values / temperature, axis=0)
    return jnp.take_along_axis(actions, index[None, ..., None], axis=0)[0]
