"""Presets: every value has a source, every preset builds what it says for the tasks it is for, and is run by its name."""

import json
import subprocess
import sys
import tomllib
import zipfile

import numpy as np
import pytest
from conftest import PATIENCE, ROOT
from reused import undrawn  # noqa: F401  no figures

from ooorl import catalogue
from ooorl.errors import UsageError
from ooorl.runner import build, config, presets
from ooorl.runner.cli import main
from ooorl.training.phases import Phase
from ooorl.types import Spec

# One task of each family: OGBench has a hundred.
TASKS = {presets._family(entry): entry for entry in reversed(catalogue.ENTRIES.values())}


def fitting(name, family):
    """A task of the family that the preset knows."""
    for entry in catalogue.ENTRIES.values():
        if presets._family(entry) == family:
            try:
                presets.preset(name, task := presets.task_of(entry.id, None))
                return task, entry
            except UsageError as error:
                assert 'knows no' in str(error)
    raise AssertionError(f'{name} knows no task of {family}')


@pytest.mark.parametrize('name', presets.names())
def test_every_value_has_a_source_and_every_variant_builds(name):
    held = presets.read(name)
    for variant in held['variants']:
        for family in presets.families(held, variant):
            task, entry = fitting(f'{name}@{variant}', family)
            found = presets.preset(f'{name}@{variant}', task)
            values = {key for key in presets.flat(found.table) if key != 'name'}
            assert values == {key for key in found.sources if key in values} and all(map(str.strip, found.sources.values()))
            table = config.resolve(found.table)
            assert not [key for key in values if key.partition('.')[0] not in table], 'a table that nothing reads'
            spec = Spec(observation_dim=entry.observation_dim, action_dim=entry.action_dim)
            rows = np.zeros((2, spec.observation_dim), np.float32), np.zeros((2, spec.action_dim), np.float32)
            data = type('Rows', (), {'observation': rows[0], 'action': rows[1]})
            table = json.loads(json.dumps(table).replace('"return_range"', '1.0'))
            assert all(isinstance(phase, Phase) for phase in build.build_phases(table, spec, data))


def test_a_value_without_a_source_is_refused(monkeypatch, tmp_path):
    (tmp_path / 'presets').mkdir()
    monkeypatch.setattr(presets, 'directory', lambda: tmp_path)
    text = (ROOT / 'configs' / 'presets' / 'bc.toml').read_text(encoding='utf-8')
    sourceless = [text.replace('source = "corl"', 'source = "hearsay"', 1), text.replace('source = "corl"\n', '', 1)]
    for number, wrong in enumerate(sourceless):
        (tmp_path / 'presets' / f'wrong{number}.toml').write_text(wrong, encoding='utf-8')
        with pytest.raises(UsageError, match=f'sources and layers for all its values; wrong{number}.toml has wrong'):
            presets.read(f'wrong{number}')


def test_what_a_task_changes():
    def value(name, task, key):
        return presets.flat(presets.preset(name, presets.task_of(task, None)).table).get(key)

    assert [value('iql', task, 'agent.expectile') for task in ('hopper-medium-v2', 'antmaze-large-play-v2')] == [0.7, 0.9]
    assert value('iql', 'hopper-medium-v2', 'agent.reward.scale') == 'return_range'
    assert [value(name, 'hopper-medium-v2', 'agent.normalise_observation') for name in ('iql@paper', 'iql@corl')] == [None, True]
    assert value('iql@finetune', 'pen-binary-v0', 'finetune.offline_updates') == 25_000
    assert value('iql@finetune', 'pen-binary-v0', 'offline.num_updates') is None
    assert value('prdc', 'halfcheetah-medium-v2', 'agent.q_normalisation') == 40.0
    assert [value('rebrac', f'hopper-{kind}-v2', 'agent.cloning_weight') for kind in ('random', 'medium', 'medium-replay')] == [
        0.001, 0.01, 0.05,
    ]  # fmt: skip
    assert [value('cql', task, 'run.scheme') for task in ('hopper-medium-v2', 'antmaze-umaze-v2')] == ['offline', 'finetune']
    like = presets.task_of('mine.hdf5', 'Hopper-v4', None, 'hopper-medium-expert-v2')  # that one of Hopper-v4's tasks
    assert presets.preset('rebrac', like).table['agent']['cloning_weight'] == 0.1
    assert presets.task_of(None, 'Hopper-v4').family == 'locomotion'
    assert presets.task_of('mine.npz', None, 'kitchen').family == 'kitchen'


@pytest.mark.parametrize(('asked', 'told'), [
    (('run', 'fql', '--dataset', 'hopper-medium-v2'),
     'fql@paper has settings for antmaze, adroit, ogbench; hopper-medium-v2 is locomotion; choose fql@small'),
    (('run', 'iql@mine', '--dataset', 'hopper-medium-v2'), "iql has the variants paper, finetune, corl, small, mild; got 'mine'"),
    (('run', 'rebrac', '--dataset', 'ant-medium-v2'), 'rebrac knows no agent.cloning_weight for ant-medium-v2'),
    (('run', 'iql', '--like', 'nothing-v0'), "--like needs an id of the catalogue; got 'nothing-v0'"),
    (('run', 'iql', '--env', 'Nowhere-v0'), 'needs the family of its task; Nowhere-v0 tells none'),
    (('run', 'iqll', '--dataset', 'x'), 'a config file or a preset is needed (bc, calql'),
    (('explain', 'iql', 'nothing'), 'preset iql sets no nothing'),
    (('explain', 'iql', 'expectil'), 'preset iql sets no expectil, but expectile'),
    (('explain', 'iql@smal'), "got 'smal'"),
    (('run', 'ooo/tabletop', '--like', 'nope'), "--like needs an id of the catalogue; got 'nope'"),
    (('run', 'ooo/tabletop', '--family', 'maze2d'), 'got ooo/tabletop, which is none; leave it out'),
])  # fmt: skip
def test_a_preset_that_does_not_fit_is_one_sentence(asked, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*asked]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count('\n') == 1 and not list(tmp_path.iterdir())


def test_a_preset_is_run_by_its_name_and_explained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    np.savez('mine.npz', observations=generator.normal(size=(40, 3)), actions=generator.uniform(-1, 1, (40, 2)),
             rewards=generator.normal(size=40), terminals=np.arange(40) % 10 == 9)  # fmt: skip
    short = ['--set', 'offline.num_updates=10', '--set', 'run.updates_per_round=5', '--set', 'agent.hidden=[8]', '--seeds', '0:1',
             '--set', 'agent.sampling.batch_size=8', '--set', 'agent.normalise_observation=false']  # fmt: skip
    assert main(['run', 'bc@small', '--dataset', 'mine.npz', '--family', 'locomotion', *short]) == 0
    kept = tomllib.loads((tmp_path / 'runs' / 'bc@small-mine' / 'config.toml').read_text())
    assert kept['agent']['agent'] == 'bc' and kept['agent']['learning_rate'] == 1e-3 and kept['offline']['num_updates'] == 10
    capsys.readouterr()
    assert main(['explain', 'iql', 'expectile', '--dataset', 'antmaze-large-play-v2']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == 'agent.expectile = 0.9' and 'arXiv:2110.06169' in lines[1]
    assert main(['explain']) == 0 and 'variants paper, finetune, corl, small, mild (default paper)' in capsys.readouterr().out


def test_the_wheel_holds_the_configs(tmp_path):
    pytest.importorskip('hatchling')
    program = f'from hatchling.build import build_wheel; print(build_wheel({str(tmp_path)!r}))'
    done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob('*.whl'))) as wheel:
        held = {name for name in wheel.namelist() if name.startswith('ooorl/configs/')}
    assert held == {f'ooorl/{path.relative_to(ROOT).as_posix()}' for path in (ROOT / 'configs').rglob('*.toml')}
