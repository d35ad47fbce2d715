"""Data made episode by episode, by several processes, in a folder of parts from which an interrupted make goes on.

An episode is a function of its number alone, so the result depends neither on how many processes share the work nor on where
it was interrupted.
"""

import io
import json
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ooorl.errors import UsageError
from ooorl.mapping import num_cores

Columns = dict[str, np.ndarray]
_PLAN = 'plan.json'
_LOOK_SECONDS = 0.5  # between two looks for new parts


def made_in_parts(
    make_episode: Callable[[int], tuple[Columns, dict]],
    num_episodes: int,
    folder: Path,
    plan: Mapping,
    *,
    processes: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> tuple[Columns, list[dict]]:
    """All episodes one behind the other, each kept in `folder` as soon as it is there; those that lie there are not made again.

    Args:
      make_episode: `number -> (columns, facts)`; it is pickled, and must need nothing else.
      num_episodes: how many.
      folder: where parts lie; made where missing, and left in place (`forget` removes it).
      plan: plain data that say what is made; parts of another plan are refused.
      processes: how many share the work; None for one for each core that this process may use.
      advance: called with the number of rows of each part that is made.

    Returns:
      the columns, and the facts of the episodes in order.

    Raises:
      UsageError: where the folder holds parts of something else, or `processes` is less than 1.
    """
    if processes is not None and processes < 1:
        raise UsageError(f'processes must be 1 or more; got {processes}')
    _settle_plan(folder, plan)
    count = advance or (lambda rows: None)
    count = advance or (lambda rows: None)
    missing = [number for number in range(num_episodes) if not _part(folder, number).is_file()]
    num = min(processes or num_cores(), max(len(missing), 1))
    for rows in _made(make_episode, folder, missing, num):
        count(rows)
    columns, facts = zip(*(_read(folder, number) for number in range(num_episodes)), strict=True)
    return {name: np.concatenate([part[name] for part in columns]) for name in columns[0]}, list(facts)


def rows_in(folder: Path, num_episodes: int) -> int:
    """How many rows lie in the finished ones of the first `num_episodes` parts of a folder; 0 where there is none."""
    there = [number for number in range(num_episodes) if _part(folder, number).is_file()]
    return sum(_rows(folder, number) for number in there)


def forget(folder: Path) -> None:
    """Removes the parts."""
    shutil.rmtree(folder)


def _settle_plan(folder, plan):
    text = json.dumps(plan, indent=2, sort_keys=True)
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / _PLAN
    if not kept.is_file():
        _replace(kept, text.encode())
    elif kept.read_text(encoding='utf-8') != text:
        raise UsageError(
            f'parts of the same data set were needed in {folder} to go on; it holds those of another one or of other versions; '
            'remove that folder, or give another --out'
        )


def _made(make_episode, folder, missing, num):
    """Makes the missing parts; yields the rows of each."""
    if num == 1:
        yield from (_make_one(make_episode, folder, number) for number in missing)
        return
    # Fresh processes: a forked one would share locks of threads that it does not have.
    context = multiprocessing.get_context('spawn')
    shares = [missing[first::num] for first in range(num)]
    workers = [context.Process(target=_make_some, args=(make_episode, folder, share), daemon=True) for share in shares]
    try:
        for worker in workers:
            worker.start()
        yield from _arriving(folder, missing, workers)
    finally:
        for worker in workers:
            if worker.pid is not None:
                worker.terminate()  # a part under its own name is whole
                worker.join()


def _arriving(folder, missing, workers):
    """The rows of each part as it appears, until all are there."""
    waited = set(missing)
    while waited:
        multiprocessing.connection.wait([worker.sentinel for worker in workers if worker.is_alive()], timeout=_LOOK_SECONDS)
        ended = [worker.exitcode for worker in workers if worker.exitcode is not None]
        arrived = sorted(number for number in waited if _part(folder, number).is_file())
        yield from (_rows(folder, number) for number in arrived)
        waited -= set(arrived)
        if waited and (any(ended) or len(ended) == len(workers)):
            raise UsageError(
                f'processes that live were needed to make episodes; one ended with status {next(filter(None, ended), 0)}; give '
                f'the same command again, with fewer processes if memory is short: what is done lies in {folder}'
            )


def _make_some(make_episode, folder, numbers):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to act on
    for number in numbers:
        _make_one(make_episode, folder, number)


def _make_one(make_episode, folder, number):
    columns, facts = make_episode(number)
    packed = io.BytesIO()
    np.savez(packed, **columns, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8))
    _replace(_part(folder, number), packed.getvalue())
    return len(columns['terminals'])


def _replace(path, content):
    """A part under its own name is whole."""
    draft = path.with_name(f'{path.name}.{os.getpid()}')
    draft.write_bytes(content)
    draft.replace(path)


def _part(folder, number):
    return folder / f'{number:06d}.npz'


def _rows(folder, number):
    with np.load(_part(folder, number)) as archive:
        return len(archive['terminals'])


def _read(folder, number):
    with np.load(_part(folder, number)) as archive:
        columns = {name: archive[name] for name in archive.files}
    return columns, json.loads(columns.pop('facts').tobytes())
