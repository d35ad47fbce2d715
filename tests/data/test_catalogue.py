import csv
import os

import numpy as np
import pytest

from ooorl import catalogue
from ooorl.data import fixups

SHARED = os.environ.get(
    "OOORL_SHARED_DATA", os.path.join(os.path.dirname(__file__), "..", "..", "..", "shared", "data")
)


def test_every_family_is_complete():
    counts = {}
    for entry in catalogue.ENTRIES.values():
        counts[entry.family] = counts.get(entry.family, 0) + 1
    assert counts == {
        "gym_mujoco": 24, "antmaze": 13, "maze2d": 7, "adroit": 13, "adroit_binary": 3, "kitchen": 6,
        "sparse": 2, "ogbench": 282
    }  # fmt: skip


def test_entries_name_known_things_only():
    for name, entry in catalogue.ENTRIES.items():
        assert entry.id == name
        assert entry.base is None or entry.base in catalogue.ENTRIES
        assert {fixup for fixup, _ in entry.fixups} <= set(catalogue.FIXUPS)
        assert (entry.address is None) == (entry.file is None)
        scored = "success" if entry.family == "ogbench" else "reward_max" if "cumulative" in name else "return"
        assert entry.scored == scored
        assert entry.rows_known in ("verified", "inferred", "recalled", "unknown")
    known = set(fixups._CORRECTIONS) | set(fixups._WHEN_READING)
    assert set(catalogue.FIXUPS) == known


def test_the_catalogue_imports_nothing_of_the_project():
    with open(catalogue.__file__) as file:
        text = file.read().replace("from ooorl.catalogue import checksums, conventions, ogbench\n", "")
    assert "import ooorl" not in text and "from ooorl" not in text


def test_unknown_tasks_get_the_nearest_names():
    with pytest.raises(KeyError, match="hoper.*did you mean hopper-medium-v2"):
        catalogue.lookup("hoper-medium-v2")
    with pytest.raises(KeyError, match="list_tasks"):
        catalogue.lookup("zzzzqqqq")


def test_find_matches_patterns_and_parts():
    assert [entry.id for entry in catalogue.find("kitchen-*-v0") if entry.base is None] == [
        "kitchen-complete-v0", "kitchen-partial-v0", "kitchen-mixed-v0"
    ]  # fmt: skip
    assert len(catalogue.find("medium-expert")) == 4 and catalogue.find("nothing") == ()


def test_normalised_scores_by_hand():
    entry = catalogue.lookup("hopper-medium-v2")
    assert catalogue.normalised_score("hopper-medium-v2", entry.reference_min) == 0
    assert catalogue.normalised_score("hopper-medium-v2", entry.reference_max) == 100
    np.testing.assert_allclose(
        catalogue.normalised_score("antmaze-umaze-v2", np.array([0.0, 0.5, 2.0])), [0, 50, 200]
    )
    assert catalogue.normalised_score("kitchen-mixed-cumulative-v0", 3.0) == 75
    with pytest.raises(KeyError, match="has none"):
        catalogue.normalised_score("ant-sparse-v2", 3.0)


def test_the_catalogue_agrees_with_the_benchmarks_table():
    path = os.path.join(SHARED, "d4rl_catalogue.csv")
    if not os.path.exists(path):
        pytest.skip("the benchmark's table is not at hand")
    with open(path) as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        entry = catalogue.lookup(row["task"])
        with_tls = row["url"].replace("http://", "https://")
        assert (entry.family, entry.address, entry.file) == (row["family"], with_tls, row["file"])
        assert [entry.observation_dim, entry.action_dim, entry.horizon] == [
            int(row[key]) for key in ("obs_dim", "act_dim", "max_episode_steps")
        ]
        assert (entry.reference_min, entry.reference_max) == (float(row["ref_min"]), float(row["ref_max"]))
        assert entry.rows is None or str(entry.rows) == row["n_transitions"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "environment",
    sorted({entry.environment for entry in catalogue.ENTRIES.values() if entry.family != "ogbench"}),
)
def test_every_environment_can_be_made_and_has_the_sizes(environment):
    pytest.importorskip("mujoco")
    if "Adroit" in environment or "Kitchen" in environment:
        pytest.importorskip("gymnasium_robotics")
    import gymnasium

    import ooorl.envs  # noqa: F401

    env = gymnasium.make(environment, disable_env_checker=True)
    for entry in catalogue.ENTRIES.values():
        if entry.environment == environment:
            sizes = (*env.observation_space.shape, *env.action_space.shape, env.spec.max_episode_steps)
            assert sizes == (entry.observation_dim, entry.action_dim, entry.horizon), entry.id
    env.close()
