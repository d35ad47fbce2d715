"""Paths from noise to actions, of a distillation that has just begun."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from small import random_batch

from ooorl.runner import config
from ooorl.runner.build import build_phases
from ooorl.runner.paths import NUM_DRAWS, denoising_paths
from ooorl.types import Spec

SPEC = Spec(observation_dim=3, action_dim=2)
NET = {'network': 'mlp', 'hidden': [8], 'time_features': 'plain'}
EDM = {'kind': 'diffusion', 'process': 'edm', 'sampler': 'heun', 'clip': 'end', 'num_steps': 3, **NET}
TABLES = {
    'run': {'scheme': 'distil'}, 'dataset': {'path': 'x.hdf5'}, 'distil': {'num_updates': 1},
    'teacher': {'agent': 'bc', 'chunk': 2, 'policy': EDM, 'normalise_observation': True},
    'student': {
        'agent': 'distil', 'chunk': 2, 'normalise_observation': True,
        'policy': {'kind': 'consistency', 'num_levels': 4, 'start_noise': 20.0, **NET},
    },
}  # fmt: skip


def test_teacher_and_student_begin_with_the_same_noise():
    resolved, rows = config.resolve(TABLES), random_batch(jax.random.key(0), 14)
    student = build_phases(resolved, SPEC, rows)[-1].agent
    state = jax.tree.map(lambda leaf: leaf[None], student.init(jax.random.key(1)))
    prepared = SimpleNamespace(config=resolved, spec=SPEC, dataset=True, setup=SimpleNamespace(dataset=rows))
    found = denoising_paths(prepared, SimpleNamespace(finished={'distil': state}))
    teacher, jumps = found['paths_teacher'], found['paths_student']
    # 4 levels, the least of which counts as clean and stands twice: 4 steps, the last of which goes nowhere.
    assert teacher.shape == (3, NUM_DRAWS, 5, 2) and jumps.shape == (3, NUM_DRAWS, 2, 2)
    noise = jax.random.normal(jax.random.key(0), (3, NUM_DRAWS, 4))[..., :2]  # of chunks of 2 the first step
    np.testing.assert_allclose(teacher[:, :, 0], noise * 80.0 / np.hypot(80.0, 1.0), rtol=1e-5)
    np.testing.assert_allclose(jumps[:, :, 0], teacher[:, :, 0] / 4.0, rtol=1e-5)  # 20 of 80
    np.testing.assert_array_equal(found['paths_at'], np.asarray(rows.observation)[[2, 6, 11]])
    assert found['paths_data'].shape == (3, 14, 2)
    np.testing.assert_array_equal(found['paths_data'][:, 0], np.asarray(rows.action)[[2, 6, 11]])  # the nearest is itself
    lost = jax.tree.map(lambda leaf: leaf * jnp.nan if leaf.dtype == jnp.float32 else leaf, state)
    assert denoising_paths(prepared, SimpleNamespace(finished={'distil': lost})) == {}
    assert denoising_paths(prepared, SimpleNamespace(finished={'teacher': state})) == {}
