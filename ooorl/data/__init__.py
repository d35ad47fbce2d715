"""Recorded experience: fetch it, read it, check it, convert it. The only place that imports h5py."""

import difflib
import hashlib
import json
import os

from ooorl import catalogue
from ooorl.data import action_box, arrays, d4rl, fixups, hdf5, lerobot, minari, tabular
from ooorl.data.action_box import Box
from ooorl.data.arrays import from_arrays
from ooorl.data.dataset import Columns, Dataset, assemble
from ooorl.data.refusals import check_spec
from ooorl.errors import UsageError

__all__ = [
    "Box",
    "Columns",
    "Dataset",
    "FORMATS",
    "check_spec",
    "entry",
    "environment_of",
    "from_arrays",
    "load",
    "load_task",
    "read_columns",
]

FORMATS = ("d4rl", "npz", "minari")  # that are written as well as read
_READ = (*FORMATS, "lerobot")


def load(
    path,
    *,
    format=None,
    clip_actions=False,
    action_low=None,
    action_high=None,
    environment_box=None,
    observation_keys=None,
    infos=(),
    terminal_ends_episode=None,
    labeller=None,
) -> Dataset:
    """Reads a data set from a file, whatever of the known formats it is in.

    Args:
      path: a D4RL HDF5 file, an npz file, a Minari HDF5 file, the directory of a Minari or LeRobot data set, or a Minari id
        (`mujoco/hopper/medium-v0`) that is in its cache.
      format: 'd4rl', 'npz', 'minari' or 'lerobot'; None to look at the content, never at the name.
      clip_actions: clip actions that leave their box instead of refusing the file.
      action_low, action_high: the box that actions were recorded in, a number or one for each entry; they are rescaled to
        [-1, 1]. None for the box that the file names.
      environment_box: the `Box` of the environment the data are for, where neither says one.
      observation_keys: for Minari's dict observations and LeRobot's features, the entries to put one behind the other.
      infos: names under `infos/` to read as well, such as 'qpos' and 'qvel'.
      terminal_ends_episode: False where a terminal row is followed by more of its episode; None to find out.
      labeller: what gives rewards to files in OGBench's layout, which hold none: an environment of the task (see
        `ooorl.data.ogbench.Labeller`); None for the one that the file `<path>.json` names.

    Returns:
      a `Dataset`; its notes say what was decided.

    Raises:
      UsageError: where the file cannot be used as it is.
    """
    name = os.path.basename(os.path.normpath(path))
    reading = {"format": format, "observation_keys": observation_keys, "infos": infos}
    path, columns = read_columns(path, labeller=labeller, **reading)
    if columns.rewards is None:
        path, columns = read_columns(path, labeller=_own_labeller(path), **reading)
    return assemble(
        columns,
        source=path,
        name=name,
        sha256=sha256(path),
        clip_actions=clip_actions,
        stated_box=action_box.stated(action_low, action_high),
        environment_box=environment_box,
        terminal_ends_episode=terminal_ends_episode,
    )


def load_task(task_id, path=None, *, infos=(), environment_box=None, labeller=None) -> Dataset:
    """The data of a catalogued task, fetched where needed, with the catalogue's corrections applied.

    Args:
      task_id: an id of the catalogue.
      path: the file, where it is already at hand.
      infos: names under `infos/` to read as well.
      environment_box: as in `load`.
      labeller: as in `load`; None for the task's own.

    Raises:
      UsageError: where the task is unknown, cannot be fetched, or the file is not of its sizes.
    """
    from ooorl.data.pull import pull

    task = entry(task_id)
    if labeller is None and task.file is not None and task.file.endswith(".npz"):
        labeller = _labeller(task.environment)
    named = dict(task.fixups)
    dataset = load(
        pull(task_id) if path is None else path,
        clip_actions="clip_actions" in named,
        terminal_ends_episode=False if "goes_on_after_terminal" in named else None,
        infos=infos,
        environment_box=environment_box,
        labeller=labeller,
    )
    check_spec(dataset, task, task.id)
    return fixups.apply(dataset, task)


def entry(task_id) -> catalogue.Entry:
    """The catalogue's entry of a task.

    Raises:
      UsageError: where there is none.
    """
    try:
        return catalogue.lookup(task_id)
    except KeyError as error:
        raise UsageError(error.args[0]) from None


def environment_of(path):
    """`(id, keyword settings)` of the environment that a file comes from, as far as the file says; else ('', {}).

    Minari's metadata say it, and so does the file `<path>.json` that `make` and `pull` write, as long as it is of this very
    file. An id that would import a module (`module:Id`) is not taken from a file.

    Raises:
      UsageError: where the file is missing, damaged or in no known format.
    """
    path = _file(os.fspath(path))
    if _recognised(path) == "minari":
        name, settings = minari.environment(path)
    else:
        name, settings = _environment_beside(path), {}
    return ("", {}) if ":" in name else (name, settings)


def _own_labeller(path):
    """Of the environment that the file beside a data file names; None where it names none that gives rewards to states."""
    name = _environment_beside(path)
    return _labeller(name) if name and ":" not in name else None


def _labeller(name):
    from ooorl import envs

    made = envs.single(name)
    return made.unwrapped if hasattr(getattr(made, "unwrapped", None), "labelled") else None


def _environment_beside(path):
    try:
        with open(f"{path}.json", encoding="utf-8") as file:
            record = json.load(file)
    except (OSError, ValueError):
        return ""
    if not isinstance(record, dict) or record.get("sha256") != sha256(path):
        return ""
    while isinstance(record.get("made_from"), dict) and isinstance(record["made_from"].get("manifest"), dict):
        record = record["made_from"]["manifest"]  # rows were left out of a file that says it
    task = catalogue.ENTRIES.get(record.get("id"))
    return task.environment if task else str(record.get("environment", ""))


def read_columns(path, *, format=None, observation_keys=None, infos=(), labeller=None):
    """`(file, Columns)`: the file itself, inside a Minari directory too, and what it says, unchecked.

    Raises:
      UsageError: where the file is missing, damaged or in no known format.
    """
    if format is not None and format not in _READ:
        raise UsageError(f"A known format is needed; got {format!r}; write one of {', '.join(_READ)}.")
    path = _file(os.fspath(path))
    found = format or _recognised(path)
    if found not in ("minari", "lerobot") and observation_keys:
        raise UsageError(
            f"observation_keys are for Minari's dict observations and LeRobot's features; {path} is in the {found} format;"
            " leave them out."
        )
    if found == "npz":
        return path, arrays.read(path, infos, labeller)
    if found in ("minari", "lerobot"):
        if infos:
            raise UsageError(f"infos are read from D4RL and npz files only; {path} is in the {found} format; leave them out.")
        return path, {"minari": minari, "lerobot": lerobot}[found].read(path, observation_keys)
    return path, d4rl.read(path, infos)


def sha256(path):
    """The SHA-256 of a file, in hexadecimal; of a directory that `load` reads, of its main file, or all of LeRobot's."""
    path = os.fspath(path) if os.path.isfile(path) else _file(os.fspath(path))
    if lerobot.is_main_file(path):
        return lerobot.digest(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file(path):
    if os.path.isdir(path):
        for main in (minari.MAIN_FILE, lerobot.MAIN_FILE):
            if os.path.isfile(os.path.join(path, main)):
                return os.path.join(path, main)
        raise UsageError(
            f"A data file, or a directory with Minari's {minari.MAIN_FILE} or LeRobot's {lerobot.MAIN_FILE}, is needed; {path} is"
            " a directory without them; give the file."
        )
    if not os.path.exists(path):
        if minari.is_id(path):
            return _of_minari(path)
        near = difflib.get_close_matches(path, catalogue.ENTRIES, n=1, cutoff=0.8)
        meant = f", or did you mean the task {near[0]}?" if near else ", or pull the task by its id."
        raise UsageError(f"A data file is needed; {path} does not exist; check the path{meant}")
    if not os.path.isfile(path):
        raise UsageError(f"A data file is needed; {path} is not a regular file; give the file itself.")
    return path


def _of_minari(name):
    found = minari.cached(name)
    if found is None:
        raise UsageError(
            f"A data file is needed; {name} does not exist, nor is a data set of this id in Minari's cache; check the path, or"
            f" `ooorl data pull {name}`."
        )
    return os.path.join(found, minari.MAIN_FILE)


def _recognised(path):
    if lerobot.is_main_file(path):
        return "lerobot"
    try:
        with open(path, "rb") as file:
            head = file.read(8)
    except OSError as error:
        raise UsageError(
            f"A readable file is needed; {path} gives {error.strerror}; check its permissions."
        ) from None
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "npz"
    # A user block may stand before the HDF5 signature, which h5py then finds.
    if head == hdf5.SIGNATURE or hdf5.h5py.is_hdf5(path):
        with hdf5.opened(path) as file:
            return "minari" if minari.is_minari(hdf5.names(file)) else "d4rl"
    if tabular.is_table(path):
        raise UsageError(
            f"The columns of a log need names; {path} is one; make a data set of it with `ooorl data convert {path} mine.npz"
            " --observations A,B --actions C --reward D --episode E`, --terminal and --timeout where it says these."
        )
    what = "empty" if not head else "one npy array" if head[:6] == b"\x93NUMPY" else "neither"
    raise UsageError(
        f"An HDF5 or npz file is needed; {path} is {what}; convert it to an npz file with arrays"
        " observations, actions, rewards and terminals."
    )
