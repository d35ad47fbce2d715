"""Calibration against arithmetic done by hand."""

import numpy as np
import pytest

from ooorl.errors import UsageError
from ooorl.signals.calibration import alarm_rates, auroc, calibration, reliability


def test_auroc_counts_pairs_and_half_of_ties():
    # Pairs (irreversible, reversible): .9 beats both; .5 beats .1, ties with .5: 3.5 of 4. The unknown row is left out.
    assert auroc([0.9, 0.5, 0.1, 0.5, 0.0], [1, 1, 0, 0, -1]) == 3.5 / 4
    assert auroc([0.2, 0.3], [1, 0]) == 0.0 and np.isnan(auroc([0.2, 0.3], [0, 0]))


def test_the_curve_and_its_error():
    score, label = [0.05, 0.15, 0.95, 0.85, 1.0], [0, 1, 1, 0, 1]
    curve = reliability(score, label, bins=2)
    np.testing.assert_allclose(curve.predicted, [0.1, 2.8 / 3])
    np.testing.assert_allclose(curve.observed, [0.5, 2 / 3])
    assert curve.rows.tolist() == [2, 3]
    found = calibration(score, label, threshold=0.85, bins=2)
    assert found.expected_error == pytest.approx((2 * 0.4 + 3 * (2.8 / 3 - 2 / 3)) / 5)
    assert (found.false_alarms, found.detected) == (0.0, pytest.approx(2 / 3))  # above is strict: .85 is no alarm
    assert alarm_rates(score, label, 0.8) == (0.5, pytest.approx(2 / 3))


def test_missing_classes_and_bad_scores():
    none = calibration([], [])
    assert np.isnan([none.auroc, none.expected_error, none.false_alarms, none.detected]).all() and none.curve.rows.size == 0
    with pytest.raises(UsageError, match=r'scores in \[0, 1\]; got 0.5 to 2'):
        reliability([0.5, 2.0], [0, 1])
    with pytest.raises(UsageError, match='2 scores and 1 labels'):
        auroc([0.5, 2.0], [0])
