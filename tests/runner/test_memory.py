"""Sizes are added up before anything is allocated, and refused with the numbers and the setting to change."""

import re

import jax
import jax.numpy as jnp
import pytest
from lowering import LOWER
from tiny_configs import CLONED_FLOW, OFFLINE, TINY, changed, written

from ooorl.errors import UsageError
from ooorl.runner import memory, memory_plan
from ooorl.runner.cli import main
from ooorl.runner.prepare import prepare
from ooorl.training import run as running
from ooorl.training.programs import Job, Programs

LIMIT = 4_000_000_000


@pytest.fixture(autouse=True)
def _few_gigabytes(monkeypatch):
    monkeypatch.setattr(memory, 'available', lambda: LIMIT)


@pytest.mark.parametrize(('changes', 'message'), [
    ({'ooo__num_env_steps': 2_000_000_000, 'ooo__explore_updates': 1_000_000_000},
     r'2,000,000,000 collected steps x 2 seeds; lower num_env_steps, random_steps or the seeds'),
    ({'environment__num_envs': 1_000_000_000}, r'1,000,000,000 environments x 2 seeds; lower num_envs, num_episodes or the'),
    ({'evaluation__num_episodes': 2_000_000_000}, r'2,000,000,000 environments x 2 seeds; lower num_envs, num_episodes'),
    ({'explore__hidden': [32_768, 32_768]}, r"states of phase 'pretrain', .* GB x 2 seeds; lower its widths or the seeds"),
    ({'run__seeds': '0:10000', 'explore__hidden': [512, 512]}, r"states of phase 'pretrain', .* MB x 10,000 seeds"),
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


def test_a_plan_of_no_updates_knows_no_learning():
    table = changed(CLONED_FLOW, offline__num_updates=0)
    assert memory_plan.working(prepare(table).setup).what == 'the largest of 1 programs at work'


def test_a_plan_needs_no_steps_of_a_host_environment():
    settings = {'horizon': 20}
    table = changed(TINY, environment={'id': 'Pendulum-v1', 'num_envs': 1, 'settings': settings}, dataset=None, report=None)
    table = changed(table, evaluation__num_episodes=0, ooo__pretrain_updates=0, ooo__explore_updates=20, run__seeds='0:1')
    assert memory_plan.working(prepare(table).setup).bytes > 0


SMALL = changed(
    OFFLINE, dataset={'scripted': 'u_maze', 'settings': {'num_episodes': 4}}, run__seeds='0:2', run__seed_group=1,
    agent={'agent': 'bc', 'hidden': [64, 64], 'sampling': {'batch_size': 64}},
)  # fmt: skip


def test_the_plan_is_what_a_run_is_measured_to_take(monkeypatch):
    made, compiled = [], Programs._compile
    monkeypatch.setattr(Job, 'lower', LOWER)
    monkeypatch.setattr(Programs, '_compile', lambda self, lowered: made.append(compiled(self, lowered)) or made[-1])
    setup = prepare(SMALL).setup
    parts = memory_plan.of_run(setup)
    before = sum(array.nbytes for array in jax.live_arrays())
    state = running.run(setup)
    held = sum(array.nbytes for array in jax.live_arrays()) - before
    planned = sum(part.bytes for part in parts if part.kind in ('parameters', 'optimiser states'))
    assert state.phase == 1 and held == planned  # exactly: the data's second copy has gone with the programs
    measured = max(program.memory_analysis().temp_size_in_bytes for program in made)
    (working,) = [part.bytes for part in parts if part.kind == memory.WORKING]
    assert measured / 1.5 < working < 1.5 * measured


def test_the_plan_in_one_line(monkeypatch):
    monkeypatch.setattr(memory, 'available', lambda: 8_000_000_000)
    sizes = ((3_000, 'data'), (500, 'parameters'), (500, 'parameters'), (0, 'stores'))
    parts = [memory.Part(size, '', '', kind) for size, kind in sizes]
    assert memory.line(parts) == 'memory: at least 4 kB (data 3 kB, parameters 1 kB); 8 GB are free'
    assert 'data' in memory.line(prepare(SMALL).plan)


def test_working_memory_by_hand():
    def two_steps(x):
        y = jnp.concatenate([x, x])  # 8 numbers, then 4 more of its squares' halves while it lives, which are the result
        return (y * y)[:4] + y[4:]

    # concatenate 32; mul 32 + 32; slice of it 16 beside both; slice of y 16: 32 + 16 + 16; add is the result.
    assert memory_plan.between(jax.make_jaxpr(two_steps)(jnp.ones(4)).jaxpr) == 80

    def loop(x):
        return jax.lax.fori_loop(0, 3, lambda i, x: 2 * x, x)

    # What the loop carries, and what it becomes: 16 bytes each; its counter likewise, 4 each, and what compares it, 1.
    assert 32 <= memory_plan.between(jax.make_jaxpr(loop)(jnp.ones(4)).jaxpr) <= 48


def test_the_plan_is_printed_and_a_limit_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written(SMALL)
    assert main(['run', 'c.toml', '--plan', '--memory-limit', '1GB']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:32].strip() for line in lines] == [
        'memory plan', 'data', 'parameters', 'optimiser states', memory.WORKING, 'together', 'free', 'allowed (memory_limit)',
    ]  # fmt: skip
    assert main(['run', 'c.toml', '--memory-limit', '100 kB']) == 2
    told = capsys.readouterr().err
    assert re.search(r'needs .* kB of memory at least; memory_limit allows 100 kB; .* of it are the largest of 2 programs', told)
    assert main(['run', 'c.toml', '--memory-limit', 'much']) == 2 and "look like '8GB'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['c.toml']


def test_limits_in_bytes():
    assert [memory.parsed(text) for text in ('8GB', '1.5 MB', '2GiB')] == [8_000_000_000, 1_500_000, 2**31]
    for text in ('8', '0GB', '1..5GB', '-1GB', 'GB'):
        with pytest.raises(UsageError, match='memory_limit must look like'):
            memory.parsed(text)


def test_what_fits_is_taken_and_counted():
    table = changed(OFFLINE, dataset={'scripted': 'u_maze', 'settings': {'num_episodes': 2}})
    parts = {part.what: part.bytes for part in memory.of_setup(prepare(table).setup)}
    assert any('rows of data' in what for what in parts) and all(size >= 0 for size in parts.values())


def test_sizes_in_words():
    assert [memory.in_words(size) for size in (0, 999, 1_500, 2.5e9, 1e30)] == ['0 B', '999 B', '1.5 kB', '2.5 GB', '1e+12 EB']


