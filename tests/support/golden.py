"""Golden files: how their arrays become parameter trees, and how closely numbers must agree.

A file holds arrays only. `NET/wI` and `NET/bI` are kernel `[in, out]` and bias of dense layer I; the conventions and the
tolerances are those of the README that comes with the files.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ooorl.types import Transition

TOLERANCES = {
    'scalar': {'rtol': 1e-5, 'relative_atol': 0.0, 'atol': 1e-7},
    'value': {'rtol': 1e-4, 'relative_atol': 1e-5, 'atol': 0.0},
    'gradient': {'rtol': 1e-3, 'relative_atol': 1e-5, 'atol': 0.0},
    'parameter': {'rtol': 1e-4, 'relative_atol': 0.0, 'atol': 2e-6},
}


def load(folder, name: str) -> dict[str, np.ndarray]:
    """All arrays of one file; the test is skipped where it is absent."""
    path = folder / f'{name}.npz'
    if not path.is_file():
        pytest.skip(f'the golden file {name} is not here')
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def decimal(arrays, name: str) -> float:
    """A hyper-parameter as the decimal constant it was written as, not its nearest float32."""
    return float(str(arrays[name][()]))


def dense_tree(arrays, prefix: str) -> dict:
    """`PREFIX/wI, bI` as the parameters of `ooorl.nn.networks.mlp`; LayerNorm arrays are taken where present."""
    tree, layer = {}, 0
    while f'{prefix}/w{layer}' in arrays:
        kernel, bias = arrays[f'{prefix}/w{layer}'], arrays[f'{prefix}/b{layer}']
        tree[f'Dense_{layer}'] = {'kernel': jnp.asarray(kernel), 'bias': jnp.asarray(bias)}
        if f'{prefix}/ln_scale{layer}' in arrays:
            scale, shift = arrays[f'{prefix}/ln_scale{layer}'], arrays[f'{prefix}/ln_bias{layer}']
            tree[f'LayerNorm_{layer}'] = {'scale': jnp.asarray(scale), 'bias': jnp.asarray(shift)}
        layer += 1
    assert tree, f'no parameters called {prefix}'
    return {'params': tree}


def flow_tree(arrays, prefix: str, action_dim: int) -> dict:
    """Arrays of a network of [observation, x, t] as parameters of `nn.networks.time_conditioned`, of [x, observation, t]."""
    tree = dense_tree(arrays, prefix)['params']
    kernel = tree['Dense_0']['kernel']
    observation_dim = kernel.shape[0] - action_dim - 1
    observation, x, time = jnp.split(kernel, [observation_dim, observation_dim + action_dim])
    tree['Dense_0'] = tree['Dense_0'] | {'kernel': jnp.concatenate([x, observation, time])}
    return {'params': {'body': tree}}


def ensemble_tree(arrays, prefix: str):
    """Arrays whose first axis is that of the members as parameters of `nn.networks.ensemble_q`."""
    names = [name for name in arrays if name.startswith(f'{prefix}/')]
    members = [{f'm/{name.removeprefix(prefix + "/")}': arrays[name][e] for name in names} for e in range(len(arrays[names[0]]))]
    return tuple(dense_tree(member, 'm') for member in members)


def squashed_tree(arrays, prefix: str) -> dict:
    """A network with the heads `wI` of the mean and `w_logstd` as parameters of `policies.gaussian.tanh_gaussian_policy`."""
    tree = dense_tree(arrays, prefix)
    last = tree['params'][f'Dense_{len(tree["params"]) - 1}']
    last['kernel'] = jnp.concatenate([last['kernel'], arrays[f'{prefix}/w_logstd']], axis=-1)
    last['bias'] = jnp.concatenate([last['bias'], arrays[f'{prefix}/b_logstd']], axis=-1)
    return {'network': tree}


def windows(arrays, step: int, gamma: float) -> Transition:
    """The batch of update `step` (from 1) as windows of rows; the record has sums of rewards, discounted, up to each row."""
    batch = {name: arrays[f'batch/{name}'][step - 1] for name in ('obs', 'act', 'rew', 'mask', 'valid', 'next_obs')}
    length = batch['rew'].shape[1]
    reward = np.diff(batch['rew'].astype(np.float64), axis=1, prepend=0.0) / gamma ** np.arange(length)
    observation = np.concatenate([batch['obs'][:, None], batch['next_obs'][:, :-1]], axis=1)
    columns = observation, batch['act'], reward, batch['mask'], batch['next_obs'], {'valid': batch['valid']}
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), Transition(*columns))


def batch(arrays, step: int, **extras) -> Transition:
    """The batch of update `step` (from 1). Columns that a file does not have are zeros."""
    observation = arrays['batch/obs'][step - 1]
    rows = observation.shape[0]

    def column(name, shape):
        return jnp.asarray(arrays[f'batch/{name}'][step - 1]) if f'batch/{name}' in arrays else jnp.zeros(shape)

    discount = 1.0 - column('done', (rows,)) if 'batch/done' in arrays else column('mask', (rows,))
    return Transition(
        observation=jnp.asarray(observation),
        action=column('act', (rows, 3)),
        reward=column('rew', (rows,)),
        discount=discount,
        next_observation=column('next_obs', observation.shape),
        extras={name: jnp.broadcast_to(jnp.asarray(value, jnp.float32), (rows,)) for name, value in extras.items()},
    )


def recorded_gradient() -> optax.GradientTransformation:
    """Leaves gradients as they are and keeps the latest one as its state."""
    return optax.GradientTransformation(
        init=lambda params: jax.tree.map(jnp.zeros_like, params), update=lambda gradient, state, params=None: (gradient, gradient)
    )


class Comparison:
    """Compares with one file and remembers the largest relative error of each kind.

    The relative error of an element is |ours - file| / max(|file|, 1e-3 max |array|).
    """

    def __init__(self, arrays):
        self.arrays = arrays
        self.worst = {}

    def check(self, kind: str, name: str, ours):
        """`ours` must agree with the array called `name` within the tolerances of `kind`."""
        self.check_numbers(kind, name, ours, self.arrays[name])

    def check_tree(self, kind: str, prefix: str, ours):
        """Every array of the network called `prefix` must agree."""
        theirs = dense_tree(self.arrays, prefix)
        assert jax.tree.structure(ours) == jax.tree.structure(theirs)
        for (path, mine), other in zip(jax.tree.leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
            self.check_numbers(kind, prefix + jax.tree_util.keystr(path), mine, other)

    def check_numbers(self, kind: str, name: str, ours, theirs):
        """The comparison itself."""
        ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
        assert ours.shape == theirs.shape, name
        largest = np.abs(theirs).max()
        error = np.abs(ours - theirs) / np.maximum(np.abs(theirs), max(1e-3 * largest, 1e-30))
        self.worst[kind] = max(self.worst.get(kind, 0.0), error.max())
        tolerance = TOLERANCES[kind]
        atol = tolerance['atol'] + tolerance['relative_atol'] * largest
        np.testing.assert_allclose(ours, theirs, rtol=tolerance['rtol'], atol=atol, err_msg=name)
