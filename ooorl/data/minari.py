"""Minari's HDF5 layout, one group an episode, T + 1 observations for T actions; and its data sets by their ids."""

import json
import os
import re

import numpy as np

from ooorl.data import hdf5
from ooorl.data.action_box import box
from ooorl.data.dataset import Columns
from ooorl.errors import UsageError

MAIN_FILE = os.path.join("data", "main_data.hdf5")
_EPISODE = re.compile(r"episode_(\d+)")
_ID = re.compile(r"([\w-]+/)+[\w-]+-v\d+")  # mujoco/hopper/medium-v0


def is_id(text) -> bool:
    """Whether a text looks like the id of a Minari data set, with its namespace."""
    return _ID.fullmatch(os.fspath(text)) is not None


def cached(name) -> str | None:
    """The directory of the data set of this id in Minari's own cache (`MINARI_DATASETS_PATH`); None where it is not there."""
    folder = os.path.join(_root(), name)
    return folder if is_id(name) and os.path.isfile(os.path.join(folder, MAIN_FILE)) else None


def fetched(name) -> str:
    """The same, downloaded by the package `minari` where it is not there yet.

    Raises:
      UsageError: without the package, with `OOORL_OFFLINE`, or where it cannot be had.
    """
    if cached(name) is None:
        if os.environ.get("OOORL_OFFLINE", "") not in ("", "0"):
            raise UsageError(f"Minari's {name} is needed; OOORL_OFFLINE is set and it is not in {_root()}; unset it.")
        try:
            import minari
        except ImportError:
            told = f"it is not in {_root()} and the package minari is not here"
            raise UsageError(f'Minari\'s {name} is needed; {told}; pip install "ooorl[minari]".') from None
        try:
            minari.download_dataset(name)
        except Exception as error:  # whatever its storage, and the network under it, may raise
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise UsageError(f"Minari's {name} is needed; it cannot be downloaded ({reason}); `minari list remote`.") from None
    found = cached(name)
    if found is None:
        raise UsageError(f"Minari's {name} in one HDF5 file is needed; the download has none in {_root()}; read it with minari.")
    return found


def _root():
    return os.environ.get("MINARI_DATASETS_PATH") or os.path.join(os.path.expanduser("~"), ".minari", "datasets")


def is_minari(group_names):
    """Whether the groups of an HDF5 file are named like Minari's episodes."""
    return any(_EPISODE.fullmatch(name) for name in group_names)


def read(path, observation_keys=None) -> Columns:
    """The rows of all episodes, in the order of their numbers.

    An episode whose last row carries no flag was cut by the recording: the cut is no end of the MDP. Only the
    last episode of a file counts as unfinished.

    Args:
      path: the HDF5 file.
      observation_keys: which entries of dict observations to put one behind the other, '/' between levels.

    Raises:
      UsageError: where the file is damaged, or its observations are dicts and no keys are given.
    """
    with hdf5.opened(path) as file:
        episodes = sorted((name for name in hdf5.names(file) if _EPISODE.fullmatch(name)), key=_number)
        parts = [_episode(file[name], path, name, observation_keys) for name in episodes]
    if not parts or [_number(name) for name in episodes] != list(range(len(episodes))):
        given = f"{len(episodes)}, up to {episodes[-1]}" if parts else "none"
        raise UsageError(
            f"Episodes from episode_0 on without gaps are needed; {path} has {given}; it is damaged or not"
            " Minari's: fetch or write it again."
        )
    widths = {part[0].shape[1:] + part[2].shape[1:] for part in parts}
    if len(widths) > 1:
        raise UsageError(f"Episodes of one shape are needed; {path} has {sorted(widths)}; split the file.")
    joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
    observations, following, actions, rewards, terminals, truncations, boundary = joined
    boundary[-1] = terminals[-1] or truncations[-1]
    facts = metadata(path)
    return Columns(
        observations=observations,
        actions=actions,
        rewards=rewards,
        terminals=terminals,
        timeouts=truncations,
        next_observations=following,
        boundary=boundary,
        action_box=_box_of(facts.get("action_space"), path),
    )


def metadata(path):
    """What Minari wrote beside the HDF5 file, or in older versions into it, as a dict; empty where nothing is there.

    Raises:
      UsageError: where it is damaged.
    """
    beside = os.path.join(os.path.dirname(path), "metadata.json")
    try:
        if os.path.isfile(beside):
            with open(beside, encoding="utf-8") as file:
                facts = json.load(file)
        else:
            with hdf5.opened(path) as file:
                facts = {key: str(file.attrs[key]) for key in ("action_space", "env_spec") if key in file.attrs}
        facts = {key: json.loads(value) if isinstance(value, str) and value[:1] == "{" else value for key, value in facts.items()}
    except (ValueError, AttributeError) as error:
        raise UsageError(
            f"Minari's metadata as JSON are needed; {beside} cannot be read ({error}); fetch the data set again, or"
            " remove that file."
        ) from None
    return facts


def environment(path):
    """`(id, keyword settings)` of the environment that was recorded, by the metadata; ('', {}) where they name none."""
    spec = metadata(path).get("env_spec")
    if not isinstance(spec, dict) or not isinstance(spec.get("id"), str):
        return "", {}
    settings = spec.get("kwargs")
    return spec["id"], settings if isinstance(settings, dict) else {}


def _box_of(space, path):
    """The box of an action space in Minari's words; None where it is no box with finite bounds."""
    if not isinstance(space, dict) or space.get("type") != "Box" or not {"low", "high"} <= set(space):
        return None
    try:
        return box(space["low"], space["high"], "Minari's metadata")
    except (TypeError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(
            f"Bounds of actions as numbers are needed; the metadata of {path} have {space['low']!r}; fetch the data set again."
        ) from None


def write(dataset, path):
    """Writes a data set as a Minari directory: one group an episode, and the metadata Minari asks for.

    Where an episode's rows do not follow each other (rows were removed) it was already split, so nothing is
    lost but the unrecorded successor of a last terminal row, for which the stand-in is written.
    """
    transitions = dataset.transitions
    boundary = transitions.extras["boundary"] > 0
    starts = np.concatenate([[0], np.flatnonzero(boundary[:-1]) + 1])
    stops = np.append(starts[1:], len(boundary))
    os.makedirs(os.path.join(path, "data"), exist_ok=True)
    with hdf5.h5py.File(os.path.join(path, MAIN_FILE), "w") as file:
        for number, (start, stop) in enumerate(zip(starts, stops, strict=True)):
            rows = slice(start, stop)
            group = file.create_group(f"episode_{number}")
            group.attrs.update({"id": number, "total_steps": int(stop - start)})
            observation = transitions.observation[rows]
            following = transitions.next_observation[stop - 1 : stop]
            terminated = transitions.discount[rows] == 0
            group.create_dataset("observations", data=np.concatenate([observation, following]))
            group.create_dataset("actions", data=transitions.action[rows])
            group.create_dataset("rewards", data=transitions.reward[rows])
            group.create_dataset("terminations", data=terminated)
            group.create_dataset("truncations", data=boundary[rows] & ~terminated)
        file.attrs.update({"total_episodes": len(starts), "total_steps": len(boundary)})
    with open(os.path.join(path, "data", "metadata.json"), "w") as file:
        json.dump(_metadata(dataset, len(starts)), file, indent=1)


def _metadata(dataset, num_episodes):
    return {
        "dataset_id": f"ooorl/{re.sub('[^A-Za-z0-9_]+', '-', dataset.name).strip('-') or 'data'}-v0",
        "total_episodes": num_episodes,
        "total_steps": dataset.num_rows,
        "data_format": "hdf5",
        "minari_version": "0.5.3",
        "observation_space": _box(dataset.spec.observation_dim, float("inf")),
        "action_space": _box(dataset.spec.action_dim, 1.0),
    }


def _box(size, limit):
    space = {
        "type": "Box",
        "dtype": "float32",
        "shape": [size],
        "low": [-limit] * size,
        "high": [limit] * size,
    }
    return json.dumps(space)


def _number(name):
    return int(_EPISODE.fullmatch(name)[1])


def _episode(group, path, name, observation_keys):
    source = f"{path} {name}"
    given = hdf5.names(group)
    observations = _observations(group, source, path, observation_keys, given)
    actions = hdf5.column(group, "actions", path, given=given)
    rewards, terminals, truncations = (
        hdf5.column(group, key, path, given=given) for key in ("rewards", "terminations", "truncations")
    )
    if actions.ndim != 2 or rewards.ndim != 1:
        raise UsageError(
            f"Vector actions and one reward a step are needed; {source} has shapes {actions.shape} and"
            f" {rewards.shape}; only continuous control is supported."
        )
    if len(observations) != len(rewards) + 1 or not len(rewards) == len(actions) == len(terminals) == len(
        truncations
    ):
        raise UsageError(
            f"T + 1 observations for T steps are needed; {source} has {len(observations)} observations,"
            f" {len(actions)} actions, {len(rewards)} rewards, {len(terminals)} terminations and"
            f" {len(truncations)} truncations; record the episode again."
        )
    last = np.zeros(len(rewards), bool)
    last[-1:] = True
    return observations[:-1], observations[1:], actions, rewards, terminals, truncations, last


def _observations(group, source, path, observation_keys, given):
    item = group.get("observations")
    if not isinstance(item, hdf5.h5py.Group):
        keys, group = ("observations",), group
    elif not observation_keys:
        raise UsageError(
            f"Observations in one array are needed; {source} has a dict of {', '.join(hdf5.names(item))};"
            " name what to put together with observation_keys, of [dataset] in a config or --observation-keys."
        )
    else:
        keys, group, given = tuple(observation_keys), item, None
    parts = [hdf5.column(group, key, path, given=given) for key in keys]
    if any(part.ndim != 2 or len(part) != len(parts[0]) for part in parts):
        raise UsageError(
            f"Flat observations are needed; {source} has shapes {[part.shape for part in parts]}; write one"
            " vector a row."
        )
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
