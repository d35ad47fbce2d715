"""Ensembles whose members lie in one tree, as accelerators want them, against tuples of trees, as CPUs do: the same numbers."""

import jax
import numpy as np
import pytest
from small import random_batch, trees_equal

from ooorl.agents.sac import SACConfig, sac
from ooorl.agents.td3 import TD3Config, td3
from ooorl.interpreted import interpreted
from ooorl.mapping import Stacked, join_members, split_members
from ooorl.nn.networks import ensemble_q
from ooorl.training import checkpoint
from ooorl.types import Spec

SPEC = Spec(observation_dim=3, action_dim=2)
AGENTS = {
    'rlpd': lambda: sac(
        SPEC, SACConfig(num_critics=3, num_target_critics=2, utd=2, hidden=(8,), critic_layer_norm='before', policy_value='mean')
    ),
    'td3': lambda: td3(SPEC, TD3Config(hidden=(8,), q_normalisation=2.5, cloning_weight=1.0)),  # climbs the first member
}


def made(monkeypatch, stacked, name):
    monkeypatch.setattr('ooorl.nn.networks.stacks_members', lambda: stacked)
    return AGENTS[name]()


def close(left, right, tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), left, right)


@pytest.mark.parametrize('name', AGENTS)
def test_stacked_members_learn_what_single_ones_do(monkeypatch, name):
    key, batch = jax.random.key(0), random_batch(jax.random.key(1), 8)
    states, told = [], []
    for stacked in (False, True):
        agent = made(monkeypatch, stacked, name)
        state, update = interpreted(agent.init)(key), interpreted(agent.update)
        assert isinstance(state.q, Stacked) == stacked and len(state.q) == (3 if name == 'rlpd' else 2)
        for number in range(3):
            state, metrics = update(state, batch, jax.random.key(number))
        states.append(state)
        told.append((metrics, interpreted(agent.q)(state, batch.observation, batch.action)))
    # Adam divides by the root of squared gradients, which makes roundings large where these are tiny.
    close(split_members(states[1]), states[0], 2e-4)
    close(told[1], told[0], 2e-3)


def test_both_are_stored_alike_and_restored_as_wanted(monkeypatch, tmp_path):
    keys = jax.random.split(jax.random.key(0), 2)  # two seeds
    agents = {stacked: made(monkeypatch, stacked, 'td3') for stacked in (False, True)}
    wide = interpreted(jax.vmap(agents[True].init))(keys)
    single = split_members(wide, axis=1)
    assert jax.tree.structure(single) == jax.tree.structure(jax.eval_shape(agents[False].init, keys[0]))
    for name, state in (('wide', wide), ('single', single)):
        checkpoint.save(tmp_path / name, 1, state, {})
    names = [sorted(p.name for p in (tmp_path / name / '00000001/arrays').iterdir()) for name in ('wide', 'single')]
    assert names[0] == names[1]
    for stacked, expected in ((True, wide), (False, single)):
        template = jax.eval_shape(jax.vmap(agents[stacked].init), keys)
        for name in ('wide', 'single'):
            assert trees_equal(checkpoint.restore(tmp_path / name, lambda meta, t=template: t)[0], expected)


def test_stacked_members_are_used_like_a_tuple(monkeypatch):
    monkeypatch.setattr('ooorl.nn.networks.stacks_members', lambda: True)
    network = ensemble_q((4,), num_members=3)
    params = network.init(jax.random.key(0), np.zeros((1, 3)), np.zeros((1, 2)))
    single = split_members(params)
    assert len(params) == 3 and trees_equal(tuple(params), single) and trees_equal(params[2], single[2])
    assert trees_equal(split_members(params[:1]), single[:1])
    assert trees_equal(split_members(params[np.array([2, 0])]), (single[2], single[0]))
    assert trees_equal(join_members(params, single), params) and trees_equal(join_members(single, single), single)
    where = np.ones((5, 3), np.float32), np.ones((5, 2), np.float32)
    close(network.apply(params, *where), network.apply(single, *where), 1e-6)
