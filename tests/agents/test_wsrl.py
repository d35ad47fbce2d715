"""WSRL: plain SAC on what Cal-QL has left, and phases that throw the data away."""

import jax
import numpy as np
import pytest
from small import random_batch, trees_equal

from ooorl.agents.calql import CalQLConfig, calql
from ooorl.agents.sac import sac
from ooorl.agents.wsrl import WSRLConfig, as_sac, online_config, wsrl
from ooorl.errors import UsageError
from ooorl.interpreted import interpreted
from ooorl.policies.gaussian import tanh_gaussian_policy
from ooorl.runner.prepare import prepare
from ooorl.training import run as running
from ooorl.types import Spec

SPEC = Spec(observation_dim=3, action_dim=2)
SMALL = {'hidden': (8,), 'critic_hidden': (8,), 'num_actions': 2}
TABLE = {
    'run': {'scheme': 'wsrl', 'updates_per_round': 6},
    'environment': {'id': 'ooorl/UMaze-v0', 'num_envs': 2, 'settings': {'horizon': 7}},
    'evaluation': {'num_episodes': 0},
    'dataset': {'scripted': 'u_maze', 'settings': {'num_episodes': 4}},
    'wsrl': {'offline_updates': 4, 'warm_up_steps': 8, 'num_env_steps': 20, 'num_updates': 6},
    'agent': {'agent': 'wsrl', 'hidden': [8], 'critic_hidden': [8], 'num_actions': 2, 'utd': 2, 'sampling': {'batch_size': 4}},
}


def test_an_update_is_that_of_sac_to_the_last_bit():
    config = WSRLConfig(**SMALL, utd=2, num_critics=3, num_target_critics=2, policy_learning_rate=1e-3)
    policy = tanh_gaussian_policy(SPEC, (8,), log_std_affine=(1.0, -1.0), last_init='small')
    state = calql(SPEC, config, policy=policy).init(jax.random.key(0))
    batch, key = random_batch(jax.random.key(1), 8), jax.random.key(2)
    own, metrics = interpreted(wsrl(SPEC, config).update)(state, batch, key)
    alone, _ = interpreted(sac(SPEC, online_config(SPEC, config), policy=policy).update)(as_sac(state), batch, key)
    assert trees_equal(as_sac(own), alone) and np.isfinite(metrics['policy/loss'])
    assert trees_equal((own.critic.log_dual, own.critic.dual_opt), (state.critic.log_dual, state.critic.dual_opt))
    assert not trees_equal(own.critic.q, state.critic.q)
    assert online_config(SPEC, config).target_entropy == -2.0


def test_a_state_of_calql_is_one_of_wsrl():
    shapes = [jax.eval_shape(agent.init, jax.random.key(0)) for agent in (
        calql(SPEC, CalQLConfig(**SMALL)), wsrl(SPEC, WSRLConfig(**SMALL)),
    )]  # fmt: skip
    assert jax.tree.structure(shapes[0]) == jax.tree.structure(shapes[1])
    with pytest.raises(UsageError, match='plain critic'):
        WSRLConfig(critic_activation='swish')


def test_the_scheme_acts_before_it_learns_and_forgets_the_data():
    setup = prepare(TABLE).setup
    found = [(phase.name, phase.num_updates, phase.num_env_steps, phase.start) for phase in setup.phases]
    assert found == [('offline', 4, 0, None), ('warm-up', 0, 8, 'offline'), ('online', 6, 12, 'warm-up')]
    assert setup.phases[2].sampling.mix == {'online': 1.0} and setup.phases[2].sampling.batch_size == 8
    state = running.run(setup)
    assert trees_equal(state.finished['warm-up'], state.finished['offline'])
    before, after = (state.finished[name].critic.q_opt for name in ('warm-up', 'online'))
    counts = [max(int(leaf.max()) for leaf in jax.tree.leaves(opt) if leaf.dtype == np.int32) for opt in (before, after)]
    assert counts == [4, 4 + 2 * 6]  # the optimiser goes on
    assert state.stores['online'].size.tolist() == [20]


def test_online_sampling_leaves_the_data_out_unless_it_says_a_mix():
    def mix(own):
        table = {**TABLE, 'agent': {**TABLE['agent'], 'online_sampling': {'batch_size': 4, **own}}}
        return prepare(table).setup.phases[2].sampling.mix

    half = {'dataset': 0.5, 'online': 0.5}
    assert mix({}) == {'online': 1.0} and mix({'mix': half}) == half


@pytest.mark.parametrize(('changes', 'words'), [
    ({'agent': {**TABLE['agent'], 'agent': 'calql', 'utd': None}}, "needs agent = 'wsrl'"),
    ({'wsrl': {**TABLE['wsrl'], 'warm_up_steps': 20}}, 'warm_up_steps must be at least 1 and less than num_env_steps, 20'),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(changes, words):
    table = {**TABLE, **changes}
    table['agent'] = {key: value for key, value in table['agent'].items() if value is not None}
    with pytest.raises(UsageError, match=words):
        prepare(table)
