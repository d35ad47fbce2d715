"""A point with mass, drag and gear that must come to rest at the origin; which physics an episode has is drawn anew for each.

    v <- v + dt (gear a - drag v) / mass,    x <- clip(x + dt v, -1, 1),    dt = 0.1

Observation (x, y, v_x, v_y, mass, drag, gear), so that the physics are three factors of `data.splits` with their levels in the
observation's last columns. Success is rest: within 0.1 of the origin at a speed below 0.2; reward 1 there, where the episode
terminates, else 0. What an action does, and the force that stops the point, depends on all three.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.envs.pictures import BODY, GOAL, Canvas
from ooorl.errors import UsageError
from ooorl.types import Array, Spec, Task
from ooorl.validation import check_positive

DT = 0.1
REST_DISTANCE, REST_SPEED = 0.1, 0.2


class PhysicsState(NamedTuple):
    """`position`, `velocity` `[2]` and `physics` `[3]`: mass, drag and gear."""

    position: Array
    velocity: Array
    physics: Array


def _observed(state):
    return jnp.concatenate(list(state))


def point_mass_physics(
    *,
    masses: tuple[float, ...] = (0.5, 1.0, 2.0),
    drags: tuple[float, ...] = (0.0, 0.5, 1.0),
    gears: tuple[float, ...] = (-2.0, 1.0, 4.0),
    horizon: int = 60,
) -> Task:
    """The point whose physics are drawn from the levels given: any mass with any drag and any gear.

    Args:
      masses: levels of the mass, greater than 0.
      drags: levels of the drag, from 0 to mass / dt for every mass, where the step would turn unstable.
      gears: levels of the force of a full action; a negative one turns the controls around.
      horizon: steps of an episode.

    Raises:
      UsageError: if a factor has no level, or one that cannot be stepped with.
    """
    check_positive(horizon=horizon)
    levels = [np.array(own, np.float32) for own in (masses, drags, gears)]
    if not all(len(own) for own in levels) or min(masses) <= 0 or min(drags) < 0 or max(drags) * DT > min(masses) or 0 in gears:
        raise UsageError(
            'masses must be greater than 0, drags between 0 and mass / 0.1, gears other than 0, one or more of each; '
            f'got {list(masses)}, {list(drags)} and {list(gears)}'
        )

    def reset(key):
        keys = jax.random.split(key, 4)
        physics = [jnp.asarray(own)[jax.random.randint(k, (), 0, len(own))] for own, k in zip(levels, keys[:3], strict=True)]
        angle = jax.random.uniform(keys[3], (), jnp.float32, 0.0, 2.0 * jnp.pi)
        position = 0.8 * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        state = PhysicsState(position, jnp.zeros(2), jnp.stack(physics))
        return state, _observed(state)

    def step(state, action, key):
        del key
        mass, drag, gear = state.physics
        force = gear * jnp.clip(action, -1.0, 1.0).astype(jnp.float32) - drag * state.velocity
        velocity = state.velocity + DT * force / mass
        state = state._replace(position=jnp.clip(state.position + DT * velocity, -1.0, 1.0), velocity=velocity)
        rests = (jnp.sum(state.position**2) < REST_DISTANCE**2) & (jnp.sum(velocity**2) < REST_SPEED**2)
        return state, _observed(state), rests.astype(jnp.float32), rests, rests

    return Task(
        spec=Spec(observation_dim=7, action_dim=2), horizon=horizon, reset=reset, step=step,
        state_at=lambda observation: PhysicsState(observation[:2], observation[2:4], observation[4:]), render=_picture,
    )


def _picture(observation):
    canvas = Canvas((-1.0, -1.0), (1.0, 1.0))
    canvas.disc((0.0, 0.0), REST_DISTANCE, GOAL)
    canvas.line(observation[:2], np.asarray(observation[:2]) + 0.2 * np.asarray(observation[2:4]), 0.02, BODY)
    canvas.disc(observation[:2], 0.05, BODY)
    return canvas.picture()
