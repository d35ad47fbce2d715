"""Sizes are added up before anything is allocated, and refused with the numbers and the setting to change."""

import pytest
from tiny_configs import OFFLINE, TINY, changed

from ooorl.errors import UsageError
from ooorl.runner import memory
from ooorl.runner.prepare import prepare

LIMIT = 4_000_000_000


@pytest.fixture(autouse=True)
def _few_gigabytes(monkeypatch):
    monkeypatch.setattr(memory, 'available', lambda: LIMIT)


@pytest.mark.parametrize(('changes', 'message'), [
    ({'ooo__num_env_steps': 2_000_000_000, 'ooo__explore_updates': 1_000_000_000},
     r'2,000,000,000 collected steps x 2 seeds; lower num_env_steps, random_steps or the seeds'),
    ({'environment__num_envs': 1_000_000_000}, r'1,000,000,000 environments x 2 seeds; lower num_envs, num_episodes or the'),
    ({'evaluation__num_episodes': 2_000_000_000}, r'2,000,000,000 environments x 2 seeds; lower num_envs, num_episodes'),
    ({'explore__hidden': [32_768, 32_768]}, r"the agent of phase 'pretrain', .* GB x 2 seeds; lower its widths or the seeds"),
    ({'run__seeds': '0:10000', 'explore__hidden': [512, 512]}, r"the agent of phase 'pretrain', .* MB x 10,000 seeds"),
    ({'dataset__settings': {'num_episodes': 1_000_000_000}}, r'1,000,000,000 episodes of scripted data; lower num_episodes'),
])  # fmt: skip
def test_what_does_not_fit_is_refused_before_it_is_allocated(changes, message):
    with pytest.raises(UsageError, match=message) as caught:
        prepare(changed(TINY, **changes))
    assert 'this run needs ' in str(caught.value) and '4 GB are free' in str(caught.value)


def test_host_environments_and_their_records_count():
    table = changed(TINY, environment={'id': 'Pendulum-v1', 'num_envs': 400_000}, dataset=None, report=None)
    with pytest.raises(UsageError, match=r'needs 16 GB .* 400,000 environments x 2 seeds'):
        prepare(table)
    table = changed(table, environment__num_envs=1, environment__settings={'horizon': 2_000_000_000})
    table = changed(table, ooo__pretrain_updates=0, ooo__explore_updates=20)
    with pytest.raises(UsageError, match=r'episodes of 2,000,000,000 actions; lower the time limit'):
        prepare(table)


def test_what_fits_is_taken_and_counted():
    table = changed(OFFLINE, dataset={'scripted': 'u_maze', 'settings': {'num_episodes': 2}})
    parts = {part.what: part.bytes for part in memory.of_setup(prepare(table).setup)}
    assert any('rows of data' in what for what in parts) and all(size >= 0 for size in parts.values())


def test_sizes_in_words():
    assert [memory.in_words(size) for size in (0, 999, 1_500, 2.5e9, 1e30)] == ['0 B', '999 B', '1.5 kB', '2.5 GB', '1e+12 EB']


