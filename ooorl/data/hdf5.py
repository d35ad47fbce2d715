"""Reads HDF5 files that may be damaged: whatever goes wrong inside becomes one sentence."""

import contextlib
import math
import os

import h5py
import numpy as np

from ooorl.errors import UsageError

# Deflate cannot shrink data more than 1032 times; below the floor a file may hold fill values only.
_LARGEST_RATIO = 1100
_FLOOR = 1 << 26
SIGNATURE = b"\x89HDF\r\n\x1a\n"


@contextlib.contextmanager
def opened(path):
    """Opens an HDF5 file for reading.

    Raises:
      UsageError: where the file, or anything read from it inside the block, is damaged.
    """
    try:
        with h5py.File(path, "r") as file:
            yield file
    except UsageError:
        raise
    except Exception as error:  # h5py raises almost every built-in exception on damaged files
        raise UsageError(
            f"A whole HDF5 file is needed; {path} cannot be read ({_one_line(error)}); it is damaged or cut"
            " short: fetch it again."
        ) from None


def names(group):
    """What a group holds, for messages and for choosing a format."""
    return sorted(group.keys())


def column(group, key, path, needed=True, given=None):
    """One data set of a group as an array, or None where it is not needed and not there.

    Args:
      group: an open group.
      key: the data set's name in it.
      path: the file, for messages.
      needed: refuse a file without it.
      given: the names in the group where they are known; reading them again is slow.

    Raises:
      UsageError: where it is missing, lies in another file, or claims more than the file can hold.
    """
    given = names(group) if given is None else given
    if key.split("/")[0] not in given or key not in group:
        if not needed:
            return None
        raise UsageError(
            f"'{key}' is needed; {path} has {', '.join(given) or 'nothing'}; rename or add the column."
        )
    if not isinstance(group.get(key, getlink=True), h5py.HardLink):
        raise UsageError(f"'{key}' in the file itself is needed; {path} links to another place; copy it in.")
    item = group[key]
    if not isinstance(item, h5py.Dataset):
        raise UsageError(
            f"'{key}' as one array is needed; {path} has a group of that name; write it as an array."
        )
    if item.is_virtual or item.external:
        raise UsageError(
            f"'{key}' in the file itself is needed; {path} keeps it in another file; copy it in."
        )
    if item.dtype.kind not in "fiub":
        raise UsageError(
            f"Real numbers are needed in '{key}'; {path} has type {item.dtype}; write it as float32."
        )
    if item.shape is None:
        raise UsageError(f"An array is needed in '{key}'; {path} has an empty one; write it again.")
    claimed = math.prod(item.shape) * item.dtype.itemsize
    size = os.path.getsize(path)
    if claimed > max(_FLOOR, _LARGEST_RATIO * size):
        raise UsageError(
            f"A column that fits in its file is needed; '{key}' of {path} claims {claimed} bytes in a file"
            f" of {size}; it is damaged: fetch it again."
        )
    _refuse_missing_blocks(item, key, path)
    return np.asarray(item[()])


def _refuse_missing_blocks(item, key, path):
    """HDF5 reads a block it cannot find as zeros, so a damaged index would give wrong rows in silence."""
    if item.chunks is None:
        needed, found = int(item.size > 0), int(item.id.get_storage_size() > 0)
    else:
        needed = math.prod(-(-size // chunk) for size, chunk in zip(item.shape, item.chunks, strict=True))
        found = item.id.get_num_chunks()
    if found < needed:
        raise UsageError(
            f"A column written in full is needed; '{key}' of {path} lacks {needed - found} of {needed}"
            " blocks; the file is damaged or was never finished: fetch it again."
        )


def _one_line(error):
    return " ".join(str(error).split())[:120] or type(error).__name__
