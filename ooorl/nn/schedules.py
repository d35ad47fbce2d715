"""Learning rates over a phase of training: how an agent of any config follows a phase of any length.

    rate(k) = learning_rate * min(1, (k + 1) / (warmup * K)) * shape(q),   q = clip((k / K - warmup) / (1 - warmup), 0, 1)
    shape   constant: 1;   cosine: end + (1 - end) * (1 + cos(pi * q)) / 2;   linear: end + (1 - end) * (1 - q)

k counts the optimiser's own steps since the phase began, K is their number in the phase: its updates times the steps in one
update. Everything is a share of the phase, so that one config fits every length. Every phase goes through its schedule once,
also one that continues an agent (fine-tuning, exploration after pretraining): Adam's moments go on, the rate begins anew.
Beyond the end the rate stays where it is.

An agent does not know how long its phase is: its state says so. `begin` writes it there; `ooorl.training` calls it at the
start of each phase, whoever updates an agent by hand calls it once after `init`. A schedule that nobody has begun refuses to
step. Constant rates put nothing into the state. Signals of novelty learn at a constant rate whatever the agent does.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ooorl.errors import UsageError
from ooorl.nn.optimizers import adam
from ooorl.types import Array, State
from ooorl.validation import check_choice, check_unit

SHAPES = ('constant', 'cosine', 'linear')
PARTS = ('all', 'policy', 'critic')


@dataclass(frozen=True, kw_only=True)
class Scheduled:
    """Settings that every agent has: how its learning rates change over a phase."""

    schedule: str = 'constant'  # of the learning rates over each phase: 'constant', 'cosine' or 'linear'
    schedule_of: str = 'all'  # whose rates follow it: 'all', the 'policy' (with its temperature) or the 'critic' alone
    schedule_end: float = 0.0  # share of the rate that 'cosine' and 'linear' leave at the end of the phase, in [0, 1]
    schedule_warmup: float = 0.0  # share of the phase in which the rates rise from 0 first, in [0, 1)

    def __post_init__(self):
        check_choice(SHAPES, schedule=self.schedule)
        check_choice(PARTS, schedule_of=self.schedule_of)
        check_unit(schedule_end=self.schedule_end, schedule_warmup=self.schedule_warmup)
        if isinstance(self.schedule_warmup, int | float) and self.schedule_warmup >= 1:
            raise UsageError(f'schedule_warmup must be less than 1, the whole phase; got {self.schedule_warmup}')


class Progress(NamedTuple):
    """Where an optimiser stands in its phase: its own `count` of steps, and the phase's number of `updates` or None."""

    count: Array
    updates: Array | None


def begin(state: State, num_updates: int) -> State:
    """The state at the start of a phase of so many updates: every schedule in it begins anew. Seed axes may lead."""

    def begun(node):
        if not _is_progress(node):
            return node
        return Progress(jnp.zeros_like(node.count), jnp.full_like(node.count, num_updates))

    return jax.tree.map(begun, state, is_leaf=_is_progress)


def _is_progress(node) -> bool:
    return isinstance(node, Progress)


def rate_share(config: Scheduled, share: Array) -> Array:
    """`shape` above: the share of the learning rate left at `share` of the phase."""
    if config.schedule == 'constant':
        return jnp.ones_like(share)
    done = jnp.clip((share - config.schedule_warmup) / (1.0 - config.schedule_warmup), 0.0, 1.0)
    left = 0.5 * (1.0 + jnp.cos(jnp.pi * done)) if config.schedule == 'cosine' else 1.0 - done
    return config.schedule_end + (1.0 - config.schedule_end) * left


def _follow(config, steps_per_update) -> optax.GradientTransformation:
    def init(params):
        del params
        return Progress(jnp.zeros((), jnp.int32), None)

    def update(updates, state, params=None):
        del params
        if state.updates is None:
            raise UsageError(
                f'schedule = {config.schedule!r} needs to know how many updates the phase has; nobody has said so; train with '
                '`ooorl.training`, or call `ooorl.nn.schedules.begin(state, num_updates)` after `init`'
            )
        total = jnp.maximum(state.updates * jnp.float32(steps_per_update), 1.0)
        factor = rate_share(config, state.count / total)
        if _in_use(config.schedule_warmup):
            factor = factor * jnp.minimum(1.0, (state.count + 1) / (config.schedule_warmup * total))
        return jax.tree.map(lambda update: factor * update, updates), state._replace(count=state.count + 1)

    return optax.GradientTransformation(init, update)


def scheduled_adam(
    config: Scheduled, part: str, learning_rate: float, *before: optax.GradientTransformation, steps_per_update: int = 1,
    **settings
) -> optax.GradientTransformation:
    """Adam whose rate follows the schedule, after the transformations `before` of the gradient.

    Args:
      config: the agent's.
      part: 'policy' or 'critic', what is optimised.
      learning_rate: at the top of the schedule.
      *before: applied to gradients first.
      steps_per_update: how many steps one update of the agent takes with it.
      **settings: of `optax.adam`.
    """
    follows = config.schedule_of in ('all', part) and (config.schedule != 'constant' or _in_use(config.schedule_warmup))
    after = (_follow(config, steps_per_update),) if follows else ()
    return optax.chain(*before, adam(learning_rate, **settings), *after)


def _in_use(share) -> bool:
    return not (isinstance(share, int | float) and share == 0)
