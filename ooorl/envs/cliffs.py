"""A point between cliffs: a short way along the edge, a long way far from it, and no way back from below.

The state is the position, `[2]` float32, and so is the observation. The plateau is [-1, 1]^2; a canyon 0.3 < x < 0.7 opens it
from below up to y = 0.2. Start (-0.7, -0.7) with uniform noise of 0.05 a side; goal (0.9, -0.7), radius 0.12. An action in [-1,
1]^2 moves by 0.08 times the action, plus normal noise of deviation `noise`. Whoever ends a step in the canyon or beyond the
plateau's rim has fallen and stays where it fell: that is all that is irreversible, and it is absorbing.

Without noise the goal is 23 steps away round the canyon's tip.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.envs.pictures import BODY, DANGER, GOAL, START, WALL, Canvas
from ooorl.types import Array, Spec, Task
from ooorl.validation import check_choice, check_not_negative, check_positive

CANYON_X = (0.3, 0.7)
CANYON_TOP = 0.2
RIM = 1.0
TIP = ((CANYON_X[0] - 0.1, CANYON_TOP + 0.1), (CANYON_X[1] + 0.1, CANYON_TOP + 0.1))  # corners of the way round it
SEEN = 1.2  # half-width of what is drawn
START_PLACE = (-0.7, -0.7)
START_NOISE = 0.05
GOAL_PLACE = (0.9, -0.7)
GOAL_RADIUS = 0.12
STEP_SIZE = 0.08


class CliffState(NamedTuple):
    """`position`: `[2]` float32."""

    position: Array


def is_irreversible(observation: Array) -> Array:
    """Whether a position lies in the canyon or beyond the rim: `[..., 2] -> [...]` bool."""
    x, y = observation[..., 0], observation[..., 1]
    canyon = (x > CANYON_X[0]) & (x < CANYON_X[1]) & (y < CANYON_TOP)
    return canyon | (jnp.maximum(jnp.abs(x), jnp.abs(y)) > RIM)


def picture(observation: np.ndarray) -> np.ndarray:
    """The plateau from above, the canyon and what lies beyond the rim in red."""
    canvas = Canvas((-SEEN, -SEEN), (SEEN, SEEN))
    canvas.box((-SEEN, -SEEN), (SEEN, SEEN), DANGER)
    canvas.box((-RIM, -RIM), (RIM, RIM), (245, 245, 242))
    canvas.box((CANYON_X[0], -SEEN), (CANYON_X[1], CANYON_TOP), DANGER)
    canvas.disc(GOAL_PLACE, GOAL_RADIUS, GOAL)
    canvas.disc(START_PLACE, GOAL_RADIUS, START)
    canvas.disc(observation, 0.05, WALL if bool(is_irreversible(np.asarray(observation))) else BODY)
    return canvas.picture()


def way_left(position: Array) -> Array:
    """Length of the way to the goal round the canyon's tip, corner to corner: `[..., 2] -> [...]`; 0 to 2.4."""
    near, far, goal = (jnp.broadcast_to(jnp.array(place), position.shape) for place in (*TIP, GOAL_PLACE))

    def apart(a, b):
        return jnp.sqrt(((a - b) ** 2).sum(axis=-1))

    along = apart(near, far), apart(far, goal)
    left = apart(position, near) + along[0] + along[1]
    middle = apart(position, far) + along[1]
    x = position[..., 0]
    return jnp.where(x < CANYON_X[0], left, jnp.where(x < CANYON_X[1], middle, apart(position, goal)))


def point_mass_cliffs(
    *, horizon: int = 100, noise: float = 0.02, reward: str = 'sparse', terminate_on_success: bool = True
) -> Task:
    """The point between cliffs.

    Args:
      horizon: steps of an episode.
      noise: deviation of what is added to every step, in units of the position.
      reward: 'sparse', 1 in a step that ends at the goal, else 0; or 'way', besides by how much the step shortened `way_left`
        (0 in steps that end below), which leads along the edge and past every point of no return.
      terminate_on_success: whether the goal ends the episode.
    """
    check_positive(horizon=horizon)
    check_not_negative(noise=noise)
    check_choice(('sparse', 'way'), reward=reward)
    start, goal = np.array(START_PLACE, np.float32), np.array(GOAL_PLACE, np.float32)

    def reset(key):
        position = start + jax.random.uniform(key, (2,), jnp.float32, -START_NOISE, START_NOISE)
        return CliffState(position), position

    def step(state, action, key):
        move = STEP_SIZE * jnp.clip(action, -1.0, 1.0).astype(jnp.float32) + noise * jax.random.normal(key, (2,))
        fallen = is_irreversible(state.position)
        position = jnp.where(fallen, state.position, jnp.clip(state.position + move, -SEEN, SEEN))
        success = (jnp.sum((position - goal) ** 2) < GOAL_RADIUS**2) & ~is_irreversible(position)
        terminated = success if terminate_on_success else jnp.zeros_like(success)
        gained = success.astype(jnp.float32)
        if reward == 'way':
            shortened = way_left(state.position) - way_left(position)
            gained = gained + jnp.where(is_irreversible(position), 0.0, shortened)
        return CliffState(position), position, gained, terminated, success

    return Task(
        spec=Spec(observation_dim=2, action_dim=2), horizon=horizon, reset=reset, step=step, state_at=CliffState,
        irreversible=is_irreversible, render=picture,
    )
