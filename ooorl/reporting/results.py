"""What many runs amount to, one entry for each algorithm, task and seed: scores at the end, curves, cost, and what became of it.

The unit is the seed. A score is that of the policy which a run is about (`arms.leading`): of its `last` evaluation, and the mean
of its last k, `mean_last`. Both are taken from the stored rows, none is chosen by looking at scores. A seed that failed, diverged
or is not there stays in the list with its status; nothing is dropped.
"""

import dataclasses
import hashlib
import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ooorl.errors import UsageError
from ooorl.reporting import arms, series, writers
from ooorl.reporting.stored import load

STATUSES = ('complete', 'running', 'interrupted', 'diverged', 'failed', 'not evaluated', 'missing')
METRICS = ('normalised', 'success', 'return')
VERSION = 1  # of the JSON that `write` writes


@dataclass(frozen=True, kw_only=True)
class Result:
    """One seed of one algorithm on one task.

    Attributes:
      algorithm, task: as the table calls them.
      seed: the seed.
      status: one of `STATUSES`; only a complete one has scores.
      last: by metric, of the last evaluation.
      mean_last: by metric, the mean of the last `num_last` evaluations.
      num_last: how many these were.
      curve: by metric, `[[x, value], ...]` over the leading policy's training, environment steps where it has any, else updates.
      axis: what x counts: 'env_steps' or 'updates'.
      cost: `wall_seconds` of the whole run with all its seeds, `updates_per_second` over all seeds, `device`.
      data: what scores depend on beside the algorithm: environment, SHA-256 of the data, episodes of an evaluation.
      settings: a digest of the config, without what changes no score; '' where it is not known.
      run: where it lies.
      note: what went wrong, in one line.
    """

    algorithm: str
    task: str
    seed: int
    status: str
    last: dict = field(default_factory=dict)
    mean_last: dict = field(default_factory=dict)
    num_last: int = 0
    curve: dict = field(default_factory=dict)
    axis: str = 'updates'
    cost: dict = field(default_factory=dict)
    data: dict = field(default_factory=dict)
    settings: str = ''
    run: str = ''
    note: str = ''


def without_scores(algorithm: str, task: str, seeds, status: str, *, run: str = '', note: str = '') -> list[Result]:
    """Entries of seeds that have no scores, or not yet."""
    made = {'algorithm': algorithm, 'task': task, 'status': status, 'run': run, 'note': note}
    return [Result(seed=seed, **made) for seed in seeds]


def of_run(directory, *, algorithm: str = '', task: str = '', num_last: int = 10) -> list[Result]:
    """The entries of a run directory, finished or not.

    Args:
      directory: of the run.
      algorithm: what the table calls it; '' for the name of the agent, behind ooo- where its run explored.
      task: likewise; '' for the data set's name, or the environment.
      num_last: evaluations that `mean_last` is the mean of.

    Raises:
      UsageError: if what is there is damaged.
    """
    summary, rows, _ = load(directory)
    lead = arms.leading(summary) or summary['phases'][-1]['name']
    phase = next((own for own in summary['phases'] if own['name'] == lead), summary['phases'][-1])
    agent = named(phase.get('agent') or summary['name'], summary.get('kind'))
    names = {'algorithm': algorithm or agent, 'task': task or _task(summary)}
    status = summary.get('status') or 'complete'
    diverged = set(phase.get('diverged') or ())
    axis = 'env_steps' if phase.get('num_env_steps') else 'updates'
    curves = {metric: _points(summary, rows, lead, metric, axis) for metric in METRICS}
    found = []
    for seed in summary['seeds']:
        own = 'diverged' if seed in diverged else status
        curve = {metric: points[seed] for metric, points in curves.items() if points.get(seed)}
        scored = curve if own == 'complete' else {}
        ends = {metric: [value for _, value in points[-num_last:]] for metric, points in scored.items()}
        found.append(Result(
            **names, seed=seed, status=own if ends or own != 'complete' else 'not evaluated', curve=curve, axis=axis,
            last={metric: values[-1] for metric, values in ends.items()},
            mean_last={metric: float(np.mean(values)) for metric, values in ends.items()},
            num_last=max((len(values) for values in ends.values()), default=0),
            cost=_cost(summary), data=_data(summary), settings=_settings(summary), run=str(directory),
        ))  # fmt: skip
    return found


def named(agent: str, scheme: str | None) -> str:
    """What tables call an algorithm that nobody named: its agent's name, behind ooo- where that was retrained after exploring."""
    return f'ooo-{agent}' if scheme == 'ooo' else agent


# What changes no score, or is compared elsewhere: the data by their content.
_IDLE = {
    'run': ('seeds', 'seed_group', 'devices', 'hosts', 'checkpoint_seconds', 'memory_limit'),
    'environment': ('workers',),
    'evaluation': ('copies',),
    'dataset': ('path',),
}


def _settings(summary):
    """A digest of a run's config, the same for runs that differ in their seeds, place and machine alone."""
    try:
        table = tomllib.loads(summary.get('config_text') or '')
    except tomllib.TOMLDecodeError:
        return ''
    kept = {
        name: {key: value for key, value in own.items() if key not in _IDLE.get(name, ())} if isinstance(own, dict) else own
        for name, own in table.items() if name not in ('name', 'report')
    }  # fmt: skip
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:16] if kept else ''


def _task(summary):
    name = (summary.get('dataset') or {}).get('name') or summary['environment']
    return name.removesuffix('.hdf5').removesuffix('.npz')


def _points(summary, rows, phase, metric, axis):
    """`{seed: [[x, value], ...]}` of one phase's evaluations."""
    found = series.phase_curves(summary, rows, metric, axis).get(phase)
    if found is None:
        return {}
    x, values = found
    return {
        seed: [[float(at), float(value)] for at, value in zip(x, own, strict=True) if np.isfinite(value)]
        for seed, own in zip(summary['seeds'], values, strict=True)
    }


def _cost(summary):
    times = summary.get('times') or {}
    updates = sum(phase.get('num_updates') or 0 for phase in summary['phases']) * len(summary['seeds'])
    spent = (times.get('train') or 0) + (times.get('collect') or 0)
    return {
        'wall_seconds': summary.get('wall_seconds'),
        'updates_per_second': updates / spent if updates and spent else None,
        'device': (summary.get('versions') or {}).get('device'),
        'seeds': len(summary['seeds']),
    }


def _data(summary):
    dataset = summary.get('dataset') or {}
    return {
        'environment': summary['environment'], 'sha256': dataset.get('sha256'), 'rows': dataset.get('rows'),
        'num_episodes': summary.get('num_episodes'),
    }  # fmt: skip


def write(path, results) -> None:
    """Keeps entries as JSON, from which tables can be made again without the runs."""
    writers.write_json(path, {'version': VERSION, 'results': [dataclasses.asdict(one) for one in results]})


def read(path) -> list[Result]:
    """The entries that `write` kept.

    Raises:
      UsageError: for another file, or one of another version.
    """
    held = writers.read_json(path)
    if held.get('version') != VERSION or not isinstance(held.get('results'), list):
        told = f'results of version {VERSION} are needed; {path} has version {held.get("version")!r}'
        raise UsageError(f'{told}; write them anew from the runs')
    try:
        found = [Result(**one) for one in held['results']]
    except TypeError as error:
        raise UsageError(f'results as `ooorl table` writes them are needed; {path} holds others ({error})') from None
    wrong = next((one for one in found if one.status not in STATUSES), None)
    if wrong is not None:
        raise UsageError(f'results have one of the statuses {", ".join(STATUSES)}; {path} has {wrong.status!r}; restore it')
    return found


def found_under(directory) -> list[Path]:
    """Run directories in a folder: it itself, or all below it that hold a `config.toml`; sorted."""
    directory = Path(directory)
    if (directory / 'config.toml').is_file():
        return [directory]
    return sorted(path.parent for path in directory.rglob('config.toml') if 'checkpoint' not in path.parts)
