"""Runs in probe tasks, whose values and best actions are known: that agents learn them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ooorl.agents.iql import IQLConfig, iql, iql_critic
from ooorl.agents.sac import SACConfig, sac
from ooorl.agents.td3 import TD3Config, td3
from ooorl.envs import make
from ooorl.runner.build import uniform
from ooorl.training import run as running
from ooorl.training.phases import Setup, online
from ooorl.training.sampling import Sampling
from ooorl.types import Spec

LINE = Spec(observation_dim=1, action_dim=1)
PROBE_SAMPLING = Sampling(batch_size=64)
SMALL = {'hidden': (32,), 'learning_rate': 3e-3, 'polyak': 0.1, 'gamma': 0.5}


def trained(name, agent, num_updates=1_500):
    """The final state of online learning in a probe task, of one seed."""
    phases = online(agent, num_env_steps=num_updates * 4, num_updates=num_updates, random_agent=uniform(LINE), random_steps=256,
                    sampling=PROBE_SAMPLING)  # fmt: skip
    setup = Setup(phases=phases, seeds=(0,), environment=make(name, (4,)), updates_per_round=500)
    return jax.tree.map(lambda leaf: leaf[0], running.run(setup).finished['online'])


def probe_agents():
    return {
        'iql': iql(LINE, IQLConfig(**SMALL, inverse_temperature=10.0)),
        'td3': td3(LINE, TD3Config(**SMALL)),
        'sac': sac(LINE, SACConfig(**SMALL, init_temperature=0.05, learn_temperature=False, entropy_backup=False)),
    }


@pytest.mark.parametrize('name', ['iql', 'td3', 'sac'])
def test_agents_find_the_best_action_of_each_observation(name):
    agent = probe_agents()[name]
    state = trained('ooorl/ProbeActionAndObservationReward-v0', agent)
    observation = jnp.array([[-1.0], [1.0]])
    action = agent.best_action(state, observation, jax.random.key(0))
    np.testing.assert_allclose(action, 0.5 * observation, atol=0.1)


def test_values_of_two_steps_are_those_of_the_bellman_equation():
    agent = iql(LINE, IQLConfig(**SMALL))
    state = trained('ooorl/ProbeTwoSteps-v0', agent)
    q = iql_critic(LINE, IQLConfig(**SMALL)).q(state.critic, jnp.array([[0.0], [1.0]]), jnp.zeros((2, 1)))
    np.testing.assert_allclose(q, [[SMALL['gamma'], 1.0]] * 2, atol=0.1)
