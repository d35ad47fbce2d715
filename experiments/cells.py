"""Cells of an experiment: a task and what is done there, each with one file of results."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ooorl.errors import UsageError
from ooorl.reporting import figures, writers


class Cell(NamedTuple):
    """One run: a task and an arm of the experiment, a method."""

    task: str
    arm: str

    def __str__(self):
        return ':'.join(self)

    def path(self, out: Path, prefix: str) -> Path:
        """Where its result lies."""
        return out / f'{prefix}{"-".join(self)}.json'


def chosen(text: str, known: Sequence[Cell]) -> list[Cell]:
    """'maze2d_umaze:flow,hopper' as cells of the `known`; a task alone is all its arms, nothing is everything.

    Raises:
      UsageError: if there is no such cell.
    """
    found = []
    for name in filter(None, text.split(',')):
        own = [cell for cell in known if name in (str(cell), cell.task)]
        if not own:
            raise UsageError(f'--cells takes {", ".join(map(str, known))} or a task; got {name!r}')
        found += own
    return found or list(known)


def read_results(out: Path, prefix: str, arms: Mapping | Sequence) -> dict[Cell, dict]:
    """All results in a directory, in the order of tasks and arms."""
    results = [writers.read_json(path) for path in out.glob(f'{prefix}*.json')]
    found = {Cell(*result['cell'].split(':')): result for result in results}
    return dict(sorted(found.items(), key=lambda item: (item[0].task, list(arms).index(item[0].arm))))


def draw_tasks(results: Mapping[Cell, dict], out: Path, prefix: str, drawn: Callable) -> list[Path]:
    """Writes `drawn(task, results)` of each task as `<prefix><task>.svg` and says where."""
    paths = []
    for task in dict.fromkeys(cell.task for cell in results):
        path = out / f'{prefix}{task}.svg'
        with writers.atomically(path) as file:
            file.write(figures.svg(drawn(task, results)))
        paths.append(path)
    return paths
