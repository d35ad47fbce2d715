"""Random network distillation against numbers recorded from OOO's code."""

import golden
import jax
import jax.numpy as jnp
import optax
import pytest

from ooorl.nn import moments
from ooorl.signals.novelty import RNDConfig, _normalised, _rnd_parts
from ooorl.types import Spec

pytestmark = pytest.mark.usefixtures('highest_precision')
CONFIG = RNDConfig(hidden=(8,), num_features=6)


def _check_moments(comparison, prefix, suffix, running):
    comparison.check('value', f'{prefix}_mean_{suffix}', moments.mean(running))
    comparison.check('value', f'{prefix}_var_{suffix}', moments.deviation(running, floor=0.0) ** 2)


def test_ooo_rnd(golden_dir):
    arrays = golden.load(golden_dir, 'ooo_rnd_5batches')
    parts = _rnd_parts(Spec(observation_dim=5, action_dim=3), CONFIG, golden.recorded_gradient())
    state = parts.init(jax.random.key(0))._replace(
        predictor=golden.dense_tree(arrays, 'init/pred'), target=golden.dense_tree(arrays, 'init/targ')
    )
    step_fn, comparison = jax.jit(parts.step), golden.Comparison(arrays)
    for step in range(1, 6):
        prefix, batch, old = f'step{step}', golden.batch(arrays, step), state
        mask = jnp.asarray(arrays['uniform_draws'][step - 1] < CONFIG.mask_probability, jnp.float32)
        state, score, metrics = step_fn(old, batch, mask)
        _check_moments(comparison, f'{prefix}/obs', 'before', old.observations)
        _check_moments(comparison, f'{prefix}/bonus', 'before', old.bonuses)
        comparison.check('value', f'{prefix}/x_norm', _normalised(old.observations, batch.next_observation, CONFIG.clip))
        comparison.check('value', f'{prefix}/err_before', parts.errors(old, old.predictor, batch))
        comparison.check('value', f'{prefix}/err_after', parts.errors(old, state.predictor, batch))
        comparison.check('scalar', f'{prefix}/rnd_loss', metrics['loss'])
        comparison.check('scalar', f'{prefix}/gnorm_rnd', optax.tree.norm(state.predictor_opt[0]))
        comparison.check_tree('gradient', f'{prefix}/grad/pred', state.predictor_opt[0])
        comparison.check_tree('parameter', f'{prefix}/after/pred', state.predictor)
        comparison.check('value', f'{prefix}/bonus', score)
        comparison.check('value', f'{prefix}/bonus_raw', parts.errors(old, state.predictor, batch).max(axis=-1))
        comparison.check('scalar', f'{prefix}/count_after', state.observations.count.total)
        _check_moments(comparison, f'{prefix}/obs', 'after', state.observations)
        _check_moments(comparison, f'{prefix}/bonus', 'after', state.bonuses)
    print(comparison.worst)


def test_an_empty_mask_has_no_gradient_but_momentum(golden_dir):
    # The fourth recorded batch has an empty mask: the file's own predictor moves although its gradient is zero.
    arrays = golden.load(golden_dir, 'ooo_rnd_5batches')
    assert not arrays['mask'][3].any()
    assert arrays['step4/gnorm_rnd'] == 0.0
    assert abs(arrays['step4/after/pred/w0'] - arrays['step3/after/pred/w0']).max() > 1e-6
