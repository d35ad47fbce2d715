"""Caution replaces the target of what cannot be taken back by a floor, for every critic, whatever its bonus promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import random_batch
from test_wrap import KEY, constant_signal, watching

from ooorl.agents.calql import CalQLConfig, calql
from ooorl.agents.iql import IQLConfig, iql, iql_critic
from ooorl.agents.parl import PARLConfig, parl
from ooorl.agents.sac import SACConfig, sac
from ooorl.agents.td3 import TD3Config, td3
from ooorl.errors import UsageError
from ooorl.interpreted import interpreted
from ooorl.nn.losses import backup
from ooorl.policies.gaussian import gaussian_policy
from ooorl.runner import config
from ooorl.runner.build import build_agent
from ooorl.training import replay
from ooorl.types import Spec
from ooorl.wrap import bonus, cautious, labelled, normalised_observation, one_decision

SPEC = Spec(observation_dim=3, action_dim=2)
ONES = jnp.ones(4)


def _seen(agent, batch):
    state = interpreted(agent.init)(KEY)
    for _ in range(2):
        state, _ = interpreted(agent.update)(state, batch, KEY)
    while hasattr(state, 'agent'):
        state = state.agent
    return state


def test_a_label_counts_before_the_score_and_the_score_before_nothing():
    agent = cautious(watching(), constant_signal(0.25), floor=-10.0)
    batch = random_batch(KEY, 4, label=jnp.array([1.0, 0.0, -1.0, jnp.nan]))
    seen = _seen(agent, batch)
    assert seen.extras['irreversible'].tolist() == [1.0, 0.0, 0.25, 0.25] and seen.extras['floor'].tolist() == [-10.0] * 4
    assert _seen(agent, random_batch(KEY, 4)).extras['irreversible'].tolist() == [0.25] * 4
    assert _seen(cautious(watching(), constant_signal(7.0), floor=0.0), batch).extras['irreversible'].tolist() == [1, 0, 1, 1]


def test_the_environments_own_test_labels_every_row():
    agent = normalised_observation(cautious(watching(), constant_signal(0.5), floor=-1.0), np.full(3, 9.0), np.ones(3))
    batch = random_batch(KEY, 8)
    privileged = labelled(agent, lambda observation: observation[..., 0] > 0)
    np.testing.assert_array_equal(_seen(privileged, batch).extras['irreversible'], batch.next_observation[:, 0] > 0)
    assert privileged.update(privileged.init(KEY), batch, KEY)[1]['privileged_labels'] == 8


@pytest.mark.parametrize('outside', [True, False])
def test_the_explorer_is_optimistic_about_the_unknown_and_not_about_the_irreversible(outside):
    batch = random_batch(KEY, 2, label=jnp.array([1.0, 0.0]))
    wrappers = [lambda a: bonus(a, constant_signal(3.0), scale=2.0), lambda a: cautious(a, constant_signal(), floor=-10.0)]
    agent = watching()
    for wrapper in wrappers if outside else wrappers[::-1]:
        agent = wrapper(agent)
    target = backup(_seen(agent, batch), jnp.array([5.0, 5.0]), 0.5)
    # Row 0 is terminal too: the floor, whatever its reward, successor and bonus. Row 1: r + 0.5 * 5 + 2 * 3.
    np.testing.assert_allclose(target, [-10.0, batch.reward[1] + 2.5 + 6.0], rtol=1e-6)


def _parl(gamma):
    critic = iql_critic(SPEC, IQLConfig(hidden=(), gamma=gamma))
    return parl(SPEC, PARLConfig(num_candidates=2, num_kept=1, num_steps=1), critic=critic, policy=gaussian_policy(SPEC, (4,)))


AGENTS = {
    'iql': lambda gamma: iql(SPEC, IQLConfig(hidden=(), gamma=gamma)),
    'calql': lambda gamma: calql(SPEC, CalQLConfig(hidden=(4,), critic_hidden=(), num_actions=2, gamma=gamma)),
    'sac': lambda gamma: sac(SPEC, SACConfig(hidden=(4,), gamma=gamma)),
    'td3': lambda gamma: td3(SPEC, TD3Config(hidden=(4,), gamma=gamma)),
    'parl': _parl,
}


@pytest.mark.parametrize('name', AGENTS)
def test_nothing_of_an_irreversible_successor_reaches_a_critic_but_the_floor(name):
    """Updates with every successor irreversible are those of a task that ends there with the floor as its reward."""
    batch = random_batch(KEY, 4, label=ONES, return_to_go=jnp.full(4, -50.0))
    agent = AGENTS[name](0.9)
    careful = cautious(agent, constant_signal(0.0), floor=-10.0)
    ended = batch._replace(reward=-10.0 * ONES, discount=0.0 * ONES)

    @jax.jit
    def both(state):
        after, _ = interpreted(careful.update)(state, batch, KEY)
        return after.agent, interpreted(agent.update)(state.agent, ended, jax.random.split(KEY)[0])[0]

    careful_agent, plain = both(interpreted(careful.init)(KEY))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), careful_agent, plain)


def test_rows_of_a_store_without_labels_are_unknown():
    judged, bare = random_batch(KEY, 4, label=ONES), random_batch(KEY, 4)
    views = [replay.view(replay.full(rows)) for rows in (judged, bare)]
    drawn = replay.sample_views(tuple(views), KEY, 8, weights=jnp.ones(2), exact=True)
    assert drawn.extras['label'].tolist() == [1] * 4 + [-1] * 4
    assert not replay.sample_views((views[1],), KEY, 2).extras


def test_a_chunk_has_the_label_of_its_last_successor():
    rows = random_batch(KEY, 4, label=jnp.array([0.0, 1, -1, 0]))
    windows = jax.tree.map(lambda leaf: leaf.reshape(2, 2, *leaf.shape[1:]), rows)
    windows.extras['valid'] = jnp.ones((2, 2))
    assert one_decision(windows, 0.9).extras['label'].tolist() == [1, 0]


def _built(table, **truth):
    resolved = config.resolve({'run': {'scheme': 'offline'}, 'agent': table})
    return build_agent(resolved['agent'], SPEC, **truth)


@pytest.mark.parametrize('signal', ['classifier', 'precedence', 'reachability', 'neighbour'])
def test_caution_by_config(signal):
    more = {'reset': [0.0, 0.0, 0.0]} if signal == 'reachability' else {}
    table = {'agent': 'iql', 'hidden': [4], 'cautious': {'signal': signal, 'labels': 'environment', 'floor': -7.0, **more}}
    agent = _built(table, irreversible=lambda observation: observation[..., 0] > 0)
    batch = random_batch(KEY, 8)
    seen = interpreted(lambda key: agent.sees(interpreted(agent.init)(key), batch))(KEY)
    np.testing.assert_array_equal(seen.extras['irreversible'], batch.next_observation[:, 0] > 0)
    assert (seen.extras['floor'] == -7.0).all()


def test_caution_is_refused_where_it_means_nothing():
    with pytest.raises(UsageError, match="cautious.labels = 'environment' needs a compiled environment"):
        _built({'agent': 'iql', 'cautious': {'labels': 'environment'}})
    with pytest.raises(UsageError, match='bc learns no values to lower; remove the sub-table cautious'):
        _built({'agent': 'bc', 'cautious': {}})
    with pytest.raises(UsageError, match='reset must have a number for each of the 3 columns'):
        _built({'agent': 'iql', 'cautious': {'signal': 'reachability'}})
