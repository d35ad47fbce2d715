"""Policies and re-ranking chosen by a config: what is built is what the Python interface gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import random_batch

from ooorl.agents.iql import IQLConfig, iql
from ooorl.errors import UsageError
from ooorl.policies.flow import FlowConfig, flow_policy
from ooorl.runner import config, deployed
from ooorl.runner.build import build_agent, build_phases
from ooorl.runner.kept_draws import with_kept_draws
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
    with pytest.raises(UsageError, match='prdc searches the data for single actions; got chunk = 2; set it to 1, or use td3'):
        built(agent='prdc', chunk=2)
    with pytest.raises(UsageError, match='chunk with agent bc: backup_steps must be at least the chunk, 3; got 2'):
        built(agent='bc', chunk=3, backup_steps=2)
    for name, value in (('backup_steps', 4), ('bonus', {'signal': 'rnd'})):
        with pytest.raises(UsageError, match=f'bc learns no values to .*; remove the (key|sub-table) {name}'):
            built(agent='bc', **{name: value})
    with pytest.raises(UsageError, match='qam brings a policy of its own; remove the sub-table policy'):
        built(agent='qam', policy={'kind': 'flow'})
    with pytest.raises(UsageError, match='dsrl steers the noise .* needs a policy with decode and noise_dim'):
        built(agent='dsrl', policy={'kind': 'autoregressive'})
    with pytest.raises(UsageError, match='bc has no Q to rank candidates by'):
        built(agent='bc', reranked={})


def test_teacher_and_student_plan_and_take_the_first_step():
    """RACTD's receding horizon: chunks of 4 are learnt, one step of each is carried out."""
    policy = {'network': 'mlp', 'hidden': [8], 'time_features': 'plain'}
    edm = {'kind': 'diffusion', 'process': 'edm', 'sampler': 'heun', 'clip': 'end', 'num_steps': 2, **policy}
    tables = {
        'run': {'scheme': 'distil'}, 'dataset': {'path': 'x.hdf5'}, 'distil': {'num_updates': 1},
        'teacher': {'agent': 'bc', 'chunk': 4, 'chunk_executed': 1, 'policy': edm},
        'returns': {'agent': 'returns', 'hidden': [8], 'chunk': 4, 'chunk_executed': 2},
        'student': {'agent': 'distil', 'chunk': 4, 'chunk_executed': 1, 'policy': {'kind': 'consistency', **policy}},
    }  # fmt: skip
    found = {phase.name: phase.agent for phase in build_phases(config.resolve(tables), SPEC, None)}
    assert [(found[name].chunk, found[name].window) for name in ('teacher', 'distil')] == [(1, 4), (1, 4)]
    observation = jnp.zeros((5, 3))
    for name in ('teacher', 'distil'):
        shape = jax.eval_shape(lambda k, a=found[name]: a.best_action(a.init(k), observation, k), jax.random.key(0)).shape
        assert shape == (5, 2)
    judged = built(agent='iql', hidden=[8], chunk=3, chunk_executed=1, reranked={'num_candidates': 2})  # by whole plans
    assert jax.eval_shape(lambda k: judged.best_action(judged.init(k), observation, k), jax.random.key(0)).shape == (5, 2)
    with pytest.raises(UsageError, match='chunk_executed must lie between 1 and the chunk, 3; got 4'):
        built(agent='bc', chunk=3, chunk_executed=4)


def leftmost(observation, num, seed):
    """A given policy in raw observations: the first action is the observation's first number over 100."""
    action = np.zeros((num, len(observation), 2), np.float32)
    action[..., 0] = observation[:, 0] / 100
    return action


def test_a_given_policy_sees_raw_observations_and_is_asked_once_for_each_row():
    given = {'kind': 'opaque', 'function': f'{__name__}:leftmost'}
    settings = {'imitate': 'nothing', 'num_candidates': 2, 'num_kept': 2, 'num_steps': 0}
    settings |= {'critic': {'kind': 'iql', 'hidden': [8]}}
    data = random_batch(jax.random.key(1), 5)
    data = data._replace(observation=10.0 * data.observation + 3.0)
    tables = {'run': {'scheme': 'offline'}, 'dataset': {'path': 'x.hdf5'}}
    agent = {'agent': 'parl', **settings, 'policy': given, 'normalise_observation': True, 'cached': True}
    resolved = config.resolve(tables | {'agent': agent})
    made = build_agent(resolved['agent'], SPEC, data)
    action = made.best_action(made.init(jax.random.key(0)), data.observation, jax.random.key(1))
    np.testing.assert_allclose(action[:, 0], data.observation[:, 0] / 100, rtol=1e-4, atol=1e-5)
    # Out of a run directory it is built without data, from their mean and deviation.
    mean, std = (getattr(data.observation, name)(axis=0).tolist() for name in ('mean', 'std'))
    interface = {'observation_dim': 3, 'action_dim': 2, 'observation_mean': mean, 'observation_std': std}
    loaded = build_agent(resolved['agent'], SPEC, deployed.stand_in(interface))
    action = loaded.best_action(made.init(jax.random.key(0)), data.observation, jax.random.key(1))
    np.testing.assert_allclose(action[:, 0], data.observation[:, 0] / 100, rtol=1e-4, atol=1e-5)
    assert deployed.stand_in({'observation_dim': 3, 'action_dim': 2}).observation.shape == (2, 3)  # of runs without data
    for fitting in ({'imitate': 'search'}, {'agent': 'bc', 'policy': given}):
        table = fitting if 'agent' in fitting else agent | fitting
        with pytest.raises(UsageError, match='fits its policy, which one that is given .* cannot be'):
            build_agent(config.resolve(tables | {'agent': table})['agent'], SPEC, data)
    kept = with_kept_draws(resolved, SPEC, data)
    for column, states in (('candidates', data.observation), ('next_candidates', data.next_observation)):
        np.testing.assert_allclose(kept.extras[column][..., 0], np.broadcast_to(states[:, :1] / 100, (5, 2)), rtol=1e-5)
    assert with_kept_draws(config.resolve(tables | {'agent': agent | {'cached': False}}), SPEC, data) is data
    places = with_kept_draws(config.resolve(tables | {'agent': agent | {'refresh_every': 5}}), SPEC, data).extras
    assert set(places) == {'place', 'next_place'}
    with pytest.raises(UsageError, match='refresh_every is for draws that are kept; got 5 with cached = false'):
        with_kept_draws(config.resolve(tables | {'agent': agent | {'cached': False, 'refresh_every': 5}}), SPEC, data)
    fresh = {'cached': True, 'refresh_every': 5, 'online': {'cached': False}}
    tuned = config.resolve({'run': {'scheme': 'finetune'}, 'agent': agent | fresh})
    assert set(with_kept_draws(tuned, SPEC, data).extras) == set(places)
    collecting = {'run': {'scheme': 'online'}, 'agent': agent}
    with pytest.raises(UsageError, match="cached keeps draws for the rows of the data set; scheme 'online' collects others"):
        with_kept_draws(config.resolve(collecting), SPEC, data)
    with pytest.raises(UsageError, match='got others in run.store, elsewhere; remove one'):
        with_kept_draws(config.resolve(tables | {'agent': agent, 'run': {'scheme': 'offline', 'store': 'elsewhere'}}), SPEC, data)
    with pytest.raises(UsageError, match="cached needs a policy that is given .*refresh_every, in updates; got .flow."):
        with_kept_draws(config.resolve(tables | {'agent': agent | {'policy': {'kind': 'flow'}}}), SPEC, data)
