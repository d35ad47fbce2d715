"""Several hosts on one run: how they find each other, who writes, what they cannot share."""

import jax
import pytest
from tiny_configs import OFFLINE, TINY, changed

from ooorl.errors import UsageError
from ooorl.runner import hosts, session
from ooorl.runner.prepare import prepare
from ooorl.training import checkpoint, programs
from ooorl.training.phases import Phase

CLONING = {'agent': 'bc', 'hidden': [8], 'sampling': {'batch_size': 8}}
SMALL = changed(OFFLINE, dataset={'scripted': 'u_maze', 'settings': {'num_episodes': 2}}, agent=CLONING)


def test_one_host_asks_nobody(monkeypatch):
    monkeypatch.setattr(jax.distributed, 'initialize', lambda **named: pytest.fail('nobody else is there'))
    hosts.join(1)


def test_hosts_find_each_other_by_variables_or_by_what_started_them(monkeypatch):
    calls = []
    monkeypatch.setattr(jax.distributed, 'initialize', lambda **named: calls.append(named))
    monkeypatch.setattr(jax, 'process_count', lambda: 4)
    monkeypatch.delenv(hosts.ADDRESS, raising=False)
    hosts.join(4)
    monkeypatch.setenv(hosts.ADDRESS, 'first:1234')
    monkeypatch.setenv(hosts.NUMBER, '3')
    hosts.join(4)
    assert calls == [{}, {'num_processes': 4, 'process_id': 3}]
    with pytest.raises(UsageError, match='run.hosts must be the number of processes, 4; got 8'):
        hosts.join(8)
    monkeypatch.setenv(hosts.NUMBER, '8')
    with pytest.raises(UsageError, match='run.hosts = 8 needs JAX_PROCESS_ID from 0 to 7 beside JAX_COORDINATOR_ADDRESS; got'):
        hosts.join(8)

    def nobody(**named):
        raise ValueError('coordinator_address should be defined.')

    monkeypatch.delenv(hosts.ADDRESS)
    monkeypatch.setattr(jax.distributed, 'initialize', nobody)
    with pytest.raises(UsageError, match=r'hosts that find each other \(coordinator_address should be defined.\); set JAX_COORD'):
        hosts.join(2)


def test_environments_on_the_host_are_refused():
    table = changed(TINY, environment={'id': 'Pendulum-v1', 'num_envs': 2}, dataset=None, report=None, run__hosts=2)
    table = changed(table, ooo__pretrain_updates=0, ooo__explore_updates=20)
    with pytest.raises(UsageError, match='run.hosts = 2 needs compiled environments; Pendulum-v1 of environment.id steps on the'):
        prepare(table)


def test_only_the_first_host_writes(tmp_path, monkeypatch):
    prepared, followed = prepare(changed(SMALL, run__hosts=2)), []
    monkeypatch.setattr(session, 'is_first_host', lambda: False)
    monkeypatch.setattr(hosts.running, 'iterate', lambda setup, resume: iter(followed.append(resume) or ()))
    assert session.execute(prepared, tmp_path / 'out') is None
    assert followed == [None] and not (tmp_path / 'out').exists()

    def alone(setup, resume):
        raise jax.errors.JaxRuntimeError('UNAVAILABLE: connection closed')

    monkeypatch.setattr(hosts.running, 'iterate', alone)
    with pytest.raises(UsageError, match=r'another has ended \(UNAVAILABLE: connection closed\)'):
        session.execute(prepared, tmp_path / 'out')


def test_hosts_do_whole_rounds_and_write_for_themselves(monkeypatch):
    import orbax.checkpoint as ocp

    phase = Phase(name='offline', agent=None, num_updates=5)
    assert programs.Pace().count(phase, 7) == 1 and checkpoint._alone(ocp) == {}
    for module in (programs, checkpoint):
        monkeypatch.setattr(module, 'num_hosts', lambda: 2)
    assert programs.Pace().count(phase, 7) == 7
    assert checkpoint._alone(ocp)['multiprocessing_options'].active_processes == {0}
