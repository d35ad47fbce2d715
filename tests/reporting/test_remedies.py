"""Sentences on settings: each rule on the numbers that set it off and on those that do not."""

import numpy as np
import pytest
import tomli_w

from ooorl.reporting.remedies import remedies
from ooorl.training.walks import walks

CONFIG = {
    'exploit': {'polyak': 0.02, 'sampling': {'batch_size': 64, 'success_rows': 8}},
    'explore': {'polyak': 0.02, 'bonus': {'scale': 10.0, 'normaliser': 'deviation'}},
}


def told(phase, *rows, kind='diagnostics', **config):
    """Names and sentences for rows of one phase, one a seed."""
    summary = {
        'kind': 'ooo', 'seeds': list(range(len(rows))), 'config_text': tomli_w.dumps({**CONFIG, **config}),
        'phases': [{'name': phase, 'num_updates': 1000}],
    }  # fmt: skip
    made = [{'kind': kind, 'phase': phase, 'seed': seed, **row} for seed, row in enumerate(rows)]
    return [(one.name, one.sentence) for one in remedies(summary, made)]


def test_few_rows_of_a_batch():
    rows = [{'policy/effective_rows': n, 'policy/capped': 0.25, 'policy/advantage_deviation': 2.0} for n in (4.0, 6.0, 40.0)]
    ((name, sentence),) = told('retrain@20', *rows, kind='train')
    assert name == 'few rows' and '5.0 of them, 25% at the cap' in sentence and 'inverse_temperature' in sentence
    assert told('retrain@20', rows[0], rows[2], rows[2], kind='train') == []  # fewer than half of the seeds


def test_few_rows_of_a_selection():
    ((_, sentence),) = told('retrain@20', {'mix/effective_rows': 1.0})
    assert '1.0 of them' in sentence and 'weight_temperature' in sentence
    assert told('retrain@20', {'mix/effective_rows': 10.0}) == []


def test_windows_that_no_episode_is_long_enough_for():
    exploit = {'sampling': {'batch_size': 64}, 'backup_steps': 40}
    ((name, sentence),) = told('retrain@20', {'chunk/weight': 0.02}, kind='train', exploit=exploit)
    assert name == 'few rows' and '40 steps long, weigh 2% on average' in sentence and 'lower backup_steps' in sentence
    assert told('retrain@20', {'chunk/weight': 0.16}, kind='train', exploit=exploit) == []  # 10.2 rows


def test_a_bonus_that_hides_the_reward_and_is_a_constant():
    found = dict(told('explore', {'bonus/size': 12.0, 'bonus/spread': 0.5, 'bonus/reward_size': 1.0}))
    assert 'from 10 to 0.83' in found['dominant bonus'] and 'normaliser = "none"' in found['constant bonus']
    assert told('explore', {'bonus/size': 0.5, 'bonus/spread': 0.01, 'bonus/reward_size': 1.0}) == []


def test_values_that_had_no_time():
    # 1,000 updates at 0.02 move values by 20 steps.
    ((name, sentence),) = told('retrain@20', {'dataset/longest_success': 15.0, 'online/longest_success': 30.0})
    assert name == 'too little time' and '20 steps' in sentence and '1,500 updates' in sentence
    assert told('retrain@20', {'online/longest_success': 20.0}) == []


def test_nothing_to_imitate():
    ((name, _),) = told('retrain@20', {'dataset/successes': 0.0, 'online/successes': 0.0})
    assert name == 'nothing to imitate'
    assert told('retrain@20', {'dataset/successes': 0.0, 'online/successes': 2.0}) == []
    assert told('retrain@20', {'dataset/successes': 0.0}, exploit={'sampling': {'success_rows': 0}}) == []


def test_walks_by_hand():
    # Two streams: episodes of 4 and 2 rows, and one of 6 that is not finished.
    reward = np.array([[0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 0, 1]]).T
    boundary = np.array([[0, 0, 0, 1, 0, 1], [0, 0, 0, 0, 0, 0]]).T
    found = walks(reward, boundary, 1.0)
    assert found == {'episodes': 3, 'successes': 2, 'longest_success': 4, 'longest_stay': 2, 'median_stay': 1.5}
    assert walks(0 * reward, boundary, 1.0)['longest_success'] == pytest.approx(0)
