"""Every bad input gives one sentence, a `UsageError`, and never anything else."""

import io
import pickle
import zipfile

import h5py
import numpy as np
import pytest

from ooorl import data
from ooorl.errors import UsageError


def columns(rows=60):
    rng = np.random.default_rng(0)
    timeouts = np.zeros(rows, bool)
    timeouts[9::10] = True
    return {
        "observations": rng.normal(size=(rows, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        "rewards": rng.normal(size=rows).astype(np.float32),
        "terminals": np.zeros(rows, bool),
        "timeouts": timeouts,
    }


def write(path, format, arrays, **options):
    if format == "npz":
        np.savez(path, **arrays)
        return
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            file.create_dataset(key, data=value, **options)


def refused(path, match, **arguments):
    with pytest.raises(UsageError, match=match) as caught:
        data.load(path, **arguments)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".") and message.count(";") >= 2, message


def changed(**columns_by_name):
    return {key: value for key, value in (columns() | columns_by_name).items() if value is not None}


def with_entry(name, row, value):
    array = columns()[name].copy()
    array[row] = value
    return {name: array}


WRONG = {
    "no observations": (changed(observations=None), "'observations' is needed; .* has actions, rewards"),
    "no rewards": (changed(rewards=None), "'rewards' is needed"),
    "flat observations": (changed(observations=np.zeros(60, np.float32)), r"shape \(rows, entries\)"),
    "images": (changed(observations=np.zeros((60, 4, 4, 3), np.uint8)), r"shape \(60, 4, 4, 3\)"),
    "discrete actions": (changed(actions=np.zeros(60, np.int64)), r"'actions' of shape \(rows, entries\)"),
    "two rewards a row": (changed(rewards=np.zeros((60, 2), np.float32)), r"'rewards' of shape \(rows,\)"),
    "complex": (changed(rewards=np.zeros(60, complex)), "type complex128"),
    "text": (changed(rewards=np.array([b"a"] * 60)), "type"),
    "row counts": (changed(rewards=np.zeros(59, np.float32)), "observations 60, actions 60, rewards 59"),
    "NaN": (
        changed(**with_entry("observations", [7, 9], np.nan)),
        "2 rows of 'observations'.*first rows: 7, 9",
    ),
    "inf": (changed(**with_entry("rewards", 3, np.inf)), "1 rows of 'rewards'.*first rows: 3"),
    "too large": (changed(rewards=np.full(60, 1e300)), "fit in float32"),
    "action range": (changed(**with_entry("actions", 5, -3.0)), "1 of 60 rows.*size 3.*clip_actions=true"),
    "flags": (changed(terminals=np.full(60, 0.5)), "0 or 1 are needed in 'terminals'"),
    "no ends": (changed(timeouts=np.zeros(60, bool)), "ends of episodes"),
    "no flags at all": (changed(timeouts=None, terminals=None), "ends of episodes"),
    "one row": ({key: value[:1] for key, value in columns().items()}, "At least 2 rows"),
    "no rows": ({key: value[:0] for key, value in columns().items()}, "At least 2 rows"),
    "next shape": (changed(next_observations=np.zeros((60, 4), np.float32)), r"\(60, 4\) beside \(60, 3\)"),
    "next NaN": (changed(next_observations=np.full((60, 3), np.nan)), "60 rows of 'next_observations'"),
}


@pytest.mark.parametrize("format", ["hdf5", "npz"])
@pytest.mark.parametrize("case", WRONG)
def test_wrong_columns(tmp_path, case, format):
    arrays, match = WRONG[case]
    path = tmp_path / f"a.{format}"
    write(path, format, arrays)
    refused(path, match)


def test_discounts_with_gamma_in_them(tmp_path):
    write(tmp_path / "a.npz", "npz", changed(terminals=None, discounts=np.full(60, 0.99)))
    refused(tmp_path / "a.npz", "0 or 1 is needed in 'discounts'.*gamma")


def test_places_that_are_no_file(tmp_path):
    refused(tmp_path / "missing.hdf5", "does not exist")
    refused(tmp_path, "is a directory without")
    refused("/dev/zero", "not a regular file")


def test_files_that_are_no_data(tmp_path):
    for name, content, match in (
        ("empty", b"", "is empty"),
        ("random", np.random.default_rng(0).bytes(5000), "neither"),
        ("page.html", b"<html>Sign in</html>", "neither"),
        ("pickle.pkl", pickle.dumps({"observations": [1.0]}), "neither"),
        ("zip", b"PK\x03\x04" + bytes(200), "cannot be read"),
        ("empty_zip", b"PK\x05\x06" + bytes(18), "has nothing"),
        ("hdf5", b"\x89HDF\r\n\x1a\n" + bytes(300), "cannot be read"),
    ):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, match)
    np.save(tmp_path / "a.npy", np.zeros(3))
    refused(tmp_path / "a.npy", "one npy array")
    refused(tmp_path / "a.npy", "known format", format="csv")


def test_a_named_format_that_is_not_the_files(tmp_path):
    write(tmp_path / "a.npz", "npz", columns())
    write(tmp_path / "a.hdf5", "hdf5", columns())
    refused(tmp_path / "a.npz", "whole HDF5 file", format="d4rl")
    refused(tmp_path / "a.hdf5", "whole npz file", format="npz")
    refused(tmp_path / "a.hdf5", "Episodes from episode_0 on", format="minari")
    refused(tmp_path / "a.hdf5", "observation_keys", observation_keys=("a",))
    refused(tmp_path / "a.hdf5", "'infos/qpos' is needed", infos=("qpos",))


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


def test_pickled_objects_are_never_opened(tmp_path):
    objects = np.empty(60, object)
    objects[:] = Bomb()
    np.savez(tmp_path / "a.npz", **changed(rewards=objects))
    refused(tmp_path / "a.npz", "type object")


def test_claimed_shapes_take_no_memory(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for key, value in columns().items():
            if key != "observations":
                file[key] = value
        file.create_dataset("observations", shape=(10**12, 3), chunks=(1000, 3), dtype="f4")
    refused(tmp_path / "a.hdf5", "claims 12000000000000 bytes")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 3)}
    )
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("observations.npy", header.getvalue() + bytes(100))
        archive.writestr("actions.npy", b"")
        archive.writestr("rewards.npy", b"")
    refused(tmp_path / "a.npz", "claims shape")


def test_columns_never_written_are_not_zeros(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for key, value in changed(observations=None).items():
            file[key] = value
        file.create_dataset("observations", shape=(60, 3), chunks=(10, 3), dtype="f4")
        file["observations"][:20] = 1.0
    refused(tmp_path / "a.hdf5", "lacks 4 of 6 blocks")


def test_columns_in_other_files_are_not_followed(tmp_path):
    write(tmp_path / "other.hdf5", "hdf5", columns())
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for key, value in changed(observations=None).items():
            file[key] = value
        file["observations"] = h5py.ExternalLink("other.hdf5", "/observations")
    refused(tmp_path / "a.hdf5", "links to another place")
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        del file["observations"]
        file.create_group("observations")
    refused(tmp_path / "a.hdf5", "has a group of that name")


def test_minari_episodes_of_the_wrong_lengths(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        group = file.create_group("episode_0")
        for key, length in (("observations", 5), ("actions", 5)):
            group[key] = np.zeros((length, 2), np.float32)
        for key in ("rewards", "terminations", "truncations"):
            group[key] = np.zeros(5)
    refused(tmp_path / "a.hdf5", r"T \+ 1 observations")


def test_minari_episodes_with_a_gap(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for number in (0, 2):
            group = file.create_group(f"episode_{number}")
            group["observations"], group["actions"] = np.zeros((6, 2)), np.zeros((5, 2))
            group["rewards"] = np.arange(5.0)
            group["terminations"] = group["truncations"] = np.arange(5) == 4
    refused(tmp_path / "a.hdf5", "has 2, up to episode_2")


def damaged(content, number, rng):
    """Cut at a random place, or a few bytes changed."""
    content = bytearray(content)
    if number % 3 == 0:
        return content[: rng.integers(len(content))]
    for _ in range(rng.integers(1, 9)):
        content[rng.integers(len(content))] = rng.integers(256)
    return content


@pytest.mark.parametrize("format", ["hdf5", "gzip", "npz"])
def test_damaged_files_give_a_sentence_or_sound_rows(tmp_path, format):
    """600 files. Plain HDF5 has no checksums: changed numbers cannot be told, but stay in range."""
    path, rng = tmp_path / "a", np.random.default_rng(1)
    if format == "npz":
        with open(path, "wb") as file:
            np.savez(file, **columns())
    else:
        write(
            path,
            "hdf5",
            columns(),
            **({"compression": "gzip", "fletcher32": True} if format == "gzip" else {}),
        )
    content, sound = path.read_bytes(), data.load(path).transitions
    outcomes = {"refused": 0, "loaded": 0}
    for number in range(200):
        path.write_bytes(damaged(content, number, rng))
        try:
            found = data.load(path).transitions
        except UsageError:
            outcomes["refused"] += 1
            continue
        outcomes["loaded"] += 1
        assert np.isfinite(found.observation).all() and np.abs(found.action).max() <= 1
        assert found.observation.shape[1:] == (3,) and len(found.reward) <= 60
        if format != "hdf5":
            for ours, expected in zip(found[:-1], sound[:-1], strict=True):
                np.testing.assert_array_equal(ours, expected)
    # An npz file has checksums throughout: Python 3.13 refuses every one of them.
    assert outcomes["refused"] > 0 and (outcomes["loaded"] > 0 or format == "npz"), outcomes
