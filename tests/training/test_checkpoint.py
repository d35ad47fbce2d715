"""Checkpoints come back bit for bit, and whatever happens to the newest, the one before it stands."""

import json
import os
import resource
import shutil
import subprocess
import sys
import textwrap
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import PATIENCE

from ooorl.errors import UsageError
from ooorl.training import checkpoint


class Inner(NamedTuple):
    counter: jax.Array
    flags: np.ndarray


def tree(seed=0):
    """A state of every kind of leaf: scalars, integers, booleans, empty arrays, NaN, infinities, negative zero."""
    return {
        'weights': (jax.random.normal(jax.random.key(seed), (3, 4)), jnp.array([np.nan, -np.inf, -0.0, 1e-45])),
        'inner': Inner(jnp.int32(7 + seed), np.array([[True, False]])),
        'empty': np.zeros((0, 5), np.float32),
        'words': np.array([2**32 - 1], np.uint32),
        'retrain@40': {'nothing': None, 'scale': jnp.float32(0.1)},
    }


def shapes(example):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), np.asarray(leaf).dtype), example)


def restored(directory, example=None):
    return checkpoint.restore(directory, lambda meta: shapes(tree() if example is None else example))


def assert_same_bits(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(map(np.asarray, jax.tree.leaves(left)), map(np.asarray, jax.tree.leaves(right)), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """A directory with two checkpoints, made once; tests work on copies."""
    directory = tmp_path_factory.mktemp('written') / 'checkpoint'
    checkpoint.save(directory, 1, tree(1), {'round': 1})
    checkpoint.save(directory, 2, tree(2), {'round': 2})
    return directory


@pytest.fixture
def two(written, tmp_path):
    shutil.copytree(written, tmp_path / 'checkpoint')
    return tmp_path / 'checkpoint'


def test_a_round_trip_keeps_every_bit(two):
    found, meta = restored(two)
    assert_same_bits(found, tree(2))
    assert meta == {'round': 2}
    assert checkpoint.newest(two).name == '00000002'


def test_nothing_to_restore(tmp_path):
    assert restored(tmp_path / 'absent') is None and checkpoint.newest(tmp_path) is None


def test_the_last_two_stay_and_leftovers_go(two):
    (two / '.writing-1').mkdir()
    (two / '.writing-1' / 'meta.json').write_text('half')
    own = two / f'.writing-{os.getpid()}'  # a killed process of the same number, as in a container
    own.mkdir()
    assert restored(two)[1] == {'round': 2}
    checkpoint.save(two, 3, tree(3), {'round': 3})
    assert sorted(os.listdir(two)) == ['00000002', '00000003']
    checkpoint.save(two, 3, tree(4), {'round': 33})  # the same number again
    assert_same_bits(restored(two)[0], tree(4))
    assert sorted(os.listdir(two)) == ['00000002', '00000003']


def all_files(path):
    return sorted(p for p in path.rglob('*') if p.is_file())


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize('damage', [truncate, flip, lambda path: path.unlink()], ids=['truncated', 'flipped', 'deleted'])
def test_any_damage_to_the_newest_falls_back_on_the_one_before(written, tmp_path, damage):
    names = [path.relative_to(written) for path in all_files(written / '00000002')]
    assert len(names) > 4
    for number, name in enumerate(names):
        directory = tmp_path / str(number)
        shutil.copytree(written, directory)
        damage(directory / name)
        if number in (0, len(names) // 2, len(names) - 1):  # reading takes longer than comparing digests
            found, meta = restored(directory)
            assert_same_bits(found, tree(1))
            assert meta == {'round': 1}
        assert checkpoint.newest(directory).name == '00000001', name


def test_what_is_passed_over_is_told_once(two, capsys):
    truncate(two / '00000002' / 'meta.json')
    for _ in range(2):
        assert checkpoint.newest(two).name == '00000001'
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f'warning: {two / "00000001"} is read in the place of what is newer and damaged (00000002: ')


def test_a_damaged_one_does_not_outlive_the_next_save(two):
    truncate(all_files(two / '00000002' / 'arrays')[0])
    shutil.move(two / '00000002', two / '00000009')
    checkpoint.save(two, 3, tree(3), {'round': 3})
    assert sorted(os.listdir(two)) == ['00000001', '00000003']
    assert restored(two)[1] == {'round': 3}


def test_where_none_is_intact_the_damage_is_named_and_everything_kept(two):
    (two / '00000001' / 'manifest.json').unlink()
    truncate(two / '00000002' / 'meta.json')
    before = all_files(two)
    with pytest.raises(UsageError, match='00000001: manifest.json cannot be read; 00000002: .*everything was left as it is'):
        restored(two)
    assert all_files(two) == before and checkpoint.newest(two) is None


def test_a_file_in_place_of_the_folder_is_damage_too(tmp_path):
    (tmp_path / 'checkpoint').write_text('')
    with pytest.raises(UsageError, match='is no folder'):
        restored(tmp_path / 'checkpoint')


def test_a_sound_checkpoint_that_says_other_things_is_refused(two):
    with pytest.raises(UsageError, match="does not say where the run stood .*'phase'"):
        checkpoint.restore(two, lambda meta: meta['phase'])


def test_what_happens_to_the_arrays_after_save_does_not_reach_the_disk(tmp_path):
    on_host, on_device = np.arange(5.0), jnp.full((400, 1000), 3.0)
    overwrite = jax.jit(lambda x: x + 1.0, donate_argnums=0)
    saver = checkpoint.Saver(tmp_path / 'checkpoint')
    saver.save(1, {'device': on_device, 'host': on_host}, {})
    on_host[:] = 0.0
    for _ in range(3):
        on_device = overwrite(on_device)
    saver.close()
    wanted = {'device': jax.ShapeDtypeStruct((400, 1000), np.float32), 'host': np.zeros(5)}
    found, _ = checkpoint.restore(tmp_path / 'checkpoint', lambda meta: wanted)
    np.testing.assert_array_equal(found['host'], np.arange(5.0))
    np.testing.assert_array_equal(found['device'], 3.0)
    # On a CPU neither is bound to a device: such arrays would have programs of their own, compiled anew.
    assert all(isinstance(array, np.ndarray) for array in found.values())


def test_a_folder_that_is_gone_is_not_made_again(tmp_path):
    saver = checkpoint.Saver(tmp_path / 'run' / 'checkpoint')
    (tmp_path / 'run').mkdir()
    saver.save(1, tree(), {})
    saver.wait()
    shutil.rmtree(tmp_path / 'run')
    with pytest.raises(UsageError, match='writing it failed'):
        saver.save(2, tree(), {})
    saver.close()
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(('change', 'words'), [
    ('size', r'needed was words (2,) of uint32; it holds words (1,) of uint32'),
    ('shape', r'needed was weights.0 (4, 3) of float32; it holds weights.0 (3, 4) of float32'),  # as many numbers
    ('dtype', r'needed was words (1,) of int32; it holds words (1,) of uint32'),
    ('name', r'needed was word (1,) of uint32; it holds words (1,) of uint32'),
    ('more', r'needed was zzz (1,) of float64; it holds nothing more'),
    ('fewer', r'needed was nothing more; it holds words (1,) of uint32'),
])  # fmt: skip
def test_a_checkpoint_of_another_configuration_is_refused(two, change, words):
    # Leaves in their order: empty, inner.counter, inner.flags, retrain@40.scale, weights.0, weights.1, words.
    example = tree()
    if change == 'size':
        example['words'] = np.zeros(2, np.uint32)
    elif change == 'shape':
        example['weights'] = (example['weights'][0].T, example['weights'][1])
    elif change == 'dtype':
        example['words'] = np.zeros(1, np.int32)
    elif change == 'name':
        example['word'] = example.pop('words')
    elif change == 'more':
        example['zzz'] = np.zeros(1)
    else:
        del example['words']
    with pytest.raises(UsageError, match='does not fit this run.*start anew with another --out') as caught:
        restored(two, example)
    assert words in str(caught.value) and '\n' not in str(caught.value)


def test_a_disk_known_to_be_too_full_is_not_begun_on(two, monkeypatch):
    monkeypatch.setattr(checkpoint.shutil, 'disk_usage', lambda path: SimpleNamespace(free=2**16))
    with pytest.raises(UsageError, match='0.1 MiB needed, 0.1 free.*00000002 is still good.*--resume'):
        checkpoint.save(two, 3, tree(3), {})
    assert sorted(os.listdir(two)) == ['00000001', '00000002']


FULL_DISK = textwrap.dedent("""
    import json, os, resource, sys
    import numpy as np
    from ooorl.training import checkpoint
    from ooorl.errors import UsageError
    directory = sys.argv[1]
    small = {'x': np.arange(10, dtype=np.float32)}
    large = {'x': np.random.default_rng(0).normal(size=200_000).astype(np.float32)}
    checkpoint.save(directory, 1, small, {})
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        checkpoint.save(directory, 2, large, {})
    except UsageError as error:
        print(json.dumps({'message': str(error), 'left': sorted(os.listdir(directory))}))
""")


@pytest.mark.skipif(not hasattr(resource, 'RLIMIT_FSIZE'), reason='needs POSIX')
def test_a_full_disk_leaves_the_earlier_checkpoint_and_nothing_else(tmp_path):
    command = [sys.executable, '-c', FULL_DISK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert 'Traceback' not in done.stderr
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert told['left'] == ['00000001']
    assert '\n' not in told['message'] and 'a checkpoint needs room' in told['message']
    assert '00000001 is still good' in told['message'] and '--resume' in told['message']
    found, _ = checkpoint.restore(tmp_path, lambda meta: {'x': jax.ShapeDtypeStruct((10,), np.float32)})
    np.testing.assert_array_equal(found['x'], np.arange(10))
