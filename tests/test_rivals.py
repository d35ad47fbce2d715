"""OOO beside its rivals: what each cell runs, and areas under curves that are known."""

import importlib
import json

import numpy as np
import pytest
from conftest import ROOT

from ooorl.runner import config


@pytest.fixture(scope='module')
def rivals():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / 'experiments'))
        yield {name: importlib.import_module(name) for name in ('rivals', 'rivals_bound', 'rivals_table')}


def result(method, steps, success, **more):
    """Two seeds."""
    return {'cell': f'maze:{method}', 'seeds': [0, 1], 'env_steps': steps, 'success': success, **more}


def test_rivals_differ_by_scheme_and_agent_alone(rivals):
    cells = rivals['rivals'].all_cells()
    assert [cell.arm for cell in cells if cell.task == 'pointmaze_medium'] == list(rivals['rivals_table'].METHODS)
    first = {}
    for cell in cells:
        if cell.task in rivals['rivals'].VARIANTS:  # settings of another task's files
            continue
        table = config.resolve(config.read(rivals['rivals'].CONFIGS / f'{"-".join(cell)}.toml'))
        assert table['name'] == '-'.join(cell)
        same = first.setdefault(cell.task, table)
        assert all(table[key] == same[key] for key in ('environment', 'evaluation', 'dataset'))
    assert {base for base, _ in rivals['rivals'].VARIANTS.values()} <= first.keys()


def test_area_counts_what_is_deployed_until_something_else_is(rivals):
    table = rivals['rivals_table']
    # Seed 0: 0 until step 10, then .5 until 30, then 1 to the budget of 40. Seed 1 deploys nothing before the budget is spent.
    found = table.curve(result('ooo', [[0, 10, 30], [0, 50, 60]], [[0, 0.5, 1], [0.25, 1, 1]]))
    np.testing.assert_allclose(table.area(found, 40), [(0.5 * 20 + 1 * 10) / 40, 0.25])
    np.testing.assert_allclose(table.at(found, np.array([0, 9, 10, 35])), [[0, 0, 0.5, 1], [0.25] * 4])


def test_a_rival_ends_with_its_newest_evaluations_and_ooo_with_what_it_deployed(rivals):
    table, success = rivals['rivals_table'], [[0, 1, 1, 0, 0], [0, 0, 0, 0, 1]]
    steps = [[0, 10, 20, 30, 40]] * 2
    np.testing.assert_allclose(table.final(result('wsrl', steps, success)), [0.5, 0.25])
    np.testing.assert_allclose(table.final(result('ooo', steps, success, trials={})), [0, 1])


def test_methods_that_were_not_run_are_said_to_be(rivals):
    table, steps = rivals['rivals_table'], [[0, 10]] * 2
    results = {
        table.Cell('maze', 'ooo'): result('ooo', steps, [[0, 1], [0, 1]], trials={}),
        table.Cell('maze', 'rlpd'): result('rlpd', steps, [[0, 0], [0, 0]]),
    }
    text = table.table(results)
    assert '| WSRL | not run |' in text and 'maze, 2 seeds' in text
    assert '+1.00 (too few)' in text


def test_added_seeds_stand_behind_the_first_and_by_themselves(rivals):
    table, steps = rivals['rivals_table'], [[0, 10]] * 2
    cell, other = table.Cell('maze', 'ooo'), table.Cell('maze', 'rlpd')
    results = {cell: result('ooo', steps, [[0, 1], [0, 1]], trials={}), other: result('rlpd', steps, [[0, 0], [0, 0]])}
    added = {cell: result('ooo', [[0, 9]], [[0, 0.5]], trials={})}
    assert table.joined(results, added) == results  # the other method lacks them
    added[other] = result('rlpd', [[0, 9]], [[0, 0]])
    assert table.joined(results, added)[cell]['success'] == [[0, 1], [0, 1], [0, 0.5]]


def test_bounds_say_by_seed_whether_there_is_a_way(rivals, tmp_path):
    (tmp_path / 'rivals-maze-ooo.json').write_text(json.dumps(result('ooo', [[0, 9]] * 3, [[0, 1], [0, 0.5], [0, 0]])))
    none = {'rows': 9, 'success_rows': 0, 'steps': None, 'reached': 0.0}
    seeds = {'3': {**none, 'success_rows': 2, 'steps': 4.2, 'reached': 0.5}, '4': {**none, 'success_rows': 1}, '5': none}
    found = {'maze': {'alone': {**none, 'rows': 7}, 'seeds': seeds}}
    last = rivals['rivals_bound'].table(found, tmp_path).splitlines()[-1]
    assert last == '| maze | 7 | 2 | 0 + 2, 1, 0 | 4 (50%), no way, no success | 1.00, 0.50, 0.00 |'
