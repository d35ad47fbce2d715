"""The cell of the paper's size: what its two runs differ by, and what is said of one that is not whole."""

import importlib
import json

import pytest
import tomli_w
from conftest import ROOT

from ooorl.errors import UsageError
from ooorl.runner import config


@pytest.fixture(scope='module')
def paper_size():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / 'experiments'))
        yield importlib.import_module('paper_size')


def test_the_climbing_policy_learns_from_the_same_rows_and_problem(paper_size, tmp_path):
    table = config.read(paper_size.CONFIG)
    first = config.resolve(table)
    own = config.resolve(paper_size.climbing(table, tmp_path))
    assert own['run'] == first['run'] | {'store': str(tmp_path)} and own['exploit']['agent'] == 'td3'
    for key in ('gamma', 'polyak', 'learning_rate', 'hidden', 'reward', 'bounds', 'sampling'):
        assert own['exploit'][key] == first['exploit'][key]
    assert own['ooo']['retrain_updates'] == first['ooo']['retrain_updates'] and not own['ooo']['without_bonus']


def test_a_result_that_is_not_whole_says_how_far_it_has_come(paper_size, tmp_path):
    with pytest.raises(UsageError, match='has none; begin one with --dataset'):
        paper_size.gathered(tmp_path)
    first, second = paper_size.directories(tmp_path, 7)
    first.mkdir()
    second.mkdir()
    table = config.read(paper_size.CONFIG, ["dataset.path='/somewhere/ant.hdf5'"])
    (first / 'config.toml').write_text(tomli_w.dumps(table))
    rows = [
        {'kind': 'eval', 'phase': 'explore', 'updates': 20, 'env_steps': 20, 'success': 0.25},
        {'kind': 'train', 'phase': 'explore', 'updates': 30, 'env_steps': 30},
    ]
    (first / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    (second / 'metrics.jsonl').write_text(json.dumps({**rows[0], 'phase': 'retrain@200000'}) + '\n')
    (first / 'summary.json').write_text('{"wall_seconds": 1.25}')
    found = paper_size.gathered(tmp_path)
    assert not found['complete'] and found['config']['dataset']['path'] == 'ant.hdf5'
    assert found['seeds']['7']['wall_seconds'] == 1.2
    assert found['seeds']['7']['phases']['explore'] == {'updates': 30, 'env_steps': 30, 'curve': [[20, 20, 0.25]]}
    lines = paper_size.table(found).splitlines()
    assert '| 7 | explorer with bonus | 30 | 30 | 0.25 |  |' in lines and '| 7 | base method | not begun | | | |' in lines
    assert any('OOO, climbing | 20' in line for line in lines) and any('weighted | not begun' in line for line in lines)
