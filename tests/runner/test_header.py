"""What a run says of itself before it begins."""

from types import SimpleNamespace

import pytest

from ooorl.runner.cli_header import print_header


def header(capsys, agent):
    agent = {'agent': 'sac', 'chunk': 1, 'normalise_observation': False, **agent}
    config = {'name': 'a', 'run': {'seeds': '0:1'}, 'agent': agent}
    setup = SimpleNamespace(phases=[SimpleNamespace(name='online', num_env_steps=8)])
    print_header(SimpleNamespace(config=config, setup=setup, dataset=None, store_notes=('of a',), plan=()), 'out')
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize('mix', ['union', {'online': 1.0}])
def test_a_run_without_data_is_told_in_a_few_lines(capsys, mix):
    assert header(capsys, {'sampling': {'mix': mix}}) == [
        'a -> out, seeds 0:1', 'store: of a', 'agent: sac', 'phases: online; 8 environment steps a seed',
    ]


def test_a_share_of_data_that_there_are_not_is_told(capsys):
    told = 'data: none; the share that mix gives them goes to what is collected'
    assert header(capsys, {'sampling': {'mix': {'dataset': 0.5, 'online': 0.5}}})[1] == told
    assert header(capsys, {'online_sampling': {'mix': {'dataset': 0.5, 'online': 0.5}}})[1] == told
