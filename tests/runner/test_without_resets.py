"""Runs without resets from a config: counted, refused where they mean nothing, and with somebody at the terminal."""

import dataclasses
import io
import json
import sys

import jax
import numpy as np
import pytest
import tomli_w

import ooorl
from ooorl.errors import UsageError
from ooorl.runner import cli, config, session, without_resets
from ooorl.runner.prepare import prepare
from ooorl.training import checkpoint
from ooorl.training.lives import WIDTH
from ooorl.training.run import run

TABLE = {
    'run': {'scheme': 'online', 'seeds': '0:1', 'updates_per_round': 8},
    'environment': {'id': 'ooorl/PointMassCliffs-v0'},
    'evaluation': {'num_episodes': 1, 'settings': {'horizon': 4}},
    'online': {'num_env_steps': 24, 'num_updates': 8, 'cycle_steps': 3, 'random_steps': 9},
    'lives': {'horizon': 12, 'seed_steps': 9, 'patience': 1},
    'agent': {'agent': 'iql', 'hidden': [4], 'sampling': {'batch_size': 4}, 'cautious': {'hidden': [4]}},
}


def table(**changes):
    """The config with `section__key=value` changed, or a whole section removed with None."""
    made = {name: dict(section) for name, section in TABLE.items()}
    for name, value in changes.items():
        section, _, key = name.partition('__')
        if key:
            made.setdefault(section, {})[key] = value
        elif value is None:
            del made[section]
    return made


def test_the_setup_lives_and_the_evaluation_does_not():
    setup = prepare(table()).setup
    assert setup.environment.spec.observation_dim == 2 + WIDTH and setup.environment.spec.action_dim == 3
    assert setup.evaluation.spec.observation_dim == 2 and setup.environment.counts is not None
    assert [phase.name for phase in setup.phases] == ['random', 'online']
    assert prepare(table(lives=None)).setup.environment.counts is None


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        ({'environment__id': 'ooorl/UMaze-v0'}, r'\[lives\] needs a task that knows what is irreversible; ooorl/UMaze-v0'),
        ({'agent__cautious': {'labels': 'environment'}}, r"\[lives\] finds labels by asking"),
        ({'agent__chunk': 2}, r'\[lives\] takes an agent of plain steps and observations; got chunk'),
        ({'lives__trigger': 'hope'}, "trigger must be one of 'never', 'detector', 'truth'; got 'hope'"),
        ({'lives__switch_every': 5}, r'\[lives\] has one policy; got switch_every or wish'),
        ({'agent__cautious': {'signal': 'precedence'}}, 'precedence needs cautious.reset for that; got none'),
        ({'lives__patience': 10**6}, 'patience must be less than the horizon, .*, or help never comes; got 1000000'),
        ({'lives__imitate': 'demonstrations'}, "lives.imitate = 'demonstrations' needs a data set that holds them; got none"),
        ({'lives__budget': -1}, 'budget must be 0 or more; got -1'),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(changes, sentence):
    with pytest.raises(UsageError, match=sentence):
        prepare(table(**changes))


def test_only_a_phase_that_collects_and_learns_nothing_wanders():
    setup = prepare(table()).setup
    random, online = setup.phases
    assert random.agent is not online.agent
    idle = dataclasses.replace(setup, phases=(dataclasses.replace(random, num_env_steps=0), online))
    first, second = without_resets.living(config.resolve(table()), idle, online.agent).phases
    assert first.agent is second.agent


def loaded(folder, prepared):
    """The policy of a run that has learnt nothing yet, and the states that it wrote."""
    states = jax.jit(jax.vmap(prepared.setup.phases[-1].agent.init))(jax.random.split(jax.random.key(3), 1))
    checkpoint.save(folder / 'checkpoint', 1, (np.zeros(1), {'online': states}), {})
    (folder / 'config.toml').write_text(tomli_w.dumps(prepared.config))
    interface = {'observation_dim': 2, 'action_dim': 2, 'action_low': [-1.0, -1.0], 'action_high': [1.0, 1.0]}
    (folder / 'summary.json').write_text(json.dumps({'interface': interface}))
    return ooorl.load(folder), states


def test_the_policy_forward_is_what_is_deployed(tmp_path):
    policy, states = loaded(tmp_path, prepare(table()))
    jax.tree.map(lambda ours, held: np.testing.assert_array_equal(ours, held[0]), policy.state, states.forward)
    assert policy.phase == 'online' and policy.agent.q is not None


def test_policies_that_learnt_from_the_environments_labels_need_no_environment(tmp_path):
    policy, states = loaded(tmp_path, prepare(table(lives=None, agent__cautious={'hidden': [4], 'labels': 'environment'})))
    jax.tree.map(lambda ours, held: np.testing.assert_array_equal(ours, held[0]), policy.state, states)


def test_a_detector_is_needed_where_it_triggers():
    bare = table()
    del bare['agent']['cautious']
    with pytest.raises(UsageError, match=r"lives.trigger = 'detector' needs a detector, sub-table cautious of \[agent\]"):
        prepare(bare)
    offline = {'run': {'scheme': 'offline'}, 'agent': {'agent': 'iql'}, 'lives': {'horizon': 5, 'trigger': 'never'}}
    with pytest.raises(UsageError, match=r"\[lives\] needs scheme 'online' or 'finetune'; got 'offline'"):
        config.resolve(offline)
    with pytest.raises(UsageError, match='--ask needs a run without resets'):
        without_resets.asked(config.resolve(table(lives=None)), None, 'somewhere')


def test_somebody_at_the_terminal_labels_the_lives(tmp_path, monkeypatch, capsys):
    path, out = tmp_path / 'lives.toml', tmp_path / 'run'
    sections = []
    for name, own in TABLE.items():
        lines = [f'{key} = {json.dumps(value)}' for key, value in own.items() if not isinstance(value, dict)]
        sections.append('\n'.join([f'[{name}]', *lines]))
    subs = '[evaluation.settings]\nhorizon = 4\n[agent.sampling]\nbatch_size = 4\n[agent.cautious]\nhidden = [4]\n'
    path.write_text('\n'.join(sections) + '\n' + subs)
    monkeypatch.setattr(sys, 'stdin', io.StringIO('n\n' * 40))
    seen, rows = [], []

    def execute(prepared, folder, **settings):
        folder.mkdir()
        seen.append(prepared.setup)
        raise UsageError('that was all')

    monkeypatch.setattr(session, 'execute', execute)
    assert cli.main(['run', str(path), '--out', str(out), '--ask', 'terminal']) == 2
    setup = dataclasses.replace(seen[0], phases=seen[0].phases[:1], evaluation=None)
    run(setup, report=lambda event: rows.extend(event.rows))
    answers = [json.loads(line) for line in (out / 'answers.jsonl').read_text().splitlines()]
    (last,) = [row for row in rows if row['kind'] == 'counts'][-1:]
    assert answers == [[0, 0, 0, 8, False]] and last['label_queries'] == last['interventions'] == 1
    assert 'Can it never be taken back? [y/n]' in capsys.readouterr().out and (out / 'question.png').exists()
