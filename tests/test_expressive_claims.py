"""The experiments on expressive policies: what their arms share and what their tables say of curves that are known."""

import importlib

import numpy as np
import pytest
from conftest import ROOT

from ooorl.runner import config


@pytest.fixture(scope='module')
def claims():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / 'experiments'))
        yield {name: importlib.import_module(name) for name in ('parl_claim', 'parl_table', 'black_box')}


def result(arm, scores, offline=((0.0,), (0.0,)), task='maze'):
    """Two seeds, evaluated after every 10 environment steps."""
    steps = [10 * (number + 1) for number in range(len(scores[0]))]
    online = {'updates': steps, 'env_steps': steps, 'normalised': [list(own) for own in scores]}
    return {
        'cell': f'{task}:{arm}', 'seeds': [0, 1],
        'curves': {'offline': {'eval': {'normalised': [list(own) for own in offline]}}, 'finetune': {'eval': online}},
    }  # fmt: skip


def test_arms_differ_by_their_policy_alone(claims):
    claim = claims['parl_claim']
    base, *others = [config.resolve(claim.settings_of(cell, [])) for cell in claim.all_cells() if cell.task == 'maze2d_umaze']
    assert len(others) == 4 and base['agent']['agent'] == 'calql' and not base['agent']['importance_sampling']
    for other in others:
        critic = {key: value for key, value in other['agent']['critic'].items() if key in base['agent'] and key != 'hidden'}
        assert critic == {key: base['agent'][key] for key in critic} and len(critic) > 15
        shared = {key: value for key, value in other['agent'].items() if key != 'policy'}
        assert shared == {key: value for key, value in others[0]['agent'].items() if key != 'policy'}
        assert other['agent']['sampling'] == base['agent']['sampling']
        assert {k: v for k, v in other.items() if k not in ('agent', 'name')} == {
            k: v for k, v in base.items() if k not in ('agent', 'name')
        }


def test_steps_until_a_score_are_those_of_the_smoothed_curve(claims):
    table = claims['parl_table']
    found = table.curve(result('flow', [[4, 8, 0, 8, 16], [0, 0, 0, 0, 0]]))
    np.testing.assert_array_equal(found.steps, [0, 10, 20, 30, 40, 50])
    # Means of the newest four: 0, 2, 4, 3, 5, 8; the single 8 at step 20 alone reaches nothing.
    np.testing.assert_allclose(table.smoothed(found).scores[0], [0, 2, 4, 3, 5, 8])
    np.testing.assert_array_equal(table.steps_until(found, 5.0), [40, np.inf])
    np.testing.assert_allclose(table.final(found), [8, 0])
    np.testing.assert_array_equal(table.steps_until(table.mean_curve(found), 2.5), [40])  # means 0, 1, 2, 1.5, 2.5, 4


def test_steps_that_never_came_are_beyond_the_budget(claims):
    table = claims['parl_table']
    steps = np.array([10.0, 20.0, 30.0, np.inf, np.inf])
    assert table.shown_steps(steps, 50) == '30 [10, > 50]'
    assert table.ratio(40.0, 30.0, 50) == '1.3' and table.ratio(30.0, 0.0, 50) == 'from the start'
    assert table.ratio(np.inf, 30.0, 50) == '> 1.7' and table.ratio(30.0, np.inf, 50) == '< 0.6'


def test_table_and_figure_of_known_curves(claims, tmp_path):
    table = claims['parl_table']
    results = {
        table.Cell('maze', arm): result(arm, scores)
        for arm, scores in (('calql', [[2, 4, 6, 8], [2, 4, 6, 8]]), ('flow', [[8, 8, 8, 8], [6, 6, 6, 6]]))
    }
    text = table.table(results)
    assert 'the base method ends at 5.0' in text and 'PA-RL + diffusion | not run' in text
    assert table.figures(results, tmp_path)[0].read_text().count('PA-RL + flow') == 1


def test_search_may_rank_without_climbing(claims):
    settings = config.resolve(config.read(claims['black_box'].CONFIGS / 'hopper.toml', []))
    assert settings['agent']['num_steps'] == 0


def test_a_callable_answers_with_its_own_draws_or_with_noise(claims, tmp_path):
    path = tmp_path / 'policy.npz'
    np.savez(path, W0=np.zeros((3, 2)), b0=np.array([0.5, -0.5]), log_std=np.full(2, -1.0), act='tanh', outact='clip')
    observation = np.zeros((4, 3), np.float32)
    one = claims['black_box'].one_answer(path)(observation, 3, 0)
    np.testing.assert_allclose(one, np.broadcast_to([0.5, -0.5], (3, 4, 2)))
    noisy = claims['black_box'].answers(path, 0.1)
    np.testing.assert_allclose(noisy(observation, 3, 7)[0], one[0])
    assert (noisy(observation, 3, 7)[1:] != one[1:]).all() and (noisy(observation, 1, 7) != one[:1]).all()
    draws = claims['black_box'].answers(path, 0.0)(observation, 50, 7)
    assert draws.shape == (50, 4, 2) and abs(draws.mean() - 0.0) < 0.1 and np.abs(draws).max() == 1.0
