"""What the experiment on irreversibility says of its targets, on results made up for it."""

import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / 'experiments'


@pytest.fixture(scope='module')
def table():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module('irreversibility_table')


def _cell(success, interventions, over=0):
    counts = dict.fromkeys(('help', 'horizon', 'false_alarms', 'label_queries', 'irreversible_steps'), [1.0, 1.0, 1.0])
    return {**counts, 'success': [success] * 3, 'interventions': [interventions] * 3, 'most_over_bound': [over] * 3}


def test_targets_are_held_failed_or_untested(table):
    results = {'maze:paint': _cell(0.95, 10), 'maze:episodic': _cell(0.95, 50), 'cliffs:paint': _cell(0.95, 11)}
    results |= {'cliffs:episodic': _cell(0.9, 50), 'cliffs:naive': _cell(0.1, 3, over=1)}
    for b in table.BUDGETS:
        results |= {f'maze:plan@{b}': _cell(0.5, b), f'maze:fixed@{b}': _cell(0.4 if b < 20 else 0.5, b)}
    lines = {line.partition(':')[0] + line.partition(':')[2].partition(':')[0]: line for line in table.targets(results)}
    said = '\n'.join(lines.values())
    assert 'maze: paint at least 0.9 and 5 times fewer interventions than episodic at equal success: held' in said
    assert 'held (0.95 against 0.95; 10.0 and 50.0 until 0.95, 5.0 times)' in said
    assert 'failed (0.95 against 0.90; 11.0 and 50.0 until 0.90, 4.5 times)' in said
    # The more successful one is counted up to where it did as well as the other.
    early = {'success': [[0.5, 0.7], [0.9, 0.9], [1, 1]], 'interventions': [[1, 1], [4, 8], [50, 50]]}
    results['cliffs:paint'] |= {'curve': early}
    assert 'held (0.95 against 0.90; 6.0 and 50.0 until 0.90, 8.3 times)' in '\n'.join(table.targets(results))
    assert 'tabletop: paint at least 0.9 and 5 times fewer interventions than episodic at equal success: untested' in said
    assert 'maze: plan above fixed at every budget: failed' in said
    assert 'cliffs: plan above fixed at every budget: untested' in said
    assert 'label queries of a life never above 1 + ceil(log2 T): failed' in said
    caution = {'maze:ooo': _cell(0.5, 0), 'maze:ooo_cautious': {**_cell(0.5, 0), 'irreversible_steps': [0.5] * 3}}
    assert 'halves irreversible visits: held' in '\n'.join(table.targets(caution))
    visits = {name: {**one, 'lost_lives': [lost]} for (name, one), lost in zip(caution.items(), (9, 5), strict=True)}
    assert 'halves irreversible visits: failed' in '\n'.join(table.targets(visits))
    assert '| maze:paint | 0.95 [' in table.table(results)
