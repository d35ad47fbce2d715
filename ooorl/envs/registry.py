"""Names of environments, and the two functions that turn a name into one.

`TASKS` and `HOSTS` are plain tables: another module adds an environment by adding an entry.
"""

import dataclasses
import difflib
import inspect
import typing
from collections.abc import Callable

from ooorl.envs.batched import batched
from ooorl.envs.cliffs import point_mass_cliffs
from ooorl.envs.goal_maze import goal_maze
from ooorl.envs.maze import irreversible_maze, u_maze
from ooorl.envs.point_mass_physics import point_mass_physics
from ooorl.envs.point_mass_wall import point_mass_wall
from ooorl.envs.probes import (
    probe_action_and_observation_reward,
    probe_action_reward,
    probe_constant_reward,
    probe_observation_reward,
    probe_two_steps,
)
from ooorl.envs.tabletop import tabletop
from ooorl.errors import UsageError
from ooorl.types import Environment, Task
from ooorl.validation import check_positive, converted

# id -> (builder, settings of this id); a builder takes keyword settings and returns a Task.
TASKS: dict[str, tuple[Callable[..., Task], dict]] = {
    'ooorl/PointMassWall-v0': (point_mass_wall, {}),
    'ooorl/PointMassCliffs-v0': (point_mass_cliffs, {}),
    'ooorl/Tabletop-v0': (tabletop, {'walls': True}),
    'ooorl/TabletopNoWalls-v0': (tabletop, {'walls': False}),
    'ooorl/IrreversibleMaze-v0': (irreversible_maze, {}),
    'ooorl/UMaze-v0': (u_maze, {}),
    'ooorl/GoalMaze-v0': (goal_maze, {}),
    'ooorl/PointMassPhysics-v0': (point_mass_physics, {}),
    'ooorl/ProbeConstantReward-v0': (probe_constant_reward, {}),
    'ooorl/ProbeObservationReward-v0': (probe_observation_reward, {}),
    'ooorl/ProbeTwoSteps-v0': (probe_two_steps, {}),
    'ooorl/ProbeActionReward-v0': (probe_action_reward, {}),
    'ooorl/ProbeActionAndObservationReward-v0': (probe_action_and_observation_reward, {}),
}

# id -> `(batch_shape, **settings) -> Environment`, asked before gymnasium is.
HOSTS: dict[str, Callable[..., Environment]] = {}


def _unknown(name: str, names) -> UsageError:
    module, _, own = name.rpartition(':')
    near = difflib.get_close_matches(own, names, n=1, cutoff=0.6 if module else 0.0)
    if module and not near:
        return UsageError(f'an id that {module} registers with gymnasium was needed; got {name!r}; call gymnasium.register there')
    return UsageError(f'a known environment was needed; got {name!r}; did you mean {near[0]!r}?')


def make_task(name: str, **settings) -> Task:
    """The compiled task called `name`, one of `TASKS`, with keyword settings of its builder.

    >>> make_task('ooorl/UMaze-v0').horizon
    40

    Raises:
      UsageError: if the name or a setting is unknown, or a setting is of another type.
    """
    if name not in TASKS:
        raise _unknown(name, TASKS)
    builder, defaults = TASKS[name]
    known = inspect.signature(builder).parameters
    for setting in settings:
        if setting not in known:
            raise UsageError(f'{name} knows the settings {", ".join(known) or "(none)"}; got {setting!r}; remove it')
    hints = typing.get_type_hints(builder)
    settings = {key: converted(value, hints[key], f'{key} of {name}') for key, value in settings.items()}
    check_positive(**{key: value for key, value in settings.items() if key == 'horizon'})
    return builder(**{**defaults, **settings})


def make(name: str, batch_shape: int | tuple[int, ...] = (1,), **settings) -> Environment:
    """The environment called `name`: a compiled task, an entry of `HOSTS`, or else any gymnasium id.

    As with gymnasium, `module:Id` imports the module that registers the id first.

    >>> make('ooorl/UMaze-v0', (8,)).compiled
    True

    Args:
      name: the id.
      batch_shape: `(N,)` copies, or more leading axes.
      **settings: of the task; on the host `workers`, `copies` and `horizon` (see `host`) and what the environment takes.

    Raises:
      UsageError: if no environment has this name, with the nearest one that has; or if its module cannot be imported.
    """
    check_known(name)
    if name in TASKS:
        return dataclasses.replace(batched(make_task(name, **settings), batch_shape), name=name)
    if name in HOSTS:
        return HOSTS[name](batch_shape, **settings)
    from ooorl.envs.gymnasium_adapter import host

    return host(name, batch_shape, **settings)


def check_known(name: str) -> None:
    """Raises `UsageError` as `make` does if no environment has this name; makes none."""
    if name in TASKS or name in HOSTS:
        return
    import gymnasium

    from ooorl.envs.gymnasium_adapter import gymnasium_spec

    try:
        gymnasium_spec(name)
    except (gymnasium.error.Error, ImportError) as error:
        raise _unknown(name, [*TASKS, *HOSTS, *gymnasium.registry]) from error


def single(name: str, **settings):
    """One copy to put recorded states into: a `Task`, a gymnasium environment, or None where it cannot be made so.

    Args:
      name: as for `make`.
      **settings: as for `make`.
    """
    if name in TASKS:
        return make_task(name, **settings)
    if name in HOSTS:
        return None
    import gymnasium

    from ooorl.envs.dict_observations import joined
    from ooorl.envs.gymnasium_adapter import gymnasium_spec

    settings = {key: value for key, value in settings.items() if key not in ('workers', 'copies', 'horizon')}
    keys = settings.pop('observation_keys', ())
    try:
        return joined(lambda: gymnasium.make(gymnasium_spec(name), disable_env_checker=True, **settings), keys)
    except (Exception, SystemExit):  # `make` has said what is wrong, where the environment is needed
        return None
