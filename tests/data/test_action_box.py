"""Actions in other units: where the box comes from, what is rescaled, what is refused and with which advice."""

import json

import h5py
import numpy as np
import pytest

from ooorl import data
from ooorl.data import action_box, convert
from ooorl.errors import UsageError

ACTIONS = np.linspace(-2.0, 2.0, 20)[:, None]
PENDULUM = action_box.box(-2.0, 2.0, 'Pendulum-v1')


def columns(actions=ACTIONS):
    rng = np.random.default_rng(0)
    ends = np.arange(len(actions)) % 10 == 9
    observations = rng.normal(size=(len(actions), 3)).astype(np.float32)
    return {'observations': observations, 'actions': actions, 'rewards': rng.normal(size=len(actions)), 'terminals': ends}


def saved(path, **changes):
    np.savez(path, **{**columns(), **changes})
    return path


def minari(folder, actions=ACTIONS, observations=None, **metadata):
    (folder / 'data').mkdir(parents=True)
    seen = np.arange(63.0).reshape(21, 3) if observations is None else observations
    with h5py.File(folder / 'data' / 'main_data.hdf5', 'w') as file:
        group = file.create_group('episode_0')
        for key, value in seen.items() if isinstance(seen, dict) else ():
            group[f'observations/{key}'] = value
        if not isinstance(seen, dict):
            group['observations'] = seen
        group['actions'], group['rewards'] = actions, np.arange(20.0)
        group['terminations'], group['truncations'] = np.zeros(20, bool), np.arange(20) == 19
    (folder / 'data' / 'metadata.json').write_text(json.dumps(metadata))
    return folder


def space(low, high):
    return json.dumps({'type': 'Box', 'dtype': 'float32', 'shape': [1], 'low': [low], 'high': [high]})


def refused(load, *words):
    with pytest.raises(UsageError) as caught:
        load()
    assert all(word in str(caught.value) for word in words) and str(caught.value).endswith('.'), caught.value
    return str(caught.value)


def test_a_stated_box_is_mapped_onto_minus_one_to_one():
    """2 (a + 1) / 4 - 1 at -1, 0, 3 is -1, -0.5, 1; each entry has a box of its own."""
    actions = np.array([[-1.0, 0.0], [0.0, 5.0], [3.0, 10.0]] * 4)
    made = data.from_arrays(columns(actions), action_low=[-1.0, 0.0], action_high=[3.0, 10.0])
    np.testing.assert_allclose(made.transitions.action[:3], [[-1, -1], [-0.5, 0], [1, 1]])
    assert made.notes[0] == 'actions rescaled to [-1, 1] from [-1, 0] to [3, 10], by action_low and action_high'


def test_without_a_box_the_box_comes_first_and_clipping_last():
    line = refused(lambda: data.from_arrays(columns()), '10 of 20 rows', 'largest size 2', '--env')
    assert line.index('action_low and action_high') < line.index('clip_actions=true')
    clipped = data.from_arrays(columns(), clip_actions=True)
    assert 'give the box of actions in other units' in clipped.notes[0] and clipped.transitions.action.max() == 1


@pytest.mark.parametrize(('low', 'high', 'words'), [
    (3, 2, 'low < high'), (-1, None, 'together'), ([-1, -1], [1, 1], 'entries is needed'), (-1, np.inf, 'Finite bounds'),
    (-1.5, 1.5, 'leave it by up to 16.7 % of its width; clip_actions=true clips them'), ([-1, -1], [1, 1, 1], 'alike'),
])  # fmt: skip
def test_boxes_that_make_no_sense(low, high, words):
    refused(lambda: data.from_arrays(columns(), action_low=low, action_high=high), words)


def test_what_leaves_a_known_box_is_clipped_on_request():
    made = data.from_arrays(columns(), action_low=-1.5, action_high=1.5, clip_actions=True)
    assert (made.transitions.action.min(), made.transitions.action.max()) == (-1, 1)
    np.testing.assert_allclose(made.transitions.action[9], ACTIONS[9] / 1.5, rtol=1e-6)


def test_minari_says_the_box(tmp_path):
    found = data.load(minari(tmp_path / 'a', action_space=space(-2.0, 2.0)))
    np.testing.assert_allclose(found.transitions.action, ACTIONS / 2, rtol=1e-6)
    assert "from [-2, 2], by Minari's metadata" in found.notes[0]
    unbounded = minari(tmp_path / 'b', action_space=space(float('-inf'), float('inf')))
    refused(lambda: data.load(unbounded), 'leave [-1, 1]')
    refused(lambda: data.load(minari(tmp_path / 'c', action_space=space(2.0, -2.0))), 'low < high')
    broken = minari(tmp_path / 'd')
    (broken / 'data' / 'metadata.json').write_text('{')
    refused(lambda: data.load(broken), "Minari's metadata as JSON")


def test_minari_names_the_environment_and_its_settings(tmp_path):
    spec = json.dumps({'id': 'Pendulum-v1', 'kwargs': {'g': 9.81}})
    path = minari(tmp_path / 'a', env_spec=spec) / 'data' / 'main_data.hdf5'
    assert data.minari.environment(path) == ('Pendulum-v1', {'g': 9.81})
    assert data.minari.environment(minari(tmp_path / 'b') / 'data' / 'main_data.hdf5') == ('', {})


def test_the_environments_box_decides_by_what_fits(tmp_path):
    path = saved(tmp_path / 'a.npz')
    np.testing.assert_allclose(data.load(path, environment_box=PENDULUM).transitions.action, ACTIONS / 2, rtol=1e-6)
    narrow = action_box.box(-0.4, 0.4, 'Humanoid-v4')
    small = saved(tmp_path / 'b.npz', actions=ACTIONS / 5)
    np.testing.assert_allclose(data.load(small, environment_box=narrow).transitions.action, ACTIONS / 2, rtol=1e-6)
    unit = saved(tmp_path / 'c.npz', actions=ACTIONS / 2)
    taken = data.load(unit, environment_box=narrow)
    np.testing.assert_allclose(taken.transitions.action, ACTIONS / 2, rtol=1e-6)
    assert 'rescaled to [-1, 1] already' in taken.notes[0]
    refused(lambda: data.load(unit, environment_box=PENDULUM), 'fit [-1, 1] as well as [-2, 2] (Pendulum-v1)')
    refused(lambda: data.load(path, environment_box=narrow), 'in [-0.4, 0.4] (Humanoid-v4)')


@pytest.mark.parametrize('ending', ['.npz', '.hdf5', ''])
def test_a_converted_file_is_not_rescaled_again(tmp_path, ending):
    convert.convert(saved(tmp_path / 'a.npz', actions=ACTIONS / 2), tmp_path / f'b{ending}')
    found = data.load(tmp_path / f'b{ending}', environment_box=PENDULUM)
    np.testing.assert_allclose(found.transitions.action, ACTIONS / 2, rtol=1e-6)


def test_a_column_of_ends_that_was_not_read_is_named(tmp_path):
    arrays = columns(ACTIONS / 2)
    arrays['dones'] = arrays.pop('terminals')
    refused(lambda: data.from_arrays(arrays), "its column 'dones' was not read", "'timeouts' where time ran out")
    with h5py.File(tmp_path / 'a.hdf5', 'w') as file:
        for key, value in arrays.items():
            file[key] = value
    refused(lambda: data.load(tmp_path / 'a.hdf5'), "its column 'dones' was not read")
    assert "'dones' is not read" in data.from_arrays({**arrays, 'timeouts': arrays['dones']}).notes[0]


def test_dict_observations_are_put_together_in_the_order_given(tmp_path):
    seen = {'goal': np.arange(42.0).reshape(21, 2), 'position': -np.arange(21.0)[:, None]}
    folder = minari(tmp_path / 'a', actions=ACTIONS / 2, observations=seen)
    found = data.load(folder, observation_keys=('position', 'goal')).transitions
    np.testing.assert_array_equal(found.observation[3], [-3, 6, 7])
    refused(lambda: data.load(folder), 'a dict of goal, position', '--observation-keys')


@pytest.mark.parametrize('layout', ['chunked', 'contiguous'])
@pytest.mark.parametrize('name', ['rewards', 'terminals', 'timeouts'])
def test_one_dimensional_columns_never_written_are_not_zeros(tmp_path, name, layout):
    arrays = columns(ACTIONS / 2) | {'timeouts': np.arange(20) % 5 == 4}
    with h5py.File(tmp_path / 'a.hdf5', 'w') as file:
        for key, value in arrays.items():
            if key != name:
                file[key] = value
        unwritten = file.create_dataset(name, (20,), 'f4', chunks=(5,) if layout == 'chunked' else None)
        if layout == 'chunked':
            unwritten[:5] = 1.0
    missing = '3 of 4' if layout == 'chunked' else '1 of 1'
    refused(lambda: data.load(tmp_path / 'a.hdf5'), f"'{name}' of", f'lacks {missing} blocks')
