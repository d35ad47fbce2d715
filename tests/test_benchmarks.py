"""Benchmarks beside other implementations: their processes, the rows that both get, and the script that runs all of them."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT

ECHO = """
import sys
print('noise'); print('| 2.8 2.15', flush=True)
for number, line in enumerate(sys.stdin):
    print('before', number); print('|', line.strip(), number, flush=True)
    if line.startswith('end'): sys.exit(3)
"""


def test_a_contender_in_a_process_of_its_own(script):
    process = script('benchmarks/timing').Process([sys.executable, '-c', ECHO], 'it needs nothing')
    assert process.greeting == ['2.8', '2.15']
    assert process.ask('7') == ['7', '0'] and process.ask('end') == ['end', '1']
    with pytest.raises(SystemExit, match='it needs nothing; its process ended with 3'):
        process()
    with pytest.raises(ValueError, match='closed file'):
        process.ask()


def test_a_peer_that_is_not_there_says_what_it_needs(script):
    with pytest.raises(SystemExit, match='the peer needs d3rlpy; its process ended with 1'):
        script('benchmarks/timing').Process([sys.executable, '-c', 'raise SystemExit(1)'], 'the peer needs d3rlpy')


def test_ours_learns_from_the_rows_that_the_peer_takes_out_of_episodes(script, tmp_path):
    """Two episodes, one of three rows that times out and one of two that ends, and the beginning of a third."""
    columns = {
        'observations': np.arange(6.0)[:, None],
        'actions': -np.arange(6.0)[:, None],
        'rewards': 10 * np.arange(6.0),
        'terminals': np.array([0.0, 0, 0, 0, 1, 0]),
        'timeouts': np.array([0.0, 0, 1, 0, 0, 0]),
    }
    np.savez(tmp_path / 'rows.npz', **columns)
    rows = script('benchmarks/offline_iql').transitions(tmp_path / 'rows.npz')
    np.testing.assert_array_equal(rows.observation[:, 0], [0, 1, 3, 4])
    np.testing.assert_array_equal(rows.next_observation[:, 0], [1, 2, 4, 5])
    np.testing.assert_array_equal(rows.reward, [0, 10, 30, 40])
    np.testing.assert_array_equal(rows.discount, [1, 1, 1, 0])
    np.testing.assert_array_equal(rows.extras['boundary'], [0, 0, 0, 1])


def test_every_script_gets_its_own_peer(script):
    every = script('benchmarks/every')
    arguments = SimpleNamespace(fql='checkout', sbx='one', d3rlpy='two', dry=True)
    for name, peer in {'online_sac': 'one', 'offline_iql': 'two', 'expressive_speed': 'checkout'}.items():
        words = every.command(name, arguments)
        assert words[words.index('--peer') + 1] == peer and words[-1] == '--dry'
    assert all((ROOT / 'benchmarks' / f'{name}.py').is_file() for name in every.SCRIPTS)
    assert '--peer' not in every.command('offline_iql', SimpleNamespace(fql=None, sbx=None, d3rlpy=None, dry=False))
    assert '--dry' not in every.command('demo', arguments)
