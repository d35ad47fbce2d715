"""Consistency policies: noise levels, the jump's ends, and one call to act."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ooorl.errors import UsageError
from ooorl.interpreted import interpreted
from ooorl.nn.diffusion import path_step
from ooorl.policies.consistency import ConsistencyConfig, consistency_policy, jumps, noise_levels
from ooorl.policies.diffusion import DiffusionConfig, diffusion_policy
from ooorl.policies.flow import FlowConfig, flow_policy
from ooorl.types import Spec

SPEC = Spec(observation_dim=3, action_dim=2)
PLAIN = {'network': 'mlp', 'hidden': (), 'time_features': 'plain', 'activation': 'tanh'}
X, OBSERVATION = jnp.array([[0.3, -2.0], [1.0, 0.5]]), jnp.ones((2, 3))


def constant(value):
    """Parameters of a network without hidden layers that always answers `value`."""
    params = consistency_policy(SPEC, ConsistencyConfig(**PLAIN)).init(jax.random.key(0))
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, value if leaf.ndim == 1 else 0.0), params)


def test_noise_levels_are_those_of_the_released_code():
    levels = noise_levels(ConsistencyConfig())
    expected = {0: 80.0, 1: 75.20, 2: 70.66, 10: 42.02, 27: 12.01, 40: 3.859, 54: 0.885, 70: 0.1001, 78: 0.02439, 79: 0.02}
    np.testing.assert_allclose([levels[i] for i in expected], list(expected.values()), rtol=5e-4)
    assert len(levels) == 81 and levels[80] == levels[79]
    np.testing.assert_array_equal(noise_levels(ConsistencyConfig(), (3.0, 1.0)), [3.0, 1.0, 0.0])


@pytest.mark.parametrize(
    ('t', 'skip', 'out'), [(0.1, 0.975039, 0.078446), (1.0, 0.206543, 0.438269), (80.0, 3.9e-5, 0.499865), (0.02, 1.0, 0.0)]
)
def test_scalings_are_those_of_the_released_code(t, skip, out):
    own = jumps(SPEC, ConsistencyConfig(**PLAIN))
    kept = 0.02 / t
    for value, network in ((0.0, 0.0), (1.0, out)):
        made = own.jump(constant(value), OBSERVATION, X, t, 0.02)
        np.testing.assert_allclose(made, kept * X + (1 - kept) * (skip * X + network), rtol=2e-3, atol=2e-5)


def test_a_jump_to_where_it_starts_goes_nowhere():
    own = jumps(SPEC, ConsistencyConfig(**PLAIN))
    for level in (0.02, 1.0, 80.0):
        np.testing.assert_array_equal(own.jump(constant(3.0), OBSERVATION, X, level, level), X)


def test_it_acts_with_one_call_from_little_noise_and_further_calls_where_asked():
    policy = consistency_policy(SPEC, ConsistencyConfig(**PLAIN, chain=(2.0,)))
    params = constant(0.6)
    assert policy.noise_dim == 4
    noise = jnp.array([[0.5, -1.0, 2.0, 0.0]])
    own = jumps(SPEC, ConsistencyConfig(**PLAIN))
    first = own.jump(params, OBSERVATION[:1], noise[:, :2], 80.0, 0.02)
    again = own.jump(params, OBSERVATION[:1], first + (4.0 - 0.02**2) ** 0.5 * noise[:, 2:], 2.0, 0.02)
    np.testing.assert_allclose(interpreted(policy.decode)(params, OBSERVATION[:1], noise), jnp.clip(again, -1.0, 1.0), rtol=1e-6)


def test_of_the_two_terms_of_the_loss_one_is_weighted():
    settings = {'hidden': (4,), 'network': 'mlp', 'time_features': 'plain', 'distance': 'square'}
    losses = {}
    for weight in (0.0, 1.0, 2.0):
        policy = consistency_policy(SPEC, ConsistencyConfig(**settings, denoising_weight=weight))
        params = interpreted(policy.init)(jax.random.key(1))
        losses[weight] = interpreted(policy.loss)(params, OBSERVATION, X / 4, jax.random.key(2))
    assert losses[0.0].shape == (2,) and (losses[1.0] > losses[0.0]).all()
    np.testing.assert_allclose(losses[2.0] - losses[0.0], 2 * (losses[1.0] - losses[0.0]), rtol=1e-5)


def test_the_huber_distance_is_a_root_of_fourth_powers():
    settings = {**PLAIN, 'denoising_weight': 1.0}
    own = {name: jumps(SPEC, ConsistencyConfig(**settings, distance=name)) for name in ('square', 'huber')}
    found = {
        name: one.terms(constant(0.1), constant(0.1), OBSERVATION[:1], X[:1] / 4, jax.random.key(3), lambda x, *_: x)
        for name, one in own.items()
    }
    (_, plain, guess), (_, huber, _) = found['square'], found['huber']
    error, c = np.asarray(guess - X[:1] / 4), 0.00054 * 2**0.5
    np.testing.assert_allclose(huber / plain, (np.sqrt(error**4 + c**2) - c).sum() / (error**2).sum(), rtol=1e-4)


def followed(policy, params, x, levels, step):
    for start, end in zip(levels[:-1], levels[1:], strict=True):
        x = step(lambda x, sigma: policy.denoise(params, OBSERVATION, x, sigma), x, jnp.full(2, start), jnp.full(2, end))
    return x


def euler(denoise, x, start, end):
    return x + ((end - start) / start)[:, None] * (x - denoise(x, start))


def test_denoise_leads_where_decode_leads():
    net = {'hidden': (8,), 'time_features': 'plain', 'network': 'mlp'}
    z = 0.3 * X
    edm = diffusion_policy(SPEC, DiffusionConfig(process='edm', sampler='heun', clip='end', num_steps=4, sigma_max=2.0, **net))
    params = edm.init(jax.random.key(4))
    levels = [*(np.linspace(2.0 ** (1 / 7), 0.02 ** (1 / 7), 4) ** 7), 0.0]
    np.testing.assert_allclose(followed(edm, params, 2.0 * z, levels, path_step), edm.decode(params, OBSERVATION, z), atol=2e-6)

    ddpm = diffusion_policy(SPEC, DiffusionConfig(num_levels=3, sampler='ddim', clip='end', **net))
    params = ddpm.init(jax.random.key(5))
    begun = z * (1 + ddpm.levels[0] ** 2) ** 0.5  # variance-preserving x over alpha
    ends = followed(ddpm, params, begun, [*ddpm.levels, 0.0], euler)
    np.testing.assert_allclose(jnp.clip(ends, -1, 1), ddpm.decode(params, OBSERVATION, z), atol=3e-5)

    # From t = 0, where sigma is infinite, to t = 1/4 the flow makes its first step; the other three are steps in sigma too.
    flow = flow_policy(SPEC, FlowConfig(hidden=(8,), num_steps=4))
    params = interpreted(flow.init)(jax.random.key(6))
    first = z + 0.25 * (flow.denoise(params, OBSERVATION, 1e6 * z, jnp.full(2, 1e6)))
    ends = followed(flow, params, (z * 0.75 + (first - z)) / 0.25, [3.0, 1.0, 1 / 3, 0.0], euler)
    np.testing.assert_allclose(jnp.clip(ends, -1, 1), interpreted(flow.decode)(params, OBSERVATION, z), atol=2e-4)


@pytest.mark.parametrize(
    ('settings', 'word'),
    [
        ({'num_levels': 1}, 'two ends'), ({'sigma_max': 0.01}, 'sigma_max'), ({'chain': (1.0, 2.0)}, 'largest'),
        ({'chain': (90.0,)}, 'at most'), ({'denoise': 'start'}, 'denoise'),
    ],  # fmt: skip
)
def test_settings_that_make_no_jump_are_refused(settings, word):
    with pytest.raises(UsageError, match=word):
        ConsistencyConfig(**settings)
