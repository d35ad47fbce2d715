"""The README's benchmark table is what the committed results say."""

import importlib
import json

import pytest
from conftest import ROOT

from ooorl.reporting import results


@pytest.fixture(scope='module')
def table():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / 'experiments'))
        yield importlib.import_module('benchmark_table')


def test_the_readme_is_up_to_date(table):
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    assert text.count(table.BEGIN) == text.count(table.END) == text.count(table.SWEPT) == text.count(table.SWEPT_END) == 1
    assert table.placed(text) == text, 'the README is stale; python experiments/benchmark_table.py writes its tables anew'


def test_every_number_has_a_source(table):
    held = json.loads((ROOT / 'experiments' / 'benchmark.json').read_text(encoding='utf-8'))
    assert held['published']['source'].startswith('https://') and held['published']['note']
    for row in held['rows']:
        assert row.get('published') in {None, *held['published']['scores']}
        assert 'elsewhere' not in row or row['source']
        for name in row.get('results', {}).values():
            assert (ROOT / 'experiments' / 'results' / name).is_file()


def test_cells_by_hand(table, tmp_path, monkeypatch):
    monkeypatch.setattr(table, 'HERE', tmp_path)
    folder = tmp_path / 'results'
    folder.mkdir()
    summary = {'seeds': [0, 1, 2], 'phases': [{'scores': {'normalised': [10.4, None, -0.2]}, 'diverged': [1]}]}
    (folder / 'a.json').write_text(json.dumps(summary))
    entry = {'algorithm': 'bc', 'task': 't', 'status': 'complete'}
    several = [results.Result(seed=seed, last={'normalised': 20.0 + seed}, **entry) for seed in (1, 0)]
    several += results.without_scores('bc', 't', (2,), 'failed')
    results.write(folder / 'b.json', several)
    row = {'results': {'t': 'a.json'}}
    assert table.cell(row, 't') == '5.1: 10, 0' and table.cell(row, 'u') == 'not run'
    assert table.cell({'algorithm': 'bc', 'results': {'t': 'b.json'}}, 't') == '20.5: 20, 21'
    assert table.cell({'algorithm': 'iql', 'results': {'t': 'b.json'}}, 't') == 'not run'
    assert table.cell({'elsewhere': {'t': 1.66}}, 't') == '1.7'


def test_cells_of_the_sweep_by_hand(table, tmp_path):
    entry = {'algorithm': 'bc', 'task': 'hopper-v2', 'seeds': [0, 1, 2], 'status': ['complete'] * 3, 'wall_seconds': 1800.0}
    lost = {**entry, 'task': 'cube-singletask-task1-v0', 'last': [-0.2, None, 0.1]}
    lost['status'] = ['complete', 'diverged', 'complete']
    waits = {'algorithm': 'iql', 'task': 'hopper-v2', 'seeds': [0, 1, 2], 'status': ['missing'] * 3}
    (tmp_path / 's.json').write_text(json.dumps({'cells': [{**entry, 'last': [1.0, 2.0, 3.0]}, lost, waits]}))
    lines = table.swept(tmp_path / 's.json').splitlines()
    assert lines[1] == '| preset | hopper | cube |'
    assert lines[3:5] == ['| bc | 2 [0, 4] | 0, 1 diverged |', '| iql | not run | not run |']  # 2 +- 4.303 / sqrt(3)
    assert lines[6] == '5 of 9 seeds are complete; 1.0 hours of a shared core.'
