"""HL-Gauss against exact bin masses; a public implementation's numbers are sqrt(2) too wide and must not be met."""

import golden
import jax
import numpy as np
import pytest

from ooorl.nn.heads import hl_gauss_head

CASES = {'m100_0_128': (-100.0, 0.0, 128), 'm1_1_11_s0.3': (-1.0, 1.0, 11)}


@pytest.mark.parametrize('case', CASES)
def test_hl_gauss(golden_dir, case):
    arrays = golden.load(golden_dir, 'hl_gauss')
    low, high, num_bins = CASES[case]
    width = (high - low) / num_bins
    head = hl_gauss_head(low, high, num_bins, sigma_ratio=float(arrays[f'{case}/sigma_nominal']) / width)
    comparison, target = golden.Comparison(arrays), jax.numpy.asarray(arrays[f'{case}/targets'])

    # At logits 0 the loss is sum_k p_k log K, so the gradient in the logits is softmax - p: it gives away p.
    uniform = np.zeros((len(target), num_bins), np.float32)
    gradient = jax.grad(lambda raw: head.loss(raw, target).sum())(uniform)
    probabilities = 1 / num_bins - np.asarray(gradient, np.float64)
    exact = arrays[f'{case}/probs_exact_sigma_nominal']
    np.testing.assert_allclose(probabilities, exact, atol=2e-6)
    assert np.abs(probabilities - arrays[f'{case}/probs_released']).max() > 0.05

    for logits, entropy in zip(arrays[f'{case}/logits'], arrays[f'{case}/cross_entropy_exact_sigma_nominal'], strict=True):
        comparison.check_numbers('scalar', 'cross entropy', head.loss(logits, target), entropy)
    decoded = head.value(np.log(np.maximum(exact, 1e-37)).astype(np.float32))
    comparison.check_numbers('value', 'decoded', decoded, arrays[f'{case}/decoded_exact_sigma_nominal'])
    print(case, np.abs(probabilities - exact).max(), comparison.worst)
