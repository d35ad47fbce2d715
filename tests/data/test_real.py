"""Real recordings: counts, conventions, and replay in the simulator they came from."""

import os

import numpy as np
import pytest

from ooorl import catalogue, data
from ooorl.data import check as linter
from ooorl.errors import UsageError

SHARED = os.environ.get(
    "OOORL_SHARED_DATA", os.path.join(os.path.dirname(__file__), "..", "..", "..", "shared", "data")
)

# file: rows in the file, rows kept, episodes, O, A
FILES = {
    "adroit/door-human.hdf5": (6_729, 6_704, 25, 39, 28),
    "antmaze/antmaze-umaze-gen.hdf5": (100_100, 100_000, 100, 29, 8),
    "maze2d/maze2d-umaze-gen.hdf5": (99_942, 98_696, 1_066, 4, 2),
    "gym_mujoco/halfcheetah-medium-expert-gen.hdf5": (50_000, 49_950, 50, 17, 6),
    "gym_mujoco/hopper-medium-expert-gen.hdf5": (50_581, 50_559, 91, 11, 3),
    "gym_mujoco/halfcheetah-expert-cs285-2023-v4-mujoco2.2.hdf5": (2_000, 2_000, 2, 17, 6),
    "earl/tabletop_manipulation_forward.npz": (1_278, 1_278, 12, 12, 3),
    "earl/tabletop_manipulation_reverse.npz": (1_256, 1_256, 12, 12, 3),
    "earl/tabletop_manipulation_no_walls_forward.npz": (2_396, 2_396, 50, 12, 3),
    "earl/tabletop_manipulation_no_walls_reverse.npz": (2_411, 2_411, 50, 12, 3),
    "earl/maze-config0_forward.npz": (3_270, 3_270, 100, 2, 2),
    "earl/maze-config0_reverse.npz": (1_557, 1_557, 50, 2, 2),
}


def at_hand(name):
    path = os.path.join(SHARED, name)
    if not os.path.exists(path):
        pytest.skip(f"{name} is not at hand")
    return path


@pytest.mark.parametrize("name", FILES)
def test_rows_and_episodes(name):
    path = at_hand(name)
    in_file, rows, episodes, observation_dim, action_dim = FILES[name]
    _, columns = data.read_columns(path)
    dataset = data.load(path, clip_actions="cs285" in name)
    assert len(columns.rewards) == in_file
    assert (dataset.num_rows, dataset.num_episodes) == (rows, episodes)
    assert (dataset.spec.observation_dim, dataset.spec.action_dim) == (observation_dim, action_dim)
    inside = dataset.transitions.extras["boundary"][:-1] == 0
    following = dataset.transitions.observation[1:][inside]
    np.testing.assert_allclose(
        dataset.transitions.next_observation[:-1][inside], following, rtol=1e-6, atol=1e-6
    )
    assert all("cannot be loaded" not in finding for finding in linter.check(path))


def test_rows_equal_the_d4rl_loader_where_nothing_is_terminal():
    path = at_hand("adroit/door-human.hdf5")
    _, columns = data.read_columns(path)
    keep = ~columns.timeouts
    keep[-1] = False
    t = data.load(path).transitions
    np.testing.assert_array_equal(t.observation, columns.observations[keep])
    np.testing.assert_array_equal(t.next_observation, columns.observations[np.flatnonzero(keep) + 1])
    np.testing.assert_array_equal(t.reward, columns.rewards[keep])


def test_maze_waypoints_are_never_terminal():
    t = data.load(at_hand("maze2d/maze2d-umaze-gen.hdf5")).transitions
    assert t.discount.min() == 1


def test_ant_episodes_go_on_after_the_goal():
    path = at_hand("antmaze/antmaze-umaze-gen.hdf5")
    automatic, by_id = data.load(path), data.load_task("antmaze-umaze-v2", path=path)
    for dataset in (automatic, by_id):
        assert dataset.num_episodes == 100
        assert int((dataset.transitions.discount == 0).sum()) == 24_309
    assert by_id.name == "antmaze-umaze-v2"


def test_recorded_returns_score_as_the_file_notes():
    """The halves of this file are noted as 47.2 and 94.6, normalised; a dropped row is 1/1000."""
    found = linter.info(at_hand("gym_mujoco/halfcheetah-medium-expert-gen.hdf5"))
    score = catalogue.normalised_score("halfcheetah-medium-expert-v2", found["episode_return"]["mean"])
    assert abs(score - (47.2 + 94.6) / 2) < 0.5


def test_the_wrong_environment_is_refused_by_size():
    dataset = data.load(at_hand("gym_mujoco/hopper-medium-expert-gen.hdf5"))
    with pytest.raises(UsageError, match="size 17 are needed by HalfCheetah-v4"):
        data.check_spec(dataset, catalogue.lookup("halfcheetah-medium-v2"), "HalfCheetah-v4")


def simulator(name, **arguments):
    pytest.importorskip("imageio", reason="gymnasium's MuJoCo tasks need imageio")
    gymnasium = pytest.importorskip("gymnasium")
    pytest.importorskip("mujoco")
    return lambda: gymnasium.make(name, **arguments)


@pytest.mark.filterwarnings("ignore")
def test_a_recording_of_others_replays_to_the_last_digits():
    from ooorl.data.audit import audit

    path = at_hand("gym_mujoco/halfcheetah-expert-cs285-2023-v4-mujoco2.2.hdf5")
    found = audit(path, simulator("HalfCheetah-v4"), max_rows=300)
    assert found.max_position_error <= 1e-10 and found.rows == 300
    assert "it is data of this environment" in found.verdict


@pytest.mark.filterwarnings("ignore")
def test_float32_states_replay_to_their_rounding():
    from ooorl.data.audit import audit

    found = audit(at_hand("gym_mujoco/hopper-medium-expert-gen.hdf5"), simulator("Hopper-v4"), max_rows=300)
    assert found.max_position_error <= 1e-5 and "it is data of this environment" in found.verdict


@pytest.mark.filterwarnings("ignore")
def test_a_forged_recording_is_found_out(tmp_path):
    from ooorl.data.audit import audit

    _, columns = data.read_columns(at_hand("gym_mujoco/halfcheetah-expert-cs285-2023-v4-mujoco2.2.hdf5"))
    observations = columns.observations[:200] + np.random.default_rng(0).normal(0, 0.1, (200, 17))
    forged = {
        "observations": observations,
        "actions": columns.actions[:200],
        "rewards": columns.rewards[:200],
    }
    np.savez(tmp_path / "halfcheetah-medium-v2.npz", **forged, timeouts=np.arange(200) == 199)
    found = audit(tmp_path / "halfcheetah-medium-v2.npz", simulator("HalfCheetah-v4"))
    assert "does not replay" in found.verdict
    with pytest.raises(UsageError, match="audit"):
        audit(tmp_path / "halfcheetah-medium-v2.npz", simulator("Ant-v4"))
