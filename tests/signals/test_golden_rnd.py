"""Random network distillation against numbers recorded from OOO's code."""

import golden
import jax
import optax
import pytest
from draws import Replay

from ooorl.interpreted import interpreted
from ooorl.nn import moments
from ooorl.signals.novelty import RNDConfig, rnd
from ooorl.types import Spec

pytestmark = pytest.mark.usefixtures('highest_precision')
CONFIG = RNDConfig(hidden=(8,), num_features=6)


def _check_moments(comparison, prefix, suffix, running):
    comparison.check('value', f'{prefix}_mean_{suffix}', moments.mean(running))
    comparison.check('value', f'{prefix}_var_{suffix}', moments.deviation(running, floor=0.0) ** 2)


def _check_state(comparison, prefix, suffix, state):
    _check_moments(comparison, f'{prefix}/obs', suffix, state.observations)
    _check_moments(comparison, f'{prefix}/bonus', suffix, state.bonuses)


def test_ooo_rnd(golden_dir):
    arrays = golden.load(golden_dir, 'ooo_rnd_5batches')
    comparison, replay = golden.Comparison(arrays), Replay('uniform')
    signal = rnd(Spec(observation_dim=5, action_dim=3), CONFIG, grad_transform=replay.grad_transform)
    score = interpreted(signal.score)
    state = interpreted(signal.init)(jax.random.key(0))._replace(
        predictor=golden.dense_tree(arrays, 'init/pred'), target=golden.dense_tree(arrays, 'init/targ')
    )
    for step in range(1, 6):
        prefix, batch, old = f'step{step}', golden.batch(arrays, step), state
        _check_state(comparison, prefix, 'before', old)
        deviation = moments.deviation(old.bonuses)
        before = arrays[f'{prefix}/err_before'].max(axis=-1)
        comparison.check_numbers('value', 'largest error', score(old, batch) * deviation, before)
        draws = [arrays['uniform_draws'][step - 1]]
        state, bonus, metrics = replay.run(signal.update, draws, old, batch, jax.random.key(step))
        (gradient,) = replay.gradients
        comparison.check('scalar', f'{prefix}/rnd_loss', metrics['loss'])
        comparison.check('scalar', f'{prefix}/gnorm_rnd', optax.tree.norm(gradient))
        comparison.check_tree('gradient', f'{prefix}/grad/pred', gradient)
        comparison.check_tree('parameter', f'{prefix}/after/pred', state.predictor)
        comparison.check('value', f'{prefix}/bonus', bonus)
        comparison.check('value', f'{prefix}/bonus_raw', bonus * deviation)
        comparison.check_numbers('value', 'largest error', bonus * deviation, arrays[f'{prefix}/err_after'].max(axis=-1))
        comparison.check('scalar', f'{prefix}/count_after', state.observations.count.total)
        _check_state(comparison, prefix, 'after', state)
    print(comparison.worst)


def test_an_empty_mask_has_no_gradient_but_momentum(golden_dir):
    # The fourth recorded batch has an empty mask: the file's own predictor moves although its gradient is zero.
    arrays = golden.load(golden_dir, 'ooo_rnd_5batches')
    assert not arrays['mask'][3].any()
    assert arrays['step4/gnorm_rnd'] == 0.0
    assert abs(arrays['step4/after/pred/w0'] - arrays['step3/after/pred/w0']).max() > 1e-6
