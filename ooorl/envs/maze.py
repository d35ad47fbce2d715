"""Two mazes for a point: one whose walls one slides along, one whose walls hold whoever enters them.

Both are drawn as rows of cells ('#' wall, '.' free, 'S' start, 'G' goal) and both show the position alone.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.envs.pictures import BODY, DANGER, GOAL, START, WALL, Canvas
from ooorl.errors import UsageError
from ooorl.types import Array, Spec, Task
from ooorl.validation import check_not_negative, check_positive

U_LAYOUT = (
    'S..',
    '##.',
    'G..',
)

STICKY_LAYOUT = (
    '#############',
    '#S.#........#',
    '#..#........#',
    '#..#..####..#',
    '#.....#.....#',
    '#.....#.....#',
    '####..#..####',
    '#..#.....#..#',
    '#..#.....#..#',
    '#..#..#..#..#',
    '#.....#.....#',
    '#.....#....G#',
    '#############',
)
STICKY_SUBSTEPS = 10
STICKY_SUBSTEP_SIZE = 0.01
STICKY_GOAL_RADIUS = 0.1


class MazeState(NamedTuple):
    """`position`: `[2]` float32, in the coordinates of the observation."""

    position: Array


def check_layout(layout: tuple[str, ...], *, several: bool = False) -> tuple[str, ...]:
    """Refuses a layout that is no rectangle of known cells with one start and one goal, if `several` any number of them."""
    rows = tuple(layout)
    cells = ''.join(rows)
    if not rows or len({len(row) for row in rows}) != 1 or set(cells) - set('#.SG'):
        raise UsageError(f"a layout must be rows of equal length made of '#', '.', 'S' and 'G'; got {rows}")
    if several and cells.count('S') and cells.count('G'):
        return rows
    if cells.count('S') != 1 or cells.count('G') != 1:
        raise UsageError(f"a layout must have one 'S' and one 'G'; got {cells.count('S')} and {cells.count('G')}")
    return rows


def check_sizes(layout: tuple[str, ...], horizon: int, step_size: float, goal_radius: float, start_noise: float) -> None:
    """Refuses sizes of a maze task by which a step could jump a wall or a start lie in one."""
    size = cell_size(layout)
    check_positive(horizon=horizon, step_size=step_size, goal_radius=goal_radius)
    check_not_negative(start_noise=start_noise)
    if step_size >= size or start_noise >= size / 2:
        raise UsageError(
            f'step_size must stay below a cell ({size:.3g}) and start_noise below half of it; got {step_size} and {start_noise}'
        )


def cell_of(layout: tuple[str, ...], letter: str) -> tuple[int, int]:
    """(row, column) of the first cell that shows `letter`."""
    return next((i, row.index(letter)) for i, row in enumerate(layout) if letter in row)


def cells_of(layout: tuple[str, ...], letter: str) -> list[tuple[int, int]]:
    """(row, column) of all cells that show `letter`, row by row."""
    return [(i, j) for i, row in enumerate(layout) for j, cell in enumerate(row) if cell == letter]


def cell_size(layout: tuple[str, ...]) -> float:
    """Side of a cell of `u_maze`: the longer side of the maze spans [-2, 2]."""
    return 4.0 / max(len(layout), len(layout[0]))


def cell_centre(layout: tuple[str, ...], cell: tuple[int, int]) -> tuple[float, float]:
    """(x, y) of a cell's centre in `u_maze`; x runs along a row, y along a column, both from -2."""
    size = cell_size(layout)
    return (cell[1] + 0.5) * size - 2.0, (cell[0] + 0.5) * size - 2.0


def _padded_free(layout: tuple[str, ...]) -> np.ndarray:
    free = np.array([[cell != '#' for cell in row] for row in layout])
    return np.pad(free, 1, constant_values=False)


def _drawn(layout, corner, wall, radius, place, goal_radius):
    """The cells of a layout from above, row 0 at the bottom as y grows with the rows; `corner(row, column)` is a cell's lower
    one."""
    rows, columns = len(layout), len(layout[0])
    canvas = Canvas(corner(0, 0), corner(rows, columns))
    centres = {}
    for row, column in np.ndindex(rows, columns):
        letter, low, high = layout[row][column], corner(row, column), corner(row + 1, column + 1)
        centres[letter] = np.add(low, high) / 2
        if letter == '#':
            canvas.box(low, high, wall)
    canvas.disc(centres['S'], radius * 1.6, START)
    canvas.disc(centres['G'], goal_radius, GOAL)
    canvas.disc(place, radius, BODY)
    return canvas.picture()


def sliding(layout: tuple[str, ...], step_size: float):
    """`(position[2], action[2]) -> position[2]` as `u_maze` moves: a move into a wall is dropped, each axis by itself."""
    free, size = _padded_free(layout), cell_size(layout)

    def is_free(x, y):
        column = jnp.clip(jnp.floor((x + 2.0) / size).astype(jnp.int32) + 1, 0, free.shape[1] - 1)
        row = jnp.clip(jnp.floor((y + 2.0) / size).astype(jnp.int32) + 1, 0, free.shape[0] - 1)
        return jnp.asarray(free)[row, column]

    def move(position, action):
        x, y = position
        dx, dy = step_size * jnp.clip(action, -1.0, 1.0).astype(jnp.float32)
        x = jnp.where(is_free(x + dx, y), x + dx, x)
        y = jnp.where(is_free(x, y + dy), y + dy, y)
        return jnp.stack([x, y])

    return move


def u_maze(
    *,
    layout: tuple[str, ...] = U_LAYOUT,
    horizon: int = 40,
    step_size: float = 0.3,
    goal_radius: float = 0.5,
    start_noise: float = 0.1,
) -> Task:
    """A maze with walls one slides along: a move into a wall is dropped, each axis by itself, x first.

    The maze spans [-2, 2] on its longer side, all lengths are in these units, and the observation is the position
    (x, y). Reward 1 at the goal, where the episode terminates, else 0. With the defaults the shortest way takes
    17 steps.

    Args:
      layout: rows of cells; everything outside is wall.
      horizon: steps of an episode.
      step_size: displacement per axis of a full action; less than a cell, so that no step jumps a wall.
      goal_radius: the goal is reached strictly within this distance of the goal cell's centre.
      start_noise: half-width of the uniform noise around the start cell's centre.

    Raises:
      UsageError: if the layout cannot be used or a step could jump a wall.
    """
    layout = check_layout(layout)
    check_sizes(layout, horizon, step_size, goal_radius, start_noise)
    move, size = sliding(layout, step_size), cell_size(layout)
    start, goal = (np.array(cell_centre(layout, cell_of(layout, letter)), np.float32) for letter in 'SG')

    def reset(key):
        position = start + jax.random.uniform(key, (2,), jnp.float32, -start_noise, start_noise)
        return MazeState(position), position

    def step(state, action, key):
        del key
        position = move(state.position, action)
        reached = jnp.sum((position - goal) ** 2) < goal_radius**2
        return MazeState(position), position, reached.astype(jnp.float32), reached, reached

    def render(observation):
        def corner(row, column):
            return column * size - 2.0, row * size - 2.0

        return _drawn(layout, corner, WALL, size / 12, observation, goal_radius)

    return Task(
        spec=Spec(observation_dim=2, action_dim=2), horizon=horizon, reset=reset, step=step, state_at=MazeState, render=render
    )


def _sticky_centre(cell: tuple[int, int]) -> np.ndarray:
    return ((np.array(cell) + 0.5) / len(STICKY_LAYOUT) * 2.0 - 1.0).astype(np.float32)


def is_irreversible(observation: Array) -> Array:
    """Whether a position of the sticky maze lies in a wall: `[..., 2] -> [...]` bool."""
    walls = ~_padded_free(STICKY_LAYOUT)[1:-1, 1:-1]
    num_cells = len(STICKY_LAYOUT)
    # Truncation, as in the original: a coordinate just below -1 falls into cell 0 either way.
    cell = jnp.clip(((observation + 1.0) / 2.0 * num_cells).astype(jnp.int32), 0, num_cells - 1)
    return jnp.asarray(walls)[cell[..., 0], cell[..., 1]]


def _sticky_move(position: Array, action: Array) -> Array:
    counts = jnp.arange(1, STICKY_SUBSTEPS + 1, dtype=jnp.float32)
    visited = position[None, :] + counts[:, None] * (STICKY_SUBSTEP_SIZE * action)[None, :]
    path = jnp.concatenate([position[None], visited])
    # Held by a wall, the point stops before the first sub-step that would leave it. The test is made once, at the
    # start of the step: a free point may cut a corner.
    frees = ~is_irreversible(visited)
    held_steps = jnp.where(jnp.any(frees), jnp.argmax(frees), STICKY_SUBSTEPS)
    num_substeps = jnp.where(is_irreversible(position), held_steps, STICKY_SUBSTEPS)
    return jnp.clip(path[num_substeps], -1.0, 1.0)


def _sticky_picture(observation):
    """Rows, the first coordinate, grow upwards; walls, which hold whoever enters them, are red."""
    size = 2.0 / len(STICKY_LAYOUT)

    def corner(row, column):
        return column * size - 1.0, row * size - 1.0

    return _drawn(STICKY_LAYOUT, corner, DANGER, size / 4, observation[::-1], STICKY_GOAL_RADIUS)


def irreversible_maze(*, horizon: int = 50, terminate_on_success: bool = False) -> Task:
    """The sticky maze: walls can be entered and never left, which is all that is irreversible.

    The observation is the position in [-1, 1]^2, the first coordinate along the rows. A step is ten sub-steps of 0.01
    times the action. Reward 1 in every step that ends within 0.1 of the goal outside walls, else 0.

    Args:
      horizon: steps of an episode; the source evaluates with 50 and trains with 500.
      terminate_on_success: whether the goal ends the episode; in the source it does not.

    Source: `maze-config0` of proactive_interventions@68e1196 (arXiv:2210.10765).
    """
    check_positive(horizon=horizon)
    start, goal = (_sticky_centre(cell_of(STICKY_LAYOUT, letter)) for letter in 'SG')

    def reset(key):
        del key
        position = jnp.asarray(start)
        return MazeState(position), position

    def step(state, action, key):
        del key
        position = _sticky_move(state.position, jnp.clip(action, -1.0, 1.0).astype(jnp.float32))
        near = jnp.sum((position - goal) ** 2) < STICKY_GOAL_RADIUS**2
        success = near & ~is_irreversible(position)
        terminated = success if terminate_on_success else jnp.zeros_like(success)
        return MazeState(position), position, success.astype(jnp.float32), terminated, success

    return Task(
        spec=Spec(observation_dim=2, action_dim=2), horizon=horizon, reset=reset, step=step, state_at=MazeState,
        irreversible=is_irreversible, render=_sticky_picture,
    )
