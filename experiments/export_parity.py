"""Every kind of policy out of a short run, in every format: `python experiments/export_parity.py OUT.json [KIND ...]`.

Each kind is trained for a few updates by `ooorl run`, left by `ooorl export` as npz, StableHLO and ONNX, and the npz file is
evaluated once more in an interpreter that has numpy only. What is written are the parity reports, or the sentence of a refusal.
"""

import contextlib
import io
import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tomli_w

from ooorl.runner.cli import main

TIME = {'hidden': [16], 'dropout': 0.0, 'num_time_features': 4, 'time_hidden': [8]}
DIFFUSION = {'kind': 'diffusion', 'num_steps': 4, **TIME}
EDM = {**DIFFUSION, 'process': 'edm', 'clip': 'guess'}
FLOW = {'kind': 'flow', 'num_steps': 4, 'hidden': [16]}
BINS = {'kind': 'autoregressive', 'width': 8, 'num_heads': 1, 'num_layers': 1, 'num_bins': 8}
KINDS = {
    'Gaussian': {'agent': 'bc', 'hidden': [16]},
    'Gaussian, normalised observations': {'agent': 'iql', 'hidden': [16], 'normalise_observation': True},
    'tanh Gaussian': {'agent': 'calql', 'hidden': [16], 'critic_hidden': [16]},
    'deterministic': {'agent': 'td3', 'hidden': [16]},
    'diffusion, DDPM': {'agent': 'bc', 'policy': DIFFUSION},
    'diffusion, EDM, Heun': {'agent': 'bc', 'policy': {**EDM, 'sampler': 'heun'}},
    'diffusion, DDIM': {'agent': 'bc', 'policy': {**DIFFUSION, 'sampler': 'ddim'}},
    'diffusion, DPM-Solver++': {'agent': 'bc', 'policy': {**EDM, 'sampler': 'dpm_solver'}},
    'flow': {'agent': 'bc', 'policy': FLOW},
    'mean flow': {'agent': 'bc', 'policy': {'kind': 'mean_flow', **TIME}},
    'autoregressive': {'agent': 'bc', 'policy': BINS},
    'best of 4 of a flow': {'agent': 'iql', 'hidden': [16], 'policy': FLOW, 'reranked': {'num_candidates': 4}},
    'best of 4 of a diffusion': {'agent': 'iql', 'hidden': [16], 'policy': DIFFUSION, 'reranked': {'num_candidates': 4}},
    'best of 4 autoregressive draws': {'agent': 'iql', 'hidden': [16], 'policy': BINS, 'reranked': {'num_candidates': 4}},
    'chunks of 3': {'agent': 'bc', 'hidden': [16], 'chunk': 3},
    'chunks of 3 of a flow': {'agent': 'bc', 'chunk': 3, 'policy': FLOW},
    'averaged diffusion': {'agent': 'bc', 'policy': {**DIFFUSION, 'ema_rate': 0.1}},
    'FQL': {'agent': 'fql', 'hidden': [16], 'num_steps': 3},
    'EXPO': {'agent': 'expo', 'hidden': [16], 'policy': FLOW},
    'DSRL': {'agent': 'dsrl', 'hidden': [16], 'policy': FLOW},
    'QAM': {'agent': 'qam', 'hidden': [16]},
    'PA-RL over a Gaussian': {'agent': 'parl', 'num_candidates': 4, 'num_kept': 2, 'num_steps': 2},
    'PA-RL over a diffusion': {'agent': 'parl', 'num_candidates': 4, 'num_kept': 2, 'num_steps': 2, 'policy': DIFFUSION},
    'PRDC': {'agent': 'prdc', 'hidden': [16]},
    'O-DICE': {'agent': 'odice', 'hidden': [16], 'policy_hidden': [16]},
    'PA-RL over tokens': {'agent': 'parl', 'num_candidates': 4, 'num_kept': 2, 'num_steps': 2, 'policy': BINS},
}  # fmt: skip
# Kinds that are a whole config, laid over the common one; `steered` needs the run of another kind.
SMALL = {'hidden': [16], 'sampling': {'batch_size': 16}}
CLONING = {'agent': 'bc', 'sampling': {'batch_size': 16}}
ONLINE = {'num_env_steps': 40, 'num_updates': 40, 'random_steps': 8}
WHOLE = {
    'consistency': {
        'run': {'scheme': 'distil'}, 'distil': {'teacher_updates': 10, 'return_updates': 10, 'num_updates': 10},
        'teacher': {**CLONING, 'policy': {**EDM, 'sampler': 'heun', 'clip': 'end', 'network': 'mlp'}},
        'returns': {'agent': 'returns', **SMALL},
        'student': {**CLONING, 'agent': 'distil', 'policy': {'kind': 'consistency', 'num_levels': 4, 'network': 'mlp', **TIME}},
    },
    'SAC': {'run': {'scheme': 'online'}, 'online': ONLINE, 'agent': {'agent': 'sac', **SMALL}, 'dataset': None},
    'steered flow': {
        'run': {'scheme': 'online'}, 'online': ONLINE, 'agent': {'agent': 'sac', **SMALL}, 'dataset': None,
        'steered': {'run': 'flow', 'bound': 1.5},
    },
    'OOO, retrained': {
        'run': {'scheme': 'ooo'},
        'ooo': {'pretrain_updates': 10, 'explore_updates': 40, 'retrain_updates': 10, 'num_env_steps': 40},
        'explore': {'agent': 'iql', **SMALL, 'bonus': {'signal': 'rnd'}}, 'exploit': {'agent': 'iql', **SMALL},
    },
}  # fmt: skip
WITHOUT_JAX = """
import sys
sys.modules.update(dict.fromkeys(('jax', 'jaxlib', 'flax', 'ooorl', 'scipy')))
sys.path.insert(0, {folder!r})
import numpy as np, policy
act = policy.load({folder!r} + '/policy.npz')
given = np.load({folder!r} + '/rows.npy')
np.save({folder!r} + '/actions.npy', act(given, [np.zeros(shape, np.float32) for shape in act.noise_shapes(len(given))]))
"""


def called(*words):
    """`(status, what was printed)` of a command."""
    heard = io.StringIO()
    with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
        try:
            status = main([str(word) for word in words])
        except Exception as error:  # what a command should have said itself
            return 3, f'traceback: {type(error).__name__}: {error}'
    return status, heard.getvalue().strip()


def trained(folder, name):
    """A run of a few updates: None, or what it said where it failed."""
    config = {
        'name': folder.name, 'run': {'scheme': 'offline', 'seeds': '0:1', 'updates_per_round': 5},
        'dataset': {'scripted': 'u_maze', 'settings': {'num_episodes': 8}}, 'environment': {'id': 'ooorl/UMaze-v0'},
        'evaluation': {'num_episodes': 0},
    }  # fmt: skip
    own = WHOLE.get(name) or {'offline': {'num_updates': 10}, 'agent': {**KINDS[name], 'sampling': {'batch_size': 16}}}
    for key, value in own.items():
        config[key] = {**config.get(key, {}), **value} if value is not None else {}
    if 'steered' in own:
        base = folder.with_name('base')
        config['steered']['run'] = str(base)
        if told := trained(base, own['steered']['run']):
            return told
    (folder.parent / f'{folder.name}.toml').write_text(tomli_w.dumps(config), encoding='utf-8')
    status, told = called('run', folder.parent / f'{folder.name}.toml', '--out', folder)
    return told.splitlines()[-1] if status else None


def exported(run, *phase):
    """By format the largest difference from the policy itself and the latency, or why there is no file."""
    found = {}
    for name in ('npz', 'stablehlo', 'onnx'):
        out = run.parent / f'{run.name}-{name}'
        status, told = called('export', run, '--format', name, '--out', out, *phase)
        report = json.loads((out / 'export.json').read_text()) if status == 0 else {}
        found[name] = {key: report[key] for key in ('largest_difference', 'latency_ms')} if report else told.splitlines()[-1]
    if isinstance(found['npz'], dict):
        found['npz']['numpy_alone'] = without_jax(run.parent / f'{run.name}-npz')
    return found


def without_jax(folder):
    """Whether an interpreter without jax computes what this one does from the same file."""
    rows = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)
    np.save(folder / 'rows.npy', rows)
    done = subprocess.run([sys.executable, '-c', WITHOUT_JAX.format(folder=str(folder))], capture_output=True, text=True)
    return done.stderr.strip().splitlines()[-1] if done.returncode else bool(np.isfinite(np.load(folder / 'actions.npy')).all())


def everything(path, chosen):
    """All kinds, one after another, each written as it comes; those that are there already and not asked for stay."""
    found = json.loads(path.read_text(encoding='utf-8')) if path.exists() else {'kinds': {}}
    found['versions'] = {name: version(name) for name in ('jax', 'numpy', 'onnxruntime')}
    with tempfile.TemporaryDirectory() as scratch:
        for number, name in enumerate([*KINDS, *WHOLE]):
            if name in chosen or (not chosen and name not in found['kinds']):
                run = Path(scratch) / f'run{number}'
                found['kinds'][name] = trained(run, name) or exported(run)
                print(name, json.dumps(found['kinds'][name]), flush=True)
                path.write_text(json.dumps(found, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    everything(Path(sys.argv[1]), sys.argv[2:])
