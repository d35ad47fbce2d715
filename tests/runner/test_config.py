"""Configs: defaults are filled in, every key is checked, and what is written back says everything."""

import dataclasses
import tomllib

import pytest
import tomli_w

from ooorl.agents import ALGORITHMS
from ooorl.agents.iql import IQLConfig
from ooorl.errors import UsageError
from ooorl.policies import POLICIES
from ooorl.runner import config
from ooorl.runner.settings import SIGNALS, RunConfig, parse_seeds

BARE = {'run': {'scheme': 'offline'}, 'agent': {'agent': 'iql'}, 'dataset': {'path': 'x.hdf5'}}


def test_resolving_fills_in_every_default():
    resolved = config.resolve(BARE)
    assert set(resolved) == {'name', 'run', 'environment', 'evaluation', 'dataset', 'report', 'offline', 'agent'}
    for table, kind in (('run', RunConfig), ('agent', IQLConfig)):
        filled = {f.name for f in dataclasses.fields(kind) if getattr(kind(), f.name) is not None}
        assert filled <= set(resolved[table])
    assert resolved['agent']['hidden'] == [256, 256] and resolved['offline'] == {'num_updates': 1_000_000}


@pytest.mark.parametrize('scheme', ['offline', 'finetune', 'online', 'ooo'])
def test_what_is_written_back_resolves_to_itself(scheme):
    tables = ('explore', 'exploit') if scheme == 'ooo' else ('agent',)
    agent = {'agent': 'iql', 'gamma': 0.9, 'reward': {'shift': -1}, 'bounds': {'high': 0}, 'bonus': {'signal': 'rnd'},
             'sampling': {'mix': {'dataset': 0.5, 'online': 0.5}}, 'head': {'low': -1, 'high': 0}}  # fmt: skip
    resolved = config.resolve({'run': {'scheme': scheme}} | dict.fromkeys(tables, agent))
    text = tomli_w.dumps(resolved)
    assert config.resolve(tomllib.loads(text)) == resolved
    assert tomli_w.dumps(config.resolve(tomllib.loads(text))) == text


def test_the_discount_of_returns_is_that_of_the_agent_unless_said_otherwise():
    agent = {'agent': 'iql', 'gamma': 0.9, 'sampling': {}, 'online_sampling': {'gamma': 0.5}}
    resolved = config.resolve(BARE | {'agent': agent})['agent']
    assert (resolved['sampling']['gamma'], resolved['online_sampling']['gamma']) == (0.9, 0.5)


@pytest.mark.parametrize('name', ALGORITHMS)
def test_every_setting_of_every_agent_can_be_set(name):
    kind = ALGORITHMS[name].config
    values = {f.name: getattr(kind(), f.name) for f in dataclasses.fields(kind)}
    table = {key: value for key, value in values.items() if value is not None}
    assert config.parse(kind, tomllib.loads(tomli_w.dumps(table)), '[agent]') == kind()


@pytest.mark.parametrize('name', [name for name in SIGNALS if name != 'counts'])
def test_every_setting_of_every_signal_can_be_set(name):
    kind = SIGNALS[name]
    table = {f.name: value for f in dataclasses.fields(kind) if (value := getattr(kind(), f.name)) is not None}
    assert config.parse(kind, tomllib.loads(tomli_w.dumps(table)), '[bonus]') == kind()


def test_types_are_checked_and_whole_numbers_are_floats_too():
    parsed = config.parse(IQLConfig, {'gamma': 1, 'hidden': [4, 5], 'num_critics': 7}, '[agent]')
    assert (parsed.gamma, parsed.hidden, parsed.num_critics) == (1.0, (4, 5), 7)
    assert isinstance(parsed.gamma, float)
    for key, value in (('gamma', True), ('hidden', [4.5]), ('num_critics', 2.0), ('layer_norm', 1), ('q_loss', 3)):
        with pytest.raises(UsageError, match=f'{key} in \\[agent\\] must be of type'):
            config.parse(IQLConfig, {key: value}, '[agent]')


def test_overrides_are_toml_or_else_text(tmp_path):
    path = tmp_path / 'c.toml'
    path.write_text('[agent]\nagent = "iql"\n')
    table = config.read(path, ['agent.hidden=[3, 4]', 'agent.layer_norm=true', 'agent.gamma=0.5', 'run.seeds=0:3', 'a.b.c=x = y'])
    assert table['agent'] == {'agent': 'iql', 'hidden': [3, 4], 'layer_norm': True, 'gamma': 0.5}
    assert table['run'] == {'seeds': '0:3'} and table['a'] == {'b': {'c': 'x = y'}}


@pytest.mark.parametrize(('text', 'seeds'), [
    ('0:3', (0, 1, 2)), ('5', (5,)), ('3,5', (3, 5)), ('7:8', (7,)), ('4294967295', (2**32 - 1,)),
])  # fmt: skip
def test_seeds(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize('text', ['', ':', '3:3', '5:3', '-1:2', '1,1', 'a', '0:1:2', '1,', '4294967296'])
def test_bad_seeds(text):
    with pytest.raises(UsageError, match='seeds must look like'):
        parse_seeds(text)


@pytest.mark.parametrize('name', POLICIES)
def test_a_policy_is_chosen_by_name_and_written_back(name):
    agent = {'agent': 'bc', 'policy': {'kind': name}}
    resolved = config.resolve(BARE | {'agent': agent})
    kind = POLICIES[name].config
    filled = {f.name for f in dataclasses.fields(kind) if getattr(kind(), f.name) is not None}
    assert set(resolved['agent']['policy']) == filled | {'kind'}
    # What is left of the agent's own table is what still means something.
    assert 'hidden' not in resolved['agent'] and 'learning_rate' in resolved['agent']
    assert config.resolve(tomllib.loads(tomli_w.dumps(resolved))) == resolved


@pytest.mark.parametrize(
    'agent, message',
    [
        ({'policy': {'kind': 'flows'}}, "kind must be one of 'gaussian', .*; got 'flows'"),
        ({'policy': {'kind': 'flow', 'num_level': 3}}, r"unknown key 'num_level' in \[agent.policy\]"),
        ({'policy': {'kind': 'diffusion', 'num_steps': 9}}, r'\[agent.policy\]: num_steps must be at most num_levels'),
        ({'policy': {'kind': 'flow'}, 'dropout': 0.1}, 'dropout in .agent. belongs to the default policy'),
        ({'policy': 'flow'}, r'\[agent.policy\] must be a table'),
        ({'reranked': {'num_candidates': 0}}, 'num_candidates must be greater than 0'),
        ({'reranked': {'value': 'max'}}, "value must be one of 'min', 'mean'"),
    ],
)
def test_sub_tables_of_policies_are_checked(agent, message):
    with pytest.raises(UsageError, match=message):
        config.resolve(BARE | {'agent': {'agent': 'iql'} | agent})
