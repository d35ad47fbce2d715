"""Every config that comes with the project resolves and builds phases whose counts divide and whose updates fit the data.

Updates are traced at full size and not executed; executing agents is the business of their own tests.
"""

import tomllib

import jax
import jax.numpy as jnp
import pytest
from conftest import ROOT
from small import random_batch

from ooorl import catalogue, envs
from ooorl.errors import UsageError
from ooorl.nn import schedules
from ooorl.runner import build, config
from ooorl.training import replay
from ooorl.training.learn import make_learn
from ooorl.training.sampling import Sampling
from ooorl.types import Spec
from ooorl.wrap import with_extras

WRITTEN = sorted(path for path in (ROOT / 'configs').rglob('*.toml') if path.parent.name != 'presets')
CONFIGS = WRITTEN + [ROOT / 'ooorl' / 'runner' / 'demo.toml']
ROWS = 12


def resolved(path):
    return config.resolve(tomllib.loads(path.read_text(encoding='utf-8')))


def spec_of(settings):
    """Sizes from the environment, or from the catalogue where its packages are absent."""
    name, task = settings['environment']['id'], settings['dataset']['task'] or settings['evaluation']['task']
    if name in envs.TASKS:
        return envs.make_task(name, **_tuples(settings['environment']['settings'])).spec
    if task:
        entry = catalogue.lookup(task)
        return Spec(observation_dim=entry.observation_dim, action_dim=entry.action_dim)
    if not name or ':' in name:  # none, or one of an experiment's own: any size does
        return Spec(observation_dim=3, action_dim=2)
    try:
        return envs.make(name, (1,), **_tuples(settings['environment']['settings'])).spec
    except (UsageError, ImportError) as error:
        pytest.skip(f'{name} cannot be made here: {error}')


def _tuples(table):
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


def data_of(spec):
    batch = random_batch(jax.random.key(0), ROWS, observation_dim=spec.observation_dim, action_dim=spec.action_dim)
    return with_extras(batch, boundary=(jnp.arange(ROWS) == 9).astype(jnp.float32))


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_a_config_builds_and_its_updates_fit(path, monkeypatch):
    # Ten critics in one tree, as on an accelerator: a tenth of the tracing. Trees of their own have the same shapes.
    monkeypatch.setattr('ooorl.nn.networks.stacks_members', lambda: True)
    settings = resolved(path)
    spec = spec_of(settings)
    data = data_of(spec)
    phases = build.build_phases(settings, spec, data)
    seen = set()
    for phase in phases:
        if phase.num_updates and (id(phase.agent), phase.sampling.success_rows) not in seen:
            seen.add((id(phase.agent), phase.sampling.success_rows))
            _one_update(phase, data, spec)
    assert seen


def _one_update(phase, data, spec):
    sampling = Sampling(**{**vars(phase.sampling), 'batch_size': 4 * 20, 'success_rows': min(phase.sampling.success_rows, 2)})
    learn = make_learn(phase.agent, sampling, num_updates=1, streams={'dataset': 1})

    def step(key, data):
        state = schedules.begin(phase.agent.init(key), phase.num_updates)
        if phase.agent.observe is not None:
            state = phase.agent.observe(state, data)
        return learn(state, {'dataset': replay.full(data)}, key)

    # Shapes only: whole networks of 256 units are compiled elsewhere.
    state, metrics = jax.eval_shape(step, jax.random.key(0), data)
    assert all(metric.shape == () for metric in metrics.values()) and metrics
    action = jax.eval_shape(phase.agent.best_action, state, data.observation, jax.random.key(0))
    assert action.shape == (ROWS, phase.agent.chunk * spec.action_dim)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_counts_of_a_config_divide(path):
    from types import SimpleNamespace

    from ooorl.training.phases import Setup, round_sizes
    from ooorl.training.preflight import check

    settings = resolved(path)
    spec = spec_of(settings)
    batch = data_of(spec)
    phases = build.build_phases(settings, spec, batch)
    copies = SimpleNamespace(name='copies', batch_shape=(settings['environment']['num_envs'],), horizon=100)
    size = settings['run']['updates_per_round']
    setup = Setup(phases=phases, seeds=(0,), dataset=batch, environment=copies, updates_per_round=size)
    check(setup)
    for phase in phases:
        assert sum(updates for updates, _ in round_sizes(phase, setup)) == phase.num_updates
