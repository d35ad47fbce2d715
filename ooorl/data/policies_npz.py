"""Trained policies stored as plain arrays, evaluated in numpy: what the local data sets are made with.

A file holds a multi-layer perceptron as `W0, b0, W1, b1, ...` (`x @ W + b`), where the last pair may be
called `W_mean, b_mean`, and optionally

    act, outact                          activations of hidden layers and of the output:
                                         tanh, relu; tanh, clip, linear
    obs_mean, obs_var, clip_obs, eps     input = clip((o - mean) / sqrt(var + eps), +-clip_obs)
    in_shift, in_scale, out_shift, out_scale
                                         input = (o - shift) / (scale + 1e-8), output * scale + shift
    log_std                              one Gaussian for all states, in output units, before clipping
    W_logstd, b_logstd                   a Gaussian from the last hidden layer, before the tanh

Files that name no activations are ReLU networks with a tanh on the output where they have a state-dependent
Gaussian, else tanh networks with a linear output that is clipped to [-1, 1].
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ooorl.errors import UsageError

_HIDDEN = {'tanh': np.tanh, 'relu': lambda x: np.maximum(x, 0.0)}
_LOG_STD_RANGE = (-20.0, 2.0)


@dataclass(frozen=True, eq=False)
class ArrayPolicy:
    """One loaded policy.

    Attributes:
      arrays: the file's content.
      layers: `((W, b), ...)` in order.
      hidden: name of the hidden activation.
      output: name of the output's, `tanh`, `clip` or `linear`.
      name: the file's name.
      sha256: of the file.
    """

    arrays: dict[str, np.ndarray]
    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    hidden: str
    output: str
    name: str
    sha256: str

    @property
    def observation_size(self) -> int:
        """How many numbers the policy reads."""
        return self.layers[0][0].shape[0]

    @property
    def action_size(self) -> int:
        """How many numbers the policy gives."""
        return self.layers[-1][0].shape[1]

    @property
    def stochastic(self) -> bool:
        """Whether the file knows a spread of actions."""
        return 'log_std' in self.arrays or 'W_logstd' in self.arrays

    def mode(self, observation: np.ndarray) -> np.ndarray:
        """`[..., A]` the most likely actions, in [-1, 1]."""
        return self._squash(self._forward(observation)[0])

    def sample(self, observation: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """`[..., A]` drawn actions, in [-1, 1]; the mode where the policy is deterministic."""
        mean, feature = self._forward(observation)
        if 'W_logstd' in self.arrays:
            log_std = feature @ self.arrays['W_logstd'] + self.arrays['b_logstd']
            std = np.exp(np.clip(log_std, *_LOG_STD_RANGE))
        elif 'log_std' in self.arrays:
            std = np.exp(self.arrays['log_std'])
        else:
            return self._squash(mean)
        return self._squash(mean + std * random.standard_normal(mean.shape))

    def _forward(self, observation):
        a, x = self.arrays, np.asarray(observation, np.float64)
        if 'obs_mean' in a:
            x = (x - a['obs_mean']) / np.sqrt(a['obs_var'] + a['eps'])
            x = np.clip(x, -a['clip_obs'], a['clip_obs'])
        if 'in_shift' in a:
            x = (x - a['in_shift']) / (a['in_scale'] + 1e-8)
        for weight, bias in self.layers[:-1]:
            x = _HIDDEN[self.hidden](x @ weight + bias)
        weight, bias = self.layers[-1]
        mean = x @ weight + bias
        if 'out_shift' in a:
            mean = mean * a['out_scale'] + a['out_shift']
        return mean, x

    def _squash(self, action):
        return np.tanh(action) if self.output == 'tanh' else np.clip(action, -1.0, 1.0)


def load_policy(path: str | Path) -> ArrayPolicy:
    """Reads a policy.

    Raises:
      UsageError: no such file, or not the format of the module.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f'no policy file {path}: give the path of an .npz file with arrays W0, b0, W1, ...')
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: _widen(file[key]) for key in file.files}
    names, index = [], 0
    while f'W{index}' in arrays:
        names.append(str(index))
        index += 1
    names += ['_mean'] if 'W_mean' in arrays else []
    if not names:
        raise UsageError(f'{path} holds {sorted(arrays)}, but a policy needs arrays W0, b0, W1, b1, ...')
    squashed = 'W_logstd' in arrays
    hidden = str(arrays.get('act', 'relu' if squashed else 'tanh'))
    output = str(arrays.get('outact', 'tanh' if squashed else 'linear'))
    if hidden not in _HIDDEN or output not in ('tanh', 'clip', 'linear'):
        raise UsageError(f'{path} asks for activations {hidden!r} and {output!r}; known: tanh, relu; tanh, clip, linear')
    return ArrayPolicy(
        arrays=arrays,
        layers=tuple((arrays[f'W{name}'], arrays[f'b{name}']) for name in names),
        hidden=hidden,
        output=output,
        name=path.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def _widen(array):
    return array.astype(np.float64) if array.dtype.kind == 'f' else array
