"""Programs made before they are wanted: the same programs, made once, by whoever comes first."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from line_world import line_task
from small import trees_equal

from ooorl.envs import batched
from ooorl.training import run as running
from ooorl.training.phases import Setup, ooo
from ooorl.training.programs import Job, Programs
from ooorl.training.sampling import Sampling
from ooorl.types import Agent, Transition


def mean_reward():
    """An agent that learns the mean of the rewards it is given, and acts with it."""
    return Agent(
        init=jax.random.uniform,
        update=lambda state, batch, key: (state + 0.1 * (batch.reward.mean() - state), {'state': state}),
        sample_action=lambda state, observation, key: jnp.tanh(state + jax.random.normal(key, observation.shape)),
        best_action=lambda state, observation, key: jnp.broadcast_to(state, observation.shape),
    )


def setup():
    n = np.arange(20, dtype=np.float32)
    data = Transition(
        observation=n[:, None], action=np.zeros((20, 1), np.float32), reward=np.sin(n), discount=np.ones(20, np.float32),
        next_observation=n[:, None] + 1, extras={'boundary': np.float32(n % 5 == 4)},
    )  # fmt: skip
    sampling = Sampling(batch_size=8, success_rows=2, success_reward=0.5)
    phases = ooo(
        mean_reward(), mean_reward(), pretrain_updates=7, num_env_steps=24, explore_updates=12, retrain_updates=6,
        retrain_at=(0, 24), explore_sampling=sampling, retrain_sampling=sampling,
    )  # fmt: skip
    environments = {name: batched(line_task(), 2) for name in ('environment', 'evaluation')}
    return Setup(phases=phases, seeds=(0, 1), dataset=data, updates_per_round=5, seed_group=2, **environments)


def workers():
    return [thread for thread in threading.enumerate() if thread.name == 'compile']


def patient(monkeypatch):
    """Whoever expects programs waits for all of them; returns the keys that are lowered from now on, and by which thread."""
    begin, lower, lowered = Programs.expect, Job.lower, []

    def expect(self, jobs):
        begin(self, jobs)
        for thread in workers():
            thread.join()

    def note(self):
        lowered.append((self.key, threading.current_thread().name))
        return lower(self)

    monkeypatch.setattr(Programs, 'expect', expect)
    monkeypatch.setattr(Job, 'lower', note)
    return lowered


def test_programs_made_ahead_are_those_of_the_run_and_give_the_same_bits(monkeypatch):
    shared = setup()
    plain = list(running.iterate(shared))
    lowered = patient(monkeypatch)
    made = list(running.iterate(shared, ahead=True))
    assert [event.rows for event in made] == [event.rows for event in plain]
    assert trees_equal(made[-1].state.finished, plain[-1].state.finished)
    keys = [key for key, _ in lowered]
    assert len(keys) == len(set(keys))  # what was made ahead fitted
    kinds = {key if isinstance(key, str) else key[0] for key, name in lowered if name == 'compile'}
    assert kinds == {'init', 'start', 'learn', 'known', 'cycles', 'evaluate'}


def test_a_program_made_for_other_shapes_or_in_vain_is_made_again(monkeypatch):
    programs, vectors = Programs(setup()), jax.ShapeDtypeStruct((2,), jnp.float32)
    patient(monkeypatch)

    def broken(x):
        raise ArithmeticError('cannot be traced')

    functions = {'sum': jnp.sum, 'broken': broken, 'twice': lambda x: 2 * x}
    programs.expect(Job(name, function, (vectors,)) for name, function in functions.items())
    assert programs.call('sum', jnp.sum, jnp.arange(3.0)) == 3.0
    assert programs.call('twice', broken, jnp.ones(2)).tolist() == [2.0, 2.0]  # what was expected under this name
    with pytest.raises(ArithmeticError, match='cannot be traced'):
        programs.call('broken', broken, jnp.ones(2))


def test_nothing_is_made_after_the_run_has_ended():
    programs, asked = Programs(setup()), []

    def jobs():
        for number in range(100):
            asked.append(number)
            programs.close()
            yield Job(number, jnp.sin, (jax.ShapeDtypeStruct((), jnp.float32),))

    programs.expect(jobs())
    for thread in workers():
        thread.join()
    assert asked == [0]
