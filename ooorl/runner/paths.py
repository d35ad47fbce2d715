"""How teacher and student of a distillation come from noise to actions, for the picture in the report; tasks with 2-d actions."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.nn.diffusion import path_step
from ooorl.policies import policy_kind
from ooorl.policies.averaged import fitted_of
from ooorl.policies.consistency import jumps
from ooorl.runner.config import parse
from ooorl.runner.prepare import Prepared
from ooorl.training.rounds import RunState

NUM_PLACES, NUM_DRAWS, NUM_NEAR = 3, 16, 150


def denoising_paths(prepared: Prepared, state: RunState | None) -> dict[str, np.ndarray]:
    """Arrays for `reporting.paths`; none where the run distils nothing (yet) or actions have not two numbers.

    Of the first seed, at three rows spread over the data, from the same draws of noise:

    * `paths_teacher`, `paths_student` `[places, draws, levels or 2, 2]`: the noisy action x at each level sigma on the way, as
      x / sqrt(1 + sigma^2), which begins as noise of deviation 1 and ends as the action; of chunks their first step.
    * `paths_data` `[places, rows, 2]`: actions of the data at the observations nearest to each place.
    * `paths_at` `[places, O]`: these places.
    """
    if prepared.config['run']['scheme'] != 'distil' or prepared.spec.action_dim != 2 or prepared.dataset is None:
        return {}
    if state is None or 'distil' not in state.finished:
        return {}
    own = jax.tree.map(lambda leaf: np.asarray(leaf[0]), state.finished['distil'])
    wide = replace(prepared.spec, action_dim=prepared.config['teacher']['chunk'] * prepared.spec.action_dim)
    rows = prepared.setup.dataset
    places = np.linspace(0, len(rows.reward) - 1, 2 * NUM_PLACES + 1).round().astype(int)[1::2]
    inner, mean, std = _bare(own)
    observation = (np.asarray(rows.observation) - mean) / std
    found = _walked(prepared.config, wide, inner, observation[places])
    if not all(np.isfinite(path).all() for path in found.values()):
        return {}  # the first seed diverged
    apart = ((observation[places][:, None] - observation[None]) ** 2).sum(axis=-1)
    near = np.argsort(apart, axis=1, kind='stable')[:, :NUM_NEAR]
    return {**found, 'paths_data': np.asarray(rows.action)[near], 'paths_at': np.asarray(rows.observation)[places]}


def _configured(table, kind):
    """The settings of an agent's policy, of that kind."""
    own = {key: value for key, value in table.get('policy', {}).items() if key != 'kind'}
    return parse(policy_kind(kind).config, own, '[policy]')


def _bare(state):
    """The student's own state, and the mean and deviation that its observations are normalised with."""
    mean, std = 0.0, 1.0
    while hasattr(state, 'agent'):
        if hasattr(state, 'mean'):
            mean, std = state.mean, state.std
        state = state.agent
    return state, mean, std


def _walked(config, spec, state, observation):
    kind = config['teacher']['policy']['kind']
    teacher = policy_kind(kind).builder(spec, _configured(config['teacher'], kind))
    student = _configured(config['student'], 'consistency')
    own = jumps(spec, student, teacher.levels)
    levels, seen = np.asarray(own.levels, np.float32), jnp.asarray(observation, jnp.float32)[:, None]
    noise = jax.random.normal(jax.random.key(0), (len(observation), NUM_DRAWS, spec.action_dim))

    def shown(x, sigma):
        return x[..., :2] / (1.0 + sigma**2) ** 0.5

    @jax.jit
    def walk(state, noise):
        seen_by_all = jnp.broadcast_to(seen, (*noise.shape[:-1], seen.shape[-1]))

        def step(x, ends):
            start, end = (jnp.full(noise.shape[:-1], level) for level in ends)
            x = path_step(lambda x, sigma: teacher.denoise(state.teacher, seen_by_all, x, sigma), x, start, end)
            return x, shown(x, ends[1])

        start = levels[0] * noise
        steps = jnp.stack([levels[:-1], levels[1:]], axis=-1)
        path = jax.lax.scan(step, start, steps)[1]
        begun = student.start_noise * noise
        jumped = own.jump(fitted_of(state.policy), seen_by_all, begun, levels[0], levels[-1])
        return jnp.moveaxis(path, 0, -2), shown(start, levels[0]), shown(begun, levels[0]), jumped[..., :2]

    path, start, begun, jumped = map(np.asarray, walk(state, noise))
    return {
        'paths_teacher': np.concatenate([start[..., None, :], path], axis=-2),
        'paths_student': np.stack([begun, jumped], axis=-2),
    }
