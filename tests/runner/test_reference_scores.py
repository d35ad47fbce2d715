"""Which reference scores a config is normalised by: those of the environment it is evaluated in."""

import pytest
from reused import undrawn  # noqa: F401  no figures
from tiny_configs import OFFLINE, changed, written

from ooorl.errors import UsageError
from ooorl.runner import build, config
from ooorl.runner.cli import main


def test_a_data_set_by_its_id_brings_its_reference_scores(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    seen = []
    monkeypatch.setattr('ooorl.runner.cli._start', lambda table, *rest: seen.append(config.resolve(table)))
    settings = changed(OFFLINE, evaluation__task='halfcheetah-medium-v2', environment__id='HalfCheetah-v4')
    command = ['run', written(settings), '--dataset', 'hopper-medium-v2', '--set', 'environment.id=Hopper-v4']
    main(command)
    main([*command, '--set', 'evaluation.task=hopper-expert-v2'])
    main(['run', 'c.toml', '--dataset', 'file.hdf5'])
    assert [table['evaluation']['task'] for table in seen] == ['', 'hopper-expert-v2', 'halfcheetah-medium-v2']
    assert seen[0]['dataset']['task'] == 'hopper-medium-v2'
    assert [build.score_range(table)[:2] for table in seen] == [(-20.272305, 3234.3)] * 2 + [(-280.178953, 12135.0)]


@pytest.mark.parametrize(('environment', 'data', 'task', 'expected'), [
    ('Hopper-v5', 'hopper-medium-v2', '', (-20.272305, 3234.3, 'return')),
    ('gymnasium.envs.mujoco:Hopper-v4', '', 'hopper-medium-v2', (-20.272305, 3234.3, 'return')),
    ('My-v0', '', 'hopper-medium-v2', (-20.272305, 3234.3, 'return')),
    ('My-v0', 'hopper-medium-v2', '', None),
    ('Walker2d-v4', 'halfcheetah-medium-v2', '', None),
    ('ooorl/AdroitPenBinary-v0', 'pen-binary-v0', '', None),
    ('', '', 'hopper-medium-v2', (-20.272305, 3234.3, 'return')),
    ('Walker2d-v4', '', 'halfcheetah-medium-v2', 'is in HalfCheetah-v4; name another'),
    ('ooorl/KitchenPartialCumulative-v0', '', 'kitchen-partial-v0', 'scored in ooorl/KitchenPartialCumulative-v0'),
    ('ooorl/KitchenPartialCumulative-v0', 'kitchen-partial-cumulative-v0', '', (0.0, 4.0, 'reward_max')),
])  # fmt: skip
def test_reference_scores_are_those_of_the_environment(environment, data, task, expected):
    table = config.resolve(changed(OFFLINE, environment__id=environment, dataset__task=data, evaluation__task=task))
    if isinstance(expected, str):
        with pytest.raises(UsageError, match=expected):
            build.score_range(table)
    else:
        assert build.score_range(table) == expected
