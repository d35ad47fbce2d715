"""LeRobot's folders, versions 2.0 and 2.1: a Parquet file an episode, described by `meta/info.json` and `meta/episodes.jsonl`.

    meta/info.json        codebase_version, data_path, chunks_size, total_episodes, total_frames, features: name -> {dtype, shape}
    meta/episodes.jsonl   {"episode_index": 0, "tasks": [...], "length": 300} a line
    data/chunk-000/episode_000000.parquet

Source: the LeRobotDataset format as published folders state it (github.com/huggingface/lerobot). Version 3 keeps
several episodes in a file and is another format. The package `lerobot` is not needed, pyarrow is.
"""

import hashlib
import json
import os

import numpy as np

from ooorl.data import action_box
from ooorl.data.dataset import Columns
from ooorl.errors import UsageError

MAIN_FILE = os.path.join("meta", "info.json")
VERSIONS = ("v2.0", "v2.1")
OBSERVATIONS = ("observation.state", "observation.environment_state")
_PICTURES = ("video", "image")


def is_main_file(path) -> bool:
    """Whether a path is that of such a folder's main file."""
    return os.fspath(path).endswith(MAIN_FILE)


def read(path, observation_keys=None) -> Columns:
    """The rows of all episodes, in the order of their numbers.

    The last row of an episode has no successor. `next.done` says that an episode ended and not why: a done row is terminal where
    `next.success` says so too, else cut off. Rewards are `next.reward`, else `next.success` as 0 or 1, else 0 everywhere.

    Args:
      path: `meta/info.json` of the folder.
      observation_keys: features to put one behind the other; none: the states (`OBSERVATIONS`) that are there.

    Raises:
      UsageError: where the folder is of another version, lacks files, holds no vectors to observe, or its files disagree.
    """
    info = _info(path)
    features = info["features"]
    keys = _observed(features, observation_keys, path)
    wanted = (*keys, *(name for name in ("action", "next.reward", "next.done", "next.success") if name in features))
    if "action" not in wanted:
        raise UsageError(f"'action' is needed; {path} has {', '.join(features)}; use a data set with actions.")
    parts = [_episode(info, number, length, wanted, path) for number, length in _episodes(info, path).items()]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in wanted}
    last = np.zeros(len(joined["action"]), bool)
    last[np.cumsum([len(part["action"]) for part in parts]) - 1] = True
    if len(last) != info.get("total_frames", len(last)):
        raise UsageError(f"{info['total_frames']} rows are needed; the files of {path} hold {len(last)}; fetch them again.")
    rewards, told = _rewards(joined, len(last))
    terminals, how = _terminals(joined)
    notes = [*told, *how, *_not_read(features, wanted)]
    return Columns(
        observations=np.concatenate([joined[key] for key in keys], axis=-1),
        actions=joined["action"],
        rewards=rewards,
        terminals=terminals,
        timeouts=(last | _flags(joined, "next.done", last)) & ~terminals,
        action_box=_box(joined["action"]),
        notes=tuple(notes),
    )


def digest(path) -> str:
    """The SHA-256 of the folder's main file, its list of episodes and their files, one after another."""
    info, whole = _info(path), hashlib.sha256()
    files = [path, _listed(path), *(_file(info, number, path) for number in _episodes(info, path))]
    for name in files:
        with _opened(name, "rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def _info(path):
    with _opened(path) as file:
        try:
            info = json.load(file)
            version, features, _ = info["codebase_version"], info["features"], info["data_path"]
        except (ValueError, TypeError, LookupError) as error:
            raise UsageError(
                f"LeRobot's meta/info.json with codebase_version, data_path and features is needed; {path} is none "
                f"({type(error).__name__}: {error}); fetch it again."
            ) from None
    if version not in VERSIONS:
        known = " or ".join(VERSIONS)
        raise UsageError(f"A LeRobot folder of version {known} is needed; {path} is {version}; use a copy of these.")
    if not isinstance(features, dict) or not all(isinstance(own, dict) for own in features.values()):
        raise UsageError(f"A table of features is needed; {path} has none; fetch it again.")
    return info


def _opened(path, mode="r"):
    try:
        return open(path, mode, encoding=None if "b" in mode else "utf-8")
    except OSError as error:
        raise UsageError(f"A whole LeRobot folder is needed; {path}: {error.strerror}; fetch it again.") from None


def _listed(path):
    return os.path.join(os.path.dirname(path), "episodes.jsonl")


def _episodes(info, path):
    """Number -> rows that the episode is said to have, in order; those of none are left out."""
    try:
        with _opened(_listed(path)) as file:
            listed = [json.loads(line) for line in file if line.strip()]
        lengths = {int(one["episode_index"]): int(one["length"]) for one in listed}
    except (ValueError, TypeError, LookupError):
        raise UsageError(f"Lines with episode_index and length are needed; {_listed(path)} has others; fetch it again.") from None
    if not lengths or len(lengths) != info.get("total_episodes", len(lengths)):
        told = info.get("total_episodes", "some")
        raise UsageError(f"{told} episodes are needed; {_listed(path)} lists {len(lengths)}; fetch it again.")
    if not any(lengths.values()):
        raise UsageError(f"Episodes with rows are needed; {_listed(path)} lists none; fetch it again.")
    return {number: length for number, length in sorted(lengths.items()) if length}


def _file(info, number, path):
    try:
        inside = info["data_path"].format(episode_chunk=number // int(info.get("chunks_size", 1000)), episode_index=number)
    except (AttributeError, LookupError, TypeError, ValueError, ZeroDivisionError):
        raise UsageError(f"A data_path for episode_chunk and episode_index is needed; {path} has another; mend it.") from None
    if os.path.isabs(inside) or ".." in inside.split("/"):
        raise UsageError(f"A data_path inside of the folder is needed; {path} has {inside}; mend it.")
    return os.path.join(os.path.dirname(os.path.dirname(path)), inside)


def _episode(info, number, length, wanted, path):
    """The wanted columns of an episode: vectors `[T, n]`, scalars `[T]`."""
    name = _file(info, number, path)
    table = _table(name, wanted)
    if table.num_rows != length:
        raise UsageError(f"{length} rows are needed; {name} has {table.num_rows}; it is not that of {_listed(path)}.")
    return {key: _array(table[key], key, info["features"][key], name) for key in wanted}


def _table(name, wanted):
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UsageError('LeRobot\'s folders need the package pyarrow; it is not here; pip install "ooorl[parquet]".') from None
    with _opened(name, "rb"):
        pass
    try:
        table = parquet.read_table(name, columns=list(wanted))
    except (OSError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())[:120]
        raise UsageError(f"A Parquet file is needed; {name} cannot be read as one ({reason}); fetch it again.") from None
    missing = [key for key in wanted if key not in table.column_names]
    if missing:
        raise UsageError(f"Column {missing[0]!r} is needed; {name} has {', '.join(table.column_names)}; fetch it again.")
    return table


def _array(column, key, feature, name):
    """Vectors are lists of the feature's width; a feature of shape [1] may also be a column of numbers."""
    shape = [int(size) for size in feature.get("shape", [1])]
    width = int(np.prod(shape))
    whole = column.combine_chunks()
    if hasattr(whole, "flatten") and str(whole.type).startswith(("list", "fixed_size_list", "large_list")):
        whole = whole.flatten()
    values = np.asarray(whole.to_numpy(zero_copy_only=False))
    if len(shape) > 1 or values.dtype.kind not in "fiub" or values.size != len(column) * width or whole.null_count:
        raise UsageError(f"{width} numbers a row are needed in {key!r}; {name} has others; leave it out or fetch it again.")
    return values.reshape(len(column), width) if key.startswith(("observation", "action")) else values.reshape(-1)


def _observed(features, keys, path):
    vectors = [name for name in features if name.startswith("observation") and features[name].get("dtype") not in _PICTURES]
    chosen = list(keys or (name for name in OBSERVATIONS if name in vectors))
    wrong = [name for name in chosen if name not in vectors]
    if wrong or not chosen:
        given = f"{wrong[0]!r} is none of them" if wrong else "there is no observation.state"
        offered = ", ".join(vectors) or "none, only " + (", ".join(_pictures(features)) or "other features")
        raise UsageError(f"Vectors to observe are needed; {given} in {path}, which has {offered}; name some as observation_keys.")
    return chosen


def _pictures(features):
    return [name for name, own in features.items() if own.get("dtype") in _PICTURES]


def _flags(joined, name, like):
    return np.asarray(joined[name]) != 0 if name in joined else np.zeros(len(like), bool)


def _rewards(joined, num):
    if "next.reward" in joined:
        return joined["next.reward"].astype(np.float32), []
    if "next.success" in joined:
        return (joined["next.success"] != 0).astype(np.float32), ["rewards are next.success, 1 where it is true"]
    return np.zeros(num, np.float32), ["there are no rewards: 0 everywhere, which will do for cloning (bc) and for nothing else"]


def _terminals(joined):
    done = _flags(joined, "next.done", joined["action"])
    if "next.success" in joined:
        return done & _flags(joined, "next.success", done), []
    told = "next.done does not say why an episode ended: its rows count as cut off, none as terminal"
    return np.zeros(len(done), bool), [told] if done.any() else []


def _not_read(features, wanted):
    pictures = _pictures(features)
    others = [name for name in features if name.startswith("observation") and name not in (*wanted, *pictures)]
    told = [f"pictures are not read: {', '.join(pictures)}"] if pictures else []
    return [*told, *([f"not read: {', '.join(others)}; observation_keys names what is"] if others else [])]


def _box(actions):
    """Robots have units of their own and the folder names no box: where actions leave [-1, 1], the range that they span."""
    low, high = actions.min(axis=0).astype(np.float64), actions.max(axis=0).astype(np.float64)
    if not np.isfinite(actions).all() or max(high.max(), -low.min()) <= 1.0:
        return None
    still = low == high
    return action_box.box(low - still, high + still, "the range of its own actions")
