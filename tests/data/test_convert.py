"""Conversion there and back, and what the linter says."""

import json
import os

import numpy as np
import pytest

from ooorl import data
from ooorl.data import check as linter
from ooorl.data.convert import convert
from ooorl.errors import UsageError

TARGETS = {"d4rl": "b.hdf5", "npz": "b.npz", "minari": "b"}


def columns(rows=40, **changes):
    rng = np.random.default_rng(0)
    result = {
        "observations": rng.normal(size=(rows, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        "rewards": rng.normal(size=rows).astype(np.float32),
        "terminals": np.zeros(rows, bool),
        "timeouts": np.zeros(rows, bool),
    }
    result["timeouts"][[9, 25]] = True
    result["terminals"][[17, 33]] = True
    return result | changes


def save(path, arrays):
    np.savez(path, **arrays)
    return path


def assert_same(one, two):
    for ours, expected in zip(one.transitions[:-1], two.transitions[:-1], strict=True):
        np.testing.assert_array_equal(ours, expected)
    np.testing.assert_array_equal(one.transitions.extras["boundary"], two.transitions.extras["boundary"])


@pytest.mark.parametrize("format", TARGETS)
@pytest.mark.parametrize("kind", ["d4rl rows", "goes on after terminals", "ends with an end"])
def test_there_and_back_loses_nothing(tmp_path, format, kind):
    arrays = columns()
    if kind == "goes on after terminals":
        arrays["timeouts"][:] = False
        arrays["timeouts"][9::10] = True
    elif kind == "ends with an end":
        arrays["terminals"][-1] = True
    original = data.load(save(tmp_path / "a.npz", arrays))
    target = tmp_path / TARGETS[format]
    sentence = convert(tmp_path / "a.npz", target)
    assert f"format {format}" in sentence and f"{original.num_rows} rows" in sentence
    assert_same(data.load(target), original)
    convert(target, tmp_path / "again.npz")
    assert_same(data.load(tmp_path / "again.npz"), original)


def test_the_minari_directory_has_the_metadata_minari_asks_for(tmp_path):
    convert(save(tmp_path / "a.npz", columns()), tmp_path / "b")
    with open(tmp_path / "b" / "data" / "metadata.json") as file:
        metadata = json.load(file)
    assert metadata["total_episodes"] == 5 and metadata["data_format"] == "hdf5"
    assert json.loads(metadata["action_space"])["shape"] == [2]


def test_targets_that_cannot_be_written(tmp_path):
    source = save(tmp_path / "a.npz", columns())
    for target, match in (
        (tmp_path / "a.npz", "exists already"),
        (tmp_path / "b.csv", "known format"),
        (tmp_path / "none" / "b.npz", "does not exist; create"),
    ):
        with pytest.raises(UsageError, match=match):
            convert(source, target)
    with pytest.raises(UsageError, match="does not exist"):
        convert(tmp_path / "missing", tmp_path / "b.npz")
    assert os.listdir(tmp_path) == ["a.npz"]


def findings(tmp_path, **changes):
    return " | ".join(linter.check(save(tmp_path / "a.npz", columns(**changes))))


def test_the_linter_is_quiet_about_good_rows(tmp_path):
    found = findings(tmp_path)
    for word in ("constant", "never change", "sparse", "repeat", "clipped", "jump"):
        assert word not in found


def test_the_linter_finds_each_fault(tmp_path):
    good = columns()
    observations = good["observations"].copy()
    observations[:, 1] = 2.0
    assert "1 observation entries never change (1)" in findings(tmp_path, observations=observations)
    assert "the reward is 3 on every row" in findings(tmp_path, rewards=np.full(40, 3.0))
    assert "actions of 40 rows clipped" in findings(tmp_path, actions=good["actions"] * 0 + 2.0)
    assert "cannot be loaded" in findings(tmp_path, rewards=np.full(40, np.nan))
    rewards = good["terminals"].astype(np.float32)
    assert "terminal rows are exactly the rewarded ones" in findings(tmp_path, rewards=rewards)
    repeated = {key: np.concatenate([good[key]] * 2) for key in good}
    assert "37 rows repeat" in findings(tmp_path, **repeated)


def test_the_linter_finds_missing_ends_and_waypoints(tmp_path):
    rows = 1000
    walk = np.cumsum(np.random.default_rng(0).normal(size=(rows, 3)), axis=0)
    walk[500:] += 1000.0
    timeouts = np.zeros(rows, bool)
    timeouts[-1] = True
    base = columns(rows, observations=walk, terminals=np.zeros(rows, bool))
    assert "1 steps inside episodes jump" in findings(tmp_path, **base | {"timeouts": timeouts})
    timeouts[[20, 40, 60, 80, 300]] = True
    assert "waypoints" in findings(tmp_path, **base | {"timeouts": timeouts})


def test_info_counts_by_hand(tmp_path):
    arrays = columns(rewards=np.ones(40, np.float32))
    found = linter.info(save(tmp_path / "a.npz", arrays))
    # Ends: rows 9 and 25 timed out and are dropped, 17 and 33 are terminal, 34 to 38 are unfinished.
    assert (found["rows"], found["episodes"], found["terminal_rows"]) == (37, 4, 2)
    assert found["episode_length"] == {"min": 7.0, "mean": 8.0, "max": 9.0}
    assert found["episode_return"]["max"] == found["episode_length"]["max"]


def test_verify_compares_checksums(tmp_path):
    path = save(tmp_path / "a.npz", columns())
    linter.verify(path, data.load(path).sha256)
    with pytest.raises(UsageError, match="SHA-256 00"):
        linter.verify(path, "00")
