"""Policies by name: what every one must satisfy, and what is particular to flow, diffusion and tokens."""

import functools
import itertools
from dataclasses import fields

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ooorl.errors import UsageError
from ooorl.interpreted import interpreted
from ooorl.policies import POLICIES, policy_kind
from ooorl.policies.autoregressive import AutoregressiveConfig, action_of, autoregressive_policy, tokens_of
from ooorl.policies.averaged import averaged
from ooorl.policies.diffusion import DiffusionConfig, diffusion_policy, process
from ooorl.policies.flow import FlowConfig, TimeNetworkConfig, flow_policy
from ooorl.types import LikelihoodPolicy, Spec

SPEC = Spec(observation_dim=3, action_dim=2)
OBSERVATION = jax.random.normal(jax.random.key(7), (5, 3))
ACTION = jnp.clip(0.5 * jax.random.normal(jax.random.key(8), (5, 2)), -1.0, 1.0)
KEY = jax.random.key(1)
SMALL_TIME = {'hidden': (8,), 'time_hidden': (8, 8), 'num_time_features': 4}
SMALL = {
    'gaussian': {'hidden': (8,)},
    'tanh_gaussian': {'hidden': (8,)},
    'deterministic': {'hidden': (8,)},
    'flow': {'hidden': (8,), 'num_steps': 2},
    'mean_flow': {'hidden': (8,)},
    'diffusion': SMALL_TIME | {'num_levels': 3},
    'consistency': SMALL_TIME | {'num_levels': 4},
    'autoregressive': {'num_bins': 5, 'num_layers': 1, 'num_heads': 2, 'width': 8},
}
EDM = {'process': 'edm', 'clip': 'guess', 'sampler': 'ddim', 'num_steps': 3}
FOURIER = {'time_features': 'fourier'}
# Settings of the network that policies share are tried with flow; heads in tests/nn/test_conditional.py.
SHARED = {field.name for field in fields(TimeNetworkConfig)}
# For every setting a value that must change initialisation, loss, draws or mode; a pair says beside which other settings.
CHANGES = {
    'gaussian': {
        'hidden': (9,), 'dropout': 0.5, 'layer_norm': 'before', 'log_std_min': 0.5, 'log_std_max': -1.0, 'init_log_std': -1.0,
    },
    'tanh_gaussian': {
        'hidden': (9,), 'layer_norm': 'after', 'kernel_init': 'xavier_uniform', 'last_init': 'small',
        'log_std_affine': (1.0, -1.0),
    },
    'deterministic': {'hidden': (9,), 'layer_norm': 'before', 'exploration_std': 0.5},
    'flow': {
        'network': 'ln_resnet', 'hidden': (9,), 'activation': 'relu', 'layer_norm': 'before', 'dropout': 0.5,
        'time_features': 'sinusoidal', 'num_time_features': (6, FOURIER),
        'time_hidden': ((7, 8), FOURIER), 'ema_rate': 0.5, 'num_steps': 3,
        'elements': (((0, 1), (2,)), {'network': 'attention'}),
    },
    'mean_flow': {'dropout': 0.5, 'ema_rate': 0.5, 'num_steps': 2, 'flow_share': 1.0, 'time_mean': 1.0, 'time_std': 2.0},
    'diffusion': {
        'process': 'cosine', 'num_levels': 4, 'sampler': 'ddim', 'num_steps': 2, 'clip': 'end', 'variance': 'posterior',
        'repeat_last': 1, 'temperature': 0.5, 'sigma_min': (0.5, EDM), 'sigma_max': (8.0, EDM), 'rho': (3.0, EDM),
        'sigma_data': (1.0, EDM), 'noise_mean': (0.0, EDM), 'noise_std': (0.5, EDM), 'start_noise': (1.0, EDM), 'network': 'mlp',
        'hidden': (9,),
        'activation': 'relu', 'layer_norm': ('before', {'network': 'mlp'}), 'dropout': 0.5, 'time_features': 'sinusoidal',
        'num_time_features': 6, 'time_hidden': (7, 8), 'ema_rate': 0.5,
    },
    'consistency': {
        'num_levels': 5, 'sigma_min': 0.5, 'sigma_max': 8.0, 'sigma_data': 1.0, 'start_noise': 2.0, 'chain': (2.0,),
        'distance': 'square', 'denoising_weight': 3.0, 'denoise': 'level', 'network': 'mlp', 'hidden': (9,), 'activation': 'relu',
        'layer_norm': ('before', {'network': 'mlp'}), 'dropout': 0.5, 'time_features': 'sinusoidal', 'num_time_features': 6,
        'time_hidden': (7, 8), 'ema_rate': 0.5,
    },
    'autoregressive': {
        'num_bins': 6, 'num_layers': 2, 'num_heads': 1, 'width': 12, 'dropout': 0.5, 'temperature': 0.0, 'ema_rate': 0.5,
    },
}  # fmt: skip
SAMPLERS = {
    'ddpm': {}, 'posterior': {'variance': 'posterior', 'clip': 'guess'}, 'ddim': {'sampler': 'ddim'},
    'fewer': {'sampler': 'ddpm', 'num_steps': 2}, 'heun': {'sampler': 'heun', 'clip': 'end'},
    'dpm_solver': {'sampler': 'dpm_solver', 'num_levels': 6}, 'edm_heun': EDM | {'sampler': 'heun'},
    'edm_dpm_solver': EDM | {'sampler': 'dpm_solver'}, 'edm_ddpm': EDM | {'sampler': 'ddpm', 'variance': 'posterior'},
}  # fmt: skip


def make(name, **settings):
    kind = policy_kind(name)
    return kind.builder(SPEC, kind.config(**SMALL[name] | settings))


def diffusing(**settings):
    return diffusion_policy(SPEC, DiffusionConfig(**SMALL_TIME | {'num_levels': 3} | settings))


def perturbed(policy, size=0.05):
    """Parameters away from their start, where much is zero."""

    @jax.jit
    def moved(key):
        leaves, structure = jax.tree.flatten(interpreted(policy.init)(key))
        noise = jnp.split(jax.random.normal(jax.random.key(3), (sum(leaf.size for leaf in leaves),)), _ends(leaves))
        return structure.unflatten(leaf + size * part.reshape(leaf.shape) for leaf, part in zip(leaves, noise, strict=True))

    return moved(jax.random.key(0))


def _ends(leaves):
    return np.cumsum([leaf.size for leaf in leaves])[:-1]


def check_draws(policy):
    params = perturbed(policy)
    for shape in ((), (4, 2)):
        # The number of draws is no array.
        draws = jax.eval_shape(lambda p, o, k: policy.sample(p, o, k, 6), params, jnp.ones((*shape, 3)), KEY)
        assert draws.shape == (6, *shape, 2) and draws.dtype == jnp.float32
        assert jax.eval_shape(policy.mode, params, jnp.ones((*shape, 3)), KEY).shape == (*shape, 2)
    draws = interpreted(policy.sample, static_argnums=3)(params, OBSERVATION, KEY, 6)
    assert draws.shape == (6, 5, 2) and abs(draws).max() <= 1.0
    assert len(np.unique(draws.reshape(6, -1), axis=0)) > 1


@pytest.mark.parametrize('name', SMALL)
def test_draws_have_shapes_and_stay_in_the_box(name):
    check_draws(make(name))


@pytest.mark.parametrize('sampler', SAMPLERS)
def test_every_sampler_of_every_process_draws(sampler):
    check_draws(diffusing(**SAMPLERS[sampler]))


@pytest.mark.parametrize('name', SMALL)
def test_the_loss_is_one_finite_number_a_row_and_reaches_every_parameter(name):
    policy = make(name)
    params = perturbed(policy)
    assert jax.eval_shape(policy.loss, params, OBSERVATION, ACTION, KEY).shape == (5,)
    loss, gradient = interpreted(jax.value_and_grad(lambda p: policy.loss(p, OBSERVATION, ACTION, KEY).mean()))(params)
    assert np.isfinite(loss)
    fitted = getattr(gradient, 'fitted', gradient)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted))
    touched = [np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(fitted)]
    # The first of a table of embeddings and the bias of keys may be idle; nothing else of any size is.
    assert sum(touched) >= len(touched) - 1


@pytest.mark.parametrize('name', [name for name in SMALL if name != 'autoregressive'])
def test_draws_are_decoded_noise_and_differentiable(name):
    policy = make(name)
    params = perturbed(policy)
    noise = jax.random.normal(KEY, (6, 5, policy.noise_dim))
    decode = interpreted(lambda p, n: policy.decode(p, OBSERVATION, n))
    draws = interpreted(policy.sample, static_argnums=3)(params, OBSERVATION, KEY, 6)
    np.testing.assert_allclose(draws, decode(params, noise), rtol=1e-5, atol=1e-6)
    slopes = interpreted(jax.grad(lambda p, n: policy.decode(p, OBSERVATION, n).sum(), (0, 1)))
    by_params, by_noise = slopes(params, 0.1 * noise[0])
    assert (by_noise != 0).any() and any((leaf != 0).any() for leaf in jax.tree.leaves(by_params))


def test_only_chains_that_add_noise_take_more_than_one_number_a_dimension():
    assert (diffusing().noise_dim, diffusing(sampler='ddim').noise_dim) == (2 * 3, 2)
    assert (diffusing(num_steps=2).noise_dim, diffusing(**EDM).noise_dim) == (2 * 2, 2)
    assert make('flow').noise_dim == 2 and make('autoregressive').decode is None


def test_a_single_level_is_the_noisiest():
    # Where sampling starts: 80 times the noise, and one guess from there.
    assert process(DiffusionConfig(**EDM | {'num_steps': 1})).levels.sigma.tolist() == pytest.approx([80.0])
    assert process(DiffusionConfig(num_steps=1)).levels.time.tolist() == [4.0]


@functools.cache
def _fingerprint(name, settings):
    """What a policy with some settings, given as pairs, starts from and makes of it. Not compiled: operations are shared."""
    policy = make(name, **dict(settings))

    params = interpreted(policy.init)(jax.random.key(0))
    moved = policy.after_update(params, jax.tree.map(lambda leaf: leaf + 0.1, params))
    draws = interpreted(policy.sample, static_argnums=3)(policy.deployed(moved), OBSERVATION, KEY, 4)
    return [*jax.tree.leaves(params), interpreted(policy.loss)(moved, OBSERVATION, ACTION, KEY), draws]


@pytest.mark.parametrize(('name', 'setting'), [(name, setting) for name in CHANGES for setting in CHANGES[name]])
def test_every_setting_changes_something(name, setting):
    change, beside = CHANGES[name][setting], {}
    if isinstance(change, tuple) and isinstance(change[-1], dict):
        change, beside = change
    names = [tuple(settings.items()) for settings in (beside, beside | {setting: change})]
    shapes = [jax.eval_shape(make(name, **dict(settings)).init, KEY) for settings in names]
    if shapes[0] == shapes[1]:
        before, after = (_fingerprint(name, settings) for settings in names)
        assert not all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize('name', SMALL)
def test_no_setting_is_forgotten(name):
    # A given function has tests of its own.
    assert set(POLICIES) - set(SMALL) <= {'opaque'}
    own, tried = {field.name for field in fields(POLICIES[name].config)}, set(CHANGES[name])
    assert tried <= own and own - tried <= (SHARED if name != 'flow' else {'num_heads'})


# What a slow copy does.


@pytest.mark.parametrize('name', ['gaussian', 'tanh_gaussian', 'flow'])
def test_a_slow_copy_acts_and_nothing_else(name):
    plain = make(name)
    policy = averaged(plain, 0.25)
    before = interpreted(policy.init)(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, before.fitted, before.slow)
    # An optimiser that also decays the slow copy: that is undone.
    after = policy.after_update(before, jax.tree.map(lambda leaf: leaf + 1.0, before))
    jax.tree.map(lambda new, old: np.testing.assert_allclose(new, old + 1.0), after.fitted, before.fitted)
    jax.tree.map(lambda new, old: np.testing.assert_allclose(new, old + 0.25, rtol=1e-6), after.slow, before.slow)
    losses = (
        interpreted(each.loss)(known, OBSERVATION, ACTION, KEY) for each, known in ((policy, after), (plain, after.fitted))
    )
    np.testing.assert_array_equal(*losses)
    for function in ('sample', 'mode'):
        args = (OBSERVATION, KEY, 3) if function == 'sample' else (OBSERVATION, KEY)
        ours, theirs = getattr(policy, function), getattr(plain, function)
        np.testing.assert_array_equal(ours(after, *args), theirs(after.fitted, *args))
        np.testing.assert_array_equal(ours(policy.deployed(after), *args), theirs(after.slow, *args))
    assert type(policy) is type(plain) and policy.noise_dim == plain.noise_dim


def test_a_rate_outside_of_the_unit_interval_is_refused():
    with pytest.raises(UsageError, match='ema_rate must be greater than 0 and at most 1'):
        averaged(make('gaussian'), 1.5)
    with pytest.raises(UsageError, match='ema_rate must be greater than 0 and at most 1'):
        FlowConfig(ema_rate=-0.1)


# Tokens.

GRID = jnp.array(list(itertools.product(np.linspace(-1.0, 1.0, 5), repeat=2)), jnp.float32)


def test_bins_are_centred_on_an_even_grid_with_both_ends():
    np.testing.assert_array_equal(tokens_of(jnp.array([-1.0, -0.76, -0.74, 0.0, 1.0, 1.7]), 5), [0, 0, 1, 2, 4, 4])
    np.testing.assert_allclose(action_of(jnp.arange(5), 5), [-1.0, -0.5, 0.0, 0.5, 1.0])
    np.testing.assert_array_equal(tokens_of(action_of(jnp.arange(128), 128), 128), np.arange(128))


@pytest.fixture(scope='module')
def tokens():
    """A policy of tokens, parameters for it and the log-probabilities of all its actions at one observation."""
    policy = make('autoregressive')
    params = perturbed(policy, 0.5)
    return policy, params, interpreted(policy.log_prob)(params, OBSERVATION[0], GRID)


def test_probabilities_of_all_actions_sum_to_one_and_are_those_of_the_draws(tokens):
    policy, params, log_prob = tokens
    assert isinstance(policy, LikelihoodPolicy)
    np.testing.assert_allclose(jnp.exp(log_prob).sum(), 1.0, rtol=1e-5)
    draws = interpreted(policy.sample, static_argnums=3)(params, OBSERVATION[0], KEY, 20_000)
    share = (abs(draws[:, None] - GRID[None]).sum(axis=-1) < 1e-3).mean(axis=0)
    np.testing.assert_allclose(share.sum(), 1.0, rtol=1e-5)
    # Five standard errors of the likeliest.
    np.testing.assert_allclose(share, jnp.exp(log_prob), atol=5.0 * 0.5 / 141)


def test_a_dimension_is_given_those_before_it(tokens):
    by_first = tokens[2].reshape(5, 5)
    conditional = jax.nn.log_softmax(by_first, axis=1)
    assert abs(conditional - conditional[:1]).max() > 1e-2


def test_the_mode_is_what_is_drawn_without_temperature(tokens):
    cold = make('autoregressive', temperature=0.0)
    mode = interpreted(cold.mode)(tokens[1], OBSERVATION, KEY)
    for draw in interpreted(cold.sample, static_argnums=3)(tokens[1], OBSERVATION, KEY, 2):
        np.testing.assert_array_equal(draw, mode)
    # Greedy: the likeliest first bin, then the likeliest second one beside it.
    first = jax.nn.logsumexp(tokens[2].reshape(5, 5), axis=1).argmax()
    second = tokens[2].reshape(5, 5)[first].argmax()
    np.testing.assert_allclose(mode[0], action_of(jnp.array([first, second]), 5), atol=1e-6)


# What the settings refuse.


@pytest.mark.parametrize(
    'settings, message',
    [
        ({'process': 'cosines'}, 'process must be one of'),
        ({'sampler': 'euler'}, 'sampler must be one of'),
        ({'num_steps': 6}, 'num_steps must be at most num_levels, 5; got 6'),
        ({'process': 'edm'}, "needs variance 'posterior'"),
        ({'process': 'edm', 'variance': 'posterior'}, "got clip 'sample'"),
        ({'sampler': 'heun'}, 'heun clips no samples'),
        ({'sigma_max': 0.01}, 'sigma_max must be greater than sigma_min'),
        ({'num_levels': 0}, 'num_levels must be greater than 0'),
        ({'activation': 'sigmoid'}, 'activation must be one of'),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        DiffusionConfig(**settings)


def test_further_refusals():
    with pytest.raises(UsageError, match='kind of a policy must be one of'):
        policy_kind('flows')
    with pytest.raises(UsageError, match='one width, given once for each of its blocks'):
        diffusing(hidden=(8, 9))
    with pytest.raises(UsageError, match='num_bins must be at least 2'):
        AutoregressiveConfig(num_bins=1)
    with pytest.raises(UsageError, match='width must be a multiple of num_heads'):
        autoregressive_policy(SPEC, AutoregressiveConfig(width=10, num_heads=4))
    with pytest.raises(UsageError, match='num_steps must be greater than 0'):
        flow_policy(SPEC, FlowConfig(num_steps=0))
    with pytest.raises(UsageError, match='num_time_features must be even'):
        FlowConfig(num_time_features=5)
    for kind in (FlowConfig, AutoregressiveConfig):
        with pytest.raises(UsageError, match='dropout must be less than 1'):
            kind(dropout=1.0)
