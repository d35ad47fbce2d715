"""Faults put into a run on purpose are named, and nothing is named in a run without one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ooorl import collect, rounds, wrap
from ooorl.agents.iql import IQLConfig, iql
from ooorl.agents.td3 import TD3Config, td3
from ooorl.diagnostics import diagnose
from ooorl.envs.batched import batched
from ooorl.envs.maze import u_maze
from ooorl.learn import Sampling
from ooorl.phases import Phase, Setup
from ooorl.run import iterate
from ooorl.types import Agent

SEEDS = (0, 1, 2)
TASK = u_maze(layout=('S.G',), horizon=20)
SAMPLING = Sampling(batch_size=64, mix={'dataset': 0.5, 'online': 0.5})


def make_iql():
    return iql(TASK.spec, IQLConfig(hidden=(16, 16), learning_rate=1e-3))


def make_td3():
    config = TD3Config(hidden=(16, 16), learning_rate=1e-3, q_normalisation=2.5, cloning_weight=1.0, cloning_reduce='mean')
    return td3(TASK.spec, config)


AGENTS = {'iql': make_iql, 'td3': make_td3}


def drifting_data(num_streams=16, num_steps=100):
    """Episodes of noisy actions that drift towards the goal."""
    environment = batched(TASK, (num_streams,))

    def act(observation, key):
        return jnp.array([[0.5, 0.0]]) + 0.5 * jax.random.normal(key, (num_streams, 2))

    def make(key):
        return collect.collect(environment, act, collect.start(environment, key), key, num_steps)[1]

    rows = jax.tree.map(lambda leaf: np.array(jnp.swapaxes(leaf, 0, 1)), jax.jit(make)(jax.random.key(7)))
    rows.extras['boundary'][:, -1] = 1.0
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), rows)


def summary_of(setup):
    names = ('name', 'start', 'num_updates', 'num_env_steps')
    phases = [{name: getattr(p, name) for name in names} | {'scores': {'success': [1.0]}} for p in setup.phases]
    return {'seeds': list(setup.seeds), 'phases': phases}


def with_statistics(agent: Agent, mean: float, std: float) -> Agent:
    """Normalises observations with fixed numbers that are no part of the state."""

    def norm(observation):
        return (observation - mean) / std

    edited = wrap.edited(
        agent,
        lambda batch: batch._replace(observation=norm(batch.observation), next_observation=norm(batch.next_observation)),
    )
    return dataclasses.replace(
        edited,
        sample_action=lambda state, observation, key: agent.sample_action(state, norm(observation), key),
        best_action=lambda state, observation, key: agent.best_action(state, norm(observation), key),
        q=lambda state, observation, action: agent.q(state, norm(observation), action),
    )


def never_ending(agent: Agent) -> Agent:
    return wrap.edited(agent, lambda batch: batch._replace(discount=jnp.ones_like(batch.discount)))


def phases_with_faults(agent: Agent) -> list[Phase]:
    """One offline phase and five that continue it: one as it should be, four with a fault each."""
    sound = wrap.rescaled_reward(with_statistics(agent, 0.0, 1.0), shift=-1.0)
    online = {
        'healthy': sound,
        'wrong normaliser': wrap.rescaled_reward(with_statistics(agent, 0.5, 2.0), shift=-1.0),
        'reward shift': with_statistics(agent, 0.0, 1.0),
        'missing terminal mask': never_ending(sound),
        'warm-started optimiser': sound,
    }
    phases = [Phase(name='offline', agent=sound, num_updates=400, sampling=SAMPLING)]
    for name, own in online.items():
        fresh = name == 'warm-started optimiser'
        phases.append(Phase(
            name=name, agent=own, num_updates=400, num_env_steps=640, cycle_steps=20, start='offline', store=name,
            sampling=SAMPLING, fresh_optimizers=fresh,
        ))  # fmt: skip
    return phases


@pytest.mark.parametrize('agent', AGENTS)
def test_each_fault_is_named_in_every_seed_and_nothing_in_a_healthy_phase(agent, monkeypatch):
    # Phase 'warm-started optimiser' asks for fresh optimisers; here nobody obeys.
    monkeypatch.setattr(rounds, 'restarted', lambda state, fresh: state)
    setup = Setup(
        phases=phases_with_faults(AGENTS[agent]()), seeds=SEEDS, dataset=drifting_data(), environment=batched(TASK, (8,)),
        evaluation=batched(TASK, (10,)), updates_per_round=200, evaluate_every=200, seed_group=3,
    )  # fmt: skip
    rows = [row for event in iterate(setup) for row in event.rows]
    found = diagnose(summary_of(setup), rows)
    certain = [(finding.phase, finding.name, finding.seeds) for finding in found if finding.certain]
    assert certain == [(phase.name, phase.name, SEEDS) for phase in setup.phases[2:]]
    assert not [finding for finding in found if finding.phase in ('offline', 'healthy')]
