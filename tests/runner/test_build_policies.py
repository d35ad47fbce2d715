"""Policies and re-ranking chosen by a config: what is built is what the Python interface gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import random_batch

from ooorl.agents.iql import IQLConfig, iql
from ooorl.errors import UsageError
from ooorl.policies.flow import FlowConfig, flow_policy
from ooorl.runner import config
from ooorl.runner.build import build_agent
from ooorl.types import Spec
from ooorl.wrap import reranked

SPEC = Spec(observation_dim=3, action_dim=2)


def built(**agent):
    table = {'run': {'scheme': 'offline'}, 'agent': agent, 'dataset': {'path': 'x.hdf5'}}
    return build_agent(config.resolve(table)['agent'], SPEC)


def test_ifql_by_name():
    policy = {'kind': 'flow', 'hidden': [8], 'num_steps': 3}
    named = built(agent='iql', hidden=[8], inverse_temperature=0, policy=policy, reranked={'num_candidates': 4, 'value': 'mean'})
    flow = flow_policy(SPEC, FlowConfig(hidden=(8,), num_steps=3))
    agent = iql(SPEC, IQLConfig(hidden=(8,), inverse_temperature=0.0), policy=flow)
    agent = reranked(agent, lambda state, obs, action: agent.q(state, obs, action).mean(axis=0), num_candidates=4)
    observation, key = random_batch(jax.random.key(1), 5).observation, jax.random.key(0)
    states = [a.init(key) for a in (named, agent)]
    jax.tree.map(np.testing.assert_array_equal, *states)
    ours, theirs = (a.best_action(state, observation, key) for a, state in zip((named, agent), states, strict=True))
    np.testing.assert_array_equal(ours, theirs)
    assert jnp.unique(ours).size > 2


def test_what_does_not_fit_is_one_sentence():
    with pytest.raises(UsageError, match='sac needs a policy that knows the density of its draws'):
        built(agent='sac', policy={'kind': 'flow'})
    with pytest.raises(UsageError, match='td3 climbs Q through the action, which needs a policy with decode'):
        built(agent='td3', policy={'kind': 'autoregressive'})
    with pytest.raises(UsageError, match='bc has no Q to rank candidates by'):
        built(agent='bc', reranked={})
