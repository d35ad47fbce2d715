"""FQL against updates recorded from its released code: recorded noise enters in the place of `jax.random`'s draws."""

import draws
import golden
import jax
import optax
import pytest
from small import blank

from ooorl.agents.fql import FQLConfig, fql
from ooorl.types import Spec

pytestmark = pytest.mark.usefixtures('highest_precision')
SPEC = Spec(observation_dim=5, action_dim=3)
NETS = {'q': ('q0', 'q1'), 'target_q': ('tq0', 'tq1'), 'policy': ('flow',), 'one_step': ('onestep',)}


def config_of(arrays):
    return FQLConfig(
        gamma=golden.decimal(arrays, 'hp_discount'), polyak=golden.decimal(arrays, 'hp_tau'),
        learning_rate=golden.decimal(arrays, 'hp_lr'), distil_weight=golden.decimal(arrays, 'hp_alpha'),
        normalise_q=bool(arrays['hp_normalize_q_loss']), aggregate=str(arrays['hp_q_agg']), hidden=(8, 8),
        num_steps=int(arrays['hp_flow_steps']),
    )  # fmt: skip


def recorded(arrays, prefix, name):
    """The recorded parameters of one of a state's fields."""
    if name == 'policy':
        return golden.flow_tree(arrays, f'{prefix}/flow', SPEC.action_dim)
    trees = tuple(golden.dense_tree(arrays, f'{prefix}/{net}') for net in NETS[name])
    return trees[0] if name == 'one_step' else trees


def check(comparison, kind, prefix, name, ours):
    theirs = recorded(comparison.arrays, prefix, name)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        comparison.check_numbers(kind, f'{prefix}/{name}', mine, other)


@pytest.mark.parametrize('name', ['fql_mean_a10', 'fql_min_a3_normq'])
def test_the_released_updates(golden_dir, name):
    arrays = golden.load(golden_dir, name)
    comparison = golden.Comparison(arrays)
    replay = draws.Replay('normal', 'normal', 'uniform', 'normal')
    agent = fql(SPEC, config_of(arrays), grad_transform=replay.grad_transform)
    state = blank(agent.init)._replace(**{field: recorded(arrays, 'init', field) for field in NETS})
    for number in range(1, 6):
        noise = [arrays[f'noise/{key}'][number - 1] for key in ('next_action_z', 'flow_x0', 'flow_t', 'distill_z')]
        noise[2] = noise[2][:, 0]
        state, metrics = replay.run(agent.update, noise, state, golden.batch(arrays, number), jax.random.key(0))
        for key, theirs in {
            'q/loss': 'critic_critic_loss', 'policy/loss': 'actor_bc_flow_loss', 'one_step/distance': 'actor_distill_loss',
        }.items():  # fmt: skip
            comparison.check('scalar', f'step{number}/{theirs}', metrics[key])
        for gradient, net in zip(replay.gradients, ('critic', 'flow', 'onestep'), strict=True):
            comparison.check('scalar', f'step{number}/gnorm_{net}', optax.tree.norm(gradient))
        if number == 1:
            for gradient, field in zip(replay.gradients, ('q', 'policy', 'one_step'), strict=True):
                check(comparison, 'gradient', 'grad1', field, gradient)
        if f'after{number}/flow/w0' in arrays:
            for field in NETS:
                check(comparison, 'parameter', f'after{number}', field, getattr(state, field))
