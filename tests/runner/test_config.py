"""Configs: defaults are filled in, every key is checked, and what is written back says everything."""

import copy
import dataclasses
import tomllib

import pytest
import tomli_w

from ooorl.agents import ALGORITHMS
from ooorl.agents.iql import IQLConfig
from ooorl.errors import UsageError
from ooorl.nn.networks import mlp
from ooorl.policies import POLICIES
from ooorl.runner import config, settings
from ooorl.runner.seed_list import parse_seeds
from ooorl.runner.settings import SIGNALS, RunConfig
from ooorl.validation import check_finite

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


def test_no_algorithm_has_a_setting_named_like_one_of_its_table():
    taken = {*config.fields(settings.AgentConfig), *settings.SUB_TABLES, *settings.CHOSEN, 'online'}
    assert not {name: clash for name, entry in ALGORITHMS.items() if (clash := taken & set(config.fields(entry.config)))}


def test_the_discount_of_returns_is_that_of_the_agent_unless_said_otherwise():
    agent = {'agent': 'iql', 'gamma': 0.9, 'sampling': {}, 'online_sampling': {'gamma': 0.5}}
    resolved = config.resolve(BARE | {'run': {'scheme': 'finetune'}, 'agent': agent})['agent']
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


@pytest.mark.parametrize('text', ['', ':', '3:3', '5:3', '-1:2', '1,1', 'a', '0:1:2', '1,', '4294967296', '٠:٣', '1_0', '²'])
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
        ({'policy': {'kind': 'flow', 'process': 'edm'}}, r"process in .agent.policy. belongs to kind 'diffusion'; got 'flow'"),
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


HOSTILE = (
    -1, 0, float('nan'), float('inf'), -float('inf'), 1e308, 10**12, '', 'x', [], [0], [-1], ['x'], [float('nan')], {}, True,
)  # fmt: skip


def hostile_places():
    """(path, config) of every setting of every table, agents' and policies' own included."""
    base = {'run': {'scheme': 'offline'}, 'offline': {}, 'agent': {'agent': 'iql'}}
    for name, (kind, *_) in ALGORITHMS.items():
        yield from ((('agent', field), {**base, 'agent': {'agent': name}}) for field in config.fields(kind))
    subs = {name: (kind, {}) for name, kind in settings.SUB_TABLES.items()}
    subs['head'] = (settings.HeadConfig, {'low': -1.0, 'high': 1.0})
    for signal, kind in settings.SIGNALS.items():
        needed = {'low': [0.0], 'high': [1.0], 'observation_bins': [2], 'action_bins': [2]} if signal == 'counts' else {}
        subs[f'bonus {signal}'] = (kind, {'signal': signal, **needed})
    for signal, kind in settings.DETECTORS.items():
        subs[f'cautious {signal}'] = (kind, {'signal': signal})
    for policy, kind in POLICIES.items():
        subs[f'policy {policy}'] = (kind.config, {'kind': policy})
    for sub, (kind, needed) in subs.items():
        name = sub.split()[0]
        yield from ((('agent', name, f), {**base, 'agent': {'agent': 'iql', name: needed}}) for f in config.fields(kind))
    for table, kind in settings.TABLES.items():
        scheme = table if table in settings.SCHEMES else 'offline'
        agents = {'explore': {}, 'exploit': {}} if scheme == 'ooo' else {'agent': {}}
        yield from (((table, field), {'run': {'scheme': scheme}, **agents}) for field in config.fields(kind))


def test_any_value_of_any_setting_is_taken_or_refused_in_one_sentence():
    tried = refused = 0
    for path, table in hostile_places():
        for value in HOSTILE:
            given = copy.deepcopy(table)
            inner = given
            for key in path[:-1]:
                inner = inner.setdefault(key, {})
            inner[path[-1]] = value
            tried += 1
            try:
                resolved = config.resolve(given)
            except UsageError as error:
                refused += 1
                assert '\n' not in str(error)
                continue
            check_finite('what was taken', resolved)
    assert tried > 3_000 and refused > tried / 2


@pytest.mark.parametrize(('path', 'value', 'message'), [
    ('agent.learning_rate', float('nan'), r'learning_rate in \[agent\] must be a finite number, .* got nan'),
    ('agent.learning_rate', 1e308, r'at most 3.4e38 in size; got 1e\+308'),
    ('offline.num_updates', 10**12, r'num_updates in \[offline\] must be an integer of at most 2147483647 in size'),
    ('environment.settings', {'horizon': float('inf')}, r'settings in \[environment\] must be a finite number'),
    ('agent.hidden', [8, 0], r'hidden must be at most 64 widths from 1 to 65536; got \[8, 0\]'),
    ('agent.dropout', 1.0, r'dropout must lie in \[0, 1\); got 1.0'),
    ('agent.num_critics', 5_000, r'num_critics must lie between 1 and 1000; got 5000'),
    ('agent.sampling', {'mix': {'dataset': float('nan')}}, r'mix in \[agent.sampling\] must be a finite number'),
    ('agent.sampling', {'gamma': 2.0}, r'gamma must lie in \[0, 1\]; got 2.0'),
    ('agent.head', {'low': 1.0, 'high': 1.0}, 'low must be less than high; got 1.0 and 1.0'),
    ('run.seeds', '0:3000000000', "seeds must be at most 10000; got 3000000000 with '0:3000000000'; run them in several runs"),
])  # fmt: skip
def test_numbers_beyond_every_use_are_refused(path, value, message):
    table, key = path.split('.')
    given = {'run': {'scheme': 'offline'}, 'agent': {'agent': 'iql'}}
    given.setdefault(table, {})[key] = value
    with pytest.raises(UsageError, match=message):
        config.resolve(given)


def test_an_outside_agents_activation_and_widths_are_refused_where_networks_are_made():
    for wrong, message in (
        ({'activation': 'sin'}, "activation must be one of 'relu'"), ({'kernel_init': 'zeros'}, 'kernel_init must be one of'),
        ({'dropout': 1.0}, 'dropout must lie in'), ({'layer_norm': 'both'}, 'layer_norm must be one of'),
    ):
        with pytest.raises(UsageError, match=message):
            mlp((8,), 1, **wrong)
    with pytest.raises(UsageError, match='widths from 1'):
        mlp((8, 0), 1)
