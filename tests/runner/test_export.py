"""Policies out of run directories: loaded without data, and as files that give the same actions without jax."""

import json
import os
import subprocess
import sys
import tracemalloc
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import PATIENCE
from tiny_configs import OFFLINE, changed, written

import ooorl
from ooorl.errors import UsageError
from ooorl.runner import config
from ooorl.runner.build import build_agent
from ooorl.runner.cli import main
from ooorl.runner.deployed import Deployed
from ooorl.runner.export import array_runner, draws, formats, parity, portable_of
from ooorl.runner.export.operations import without_draws
from ooorl.training import checkpoint
from ooorl.types import Spec

SPEC = Spec(observation_dim=3, action_dim=2)
INTERFACE = {'observation_dim': 3, 'action_dim': 2, 'action_low': [-2.0, 0.0], 'action_high': [2.0, 1.0]}


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A run of two seeds on data in [-2, 2] that are no longer there."""
    folder = tmp_path_factory.mktemp('export')
    before = os.getcwd()
    os.chdir(folder)
    generator = np.random.default_rng(0)
    np.savez(
        'data.npz', observations=5 + generator.normal(size=(40, 3)), actions=generator.uniform(-2, 2, (40, 2)),
        rewards=generator.normal(size=40), terminals=np.arange(40) % 10 == 9,
    )
    table = changed(
        OFFLINE, agent={'agent': 'bc', 'hidden': [8], 'normalise_observation': True, 'sampling': {'batch_size': 8}},
        run__seeds='3,5', dataset={'path': 'data.npz', 'action_low': -2.0, 'action_high': 2.0},
    )
    assert main(['run', written(table), '--out', 'run']) == 0
    data = np.load('data.npz')['observations'].astype(np.float32)
    os.remove('data.npz')
    os.chdir(before)
    return folder / 'run', data


def by_hand(run, observation, data):
    """The mean of the second seed's Gaussian, worked out from its kernels."""
    held, _ = checkpoint.read_arrays(run / 'checkpoint', lambda place: place.startswith('1.offline.agent.policy.mean'))

    def layer(x, name):
        kernel, bias = (held[f'1.offline.agent.policy.mean.params.{name}.{part}'][1] for part in ('kernel', 'bias'))
        return x @ kernel + bias

    x = (observation - data.mean(0)) / (data.std(0) + 1e-3)
    return 2 * np.tanh(layer(np.maximum(layer(x, 'Dense_0'), 0), 'Dense_1'))


def test_load_gives_actions_in_the_datas_units_without_the_data(finished):
    run, data = finished
    policy = ooorl.load(run, seed=5)
    assert (policy.phase, policy.seed) == ('offline', 5)
    np.testing.assert_allclose(policy(data[:5]), by_hand(run, data[:5], data), atol=1e-5)
    np.testing.assert_allclose(policy(data[0]), by_hand(run, data[0], data), atol=1e-5)
    assert not np.allclose(policy(data[:5]), ooorl.load(run)(data[:5]))  # the other seed's


class _rows:
    observation, action = np.array([[-1.0] * 3, [1.0] * 3], np.float32), np.zeros((2, 2), np.float32)


@pytest.mark.parametrize(('asked', 'told'), [
    ({'phase': 'retrain'}, "a phase that trained a policy; there are offline; got 'retrain'"),
    ({'seed': 4}, 'a seed of the run; it has 3, 5; got 4'),
])  # fmt: skip
def test_what_the_run_lacks_is_one_sentence(finished, asked, told):
    with pytest.raises(UsageError, match=told):
        ooorl.load(finished[0], **asked)
    with pytest.raises(UsageError, match='load needs the directory of a run'):
        ooorl.load(finished[0] / 'checkpoint')
    with pytest.raises(UsageError, match='observations need 3 numbers each; got shape'):
        ooorl.load(finished[0])(np.zeros((4, 2)))


WITHOUT_JAX = """
import sys
sys.modules.update(dict.fromkeys(('jax', 'jaxlib', 'flax', 'ooorl', 'scipy')))  # whose import is an error now
sys.path.insert(0, {folder!r})
import json, numpy as np, policy
act = policy.load({folder!r} + '/policy.npz')
print(json.dumps([act(np.array({rows})).tolist(), act(np.array({rows})[0]).tolist()]))
"""


def test_the_npz_file_runs_where_there_is_no_jax(finished, capsys, tmp_path):
    run, data = finished
    assert main(['export', str(run), '--seed', '5', '--out', str(tmp_path)]) == 0
    assert 'largest difference over 1000' in capsys.readouterr().out
    program = WITHOUT_JAX.format(folder=str(tmp_path), rows=data[:4].tolist())
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, timeout=PATIENCE, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    many, one = json.loads(done.stdout)
    np.testing.assert_allclose(many, ooorl.load(run, seed=5)(data[:4]), atol=1e-5)
    np.testing.assert_allclose(one, many[0], atol=1e-6)
    report = json.loads((tmp_path / 'export.json').read_text())
    assert report['largest_difference'] < 1e-5 and report['finite'] and report['latency_ms']['p50'] <= report['latency_ms']['p99']
    assert main(['export', str(run), '--format', 'pickle']) == 2
    assert '--format must be one of npz, stablehlo, onnx' in capsys.readouterr().err


def deployed(**table):
    """A fresh agent as a policy in a box of two sides."""
    settings = config.resolve({'run': {'scheme': 'offline'}, 'agent': table, 'dataset': {'path': 'x'}})['agent']
    agent = build_agent(settings, SPEC, _rows)
    return Deployed(agent, jax.jit(agent.init)(jax.random.key(1)), INTERFACE, phase='offline', seed=0)


TIME = {'hidden': [8], 'dropout': 0.0, 'num_time_features': 4, 'time_hidden': [8]}
KINDS = {
    'diffusion, best of 4': {
        'agent': 'iql', 'hidden': [8], 'reranked': {'num_candidates': 4}, 'normalise_observation': True,
        'policy': {'kind': 'diffusion', 'process': 'edm', 'sampler': 'heun', 'clip': 'guess', 'num_steps': 3, **TIME},
    },
    'one step': {'agent': 'fql', 'hidden': [8], 'num_steps': 2},
    'chunks of three, two taken': {
        'agent': 'bc', 'chunk': 3, 'chunk_executed': 2,
        'policy': {'kind': 'mean_flow', 'network': 'attention', 'elements': [[0, 1], [2]], 'num_heads': 2, **TIME},
    },
    'chunks of a flow': {'agent': 'bc', 'chunk': 2, 'policy': {'kind': 'flow', 'num_steps': 3, 'hidden': [8]}},
}  # fmt: skip


@pytest.mark.parametrize('kind', KINDS)
def test_files_act_as_the_policy_does(kind, tmp_path):
    policy = deployed(**KINDS[kind])
    portable = portable_of(policy, 'x')
    observation, key = np.asarray(jax.random.normal(jax.random.key(2), (5, 3))), jax.random.key(3)
    expected = policy(observation, key)
    traced = draws.traced(policy.best_action, jnp.zeros((5, 3)), key)
    noise = [np.asarray(array) for array in draws.recorded(traced, [observation, key])[1]]
    assert expected.shape == ((5, 2, 2) if 'chunks' in kind else (5, 2))
    act = formats.npz(portable, tmp_path)
    assert [array.shape for array in noise] == act.noise_shapes(5) and noise
    np.testing.assert_allclose(act(observation, noise), expected, atol=2e-5)
    assert (expected[..., 0] >= -2).all() and (expected[..., 1] >= 0).all() and (expected[..., 1] <= 1).all()
    drawn = act(observation)
    assert np.isfinite(drawn).all() and (drawn != act(observation)).any()
    pytest.importorskip('onnxruntime')
    np.testing.assert_allclose(formats.onnx(portable, tmp_path)(observation, noise), expected, atol=2e-5)


def test_what_is_not_read_again_is_let_go():
    # 200 steps of 1 MB each, of which two are alive at a time.
    steps = [{'op': 'add', 'in': [n, n], 'out': [n + 1]} for n in range(200)]
    program = {'inputs': [0], 'ops': [*steps, {'op': 'neg', 'in': [200], 'out': [201]}], 'outputs': [200, 0]}
    tracemalloc.start()
    doubled, given = array_runner.run(program, {}, [np.zeros(250_000, np.float32)], 1)
    assert tracemalloc.get_traced_memory()[1] < 8e6
    tracemalloc.stop()
    assert doubled.shape == given.shape == (250_000,)


def test_stablehlo_takes_any_number_of_rows(tmp_path, monkeypatch):
    pytest.importorskip('flatbuffers')
    monkeypatch.setattr(parity, 'CALLS', 3)
    policy = deployed(**KINDS['one step'])
    report = parity.compared(policy, portable := portable_of(policy, 'x'), formats.stablehlo(portable, tmp_path))
    assert report['largest_difference'] == 0.0 and (tmp_path / 'policy.mlirbc').stat().st_size > 0


def answer(observation, num, seed):
    """A policy that somebody gives."""
    del seed
    return np.zeros((num, len(observation), 2))


def test_what_cannot_leave_is_refused(tmp_path):
    black_box = {'kind': 'opaque', 'function': f'{__name__}:answer'}
    critic = {'kind': 'iql', 'hidden': [8]}
    given = deployed(agent='parl', imitate='nothing', num_steps=0, num_kept=2, num_candidates=2, critic=critic, policy=black_box)
    with pytest.raises(UsageError, match='calls a function of yours in Python'):
        portable_of(given, 'x')
    coins = draws.traced(lambda x, key: x + jax.random.randint(key, (), 0, 2), jnp.zeros(3), jax.random.key(0))
    with pytest.raises(UsageError, match='draws that are normal or uniform; who draws otherwise'):
        without_draws(coins, 'who', {})


def drawing(observation, key):
    """What tokens, re-ranking and climbing along gradients need: draws in a loop, writing into a cache, windows of arrays."""

    def step(cache, inputs):
        place, key = inputs
        drawn = jax.random.uniform(key, (observation.shape[0], 1), minval=-3.0, maxval=-1.0)
        written = jax.vmap(lambda row, new: jax.lax.dynamic_update_slice_in_dim(row, new, place, 0))(cache, drawn)
        return jax.lax.dynamic_update_slice_in_dim(written, 2 * drawn, 2 - place, 1), jax.random.normal(key)

    empty, keys = jnp.zeros((observation.shape[0], 3)), jax.random.split(key, 3)
    cache, drawn = jax.lax.scan(step, empty, (jnp.arange(3), keys), reverse=True)
    steep = jax.grad(lambda x: (x[jnp.arange(1)[0]] ** 2).sum())(observation.T).T
    return jnp.tanh(jax.lax.dynamic_slice_in_dim(cache, 1, 2, 1) + steep[:, :2] + drawn[0])


def test_draws_in_loops_and_places_written_to_become_inputs_and_operations(tmp_path):
    policy = SimpleNamespace(best_action=drawing, interface=INTERFACE, chunk=1, phase='offline', seed=0)
    portable = portable_of(policy, 'x')
    assert portable.about['noise_kinds'] == ['uniform', 'normal'] * 3
    observation, key = np.asarray(jax.random.normal(jax.random.key(2), (5, 3))), jax.random.key(3)
    found, noise = draws.recorded(draws.traced(drawing, observation, key), [observation, key])
    expected = drawing(observation, key)
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    act = formats.npz(portable, tmp_path)
    assert [array.shape for array in noise] == act.noise_shapes(5)
    np.testing.assert_allclose(act(observation, noise), expected, rtol=1e-5)
    assert (act(observation) != act(observation)).any()
    pytest.importorskip('onnxruntime')
    np.testing.assert_allclose(formats.onnx(portable, tmp_path)(observation, noise), expected, rtol=1e-5)
