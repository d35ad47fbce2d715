"""Checkpoints: a pytree of arrays and a small JSON object, written while the run goes on, verified when read.

A checkpoint is a directory `checkpoint/<number>/` with orbax's files under `arrays/`, `meta.json`, and `manifest.json`, which
lists the SHA-256 of every other file. It is built under a temporary name and renamed when whole, so a directory with a number for
a name is complete unless the disk lies; one whose files do not match its manifest is passed over in favour of the one before.
Ensembles are stored member by member, however the machine that trains keeps them (`mapping.Stacked`).
Where there are some and none is intact, nothing is restored and nothing overwritten: damaged is not absent.
"""

import itertools
import json
import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np

from ooorl.errors import UsageError
from ooorl.mapping import join_members, num_hosts, on_cpu, split_members
from ooorl.training.intact import digests, newest, numbered, problem

KEEP = 2  # how many checkpoints stay on the disk
LEFTOVERS = '.writing-*'  # what a process that was killed while writing leaves
_ERRORS = (OSError, ValueError, RuntimeError)


class Saver:
    """Writes checkpoints of one run: `save` returns once the arrays are safe from the next round, the disk is written to later.

    Orbax copies what it must from the device, shard by shard, and writes in threads of its own; the manifest and the renaming
    follow when it is done. An error of the writing shows in the next `save` or `wait`.
    """

    def __init__(self, directory: Path):
        """`directory` is that of the checkpoints; the folder around it must exist whenever something is saved."""
        self.directory = Path(directory)
        self._orbax, self._thread, self._written = None, None, None

    def save(self, number: int, tree, meta: dict) -> Path:
        """Begins to write checkpoint `number` of arrays `tree` and JSON-able `meta`; older ones beyond the last two go.

        Raises:
          UsageError: if it, or the one before, cannot be written (a full disk, say); earlier checkpoints are left as they are.
        """
        self.wait()
        final, temporary = self.directory / f'{number:08d}', self.directory / f'.writing-{os.getpid()}'
        try:
            self.directory.mkdir(exist_ok=True)
            remove_leftovers(self.directory)  # in a container the next process may have the same number as a killed one
            temporary.mkdir()
            arrays = _held(split_members(tree, axis=1))
            _check_room(temporary, arrays)
            (temporary / 'meta.json').write_text(json.dumps(meta))
            self._begin(temporary, final, arrays)
        except _ERRORS as error:
            raise self._failed(error) from error
        return final

    def wait(self) -> None:
        """Returns when whatever was begun is on the disk.

        Raises:
          UsageError: if it could not be written.
        """
        written, self._written = self._written, None
        try:
            if written is not None:
                written.result()
        except _ERRORS as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Waits for the threads that write and ends them; errors are those of `wait`."""
        try:
            self.wait()
        finally:
            if self._orbax is not None:
                self._thread.shutdown()
                self._orbax.close()
                self._orbax = None

    def _begin(self, temporary, final, arrays):
        import orbax.checkpoint as ocp

        if self._orbax is None:
            logging.getLogger('absl').addFilter(_not_from_orbax)
            self._orbax = ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler(**_alone(ocp)), **_alone(ocp))
            self._thread = ThreadPoolExecutor(1, 'checkpoint')
        self._orbax.save((temporary / 'arrays').absolute(), arrays or {'': np.zeros(1)})  # orbax refuses an empty tree
        self._written = self._thread.submit(self._complete, temporary, final)

    def _complete(self, temporary, final):
        self._orbax.wait_until_finished()
        _seal(temporary, final)

    def _failed(self, error):
        remove_leftovers(self.directory)
        good = newest(self.directory)
        fallback = 'there is no earlier one' if good is None else f'{good} is still good'
        return UsageError(
            f'a checkpoint needs room in {self.directory}; writing it failed ({_first_line(error)}); {fallback}; '
            'free some space and go on with --resume'
        )


def _not_from_orbax(record):
    """Orbax prints a traceback of what it raises as well."""
    return 'orbax' not in record.pathname


def save(directory: Path, number: int, tree, meta: dict) -> Path:
    """Writes one checkpoint and returns when it is on the disk; see `Saver.save`."""
    saver = Saver(directory)
    try:
        return saver.save(number, tree, meta)
    finally:
        saver.close()


def restore(directory: Path, template_of) -> tuple[object, dict] | None:
    """The newest checkpoint whose files are all intact: `(tree, meta)`, or None if none was ever written.

    Args:
      directory: where it was saved.
      template_of: `meta -> pytree` with the structure that was saved. A leaf that is a `jax.ShapeDtypeStruct` comes back on the
        accelerator where there is one, others as numpy arrays; only its shape and type count.

    Raises:
      UsageError: if there are checkpoints and none is intact, or if a name, a shape or a type in an intact one differs from the
        template, which means that it belongs to another configuration; the first one is named.
    """
    for _ in range(10):  # a run that is still going removes the oldest while somebody else reads it
        found = newest(directory)
        if found is None:
            return _refuse_damaged(Path(directory))
        try:
            meta = json.loads((found / 'meta.json').read_text())
            template = template_of(meta)
            return join_members(template, _fill(split_members(template, axis=1), found), axis=1), meta
        except (LookupError, TypeError) as error:  # a sound file that says other things than this version asks for
            raise UsageError(
                f'a checkpoint of this version was needed; meta.json of {found} does not say where the run stood '
                f'({type(error).__name__}: {error}); start anew with another --out'
            ) from error
        except _ERRORS:
            if problem(found) is None:
                raise
    raise UsageError(f'a checkpoint that stays was needed; those of {directory} went while they were read; try again')


def read_arrays(directory: Path, wanted) -> tuple[dict[str, np.ndarray], dict] | None:
    """Some arrays of the newest intact checkpoint, and its `meta`, without knowing the whole; None if none was ever written.

    Args:
      directory: where it was saved.
      wanted: whether to read the array at a place in the tree, such as '2.online.size'.

    Returns:
      numpy arrays by place, and `meta`.

    Raises:
      UsageError: if there are checkpoints and none is intact.
    """
    import orbax.checkpoint as ocp

    found = newest(directory)
    if found is None:
        return _refuse_damaged(Path(directory))
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**_alone(ocp)), **_alone(ocp)) as checkpointer:
        held = checkpointer.metadata((found / 'arrays').absolute()).item_metadata.tree
        names = {name: name.partition('.')[2] for name in held if name and wanted(name.partition('.')[2])}
        args = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
        some = ocp.args.PyTreeRestore(item=dict.fromkeys(names, 0), restore_args=args, partial_restore=True)
        arrays = checkpointer.restore((found / 'arrays').absolute(), args=some) if names else {}
    return {place: arrays[name] for name, place in names.items()}, json.loads((found / 'meta.json').read_text())


def remove_leftovers(directory: Path) -> None:
    """Removes what killed processes left half-written."""
    for left in Path(directory).glob(LEFTOVERS):
        shutil.rmtree(left, ignore_errors=True)


def _refuse_damaged(directory):
    if directory.exists() and not directory.is_dir():
        raise UsageError(f'checkpoints were needed; {directory} is no folder; put it back or start anew with another --out')
    damaged = [f'{path.name}: {problem(path)}' for path in numbered(directory)]
    if damaged:
        raise UsageError(
            f'an intact checkpoint was needed; all in {directory} are damaged ({"; ".join(damaged)}); everything was left as it '
            'is; restore these files or start anew with another --out'
        )
    return None


def _name(path, number):
    return f'{number:05d}.{place_of(path)}'


def place_of(path) -> str:
    """What the array at a path of a pytree is called (`read_arrays`)."""
    text = jax.tree_util.keystr(path, simple=True, separator='.')
    return ''.join(c if c.isalnum() or c in '._-@' else '_' for c in text)


def _named(tree):
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    return {_name(path, number): leaf for number, (path, leaf) in enumerate(leaves)}, structure


def _held(tree):
    """What is stored: leaves by name, without empty ones, which orbax does not keep.

    What the host may change is copied, and what several hosts have each as a whole.
    """
    leaves, _ = _named(tree)
    safe = (jax.Array,) if num_hosts() == 1 else ()
    return {name: leaf if isinstance(leaf, safe) else np.array(leaf) for name, leaf in leaves.items() if np.size(leaf)}


def _alone(ocp):
    """Settings of orbax where there are several hosts, of which one writes and each reads for itself."""
    if num_hosts() == 1:
        return {}
    number = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=number, active_processes={number}, barrier_sync_key_prefix=f'host{number}'
    )
    return {'multiprocessing_options': options}


def _check_room(path, arrays):
    """Refuses to begin on a disk that is too full: orbax, failing half-way, prints a page of messages of its own."""
    needed = sum(array.nbytes for array in arrays.values()) + 1024 * len(arrays) + 2**16
    free = shutil.disk_usage(path).free
    if free < needed:
        raise OSError(f'{needed / 2**20:.1f} MiB needed, {free / 2**20:.1f} free')


def _seal(temporary, final):
    """Seals a checkpoint whose files are all there: manifest, disk, name; then the ones that it replaces go."""
    (temporary / 'manifest.json').write_text(json.dumps(digests(temporary)))
    _sync(temporary)
    if final.exists():
        shutil.rmtree(final)
    os.rename(temporary, final)
    _sync_directory(final.parent)
    # One with a later number was damaged and passed over when the run went on from before it.
    later = [path for path in numbered(final.parent) if path.name > final.name]
    for old in later + [path for path in numbered(final.parent) if path not in later][:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)


def _fill(template, path):
    """The stored arrays in the template's structure; its empty leaves come from itself."""
    import orbax.checkpoint as ocp

    wanted, structure = _named(template)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**_alone(ocp)), **_alone(ocp)) as checkpointer:
        held = checkpointer.metadata((path / 'arrays').absolute()).item_metadata.tree
        _compare({name: leaf for name, leaf in wanted.items() if np.prod(leaf.shape)}, held, path)
        args = {name: _restored_as(ocp, wanted.get(name)) for name in held}
        arrays = checkpointer.restore((path / 'arrays').absolute(), args=ocp.args.PyTreeRestore(restore_args=args))
    leaves = [arrays[name] if name in arrays else np.zeros(leaf.shape, leaf.dtype) for name, leaf in wanted.items()]
    return jax.tree.unflatten(structure, leaves)


def _restored_as(ocp, leaf):
    # Elsewhere the first program that uses an array puts it there, or shares it out: one bound to a device wants other programs.
    if isinstance(leaf, jax.ShapeDtypeStruct) and jax.device_count() == 1 and not on_cpu():
        return ocp.ArrayRestoreArgs(sharding=jax.sharding.SingleDeviceSharding(jax.local_devices()[0]))
    return ocp.RestoreArgs(restore_type=np.ndarray)


def _compare(wanted, held, path):
    held = {name: leaf for name, leaf in held.items() if name}
    for name, other in itertools.zip_longest(wanted, sorted(held)):
        needed = 'nothing more' if name is None else _described(name, wanted[name])
        given = 'nothing more' if other is None else _described(other, held[other])
        if needed != given:
            raise UsageError(
                f'{path} does not fit this run: needed was {needed}; it holds {given}; it was written by another '
                'configuration or version; start anew with another --out'
            )


def _described(name, leaf):
    return f'{name.partition(".")[2]} {tuple(leaf.shape)} of {np.dtype(leaf.dtype).name}'


def _first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def _sync(path):
    for file in path.rglob('*'):
        if file.is_file():
            with open(file, 'rb') as handle:
                os.fsync(handle.fileno())


def _sync_directory(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
