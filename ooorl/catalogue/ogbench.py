"""OGBench's environments of single tasks, as plain facts. Imports nothing."""

from typing import NamedTuple

HOST = "https://rail.eecs.berkeley.edu/datasets/ogbench/"
NUM_TASKS = 5
CONVENTIONS = (
    "terminals mark the last row of an episode, which is a time-out; that row has no successor and is dropped.",
    "the file holds no rewards: rewards and ends are those of the task, given to the recorded states when it is read.",
    "since ogbench 1.2.0 they are those of the state that is acted in; earlier results used the successor's.",
    "the score is success; 0 task: the package's default.",
)


class Family(NamedTuple):
    """One environment: sizes, time limit, and the published data as kind -> (rows of an episode, episodes).

    The first kind of data is the one that tables of single tasks use. Where `scripted`, the package's own controllers make it;
    walkers need trained ones, which it does not hold, and sizes of their data are from memory.
    """

    observation_dim: int
    action_dim: int
    horizon: int
    data: dict[str, tuple[int, int]]
    scripted: bool = True


def _hand(observation_dim, horizon, episodes=1000):
    return Family(observation_dim, 5, horizon, {"play": (1001, episodes), "noisy": (1001, episodes)})


def _maze(navigate=(1001, 1000)):
    return Family(2, 2, 1000, {"navigate": navigate, "stitch": (201, 5000)})


def _walker(sizes, navigate, stitch=(201, 5000), explore=None):
    kinds = {"navigate": navigate, "stitch": stitch} | ({"explore": explore} if explore else {})
    return Family(*sizes, kinds, scripted=False)


_ANT, _SOCCER = (29, 8, 1000), (42, 8, 1000)

FAMILIES: dict[str, Family] = {
    "cube-single": _hand(28, 200),
    "cube-double": _hand(37, 500),
    "cube-triple": _hand(46, 1000, 3000),
    "cube-quadruple": _hand(55, 1000, 5000),
    "scene": _hand(40, 750),
    "puzzle-3x3": _hand(55, 500),
    "puzzle-4x4": _hand(83, 500),
    "puzzle-4x5": _hand(99, 1000, 3000),
    "puzzle-4x6": _hand(115, 1000, 5000),
    "pointmaze-medium": _maze(),
    "pointmaze-large": _maze(),
    "pointmaze-giant": _maze((2001, 500)),
    "pointmaze-teleport": _maze(),
    "antmaze-medium": _walker(_ANT, (1001, 1000), explore=(501, 10_000)),
    "antmaze-large": _walker(_ANT, (1001, 1000), explore=(501, 10_000)),
    "antmaze-giant": _walker(_ANT, (2001, 500)),
    "antmaze-teleport": _walker(_ANT, (1001, 1000), explore=(501, 10_000)),
    "humanoidmaze-medium": _walker((69, 21, 2000), (2001, 1000), (401, 5000)),
    "humanoidmaze-large": _walker((69, 21, 2000), (2001, 1000), (401, 5000)),
    "humanoidmaze-giant": _walker((69, 21, 4000), (4001, 1000), (401, 10_000)),
    "antsoccer-arena": _walker(_SOCCER, (1001, 1000)),
    "antsoccer-medium": _walker(_SOCCER, (1001, 4000), (401, 8000)),
}


def environment(family: str, task: int) -> str:
    """The id of a family's task; 0 is the package's default."""
    return f"ooorl/{family}-singletask{f'-task{task}' if task else ''}-v0"


def tasks():
    """`(id, family, kind, task)` of every kind of data and task."""
    for family, facts in FAMILIES.items():
        for kind in facts.data:
            for task in range(NUM_TASKS + 1):
                name = environment(family, task).removeprefix("ooorl/")
                yield name.replace(family, f"{family}-{kind}", 1), family, kind, task
