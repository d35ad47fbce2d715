"""Settings that differ online: what changes, what stays, and what is refused."""

import jax
import jax.numpy as jnp
import pytest
from line_world import line_task
from small import random_batch

from ooorl.envs import batched
from ooorl.errors import UsageError
from ooorl.runner import build, config
from ooorl.training.phases import Setup
from ooorl.training.preflight import check
from ooorl.types import Spec
from ooorl.wrap import with_extras

SPEC, KEY = Spec(observation_dim=1, action_dim=1), jax.random.key(0)
PARL = {
    'agent': 'parl', 'imitate': 'data', 'learning_rate': 3e-4, 'num_candidates': 3, 'num_kept': 2, 'num_steps': 1,
    'policy': {'kind': 'gaussian', 'hidden': [8]}, 'critic': {'kind': 'iql', 'hidden': [8]},
}  # fmt: skip
RUN = {'offline_updates': 4, 'num_env_steps': 8, 'num_updates': 8, 'cycle_steps': 1}


def resolved(scheme='finetune', **agent):
    run = {'scheme': scheme}
    tables = {'run': run, 'agent': PARL | agent, 'dataset': {'path': 'x.hdf5'}, 'environment': {'id': 'x'}}
    return config.resolve(tables | ({'finetune': RUN} if scheme == 'finetune' else {}))


def checked(table):
    data = with_extras(random_batch(KEY, 12, observation_dim=1, action_dim=1), boundary=(jnp.arange(12) % 4 == 3) * 1.0)
    phases = build.build_phases(table, SPEC, data)
    check(Setup(phases=phases, dataset=data, environment=batched(line_task(), 2), seeds=(0,)))
    return phases


def test_a_policy_is_cloned_offline_and_distilled_online():
    online = {'imitate': 'search', 'step_size': 0.1, 'critic': {'expectile': 0.9}}
    table = resolved(online=online)
    agent = table['agent']
    assert config.resolve(table) == table and agent['online'] == online and agent['imitate'] == 'data'
    after = config.online_table(agent)
    assert (after['imitate'], after['learning_rate'], after['critic']['expectile']) == ('search', 3e-4, 0.9)
    assert after['critic']['hidden'] == [8] and 'online' not in after
    offline, finetune = checked(table)
    batch = random_batch(KEY, 6, observation_dim=1, action_dim=1)
    state = offline.agent.init(KEY)
    _, cloned = offline.agent.update(state, batch, KEY)
    _, distilled = finetune.agent.update(state, batch, KEY)  # its own state goes on
    assert 'search/q' in distilled and 'search/q' not in cloned


def test_without_a_word_both_phases_have_one_agent():
    offline, finetune = checked(resolved())
    assert offline.agent is finetune.agent


@pytest.mark.parametrize(('scheme', 'online', 'sentence'), [
    ('offline', {'imitate': 'search'}, "belongs to scheme 'finetune'; got scheme 'offline'"),
    ('finetune', {'imitat': 'search'}, "unknown key 'imitat' in .agent.online.; did you mean 'imitate'"),
    ('finetune', {'imitate': 'all'}, 'imitate must be one of'),
    ('finetune', {'chunk': 2}, 'must leave chunk as it is'),
    ('finetune', {'agent': 'iql'}, 'must leave agent as it is; the same agent goes on'),
    ('finetune', {'sampling': {}}, r'write \[agent.online_sampling\]'),
    ('finetune', 3, r'\[agent.online\] must be a table; got 3'),
    ('finetune', {'policy': {'hidden': [9]}}, "continues 'offline' with other settings, which must leave the state as it is"),
    ('finetune', {'schedule': 'cosine'}, 'which must leave the state as it is'),
])  # fmt: skip
def test_what_cannot_differ_online_is_refused(scheme, online, sentence):
    with pytest.raises(UsageError, match=sentence):
        checked(resolved(scheme, online=online))


def test_the_default_policy_is_not_exchanged_online():
    table = {'run': {'scheme': 'finetune'}, 'agent': {'agent': 'iql', 'online': {'policy': {'kind': 'flow'}}}}
    with pytest.raises(UsageError, match=r'leave the policy as it is, the default one; write \[agent.policy\] for both phases'):
        config.resolve(table)
