"""D4RL's HDF5 layout: one flat array a column, episodes one behind the other."""

import numpy as np

from ooorl.data import action_box, hdf5
from ooorl.data.dataset import UNCLEAR_ENDS, Columns

_COLUMNS = ("terminals", "timeouts", "next_observations", "boundary")


def read(path, infos=()) -> Columns:
    """The columns of a D4RL HDF5 file; nothing else in it is read.

    Args:
      path: the file.
      infos: names under `infos/` to read as well, such as qpos and qvel.

    Raises:
      UsageError: where the file is damaged or a needed column is missing.
    """
    with hdf5.opened(path) as file:
        given = hdf5.names(file)
        needed = {
            key: hdf5.column(file, key, path, given=given) for key in ("observations", "actions", "rewards")
        }
        found = {key: hdf5.column(file, key, path, needed=False, given=given) for key in _COLUMNS}
        bounds = [hdf5.column(file, f"action_{side}", path, needed=False, given=given) for side in ("low", "high")]
        wanted = {key: hdf5.column(file, f"infos/{key}", path, given=given) for key in infos}
    unread = tuple(name for name in UNCLEAR_ENDS if name in given)
    return Columns(**needed, **found, infos=wanted, unread=unread, action_box=action_box.in_file(*bounds, path))


def write(dataset, path):
    """Writes D4RL HDF5, with `next_observations` and `boundary` so that reading it loses nothing."""
    with hdf5.h5py.File(path, "w") as file:
        for key, value in as_columns(dataset).items():
            file.create_dataset(key, data=value, compression="gzip", compression_opts=4)
        for key, value in dataset.infos.items():
            file.create_dataset(f"infos/{key}", data=value, compression="gzip", compression_opts=4)


def as_columns(dataset):
    """The columns of D4RL's layout, by name."""
    transitions = dataset.transitions
    boundary = transitions.extras["boundary"] > 0
    terminals = transitions.discount == 0
    return {
        "observations": transitions.observation,
        "actions": transitions.action,
        "rewards": transitions.reward,
        "next_observations": transitions.next_observation,
        "terminals": terminals,
        "timeouts": np.asarray(boundary & ~terminals),
        "boundary": boundary,
        **{f"action_{side}": np.full(dataset.spec.action_dim, bound, np.float32) for side, bound in (("low", -1), ("high", 1))},
    }
