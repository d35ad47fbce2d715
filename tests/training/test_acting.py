"""Acting where environments step on the host: the same actions with a copy of what is read, on a device of its own."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
from conftest import PATIENCE, ROOT
from line_world import HORIZON, LineEnv
from small import trees_equal

from ooorl import mapping
from ooorl.envs import host
from ooorl.training import run as running
from ooorl.training.acting import reads
from ooorl.training.phases import Setup, online
from ooorl.training.sampling import Sampling
from ooorl.types import Agent


def agent():
    """Acts with its policy and its temperature, and learns a value that acting does not read."""

    def act(state, observation, key):
        return jnp.tanh(state['policy'] + state['temperature'] * jax.random.normal(key, observation.shape))

    def update(state, batch, key):
        value = state['value'] + 0.1 * (batch.reward.mean() - state['value'])
        return {**state, 'value': value, 'policy': state['policy'] + 0.1 * value}, {'value': value}

    return Agent(
        init=lambda key: {'policy': jax.random.uniform(key), 'temperature': jnp.array(0.3), 'value': jnp.zeros(())},
        update=update,
        sample_action=act,
        best_action=lambda state, observation, key: jnp.broadcast_to(state['policy'], observation.shape),
    )


def test_what_is_read_is_what_travels():
    example = agent()
    state, key = example.init(jax.random.key(0)), jax.random.key(1)
    assert reads(example.sample_action, state, jnp.zeros(1), key) == (True, True, False)  # by name: policy, temperature, value
    assert reads(example.best_action, state, jnp.zeros(1), key) == (True, False, False)
    assert reads(lambda first: first['a'], {'a': 1.0, 'b': 2.0}) == (True, False)  # what is given back is read


def test_a_run_that_acts_with_copies_gives_the_same_bits(monkeypatch):
    places = {name: host(LineEnv, (2, 2), horizon=HORIZON) for name in ('environment', 'evaluation')}
    phases = online(agent(), num_env_steps=16, num_updates=8, sampling=Sampling(batch_size=4))
    setup = Setup(phases=phases, seeds=(0, 1), updates_per_round=4, seed_group=2, **places)
    plain = list(running.iterate(setup))
    asked = []
    monkeypatch.setattr(mapping, 'acting_device', lambda: asked.append(1) or jax.devices()[0])
    copied = list(running.iterate(setup))
    assert asked and [event.rows for event in copied] == [event.rows for event in plain]
    assert trees_equal(copied[-1].state.finished, plain[-1].state.finished)


def test_an_accelerator_acts_on_the_cpu_where_there_is_one(monkeypatch):
    assert mapping.acting_device() is None  # all is there
    monkeypatch.setattr(mapping, 'on_cpu', lambda: False)
    assert mapping.acting_device() == jax.local_devices(backend='cpu')[0]

    def none(backend):
        raise RuntimeError(f'Unknown backend {backend}')

    monkeypatch.setattr(jax, 'local_devices', none)
    assert mapping.acting_device() is None


# Two devices of a CPU, of which the second stands for the CPU beside an accelerator.
TWO_DEVICES = """
import jax, numpy as np
from line_world import HORIZON, LineEnv
from test_acting import agent
from ooorl import mapping
from ooorl.envs import host
from ooorl.training.acting import acting
from ooorl.training.phases import Setup
from ooorl.training.programs import Programs

here, there = jax.devices()
programs, one = Programs(Setup(phases=(), seeds=(0,))), agent()
state = jax.jit(jax.vmap(one.init))(jax.random.split(jax.random.key(0), 1))
words, observation = np.asarray([0, 7], np.uint32), np.ones((1, 2, 1), np.float32)
near = acting(programs, ('act', one), one.sample_action, state)(observation, words)
assert near.devices() == {here}, near.devices()
mapping.acting_device = lambda: there
programs = Programs(Setup(phases=(), seeds=(0,)))
far = acting(programs, ('act', one), one.sample_action, state)
assert far(observation, words).devices() == {there}
np.testing.assert_array_equal(far(observation, words), near)
"""


def test_copies_act_on_the_device_that_they_lie_on():
    environment = {**os.environ, 'JAX_NUM_CPU_DEVICES': '2', 'PYTHONPATH': os.pathsep.join(map(str, _places()))}
    done = subprocess.run([sys.executable, '-c', TWO_DEVICES], env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr


def _places():
    return ROOT, ROOT / 'tests', ROOT / 'tests' / 'support', ROOT / 'tests' / 'training'
