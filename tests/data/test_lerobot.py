"""LeRobot's folders of versions 2.0 and 2.1: what is read, what is decided, what is refused."""

import json

import numpy as np
import pytest

from ooorl import data
from ooorl.errors import UsageError
from ooorl.runner.cli import main

pyarrow = pytest.importorskip('pyarrow')
from pyarrow import parquet  # noqa: E402

FLOAT = {'dtype': 'float32', 'names': None}
FEATURES = {
    'observation.images.top': {'dtype': 'video', 'shape': [48, 64, 3], 'names': ['height', 'width', 'channel']},
    'observation.state': {**FLOAT, 'shape': [2]},
    'observation.effort': {**FLOAT, 'shape': [1]},
    'action': {**FLOAT, 'shape': [2]},
    'next.reward': {**FLOAT, 'shape': [1]},
    'next.done': {'dtype': 'bool', 'shape': [1], 'names': None},
    'next.success': {'dtype': 'bool', 'shape': [1], 'names': None},
    'timestamp': {**FLOAT, 'shape': [1]},
    'episode_index': {'dtype': 'int64', 'shape': [1], 'names': None},
}
LENGTHS = (4, 3)


def folder(root, *, info=(), without=(), lengths=LENGTHS, version='v2.1', path='episode_{episode_index:06d}.parquet'):
    """A folder of two episodes; the first succeeds, the second is cut off."""
    features = {name: own for name, own in FEATURES.items() if name not in without}
    described = {
        'codebase_version': version, 'robot_type': 'so100', 'total_episodes': len(LENGTHS), 'total_frames': sum(LENGTHS),
        'chunks_size': 1, 'fps': 10, 'data_path': 'data/chunk-{episode_chunk:03d}/' + path,
        'video_path': 'videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4', 'features': features,
    }  # fmt: skip
    (root / 'meta').mkdir(parents=True)
    (root / 'meta' / 'info.json').write_text(json.dumps({**described, **dict(info)}))
    lines = [{'episode_index': number, 'tasks': ['push'], 'length': length} for number, length in enumerate(lengths)]
    (root / 'meta' / 'episodes.jsonl').write_text('\n'.join(map(json.dumps, lines)) + '\n')
    for number, length in enumerate(LENGTHS):
        step = np.arange(length, dtype=np.float32)
        columns = {
            'observation.state': pyarrow.array([[10.0 * number + t, -t] for t in step], pyarrow.list_(pyarrow.float32(), 2)),
            'observation.effort': step / 8,
            'action': pyarrow.array([[30.0 * t, 5.0] for t in step], pyarrow.list_(pyarrow.float32())),
            'next.reward': step / 4,
            'next.done': step == length - 1,
            'next.success': (step == length - 1) & (number == 0),
            'timestamp': step / 10,
            'episode_index': np.full(length, number),
        }
        file = root / 'data' / f'chunk-{number:03d}' / f'episode_{number:06d}.parquet'
        file.parent.mkdir(parents=True)
        parquet.write_table(pyarrow.table({name: own for name, own in columns.items() if name in features}), file)
    return root


def test_a_folder_by_hand(tmp_path):
    dataset = data.load(folder(tmp_path / 'push'))
    rows = dataset.transitions
    # The cut-off episode's last row has no successor; the success keeps its row, whose successor nobody reads.
    np.testing.assert_array_equal(rows.observation, [[0, 0], [1, -1], [2, -2], [3, -3], [10, 0], [11, -1]])
    np.testing.assert_array_equal(rows.discount, [1, 1, 1, 0, 1, 1])
    np.testing.assert_array_equal(rows.extras['boundary'], [0, 0, 0, 1, 0, 1])
    np.testing.assert_array_equal(rows.reward, [0, 0.25, 0.5, 0.75, 0, 0.25])
    # Degrees from 0 to 90 become [-1, 1]; what never moves lies in the middle.
    np.testing.assert_allclose(rows.action[:4], [[-1, 0], [-1 / 3, 0], [1 / 3, 0], [1, 0]], atol=1e-6)
    np.testing.assert_array_equal(dataset.action_box.high, [90, 6])
    assert any('observation.images.top' in note for note in dataset.notes)
    assert any('observation.effort; observation_keys' in note for note in dataset.notes)
    wide = data.load(tmp_path / 'push', observation_keys=('observation.effort', 'observation.state'))
    np.testing.assert_array_equal(wide.transitions.observation[3], [0.375, 3, -3])


def test_done_does_not_say_why_and_rewards_may_be_missing(tmp_path):
    plain = data.load(folder(tmp_path / 'a', version='v2.0', without=('next.success', 'next.reward')))
    assert plain.transitions.discount.all() and not plain.transitions.reward.any() and plain.num_rows == 5
    assert any('no rewards' in note for note in plain.notes) and any('does not say why' in note for note in plain.notes)
    success = data.load(folder(tmp_path / 'b', without=('next.reward',)))
    np.testing.assert_array_equal(success.transitions.reward, [0, 0, 0, 1, 0, 0])


def test_the_digest_is_of_all_that_is_read(tmp_path):
    one, other = folder(tmp_path / 'a'), folder(tmp_path / 'b', without=('timestamp',))
    assert data.sha256(one) == data.sha256(one / 'meta' / 'info.json') == data.load(one).sha256 != data.sha256(other)


def test_a_folder_goes_through_the_commands(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / 'push')
    assert main(['data', 'check', 'push']) == 0 and 'pictures are not read' in capsys.readouterr().out
    assert data.load('push', observation_keys=()).transitions.observation.shape[-1] > 1  # what a config says where it names none
    assert main(['data', 'convert', 'push', 'push.npz', '--observation-keys', 'observation.effort']) == 0
    np.testing.assert_array_equal(data.load('push.npz').transitions.observation[:, 0], [0, 0.125, 0.25, 0.375, 0, 0.125])


@pytest.mark.parametrize(('changes', 'told'), [
    ({'version': 'v3.0'}, r'version v2.0 or v2.1 is needed; .*info.json is v3.0'),
    ({'info': {'features': None}}, 'A table of features is needed'),
    ({'info': {'total_episodes': 3}}, '3 episodes are needed; .*episodes.jsonl lists 2'),
    ({'info': {'total_frames': 9}}, '9 rows are needed; the files of .* hold 7'),
    ({'info': {'data_path': 'data/{file}'}}, 'A data_path for episode_chunk and episode_index is needed'),
    ({'info': {'data_path': '../{episode_index}.parquet'}}, 'A data_path inside of the folder is needed'),
    ({'lengths': (0, 0)}, 'Episodes with rows are needed; .*episodes.jsonl lists none'),
    ({'lengths': (4, 2)}, '2 rows are needed; .*episode_000001.parquet has 3'),
    ({'path': 'part_{episode_index:06d}.parquet'}, 'A whole LeRobot folder is needed; .*part_000000.parquet: No such file'),
    ({'without': ('observation.state', 'observation.effort')}, 'there is no observation.state in .* none, only observation.im'),
    ({'without': ('action',)}, "'action' is needed"),
    ({'info': {'features': {**FEATURES, 'action': {**FLOAT, 'shape': [3]}}}}, "3 numbers a row are needed in 'action'"),
])  # fmt: skip
def test_what_is_wrong_is_said(tmp_path, changes, told):
    with pytest.raises(UsageError, match=told):
        data.load(folder(tmp_path / 'push', **changes))


def test_episodes_without_rows_are_left_out(tmp_path):
    found = data.load(folder(tmp_path / 'push', lengths=(4, 0), info={'total_frames': 4}))
    assert found.num_rows == 4 and found.num_episodes == 1


def test_damaged_files_are_refused(tmp_path):
    root = folder(tmp_path / 'push')
    with pytest.raises(UsageError, match="'observation.images.top' is none of them .* has observation.state, observation.effort"):
        data.load(root, observation_keys=('observation.images.top',))
    (root / 'data' / 'chunk-001' / 'episode_000001.parquet').write_bytes(b'PAR1 and no more')
    with pytest.raises(UsageError, match='A Parquet file is needed; .*episode_000001'):
        data.load(root)
    (root / 'meta' / 'episodes.jsonl').write_text('{"episode_index": 0}\n')
    with pytest.raises(UsageError, match='Lines with episode_index and length'):
        data.load(root)
    (root / 'meta' / 'info.json').write_text('{')
    with pytest.raises(UsageError, match='codebase_version, data_path and features is needed'):
        data.load(root)
