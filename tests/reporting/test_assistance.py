"""What help cost and what its detector was worth, from rows as a run leaves them, counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ooorl.reporting import assistance
from ooorl.signals.calibration import calibration, tallied, tally
from ooorl.types import Signal, Transition

SCORE, LABEL = np.array([0.05, 0.12, 0.55, 0.58, 0.95, 0.3]), np.array([0, 0, 0, 1, 1, -1])


def _counted():
    found = {name: float(value) for name, value in tally(jnp.asarray(SCORE), jnp.asarray(LABEL)).items()}
    return found, *(np.array([found[f'{side}_in_{k}'] for k in range(10)]) for side in ('reversible', 'irreversible'))


def test_a_histogram_of_scores_says_what_the_scores_say():
    found, good, bad = _counted()
    assert len(found) == 20 and (good * 6).round().tolist() == [1, 1, 0, 0, 0, 1, 0, 0, 0, 0]
    assert bad.sum() == pytest.approx(2 / 6)
    # Of 6 pairs 5 are in order and one, 0.55 and 0.58, ties in its bin. Above one half: one of three, both of two.
    area, error, alarms, detected = assistance.judged(good, bad, 0.5)
    assert (area, alarms, detected) == pytest.approx((5.5 / 6, 1 / 3, 1))
    assert error == pytest.approx((0.05 + 0.15 + abs(1 - 2 * 0.55) + 0.05) / 5)
    assert calibration(SCORE, LABEL)[2:4] == pytest.approx((alarms, detected))
    assert np.isnan(assistance.judged(good, 0 * bad, 0.5)[0])


def test_signals_count_where_there_are_labels_only():
    signal = tallied(Signal(init=lambda key: (), update=lambda s, b, k: (s, b.reward, {'own': 1.0}), score=lambda s, b: b.reward))
    batch = Transition(jnp.zeros((6, 1)), jnp.zeros((6, 1)), jnp.asarray(SCORE), jnp.ones(6), jnp.zeros((6, 1)), {})
    assert signal.update((), batch, jax.random.key(0))[2] == {'own': 1.0}
    assert len(signal.update((), batch._replace(extras={'label': jnp.asarray(LABEL)}), jax.random.key(0))[2]) == 21


def test_a_report_has_costs_and_a_reliability_curve():
    found = {f'detector/{name}': value for name, value in _counted()[0].items()}
    same = {'phase': 'online', 'updates': 10, 'env_steps': 20}
    rows = [{'kind': 'counts', 'seed': seed, **same, 'help': 3.0 + seed, 'contradictions': 1.0} for seed in (0, 1)]
    rows += [{'kind': 'train', 'seed': seed, **same, **found} for seed in (0, 1)]
    summary = {'phases': [{'name': 'online'}], 'config_text': '[lives]\nthreshold = 0.9'}
    text = assistance.costs(summary, rows)
    assert all(shown in text for shown in ('3.5', 'contradictions', 'resets asked for')) and 'label queries</th>' not in text
    table, panels = assistance.detector(summary, rows)
    assert '0.92' in table and 'false alarms above 0.9' in table and 'AUROC is 0.92' in panels[0].alt
    assert assistance.costs(summary, []) == '' and assistance.detector(summary, []) == ('', [])
