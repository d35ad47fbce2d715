"""Diffusion and flow policies against numbers recorded from IDQL, FQL and QAM's code."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import blank

from ooorl.agents.iql import IQLConfig, iql_critic
from ooorl.interpreted import interpreted
from ooorl.nn import diffusion
from ooorl.policies.averaged import Averaged, averaged
from ooorl.policies.diffusion import DiffusionConfig, diffusion_policy, process
from ooorl.policies.flow import FlowConfig, flow_policy, time_network
from ooorl.types import Spec

pytestmark = pytest.mark.usefixtures('highest_precision')
SPEC = Spec(observation_dim=5, action_dim=3)
IDQL = ('idql_full_bc_mish', 'idql_full_expadv_mish', 'idql_simple_swish')


def _idql_config(arrays, **changes):
    widths = tuple(arrays[f'init/score/cond/w{layer}'].shape[1] for layer in range(2))
    return DiffusionConfig(
        hidden=(8,) * int(arrays['hp_blocks']), activation=str(arrays['hp_activation']), num_time_features=8, time_hidden=widths,
        dropout=0.0, ema_rate=None, num_levels=int(arrays['hp_T']), **changes,
    )  # fmt: skip


def _score_tree(arrays, prefix):
    """Arrays of IDQL's network as parameters of `time_network`."""

    def dense(kernel, bias):
        return {'kernel': jnp.asarray(arrays[f'{prefix}/{kernel}']), 'bias': jnp.asarray(arrays[f'{prefix}/{bias}'])}

    blocks = int(arrays['hp_blocks'])
    body = {'Dense_0': dense('w_in', 'b_in'), f'Dense_{2 * blocks + 1}': dense('w_out', 'b_out')}
    for block in range(blocks):
        scale, shift = (jnp.asarray(arrays[f'{prefix}/block{block}/{name}']) for name in ('ln_scale', 'ln_bias'))
        body[f'LayerNorm_{block}'] = {'scale': scale, 'bias': shift}
        for layer in range(2):
            body[f'Dense_{2 * block + 1 + layer}'] = dense(f'block{block}/w{layer}', f'block{block}/b{layer}')
    time = {f'Dense_{layer}': dense(f'cond/w{layer}', f'cond/b{layer}') for layer in range(2)}
    frequencies = jnp.asarray(arrays[f'{prefix}/time/kernel'][:, 0])
    return {'params': {'body': body, 'frequencies': frequencies} | time}


def _check_trees(comparison, kind, arrays, prefix, ours):
    theirs = _score_tree(arrays, prefix)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        comparison.check_numbers(kind, prefix, mine, other)


@pytest.mark.parametrize('name', IDQL)
def test_idqls_updates_of_network_and_slow_copy(golden_dir, name):
    arrays = golden.load(golden_dir, name)
    config, comparison = _idql_config(arrays), golden.Comparison(arrays)
    network, levels = time_network(SPEC, config), process(config).levels
    np.testing.assert_allclose(levels.alpha**2, arrays['alpha_hats'], rtol=2e-6)
    rate = optax.cosine_decay_schedule(golden.decimal(arrays, 'hp_lr'), int(arrays['hp_cosine_steps']))
    optimizer = optax.adamw(rate, weight_decay=golden.decimal(arrays, 'hp_actor_weight_decay'))
    policy = averaged(diffusion_policy(SPEC, config), golden.decimal(arrays, 'hp_actor_tau'))

    @jax.jit
    def step(params, opt, batch, index, noise, weight):
        level = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32)[index], levels)

        def loss_fn(params):
            def guess(x, time):
                return network.apply(params.fitted, x, batch.observation, time)

            return (weight * diffusion.denoising_loss(guess, level, batch.action, noise)).mean()

        loss, gradient = jax.value_and_grad(loss_fn)(params)
        updates, opt = optimizer.update(gradient, opt, params)
        return policy.after_update(params, optax.apply_updates(params, updates)), opt, loss, gradient

    params = Averaged(_score_tree(arrays, 'init/score'), _score_tree(arrays, 'init/tscore'))
    opt = optimizer.init(params)
    for number in range(1, 6):
        index, noise = (jnp.asarray(arrays[key][number - 1]) for key in ('time_index', 'noise'))
        weight = jnp.asarray(arrays[f'step{number}/actor_weight'])
        params, opt, loss, gradient = step(params, opt, golden.batch(arrays, number), index, noise, weight)
        comparison.check('scalar', f'step{number}/actor_loss', loss)
        comparison.check('scalar', f'step{number}/gnorm_actor', optax.tree.norm(gradient))
        if f'after{number}/score/w_in' in arrays:
            _check_trees(comparison, 'parameter', arrays, f'after{number}/score', params.fitted)
            _check_trees(comparison, 'parameter', arrays, f'after{number}/tscore', params.slow)


CHAINS = {
    'clip_rep0': {}, 'clip_rep2': {'repeat_last': 2}, 'noclip_rep0': {'clip': 'end'}, 'clip_temp0.5': {'temperature': 0.5},
}  # fmt: skip


@pytest.mark.parametrize('name', [IDQL[0], IDQL[2]])
def test_idqls_chains_and_choice(golden_dir, name):
    arrays = golden.load(golden_dir, name)
    params, comparison = _score_tree(arrays, 'after5/tscore'), golden.Comparison(arrays)

    def noises(start, steps):
        return jnp.moveaxis(jnp.concatenate([start[None], steps]), 0, -2).reshape(start.shape[0], -1)

    for chain, changes in CHAINS.items():
        policy = diffusion_policy(SPEC, _idql_config(arrays, **changes))
        noise = noises(arrays['chain/x_T'], arrays['chain/z'][:4])
        assert noise.shape[-1] == policy.noise_dim == 15
        action = interpreted(policy.decode)(params, jnp.asarray(arrays['chain/obs']), noise)
        comparison.check('value', f'chain/{chain}/action', action)
    policy = diffusion_policy(SPEC, _idql_config(arrays))
    noise = noises(arrays['act/x_T'], arrays['act/z'][:4])
    candidates = interpreted(policy.decode)(params, jnp.asarray(arrays['act/obs']), noise)
    comparison.check('value', 'act/candidates', candidates)
    critic = iql_critic(SPEC, IQLConfig(hidden=(8, 8)))
    slow = tuple(golden.dense_tree(arrays, f'after5/tq{e}') for e in range(2))
    state = blank(critic.init)._replace(target_q=slow)
    observation = jnp.broadcast_to(arrays['act/obs'], (8, 5))
    q = critic.target_q(state, observation, candidates).min(axis=0)
    comparison.check('value', 'act/q_min_target', q)
    np.testing.assert_allclose(candidates[q.argmax()], arrays['act/action'], rtol=1e-4)


@pytest.mark.parametrize('name', ['fql_mean_a10', 'fql_min_a3_normq'])
def test_fqls_flow(golden_dir, name):
    arrays = golden.load(golden_dir, name)
    config, comparison = FlowConfig(hidden=(8, 8), num_steps=int(arrays['hp_flow_steps'])), golden.Comparison(arrays)
    policy, network, params = flow_policy(SPEC, config), time_network(SPEC, config), golden.flow_tree(arrays, 'init/flow', 3)
    batch = golden.batch(arrays, 1)
    noise, time = (jnp.asarray(arrays[f'noise/{key}'][0]) for key in ('flow_x0', 'flow_t'))

    def velocity(x, t):
        return network.apply(params, x, batch.observation, t)

    comparison.check('value', 'step1/flow_velocity_pred', velocity(jnp.asarray(arrays['step1/flow_x_t']), time[:, 0]))
    loss = diffusion.flow_loss(velocity, batch.action, noise, time[:, 0])
    # A mean over A there, a sum here.
    comparison.check('scalar', 'step1/actor_bc_flow_loss', loss.mean() / 3.0)
    action = interpreted(policy.decode)(params, batch.observation, jnp.asarray(arrays['noise/distill_z'][0]))
    comparison.check('value', 'step1/euler_actions', action)


@pytest.mark.parametrize('name', ['qam_ifql_h3_e4'])
def test_qams_flow_over_chunks(golden_dir, name):
    arrays = golden.load(golden_dir, name)
    size = arrays['act/action'].shape[-1]  # three actions of three numbers
    config = FlowConfig(hidden=(8, 8), num_steps=int(arrays['hp_flow_steps']))
    policy = flow_policy(Spec(observation_dim=5, action_dim=size), config)
    observation = jnp.broadcast_to(arrays['act/obs'][:, None], (4, 8, 5))
    params, noise = golden.flow_tree(arrays, 'after5/flow', size), jnp.asarray(arrays['act/noise'])
    candidates = interpreted(policy.decode)(params, observation, noise)
    golden.Comparison(arrays).check('value', 'act/candidates', candidates)
