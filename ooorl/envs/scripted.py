"""Offline data made on the spot by scripted, noisy controllers.

Both makers return a `Transition` of numpy arrays: rows in order of time within an episode, one episode after another,
`extras['boundary']` 1 on the last row of every stretch of consecutive rows. The same key gives the same rows.
"""

from collections import deque
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.envs.maze import U_LAYOUT, cell_centre, cell_of, cell_size, check_layout, u_maze
from ooorl.envs.point_mass_wall import GOAL, point_mass_wall
from ooorl.errors import UsageError
from ooorl.types import Key, Task, Transition
from ooorl.validation import check_not_negative, check_positive

# A controller is `begin(key) -> memory` and `act(memory, observation, key) -> (action, memory)`.
Controller = tuple[Callable, Callable]


def rollouts(task: Task, controller: Controller, key: Key, num_episodes: int, noise: float) -> Transition:
    """`num_episodes` episodes of `task.horizon` steps, played on beyond termination: leaves `[episodes, horizon]`."""
    begin, act = controller

    def play(episode_key):
        reset_key, memory_key, scan_key = jax.random.split(episode_key, 3)
        state, observation = task.reset(reset_key)

        def one_step(carry, step_key):
            state, observation, memory = carry
            act_key, noise_key, env_key = jax.random.split(step_key, 3)
            action, memory = act(memory, observation, act_key)
            action = jnp.clip(action + noise * jax.random.normal(noise_key, action.shape), -1.0, 1.0)
            state, successor, reward, terminated, _ = task.step(state, action, env_key)
            row = Transition(observation, action, reward, 1.0 - terminated.astype(jnp.float32), successor)
            return (state, successor, memory), row

        carry = (state, observation, begin(memory_key))
        return jax.lax.scan(one_step, carry, jax.random.split(scan_key, task.horizon))[1]

    rows = jax.jit(jax.vmap(play))(jax.random.split(key, num_episodes))
    return jax.tree.map(np.asarray, rows)


def kept(rows: Transition, keep: np.ndarray) -> Transition:
    """Rows of `[episodes, horizon]` leaves where `keep`, flattened, with a boundary wherever the next row is gone."""
    followed = np.zeros_like(keep)
    followed[:, :-1] = keep[:, 1:]
    boundary = (keep & ~followed).astype(np.float32)
    kept = jax.tree.map(lambda leaf: leaf[keep], rows)
    return kept._replace(extras={'boundary': boundary[keep]})


def until_end(rows: Transition) -> np.ndarray:
    """True on every row up to and with the first that terminates."""
    ended = np.cumsum(rows.discount == 0.0, axis=1)
    return (ended - (rows.discount == 0.0)) == 0


def next_cells(layout: tuple[str, ...], *, turned: bool = False) -> np.ndarray:
    """`[cells, cells]`: entry (target, cell) is the next cell of a shortest path; a cell is row * width + column.

    Of several shortest paths `turned` prefers others.
    """
    height, width = len(layout), len(layout[0])
    table = np.tile(np.arange(height * width), (height * width, 1))
    for target in range(height * width):
        queue = deque([target])
        seen = {target}
        while queue:
            cell = queue.popleft()
            row, column = divmod(cell, width)
            around = ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1))
            for i, j in around[::-1] if turned else around:
                inside = 0 <= i < height and 0 <= j < width
                if inside and layout[i][j] != '#' and i * width + j not in seen:
                    seen.add(i * width + j)
                    table[target, i * width + j] = cell
                    queue.append(i * width + j)
    return table


def waypoint_controller(layout: tuple[str, ...], step_size: float) -> Controller:
    """Walks a `u_maze` from cell to cell towards a free cell drawn at random, then towards another one."""
    height, width = len(layout), len(layout[0])
    free = np.array([i * width + j for i in range(height) for j in range(width) if layout[i][j] != '#'])
    centres = np.array([cell_centre(layout, divmod(cell, width)) for cell in range(height * width)], np.float32)
    table = next_cells(layout)

    def draw(key):
        return jax.random.choice(key, jnp.asarray(free))

    def act(target, observation, key):
        arrived = jnp.sum((observation - jnp.asarray(centres)[target]) ** 2) < step_size**2
        target = jnp.where(arrived, draw(key), target)
        column, row = jnp.floor((observation + 2.0) / cell_size(layout)).astype(jnp.int32)
        waypoint = jnp.asarray(centres)[jnp.asarray(table)[target, row * width + column]]
        return jnp.clip((waypoint - observation) / step_size, -1.0, 1.0), target

    return draw, act


def _goal_arm(layout: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Corners (low, high) of the straight run of cells that ends, on the way from the start, in the goal."""
    table, width = next_cells(layout), len(layout[0])
    goal, cell = (i * width + j for i, j in (cell_of(layout, letter) for letter in 'GS'))
    path = [cell]
    while path[-1] != goal and table[goal, path[-1]] != path[-1]:
        path.append(table[goal, path[-1]])
    if path[-1] != goal:
        raise UsageError(f'the goal must be reachable from the start; got the layout {layout}')
    arm = [divmod(path[-1], width)]
    direction = None
    for cell in reversed(path[:-1]):
        step = np.subtract(divmod(cell, width), arm[-1])
        if direction is not None and tuple(step) != tuple(direction):
            break
        arm.append(divmod(cell, width))
        direction = step
    centres = np.array([cell_centre(layout, cell) for cell in (arm[0], arm[-1])])
    half = cell_size(layout) / 2
    return centres.min(0) - half, centres.max(0) + half


def _in_missing_part(layout: tuple[str, ...], positions: np.ndarray, missing: float) -> np.ndarray:
    low, high = _goal_arm(layout)
    axis = int(np.argmax(high - low))
    goal = cell_centre(layout, cell_of(layout, 'G'))[axis]
    from_end = (
        positions[..., axis] - low[axis] if goal - low[axis] < high[axis] - goal else high[axis] - positions[..., axis]
    )
    inside = np.all((positions >= low) & (positions <= high), axis=-1)
    return inside & (from_end < missing * (high - low)[axis])


def u_maze_offline(
    key: Key,
    num_episodes: int = 80,
    *,
    missing: float = 0.55,
    noise: float = 0.3,
    layout: tuple[str, ...] = U_LAYOUT,
    **settings,
) -> Transition:
    """Trajectories of `waypoint_controller` in `u_maze`, without the end of the arm that holds the goal.

    An episode stops at the goal. Then every row that starts or ends in the missing part, and every row with a
    reward, is deleted; each deletion cuts the trajectory there. So the rows say where the arm begins and nothing of
    the goal.

    Args:
      key: of the whole set.
      num_episodes: episodes before the deletion.
      missing: share of the goal arm, the last straight run of cells with its corner cell, that is deleted from its
        end. 0 deletes only rows with a reward.
      noise: standard deviation of the Gaussian noise on the actions.
      layout: as in `u_maze`.
      **settings: further settings of `u_maze`.

    Returns:
      `[rows]` with `extras['boundary']`; no row terminates and none has a reward.

    Raises:
      UsageError: if `missing` is not in [0, 1] or nothing is left.
    """
    layout = check_layout(layout)
    check_positive(num_episodes=num_episodes)
    check_not_negative(noise=noise)
    if not 0.0 <= missing <= 1.0:
        raise UsageError(f'missing must lie in [0, 1]; got {missing}')
    step_size = settings.get('step_size', 0.3)
    task = u_maze(layout=layout, **settings)
    rows = rollouts(task, waypoint_controller(layout, step_size), key, num_episodes, noise)
    gone = _in_missing_part(layout, rows.observation, missing) | _in_missing_part(
        layout, rows.next_observation, missing
    )
    keep = until_end(rows) & ~gone & (rows.reward == 0.0)
    if not keep.any():
        raise UsageError(f'missing={missing} leaves no row of {num_episodes} episodes; lower it or ask for more')
    return kept(rows, keep)


def long_way_controller(step_size: float) -> Controller:
    """Goes over the wall of `point_mass_wall` by way of two points above it, then to the goal."""
    waypoints = np.array([(0.46, 1.28), (0.58, 1.28), GOAL], np.float32)

    def act(stage, observation, key):
        del key
        arrived = jnp.sum((observation - jnp.asarray(waypoints)[stage]) ** 2) < 0.06**2
        stage = jnp.minimum(stage + arrived, len(waypoints) - 1)
        return jnp.clip((jnp.asarray(waypoints)[stage] - observation) / step_size, -1.0, 1.0), stage

    return lambda key: jnp.zeros((), jnp.int32), act


def point_mass_wall_offline(key: Key, num_episodes: int = 100, *, noise: float = 0.2, **settings) -> Transition:
    """Trajectories of `long_way_controller` in `point_mass_wall`, from the start to the goal over the wall.

    Args:
      key: of the whole set.
      num_episodes: how many; those that miss the goal for the whole horizon are kept as time-outs.
      noise: standard deviation of the Gaussian noise on the actions.
      **settings: of `point_mass_wall`.

    Returns:
      `[rows]` with `extras['boundary']`.
    """
    check_positive(num_episodes=num_episodes)
    check_not_negative(noise=noise)
    task = point_mass_wall(**settings)
    step_size = settings.get('step_size', 0.05 * 0.5**0.5)
    rows = rollouts(task, long_way_controller(step_size), key, num_episodes, noise)
    return kept(rows, until_end(rows))
