"""The picture of how teacher and student come from noise to actions."""

import numpy as np
import pytest

from ooorl.errors import UsageError
from ooorl.reporting import figures, page, paths, stored

TEACHER = np.array([[[[2.0, 0.0], [1.0, 0.0], [0.5, 0.0]], [[0.0, -2.0], [0.0, -1.0], [0.0, -0.5]]]])  # one place, two draws
STATES = {
    'paths_teacher': TEACHER, 'paths_student': np.stack([TEACHER[:, :, 0], [[[0.5, 0.3], [0.0, -0.4]]]], axis=2),
    'paths_data': np.zeros((1, 4, 2)), 'paths_at': np.array([[1.5, -2.0, 3.0, 4.0, 5.0]]),
}  # fmt: skip


def test_a_panel_for_each_place_says_how_far_apart_they_end():
    (panel,), caption = paths.denoising(STATES)
    assert panel.title == 'at the observation (1.5, -2, 3, 4…)'
    assert panel.alt.startswith('2 paths') and 'end 0.2 apart on average' in panel.alt  # 0.3 and 0.1
    assert "the teacher's (2 steps)" in caption
    text = figures.svg(panel.figure)
    assert '#0072b2' in text and '#d55e00' in text  # of teacher and student
    assert '<img alt="2 paths' in page.panels([panel], caption)


def test_without_paths_there_is_no_picture():
    assert paths.denoising({'offline': np.zeros((3, 2))}) == ([], '') and page.panels([], '') == ''


def test_stored_paths_keep_their_shape_and_damage_is_named(tmp_path):
    np.savez(tmp_path / 'states.npz', **STATES, offline=np.zeros((3, 2)))
    read = stored.read_states(tmp_path / 'states.npz')
    assert {name: array.shape for name, array in read.items()} == {
        'paths_teacher': (1, 2, 3, 2), 'paths_student': (1, 2, 2, 2), 'paths_data': (1, 4, 2), 'paths_at': (1, 5),
        'offline': (3, 2),
    }  # fmt: skip
    np.savez(tmp_path / 'states.npz', **STATES | {'paths_teacher': np.zeros((2, 2))})
    with pytest.raises(UsageError, match=r'damaged \(paths_teacher has the shape \(2, 2\)\)'):
        stored.read_states(tmp_path / 'states.npz')
