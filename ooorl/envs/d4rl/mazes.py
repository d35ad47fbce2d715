"""The three maze layouts of D4RL and shortest paths through them.

A layout is a tuple of strings: `#` wall, `.` free. Cells are (row, column).

Source: Fu et al., "D4RL", arXiv:2004.07219; the layouts of its maze2d and antmaze tasks are the same.
"""

from collections import deque
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ooorl.errors import UsageError


class Maze(NamedTuple):
    """One layout with the cells that D4RL names.

    Attributes:
      rows: the layout.
      start: where the ant starts.
      ant_goal: the goal cell of the ant's evaluation.
      point_goal: the goal cell of the point mass.
      ant_data_goals: goal cells of the ant's data set ("play").
    """

    rows: tuple[str, ...]
    start: tuple[int, int]
    ant_goal: tuple[int, int]
    point_goal: tuple[int, int]
    ant_data_goals: tuple[tuple[int, int], ...]


MAZES = {
    'umaze': Maze(
        rows=('#####', '#...#', '###.#', '#...#', '#####'),
        start=(1, 1),
        ant_goal=(3, 1),
        point_goal=(1, 1),
        ant_data_goals=((3, 1),),
    ),
    'medium': Maze(
        rows=(
            '########',
            '#..##..#',
            '#..#...#',
            '##...###',
            '#..#...#',
            '#.#..#.#',
            '#...#..#',
            '########',
        ),
        start=(1, 1),
        ant_goal=(6, 6),
        point_goal=(6, 6),
        ant_data_goals=((2, 6), (5, 1), (6, 5)),
    ),
    'large': Maze(
        rows=(
            '############',
            '#....#.....#',
            '#.##.#.#.#.#',
            '#......#...#',
            '#.####.###.#',
            '#..#.#.....#',
            '##.#.#.#.###',
            '#..#...#...#',
            '############',
        ),
        start=(1, 1),
        ant_goal=(7, 9),
        point_goal=(7, 9),
        ant_data_goals=((1, 6), (3, 5), (3, 10), (5, 2), (7, 4), (7, 6), (7, 9)),
    ),
}


def find_maze(name: str) -> Maze:
    """The maze of that name."""
    if name not in MAZES:
        raise UsageError(f'maze must be one of {sorted(MAZES)}; got {name!r}')
    return MAZES[name]


def cells(maze: Maze, kind: str) -> np.ndarray:
    """`[n, 2]` (row, column) of the cells of a kind (`#` or `.`), in reading order."""
    return np.array([(r, c) for r, row in enumerate(maze.rows) for c, tile in enumerate(row) if tile == kind])


@lru_cache
def next_cells(maze: Maze) -> np.ndarray:
    """`[R, C, R, C, 2]`: the next cell of a shortest path from a cell to a free cell.

    From a wall the next cell is its neighbour nearest to the target: bodies may reach over a wall's edge.
    Where nothing is known (a target in a wall, a start inside thick walls) the entry is the target itself.
    """
    shape = (len(maze.rows), len(maze.rows[0]))
    table = np.empty((*shape, *shape, 2), int)
    table[...] = np.stack(np.meshgrid(*map(np.arange, shape), indexing='ij'), axis=-1)
    for target in map(tuple, cells(maze, '.').tolist()):
        reached, queue = {target}, deque([target])
        while queue:
            row, column = cell = queue.popleft()
            for neighbour in ((row, column - 1), (row, column + 1), (row + 1, column), (row - 1, column)):
                if neighbour in reached:
                    continue
                reached.add(neighbour)
                table[(*neighbour, *target)] = cell
                if maze.rows[neighbour[0]][neighbour[1]] == '.':
                    queue.append(neighbour)
    return table
