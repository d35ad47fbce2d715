"""Checkpoints: a pytree of arrays and a small JSON object, written atomically, verified when read.

A checkpoint is a directory `checkpoint/<number>/` with orbax's files under `arrays/`, their shapes in `shapes.json`, `meta.json`,
and `manifest.json`, which lists the SHA-256 of every other file. It is built under a temporary name and renamed when whole, so a
directory with a number for a name is complete unless the disk lies; one whose files do not match its manifest is passed over in
favour of the one before.
"""

import hashlib
import itertools
import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np

from ooorl.errors import UsageError

KEEP = 2  # how many checkpoints stay on the disk


def save(directory: Path, number: int, tree, meta: dict) -> Path:
    """Writes checkpoint `number` of arrays `tree` and JSON-able `meta`; older ones beyond the last two are removed.

    Raises:
      UsageError: if it cannot be written (a full disk, say); earlier checkpoints are left as they are.
    """
    directory = Path(directory)
    final, temporary = directory / f'{number:08d}', directory / f'.writing-{os.getpid()}'
    try:
        # A process that was killed while writing leaves its directory; in a container the next has the same number.
        for left in directory.glob('.writing-*'):
            shutil.rmtree(left, ignore_errors=True)
        temporary.mkdir(parents=True)
        arrays = named_leaves(tree)
        _check_room(temporary, arrays)
        _save_arrays(temporary / 'arrays', arrays)
        (temporary / 'shapes.json').write_text(json.dumps({name: array.shape for name, array in arrays.items()}))
        (temporary / 'meta.json').write_text(json.dumps(meta))
        (temporary / 'manifest.json').write_text(json.dumps(_digests(temporary)))
        _sync(temporary)
        if final.exists():
            shutil.rmtree(final)
        os.rename(temporary, final)
        _sync_directory(directory)
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(
            f'a checkpoint needs room in {directory}; writing it failed ({_first_line(error)}); {_fallback(directory)}; '
            'free some space and go on with --resume'
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    # One with a later number was damaged and passed over when the run went on from before it.
    later = [path for path in _numbered(directory) if path.name > final.name]
    for old in later + [path for path in _numbered(directory) if path not in later][:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def restore(directory: Path, template_of) -> tuple[object, dict] | None:
    """The newest checkpoint whose files are all intact: `(tree, meta)`, or None if there is none.

    Args:
      directory: where `save` wrote.
      template_of: `meta -> pytree` of arrays or `jax.ShapeDtypeStruct`s with the structure that was saved.

    Raises:
      UsageError: if a name, a shape or a type in an intact checkpoint differs from the template, which means that it belongs to
        another configuration; the first one is named.
    """
    for path in reversed(_numbered(Path(directory))):
        if not _intact(path):
            continue
        meta = json.loads((path / 'meta.json').read_text())
        return _fill(template_of(meta), _restore_arrays(path / 'arrays'), path), meta
    return None


def newest(directory: Path) -> Path | None:
    """The newest intact checkpoint, for messages."""
    return next((path for path in reversed(_numbered(Path(directory))) if _intact(path)), None)


def named_leaves(tree) -> dict[str, np.ndarray]:
    """Leaves by their path, as numpy arrays on the host."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_name(path, number): np.asarray(jax.device_get(leaf)) for number, (path, leaf) in enumerate(leaves)}


def _name(path, number):
    text = jax.tree_util.keystr(path, simple=True, separator='.')
    return f'{number:05d}.' + ''.join(c if c.isalnum() or c in '._-@' else '_' for c in text)


def _check_room(path, arrays):
    """Refuses to begin on a disk that is too full: orbax, failing half-way, prints a page of messages of its own."""
    needed = sum(array.nbytes for array in arrays.values()) + 1024 * len(arrays) + 2**16
    free = shutil.disk_usage(path).free
    if free < needed:
        raise OSError(f'{needed / 2**20:.1f} MiB needed, {free / 2**20:.1f} free')


def _save_arrays(path, arrays):
    import orbax.checkpoint as ocp

    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        # Orbax keeps no empty arrays, so each leaf travels with one element more.
        checkpointer.save(path.absolute(), {name: _pad(array) for name, array in arrays.items()})


def _restore_arrays(path):
    import orbax.checkpoint as ocp

    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        metadata = checkpointer.metadata(path.absolute()).item_metadata.tree
        as_numpy = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in metadata}
        return checkpointer.restore(path.absolute(), args=ocp.args.PyTreeRestore(restore_args=as_numpy))


def _pad(array):
    return np.concatenate([array.reshape(-1), np.zeros(1, array.dtype)])


def _fill(template, arrays, path):
    paths, structure = jax.tree_util.tree_flatten_with_path(template)
    wanted = {_name(leaf_path, number): leaf for number, (leaf_path, leaf) in enumerate(paths)}
    shapes = _shapes(path, arrays, wanted)
    leaves = []
    for name, held in itertools.zip_longest(wanted, sorted(arrays)):
        needed = 'nothing more' if name is None else _described(name, wanted[name].shape, wanted[name].dtype)
        given = 'nothing more' if held is None else _described(held, shapes[held], arrays[held].dtype)
        if needed != given:
            raise UsageError(
                f'{path} does not fit this run: needed was {needed}; it holds {given}; it was written by another '
                'configuration or version; start anew with another --out'
            )
        leaves.append(np.asarray(arrays[held])[:-1].reshape(wanted[name].shape))
    return jax.tree.unflatten(structure, leaves)


def _shapes(path, arrays, wanted):
    """Shapes of the stored arrays. Checkpoints of earlier days list none: a shape of the right size is then taken for right."""
    listed = path / 'shapes.json'
    if listed.exists():
        return json.loads(listed.read_text())
    sizes = {name: array.size - 1 for name, array in arrays.items()}
    right = {name: leaf.shape for name, leaf in wanted.items() if int(np.prod(leaf.shape)) == sizes.get(name)}
    return {name: right.get(name, (size,)) for name, size in sizes.items()}


def _described(name, shape, dtype):
    return f'{name.partition(".")[2]} {tuple(shape)} of {np.dtype(dtype).name}'


def _numbered(directory):
    if not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if path.name.isdigit())


def _digests(path):
    files = sorted(p for p in path.rglob('*') if p.is_file() and p.name != 'manifest.json')
    return {str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def _intact(path):
    try:
        return json.loads((path / 'manifest.json').read_text()) == _digests(path)
    except (OSError, ValueError):
        return False


def _fallback(directory):
    good = newest(directory)
    return 'there is no earlier one' if good is None else f'{good} is still good'


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
