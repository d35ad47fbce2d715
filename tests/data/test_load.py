"""What rows become: ends, successors, and the deliberate differences from D4RL's own loader."""

import h5py
import numpy as np
import pytest

from ooorl import data
from ooorl.data import assemble, fixups
from ooorl.errors import UsageError


def stream(rows=40, seed=0):
    """Columns whose observations are their own row number, so that a wrong successor is visible."""
    rng = np.random.default_rng(seed)
    observations = np.stack([np.arange(rows), rng.normal(size=rows)], axis=1).astype(np.float32)
    return {
        "observations": observations,
        "actions": rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        "rewards": rng.normal(size=rows).astype(np.float32),
        "terminals": np.zeros(rows, bool),
        "timeouts": np.zeros(rows, bool),
    }


def marked(rows=40, terminals=(), timeouts=(), seed=0):
    columns = stream(rows, seed)
    columns["terminals"][list(terminals)] = True
    columns["timeouts"][list(timeouts)] = True
    return columns


def slow_d4rl_rows(columns):
    """The semantics of the usual D4RL loader, as a loop: `(row, successor row, terminal)`."""
    result = []
    for row in range(len(columns["rewards"]) - 1):
        if columns["timeouts"][row]:
            continue
        result.append((row, row + 1, bool(columns["terminals"][row])))
    return result


def loaded_rows(dataset):
    t = dataset.transitions
    return [
        (int(o[0]), int(n[0]), d == 0)
        for o, n, d in zip(t.observation, t.next_observation, t.discount, strict=True)
    ]


def with_own_successors(columns):
    """True successors: the next row inside an episode, row number + 1000 where it ends."""
    following = np.roll(columns["observations"], -1, axis=0)
    ends = columns["terminals"] | columns["timeouts"]
    ends[-1] = True
    following[ends] = columns["observations"][ends] + 1000
    return columns | {"next_observations": following}


def test_without_terminals_the_rows_are_those_of_the_d4rl_loader():
    columns = marked(timeouts=(9, 19, 29))
    assert loaded_rows(data.from_arrays(columns)) == slow_d4rl_rows(columns)


@pytest.mark.parametrize("seed", range(5))
def test_inside_episodes_the_rows_are_those_of_the_d4rl_loader(seed):
    rng = np.random.default_rng(seed)
    columns = marked(60, rng.choice(60, 6), rng.choice(60, 4))
    ours = {row: (following, terminal) for row, following, terminal in loaded_rows(data.from_arrays(columns))}
    for row, following, terminal in slow_d4rl_rows(columns):
        expected = row if terminal else following
        assert ours.pop(row) == (expected, terminal)
    # What is left are rows D4RL's loader drops though their discount of 0 needs no successor.
    assert all(terminal and (row == 59 or columns["timeouts"][row]) for row, (_, terminal) in ours.items())


def test_terminal_rows_never_show_the_next_episode():
    dataset = data.from_arrays(marked(terminals=(4, 20, 39)))
    t = dataset.transitions
    ended = t.discount == 0
    np.testing.assert_array_equal(t.next_observation[ended], t.observation[ended])
    assert dataset.num_episodes == 3 and dataset.num_rows == 40
    assert any("stands in" in note for note in dataset.notes)


def test_the_row_before_a_dropped_time_out_ends_the_episode_with_discount_one():
    t = data.from_arrays(marked(timeouts=(9, 19))).transitions
    assert list(np.flatnonzero(t.extras["boundary"])) == [8, 17]
    assert t.discount.min() == 1


def test_own_successors_keep_time_out_rows_and_the_last_row():
    columns = with_own_successors(marked(timeouts=(9, 19), terminals=(29,)))
    dataset = data.from_arrays(columns)
    t = dataset.transitions
    assert dataset.num_rows == 40
    assert list(np.flatnonzero(t.extras["boundary"])) == [9, 19, 29]
    assert [int(t.next_observation[i, 0]) for i in (9, 19, 29, 39)] == [1009, 1019, 1029, 1039]
    assert list(t.discount[[9, 19, 29]]) == [1, 1, 0]
    assert any("not finished" in note for note in dataset.notes)


def test_a_time_out_whose_own_successor_is_the_reset_observation_is_dropped():
    columns = with_own_successors(marked(timeouts=(9, 19)))
    columns["next_observations"][9] = columns["observations"][10]
    t = data.from_arrays(columns).transitions
    assert 9 not in t.observation[:, 0] and 19 in t.observation[:, 0]
    assert list(t.observation[t.extras["boundary"] > 0, 0]) == [8, 19]


def test_without_flags_episodes_are_split_where_observations_jump():
    columns = with_own_successors(marked(timeouts=(9, 24)))
    del columns["terminals"], columns["timeouts"]
    dataset = data.from_arrays(columns)
    assert list(np.flatnonzero(dataset.transitions.extras["boundary"])) == [9, 24]
    assert dataset.transitions.discount.min() == 1


def test_rounding_of_float32_is_no_jump():
    columns = with_own_successors(marked(timeouts=(9, 24)))
    exact = columns["observations"].astype(np.float64) * 1.1
    columns |= {
        "observations": exact,
        "next_observations": (columns["next_observations"] * 1.1).astype(np.float32),
    }
    assert data.from_arrays(columns).num_episodes == 2


def test_stale_own_successors_are_ignored():
    columns = marked(timeouts=(9, 19))
    columns["next_observations"] = columns["observations"].copy()
    dataset = data.from_arrays(columns)
    assert loaded_rows(dataset) == slow_d4rl_rows(columns)
    assert any("ignored" in note for note in dataset.notes)


def test_shuffled_rows_keep_their_own_successors():
    columns = with_own_successors(marked(timeouts=(9, 19)))
    order = np.random.default_rng(0).permutation(40)
    dataset = data.from_arrays({key: value[order] for key, value in columns.items()})
    assert dataset.num_rows == 40
    np.testing.assert_array_equal(dataset.transitions.next_observation, columns["next_observations"][order])
    assert any("no order" in note for note in dataset.notes)


def test_equally_spaced_time_outs_show_that_episodes_go_on_after_terminal_rows():
    columns = marked(terminals=(5, 6, 7, 15), timeouts=(9, 19, 29, 39))
    dataset = data.from_arrays(columns)
    t = dataset.transitions
    assert dataset.num_episodes == 4
    assert loaded_rows(dataset) == slow_d4rl_rows(columns)
    assert list(t.discount[4:8]) == [1, 0, 0, 0]
    assert data.from_arrays(columns, terminal_ends_episode=True).num_episodes == 8


def test_unequally_spaced_time_outs_leave_terminal_rows_last():
    # A fall at row 3 restarts the clock: the time-out comes 10 rows later, not at row 9.
    assert data.from_arrays(marked(terminals=(3,), timeouts=(13, 23, 33))).num_episodes == 4


def test_maze_waypoints_are_ends_but_never_terminal():
    dataset = data.from_arrays(marked(timeouts=(3, 4, 17)))
    assert dataset.transitions.discount.min() == 1
    assert list(dataset.transitions.observation[dataset.transitions.extras["boundary"] > 0, 0]) == [2, 16]


def test_every_column_is_float32_and_aligned():
    columns = marked(timeouts=(9,), terminals=(30,))
    columns = {key: np.asarray(value, np.float64) for key, value in columns.items()}
    columns |= {key: columns[key][:, None] for key in ("rewards", "terminals", "timeouts")}
    t = data.from_arrays(columns).transitions
    assert {leaf.dtype for leaf in (*t[:-1], *t.extras.values())} == {np.dtype(np.float32)}
    rows = t.observation[:, 0].astype(int)
    np.testing.assert_array_equal(t.reward, columns["rewards"][rows, 0].astype(np.float32))
    np.testing.assert_array_equal(t.action, columns["actions"][rows].astype(np.float32))


def test_singular_names_and_discounts_mean_the_same():
    columns = marked(terminals=(9, 39))
    singular = {
        "observation": columns["observations"],
        "action": columns["actions"],
        "reward": columns["rewards"],
        "discount": 1.0 - columns["terminals"],
    }
    assert loaded_rows(data.from_arrays(singular)) == loaded_rows(data.from_arrays(columns))
    singular["masks"] = singular.pop("discount")
    assert loaded_rows(data.from_arrays(singular)) == loaded_rows(data.from_arrays(columns))


def test_actions_are_clipped_only_on_request():
    columns = marked(timeouts=(9, 19))
    columns["actions"][3, 0] = 1.5
    with pytest.raises(UsageError, match="1 of 40 rows.*1.5.*clip_actions"):
        data.from_arrays(columns)
    dataset = data.from_arrays(columns, clip_actions=True)
    assert dataset.transitions.action.max() == 1 and any("clipped" in note for note in dataset.notes)


def test_infos_are_read_on_request_and_stay_aligned(tmp_path):
    columns = marked(timeouts=(9, 19))
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        for key, value in columns.items():
            file[key] = value
        file["infos/qpos"] = columns["observations"] * 2
        file["infos/unread"] = np.array([b"text"])
    dataset = data.load(path, infos=("qpos",))
    np.testing.assert_array_equal(dataset.infos["qpos"], dataset.transitions.observation * 2)
    assert data.load(path).infos == {}


def write_minari(folder, lengths=(5, 12, 3), flags=("terminations", "truncations", None), observations=None):
    (folder / "data").mkdir(parents=True)
    rng = np.random.default_rng(0)
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        for number, (length, flag) in enumerate(zip(lengths, flags, strict=True)):
            group = file.create_group(f"episode_{number}")
            values = 100 * number + np.arange((length + 1) * 2, dtype=np.float64).reshape(-1, 2)
            if observations is None:
                group["observations"] = values
            else:
                for key in observations:
                    group[f"observations/{key}"] = values
            group["actions"] = rng.uniform(-1, 1, (length, 2)).astype(np.float32)
            group["rewards"] = rng.normal(size=length)
            for key in ("terminations", "truncations"):
                group[key] = np.arange(length) == (length - 1 if key == flag else -1)
    return folder


def test_minari_episodes_keep_every_row_and_their_true_last_observation(tmp_path):
    dataset = data.load(write_minari(tmp_path / "set"))
    t = dataset.transitions
    assert dataset.num_rows == 20
    assert list(np.flatnonzero(t.extras["boundary"])) == [4, 16]
    assert list(t.discount[[4, 16, 19]]) == [0, 1, 1]
    assert list(t.next_observation[4]) == [10, 11] and list(t.next_observation[16]) == [124, 125]
    inside = t.extras["boundary"][:-1] == 0
    np.testing.assert_array_equal(t.next_observation[:-1][inside], t.observation[1:][inside])


def test_minari_episodes_come_in_the_order_of_their_numbers(tmp_path):
    folder = write_minari(tmp_path / "set", lengths=(2,) * 12, flags=("truncations",) * 12)
    t = data.load(folder / "data" / "main_data.hdf5").transitions
    assert list(t.observation[::2, 0]) == [100 * number for number in range(12)]


def test_minari_dict_observations_need_keys(tmp_path):
    folder = write_minari(tmp_path / "set", observations=("achieved", "state/pose"))
    with pytest.raises(UsageError, match="dict of achieved, state.*observation_keys"):
        data.load(folder)
    assert data.load(folder, observation_keys=("achieved", "state/pose")).spec.observation_dim == 4
    with pytest.raises(UsageError, match="'other' is needed"):
        data.load(folder, observation_keys=("other",))


def test_the_content_and_not_the_name_tells_the_format(tmp_path):
    columns = marked(timeouts=(9, 19))
    path = tmp_path / "looks_like.hdf5"
    with open(path, "wb") as file:
        np.savez(file, **columns)
    assert data.load(path).num_rows == data.from_arrays(columns).num_rows


def test_the_size_of_observations_is_compared_with_the_environment():
    dataset = data.from_arrays(marked(timeouts=(9, 19)))
    data.check_spec(dataset, dataset.spec)
    wrong = type(dataset.spec)(observation_dim=3, action_dim=2)
    with pytest.raises(UsageError, match="size 3 are needed by Hopper-v4; arrays has size 2"):
        data.check_spec(dataset, wrong, "Hopper-v4")


def test_removed_rows_end_the_episode_before_them_as_a_cut():
    dataset = data.from_arrays(marked(terminals=(39,)))
    near = fixups.remove_regions(dataset, discs=[(10.0, 0.0, 1.5)])
    t = near.transitions
    rows = t.observation[:, 0]
    assert near.num_rows < 40 and near.num_episodes > 1
    np.testing.assert_array_equal(t.extras["boundary"], ~np.isin(rows + 1, rows))
    assert t.discount[:-1].min() == 1 and t.discount[-1] == 0


def test_rows_in_a_box_are_removed_and_counted():
    dataset = data.from_arrays(marked(terminals=(39,)))
    xy = dataset.transitions.observation[:, :2]
    outside = fixups.remove_regions(dataset, discs=[(30.0, 0.0, 0.5)], boxes=[(5.0, -9.0, 8.0, 9.0)])
    inside = ((xy[:, 0] >= 5) & (xy[:, 0] <= 8)) | (np.hypot(xy[:, 0] - 30, xy[:, 1]) <= 0.5)
    np.testing.assert_array_equal(outside.transitions.observation[:, :2], xy[~inside])
    assert outside.notes[-1] == (
        f"{inside.sum()} of 40 rows removed: within 0.5 of (30, 0), or in the box from (5, -9) to (8, 9)"
    )
    with pytest.raises(UsageError, match="all of arrays lies in them"):
        fixups.remove_regions(dataset, boxes=[(-1.0, -9.0, 99.0, 9.0)])


def test_first_rows_of_each_episode():
    t = fixups.first_rows(data.from_arrays(marked(terminals=(9, 39))), rows=4).transitions
    assert list(t.observation[:, 0]) == [0, 1, 2, 3, 10, 11, 12, 13]
    assert list(np.flatnonzero(t.extras["boundary"])) == [3, 7]
    assert t.discount.min() == 1


def test_demonstration_ends_become_cuts_unless_all_is_done():
    columns = with_own_successors(marked(terminals=(9, 39)))
    columns["rewards"][:] = 1
    columns["rewards"][39] = 4
    dataset = fixups.terminal_at_reward(data.from_arrays(columns), reward=4.0)
    assert list(dataset.transitions.discount[[9, 39]]) == [1, 0]
    assert dataset.num_episodes == 2
    del columns["next_observations"]
    dropped = fixups.terminal_at_reward(data.from_arrays(columns), reward=4.0)
    assert dropped.num_rows == 39 and list(np.flatnonzero(dropped.transitions.extras["boundary"])) == [8, 38]


def test_a_subsample_is_the_same_each_time():
    dataset = data.from_arrays(marked(terminals=(39,)))
    one, two = (fixups.subsample(dataset, rows=10, seed=0) for _ in range(2))
    assert one.num_rows == 10
    np.testing.assert_array_equal(one.transitions.observation, two.transitions.observation)


def test_a_million_rows_are_put_together_in_about_a_second():
    import time

    rows = 1_000_000
    columns = stream(rows)
    columns["timeouts"][999::1000] = True
    start = time.process_time()  # whatever else the machine does meanwhile
    dataset = assemble(data.Columns(**columns), source="arrays", name="arrays")
    assert time.process_time() - start < 8.0  # a loop over rows would take a minute
    assert dataset.num_rows == rows - 1000 and dataset.num_episodes == 1000
