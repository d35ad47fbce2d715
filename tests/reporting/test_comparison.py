"""Tables over algorithms, tasks and seeds: hand-worked cells, rliable's aggregates, and every seed accounted for."""

import csv
import dataclasses

import numpy as np
import pytest

from ooorl.errors import UsageError
from ooorl.reporting import comparison_pages, results, stats
from ooorl.reporting.comparison import compare
from ooorl.reporting.results import Result


def one(algorithm, task, seed, score=None, status='complete', **more):
    curve = [[10.0, score - 2], [20.0, score]] if score is not None else []
    known = {'normalised': score} if score is not None else {}
    half = {'normalised': score - 1} if score is not None else {}
    return Result(algorithm=algorithm, task=task, seed=seed, status=status, last=known, mean_last=half, num_last=2,
                  curve={'normalised': curve} if curve else {}, run=f'{algorithm}/{task}/{seed}', **more)  # fmt: skip


def grid(**changed):
    """Two algorithms, two tasks, three seeds: 10 20 30 and 40 50 60 against five more each."""
    made = [one(a, t, s, 10.0 * (s + 1) + 30 * (t == 'y') + 5 * (a == 'B')) for a in 'AB' for t in 'xy' for s in range(3)]
    return [changed.get(r.run, r) for r in made if changed.get(r.run, r) is not None]


def test_cells_and_aggregates_by_hand():
    found = compare(grid())
    assert found.metric == 'normalised' and found.algorithms == ['A', 'B'] and found.tasks == found.shared == ['x', 'y']
    cell = found.cells['A', 'x']
    assert cell.scores == {'last': [10.0, 20.0, 30.0], 'mean_last': [9.0, 19.0, 29.0]} and cell.counts == {'complete': 3}
    # Student's t with 2 degrees of freedom: 20 +- 4.303 * 10 / sqrt(3)
    ends = cell.intervals['last'].low, cell.intervals['last'].high
    np.testing.assert_allclose(ends, [20 - 24.84, 20 + 24.84], atol=0.01)
    own = found.aggregates['last']['A']
    assert [own[name].point for name in ('mean', 'median', 'optimality_gap')] == [35.0, 35.0, 65.0]
    assert own['iqm'].point == 35.0  # of 10 .. 60 without the lowest and the highest of six: (20 + 30 + 40 + 50) / 4
    assert found.aggregates['mean_last']['B']['mean'].point == 39.0
    # x: 10 20 30 against 15 25 35: A is above in 3 of 9 pairs
    assert found.improvement['last']['A', 'B'].point == pytest.approx(1 / 3)
    assert found.improvement['last']['B', 'A'].point == pytest.approx(2 / 3)
    thresholds, fraction, low, _ = found.profiles['A']
    assert fraction[0] == 1.0 and fraction[-1] == 0.0 and fraction[np.searchsorted(thresholds, 35)] == 0.5
    assert np.isfinite(low).all()


def test_aggregates_are_those_of_rliable():
    rliable = pytest.importorskip('rliable')
    from rliable import metrics

    del rliable
    scores = np.random.default_rng(0).uniform(0, 130, (5, 4))
    pairs = [(stats.mean_of_runs, metrics.aggregate_mean), (stats.iqm_of_runs, metrics.aggregate_iqm),
             (stats.median_of_task_means, metrics.aggregate_median)]  # fmt: skip
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours(scores), theirs(scores))
    np.testing.assert_allclose(stats.optimality_gap(scores, 100.0), metrics.aggregate_optimality_gap(scores, gamma=100.0))
    other = np.random.default_rng(1).uniform(0, 130, (5, 4))
    ours = stats.probability_of_improvement(scores, other).point
    np.testing.assert_allclose(ours, metrics.probability_of_improvement(scores, other))


def test_nothing_is_dropped():
    changed = {'A/x/1': one('A', 'x', 1, status='failed'), 'B/y/0': one('B', 'y', 0, status='diverged'), 'B/y/2': None}
    found = compare([*grid(**changed), one('C', 'x', 0, status='missing')])
    assert found.cells['A', 'x'].counts == {'complete': 2, 'failed': 1}
    assert np.isnan(found.cells['A', 'x'].intervals['last'].low), 'two seeds have no interval'
    assert found.shared == [] and found.aggregates == {} and found.improvement == {}
    assert found.notes[0] == '12 seeds in all: 9 complete, 1 diverged, 1 failed, 1 missing.'
    assert comparison_pages.cell_text(found, 'A', 'x', 'last') == '20.0 (2), 1 failed'
    assert comparison_pages.cell_text(found, 'C', 'x', 'last') == '1 missing'
    assert comparison_pages.cell_text(found, 'C', 'y', 'last') == 'not run'


def test_tasks_that_one_lacks_do_not_count_over_all():
    found = compare(grid(**{'B/y/0': one('B', 'y', 0, status='running')}))
    assert found.shared == ['x'] and found.aggregates['last']['A']['mean'].point == 20.0
    assert 'Over all tasks 1 of 2 count; not every algorithm has every seed on y.' in found.notes


def test_data_that_differ_are_named():
    other = [dataclasses.replace(r, data={'sha256': 'b' if r.algorithm == 'B' and r.task == 'x' else 'a'}) for r in grid()]
    assert [note for note in compare(other).notes if note.startswith('WARNING: runs on x differ in their data')]


def test_settings_that_differ_are_named():
    changed = {f'A/x/{seed}': dataclasses.replace(one('A', 'x', seed, 1.0), settings='b' if seed else 'a') for seed in range(3)}
    told = [note for note in compare(grid(**changed)).notes if note.startswith('WARNING')]
    assert told == ['WARNING: A on x puts runs of different settings together, such as A/x/0 and A/x/2.']


def test_every_format_says_the_same(tmp_path):
    changed = grid(**{'A/x/1': one('A', 'x', 1, status='failed', note='half < full & 5 %')})
    found = compare(changed)
    for name in ('r.html', 'r.md', 'r.tex', 'r.csv', 'r.json'):
        comparison_pages.write(found, tmp_path / name)
    texts = {path.suffix: path.read_text(encoding='utf-8') for path in tmp_path.iterdir()}
    assert all('1 failed' in texts[kind] for kind in ('.html', '.md', '.tex'))
    assert '| A | 20.0 (2), 1 failed | 50.0 [25.2, 74.8] (3) |' in texts['.md']
    assert r'A & 20.0 (2), 1 failed & 50.0 [25.2, 74.8] (3) \\' in texts['.tex']
    assert 'half &lt; full &amp; 5 %' in texts['.html'] and texts['.html'].count('<svg') + texts['.html'].count('image/svg') >= 2
    rows = list(csv.DictReader(texts['.csv'].splitlines()))
    assert len(rows) == 12 and rows[1]['status'] == 'failed' and rows[1]['last'] == '' and rows[0]['last'] == '10.0'
    assert results.read(tmp_path / 'r.json') == changed


@pytest.mark.parametrize(('broken', 'told'), [
    ('{"version": 0, "results": []}', 'version 1 are needed'),
    ('{"version": 1, "results": [{"x": 1}]}', 'holds others'),
])  # fmt: skip
def test_results_of_another_version_are_refused(broken, told, tmp_path):
    (tmp_path / 'r.json').write_text(broken)
    with pytest.raises(UsageError, match=told):
        results.read(tmp_path / 'r.json')


def test_bad_requests():
    with pytest.raises(UsageError, match='a table needs runs'):
        compare([])
    with pytest.raises(UsageError, match='A on x has seed 0 in A/x/0 and in A/x/0'):
        compare([*grid(), one('A', 'x', 0, 1.0)])
    with pytest.raises(UsageError, match=r'ends with \.html, \.md, \.tex, \.csv, \.json; got r\.pdf'):
        comparison_pages.write(compare(grid()), 'r.pdf')
