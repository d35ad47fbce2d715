"""D4RL's environments on today's gymnasium and MuJoCo.

`TABLE` maps every id to how it is made; `register()` tells gymnasium. MuJoCo is imported when an environment is
made, gymnasium-robotics never: only its model files are used.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Entry(NamedTuple):
    """How one environment is made: gymnasium's `entry_point`, its keyword arguments, and the time limit."""

    entry_point: str
    kwargs: Mapping[str, Any]
    max_episode_steps: int


def _table() -> dict[str, Entry]:
    here = 'ooorl.envs.d4rl'
    table = {
        'ooorl/SparseHalfCheetah-v0': Entry(f'{here}.locomotion:SparseHalfCheetahEnv', {}, 1000),
        'ooorl/SparseAnt-v0': Entry(f'{here}.locomotion:SparseAntEnv', {}, 1000),
        'ooorl/AntPadded-v0': Entry(f'{here}.locomotion:AntPaddedEnv', {}, 1000),
    }
    for maze, ant_steps, point_steps in (('umaze', 700, 300), ('medium', 1000, 600), ('large', 1000, 800)):
        name = maze.capitalize()
        point = f'{here}.maze2d:Maze2dEnv'
        dense = {'maze': maze, 'reward': 'dense'}
        table[f'ooorl/AntMaze{name}-v0'] = Entry(f'{here}.antmaze:AntMazeEnv', {'maze': maze}, ant_steps)
        table[f'ooorl/Maze2d{name}-v0'] = Entry(point, {'maze': maze}, point_steps)
        table[f'ooorl/Maze2d{name}Dense-v0'] = Entry(point, dense, point_steps)
    for name, num_steps in (('Pen', 100), ('Door', 200), ('Hammer', 200), ('Relocate', 200)):
        hand = f'{here}.adroit:{name}Env'
        table[f'ooorl/Adroit{name}-v0'] = Entry(hand, {}, num_steps)
        table[f'ooorl/Adroit{name}Binary-v0'] = Entry(hand, {'reward': 'binary'}, num_steps)
    for tasks in ('complete', 'partial', 'mixed'):
        kitchen, name = f'{here}.kitchen:KitchenEnv', tasks.capitalize()
        cumulative = {'tasks': tasks, 'reward': 'cumulative'}
        table[f'ooorl/Kitchen{name}-v0'] = Entry(kitchen, {'tasks': tasks}, 280)
        table[f'ooorl/Kitchen{name}Cumulative-v0'] = Entry(kitchen, cumulative, 1000)
    return table


TABLE: dict[str, Entry] = _table()


def register():
    """Registers every id of `TABLE` with gymnasium; calling it again changes nothing."""
    import gymnasium

    for name, entry in TABLE.items():
        if name not in gymnasium.registry:
            gymnasium.register(
                id=name,
                entry_point=entry.entry_point,
                kwargs=dict(entry.kwargs),
                max_episode_steps=entry.max_episode_steps,
            )
