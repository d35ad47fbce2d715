"""Gaussian policies.

`gaussian_policy` is IQL's: a diagonal Gaussian in action space whose mean passes through tanh and whose standard
deviation does not depend on the state; draws are clipped to the box. It is not squashed, so there is no log-det term.
`tanh_gaussian_policy` is SAC's: a squashed Gaussian with a state-dependent standard deviation.
`deterministic_policy` is TD3's: tanh of a network, fitted by squared error.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp

from ooorl.errors import UsageError
from ooorl.nn.distributions import gaussian_log_prob, tanh_gaussian_from_noise, tanh_gaussian_log_prob, tanh_gaussian_sample
from ooorl.nn.losses import summed
from ooorl.nn.networks import mlp
from ooorl.policies.noise import beside, drawing
from ooorl.types import DensityPolicy, Policy, Spec
from ooorl.validation import check_choice, check_dropout, check_not_negative


@dataclass(frozen=True, kw_only=True)
class GaussianConfig:
    """Settings of `gaussian_policy`, IQL's; `hidden` and the like of the agent are then those of its other networks."""

    hidden: tuple[int, ...] = (256, 256)  # widths
    dropout: float = 0.0  # rate, while fitting
    layer_norm: str | None = None  # None, or 'before' / 'after' the activation
    log_std_min: float = -5.0  # bounds of the logarithm of the deviation
    log_std_max: float = 2.0  # likewise, from above
    init_log_std: float = 0.0  # where it starts

    def __post_init__(self):
        check_dropout(self.dropout)
        if isinstance(self.log_std_min, float) and not self.log_std_min < self.log_std_max:
            raise UsageError(f'log_std_min must be less than log_std_max; got {self.log_std_min} and {self.log_std_max}')
        check_choice((None, 'before', 'after'), layer_norm=self.layer_norm)


@dataclass(frozen=True, kw_only=True)
class TanhGaussianConfig:
    """Settings of `tanh_gaussian_policy`, SAC's."""

    hidden: tuple[int, ...] = (256, 256)  # widths
    layer_norm: str | None = None  # None, or 'before' / 'after' the activation
    kernel_init: str = 'orthogonal'  # of `networks.mlp`; RLPD 'xavier_uniform'
    last_init: str | None = None  # of the last layer; Cal-QL 'small'
    log_std_affine: tuple[float, ...] | None = None  # learnable factor and offset of the log-deviation; Cal-QL (1, -1)

    def __post_init__(self):
        check_choice((None, 'before', 'after'), layer_norm=self.layer_norm)
        if self.log_std_affine is not None and len(self.log_std_affine) != 2:
            raise UsageError(f'log_std_affine must be a factor and an offset; got {list(self.log_std_affine)}')


@dataclass(frozen=True, kw_only=True)
class DeterministicConfig:
    """Settings of `deterministic_policy`, TD3's."""

    hidden: tuple[int, ...] = (256, 256)  # widths
    layer_norm: str | None = None  # None, or 'before' / 'after' the activation
    exploration_std: float = 0.1  # deviation of the noise on draws

    def __post_init__(self):
        check_not_negative(exploration_std=self.exploration_std)
        check_choice((None, 'before', 'after'), layer_norm=self.layer_norm)


def gaussian_policy(
    spec: Spec,
    hidden: Sequence[int] = (256, 256),
    *,
    dropout: float = 0.0,
    log_std_bounds: tuple[float, float] = (-5.0, 2.0),
    init_log_std: float = 0.0,
    **network_settings,
) -> Policy:
    """pi(a | s) = N(tanh(f(s)), diag(exp(clip(log_std)))^2), log_std a free vector of A numbers.

    `loss` is the negative log-density. Dropout acts in `loss` only.
    Source: Kostrikov et al., arXiv:2110.06169; constants of the official code.
    """
    if all(isinstance(bound, int | float) for bound in log_std_bounds) and not log_std_bounds[0] < log_std_bounds[1]:
        raise UsageError(f'log_std_min must be less than log_std_max; got {log_std_bounds[0]} and {log_std_bounds[1]}')
    network = mlp(hidden, spec.action_dim, dropout=dropout, **network_settings)

    def init(key):
        return {
            'mean': network.init(key, jnp.zeros((1, spec.observation_dim))),
            'log_std': jnp.full((spec.action_dim,), init_log_std, jnp.float32),
        }

    def mean(params, observation, key=None):
        return jnp.tanh(network.apply(params['mean'], observation, key=key))

    def log_std(params):
        return jnp.clip(params['log_std'], *log_std_bounds)

    def decode(params, observation, noise):
        std = beside(noise, jnp.exp(log_std(params)))
        return jnp.clip(beside(noise, mean(params, observation)) + std * noise, -1.0, 1.0)

    def loss(params, observation, action, key, known=None):
        centre = mean(params, observation, key if dropout else None)
        return -gaussian_log_prob(action, centre, log_std(params), known)

    drawn = drawing(decode, spec.action_dim) | {'mode': lambda params, observation, key: mean(params, observation)}
    return Policy(init=init, **drawn, loss=loss, masks=True, facts=lambda params: {'log_std': log_std(params).mean()})


def tanh_gaussian_policy(
    spec: Spec,
    hidden: Sequence[int] = (256, 256),
    *,
    log_std_bounds: tuple[float, float] = (-20.0, 2.0),
    log_std_affine: tuple[float, float] | None = None,
    **network_settings,
) -> DensityPolicy:
    """a = tanh(u), u ~ N(m(s), diag(std(s))^2), one network giving m and the raw log-std.

    Args:
      spec: sizes.
      hidden: widths.
      log_std_bounds: hard clip of log-std.
      log_std_affine: where given, log_std = k * raw + c with learnable scalars started at (k, c); (1, -1) is CQL's.
      **network_settings: of `networks.mlp`.

    `loss` is the negative log-density of the given action, moved 1e-5 inside the box.
    """
    network = mlp(hidden, 2 * spec.action_dim, **network_settings)

    def init(key):
        params = {'network': network.init(key, jnp.zeros((1, spec.observation_dim)))}
        if log_std_affine is not None:
            params['log_std_affine'] = jnp.asarray(log_std_affine, jnp.float32)
        return params

    def moments(params, observation):
        mean, raw = jnp.split(network.apply(params['network'], observation), 2, axis=-1)
        if log_std_affine is not None:
            raw = params['log_std_affine'][0] * raw + params['log_std_affine'][1]
        return mean, jnp.clip(raw, *log_std_bounds)

    def sample_and_log_prob(params, observation, key, num):
        return tanh_gaussian_sample(key, *moments(params, observation), num)

    def loss(params, observation, action, key, known=None):
        return -tanh_gaussian_log_prob(action, *moments(params, observation), known)

    return DensityPolicy(
        init=init,
        sample=lambda params, observation, key, num: sample_and_log_prob(params, observation, key, num)[0],
        decode=lambda params, observation, noise: tanh_gaussian_from_noise(noise, *moments(params, observation))[0],
        noise_dim=spec.action_dim,
        mode=lambda params, observation, key: jnp.tanh(moments(params, observation)[0]),
        loss=loss,
        masks=True,
        sample_and_log_prob=sample_and_log_prob,
    )


def deterministic_policy(
    spec: Spec, hidden: Sequence[int] = (256, 256), *, exploration_std: float = 0.1, **network_settings
) -> Policy:
    """a = tanh(f(s)); `sample` adds Gaussian noise of `exploration_std` and clips; `loss` is the squared error summed over A."""
    network = mlp(hidden, spec.action_dim, **network_settings)

    def centre(params, observation):
        return jnp.tanh(network.apply(params, observation))

    def decode(params, observation, noise):
        return jnp.clip(beside(noise, centre(params, observation)) + exploration_std * noise, -1.0, 1.0)

    def loss(params, observation, action, key, known=None):
        del key
        return summed((centre(params, observation) - action) ** 2, known)

    drawn = drawing(decode, spec.action_dim) | {'mode': lambda params, observation, key=None: centre(params, observation)}
    return Policy(init=lambda key: network.init(key, jnp.zeros((1, spec.observation_dim))), **drawn, loss=loss, masks=True)
