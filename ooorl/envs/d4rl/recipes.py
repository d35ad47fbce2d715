"""Names of the data sets that can be made locally, and what each is made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one data set is made.

    Attributes:
      kind: `point` (waypoint controller), `ant` (waypoints and a goal-reaching policy), `policies`, or `oracle` (OGBench's
        controllers, episode by episode).
      environment: the id of the environment that the data belong to.
      maze: the maze, for `point` and `ant`.
      levels: what each behaviour policy stands for, in order; `("...",)` for any number of them.
      task: the catalogue's task whose reference returns score the policies; None where scores do not apply.
      family: the environment's family, for `oracle`.
      data: which kind of data of that family, for `oracle`.
      options: defaults of the generator's own arguments.
    """

    kind: str
    environment: str
    maze: str | None = None
    levels: tuple[str, ...] = ()
    task: str | None = None
    family: str | None = None
    data: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


_LEVELS = {
    'random': (),
    'medium': ('medium',),
    'expert': ('expert',),
    'medium-expert': ('medium', 'expert'),
    'medium-replay': ('...',),
}


def _recipes() -> dict[str, Recipe]:
    recipes = {}
    for maze in ('umaze', 'medium', 'large'):
        point, ant = f'ooorl/Maze2d{maze.capitalize()}-v0', f'ooorl/AntMaze{maze.capitalize()}-v0'
        recipes[f'maze2d-{maze}'] = Recipe(kind='point', environment=point, maze=maze, options={'dense': False, 'noise': 0.0})
        recipes[f'maze2d-{maze}-dense'] = Recipe(
            kind='point',
            environment=point.replace('-v0', 'Dense-v0'),
            maze=maze,
            options={'dense': True, 'noise': 0.0},
        )
        # D4RL starts anywhere except in the plain umaze data; its "diverse" data also have goals anywhere.
        plain = {'noise': 0.2, 'start_anywhere': maze != 'umaze', 'goal_anywhere': False}
        for name, options in (
            (maze, plain),
            (f'{maze}-diverse', {**plain, 'start_anywhere': True, 'goal_anywhere': True}),
        ):
            recipes[f'antmaze-{name}'] = Recipe(
                kind='ant', environment=ant, maze=maze, levels=('goal-reaching',), options=options
            )
    for body in ('HalfCheetah', 'Hopper', 'Walker2d'):
        for level, levels in _LEVELS.items():
            recipes[f'{body.lower()}-{level}'] = Recipe(
                kind='policies',
                environment=f'{body}-v4',
                levels=levels,
                task=f'{body.lower()}-{level}-v2',
                options={'greedy': False},
            )
    for hand in ('Door', 'Hammer', 'Pen', 'Relocate'):
        recipes[f'{hand.lower()}-expert'] = Recipe(
            kind='policies',
            environment=f'ooorl/Adroit{hand}-v0',
            levels=('expert',),
            task=f'{hand.lower()}-expert-v1',
            options={'greedy': False},
        )
    return recipes


RECIPES: dict[str, Recipe] = _recipes()
