"""Plain arrays, in memory or in an npz file."""

import math
import zipfile

import numpy as np

from ooorl.data import action_box, ogbench
from ooorl.data.d4rl import as_columns
from ooorl.data.dataset import UNCLEAR_ENDS, Columns, assemble
from ooorl.errors import UsageError

_NAMES = {
    "observations": ("observations", "observation"),
    "actions": ("actions", "action"),
    "rewards": ("rewards", "reward"),
    "terminals": ("terminals", "terminal"),
    "timeouts": ("timeouts", "timeout"),
    "next_observations": ("next_observations", "next_observation"),
    "boundary": ("boundary",),
}
_CONTINUE = ("discounts", "discount", "masks", "mask")
_NEEDED = ("observations", "actions", "rewards")
# Deflate cannot shrink data more than 1032 times.
_LARGEST_RATIO = 1100


def from_arrays(
    arrays, *, name="arrays", clip_actions=False, action_low=None, action_high=None, terminal_ends_episode=None
):
    """A data set from a mapping of arrays, named as in an npz file.

    Args:
      arrays: observations, actions, rewards, and of next_observations, terminals, timeouts, discounts (or
        masks), boundary those there are.
      name: the data set's name.
      clip_actions: clip actions that leave their box instead of refusing them.
      action_low, action_high: the box that actions were recorded in, a number or one for each entry; they are rescaled.
      terminal_ends_episode: False where a terminal row is followed by more of its episode; None to find out.

    Raises:
      UsageError: where the arrays cannot be used.
    """
    columns = _columns(arrays, lambda key: np.asarray(arrays[key]), name)
    return assemble(
        columns,
        source=name,
        name=name,
        clip_actions=clip_actions,
        stated_box=action_box.stated(action_low, action_high),
        terminal_ends_episode=terminal_ends_episode,
    )


def read(path, infos=(), labeller=None) -> Columns:
    """The columns of an npz file; members with other names are not read.

    Args:
      path: the file.
      infos: names under `infos/` (in OGBench's layout: plain names) to read as well.
      labeller: an `ogbench.Labeller`, for files in OGBench's layout.

    Raises:
      UsageError: where the file is damaged, holds pickled objects, or a needed column is missing.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if ogbench.is_layout(members):
                return ogbench.columns(members, lambda key: _member(archive, members[key], path), path, labeller, infos)
            columns = _columns(members, lambda key: _member(archive, members[key], path), path)
            wanted = {key: _info(archive, members, key, path) for key in infos}
    except UsageError:
        raise
    except Exception as error:  # a damaged zip raises struct, zlib, value, OS and other errors
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UsageError(
            f"A whole npz file is needed; {path} cannot be read ({reason}); it is damaged or cut short:"
            " write or fetch it again."
        ) from None
    return columns._replace(infos=wanted)


def write(dataset, path):
    """Writes npz, with `next_observations` and `boundary` so that reading it loses nothing."""
    infos = {f"infos/{key}": value for key, value in dataset.infos.items()}
    with open(path, "wb") as file:
        np.savez_compressed(file, **as_columns(dataset), **infos)


def _columns(given, read_column, source):
    found = {}
    for column, names in _NAMES.items():
        present = [name for name in names if name in given]
        if present:
            found[column] = read_column(present[0])
        elif column in _NEEDED:
            raise UsageError(
                f"'{column}' is needed; {source} has {', '.join(sorted(given)) or 'nothing'}; rename or add"
                " the column."
            )
    goes_on = [name for name in _CONTINUE if name in given]
    if "terminals" not in found and goes_on:
        found["terminals"] = _ended(read_column(goes_on[0]), goes_on[0], source)
    bounds = [read_column(name) if name in given else None for name in ("action_low", "action_high")]
    found["action_box"] = action_box.in_file(*bounds, source)
    return Columns(**found, unread=tuple(name for name in UNCLEAR_ENDS if name in given))


def _ended(discount, name, source):
    discount = np.asarray(discount)
    if discount.dtype.kind not in "fiub" or not np.isin(discount, (0, 1)).all():
        raise UsageError(
            f"0 or 1 is needed in '{name}'; {source} has other values; write 0 where the MDP ended and 1"
            " elsewhere (gamma is the agent's, not the data's)."
        )
    return discount == 0


def _info(archive, members, key, path):
    if f"infos/{key}" not in members:
        raise UsageError(f"'infos/{key}' is needed; {path} has {', '.join(sorted(members))}; do without it.")
    return _member(archive, members[f"infos/{key}"], path)


def _member(archive, info, path):
    """One array of the archive; its header is checked against the archive before any memory is taken."""
    name = info.filename.removesuffix(".npy")
    if info.file_size > _LARGEST_RATIO * info.compress_size + 1024:
        raise UsageError(
            f"A sound npz file is needed; '{name}' of {path} claims {info.file_size} bytes; fetch it again."
        )
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        header = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = header(stream)
    if dtype.hasobject or dtype.kind not in "fiub":
        raise UsageError(
            f"Real numbers are needed in '{name}'; {path} has type {dtype}; write it as float32."
        )
    if math.prod(shape) * dtype.itemsize > info.file_size:
        raise UsageError(
            f"A sound npz file is needed; '{name}' of {path} claims shape {shape} in {info.file_size} bytes;"
            " it is damaged: fetch it again."
        )
    with archive.open(info) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)
