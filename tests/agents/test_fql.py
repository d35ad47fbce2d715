"""FQL and its rivals on the same benchmark: what no recording shows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import random_batch

from ooorl.agents.dsrl import DSRLConfig, dsrl
from ooorl.agents.expo import EXPOConfig, expo
from ooorl.agents.fql import FQLConfig, fql, fql_critic
from ooorl.agents.qam import QAMConfig, qam
from ooorl.interpreted import interpreted
from ooorl.types import Spec

SPEC = Spec(observation_dim=3, action_dim=2)
BATCH = random_batch(jax.random.key(0), 6)
KEY = jax.random.key(1)


def test_q_is_that_of_the_current_parameters():
    agent = fql(SPEC, FQLConfig(hidden=(8,)))
    state = interpreted(agent.init)(KEY)
    other = jax.tree.map(lambda leaf: leaf + 0.5, state.q)
    q = interpreted(agent.q)(state, BATCH.observation, BATCH.action)
    np.testing.assert_array_equal(q, interpreted(agent.q)(state._replace(target_q=other), BATCH.observation, BATCH.action))
    assert (q != interpreted(agent.q)(state._replace(q=other), BATCH.observation, BATCH.action)).any()


def test_the_size_of_q_is_a_constant_of_the_policys_loss():
    # Without distillation the loss is -mean Q / |mean Q|: as a function of the policy it would be constant, were the size one.
    agent = fql(SPEC, FQLConfig(hidden=(8,), distil_weight=0.0, normalise_q=True, learning_rate=0.1, num_steps=1))
    state = interpreted(agent.init)(KEY)
    # All values well above 0, so that the mean size is the mean.
    lifted = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf + 50.0 if 'Dense_1' in jax.tree_util.keystr(path) and leaf.ndim == 1 else leaf, state.q
    )
    state = state._replace(q=lifted)
    new, metrics = interpreted(agent.update)(state, BATCH, KEY)
    assert metrics['one_step/q'] > 10.0
    kernel = [tree['params']['Dense_1']['kernel'] for tree in (state.one_step, new.one_step)]
    assert jnp.abs(kernel[1] - kernel[0]).max() > 0.05  # Adam's first step is the rate wherever there is any gradient


def test_the_action_of_a_given_noise_is_the_draw_that_it_makes():
    agent = fql(SPEC, FQLConfig(hidden=(8,)))
    state, noise = interpreted(agent.init)(KEY), jax.random.normal(KEY, (6, agent.noise_dim))
    made = interpreted(agent.decode)(state, BATCH.observation, noise)
    np.testing.assert_allclose(made, interpreted(agent.sample_action)(state, BATCH.observation, KEY), rtol=1e-6)
    assert fql(SPEC, FQLConfig(hidden=(8,), num_candidates=2)).decode is None  # one noise makes no choice among draws


@pytest.mark.parametrize(
    ('builder', 'config'), [(fql, FQLConfig), (expo, EXPOConfig), (dsrl, DSRLConfig), (qam, QAMConfig)], ids=lambda x: x.__name__
)
def test_weights_begin_within_the_bounds_of_the_released_codes(builder, config):
    """Xavier's uniform numbers: at most sqrt(6 / (I + O)), which orthogonal columns of length sqrt 2 exceed."""
    small = {'hidden': (8, 8)} | ({'num_critics': 2} if builder is qam else {})
    critic = {'critic': fql_critic(SPEC, FQLConfig(hidden=(8, 8)))} if builder in (expo, dsrl) else {}
    state = interpreted(builder(SPEC, config(**small), **critic).init)(KEY)
    named = [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state)]
    kernels = [leaf for name, leaf in named if name.endswith("['kernel']") and np.any(leaf)]
    assert len(kernels) >= 9
    for kernel in kernels:
        assert abs(kernel).max() <= np.sqrt(6.0 / sum(kernel.shape)) + 1e-6
