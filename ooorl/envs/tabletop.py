"""Tabletop organisation: a gripper with a magnet carries a mug to one of four goals and comes home.

Pure kinematics. Observation, 12 numbers: gripper (2), mug (2), twice the flag f (0 while the mug is held, else -1),
goal of the gripper (2), goal of the mug (2), -1, -1. Action, 3 numbers: clipped to [-1, 1] and multiplied by 0.2:
displacement (2) and magnet, which is on iff its entry is above 0.

One step, in this order:
  1. magnet on and mug not dropped: grasp if the gripper, before it moves, is nearer than 0.4; a held mug stays held.
     Otherwise the mug is let go; without walls, letting go where |x| or |y| of the mug exceeds 2.8 drops it for good.
  2. The gripper moves and is clipped to the table, half-width 2.8 with walls and 3.8 without.
  3. A held mug moves by the gripper's clipped displacement and is clipped as well.

Reset: gripper (0, 0), mug (2.5, 0) or on one of several sides (`start_sides`), one of the four goals at random. Success: gripper
and mug together (4 numbers) within 0.2 of the goal; reward 1 there, else 0.

Source: `tabletop_manipulation` of earl_benchmark@b05b000 (walls) and its copy in proactive_interventions@68e1196 (no
walls; arXiv:2210.10765). Their environments never terminate; pass `terminate_on_success=False` for that.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.envs.pictures import BODY, DANGER, GOAL, OTHER, START, WALL, Canvas
from ooorl.types import Array, Spec, Task
from ooorl.validation import check_choice, check_positive

TABLE_EDGE = 2.8
HALF_WIDTH_NO_WALLS = 3.8
GRASP_DISTANCE = 0.4
SUCCESS_DISTANCE = 0.2
START_GRIPPER = (0.0, 0.0)
START_MUG = (2.5, 0.0)
# Where the mug may begin; the source has it on the right.
START_SIDES = {'right': START_MUG, 'top': (1.5, 2.5), 'left': (-2.5, 0.0), 'bottom': (1.5, -2.5)}
# Goals of gripper and mug together; the gripper always comes home.
GOALS = ((0.0, 0.0, -2.5, -1.0), (0.0, 0.0, -2.5, 1.0), (0.0, 0.0, 0.0, 2.0), (0.0, 0.0, 0.0, -2.0))


class TabletopState(NamedTuple):
    """`gripper` `[2]`, `mug` `[2]`, `held` bool, `dropped` bool (out of reach for good), `goal` `[4]`."""

    gripper: Array
    mug: Array
    held: Array
    dropped: Array
    goal: Array


def observe(state: TabletopState) -> Array:
    """The 12 numbers of one copy, float32."""
    flag = jnp.where(state.held, 0.0, -1.0)
    parts = [state.gripper, state.mug, jnp.stack([flag, flag]), state.goal, jnp.full(2, -1.0)]
    return jnp.concatenate(parts).astype(jnp.float32)


def with_new_goal(state: TabletopState, key: Array) -> tuple[TabletopState, Array]:
    """The same table with one of the four goals drawn anew, and its observation."""
    goal = jnp.asarray(np.array(GOALS, np.float32))[jax.random.randint(key, (), 0, len(GOALS))]
    state = state._replace(goal=goal)
    return state, observe(state)


def is_at_start(observation: Array) -> Array:
    """Whether gripper and mug lie where episodes of the source's table begin, within 0.2 together: `[..., 12] -> [...]` bool."""
    start = jnp.broadcast_to(jnp.array([*START_GRIPPER, *START_MUG]), observation[..., :4].shape)
    return jnp.sum((observation[..., :4] - start) ** 2, axis=-1) <= SUCCESS_DISTANCE**2


def is_irreversible(observation: Array) -> Array:
    """Whether the mug lies beyond the edge and is not held: `[..., 12] -> [...]` bool; never so with walls."""
    beyond = jnp.max(jnp.abs(observation[..., 2:4]), axis=-1) > TABLE_EDGE
    return beyond & (observation[..., 4] < -0.5)


def state_from_observation(observation: Array) -> TabletopState:
    """The state that shows `observation[12]`; exact for states that were reached by stepping."""
    return TabletopState(
        gripper=observation[0:2],
        mug=observation[2:4],
        held=observation[4] > -0.5,
        dropped=is_irreversible(observation),
        goal=observation[6:10],
    )


def _step(state: TabletopState, action: Array, walls: bool) -> TabletopState:
    half_width = TABLE_EDGE if walls else HALF_WIDTH_NO_WALLS
    displacement = 0.2 * jnp.clip(action, -1.0, 1.0).astype(jnp.float32)
    magnet = (displacement[2] > 0.0) & ~state.dropped
    near = jnp.sum((state.gripper - state.mug) ** 2) < GRASP_DISTANCE**2
    held = magnet & (state.held | near)
    dropped = state.dropped
    if not walls:
        let_go = state.held & ~magnet
        dropped = dropped | (let_go & (jnp.max(jnp.abs(state.mug)) > TABLE_EDGE))
    gripper = jnp.clip(state.gripper + displacement[:2], -half_width, half_width)
    carried = jnp.clip(state.mug + (gripper - state.gripper), -half_width, half_width)
    return TabletopState(gripper, jnp.where(held, carried, state.mug), held, dropped, state.goal)


def _picture(observation: np.ndarray, walls: bool) -> np.ndarray:
    """The table from above: goals of the mug pale, the one in force green, the mug orange (dark once it is lost), the gripper
    blue."""
    half_width = TABLE_EDGE if walls else HALF_WIDTH_NO_WALLS
    canvas = Canvas((-half_width, -half_width), (half_width, half_width))
    if not walls:
        canvas.box((-half_width, -half_width), (half_width, half_width), DANGER)
        canvas.box((-TABLE_EDGE, -TABLE_EDGE), (TABLE_EDGE, TABLE_EDGE), (245, 245, 242))
    for goal in GOALS:
        canvas.disc(goal[2:], 0.25, START)
    canvas.disc(observation[8:10], 0.25, GOAL)
    canvas.disc(observation[2:4], 0.2, WALL if bool(is_irreversible(np.asarray(observation))) else OTHER)
    held = observation[4] > -0.5
    canvas.disc(observation[0:2], 0.14, BODY if held else (110, 140, 196))
    return canvas.picture()


def tabletop(
    *, walls: bool, horizon: int = 200, terminate_on_success: bool = True, start_sides: tuple[str, ...] = ('right',)
) -> Task:
    """The tabletop task with its sparse reward.

    Args:
      walls: True for EARL's table, whose walls keep the mug within reach; False for PAINT's, whose edge is
        irreversible.
      horizon: steps of an episode; EARL evaluates with 200.
      terminate_on_success: whether success ends the episode.
      start_sides: where the mug begins, of 'right', 'top', 'left' and 'bottom', drawn for each episode independently of the goal.
    """
    check_positive(horizon=horizon)
    for side in start_sides or ('none',):
        check_choice(tuple(START_SIDES), start_sides=side)
    goals = np.array(GOALS, np.float32)
    mugs = np.array([START_SIDES[side] for side in start_sides], np.float32)

    def reset(key):
        # One side takes no random number of its own: the draws of the source's table stay as they are.
        side = 0 if len(mugs) == 1 else jax.random.randint(jax.random.fold_in(key, 1), (), 0, len(mugs))
        state = TabletopState(
            gripper=jnp.array(START_GRIPPER, jnp.float32),
            mug=jnp.asarray(mugs)[side],
            held=jnp.array(False),
            dropped=jnp.array(False),
            goal=jnp.asarray(goals)[jax.random.randint(key, (), 0, len(GOALS))],
        )
        return state, observe(state)

    def step(state, action, key):
        del key
        state = _step(state, action, walls)
        error = jnp.concatenate([state.gripper, state.mug]) - state.goal
        success = jnp.sum(error**2) <= SUCCESS_DISTANCE**2
        terminated = success if terminate_on_success else jnp.zeros_like(success)
        return state, observe(state), success.astype(jnp.float32), terminated, success

    spec = Spec(observation_dim=12, action_dim=3)
    return Task(
        spec=spec, horizon=horizon, reset=reset, step=step, state_at=state_from_observation,
        irreversible=None if walls else is_irreversible, render=lambda observation: _picture(observation, walls),
    )
