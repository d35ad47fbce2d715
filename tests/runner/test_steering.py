"""Runs whose actions are noise for the policy of an earlier run: what is stored, carried out, deployed and refused."""

import dataclasses

import jax
import numpy as np
import pytest
from reused import one_after_another, undrawn  # noqa: F401  no figures
from tiny_configs import CLONED_FLOW, TINY, changed

import ooorl
from ooorl.errors import UsageError
from ooorl.runner import deployed, earlier_runs
from ooorl.runner.prepare import prepare
from ooorl.types import Spec

STEER = {
    'name': 'steer',
    'environment': TINY['environment'],
    'evaluation': {'num_episodes': 0},
    'run': {'scheme': 'online', 'seeds': '0:2', 'updates_per_round': 5, 'seed_group': 2},
    'online': {'num_env_steps': 20, 'num_updates': 10, 'random_steps': 0, 'cycle_steps': 2},
    'steered': {'bound': 0.5},
    'agent': {'agent': 'sac', 'hidden': [8], 'sampling': {'batch_size': 8}},
}


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """A cloned flow, and a run of SAC that chose its noise."""
    return one_after_another(tmp_path_factory.mktemp('runs'), CLONED_FLOW, STEER, 'steered__run')


def test_rows_hold_noise_and_what_is_carried_out_is_decoded(runs):
    base, out, table = runs
    policy, setup = ooorl.load(base), prepare(table).setup
    environment, plain = setup.environment, prepare(CLONED_FLOW | {'evaluation': {'num_episodes': 2}}).setup.evaluation
    assert environment.spec == Spec(observation_dim=2, action_dim=2) and setup.dataset is None
    key, noise = jax.random.key(3), np.array([[0.9, -0.4], [0.1, 1.0]], np.float32)
    state, observation = environment.reset(key)
    action = policy.agent.decode(policy.state, observation, 0.5 * noise)
    assert np.abs(action - noise).max() > 0.01
    ours, theirs = environment.step(state, noise, key)[1], plain.step(plain.reset(key)[0], action, key)[1]
    np.testing.assert_array_equal(ours.next_observation, theirs.next_observation)
    with pytest.raises(UsageError, match='needs rows of actions; those of .* hold noise'):
        earlier_runs.load(str(out), None, '--store')


def test_the_policy_that_is_deployed_acts_in_the_environment(runs):
    base, out, _ = runs
    policy, below = ooorl.load(out), ooorl.load(base)
    assert policy.interface['action_dim'] == 2 and policy.phase == 'online'
    observation, key = np.zeros((3, 2), np.float32), jax.random.key(0)
    setup = prepare(runs[2]).setup
    noise = setup.phases[-1].agent.best_action(policy.state, observation, key)
    wanted = below.agent.decode(below.state, observation, 0.5 * noise)
    np.testing.assert_allclose(policy(observation, key), np.clip(wanted, -1, 1), atol=1e-6)


def test_a_resumed_run_needs_the_policy_that_it_began_with(runs):
    base, out, table = runs
    digest = prepare(table).config['steered']['digest']
    assert prepare(changed(table, steered__digest=digest)).config['steered']['digest'] == digest
    with pytest.raises(UsageError, match='needs the policy that this run began with'):
        prepare(changed(table, steered__digest='0' * 16))


def test_a_policy_without_decode_or_with_chunks_is_refused(runs, monkeypatch):
    base, _, table = runs
    whole = ooorl.load(base)
    for changes, words in (
        ({'decode': None}, r'needs a policy that makes its actions from noise \(decode\); that of'),
        ({'chunk': 5}, 'needs a policy of single steps; that of .* decides on 5; use dsrl'),
    ):
        agent = dataclasses.replace(whole.agent, **changes)
        other = deployed.Deployed(agent, whole.state, whole.interface, phase='offline', seed=0)
        monkeypatch.setattr(deployed, 'load', lambda *_, other=other, **__: other)
        with pytest.raises(UsageError, match=words):
            prepare(table)


@pytest.mark.parametrize(('changes', 'words'), [
    ({'steered__run': 'nowhere'}, 'steered.run needs the directory of a run'),
    ({'steered__phase': 'explore'}, "steered.run needs a phase that trained a policy; there are offline; got 'explore'"),
    ({'steered__seed': 9}, 'steered.run needs a seed of the run'),
    ({'steered__bound': 0.0}, r'\[steered\]: bound must be greater than 0'),
    ({'steered__bond': 1.0}, "did you mean 'bound'"),
    ({'environment': {'id': 'ooorl/Tabletop-v0'}}, r'needs a policy of ooorl/Tabletop-v0, with its sizes.*got one of 2'),
    ({'dataset': TINY['dataset']}, r'\[steered\] takes no data'),
    ({'run__scheme': 'finetune', 'online': None, 'finetune': {}}, r"needs scheme 'online' or 'ooo'"),
])  # fmt: skip
def test_what_cannot_be_steered_is_refused(runs, changes, words):
    with pytest.raises(UsageError, match=words):
        prepare(changed(runs[2], **changes))
