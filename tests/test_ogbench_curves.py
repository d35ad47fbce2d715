"""The experiment beside published OGBench curves: which settings a cell has, what its result and table say."""

import importlib
import json
from pathlib import Path

import pytest
import tomli_w

from ooorl.errors import UsageError
from ooorl.runner import config

FOLDER = Path(__file__).parent.parent / 'experiments'


@pytest.fixture(scope='module')
def curves():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module('ogbench_curves')


KNOBS = {
    'ifql': ('expectile', 0.95), 'fql': ('distil_weight', 300.0), 'edit': ('edit_scale', 0.2), 'rebrac': ('cloning_weight', 0.1),
    'parl': ('expectile', 0.95), 'dsrl': ('noise_bound', 1.0), 'qam': ('inverse_temperature', 3.0),
}


@pytest.mark.parametrize('method', KNOBS)
def test_a_cell_has_its_size_and_its_tuned_settings(curves, method):
    assert set(curves.METHODS) == set(KNOBS)
    cell = curves.parse_cell(f'puzzle-3x3:2:{method}:full')
    settings = config.resolve(curves.settings_of(cell, 'data.npz', '0:3', 100, ['evaluation.num_episodes=7']))
    agent, steps = settings['agent'], 2 if method == 'rebrac' else 1
    tables = [table for table in (agent, agent.get('policy'), agent.get('critic')) if table and 'hidden' in table]
    assert settings['environment']['id'] == 'puzzle-3x3-play-singletask-task2-v0'
    assert settings['environment']['settings'] == {'reward': 'sparse'}
    assert (settings['run']['seeds'], settings['evaluation']['num_episodes']) == ('0:3', 7)
    assert settings['offline']['num_updates'] * steps == 2 * settings['run']['evaluate_every'] * steps == 100
    assert all(table['hidden'] == [512] * 4 for table in tables)
    critic = agent.get('critic', agent)
    assert (critic['num_critics'], critic['aggregate'], agent['chunk']) == (10, 'lower', 5)
    assert agent['sampling']['batch_size'] == 256 * steps
    name, value = KNOBS[method]
    assert agent.get(name, critic.get(name)) == value


def test_cubes_have_the_dense_rewards_that_are_published(curves):
    settings = curves.settings_of(curves.parse_cell('cube-double:3:rebrac:tiny'), 'data.npz', '0:2', 100, [])
    assert settings['environment']['settings'] == {'reward': 'dense'} and settings['agent']['cloning_weight'] == 0.01
    assert 'cube-double' not in {cell.family for cell in curves.all_cells()}


def test_updates_of_a_table_are_steps_of_the_critic(curves):
    result = {'cell': 'scene:1:rebrac:small', 'curve': {'updates': [25_000], 'success': [[0.5]]}, 'dataset': {}}
    known = {('scene-play-singletask-task1-v0', 'ReBRAC', 50_000): (0.69, 0.24)}
    assert '| 50,000 | 0.50 | 0.50 | 0.69 ± 0.24 | yes |' in curves.table({'x': result}, known)


BAD = ['scene:1:ifql', 'scene:6:ifql:small', 'ant:1:ifql:small', 'scene:1:ifql:small:x', 'scene:1:x:full']


@pytest.mark.parametrize('text', BAD)
def test_cells_that_there_are_not(curves, text):
    with pytest.raises(UsageError, match='--cells takes FAMILY:TASK:METHOD:SIZE'):
        curves.parse_cell(text)


def test_results_are_collected_from_a_run_directory_and_compared(curves, tmp_path):
    cell = curves.parse_cell('scene:1:ifql:small')
    settings = curves.settings_of(cell, '/home/somebody/scene.npz', '0:2', 100_000, [])
    run = tmp_path / 'run'
    run.mkdir()
    (run / 'config.toml').write_text(tomli_w.dumps(settings | {'offline': {'num_updates': 100_000}}))
    rows = [
        {'kind': 'eval', 'updates': updates, 'seed': seed, 'success': success + 0.1 * seed, 'length': 9.0, 'return': -9.0}
        for updates, success in ((50_000, 0.5), (100_000, 0.9))
        for seed in (0, 1)
    ]
    rows.append({'kind': 'eval', 'updates': 150_000, 'seed': 0, 'success': 1.0})  # the other seed has not come so far
    (run / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, rows)) + '\n')
    result = curves.collected(cell, run)
    assert result['curve']['updates'] == [50_000, 100_000] and result['curve']['success'] == [[0.5, 0.6], [0.9, 1.0]]
    assert 'somebody' not in json.dumps(result) and result['config']['dataset']['path'] == 'scene.npz'
    (tmp_path / 'published.csv').write_text(
        'task,method,updates,seeds,success_mean,success_std\n'
        'scene-play-singletask-task1-v0,IFQL,50000,12,0.96,0.04\nscene-play-singletask-task1-v0,IFQL,100000,12,0.99,0.03\n'
    )
    (tmp_path / 'ogbench_curves-x.json').write_text(json.dumps(result))
    text = curves.table(curves.read_results(tmp_path), curves.published(tmp_path / 'published.csv'))
    assert '| scene 1 | IFQL | small | 0 | 50,000 | 0.50 0.60 | 0.55 | 0.96 ± 0.04 | no, by -0.41 |' in text
    assert '| 0.95 | 0.99 ± 0.03 | yes |' in text
    assert 'no point there' in curves.table({str(cell): result}, {})


def test_long_curves_are_thinned_and_keep_their_end(curves):
    rows = [{'kind': 'train', 'updates': 10 * n, 'seed': 0, 'q/mean': n} for n in range(1, 94)]
    curve = curves._curve(rows, 'train', (0,), ('q/mean', 'value/mean'))
    assert curve['updates'][-1] == 930 and len(curve['updates']) <= 20 and set(curve) == {'updates', 'q/mean'}


def test_seeds_of_one_setting_are_pooled_beside_the_released_code_and_drawn(curves, tmp_path):
    cell = {'cell': 'puzzle-3x3:1:edit:small', 'dataset': {}}
    point = {'updates': [25_000, 50_000], 'success': [[0.75], [0.75]]}
    more = {'updates': [50_000], 'success': [[0.25]]}
    other = {'cell': 'puzzle-3x3:1:rebrac:small', 'dataset': {}, 'curve': {'updates': [25_000], 'success': [[0.0, 0.0]]}}
    written = {
        'ogbench_curves-a': cell | {'curve': point}, 'ogbench_curves-b': cell | {'curve': more, 'label': 'seed-1'},
        'ogbench_curves-c': other, 'ogbench_curves-d': cell | {'curve': more, 'label': 'drop-seed-3'},
        'ogbench_released-e': cell | {'curves': {'9 rows': {'updates': [50_000], 'success': [[0.75, 0.5, 0.625]]}}},
    }  # fmt: skip
    for name, result in written.items():
        (tmp_path / f'{name}.json').write_text(json.dumps(result))
    known = {('puzzle-3x3-play-singletask-task1-v0', 'FEdit', 50_000): (0.8, 0.1)}
    found = curves.all_curves(tmp_path)
    text = curves.ogbench_figures.table(found, known)
    assert '| puzzle-3x3 1 | FEdit | ours, small | 50,000 | 0.75 0.25 | 0.50 | 0.80 ± 0.10 | no, by -0.30 |' in text
    assert '| ours, small, drop | 50,000 | 0.25 |' in text
    assert '| released code, 9 rows | 50,000 | 0.75 0.50 0.62 | 0.62 [0.31, 0.94] | 0.80 ± 0.10 | yes |' in text
    [path] = curves.ogbench_figures.figures(found, known, tmp_path)
    assert path.name == 'ogbench_curves-puzzle-3x3-1.svg' and '<svg' in path.read_text()
