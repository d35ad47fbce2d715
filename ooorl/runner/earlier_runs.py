"""What a run has collected, for others to train on: its stores as they are, or as rows of a data set.

A text names them as `RUN_DIR` or `RUN_DIR:store`; the store is `online` where none is named. Rows are raw and their actions lie
in [-1, 1] already, so they may be used only where the same box of actions is meant.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from ooorl import data
from ooorl.data import action_box
from ooorl.errors import UsageError
from ooorl.runner import belonging, memory, run_directory
from ooorl.runner.seed_list import parse_seeds
from ooorl.training import checkpoint
from ooorl.training.phases import Collected
from ooorl.training.replay import ReplayState
from ooorl.types import Spec, Transition

ONLINE = 'online'
_STORES = 2  # the place of the stores among the arrays of a checkpoint
_FIELDS = Transition._fields[:-1]


def seeds_of(text: str, purpose: str = '--store') -> str:
    """The seeds of the run that a text names, as its config writes them."""
    return run_directory.read_config(run_directory.named(text)[0], purpose)['run']['seeds']


def load(text: str, seeds: Sequence[int] | None, purpose: str) -> tuple[Collected, dict, str]:
    """The store that a text names, of the given seeds (None: all), the config of its run, and one line about it.

    Raises:
      UsageError: where there is no such run, checkpoint, store or seed, or one of the seeds diverged while it was collected.
    """
    directory, name = run_directory.named(text)
    settings = run_directory.read_config(directory, purpose)
    name = name or ONLINE
    if 'steered' in settings:
        raise UsageError(f'{purpose} needs rows of actions; those of {directory} hold noise (its table [steered]); name another')
    found = checkpoint.read_arrays(directory / 'checkpoint', lambda place: place.startswith(f'{_STORES}.'))
    if found is None:
        raise UsageError(f'{purpose} needs a run with a checkpoint; {directory} has none yet; let it get further')
    arrays, meta = found
    stores = sorted({place.split('.')[1] for place in arrays})
    if name not in stores:
        held = f'stores {", ".join(stores)}' if stores else 'no store, since it collected nothing'
        raise UsageError(f'{purpose} needs a store that the run filled; {directory} holds {held}; got {name!r}')
    chosen = _positions(parse_seeds(settings['run']['seeds']), seeds, directory, purpose)
    lost = [seed for phase, seeds in meta.get('diverged', {}).items() if _fills(phase, name) for seed in seeds]
    _refuse_diverged(lost, chosen, parse_seeds(settings['run']['seeds']), directory, purpose)
    rows = _rows({place.split('.', 2)[2]: array for place, array in arrays.items() if place.split('.')[1] == name}, chosen)
    streams = settings['environment']['num_envs']
    collected = Collected(rows, streams, _longest(rows, streams))
    line = f'{collected.num_rows:,} rows a seed of {directory}:{name}, {len(chosen)} seeds, rows {_digest(rows)[:12]}'
    return collected, settings, line


def _positions(stored, seeds, directory, purpose):
    wanted = stored if seeds is None else seeds
    missing = [seed for seed in wanted if seed not in stored]
    if missing:
        raise UsageError(
            f'{purpose} needs seeds that {directory} was run with, {stored[0]} to {stored[-1]}; got {missing[0]}; give others '
            'with --seeds'
        )
    return [stored.index(seed) for seed in wanted]


def _fills(phase, store):
    """Whether a phase of that name may have collected into the store: retraining never does."""
    return phase.startswith('plain-') == (store == 'plain') and not phase.removeprefix('plain-').startswith('retrain')


def _refuse_diverged(diverged, chosen, stored, directory, purpose):
    lost = [stored[number] for number in chosen if stored[number] in diverged]
    if lost:
        raise UsageError(
            f'{purpose} needs finite rows; seed {lost[0]} of {directory} diverged; choose others of its seeds with --seeds'
        )


def _rows(arrays, chosen):
    memory.check([memory.Part(sum(array.nbytes for array in arrays.values()), 'the rows of the store', 'the seeds')])
    picked = {place: jnp.asarray(array[np.asarray(chosen)]) for place, array in arrays.items()}
    extras = {place.partition('.extras.')[2]: value for place, value in picked.items() if '.extras.' in place}
    storage = Transition(**{name: picked[f'storage.{name}'] for name in _FIELDS}, extras=extras)
    size = np.asarray(picked['size'])
    if not (size == size[0]).all() or size[0] < 1:
        raise UsageError(f'a store with rows for every seed was needed; this one holds {size.tolist()}; let its run get further')
    whole = jax.tree.map(lambda leaf: leaf[:, : size[0]], storage)
    return ReplayState(whole, jnp.zeros_like(picked['cursor']), picked['size'])


def _longest(rows, streams):
    """Steps of the longest episode, finished or not."""
    boundary = np.asarray(rows.storage.extras['boundary'])
    ends = boundary[:, : boundary.shape[1] // streams * streams].reshape(len(boundary), -1, streams) > 0
    steps = np.broadcast_to(np.arange(ends.shape[1])[None, :, None], ends.shape)
    before = np.maximum.accumulate(np.where(ends, steps, -1), axis=1)
    begins = np.concatenate([np.full_like(before[:, :1], -1), before[:, :-1]], axis=1)
    return max(1, int((steps - begins).max()))


def _digest(rows):
    leaves = (np.ascontiguousarray(leaf) for leaf in jax.tree.leaves(rows.storage))
    return hashlib.sha256(b''.join(leaf.tobytes() for leaf in leaves)).hexdigest()


def stores(settings: Mapping, seeds: Sequence[int]) -> tuple[dict[str, Collected], tuple[str, ...]]:
    """The stores of a config's `run.store`, compared with its environment, and lines about them; nothing where it names none.

    Raises:
      UsageError: where the store cannot be used, or was collected in another environment, with other sizes or another box.
    """
    text = settings['run']['store']
    if not text:
        return {}, ()
    found, own, line = load(text, seeds, 'run.store')
    with belonging.opened(settings) as place:
        differing = _belongs(own, place, text)
        first = replace(as_dataset(found, text, seeds=(0,)), notes=())
        checked = belonging.compared(first, place, settings['dataset']['replay'])
    return {ONLINE: found}, (line, *differing, *checked.notes)


def dataset(text: str, table: Mapping, place: 'belonging.Place | None') -> 'data.Dataset':
    """Everything that a run collected into a store, all its seeds, as a data set; its own data set is not part of it.

    Args:
      text: names the run, and its store.
      table: the resolved `[dataset]` table.
      place: the environment that the rows are for.

    Raises:
      UsageError: as `stores`, or where the table says how actions are to be rescaled, which they have been.
    """
    if any(table.get(key) is not None for key in ('action_low', 'action_high')):
        raise UsageError(f'action_low and action_high are for files; the actions of run {text} lie in [-1, 1]; remove the keys')
    found, own, line = load(text, None, 'dataset.path')
    return as_dataset(found, text, notes=(line, *_belongs(own, place, text)))


def as_dataset(found: Collected, name: str, *, seeds: Sequence[int] | None = None, notes: Sequence[str] = ()) -> 'data.Dataset':
    """Rows of a store in the order they were lived, one environment after another, seed by seed.

    The newest row of each environment ends its episode as a time-out does: what would have followed is not known.
    """
    chosen = np.arange(found.rows.size.shape[0]) if seeds is None else np.asarray(seeds)
    steps = found.num_rows // found.streams

    def lived(leaf):
        leaf = np.asarray(leaf)[chosen][:, : steps * found.streams]
        return np.moveaxis(leaf.reshape(len(chosen), steps, found.streams, *leaf.shape[2:]), 2, 1)

    shaped = jax.tree.map(lived, found.rows.storage)
    boundary = shaped.extras['boundary'].copy()
    cut = int((boundary[:, :, -1] == 0).sum())
    boundary[:, :, -1] = 1.0
    shaped = shaped._replace(extras={'boundary': boundary})
    rows = jax.tree.map(lambda leaf: np.ascontiguousarray(leaf.reshape(-1, *leaf.shape[3:]), np.float32), shaped)
    notes = (*notes, *([f'{cut} episodes that were under way end as time-outs'] if cut else []))
    return data.Dataset(transitions=rows, name=name, sha256=_digest(ReplayState(rows, None, None)), notes=notes)


def _belongs(own, place, text):
    """Refuses rows of another environment, or of the same with another box of actions; a line about settings that differ."""
    if place is None:
        return ()
    if own['environment']['id'] != place.name:
        given = own['environment']['id']
        raise UsageError(f'rows of {place.name} were needed; {text} was collected in {given}; name a run of this environment')
    with belonging.opened(own) as other:
        if not action_box.same(other.action_box, place.action_box):
            raise UsageError(
                f'actions in {action_box.shown(place.action_box)}, the box of {place.name} with these settings, were needed; '
                f'those of {text} were made in {action_box.shown(other.action_box)}; collect anew'
            )
        return _differing(other.settings, place.settings, text)


def _differing(theirs, ours, text):
    """A warning where rows were collected with other settings of their environment: its time limit, or how it moves and pays."""
    told = [
        f'{key} = {theirs.get(key, "its default")} there and {ours.get(key, "its default")} here'
        for key in sorted({*theirs, *ours})
        if _plain(theirs.get(key)) != _plain(ours.get(key))
    ]
    return (f'warning: {text} was collected with other settings of its environment: {", ".join(told)}',) if told else ()


def _plain(value):
    return list(value) if isinstance(value, tuple) else value


def spec_of(found: Collected) -> Spec:
    """Sizes of a store's observations and actions."""
    storage = found.rows.storage
    return Spec(observation_dim=storage.observation.shape[-1], action_dim=storage.action.shape[-1])
