"""One function over many copies: whatever the order of work, the numbers are those of a loop."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import PATIENCE, ROOT

from ooorl import mapping
from ooorl.mapping import index_seed, map_members, map_seeds

KEYS = jax.random.split(jax.random.key(0), 6)


def network(params, x):
    return {'y': jnp.tanh(x @ params['w'] + params['b'][None]), 'size': params['b'].sum()}


def params(key):
    return {'w': jax.random.normal(key, (3, 2)), 'b': jax.random.normal(key, (2,))}


@pytest.mark.parametrize('num', [1, 2, 5])
def test_members_are_stacked_in_their_order(num):
    members = tuple(params(key) for key in KEYS[:num])
    x = jnp.ones((4, 3))
    got = map_members(network, members, x)
    assert got['y'].shape == (num, 4, 2) and got['size'].shape == (num,)
    for number, member in enumerate(members):
        np.testing.assert_allclose(got['y'][number], network(member, x)['y'], rtol=1e-6)


@pytest.mark.parametrize('group', [None, 1, 2, 4, 8])
def test_seeds_in_groups_are_seeds_in_a_loop(group):
    stacked = jax.vmap(params)(KEYS)
    shared, scale = jnp.arange(12.0).reshape(4, 3), jnp.arange(6.0)

    def function(member, x, factor):
        return jax.tree.map(lambda leaf: leaf * factor, network(member, x))

    mapped = jax.jit(map_seeds(function, (0, None, 0), group=group))
    got = mapped(stacked, shared, scale)
    assert got['y'].shape == (6, 4, 2)
    for number, key in enumerate(KEYS):
        expected = function(params(key), shared, scale[number])
        # Products of matrices are summed in another order in a group: float32 rounding.
        np.testing.assert_allclose(got['y'][number], expected['y'], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(got['size'][number], expected['size'], rtol=1e-5)


def test_an_argument_may_be_empty_or_absent():
    got = map_seeds(lambda a, nothing, none: a + 1, (0, 0, None))(jnp.arange(3.0), {}, None)
    np.testing.assert_array_equal(got, [1, 2, 3])


# Seeds that four devices do not divide, two calls of one compiled program with a donated state, keys among what is mapped.
UNEVEN = """
import jax, jax.numpy as jnp, numpy as np
from ooorl import mapping
from ooorl.mapping import map_seeds
from ooorl.training.phases import Setup
from ooorl.training.programs import Programs

def step(state, key, shared):
    w = state['w'] + shared + jax.random.uniform(key, state['w'].shape)
    return {'w': w, 'n': state['n'] + 1}, w.sum()

for num, on_cpu in ((1, True), (3, True), (5, True), (6, True), (7, True), (1, False), (7, False)):
    mapping.on_cpu = lambda: on_cpu
    keys = jax.random.split(jax.random.key(num), num)
    state = {'w': jnp.arange(3.0 * num).reshape(num, 3), 'n': jnp.zeros(num, int)}
    expected = jax.tree.map(jnp.copy, state)
    shared = jnp.arange(3.0)
    mapped = jax.jit(map_seeds(step, (0, 0, None)), donate_argnums=0).lower(state, keys, shared).compile()
    plain = jax.jit(jax.vmap(step, (0, 0, None)))
    for _ in range(3):
        state, total = mapped(state, keys, shared)
        expected, other = plain(expected, keys, shared)
        np.testing.assert_allclose(total, other, rtol=1e-6)
    np.testing.assert_array_equal(state['n'], expected['n'])
    np.testing.assert_allclose(state['w'], expected['w'], rtol=1e-6)
    used = {shard.device for shard in state['w'].addressable_shards}
    print(num, len(used))

# A program that was made for what one device holds, and then meets what devices have shared out.
programs = Programs(Setup(phases=(), seeds=(0, 1, 2, 3)))
alone = jnp.arange(4.0)
for x in (alone, jax.jit(programs.over_seeds(lambda x: x + 0, (0,)))(alone), alone):
    np.testing.assert_array_equal(programs.call('double', lambda x: 2 * x, x), 2 * alone)
"""


def test_seeds_that_the_devices_do_not_divide_use_them_nevertheless():
    environment = {**os.environ, 'JAX_NUM_CPU_DEVICES': '4', 'PYTHONPATH': str(ROOT)}
    done = subprocess.run([sys.executable, '-c', UNEVEN], env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    # 5 seeds are 2 + 2 + 2 with one for nothing, 7 are 2 + 2 + 2 + 2; the last two as on accelerators.
    assert done.stdout.split('\n')[:-1] == ['1 1', '3 3', '5 3', '6 3', '7 4', '1 1', '7 4']


def test_a_seed_can_be_taken_out():
    tree = {'a': np.arange(6).reshape(3, 2), 'b': (np.arange(3),)}
    one = index_seed(tree, 1)
    np.testing.assert_array_equal(one['a'], [2, 3])
    assert one['b'][0] == 1


def limits(folder, **files):
    for name, text in files.items():
        path = folder / name.replace('__', '/').replace('_max', '.max').replace('cfs', 'cpu.cfs')
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ('files', 'cores'),
    [
        ({}, 4),  # the mask decides where nothing limits the time
        ({'cpu_max': 'max 100000\n'}, 4),
        ({'cpu_max': '200000 100000\n'}, 2),
        ({'cpu_max': '150000 100000\n'}, 2),  # one and a half: two, of which one is not always there
        ({'cpu_max': '10000 100000\n'}, 1),
        ({'cpu_max': '6400000 100000\n'}, 4),
        ({'cpu__cfs_quota_us': '300000\n', 'cpu__cfs_period_us': '100000\n'}, 3),
        ({'cpu__cfs_quota_us': '-1\n', 'cpu__cfs_period_us': '100000\n'}, 4),
    ],
)
def test_cores_are_those_that_the_process_may_use(tmp_path, monkeypatch, files, cores):
    monkeypatch.setattr(mapping, 'GROUPS', limits(tmp_path, **files))
    monkeypatch.setattr(os, 'cpu_count', lambda: 64)
    monkeypatch.setattr(os, 'sched_getaffinity', lambda process: {3, 5, 8, 9}, raising=False)
    assert mapping.num_cores() == cores
