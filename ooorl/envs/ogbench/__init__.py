"""OGBench's single tasks (arXiv:2410.20092; the package `ogbench`), made repeatable, and its names.

Observations, dynamics, rewards and ends are the package's own. It is imported when an environment is made, never before.
Three names mean one environment: `ooorl/scene-singletask-task1-v0`, under which gymnasium knows it,
`scene-singletask-task1-v0`, as the package calls it, and `scene-play-singletask-task1-v0`, as its data and tables do. Without
`task1` it is the task that the package takes by default.
"""

import re

from ooorl.catalogue.ogbench import FAMILIES, NUM_TASKS, environment
from ooorl.errors import UsageError

PACKAGE = 'ogbench'

_NAME = re.compile(r'(?:ooorl/)?(?P<rest>.+)-singletask(?:-task(?P<task>[1-5]))?-v0')


def own_name(name: str) -> str:
    """The id under which gymnasium knows an environment of OGBench, whichever of its names is given; other names unchanged."""
    match = _NAME.fullmatch(name)
    if match is None:
        return name
    rest = match['rest']
    for family, facts in FAMILIES.items():
        if rest in (family, *(f'{family}-{kind}' for kind in facts.data)):
            return environment(family, int(match['task'] or 0))
    return name


def register() -> None:
    """Registers every task with gymnasium; calling it again changes nothing."""
    import gymnasium

    for family, facts in FAMILIES.items():
        for task in range(NUM_TASKS + 1):
            name = environment(family, task)
            if name not in gymnasium.registry:
                gymnasium.register(
                    id=name,
                    entry_point='ooorl.envs.ogbench.single_task:SingleTaskEnv',
                    kwargs={'family': family, 'task': task},
                    max_episode_steps=facts.horizon,
                )


def require_package():
    """The package.

    Raises:
      UsageError: where it is not installed.
    """
    try:
        import ogbench
    except ImportError as error:
        raise UsageError(
            f"the package ogbench was needed for OGBench's environments; it cannot be imported ({error}); install the extra: "
            'pip install "ooorl[ogbench]"'
        ) from error
    return ogbench
